//! The way of one message, from MAIL to the reply after the end of data.
//!
//! MAIL and RCPT go through to the next hop as they come, so that its refusals are the client's replies
//! and an unknown user is never bounced. At the end of data the message is scanned, policy decides for
//! each recipient, and the reply is built from [`Custody`] or is no 2xx. Whatever goes wrong here is a
//! 451: the client keeps the message.

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::failure::Failure;
use super::{Custody, Gateway, Standing};
use crate::ingress::Handler;
use crate::mail::{Client, EnhancedCode, Envelope, Mail, Protocol, Recipient, Reply, TransactionId};
use crate::message::HeaderEdits;
use crate::metrics::{Counter, Histogram};
use crate::policy;
use crate::quarantine::{Arrival, Summary};
use crate::relay::{self, Begun, Outcome};
use crate::scan::{Busy, Scanned};
use crate::smtp::server::{Answer, Offers, SignIn, SignInAnswer};
use crate::verdict::{Disposition, Scan};

/// Received fields after which a message is taken to be in a loop (RFC 5321, section 6.3, asks for a
/// limit of at least 100).
const MAX_HOPS: usize = 100;
/// Symbols named in a header field.
const MAX_SYMBOLS_IN_HEADER: usize = 40;

/// How much of what we found goes into the header of a message that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marking {
    /// The id, the score, the symbols and the flag.
    Full,
    /// The id alone.
    Id,
}

/// The transaction of one session: none open, or one that the next hop has begun.
pub struct Transaction {
    gateway: Gateway,
    open: Option<Open>,
}

struct Open {
    envelope: Envelope,
    relay: Option<relay::Transaction>,
}

/// What policy made of the recipients.
struct Decided {
    /// Those who get the message now, and whether it is marked as spam.
    relayed: Vec<Recipient>,
    flagged: bool,
    /// Those for whom it is kept.
    kept: Vec<Recipient>,
}

impl Handler for Transaction {
    async fn offers(&mut self, _client: &Client) -> Offers {
        Offers::default()
    }

    async fn sign_in(&mut self, _client: &Client, _step: SignIn) -> SignInAnswer {
        SignInAnswer::Refused(Reply::new(503, EnhancedCode(5, 5, 1), "there is nothing to sign in to"))
    }

    async fn mail(&mut self, client: &Client, mail: &Mail) -> Reply {
        self.reset().await;
        if let Err(reply) = self.gateway.access.check_client(client, Standing::Stranger) {
            return reply;
        }
        let mut random = [0u8; TransactionId::LEN];
        if getrandom::fill(&mut random).is_err() {
            return Reply::new(451, EnhancedCode(4, 3, 0), "local trouble, try again");
        }
        let envelope = Envelope {
            id: TransactionId::from_random(random),
            direction: self.gateway.direction,
            client: client.clone(),
            mail: mail.clone(),
            recipients: Vec::new(),
        };
        match self.gateway.relay.begin(Some(client), mail).await {
            Ok(Begun::Ready(transaction, reply)) => {
                self.open = Some(Open { envelope, relay: Some(transaction) });
                reply
            }
            Ok(Begun::Refused(reply)) => reply,
            Err(error) => self.fail_command(&envelope.id, error),
        }
    }

    async fn rcpt(&mut self, recipient: &Recipient) -> Reply {
        let Some(open) = &mut self.open else {
            return Reply::new(503, EnhancedCode(5, 5, 1), "MAIL first");
        };
        if let Err(reply) = self.gateway.access.check_recipient(&recipient.address) {
            return reply;
        }
        let Some(transaction) = &mut open.relay else {
            return Failure::Lost.to_reply(&open.envelope.id);
        };
        match transaction.rcpt(recipient).await {
            Ok(reply) => {
                // Named twice, it is one recipient all the same: one entry, one release.
                if reply.is_positive()
                    && open.envelope.recipients.iter().all(|known| known.address != recipient.address)
                {
                    open.envelope.recipients.push(recipient.clone());
                }
                reply
            }
            Err(error) => {
                open.relay = None;
                let id = open.envelope.id.clone();
                self.fail_command(&id, error)
            }
        }
    }

