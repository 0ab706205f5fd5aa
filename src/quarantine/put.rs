//! Putting a message in: the body first, then its entries, then the proof.

use bytes::Bytes;
use sqlx::SqliteConnection;
use time::OffsetDateTime;

use super::entry::{EntryId, Parameters, Private, SeenLink, symbols_column};
use super::{Error, Quarantine};
use crate::mail::{Address, Envelope, Recipient, TransactionId};
use crate::message::{Attachment, Message};
use crate::privacy::Redacted;
use crate::store::timestamp::to_column;
use crate::verdict::{Finding, Scan};

/// Characters kept of a subject, a display name, an address in From.
const FIELD_LIMIT_CHARS: usize = 500;
/// Characters of visible text kept for the preview.
const PREVIEW_LIMIT_CHARS: usize = 4_000;
/// Links kept.
const LINKS_LIMIT: usize = 20;
/// Attachments kept.
const ATTACHMENTS_LIMIT: usize = 20;
/// Findings kept, strongest first.
const FINDINGS_LIMIT: usize = 100;
/// Characters kept of one explanation.
const EXPLANATION_LIMIT_CHARS: usize = 600;

/// A message to keep.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Its envelope; the transaction's id names the body.
    pub envelope: &'a Envelope,
    /// The recipients to keep it for; some or all of the envelope's.
    pub recipients: &'a [Recipient],
    /// The bytes as they were accepted.
    pub body: &'a Bytes,
    /// What the reviewer sees of it.
    pub summary: &'a Summary,
    /// What was found in it.
    pub scan: &'a Scan,
    /// What was found for each recipient alone, in their order; those that are missing have nothing of their own.
    pub own: &'a [Vec<Finding>],
    /// When it came.
    pub received_at: OffsetDateTime,
}

/// What the reviewer sees of a message before opening it.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The decoded subject.
    pub subject: Redacted<String>,
    /// The display name of From.
    pub from_name: Redacted<String>,
    /// The address of From as written.
    pub from_address: Redacted<String>,
    /// The visible text.
    pub preview: Redacted<String>,
    /// Its links.
    pub links: Vec<SeenLink>,
    /// Its attachments, in words.
    pub attachments: Redacted<Vec<String>>,
}

impl Summary {
    /// Takes the summary out of a parsed message, cut to what is kept of it.
    pub fn of(message: &Message) -> Self {
        let from = message.from.first();
        Summary {
            subject: cut(&message.subject, FIELD_LIMIT_CHARS),
            from_name: cut(from.map_or("", |mailbox| &mailbox.name), FIELD_LIMIT_CHARS),
            from_address: cut(from.map_or("", |mailbox| &mailbox.address), FIELD_LIMIT_CHARS),
            preview: cut(&message.text, PREVIEW_LIMIT_CHARS),
            links: links(message),
            attachments: Redacted::new(
                message.attachments.iter().take(ATTACHMENTS_LIMIT).map(describe).collect(),
            ),
        }
    }
}

/// Proof that the quarantine holds a message durably. Only a commit makes one.
#[derive(Debug)]
pub struct Kept {
    transaction: TransactionId,
    entries: Vec<EntryId>,
}

impl Kept {
    /// Returns the transaction whose message is kept.
    pub fn transaction(&self) -> &TransactionId {
        &self.transaction
    }

    /// Returns the entries, in the order of the recipients.
    pub fn entries(&self) -> &[EntryId] {
        &self.entries
    }
}

/// Entries that are durable but invisible until the fate of the message's other recipients is known.
///
/// One that is neither committed nor withdrawn is withdrawn at the next start, or by
/// [`Quarantine::purge`] after [`Provisional::LIFETIME`]: nobody was told that the message is kept.
#[derive(Debug)]
#[must_use = "provisional entries are committed or withdrawn"]
pub struct Provisional {
    quarantine: Quarantine,
    transaction: TransactionId,
    entries: Vec<EntryId>,
}

impl Provisional {
    /// How long entries may stay provisional.
    pub const LIFETIME: time::Duration = time::Duration::hours(1);

    /// Makes the entries visible.
    ///
    /// # Errors
    /// [`Error::ProvisionalGone`] when they were withdrawn meanwhile; a store's failure. Either way the
    /// message counts as not kept.
    pub async fn commit(self) -> Result<Kept, Error> {
        let mut write = self.quarantine.records.begin().await?;
        let mut committed = 0;
        for id in &self.entries {
            committed += sqlx::query(
                "UPDATE quarantine_entries SET state = 'kept' WHERE id = ? AND state = 'provisional'",
            )
            .bind(id.as_str())
            .execute(&mut *write)
            .await?
            .rows_affected();
        }
        if committed != self.entries.len() as u64 {
            return Err(Error::ProvisionalGone);
        }
        write.commit().await?;
        Ok(Kept { transaction: self.transaction, entries: self.entries })
    }

