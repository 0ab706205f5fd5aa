//! One transaction end to end, and the release of what was kept.
//!
//! `transaction` is the way of a message on one page; read it first. `custody` makes the only 2xx that an
//! end of data can get. `access` says who may send here, and `login` lets them sign in. `outbox` delivers
//! what people released; `review` is what they may do. `advice` is the other way for a message: its mail server
//! passes it on by itself, and asks.

mod access;
mod advice;
mod custody;
mod delivery;
#[cfg(test)]
mod delivery_tests;
mod failure;
mod login;
mod outbox;
#[cfg(test)]
mod outbox_tests;
mod plan;
mod review;
mod trace;
mod transaction;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod transaction_hop;
#[cfg(test)]
mod transaction_tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use time::OffsetDateTime;

pub use access::{Access, Clients, Fingerprint, InvalidFingerprint, Standing};
pub use advice::{Advice, Advised};
pub use custody::Custody;
pub use login::{Authority, Login, Passwords, SignIns};
pub use outbox::{Outbox, SendError, Sender};
pub use review::Review;
pub use trace::{Marking, is_ours};
pub use transaction::Transaction;

use crate::ingress;
use crate::journal::Journal;
use crate::mail::Direction;
use crate::policy::Policy;
use crate::privacy::PseudonymKey;
use crate::quarantine::Quarantine;
use crate::relay::Relay;
use crate::scan::Scanner;

/// Tells the time; a test tells it what it wants.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// One direction of the gateway: what every transaction of a listener shares.
#[derive(Clone)]
pub struct Gateway {
    /// Which way mail travels here.
    pub direction: Direction,
    /// The name in our Received fields.
    pub hostname: Arc<str>,
    /// Who may hand us mail for whom.
    pub access: Access,
    /// How clients sign in.
    pub sign_ins: SignIns,
    /// The next hop.
    pub relay: Relay,
    /// The scanner.
    pub scanner: Scanner,
    /// Clients whose mail is not scanned: a written exemption, logged at the start.
    pub unscanned: Arc<[IpNet]>,
    /// Whether messages are remembered for what reports of others imply.
    pub implies: bool,
    /// Whether messages on which all agree teach.
    pub learns_by_itself: bool,
    /// Addresses that nobody uses, normalized: what is sent to them is spam.
    pub traps: Arc<HashSet<String>>,
    /// The policy of the direction.
    pub policy: Arc<Policy>,
    /// What is written into the header of what passes.
    pub marking: Marking,
    /// The quarantine.
    pub quarantine: Quarantine,
    /// What answers a client that did not get our answer.
    pub journal: Journal,
    /// The key of pseudonyms in the log.
    pub pseudonyms: PseudonymKey,
    /// The clock.
    pub clock: Clock,
}

impl ingress::Service for Gateway {
    type Handler = Transaction;

    fn connect(&self, _peer: SocketAddr) -> Transaction {
        Transaction::new(self.clone())
    }
}