    async fn message(&mut self, body: Bytes) -> Answer {
        let started = std::time::Instant::now();
        let Some(Open { envelope, relay }) = self.open.take() else {
            return Answer::All(Reply::new(503, EnhancedCode(5, 5, 1), "MAIL first"));
        };
        let (result, scan) = match relay {
            // A recipient found the next hop gone; there is nobody to decide for.
            None => (Err(Failure::Lost), Scan::default()),
            Some(relay) => match self.gateway.scanner.scan(body.clone(), &envelope).await {
                Ok(scanned) => (self.dispose(&envelope, relay, &body, &scanned).await, scanned.scan),
                Err(Busy) => {
                    relay.abandon().await;
                    (Err(Failure::Busy), Scan::default())
                }
            },
        };
        let (reply, outcome) = match result {
            Ok((custody, outcome)) => (custody.into_reply(), outcome),
            Err(failure) => {
                failure.report(&envelope.id);
                (failure.to_reply(&envelope.id), failure.outcome())
            }
        };
        Histogram::Transaction.record(started.elapsed());
        Counter::Transactions
            .increment(&[("direction", self.gateway.direction.as_str()), ("outcome", outcome)]);
        self.log(&envelope, body.len(), &scan, outcome, &reply);
        Answer::All(reply)
    }

    async fn settled(&mut self) {}

    async fn reset(&mut self) {
        if let Some(Open { relay: Some(transaction), .. }) = self.open.take() {
            transaction.abandon().await;
        }
    }
}

impl Transaction {
    /// Makes the handler of a new session.
    pub fn new(gateway: Gateway) -> Self {
        Transaction { gateway, open: None }
    }

    /// Decides and acts: relays, keeps, or both, once.
    async fn dispose(
        &self,
        envelope: &Envelope,
        transaction: relay::Transaction,
        body: &Bytes,
        scanned: &Scanned,
    ) -> Result<(Custody, &'static str), Failure> {
        let decided = match self.decide(envelope, body, scanned) {
            Ok(decided) => decided,
            Err(failure) => {
                transaction.abandon().await;
                return Err(failure);
            }
        };
        let id = &envelope.id;
        let now = (self.gateway.clock)();
        let summary = Summary::of(&scanned.message);
        let arrival = Arrival {
            envelope,
            recipients: &decided.kept,
            body,
            summary: &summary,
            scan: &scanned.scan,
            received_at: now,
        };
        if decided.relayed.is_empty() {
            transaction.abandon().await;
            let kept = self.gateway.quarantine.put(arrival).await?;
            return Ok((Custody::kept(id, &kept), "kept"));
        }
        let outgoing = self.outgoing(envelope, body, &scanned.scan, decided.flagged, now)?;
        if decided.kept.is_empty() {
            let accepted = send(transaction, &outgoing).await?;
            return Ok((Custody::relayed(id, &accepted), "relayed"));
        }
        // Recipients differ: what is kept is made durable but invisible first, then the others get the
        // message in a transaction of their own, and its reply settles both (invariant 4).
        transaction.abandon().await;
        let provisional = self.gateway.quarantine.put_provisional(arrival).await?;
        let sent = match self.begin_again(envelope, &decided.relayed).await {
            Ok(transaction) => send(transaction, &outgoing).await,
            Err(failure) => Err(failure),
        };
        match sent {
            Ok(accepted) => {
                let kept = provisional.commit().await?;
                Ok((Custody::divided(id, &accepted, &kept), "divided"))
            }
            Err(failure) => {
                provisional.withdraw().await?;
                Err(failure)
            }
        }
    }