    /// Removes the entries and their body.
    ///
    /// # Errors
    /// A store's failure; what is left is withdrawn later.
    pub async fn withdraw(self) -> Result<(), Error> {
        let mut write = self.quarantine.records.begin().await?;
        for id in &self.entries {
            sqlx::query("DELETE FROM quarantine_entries WHERE id = ? AND state = 'provisional'")
                .bind(id.as_str())
                .execute(&mut *write)
                .await?;
        }
        doom(&mut write, &self.transaction).await?;
        write.commit().await?;
        self.quarantine.remove_doomed().await?;
        Ok(())
    }
}

/// Marks a body for removal when no entry is left of it.
pub(super) async fn doom(write: &mut SqliteConnection, body: &TransactionId) -> Result<(), Error> {
    sqlx::query(
        "UPDATE quarantine_bodies SET doomed = 1 WHERE id = ?1 \
         AND NOT EXISTS (SELECT 1 FROM quarantine_entries WHERE body_id = ?1)",
    )
    .bind(body.as_str())
    .execute(write)
    .await?;
    Ok(())
}

impl Quarantine {
    /// Keeps a message for some recipients. It is durable when this returns: the body is synchronised
    /// before the record that names it is committed.
    ///
    /// # Errors
    /// Any failure of a store; nothing of the message is visible then. The same transaction cannot be put
    /// twice.
    pub async fn put(&self, arrival: Arrival<'_>) -> Result<Kept, Error> {
        let entries = self.store(arrival, "kept").await?;
        Ok(Kept { transaction: arrival.envelope.id.clone(), entries })
    }

    /// Whether a transaction's message was kept: whether it has committed entries, whatever became of them.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn is_kept(&self, transaction: &TransactionId) -> Result<bool, Error> {
        let entries: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM quarantine_entries WHERE body_id = ? AND state <> 'provisional'",
        )
        .bind(transaction.as_str())
        .fetch_one(self.records.pool())
        .await?;
        Ok(entries > 0)
    }

    /// Keeps a message as [`Quarantine::put`] does, but invisibly, until it is committed or withdrawn.
    ///
    /// # Errors
    /// As [`Quarantine::put`].
    pub async fn put_provisional(&self, arrival: Arrival<'_>) -> Result<Provisional, Error> {
        let entries = self.store(arrival, "provisional").await?;
        Ok(Provisional { quarantine: self.clone(), transaction: arrival.envelope.id.clone(), entries })
    }

    async fn store(&self, arrival: Arrival<'_>, state: &'static str) -> Result<Vec<EntryId>, Error> {
        if arrival.recipients.is_empty() {
            return Err(Error::NoRecipient);
        }
        let body = &arrival.envelope.id;
        let sealed =
            self.sealer.seal_large(body_place(body), arrival.body.clone()).await.map_err(Error::Seal)?;
        self.bodies.put(body, sealed.into()).await?;
        match self.store_entries(arrival, state).await {
            Ok(entries) => Ok(entries),
            Err(error) => {
                // A commit that failed may still be on disk, so the body goes only when no record names it.
                if matches!(self.is_recorded(body).await, Ok(false))
                    && let Err(error) = self.bodies.delete(body).await
                {
                    tracing::warn!(%body, %error, "a body without a record was left behind");
                }
                Err(error)
            }
        }
    }

    async fn is_recorded(&self, body: &TransactionId) -> Result<bool, Error> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM quarantine_bodies WHERE id = ?")
            .bind(body.as_str())
            .fetch_optional(self.records.pool())
            .await?;
        Ok(found.is_some())
    }

    async fn store_entries(&self, arrival: Arrival<'_>, state: &'static str) -> Result<Vec<EntryId>, Error> {
        let Arrival { envelope, scan, .. } = arrival;
        let size_bytes = i64::try_from(arrival.body.len()).unwrap_or(i64::MAX);
        let sender = envelope.mail.reverse_path.as_ref();
        let from = Address::parse(arrival.summary.from_address.expose()).ok();
        let from_domain = from.as_ref().and_then(Address::domain);

        let mut rows = Vec::with_capacity(arrival.recipients.len());
        for (place, recipient) in arrival.recipients.iter().enumerate() {
            let id = EntryId::random()?;
            let own = arrival.own.get(place).map_or(&[][..], Vec::as_slice);
            let all = Scan { findings: [&scan.findings, own].concat(), ..Scan::default() };
            let (findings, score) = (strongest_first(&all.findings), all.score().points());
            let symbols = symbols_column(findings.iter().map(|finding| &finding.symbol));
            let private = Private {
                subject: cut(arrival.summary.subject.expose(), FIELD_LIMIT_CHARS),
                from_name: cut(arrival.summary.from_name.expose(), FIELD_LIMIT_CHARS),
                from_address: cut(arrival.summary.from_address.expose(), FIELD_LIMIT_CHARS),
                reverse_path: Redacted::new(sender.map(Address::to_path).unwrap_or_default()),
                helo: cut(&envelope.client.helo, FIELD_LIMIT_CHARS),
                recipient: Redacted::new(recipient.address.to_path()),
                preview: cut(arrival.summary.preview.expose(), PREVIEW_LIMIT_CHARS),
                links: arrival.summary.links.iter().take(LINKS_LIMIT).cloned().collect(),
                attachments: arrival.summary.attachments.clone(),
                findings,
                degraded: scan.degraded.iter().map(|d| format!("{}: {}", d.analyser, d.reason)).collect(),
                parameters: Redacted::new(Parameters {
                    body: envelope.mail.body,
                    smtputf8: envelope.mail.smtputf8,
                    require_tls: envelope.mail.require_tls,
                    ret: envelope.mail.ret,
                    envelope_id: envelope.mail.envelope_id.clone(),
                    notify: recipient.notify,
                    original: recipient.original.clone(),
                }),
            };
            rows.push((private.seal(&id, &self.sealer)?, id, recipient, score, symbols));
        }

        let mut write = self.records.begin().await?;
        sqlx::query("INSERT INTO quarantine_bodies (id, size_bytes) VALUES (?, ?)")
            .bind(envelope.id.as_str())
            .bind(size_bytes)
            .execute(&mut *write)
            .await?;
        let mut ids = Vec::with_capacity(rows.len());
        for (sealed, id, recipient, score, symbols) in rows {
            sqlx::query(
                "INSERT INTO quarantine_entries (id, body_id, received_at, expires_at, changed_at, direction, \
                 size_bytes, score, symbols, state, recipient_hash, recipient_domain, sender_hash, \
                 sender_domain, from_hash, from_domain, client_ip, sealed) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(id.as_str())
            .bind(envelope.id.as_str())
            .bind(to_column(arrival.received_at))
            .bind(to_column(arrival.received_at.saturating_add(self.config.retention)))
            .bind(to_column(arrival.received_at))
            .bind(envelope.direction.as_str())
            .bind(size_bytes)
            .bind(score)
            .bind(symbols)
            .bind(state)
            .bind(self.address_hash(&recipient.address).as_str())
            .bind(recipient.address.domain().map_or("", |domain| domain.as_str()))
            .bind(sender.map(|sender| self.address_hash(sender)).as_ref().map(|hash| hash.as_str()))
            .bind(sender.and_then(Address::domain).map(|domain| domain.as_str()))
            .bind(from.as_ref().map(|from| self.address_hash(from)).as_ref().map(|hash| hash.as_str()))
            .bind(from_domain.map(|domain| domain.as_str()))
            .bind(envelope.client.address.ip().to_string())
            .bind(sealed)
            .execute(&mut *write)
            .await?;
            ids.push(id);
        }
        write.commit().await?;
        Ok(ids)
    }
}

