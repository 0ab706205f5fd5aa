//! Listeners and connections: who may come in, how long they may take, how much they may hold.
//!
//! A connection is a [`smtp::server::Session`](crate::smtp::server) on a stream, with a [`Handler`] that
//! decides. This module never sees a verdict: it carries replies. Everything has a bound: sessions in all
//! and from one source, time for a command, a message and a session, memory for the messages of all
//! sessions together. A handler that panics costs its own connection, which is answered 451.

mod config;
mod connection;
mod listener;
mod memory;
mod proxy;
mod serve;
mod source;
mod stream;
pub mod tls;

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::mail::{Client, Mail, Recipient, Reply};
use crate::smtp::server::{Answer, Offers, SignIn, SignInAnswer};

pub use config::{Config, TlsMode};
pub use connection::serve_connection;
pub use listener::{Inherited, ListenAddress, ListenAddressError, Listener};
pub use memory::{Claim, Memory};
pub use serve::serve;
pub use source::Sessions;

/// Makes a handler for each connection.
pub trait Service: Send + Sync + 'static {
    /// The handler of one connection.
    type Handler: Handler;

    /// Called when a connection was accepted. `peer` is the client, by the word of a trusted proxy where
    /// one stands between; on a Unix socket it is 127.0.0.1.
    fn connect(&self, peer: SocketAddr) -> Self::Handler;
}

/// One connection's conversation partner. Every reply goes to the client unchanged; a positive one to
/// `mail` and `rcpt` advances the session, and 421 closes it.
pub trait Handler: Send {
    /// The client says EHLO or LHLO: what may be offered to it.
    fn offers(&mut self, client: &Client) -> impl Future<Output = Offers> + Send;

    /// A step of signing in (RFC 4954).
    fn sign_in(&mut self, client: &Client, step: SignIn) -> impl Future<Output = SignInAnswer> + Send;

    /// A sender wants to begin a transaction. `client` says who, by its own account.
    fn mail(&mut self, client: &Client, mail: &Mail) -> impl Future<Output = Reply> + Send;

    /// A recipient wants to join the open transaction.
    fn rcpt(&mut self, recipient: &Recipient) -> impl Future<Output = Reply> + Send;

    /// The message is whole: lines end with CR LF alone, dots are taken off. Ends the transaction, whatever
    /// the reply; a 2xx says that somebody holds the message.
    fn message(&mut self, body: Bytes) -> impl Future<Output = Answer> + Send;

    /// The client has said something after the answer to its last message, so it has that answer. Called
    /// once for each message that was answered 2xx, unless the client is lost.
    fn settled(&mut self) -> impl Future<Output = ()> + Send;

    /// The open transaction is abandoned: RSET, HELO, a message refused by its framing, a lost client.
    /// Called once for each transaction that did not get as far as `message`.
    fn reset(&mut self) -> impl Future<Output = ()> + Send;
}

#[cfg(test)]
mod tests;