    /// Applies policy to every recipient and brings the answers to what one reply can say.
    fn decide(&self, envelope: &Envelope, body: &Bytes, scanned: &Scanned) -> Result<Decided, Failure> {
        if hops(scanned, body) > MAX_HOPS {
            return Err(Failure::Loop);
        }
        let mut decided = Decided { relayed: Vec::new(), flagged: false, kept: Vec::new() };
        let mut refused = Vec::new();
        for recipient in &envelope.recipients {
            let disposition = policy::decide(&scanned.scan, &self.gateway.policy, &recipient.address);
            Counter::Dispositions.increment(&[
                ("direction", envelope.direction.as_str()),
                ("disposition", disposition.as_str()),
            ]);
            match disposition {
                Disposition::Deliver => decided.relayed.push(recipient.clone()),
                Disposition::Tag => {
                    decided.flagged = true;
                    decided.relayed.push(recipient.clone());
                }
                Disposition::Quarantine => decided.kept.push(recipient.clone()),
                Disposition::Reject => refused.push(recipient.clone()),
                // One reply answers for all of them: if one waits, all wait.
                Disposition::Defer => return Err(Failure::Deferred),
            }
        }
        if decided.relayed.is_empty() && decided.kept.is_empty() {
            return Err(Failure::Rejected);
        }
        // A refusal cannot be told to some of them only, so those are kept: never both taken and refused,
        // never silently dropped.
        decided.kept.append(&mut refused);
        Ok(decided)
    }

    /// Opens a transaction for only those who get the message now. They were all accepted a moment ago; if
    /// one no longer is, nothing is sent and the client hears why.
    async fn begin_again(
        &self,
        envelope: &Envelope,
        recipients: &[Recipient],
    ) -> Result<relay::Transaction, Failure> {
        let mut transaction = match self.gateway.relay.begin(Some(&envelope.client), &envelope.mail).await? {
            Begun::Ready(transaction, _) => transaction,
            Begun::Refused(reply) => return Err(Failure::changed_its_mind(reply)),
        };
        for recipient in recipients {
            let reply = transaction.rcpt(recipient).await?;
            if !reply.is_positive() {
                transaction.abandon().await;
                return Err(Failure::changed_its_mind(reply));
            }
        }
        Ok(transaction)
    }

    /// Returns the message as it leaves: our fields added, forged ones removed, the rest untouched.
    fn outgoing(
        &self,
        envelope: &Envelope,
        body: &Bytes,
        scan: &Scan,
        flagged: bool,
        now: OffsetDateTime,
    ) -> Result<Vec<Bytes>, Failure> {
        let date = now.format(&Rfc2822).map_err(|_| Failure::Internal("the clock is outside of RFC 2822"))?;
        let mut fields = vec![
            ("Received", received(envelope, &self.gateway.hostname, &date)),
            ("X-Lazaret-Id", envelope.id.to_string()),
        ];
        if self.gateway.marking == Marking::Full {
            let symbols: Vec<&str> = scan
                .findings
                .iter()
                .map(|finding| finding.symbol.as_str())
                .take(MAX_SYMBOLS_IN_HEADER)
                .collect();
            fields.push(("X-Spam-Flag", if flagged { "YES" } else { "NO" }.to_owned()));
            fields.push(("X-Lazaret-Score", scan.score().to_string()));
            let symbols = if symbols.is_empty() { "none".to_owned() } else { symbols.join(", ") };
            fields.push(("X-Lazaret-Symbols", symbols));
        }
        let mut edits = HeaderEdits::new();
        for (name, value) in fields {
            edits
                .prepend(name, &value)
                .map_err(|_| Failure::Internal("a header field of ours is malformed"))?;
        }
        Ok(edits.apply(body, is_ours))
    }

    fn fail_command(&self, id: &TransactionId, error: relay::Error) -> Reply {
        let failure = Failure::from(error);
        failure.report(id);
        failure.to_reply(id)
    }

