//! Doors for clients that know another filter: SpamAssassin's `spamd` protocol, Rspamd's HTTP, a milter.
//!
//! The first two scan and answer; the mail stays with who asks, so they make no promise of custody. What the
//! milter keeps is the gateway's. Each is shut unless the configuration opens it. Every request is bounded in
//! bytes and time, the connections in number.

pub mod milter;
mod rspamd;
mod spamd;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use crate::learn::{Label, MessageKey};
use crate::mail::{Address, Client, Direction, Envelope, Mail, TransactionId};
use crate::message;
use crate::policy::{self, Policy, Thresholds};
use crate::scan::{Busy, By, LearnedError, Met, Scanned, Scanner, Sharing};
use crate::store::Teacher;
use crate::verdict::{Disposition, Finding};

pub use rspamd::router;
pub use spamd::serve;

/// How long a client may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// Connections of a door at once; further ones wait.
pub const CONNECTIONS: usize = 256;
/// Bytes of the head of a request.
const HEAD_BYTES: usize = 16 << 10;
/// Recipients that a request may name.
const RECIPIENTS: usize = 1_000;

/// What the doors need, as it is now.
pub type Current = Arc<ArcSwap<Service>>;

/// What stands behind the doors.
pub struct Service {
    /// Scans.
    pub scanner: Scanner,
    /// The policy whose thresholds are shown.
    pub policy: Policy,
    /// Which way the mail travels.
    pub direction: Direction,
    /// Whether clients may teach.
    pub may_teach: bool,
    /// Who is taught by what they say of the mail of a person whom they name.
    pub sharing: Sharing,
    /// Bytes of a message.
    pub message_bytes: usize,
    /// Tells the time.
    pub now: fn() -> OffsetDateTime,
}

/// Who asks about a message, and what is known of it.
#[derive(Debug, Clone, Default)]
struct Question {
    client: Option<SocketAddr>,
    helo: String,
    from: Option<Address>,
    recipients: Vec<Address>,
}

/// The answer to a question.
struct Answer {
    scanned: Scanned,
    disposition: Disposition,
    thresholds: Thresholds,
}

/// The names of the fields that mark a message.
const MARKS: [&str; 4] = ["X-Spam-Status", "X-Spam-Flag", "X-Spam-Level", "X-Spam-Checker-Version"];

impl Answer {
    fn score(&self) -> f64 {
        self.scanned.scan.score().points()
    }

    /// The score from which on mail is kept: what other filters call spam.
    fn required(&self) -> f64 {
        self.thresholds.quarantine().points()
    }

    fn is_spam(&self) -> bool {
        self.score() >= self.required()
    }

    fn findings(&self) -> &[Finding] {
        &self.scanned.scan.findings
    }

    fn symbols(&self, separator: &str) -> String {
        let mut names: Vec<&str> = self.findings().iter().map(|finding| finding.symbol.as_str()).collect();
        names.sort_unstable();
        names.join(separator)
    }

    /// The fields that mark a message, as SpamAssassin writes them; each is one of [`MARKS`].
    fn marks(&self) -> Vec<(&'static str, String)> {
        let (score, required) = (self.score(), self.required());
        let yes = if self.is_spam() { "Yes" } else { "No" };
        let tests = self.symbols(",");
        let tests = if tests.is_empty() { "none" } else { &tests };
        let level: String = (1..=50).take_while(|star| f64::from(*star) <= score).map(|_| '*').collect();
        let status = format!("{yes}, score={score:.1} required={required:.1} tests={tests} autolearn=no");
        let flag = if self.is_spam() { "YES" } else { "" };
        let version = concat!("Lazaret ", env!("CARGO_PKG_VERSION"));
        let values = [status, flag.to_owned(), level, version.to_owned()];
        let is_written = |(name, value): &(&str, String)| *name != "X-Spam-Flag" || !value.is_empty();
        MARKS.into_iter().zip(values).filter(is_written).collect()
    }
}

impl Service {
    async fn ask(&self, raw: Bytes, question: Question) -> Result<Answer, Busy> {
        let client = question.client.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let envelope = Envelope {
            id: TransactionId::from_random([0; TransactionId::LEN]),
            direction: self.direction,
            client: Client { helo: question.helo, ..Client::new(client) },
            mail: Mail { reverse_path: question.from, ..Mail::default() },
            recipients: question.recipients.into_iter().take(RECIPIENTS).map(Into::into).collect(),
        };
        // A client that does not say who handed it the message has it with all its fields.
        let met = if question.client.is_some() { Met::InSession } else { Met::AsCopy };
        let mut scanned = self.scanner.scan(raw, &envelope, met, (self.now)()).await?;
        // One answer for all: that of whom is named first.
        scanned.scan = scanned.scan_for(0).into_owned();
        let disposition = match envelope.recipients.first() {
            Some(recipient) => policy::decide(&scanned.scan, &self.policy, &recipient.address),
            None => policy::decide_for_nobody(&scanned.scan, &self.policy),
        };
        Ok(Answer { scanned, disposition, thresholds: self.policy.thresholds })
    }

    /// Learns a message, of a person where one is named and of all otherwise; it is in the log of lessons when this
    /// returns. Says whether that was new.
    async fn teach(&self, raw: Bytes, label: Label, person: Option<Address>) -> Result<bool, LearnedError> {
        let (learned, now) = (self.scanner.learned(), (self.now)());
        let is_for_all = person.is_none() || self.sharing == Sharing::Everyone;
        let by = person.map_or(By::All(Teacher::Cli), |person| By::Person(person, self.sharing));
        let appended = learned.learn(label, vec![raw.clone()], &by, now).await?;
        if appended.already_known == 0 && is_for_all {
            let key = learned.key().clone();
            let message = spawn_blocking(move || MessageKey::of(&message::parse(&raw), &key)).await?;
            learned.imply(message, label, now).await?;
        }
        Ok(appended.already_known == 0)
    }
}

/// Writes points the way other filters do.
fn points(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests;
