//! The next hop: where mail goes on to.
//!
//! A before-queue proxy stands between two servers that both keep to the protocol, so it keeps to it
//! twice: every reply of the next hop goes to the client that caused it, and nothing else does. What it
//! must never do is make a reply up. [`Accepted`] can be had only here, and only from the next hop's own
//! 2xx to the end of data, or from a file and its folder on disk; all that is unexpected is an [`enum@Error`],
//! which the client gets as a 4xx. A connection that is not known to be between two transactions is
//! closed, never used again, and a message is never sent twice.

mod connection;
mod maildir;
mod smtp;
pub mod tls;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::mail::{Client, EnhancedCode, Mail, Recipient, Reply};
use crate::smtp::client::ReplyError;
use crate::smtp::data;

/// Where mail goes on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// A mail server. Written `smtp://host:port`; the port is 25 where none is given.
    Smtp {
        /// A name or an address; an IPv6 address without its brackets.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// A Maildir on this machine. Written `maildir:PATH`.
    Maildir {
        /// The folder that holds `tmp`, `new` and `cur`.
        path: PathBuf,
    },
}

/// A text that names no next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a next hop is written smtp://HOST:PORT or maildir:PATH")]
pub struct InvalidNextHop;

impl FromStr for NextHop {
    type Err = InvalidNextHop;

    fn from_str(text: &str) -> Result<Self, InvalidNextHop> {
        if let Some(path) = text.strip_prefix("maildir:") {
            let path = PathBuf::from(path);
            return if path.as_os_str().is_empty() {
                Err(InvalidNextHop)
            } else {
                Ok(NextHop::Maildir { path })
            };
        }
        let rest = text.strip_prefix("smtp://").ok_or(InvalidNextHop)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or(InvalidNextHop)?,
            None => rest.find(':').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, "")),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| InvalidNextHop)?,
            None if port.is_empty() => 25,
            None => return Err(InvalidNextHop),
        };
        let is_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || port == 0 || !host.chars().all(is_host) {
            return Err(InvalidNextHop);
        }
        Ok(NextHop::Smtp { host: host.to_owned(), port })
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::Smtp { host, port } if host.contains(':') => write!(f, "smtp://[{host}]:{port}"),
            NextHop::Smtp { host, port } => write!(f, "smtp://{host}:{port}"),
            NextHop::Maildir { path } => write!(f, "maildir:{}", path.display()),
        }
    }
}

/// How the next hop is used.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where mail goes on to.
    pub next_hop: NextHop,
    /// The name that we give in EHLO.
    pub helo: String,
    /// Time to resolve, connect and be greeted, EHLO included.
    pub connect_timeout: Duration,
    /// Time for the reply to a command, and for the next hop to take a part of a message.
    pub command_timeout: Duration,
    /// Time for the reply to the end of data. Below the ten minutes that clients wait for ours.
    pub data_timeout: Duration,
    /// Connections that are kept open between transactions.
    pub max_idle: usize,
    /// How long a connection is kept.
    pub idle_timeout: Duration,
    /// Messages sent over one connection.
    pub max_messages: usize,
}

impl Config {
    /// Returns the defaults for a next hop and a name of our own.
    pub fn new(next_hop: NextHop, helo: impl Into<String>) -> Self {
        Config {
            next_hop,
            helo: helo.into(),
            connect_timeout: Duration::from_secs(20),
            command_timeout: Duration::from_secs(120),
            data_timeout: Duration::from_secs(300),
            max_idle: 32,
            idle_timeout: Duration::from_secs(30),
            max_messages: 100,
        }
    }
}

