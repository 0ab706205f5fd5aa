//! Runs all analysers over one message, under one deadline.
//!
//! The current rule sets and model are held here and swapped whole. Scanning is work for a processor, so
//! it leaves the async threads through one bounded door. An analyser that panics or runs out of time adds
//! a [`Degraded`] and takes nobody else's findings away. This module knows no SMTP and no policy.

mod learned;

#[cfg(test)]
mod learned_tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Semaphore;

pub use learned::{Learned, LearnedError};

use crate::mail::{Direction, Envelope};
use crate::message::{self, Message};
use crate::metrics::{Counter, Histogram};
use crate::rules::RuleSet;
use crate::verdict::{Degraded, Scan};

/// Limits of scanning.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Scans at a time.
    pub concurrency: usize,
    /// Time for one scan, the wait for its turn included.
    pub timeout: Duration,
}

/// The rule sets of both directions.
#[derive(Debug)]
pub struct Rules {
    /// For mail from the world.
    pub inbound: RuleSet,
    /// For mail to the world.
    pub outbound: RuleSet,
}

impl Rules {
    fn of(&self, direction: Direction) -> &RuleSet {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }
}

/// What one scan yields: the findings, and the parsed message for who goes on with it.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// The findings.
    pub scan: Scan,
    /// The message as it was parsed; empty when the parser failed.
    pub message: Arc<Message>,
}

/// The scanner. Cloning shares it.
#[derive(Clone)]
pub struct Scanner {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    door: Arc<Semaphore>,
    rules: ArcSwap<Rules>,
    learned: Learned,
}

impl Scanner {
    /// Makes a scanner from rules and what has been learned.
    pub fn new(config: Config, rules: Rules, learned: Learned) -> Self {
        let door = Arc::new(Semaphore::new(config.concurrency.max(1)));
        Scanner { shared: Arc::new(Shared { config, door, rules: ArcSwap::from_pointee(rules), learned }) }
    }

    /// Scans one message. Never fails: what could not be done is in `degraded`.
    pub async fn scan(&self, body: Bytes, envelope: &Envelope) -> Scanned {
        let started = Instant::now();
        let shared = Arc::clone(&self.shared);
        let envelope = envelope.clone();
        let work = async {
            let Ok(permit) = Arc::clone(&self.shared.door).acquire_owned().await else {
                return None;
            };
            tokio::task::spawn_blocking(move || {
                // The permit travels with the work: a scan that overran its time still counts as one.
                let _permit = permit;
                shared.analyse(&body, &envelope)
            })
            .await
            .ok()
        };
        let mut scanned = match tokio::time::timeout(self.shared.config.timeout, work).await {
            Ok(Some(scanned)) => scanned,
            Ok(None) => nothing("stopped"),
            Err(_) => nothing("deadline"),
        };
        scanned.scan.elapsed = started.elapsed();
        for degraded in &scanned.scan.degraded {
            Counter::Degraded.increment(&[("analyser", degraded.analyser)]);
        }
        Histogram::Scan.record(scanned.scan.elapsed);
        scanned
    }

    /// Scans one message on the calling thread, for tools that scan many.
    pub fn scan_here(&self, body: &[u8], envelope: &Envelope) -> Scanned {
        let started = Instant::now();
        let mut scanned = self.shared.analyse(body, envelope);
        scanned.scan.elapsed = started.elapsed();
        scanned
    }

    /// Returns what has been learned.
    pub fn learned(&self) -> &Learned {
        &self.shared.learned
    }
}

impl Shared {
    fn analyse(&self, body: &[u8], envelope: &Envelope) -> Scanned {
        let mut scan = Scan::default();
        let message = guarded(&mut scan, "message", || message::parse(body)).unwrap_or_else(|| {
            // A message that breaks the parser is still looked at, as raw text.
            Message { text: raw_text(body), ..Message::default() }
        });
        if let Some(findings) = guarded(&mut scan, "rules", || {
            self.rules.load().of(envelope.direction).evaluate(&message, envelope)
        }) {
            scan.findings.extend(findings);
        }
        let opinion = guarded(&mut scan, "learned", || self.learned.judge(&message, Some(&envelope.client)));
        scan.findings.extend(opinion.flatten());
        scan.findings.sort_by(|a, b| b.score.points().abs().total_cmp(&a.score.points().abs()));
        Scanned { scan, message: Arc::new(message) }
    }
}

/// Runs one analyser; a panic becomes a [`Degraded`].
fn guarded<T>(scan: &mut Scan, analyser: &'static str, work: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(work)).ok();
    if result.is_none() {
        Counter::Panics.increment(&[("where", analyser)]);
        tracing::error!(analyser, "an analyser panicked");
        scan.degraded.push(Degraded { analyser, reason: "panic" });
    }
    result
}

fn nothing(reason: &'static str) -> Scanned {
    let scan = Scan { degraded: vec![Degraded { analyser: "scan", reason }], ..Scan::default() };
    Scanned { scan, message: Arc::new(Message::default()) }
}

fn raw_text(body: &[u8]) -> String {
    const LONGEST: usize = 1 << 20;
    String::from_utf8_lossy(body.get(..body.len().min(LONGEST)).unwrap_or_default()).into_owned()
}
