//! Delivers what people released: the durable outbox, drained one message at a time.
//!
//! The outbox itself is in the records store and belongs to `quarantine`; this is the worker. It says that
//! a message is delivered only after the next hop's own 2xx. If it dies between that and its note, the
//! message is delivered again: at least once, never not at all (RFC 1047).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use thiserror::Error;
use tokio::sync::Notify;

use super::Clock;
use super::transaction::is_ours;
use crate::mail::{Address, Direction, Mail};
use crate::message::HeaderEdits;
use crate::metrics::Gauge;
use crate::privacy::error_chain;
use crate::quarantine::{Failure, Job, Quarantine, Scope};
use crate::relay::{Begun, NextHop, Relay, Sent};

/// Deliveries claimed at a time.
const BATCH: usize = 16;
/// How often the outbox is looked at when nobody says that something is in it: another process may have
/// put it there.
const POLL: Duration = Duration::from_secs(2);

/// Sends mail of our own making, and what was kept, to one next hop.
#[derive(Clone)]
pub struct Sender {
    transport: Transport,
}

#[derive(Clone)]
enum Transport {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Maildir(Relay),
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
    Unreachable,
}

impl Sender {
    /// Makes the sender of a next hop; `relay` is the way into a Maildir.
    pub fn new(next_hop: &NextHop, relay: Relay, hostname: &str, timeout: Duration) -> Self {
        let transport = match next_hop {
            NextHop::Maildir { .. } => Transport::Maildir(relay),
            NextHop::Smtp { host, port } => Transport::Smtp(
                AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
                    .port(*port)
                    .hello_name(ClientId::Domain(hostname.to_owned()))
                    .timeout(Some(timeout))
                    .build(),
            ),
        };
        Sender { transport }
    }

    /// Sends one message to one recipient; `Ok` means that the next hop has it.
    ///
    /// # Errors
    /// A [`SendError`] by the next hop's answer.
    pub async fn send(&self, mail: &Mail, recipient: &Address, message: Vec<u8>) -> Result<(), SendError> {
        match &self.transport {
            Transport::Smtp(transport) => {
                // Our own Address has been through our own grammar, which knows more forms than lettre's.
                let from = mail.reverse_path.as_ref().map(to_lettre);
                let envelope = lettre::address::Envelope::new(from, vec![to_lettre(recipient)])
                    .map_err(|_| SendError::Unreachable)?;
                transport.send_raw(&envelope, &message).await.map(|_| ()).map_err(|error| {
                    match error.status().map(u16::from) {
                        Some(code) if error.is_permanent() => SendError::Permanent(code),
                        Some(code) => SendError::Temporary(code),
                        None => SendError::Unreachable,
                    }
                })
            }
            Transport::Maildir(relay) => {
                let unreachable = |_| SendError::Unreachable;
                let Begun::Ready(mut transaction, _) = relay.begin(mail).await.map_err(unreachable)? else {
                    return Err(SendError::Unreachable);
                };
                transaction.rcpt(recipient).await.map_err(unreachable)?;
                match transaction.data(&[Bytes::from(message)]).await.map_err(unreachable)? {
                    Sent::Accepted(_) => Ok(()),
                    Sent::Refused(reply) => Err(SendError::Temporary(reply.code())),
                }
            }
        }
    }
}

fn to_lettre(address: &Address) -> lettre::Address {
    match address.domain() {
        Some(domain) => lettre::Address::new_dangerous(address.local(), domain.as_str()),
        None => lettre::Address::new_dangerous(address.local(), "localhost"),
    }
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
    /// Works until the future is dropped. A store that fails is tried again.
    pub async fn run(self) {
        loop {
            match self.quarantine.claim_due((self.clock)(), BATCH).await {
                Ok(jobs) if jobs.is_empty() => {
                    let waiting = self.quarantine.waiting().await.unwrap_or_default();
                    Gauge::OutboxWaiting.set(f64::from(u32::try_from(waiting).unwrap_or(u32::MAX)));
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep(POLL) => {}
                    }
                }
                Ok(jobs) => {
                    for job in jobs {
                        self.deliver(&job).await;
                    }
                }
                Err(error) => {
                    tracing::error!(error = %error_chain(&error), "the outbox cannot be read");
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    async fn deliver(&self, job: &Job) {
        let body = match self.quarantine.body(&Scope::All, &job.entry).await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err(Failure::Unreadable),
            Err(error) => {
                tracing::error!(entry = %job.entry, error = %error_chain(&error), "a released body cannot be read");
                Err(Failure::Unreadable)
            }
        };
        let result = match body {
            Ok(body) => self.send(job, &body).await,
            Err(failure) => Err(failure),
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
        let message = edits.apply(body, is_ours).concat();
        sender.send(&job.mail, &job.recipient, message).await.map_err(|error| match error {
            SendError::Temporary(code) => Failure::Temporary(code),
            SendError::Permanent(code) => Failure::Permanent(code),
            SendError::Unreachable => Failure::Unreachable,
        })
    }
}