/// Why the next hop has not answered. None of these is a refusal of the mail: the client tries again.
#[derive(Debug, Error)]
pub enum Error {
    /// It cannot be reached.
    #[error("connecting to the next hop")]
    Connect(#[source] io::Error),
    /// It did not answer or take the message in time.
    #[error("the next hop is too slow")]
    Timeout {
        /// Whether the final dot may have been sent.
        ambiguous: bool,
    },
    /// The connection failed or was closed.
    #[error("the connection to the next hop is lost")]
    Lost {
        /// Whether the final dot may have been sent.
        ambiguous: bool,
        /// What the system said; an unexpected end of file when the next hop closed.
        #[source]
        source: io::Error,
    },
    /// It sent what is no reply.
    #[error("the next hop sends no replies that can be read")]
    Reply {
        /// Whether the final dot may have been sent.
        ambiguous: bool,
        /// What is wrong with it.
        #[source]
        source: ReplyError,
    },
    /// It sent a reply that does not belong to the command, or one that nobody asked for.
    #[error("the next hop answers with a code that does not fit")]
    Nonsense {
        /// Whether the final dot may have been sent.
        ambiguous: bool,
        /// The code.
        code: u16,
    },
    /// It does not take mail now: its greeting or its reply to EHLO and HELO says so.
    #[error("the next hop takes no mail")]
    Unwilling {
        /// The code.
        code: u16,
    },
    /// The transaction has failed before; it can only be dropped.
    #[error("the transaction with the next hop has failed before")]
    Failed,
    /// The message has a bare CR or LF, which this side never sends. A fault of this program.
    #[error("the message to send has a line end other than CR LF")]
    LineEnd,
    /// The Maildir cannot be written.
    #[error("writing to the Maildir")]
    Maildir {
        /// Whether the message may be there nevertheless.
        ambiguous: bool,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the next hop may hold the message all the same: the final dot may have been sent, and the
    /// reply to it was lost (RFC 1047). Trying again may then deliver the message twice; that is the
    /// client's to decide, by its own retry.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Timeout { ambiguous }
            | Error::Lost { ambiguous, .. }
            | Error::Reply { ambiguous, .. }
            | Error::Nonsense { ambiguous, .. }
            | Error::Maildir { ambiguous, .. } => *ambiguous,
            Error::Connect(_) | Error::Unwilling { .. } | Error::Failed | Error::LineEnd => false,
        }
    }
}

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

/// The way to the next hop. Cloning shares its kept connections.
#[derive(Debug, Clone)]
pub struct Relay {
    transport: Transport,
}

#[derive(Debug, Clone)]
enum Transport {
    Smtp(Arc<smtp::Pool>),
    Maildir(Arc<maildir::Maildir>),
}

/// An open transaction with the next hop. Dropping it closes its connection.
#[derive(Debug)]
pub struct Transaction {
    inner: Inner,
    /// Accepted recipients.
    recipients: usize,
}

#[derive(Debug)]
enum Inner {
    Smtp(smtp::Transaction),
    Maildir(maildir::Delivery),
}

impl Relay {
    /// Makes the way to a next hop; nothing is opened before the first transaction.
    pub fn new(config: Config) -> Self {
        let transport = match config.next_hop.clone() {
            NextHop::Smtp { host, port } => Transport::Smtp(Arc::new(smtp::Pool::new(config, host, port))),
            NextHop::Maildir { path } => Transport::Maildir(Arc::new(maildir::Maildir::new(path))),
        };
        Relay { transport }
    }

    /// Connects, or takes a kept connection, and sends MAIL.
    ///
    /// A kept connection that turns out to be dead is replaced once.
    ///
    /// # Errors
    /// [`enum@Error`] when the next hop cannot be asked.
    pub async fn begin(&self, _client: Option<&Client>, mail: &Mail) -> Result<Begun, Error> {
        match &self.transport {
            Transport::Smtp(pool) => pool.begin(mail).await,
            Transport::Maildir(maildir) => {
                let inner = Inner::Maildir(maildir::Delivery::new(Arc::clone(maildir), mail));
                Ok(Begun::Ready(
                    Transaction { inner, recipients: 0 },
                    Reply::new(250, EnhancedCode(2, 1, 0), "Ok"),
                ))
            }
        }
    }
}

impl Transaction {
    /// Sends RCPT; the reply is the client's.
    ///
    /// # Errors
    /// [`enum@Error`] when there is no reply. The transaction is then of no more use.
    pub async fn rcpt(&mut self, to: &Recipient) -> Result<Reply, Error> {
        let reply = match &mut self.inner {
            Inner::Smtp(transaction) => transaction.rcpt(&to.address).await?,
            Inner::Maildir(delivery) => delivery.rcpt(&to.address),
        };
        self.recipients += usize::from(reply.is_positive());
        Ok(reply)
    }

    /// Sends a message, given in parts: lines end with CR LF, dots are as they are.
    ///
    /// Returns an outcome for each accepted recipient, in their order.
    pub async fn data(self, message: &[Bytes]) -> Vec<Outcome> {
        let recipients = self.recipients;
        let outcome = self.send(message).await.unwrap_or_else(|error| Outcome::Failed(Arc::new(error)));
        vec![outcome; recipients]
    }

    async fn send(self, message: &[Bytes]) -> Result<Outcome, Error> {
        if !data::is_crlf_only(message) {
            return Err(Error::LineEnd);
        }
        match self.inner {
            Inner::Smtp(transaction) => transaction.data(message).await,
            Inner::Maildir(delivery) => delivery.data(message).await,
        }
    }

    /// Ends the transaction without a message. The connection is kept if the next hop answers RSET well.
    pub async fn abandon(self) {
        match self.inner {
            Inner::Smtp(transaction) => transaction.abandon().await,
            Inner::Maildir(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
