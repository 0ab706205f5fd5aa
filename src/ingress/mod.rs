//! Listeners and connections: who may come in, how long they may take, how much they may hold.
//!
//! A connection is a [`smtp::server::Session`](crate::smtp::server) on a stream, with a [`Handler`] that
//! decides. This module never sees a verdict: it carries replies. Everything has a bound: sessions in all
//! and from one source, time for a command, a message and a session, memory for the messages of all
//! sessions together. A handler that panics costs its own connection, which is answered 451.

mod config;
mod connection;
mod memory;
mod source;
mod stream;
pub mod tls;

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::mail::{Client, EnhancedCode, Mail, Recipient, Reply};
use crate::metrics::{Counter, Gauge};
use crate::smtp::server::{Answer, Offers, SignIn, SignInAnswer};

pub use config::{Config, TlsMode};
pub use connection::serve_connection;
pub use memory::Memory;

/// Makes a handler for each connection.
pub trait Service: Send + Sync + 'static {
    /// The handler of one connection.
    type Handler: Handler;

    /// Called when a connection was accepted.
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

/// Pause after a failed accept: the process is out of descriptors, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `shutdown` is true or its sender is gone, then waits for the sessions: each
/// ends at its next command boundary with 421, a message that is being read or decided is finished first,
/// and what is left after [`Config::shutdown_grace`] is cut off.
///
/// `memory` is what messages in flight may take; listeners share it.
pub async fn serve<S: Service>(
    listener: TcpListener,
    config: Config,
    memory: Memory,
    service: Arc<S>,
    mut shutdown: watch::Receiver<bool>,
) {
    let config = Arc::new(config);
    let sources = source::Sources::new(config.max_sessions_per_source);
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = sessions.join_next() => {
                count_panic(&ended);
                continue;
            }
            () = connection::stopped(&mut shutdown) => break,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if sessions.len() >= config.max_sessions {
            turn_away(stream, &config, &Reply::new(421, EnhancedCode(4, 3, 2), "Too many connections"));
            continue;
        }
        let Some(place) = sources.enter(peer.ip()) else {
            let text = "Too many connections from your network";
            turn_away(stream, &config, &Reply::new(421, EnhancedCode(4, 7, 0), text));
            continue;
        };
        Counter::Connections.increment(&config.labels());
        let (config, memory) = (Arc::clone(&config), memory.clone());
        let (service, shutdown) = (Arc::clone(&service), shutdown.clone());
        sessions.spawn(async move {
            let _place = place;
            let _counted = Counted::new();
            if stream.set_nodelay(true).is_err() {
                return;
            }
            let handler = service.connect(peer);
            if let Err(error) =
                serve_connection(stream, peer, None, &config, &memory, handler, shutdown).await
            {
                tracing::debug!(kind = ?error.kind(), "connection lost");
            }
        });
    }
    drop(listener);
    let drained = async {
        while let Some(ended) = sessions.join_next().await {
            count_panic(&ended);
        }
    };
    if tokio::time::timeout(config.shutdown_grace, drained).await.is_err() {
        sessions.shutdown().await;
    }
}

/// Sends one reply without waiting: a client that does not take it at once does without.
fn turn_away(stream: TcpStream, config: &Config, reply: &Reply) {
    Counter::ConnectionsRefused.increment(&config.labels());
    let write =
        |stream: TcpStream| -> io::Result<()> { stream.into_std()?.write_all(reply.to_wire().as_bytes()) };
    if let Err(error) = write(stream) {
        tracing::debug!(kind = ?error.kind(), "connection lost while it was turned away");
    }
}

fn count_panic(ended: &Result<(), JoinError>) {
    if ended.as_ref().is_err_and(JoinError::is_panic) {
        Counter::Panics.increment(&[]);
    }
}

/// An open session in [`Gauge::Sessions`].
struct Counted;

impl Counted {
    fn new() -> Self {
        Gauge::Sessions.add(1.0);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        Gauge::Sessions.add(-1.0);
    }
}

#[cfg(test)]
mod tests;
