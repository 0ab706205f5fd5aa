//! One kept message for one recipient: what the reviewer sees, and how it stands in its row.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use super::{Error, Failure};
use crate::mail::{BodyType, Client, Direction, Notify, Return, TransactionId};
use crate::privacy::Redacted;
use crate::store::Sealer;
use crate::store::timestamp::from_column;
use crate::verdict::{Finding, Score, Symbol};

/// The name of one entry: random, in the form of a [`TransactionId`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(TransactionId);

impl EntryId {
    /// Draws a new id.
    pub(super) fn random() -> Result<Self, Error> {
        let mut bytes = [0u8; TransactionId::LEN];
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        Ok(EntryId(TransactionId::from_random(bytes)))
    }

    /// Reads an id that somebody sent; `None` unless it has the exact form.
    pub fn parse(text: &str) -> Option<Self> {
        TransactionId::parse(text).map(EntryId)
    }

    /// Returns the characters.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody has decided yet.
    Kept,
    /// Released, and on its way to the next hop.
    Releasing,
    /// The next hop has it.
    Released,
    /// Released, but the next hop refused it for good or was not reached for days.
    Failed,
    /// A person said that it is spam.
    Confirmed,
    /// A person did not want it.
    Dropped,
}

impl State {
    /// Every state, undecided first.
    pub const ALL: [State; 6] =
        [State::Kept, State::Releasing, State::Released, State::Failed, State::Confirmed, State::Dropped];

    /// Returns its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Kept => "kept",
            State::Releasing => "releasing",
            State::Released => "released",
            State::Failed => "failed",
            State::Confirmed => "confirmed",
            State::Dropped => "dropped",
        }
    }

    /// Reads what [`State::as_str`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        State::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// What the reviewer sees of an entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// The transaction that brought it, as in the log and in the reply to the client.
    pub transaction: TransactionId,
    /// When it came.
    pub received_at: OffsetDateTime,
    /// When retention removes it.
    pub expires_at: OffsetDateTime,
    /// When its state changed last.
    pub changed_at: OffsetDateTime,
    /// Which way it travelled.
    pub direction: Direction,
    /// Size of the message.
    pub size_bytes: u64,
    /// The sum of the findings.
    pub score: Score,
    /// Where it stands.
    pub state: State,
    /// Who handed it to us.
    pub client_ip: Option<IpAddr>,
    /// The lesson that a person's decision taught, while it is in force.
    pub lesson: Option<i64>,
    /// The delivery, while the entry is being released.
    pub delivery: Option<Delivery>,
    /// Why the last release failed for good.
    pub failure: Option<Failure>,
    /// What is sealed in the store.
    pub private: Private,
}

/// How far a release has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Attempts that ended.
    pub attempts: u32,
    /// When the next attempt is due.
    pub due_at: OffsetDateTime,
    /// How the last attempt failed.
    pub last_failure: Option<Failure>,
}

/// The personal part of an entry, sealed as one text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Private {
    /// The decoded subject.
    #[serde(with = "crate::privacy::exposed")]
    pub subject: Redacted<String>,
    /// The display name of From; empty where there is none.
    #[serde(with = "crate::privacy::exposed")]
    pub from_name: Redacted<String>,
    /// The address of From as written; empty where there is none.
    #[serde(with = "crate::privacy::exposed")]
    pub from_address: Redacted<String>,
    /// The reverse-path; empty for the null one.
    #[serde(with = "crate::privacy::exposed")]
    pub reverse_path: Redacted<String>,
    /// What the client said after HELO or EHLO.
    #[serde(with = "crate::privacy::exposed")]
    pub helo: Redacted<String>,
    /// The recipient of this entry.
    #[serde(with = "crate::privacy::exposed")]
    pub recipient: Redacted<String>,
    /// The first characters of the visible text.
    #[serde(with = "crate::privacy::exposed")]
    pub preview: Redacted<String>,
    /// Where its links go, each place once, in order of appearance; the first few.
    #[serde(default)]
    pub links: Vec<SeenLink>,
    /// What is attached: name, type and size, as a person reads them; the first few.
    #[serde(default, with = "crate::privacy::exposed")]
    pub attachments: Redacted<Vec<String>>,
    /// What was found, strongest first.
    pub findings: Vec<Finding>,
    /// The analysers that did not do their work.
    pub degraded: Vec<String>,
    /// How the client asked for it to be sent; a release asks for the same.
    #[serde(with = "crate::privacy::exposed")]
    pub parameters: Redacted<Parameters>,
}

