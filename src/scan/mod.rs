//! Runs all analysers over one message, under one deadline.
//!
//! The current rule sets and model are held here and swapped whole. Scanning is work for a processor, so
//! it leaves the async threads through one bounded door, for threads of its own: patterns keep caches for each
//! thread that uses them. An analyser that panics or runs out of time adds
//! a [`Degraded`] and takes nobody else's findings away. This module knows no SMTP and no policy.

mod analysis;
mod audit;
mod learned;
mod remembered;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use crossbeam_channel::Sender;
use time::OffsetDateTime;
use tokio::sync::Semaphore;

pub use audit::Contradicted;
pub use learned::{Apart, By, LAYER_LESSONS, LAYERS, Learned, LearnedError, Sharing};

use crate::learn::{Features, Label};
use crate::mail::{Direction, Envelope};
use crate::message::Message;
use crate::metrics::{Counter, Histogram};
#[cfg(test)]
use crate::privacy::InstallationKey;
use crate::privacy::error_chain;
use crate::reputation::Reputation;
use crate::rules::{Organisation, RuleSet};
#[cfg(test)]
use crate::store::Records;
use crate::verdict::{Degraded, Finding, Scan, Symbol};

/// Limits of scanning.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Scans at a time.
    pub concurrency: usize,
    /// Time for one scan, and for the wait until its turn.
    pub timeout: Duration,
}

/// There are more messages to scan than can be scanned; the sender comes back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// The rule sets of both directions.
#[derive(Debug)]
pub struct Rules {
    /// For mail from the world.
    pub inbound: RuleSet,
    /// For mail to the world.
    pub outbound: RuleSet,
    /// Whom the gateway serves.
    pub organisation: Organisation,
}

impl Rules {
    fn of(&self, direction: Direction) -> &RuleSet {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }
}

/// Where a message was met: what the learned models see of its way depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// In the session of its client, of which it bears no field yet.
    InSession,
    /// Later, with the fields of all its sessions, or of none.
    AsCopy,
}

/// What one scan yields: the findings, and the parsed message for who goes on with it.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// The findings.
    pub scan: Scan,
    /// The message as it was parsed; empty when the parser failed.
    pub message: Arc<Message>,
    /// What the learned models made of it.
    pub judged: Option<Judged>,
    /// What was found for one recipient alone, by their place in the envelope.
    pub own: Vec<(usize, Finding)>,
}

/// A message as the learned models see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The score on their scale.
    pub score: f64,
    /// Its features.
    pub features: Arc<Features>,
    /// What it is where rules and both models agree with a margin.
    pub sure: Option<Label>,
}

/// The finding of a message that was not scanned, since a written exemption says so.
const UNSCANNED: Symbol = Symbol::fixed("UNSCANNED_EXEMPT");

impl Scanned {
    /// Returns what is known of a message that an exemption keeps from being scanned: that it was not.
    pub fn exempt() -> Self {
        let finding = Finding::new(UNSCANNED, 0.0, "The client is exempt from scanning.");
        let scan = Scan { findings: vec![finding], ..Scan::default() };
        Scanned { scan, message: Arc::new(Message::default()), judged: None, own: Vec::new() }
    }

    /// Returns what was found for one recipient, by their place in the envelope.
    pub fn scan_for(&self, place: usize) -> Cow<'_, Scan> {
        let mut scan = Cow::Borrowed(&self.scan);
        for finding in self.own_of(place) {
            scan.to_mut().findings.push(finding.clone());
        }
        scan
    }

    /// Returns what was found for one recipient alone.
    pub fn own_of(&self, place: usize) -> impl Iterator<Item = &Finding> {
        self.own.iter().filter(move |(at, _)| *at == place).map(|(_, finding)| finding)
    }
}

/// The scanner. Cloning shares it.
#[derive(Clone)]
pub struct Scanner {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    door: Arc<Semaphore>,
    work: Sender<Work>,
    rules: ArcSwap<Rules>,
    learned: Learned,
    reputation: Reputation,
}

/// What a thread of the scanner does.
type Work = Box<dyn FnOnce() + Send>;

/// Starts threads that work until nobody can hand them anything more.
fn start(threads: usize) -> std::io::Result<Sender<Work>> {
    // As many at a time as there are threads: who is let through the door never waits here.
    let (sender, receiver) = crossbeam_channel::bounded::<Work>(threads);
    for number in 1..=threads {
        let receiver = receiver.clone();
        let work = move || receiver.into_iter().for_each(|work| work());
        std::thread::Builder::new().name(format!("scan-{number}")).spawn(work)?;
    }
    Ok(sender)
}

