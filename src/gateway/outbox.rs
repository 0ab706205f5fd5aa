//! Delivers what people released: the durable outbox, drained one message at a time.
//!
//! The outbox itself is in the records store and belongs to `quarantine`; this is the worker. It says that
//! a message is delivered only after the next hop's own 2xx. If it dies between that and its note, the
//! message is delivered again: at least once, never not at all (RFC 1047).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use thiserror::Error;
use tokio::sync::{Notify, watch};

use super::Clock;
use super::trace::is_ours;
use crate::mail::{Direction, Mail, Recipient, Reply};
use crate::message::HeaderEdits;
use crate::metrics::{Counter, Gauge};
use crate::privacy::error_chain;
use crate::quarantine::{self, Failure, Job, Quarantine, Scope};
use crate::relay::{self, Begun, Outcome, Relay};
use crate::store::SealError;

/// How often the outbox is looked at when nobody says that something is in it: another process may have
/// put it there.
const POLL: Duration = Duration::from_secs(2);
/// Time for one attempt. It ends before its lease does: a release that nobody holds may be recalled.
const ATTEMPT: Duration = Duration::from_secs(9 * 60);
const _: () = assert!(ATTEMPT.as_secs() < quarantine::LEASE.whole_seconds().unsigned_abs());

/// Sends mail of our own making, and what was kept, to one next hop.
#[derive(Clone)]
pub struct Sender {
    relay: Relay,
}

/// Why a message was not sent. It names no address.
#[derive(Debug, Error)]
pub enum SendError {
    /// The next hop refused for now.
    #[error("the next hop answered {0}")]
    Temporary(u16),
    /// The next hop refused for good.
    #[error("the next hop answered {0}")]
    Permanent(u16),
    /// No connection, or it broke, or the answer made no sense.
    #[error("the next hop does not answer")]
    Unreachable(#[source] Arc<relay::Error>),
}

impl Sender {
    /// Makes the sender of a next hop.
    pub fn new(relay: Relay) -> Self {
        Sender { relay }
    }

    /// Sends one message, in parts, to one recipient, by the same way as mail that passes: byte by byte as
    /// it is. `Ok` means that the next hop has it.
    ///
    /// # Errors
    /// A [`SendError`] by the next hop's answer.
    pub async fn send(&self, mail: &Mail, recipient: &Recipient, message: &[Bytes]) -> Result<(), SendError> {
        let mut transaction = match self.relay.begin(None, mail).await? {
            Begun::Ready(transaction, _) => transaction,
            Begun::Refused(reply) => return Err(refused(&reply)),
        };
        let reply = transaction.rcpt(recipient).await?;
        if !reply.is_positive() {
            transaction.abandon().await;
            return Err(refused(&reply));
        }
        match transaction.data(message).await.into_iter().next() {
            Some(Outcome::Accepted(_)) => Ok(()),
            Some(Outcome::Refused(reply)) => Err(refused(&reply)),
            Some(Outcome::Failed(error)) => Err(SendError::Unreachable(error)),
            None => Err(SendError::Unreachable(Arc::new(relay::Error::Failed))),
        }
    }
}

impl From<relay::Error> for SendError {
    fn from(error: relay::Error) -> Self {
        SendError::Unreachable(Arc::new(error))
    }
}

fn refused(reply: &Reply) -> SendError {
    if reply.is_permanent() { SendError::Permanent(reply.code()) } else { SendError::Temporary(reply.code()) }
}

/// The worker that drains the outbox.
pub struct Outbox {
    /// Where the outbox is.
    pub quarantine: Quarantine,
    /// Towards the next hop of inbound mail.
    pub inbound: Sender,
    /// Towards the next hop of outbound mail.
    pub outbound: Sender,
    /// The clock.
    pub clock: Clock,
    /// Told when something was put in.
    pub wake: Arc<Notify>,
}

impl Outbox {
    /// Works until it is told to stop; the attempt that is under way then is finished first. A store that
    /// fails is tried again.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow_and_update() {
            // One at a time: the lease of a second one would run while the first is under way.
            let pause = match self.quarantine.claim_due((self.clock)(), 1).await {
                Ok(jobs) if jobs.is_empty() => {
                    let waiting = self.quarantine.waiting().await.unwrap_or_default();
                    Gauge::OutboxWaiting.set(f64::from(u32::try_from(waiting).unwrap_or(u32::MAX)));
                    true
                }
                Ok(jobs) => {
                    for job in jobs {
                        self.attempt(&job).await;
                    }
                    false
                }
                Err(error) => {
                    tracing::error!(error = %error_chain(&error), "the outbox cannot be read");
                    true
                }
            };
            if pause {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(POLL) => {}
                    stopped = stop.changed() => if stopped.is_err() { return },
                }
            }
        }
    }

    /// Makes one attempt. A panic in it costs that attempt alone: the lease ends, and it is made again.
    async fn attempt(&self, job: &Job) {
        if AssertUnwindSafe(self.deliver(job)).catch_unwind().await.is_err() {
            Counter::Panics.increment(&[]);
            tracing::error!(entry = %job.entry, "an attempt to deliver panicked");
        }
    }

    async fn deliver(&self, job: &Job) {
        let result = match self.quarantine.body(&Scope::All, &job.entry).await {
            Ok(Some(body)) => self.send(job, &body).await,
            Ok(None) => Err(Failure::Unreadable),
            Err(error) => {
                tracing::error!(entry = %job.entry, error = %error_chain(&error), "a released body cannot be read");
                if !matches!(error, quarantine::Error::Seal(SealError::Open)) {
                    // The store fails, not the message: it is tried again when the lease ends.
                    return;
                }
                Err(Failure::Unreadable)
            }
        };
        let noted = match result {
            Ok(()) => {
                tracing::info!(entry = %job.entry, id = %job.transaction, "released");
                self.quarantine.delivered(job, (self.clock)()).await.map(|_| ())
            }
            Err(failure) => {
                let failure_name = failure.to_name();
                tracing::warn!(entry = %job.entry, attempts = job.attempts, failure = failure_name, "not released yet");
                self.quarantine.not_delivered(job, failure, (self.clock)()).await.map(|_| ())
            }
        };
        if let Err(error) = noted {
            tracing::error!(entry = %job.entry, error = %error_chain(&error), "the outbox cannot be written");
        }
    }

    async fn send(&self, job: &Job, body: &Bytes) -> Result<(), Failure> {
        let sender = match job.direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        // The bytes as they were accepted, under the id of their transaction.
        let mut edits = HeaderEdits::new();
        if edits.prepend("X-Lazaret-Id", job.transaction.as_str()).is_err() {
            return Err(Failure::Unreadable);
        }
        let message = edits.apply(body, is_ours);
        match tokio::time::timeout(ATTEMPT, sender.send(&job.mail, &job.recipient, &message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SendError::Temporary(code))) => Err(Failure::Temporary(code)),
            Ok(Err(SendError::Permanent(code))) => Err(Failure::Permanent(code)),
            Ok(Err(SendError::Unreachable(error))) => {
                tracing::warn!(entry = %job.entry, error = %error_chain(&error), "a release was not taken");
                Err(Failure::Unreachable)
            }
            Err(_) => Err(Failure::Unreachable),
        }
    }
}
