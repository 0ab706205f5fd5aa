//! Proof that somebody holds the message durably.
//!
//! [`Custody`] cannot be made from anything but the next hop's own acceptance or the quarantine's commit,
//! and nothing else makes the 2xx that answers an end of data (invariant 1).

use crate::mail::{EnhancedCode, Reply, TransactionId};
use crate::quarantine::Kept;
use crate::relay::Accepted;

/// Somebody else holds the message for every recipient; our copy may go.
#[derive(Debug)]
pub struct Custody {
    id: TransactionId,
}

impl Custody {
    /// The next hop took the message for every recipient.
    pub(super) fn relayed(id: &TransactionId, _proof: &Accepted) -> Self {
        Custody { id: id.clone() }
    }

    /// The quarantine holds it for every recipient.
    pub(super) fn kept(id: &TransactionId, _proof: &Kept) -> Self {
        Custody { id: id.clone() }
    }

    /// The next hop took it for some recipients, and the quarantine holds it for the others.
    pub(super) fn divided(id: &TransactionId, _relayed: &Accepted, _kept: &Kept) -> Self {
        Custody { id: id.clone() }
    }

    /// Returns the reply. It is the same whether the message was relayed or kept: a sender of spam learns
    /// nothing from it.
    pub fn into_reply(self) -> Reply {
        Reply::new(250, EnhancedCode(2, 0, 0), format!("accepted as {}", self.id))
    }
}
