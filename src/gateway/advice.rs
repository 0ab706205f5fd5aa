//! What a mail server is told that passes a message on by itself, and asks about it first.
//!
//! It is a client that takes one answer for all recipients, so the plan is that of a session. Those for whom
//! the message is kept it is told to leave out, or to drop the message where that is all of them: only when
//! the quarantine has committed, or the journal knows that somebody holds it. For the others the mail server
//! has the message and keeps it. Nobody says whether its own client heard a 2xx in the end, so what was
//! kept stays in the journal: a retry is not kept twice.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::custody::{self, Custody};
use super::delivery::{Delivery, Fate};
use super::failure::Failure;
use super::plan::Speaks;
use super::transaction::{failures, hash, known_fates, shown};
use super::{Gateway, trace};
use crate::journal::Attempt;
use crate::mail::{Envelope, Reply};
use crate::metrics::{Counter, Histogram};
use crate::scan::Busy;
use crate::verdict::Scan;

/// What a mail server is told of a message that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// It passes the message on.
    Pass {
        /// The places of the recipients in the envelope whom it leaves out: the message is kept for them.
        without: Vec<usize>,
        /// The fields that it adds on top, in order: names and values.
        fields: Vec<(&'static str, String)>,
    },
    /// It drops the message: it is kept for every recipient.
    Drop,
    /// Its client hears this, a 4xx or 5xx.
    Refuse(Reply),
}

/// Advice, and what the journal has of it.
#[derive(Debug)]
pub struct Advised {
    /// The advice.
    pub advice: Advice,
    /// To be settled when the mail server has surely heard the advice; dropped, there is doubt.
    pub unsettled: Option<Attempt>,
}

impl Gateway {
    /// Scans a message, decides for each recipient, and keeps it for those for whom it is to be kept.
    pub async fn advise(&self, envelope: &Envelope, body: &Bytes) -> Advised {
        let started = Instant::now();
        let mut attempt = self.journal.attempt(envelope, &hash(body).await);
        let is_recognisable = trace::has_identity(body);
        if !is_recognisable {
            attempt.be_unrecognisable();
        }
        let mut fates = known_fates(&attempt, Speaks::Once);
        let (scan, fields) = if fates.iter().all(Option::is_some) {
            (Scan::default(), Vec::new())
        } else {
            self.keep_what_is_doubtful(envelope, body, &mut fates, &mut attempt).await
        };
        let (advice, outcome) = advice(envelope, fates, fields);
        Histogram::Transaction.record(started.elapsed());
        Counter::Transactions.increment(&[("direction", self.direction.as_str()), ("outcome", outcome)]);
        let code = if let Advice::Refuse(reply) = &advice { reply.code() } else { 250 };
        self.log(envelope, body.len(), &scan, outcome, code);
        attempt.answered(code == 250).await;
        let unsettled = (!is_recognisable && code == 250).then_some(attempt);
        Advised { advice, unsettled }
    }

    /// Returns what was found, and the fields that say so.
    async fn keep_what_is_doubtful(
        &self,
        envelope: &Envelope,
        body: &Bytes,
        fates: &mut [Option<Fate>],
        attempt: &mut Attempt,
    ) -> (Scan, Vec<(&'static str, String)>) {
        let (failure, scan) = match self.scan(body, envelope).await {
            Ok(scanned) if trace::is_loop(&scanned, body) => (Failure::Loop, scanned.scan),
            Ok(scanned) => {
                let (steps, flagged) = self.plan(envelope, &scanned, Speaks::Once, fates);
                let delivery = Delivery {
                    relay: &self.relay,
                    quarantine: &self.quarantine,
                    envelope,
                    body,
                    outgoing: &[],
                    scanned: &scanned,
                    speaks: Speaks::Once,
                    now: (self.clock)(),
                };
                delivery.keep_what_is_ours(&steps, fates, attempt).await;
                let shown = shown(&scanned, &steps);
                let fields = trace::marks(self, envelope, &shown, flagged);
                return (shown.into_owned(), fields);
            }
            Err(Busy) => (Failure::Busy, Scan::default()),
        };
        let failure = Arc::new(failure);
        for fate in fates.iter_mut().filter(|fate| fate.is_none()) {
            *fate = Some(Err(Arc::clone(&failure)));
        }
        (scan, Vec::new())
    }
}

/// Makes the one answer of the fates; a recipient without one is the mail server's. Says also the label of the
/// log and the metrics.
fn advice(
    envelope: &Envelope,
    fates: Vec<Option<Fate>>,
    fields: Vec<(&'static str, String)>,
) -> (Advice, &'static str) {
    let without: Vec<usize> =
        fates.iter().enumerate().filter(|(_, fate)| fate.is_some()).map(|(at, _)| at).collect();
    let passes = without.len() < fates.len();
    let fates: Vec<Fate> = fates.into_iter().flatten().collect();
    for failure in failures(&fates) {
        failure.report(&envelope.id);
    }
    if let Some(failure) = custody::worst(&fates) {
        // A refusal counts only where it is everybody's.
        let failure = if passes && failure.is_final() {
            Arc::new(Failure::Internal("a refusal among recipients who get the message"))
        } else {
            failure
        };
        return (Advice::Refuse(failure.to_reply(&envelope.id)), failure.outcome());
    }
    let mut holders = fates.iter().flatten().map(Custody::holder);
    match holders.next() {
        None if passes => (Advice::Pass { without, fields }, "passed"),
        Some(_) if passes => (Advice::Pass { without, fields }, "divided"),
        Some(first) if holders.all(|holder| holder == first) => (Advice::Drop, first),
        Some(_) => (Advice::Drop, "divided"),
        None => {
            let failure = Failure::Internal("a message for nobody");
            (Advice::Refuse(failure.to_reply(&envelope.id)), failure.outcome())
        }
    }
}