/// The parameters of MAIL and RCPT that a release repeats.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Parameters {
    /// The declared body type (RFC 6152, RFC 3030).
    pub body: BodyType,
    /// Whether the client asked for SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Whether the message may travel over verified TLS alone (RFC 8689).
    pub require_tls: bool,
    /// RET of a delivery status notification (RFC 3461).
    pub ret: Option<Return>,
    /// ENVID.
    pub envelope_id: Option<String>,
    /// NOTIFY.
    pub notify: Option<Notify>,
    /// ORCPT.
    pub original: Option<String>,
}

/// A link as a reader sees it, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenLink {
    /// The visible text; empty where there is none.
    #[serde(with = "crate::privacy::exposed")]
    pub text: Redacted<String>,
    /// The target.
    #[serde(with = "crate::privacy::exposed")]
    pub target: Redacted<String>,
}

impl Entry {
    /// Returns the client of the transaction, as it was seen in the session; `None` where it is not known.
    pub fn client(&self) -> Option<Client> {
        let address = SocketAddr::new(self.client_ip?, 0);
        Some(Client { helo: self.private.helo.expose().clone(), ..Client::new(address) })
    }

    /// Returns the finding that tells a person best why the message was kept: the strongest, but a rule
    /// before the learned words, which it often sums up, unless it weighs less than a third of them.
    pub fn main_finding(&self) -> Option<&Finding> {
        let speaks_against = |finding: &&Finding| finding.score.points() > 0.0;
        let strongest = self.private.findings.first().filter(speaks_against)?;
        let enough = strongest.score.points() / 3.0;
        let rule = self.private.findings.iter().find(|finding| {
            finding.score.points() >= enough && !finding.symbol.as_str().starts_with("BAYES")
        });
        rule.or(Some(strongest))
    }
}

impl Private {
    pub(super) fn seal(&self, id: &EntryId, sealer: &Sealer) -> Result<Vec<u8>, Error> {
        let text = serde_json::to_vec(self).map_err(Error::Record)?;
        sealer.seal(&place(id), &text).map_err(Error::Seal)
    }

    pub(super) fn open(sealed: &[u8], id: &EntryId, sealer: &Sealer) -> Result<Self, Error> {
        let text = sealer.open(&place(id), sealed).map_err(Error::Seal)?;
        serde_json::from_slice(&text).map_err(Error::Record)
    }
}

fn place(id: &EntryId) -> String {
    format!("entry/{id}")
}

/// The columns that [`read`] needs, of `quarantine_entries e LEFT JOIN outbox o`.
pub(super) const COLUMNS: &str = "e.id, e.body_id, e.received_at, e.expires_at, e.changed_at, e.direction, \
    e.size_bytes, e.score, e.state, e.client_ip, e.lesson, e.failure, e.sealed, \
    o.attempts, o.due_at, o.last_failure \
    FROM quarantine_entries e LEFT JOIN outbox o ON o.entry_id = e.id ";

/// Reads a row of [`COLUMNS`] and opens its sealed part.
pub(super) fn read(row: &SqliteRow, sealer: &Sealer) -> Result<Entry, Error> {
    let id = EntryId::parse(row.try_get("id")?).ok_or(Error::Malformed("id"))?;
    let private = Private::open(row.try_get("sealed")?, &id, sealer)?;
    let attempts: Option<i64> = row.try_get("attempts")?;
    let delivery = match attempts {
        Some(attempts) => Some(Delivery {
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            due_at: from_column(row.try_get("due_at")?),
            last_failure: row.try_get::<Option<&str>, _>("last_failure")?.and_then(Failure::from_name),
        }),
        None => None,
    };
    Ok(Entry {
        transaction: TransactionId::parse(row.try_get("body_id")?).ok_or(Error::Malformed("body_id"))?,
        received_at: from_column(row.try_get("received_at")?),
        expires_at: from_column(row.try_get("expires_at")?),
        changed_at: from_column(row.try_get("changed_at")?),
        direction: Direction::from_name(row.try_get("direction")?).ok_or(Error::Malformed("direction"))?,
        size_bytes: u64::try_from(row.try_get::<i64, _>("size_bytes")?).unwrap_or(0),
        score: Score::new(row.try_get("score")?),
        state: State::from_name(row.try_get("state")?).ok_or(Error::Malformed("state"))?,
        client_ip: row.try_get::<&str, _>("client_ip")?.parse().ok(),
        lesson: row.try_get("lesson")?,
        delivery,
        failure: row.try_get::<Option<&str>, _>("failure")?.and_then(Failure::from_name),
        private,
        id,
    })
}

/// Returns the symbols as they stand in their column: a space before, between and after them.
pub(super) fn symbols_column<'a>(symbols: impl Iterator<Item = &'a Symbol>) -> String {
    let mut column = String::from(" ");
    for symbol in symbols {
        column.push_str(symbol.as_str());
        column.push(' ');
    }
    column
}
