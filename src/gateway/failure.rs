//! Why a transaction ends without custody, and what the client hears of it.
//!
//! Each class of failure has one reply: a line that tells nothing but the id, under which the cause stands in
//! the log.

use std::sync::Arc;

use crate::mail::{EnhancedCode, Reply, TransactionId};
use crate::privacy::error_chain;
use crate::{quarantine, relay};

/// Why a transaction ends without custody. Each class has one reply, in [`Failure::to_reply`].
#[derive(Debug)]
pub(super) enum Failure {
    /// The next hop's own refusal, passed on.
    Refused(Reply),
    /// The next hop does not answer or breaks off.
    NextHop(Arc<relay::Error>),
    /// The quarantine cannot take the message.
    Quarantine(quarantine::Error),
    /// There are more messages to scan than can be.
    Busy,
    /// Policy asks the client to come back.
    Deferred,
    /// Another session's attempt at the same message has not ended yet.
    Undecided,
    /// Policy refuses.
    Rejected,
    /// It has passed here too often.
    Loop,
    /// The operating system has no randomness or the clock makes no sense.
    Internal(&'static str),
}

impl Failure {
    /// Returns what the client hears.
    pub(super) fn to_reply(&self, id: &TransactionId) -> Reply {
        match self {
            Failure::Refused(reply) => reply.clone(),
            Failure::NextHop(error) if error.is_ambiguous() => {
                Reply::new(451, EnhancedCode(4, 4, 2), format!("the next hop broke off, try again ({id})"))
            }
            Failure::NextHop(_) => Reply::new(
                451,
                EnhancedCode(4, 4, 1),
                format!("the next hop does not answer, try again ({id})"),
            ),
            Failure::Quarantine(error) if error.is_storage_full() => {
                Reply::new(452, EnhancedCode(4, 3, 1), format!("no room for the message, try again ({id})"))
            }
            Failure::Quarantine(_) | Failure::Internal(_) => {
                Reply::new(451, EnhancedCode(4, 3, 0), format!("local trouble, try again ({id})"))
            }
            Failure::Busy => Reply::new(451, EnhancedCode(4, 3, 2), format!("too busy, try again ({id})")),
            Failure::Deferred => {
                Reply::new(451, EnhancedCode(4, 7, 1), format!("not decided yet, try again ({id})"))
            }
            Failure::Undecided => Reply::new(
                451,
                EnhancedCode(4, 4, 5),
                format!("an earlier attempt is under way, try again ({id})"),
            ),
            Failure::Rejected => {
                Reply::new(554, EnhancedCode(5, 7, 1), format!("refused as unwanted or harmful ({id})"))
            }
            Failure::Loop => Reply::new(554, EnhancedCode(5, 4, 6), format!("too many hops ({id})")),
        }
    }

    /// Whether the client is told not to come back.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Failure::Refused(reply) => reply.is_permanent(),
            Failure::Rejected | Failure::Loop => true,
            Failure::NextHop(_)
            | Failure::Quarantine(_)
            | Failure::Busy
            | Failure::Deferred
            | Failure::Undecided
            | Failure::Internal(_) => false,
        }
    }

    /// Returns the label of the log and the metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Failure::Refused(reply) if reply.is_permanent() => "refused by next hop",
            Failure::Refused(_) => "deferred by next hop",
            Failure::NextHop(_) => "next hop failed",
            Failure::Quarantine(_) => "quarantine failed",
            Failure::Busy => "busy",
            Failure::Deferred => "deferred",
            Failure::Undecided => "undecided",
            Failure::Rejected => "rejected",
            Failure::Loop => "loop",
            Failure::Internal(_) => "internal",
        }
    }

    /// Logs the cause under the id that the client was told.
    pub(super) fn report(&self, id: &TransactionId) {
        match self {
            Failure::NextHop(error) => {
                tracing::warn!(%id, error = error_chain(error.as_ref()), "transaction failed: the next hop");
            }
            Failure::Quarantine(error) => {
                tracing::error!(%id, error = error_chain(error), "transaction failed: the quarantine");
            }
            Failure::Internal(what) => tracing::error!(%id, what, "transaction failed"),
            Failure::Busy => tracing::warn!(%id, "transaction failed: no turn to scan"),
            Failure::Refused(_)
            | Failure::Deferred
            | Failure::Undecided
            | Failure::Rejected
            | Failure::Loop => {}
        }
    }

    /// A next hop that changes its mind between two transactions is not sure of itself: the client tries
    /// again.
    pub(super) fn changed_its_mind(reply: Reply) -> Self {
        Failure::Refused(if reply.is_temporary() {
            reply
        } else {
            Reply::new(451, EnhancedCode(4, 3, 0), "the next hop changed its answer, try again")
        })
    }
}

impl From<relay::Error> for Failure {
    fn from(error: relay::Error) -> Self {
        Failure::NextHop(Arc::new(error))
    }
}

impl From<quarantine::Error> for Failure {
    fn from(error: quarantine::Error) -> Self {
        Failure::Quarantine(error)
    }
}