    /// One line per transaction: ids and symbols, no address.
    fn log(&self, envelope: &Envelope, size_bytes: usize, scan: &Scan, outcome: &str, reply: &Reply) {
        let sender = envelope.mail.reverse_path.as_ref().map_or_else(String::new, |address| {
            self.gateway.pseudonyms.pseudonym("address", &address.to_normalized()).to_string()
        });
        let symbols: Vec<&str> = scan.findings.iter().map(|finding| finding.symbol.as_str()).collect();
        tracing::info!(
            id = %envelope.id,
            direction = envelope.direction.as_str(),
            client = %envelope.client.address.ip(),
            sender,
            recipients = envelope.recipients.len(),
            size_bytes,
            score = %scan.score(),
            symbols = symbols.join(","),
            outcome,
            reply = reply.code(),
            scan_us = u64::try_from(scan.elapsed.as_micros()).unwrap_or(u64::MAX),
            "transaction"
        );
    }
}

async fn send(transaction: relay::Transaction, outgoing: &[Bytes]) -> Result<relay::Accepted, Failure> {
    match transaction.data(outgoing).await.into_iter().next() {
        Some(Outcome::Accepted(accepted)) => Ok(accepted),
        Some(Outcome::Refused(reply)) => Err(Failure::Refused(reply)),
        Some(Outcome::Failed(error)) => Err(Failure::NextHop(error)),
        None => Err(Failure::Internal("a message without a recipient")),
    }
}

/// Whether a field name is one that only we may write.
pub(super) fn is_ours(name: &str) -> bool {
    name.get(..10).is_some_and(|prefix| prefix.eq_ignore_ascii_case("X-Lazaret-"))
        || name.eq_ignore_ascii_case("X-Spam-Flag")
}

/// Returns the value of our Received field (RFC 5321, section 4.4). `learn` reads the newest hop from it.
fn received(envelope: &Envelope, hostname: &str, date: &str) -> String {
    let client = &envelope.client;
    let literal = match client.address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => format!("[{ip}]"),
        std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    let protocol = protocol_name(client, envelope.mail.smtputf8);
    format!(
        "from {} ({literal}) by {hostname} (Lazaret) with {protocol} id {}; {date}",
        client.helo, envelope.id
    )
}

/// Returns the "with" of a Received field (RFC 3848, RFC 6531, section 4.3).
fn protocol_name(client: &Client, smtputf8: bool) -> String {
    let base = match (client.protocol, smtputf8) {
        (Protocol::Lmtp, true) => "UTF8LMTP",
        (Protocol::Lmtp, false) => "LMTP",
        (Protocol::Smtp | Protocol::Esmtp, true) => "UTF8SMTP",
        (Protocol::Esmtp, false) => "ESMTP",
        (Protocol::Smtp, false) => return "SMTP".to_owned(),
    };
    let secure = if client.tls.is_some() { "S" } else { "" };
    let signed_in = if client.login.is_some() { "A" } else { "" };
    format!("{base}{secure}{signed_in}")
}

fn hops(scanned: &Scanned, body: &Bytes) -> usize {
    if !scanned.message.headers.is_empty() {
        return scanned.message.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("Received")).count();
    }
    // The parser saw no header: count in the bytes, so that a loop ends all the same.
    body.split(|byte| *byte == b'\n')
        .take_while(|line| !line.is_empty() && *line != b"\r")
        .filter(|line| line.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"Received:")))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_field_names_are_ours() {
        for (name, expected) in [
            ("X-Lazaret-Score", true),
            ("x-lazaret-anything", true),
            ("X-Spam-Flag", true),
            ("X-Spam-Status", false),
            ("X-Lazare", false),
            ("Subject", false),
            ("äöüäöüäöü", false),
        ] {
            assert_eq!(is_ours(name), expected, "{name}");
        }
    }
}