impl Scanner {
    /// Makes a scanner from rules, what has been learned and what is remembered.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn new(
        config: Config,
        rules: Rules,
        learned: Learned,
        reputation: Reputation,
    ) -> std::io::Result<Self> {
        let threads = config.concurrency.max(1);
        let (door, work) = (Arc::new(Semaphore::new(threads)), start(threads)?);
        let rules = ArcSwap::from_pointee(rules);
        Ok(Scanner { shared: Arc::new(Shared { config, door, work, rules, learned, reputation }) })
    }

    /// Scans one message. A scan that was begun never fails: what could not be done is in `degraded`.
    ///
    /// # Errors
    /// [`Busy`] when its turn does not come in the time of one scan: that is load, not a fault of the message.
    pub async fn scan(
        &self,
        body: Bytes,
        envelope: &Envelope,
        met: Met,
        now: OffsetDateTime,
    ) -> Result<Scanned, Busy> {
        let started = Instant::now();
        let timeout = self.shared.config.timeout;
        let turn = tokio::time::timeout(timeout, Arc::clone(&self.shared.door).acquire_owned()).await;
        let Ok(Ok(permit)) = turn else { return Err(Busy) };
        let shared = Arc::clone(&self.shared);
        let envelope = envelope.clone();
        let layers = tokio::time::timeout(timeout, shared.learned.layers_of(&envelope.recipients)).await;
        let (layers, is_lacking) = match layers {
            Ok(Ok(layers)) => (layers, false),
            Ok(Err(error)) => {
                tracing::error!(error = error_chain(&error), "what persons taught could not be read");
                (Vec::new(), true)
            }
            Err(_) => (Vec::new(), true),
        };
        let (done, scanned) = tokio::sync::oneshot::channel();
        let work = move || {
            let scanned =
                catch_unwind(AssertUnwindSafe(|| shared.analyse(&body, &envelope, met, &layers, Some(now))));
            // The permit travels with the work: a scan that overran its time still counts as one.
            drop(permit);
            // Who waited may be gone.
            scanned.map(|scanned| done.send(scanned).ok()).ok();
        };
        // The channel has room for whom the door lets through; what it refuses is told like what stopped.
        self.shared.work.try_send(Box::new(work)).ok();
        let mut scanned = match tokio::time::timeout(timeout, scanned).await {
            Ok(Ok(scanned)) => scanned,
            Ok(Err(_)) => nothing("stopped"),
            Err(_) => nothing("deadline"),
        };
        if is_lacking {
            scanned.scan.degraded.push(Degraded { analyser: "learned", reason: "layers" });
        }
        scanned.scan.elapsed = started.elapsed();
        for degraded in &scanned.scan.degraded {
            Counter::Degraded.increment(&[("analyser", degraded.analyser)]);
        }
        Histogram::Scan.record(scanned.scan.elapsed);
        Ok(scanned)
    }

    /// Scans a copy of a message on the calling thread, for tools that scan many.
    pub fn scan_here(&self, body: &[u8], envelope: &Envelope) -> Scanned {
        let started = Instant::now();
        let mut scanned = self.shared.analyse(body, envelope, Met::AsCopy, &[], None);
        scanned.scan.elapsed = started.elapsed();
        scanned
    }

    /// Returns what is remembered of earlier mail.
    pub fn reputation(&self) -> &Reputation {
        &self.shared.reputation
    }

    /// Returns what has been learned.
    pub fn learned(&self) -> &Learned {
        &self.shared.learned
    }
}

fn nothing(reason: &'static str) -> Scanned {
    let scan = Scan { degraded: vec![Degraded { analyser: "scan", reason }], ..Scan::default() };
    Scanned { scan, message: Arc::new(Message::default()), judged: None, own: Vec::new() }
}

#[cfg(test)]
impl Scanner {
    /// A scanner with nothing learned but what is in the records, for tests.
    pub(crate) async fn of_test(records: &Records, config: Config, rules: Rules) -> Self {
        let key = InstallationKey::new([0; 32]);
        let state = Arc::new(crate::store::Memory::default());
        let learned = Learned::open(records, state, &key).await.unwrap();
        Scanner::new(config, rules, learned, Reputation::new(Default::default(), &key)).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Address, Client, Mail, TransactionId};
    use crate::rules;
    use crate::store::Teacher;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    async fn scanner(timeout: Duration) -> Scanner {
        scanner_with(RuleSet::compile(&[]).0, timeout).await
    }

