//! Proof that somebody holds the message durably, and the answer that is built from it.
//!
//! [`Custody`] cannot be made from anything but the next hop's own acceptance, the quarantine's commit, or
//! the journal's note of one of them, and nothing else makes the 2xx that answers an end of data (invariant
//! 1).

use std::sync::Arc;

use super::delivery::Fate;
use super::failure::Failure;
use super::plan::Speaks;
use crate::journal::Held;
use crate::mail::{EnhancedCode, Reply, TransactionId};
use crate::quarantine::Kept;
use crate::relay::Accepted;
use crate::smtp::server::Answer;

/// Somebody else holds the message for a recipient.
#[derive(Debug, Clone)]
pub struct Custody {
    id: TransactionId,
    holder: &'static str,
}

impl Custody {
    /// The label of what the next hop has taken.
    pub(super) const RELAYED: &'static str = "relayed";

    /// The next hop took the message.
    pub(super) fn relayed(id: &TransactionId, _proof: &Accepted) -> Self {
        Custody { id: id.clone(), holder: Custody::RELAYED }
    }

    /// The quarantine holds it.
    pub(super) fn kept(id: &TransactionId, _proof: &Kept) -> Self {
        Custody { id: id.clone(), holder: "kept" }
    }

    /// One of them took it in an earlier attempt, whose answer the client may not have got.
    pub(super) fn earlier(proof: &Held) -> Self {
        Custody { id: proof.id().clone(), holder: "held" }
    }

    /// Returns the label of the log and the metrics: `relayed`, `kept`, or `held` from an earlier attempt.
    pub(super) fn holder(&self) -> &'static str {
        self.holder
    }

    /// Returns the reply. It is the same whether the message was relayed or kept: a sender of spam learns
    /// nothing from it.
    fn to_reply(&self) -> Reply {
        Reply::new(250, EnhancedCode(2, 0, 0), format!("accepted as {}", self.id))
    }
}

/// Builds the answer to the end of data. `accepted` names, for each RCPT that was accepted, the place of its
/// recipient among the fates; a recipient named twice is answered twice.
pub(super) fn answer(fates: &[Fate], accepted: &[usize], speaks: Speaks, id: &TransactionId) -> Answer {
    let to_reply = |fate: &Fate| match fate {
        Ok(custody) => custody.to_reply(),
        Err(failure) => failure.to_reply(id),
    };
    let overall = |is_taken: bool| match worst(fates) {
        Some(failure) if !is_taken => failure.to_reply(id),
        _ => first_reply(fates, id),
    };
    match speaks {
        // One answer for all: a 2xx needs custody for every recipient.
        Speaks::Once => Answer::All(overall(fates.iter().all(Result::is_ok))),
        Speaks::Each => {
            let replies = accepted.iter().map(|at| match fates.get(*at) {
                Some(fate) => to_reply(fate),
                None => Failure::Internal("a recipient has no fate").to_reply(id),
            });
            Answer::Each(replies.collect(), overall(fates.iter().any(Result::is_ok)))
        }
    }
}

/// Returns the failure that one answer tells. A client that hears of a refusal does not come back, so a
/// refusal counts only where it is everybody's.
pub(super) fn worst(fates: &[Fate]) -> Option<Arc<Failure>> {
    let failures = || fates.iter().filter_map(|fate| fate.as_ref().err());
    match failures().find(|failure| !failure.is_final()) {
        Some(failure) => Some(Arc::clone(failure)),
        None if fates.iter().any(Result::is_ok) => {
            failures().next().map(|_| Arc::new(Failure::Internal("a refusal among recipients in custody")))
        }
        None => failures().next().map(Arc::clone),
    }
}

/// The 2xx, if a recipient is in custody; a 451 if nobody is, which is a fault of this program.
fn first_reply(fates: &[Fate], id: &TransactionId) -> Reply {
    match fates.iter().find_map(|fate| fate.as_ref().ok()) {
        Some(custody) => custody.to_reply(),
        None => Failure::Internal("nobody holds the message").to_reply(id),
    }
}
