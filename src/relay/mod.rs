//! The next hop: where mail goes on to.
//!
//! A before-queue proxy stands between two servers that both keep to the protocol, so it keeps to it
//! twice: every reply of the next hop goes to the client that caused it, and nothing else does. What it
//! must never do is make a reply up. [`Accepted`] can be had only here, and only from the next hop's own
//! 2xx to the end of data, or from a file and its folder on disk; all that is unexpected is an [`enum@Error`],
//! which the client gets as a 4xx. A connection that is not known to be between two transactions is
//! closed, never used again, and a message is never sent twice.
//!
//! Mail takes the first [`Route`] that matches, or the default; of its targets the first that answers.
//! Another is tried only as long as MAIL has no answer: from then on the next hop's word is the client's.

mod config;
mod connection;
mod endpoint;
mod error;
mod forward;
mod health;
mod maildir;
mod next_hop;
mod offers;
mod open;
mod pool;
mod route;
mod server;
mod sign_in;
mod smtp;
mod stream;
pub mod tls;
mod transaction;

use std::sync::Arc;

use crate::mail::{Client, EnhancedCode, Mail, Reply};
use crate::smtp::server::Offers;

pub use config::{Config, Credentials, Match, Route, Target};
pub use error::Error;
pub use next_hop::{InvalidNextHop, NextHop};
pub use transaction::Transaction;

use route::{Hop, Routes};

/// What the header fields that are added on the way may make of a message, in bytes: it is counted on top of
/// the size that the client declares. A longer header is possible, and its message is measured before DATA.
const MAX_ADDED_BYTES: u64 = 2048;

/// Proof that the next hop holds the message durably. Only its own 2xx to the end of data, or the disk's
/// word for file and folder, makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    reply: Reply,
}

impl Accepted {
    /// Returns the reply, which is the client's.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }
}

/// What became of MAIL.
#[derive(Debug)]
pub enum Begun {
    /// The sender was accepted, with this reply.
    Ready(Transaction, Reply),
    /// The sender was refused, with this reply of 4xx or 5xx.
    Refused(Reply),
}

/// What became of a message, for one recipient.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The next hop holds it.
    Accepted(Accepted),
    /// The next hop refused it, with this reply of 4xx or 5xx.
    Refused(Reply),
    /// There is no reply to the end of data; see [`Error::is_ambiguous`].
    Failed(Arc<Error>),
}

/// What became of a client's name and password.
#[derive(Debug)]
pub enum SignedIn {
    /// The next hop took them, with this reply. The way is that client's alone: all that goes over it goes
    /// over connections on which it has signed in.
    Accepted(Relay, Reply),
    /// The next hop refused them, with this reply of 4xx or 5xx.
    Refused(Reply),
}

/// The way to the next hops. Cloning shares its kept connections.
#[derive(Debug, Clone)]
pub struct Relay {
    routes: Arc<Routes>,
}

impl Relay {
    /// Makes the way to the next hops; nothing is opened before it is needed.
    pub fn new(config: Config) -> Self {
        Relay { routes: Arc::new(Routes::new(config)) }
    }

    /// Begins a transaction. Where all recipients would take one route, whoever they are, a connection is
    /// opened or a kept one taken, and the reply is that of the next hop to MAIL; else the sender is
    /// accepted, and MAIL is sent to each next hop before its first recipient.
    ///
    /// A kept connection that turns out to be dead is replaced once. A next hop that is out of reach is
    /// replaced by the next of its route. `client` is named to those that offer XFORWARD.
    ///
    /// # Errors
    /// [`enum@Error`] when no next hop can be asked; that of the last one tried.
    pub async fn begin(&self, client: Option<&Client>, mail: &Mail) -> Result<Begun, Error> {
        Transaction::begin(&self.routes, client, mail).await
    }

    /// Returns what may be offered to a client: what every next hop that is in reach offers, whatever its
    /// route, and the smallest SIZE. What they offered is remembered for some minutes; nothing is offered
    /// when none is in reach. Mechanisms are not among it: who signs in where is not for this side to say.
    pub async fn offers(&self) -> Offers {
        offers::offers(self.routes.hops()).await
    }

    /// Passes a client's name and password on to the next hop's AUTH, over TLS alone. It is the next hop of
    /// the account's route, or of the default one; routes by sender and recipient do not count.
    ///
    /// # Errors
    /// [`Error::NotEncrypted`] where there is no TLS, [`Error::SignIn`] where there is no mechanism that we
    /// know, [`Error::NoTarget`] where there is no server; else what befell the connection to the last one.
    pub async fn sign_in(&self, login: &str, password: &str) -> Result<SignedIn, Error> {
        let Some(credentials) = Credentials::new(login, password) else {
            let text = "The name or the password is malformed";
            return Ok(SignedIn::Refused(Reply::new(535, EnhancedCode(5, 7, 8), text)));
        };
        let routes = Arc::new(self.routes.for_client(&credentials));
        let group = routes.group(0).ok_or(Error::NoTarget)?;
        let mut attempts = group.attempts();
        let mut last = Error::NoTarget;
        while let Some(hop) = attempts.next(group) {
            let Hop::Server(server) = hop else { continue };
            match server.sign_in(&credentials).await {
                Ok(reply) if reply.is_positive() => {
                    return Ok(SignedIn::Accepted(Relay { routes: Arc::clone(&routes) }, reply));
                }
                Ok(reply) => return Ok(SignedIn::Refused(smtp::temporary(reply))),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests;