    async fn scanner_with(inbound: RuleSet, timeout: Duration) -> Scanner {
        let records = Records::in_memory().await.unwrap();
        let organisation =
            Organisation { authserv_ids: vec!["mx.example.net".to_owned()], ..Organisation::default() };
        let rules = Rules { inbound, outbound: RuleSet::compile(&[]).0, organisation };
        Scanner::of_test(&records, Config { concurrency: 1, timeout }, rules).await
    }

    fn envelope() -> Envelope {
        Envelope {
            id: TransactionId::from_random([0; TransactionId::LEN]),
            direction: Direction::Inbound,
            client: Client { helo: String::new(), ..Client::new("192.0.2.1:25".parse().unwrap()) },
            mail: Mail::default(),
            recipients: vec![Address::parse("alice@example.org").unwrap().into()],
        }
    }

    #[tokio::test]
    async fn what_a_server_in_front_has_verified_is_known_to_rules() {
        let rules = "header A eval:check_dmarc_reject()\nheader B eval:check_for_spf_pass()";
        let rules = RuleSet::compile(&[rules::Source::new("a.cf", rules.as_bytes())]).0;
        let scanner = scanner_with(rules, Duration::from_secs(5)).await;
        let mail = |id: &str| {
            format!(
                "Authentication-Results: {id}; spf=pass smtp.mailfrom=a@example.org; dmarc=fail (p=reject)\r\n\
                 From: a@example.org\r\n\r\nx\r\n"
            )
        };
        for (id, expected) in [("mx.example.net", &["A", "B"][..]), ("mx.example.com", &[])] {
            let scanned =
                scanner.scan(mail(id).into_bytes().into(), &envelope(), Met::InSession, NOW).await.unwrap();
            let symbols = scanned.scan.findings.iter().map(|finding| finding.symbol.as_str());
            assert_eq!(symbols.collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test]
    async fn what_was_learned_is_weighed_once() {
        let lessons = |label, text: &str| -> (Label, Vec<Bytes>) {
            let message =
                |n| Bytes::from(format!("Subject: {text} {n}\r\nMessage-ID: <{n}>\r\n\r\n{text}\r\n"));
            (label, (0..60).map(message).collect())
        };
        let message = b"Subject: lottery\r\n\r\nlottery money winner prize\r\n";
        for (rules, expected) in [
            ("", vec!["BAYES_SPAM"]),
            ("body HIGH eval:check_bayes(0.9, 1.0)\nscore HIGH 0 0 3 3\n", vec!["HIGH"]),
            ("body LOW eval:check_bayes(0, 0.5)\nscore LOW 0 0 -1 -1\n", vec![]),
            ("body HIGH eval:check_bayes(0.9, 1.0)\nscore HIGH 3 3 0 0\n", vec!["BAYES_SPAM"]),
        ] {
            let (set, problems) = RuleSet::compile(&[rules::Source::new("t", rules.as_bytes())]);
            assert!(problems.is_empty(), "{problems:?}");
            let scanner = scanner_with(set, Duration::from_secs(60)).await;
            for (label, messages) in [
                lessons(Label::Spam, "lottery money winner prize"),
                lessons(Label::Ham, "minutes of the meeting"),
            ] {
                let now = time::OffsetDateTime::UNIX_EPOCH;
                scanner.learned().learn(label, messages, &By::All(Teacher::Cli), now).await.unwrap();
            }
            scanner.learned().load().await.unwrap();
            let scanned = scanner.scan_here(message, &envelope());
            let symbols: Vec<&str> =
                scanned.scan.findings.iter().map(|found| found.symbol.as_str()).collect();
            assert_eq!(symbols, expected, "{rules}");
        }
    }

    #[tokio::test]
    async fn a_scan_whose_turn_does_not_come_is_load_and_no_finding() {
        let scanner = scanner(Duration::from_millis(20)).await;
        let turn = Arc::clone(&scanner.shared.door).acquire_owned().await.unwrap();
        assert_eq!(scanner.scan(Bytes::new(), &envelope(), Met::InSession, NOW).await.err(), Some(Busy));
        drop(turn);
        let scanner = self::scanner(Duration::from_secs(60)).await;
        assert!(
            scanner
                .scan(Bytes::new(), &envelope(), Met::InSession, NOW)
                .await
                .unwrap()
                .scan
                .degraded
                .is_empty()
        );
    }
}