/// The name under which a body is sealed.
pub(super) fn body_place(body: &TransactionId) -> String {
    format!("body/{body}")
}

fn cut(text: &str, limit_chars: usize) -> Redacted<String> {
    Redacted::new(text.chars().take(limit_chars).collect())
}

/// Returns where the links of a message go, without the pictures that it loads.
fn links(message: &Message) -> Vec<SeenLink> {
    let mut links: Vec<SeenLink> = Vec::new();
    for link in message.links.iter().filter(|link| link.is_clickable()) {
        let target = cut(&link.target, FIELD_LIMIT_CHARS);
        if links.iter().all(|seen| seen.target != target) {
            links.push(SeenLink { text: cut(&link.text, FIELD_LIMIT_CHARS), target });
        }
        if links.len() == LINKS_LIMIT {
            break;
        }
    }
    links
}

fn describe(attachment: &Attachment) -> String {
    let name: String = attachment.name.as_deref().unwrap_or("without a name").chars().take(200).collect();
    let declared: String = attachment.declared_type.chars().take(100).collect();
    let kilobytes = attachment.size_bytes.div_ceil(1_000);
    let kind = match attachment.detected_type.filter(|detected| *detected != declared) {
        Some(detected) => format!("called {declared}, looks like {detected}"),
        None => declared,
    };
    let macros = if attachment.has_macros { ", with macros" } else { "" };
    let password = if attachment.is_encrypted { ", needs a password" } else { "" };
    format!("{name} ({kilobytes} kB, {kind}{macros}{password})")
}

fn strongest_first(findings: &[Finding]) -> Vec<Finding> {
    let mut findings = findings.to_vec();
    findings.sort_by(|a, b| b.score.points().total_cmp(&a.score.points()));
    findings.truncate(FINDINGS_LIMIT);
    for finding in &mut findings {
        finding.explanation = cut(finding.explanation.expose(), EXPLANATION_LIMIT_CHARS);
    }
    findings
}
