//! A mail server as next hop: what is known of it, its kept connections, and MAIL.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::mail::{Client, Mail, Reply};
use crate::metrics::Counter;
use crate::relay::connection::Connection;
use crate::relay::endpoint::FailedExchanges;
use crate::relay::forward;
use crate::relay::health::Health;
use crate::relay::pool::Pool;
use crate::relay::smtp::{self, Started, Transaction};
use crate::relay::{Config, Credentials, Error, Target};
use crate::smtp::client::Capabilities;

/// How long it is remembered what a server offers.
const LEARNED_FOR: Duration = Duration::from_secs(300);
/// How long somebody who only asks what a server offers waits for it.
const LEARNING_PATIENCE: Duration = Duration::from_secs(5);

/// A server that a target names.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) target: Target,
    pub(super) config: Arc<Config>,
    pub(super) pool: Pool,
    /// What all know of it, whoever is signed in.
    shared: Arc<Shared>,
    /// Exchanges of its domain that have failed a short while ago.
    pub(super) failed_exchanges: FailedExchanges,
    /// What a client signs in with; its connections are in a pool of its own.
    client_credentials: Option<Credentials>,
}

#[derive(Debug, Default)]
struct Shared {
    health: Health,
    offered: Mutex<Option<Learned>>,
    /// Held by the one who asks; the others wait for what it finds.
    asking: tokio::sync::Mutex<()>,
}

/// What a server has offered on a connection like those that mail takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learned {
    pub(super) capabilities: Capabilities,
    /// Whether TLS has proved that it is the server that was meant.
    pub(super) is_verified: bool,
    at: Instant,
}

impl Server {
    pub(super) fn new(target: Target, config: Arc<Config>) -> Self {
        let pool = Pool::new(config.max_idle, config.idle_timeout, config.max_messages);
        Server {
            target,
            config,
            pool,
            shared: Arc::default(),
            failed_exchanges: FailedExchanges::default(),
            client_credentials: None,
        }
    }

    /// Returns the same server for a client alone, who has signed in with its own credentials.
    pub(super) fn for_client(&self, credentials: Credentials) -> Self {
        Server {
            target: self.target.clone(),
            config: Arc::clone(&self.config),
            pool: Pool::new(1, self.config.idle_timeout, self.config.max_messages),
            shared: Arc::clone(&self.shared),
            failed_exchanges: FailedExchanges::default(),
            client_credentials: Some(credentials),
        }
    }

    pub(super) fn health(&self) -> &Health {
        &self.shared.health
    }

    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.client_credentials.as_ref().or(self.target.auth.as_ref())
    }

    /// Takes a kept connection, or opens one, and sends MAIL. A kept connection that turns out to be dead is
    /// replaced once.
    pub(super) async fn begin(
        self: &Arc<Self>,
        client: Option<&Client>,
        mail: &Mail,
    ) -> Result<Started, Error> {
        // A connection that has been told of a client serves that client alone, so none is kept.
        let is_told = self.target.xclient && client.is_some();
        if !is_told && let Some(connection) = self.pool.take() {
            match self.mail(connection, client, mail).await {
                Err(error @ Error::Timeout { .. }) => return self.note(Err(error)),
                // It died while it was kept. Nothing of this transaction is there yet: a fresh one is asked.
                Err(_) => {}
                Ok(Started::Refused(reply)) if reply.code() == 421 => {}
                Ok(started) => return Ok(started),
            }
        }
        let started = match self.open(client).await {
            Ok(connection) => self.mail(connection, client, mail).await,
            Err(error) => Err(error),
        };
        self.note(started)
    }

    /// Opens a connection and signs in; returns the reply to that, and keeps the connection if it is 235.
    pub(super) async fn sign_in(&self, credentials: &Credentials) -> Result<Reply, Error> {
        match self.open_with(None, Some(credentials)).await {
            Ok((connection, Some(reply))) => {
                self.health().succeeded();
                if reply.code() == 235 {
                    self.pool.keep(connection);
                }
                Ok(reply)
            }
            Ok((_, None)) => Err(Error::NotEncrypted),
            Err(error) => {
                self.note_error(&error);
                Err(error)
            }
        }
    }

    /// Draws the conclusion for the server's health.
    fn note(&self, started: Result<Started, Error>) -> Result<Started, Error> {
        match &started {
            Ok(Started::Refused(reply)) if reply.code() == 421 => self.has_failed("closing"),
            Ok(_) => self.health().succeeded(),
            Err(error) => self.note_error(error),
        }
        started
    }

    /// Counts a failure and sets the server aside, unless it is a client's own password that fails.
    pub(super) fn note_error(&self, error: &Error) {
        if self.client_credentials.is_some() && matches!(error, Error::SignIn { .. }) {
            Counter::NextHopFailures.increment(&[("kind", error.kind())]);
        } else {
            self.has_failed(error.kind());
        }
    }

    fn has_failed(&self, kind: &'static str) {
        Counter::NextHopFailures.increment(&[("kind", kind)]);
        self.health().failed(self.config.retry_after);
    }

    async fn mail(
        self: &Arc<Self>,
        mut connection: Connection,
        client: Option<&Client>,
        mail: &Mail,
    ) -> Result<Started, Error> {
        if let Some(refusal) = smtp::refusal_ahead(&connection, mail) {
            self.pool.keep(connection);
            return Ok(Started::Refused(refusal));
        }
        let line = smtp::mail_line(&connection, mail);
        let reply = self.announce(&mut connection, client, &line).await?;
        match reply.code() {
            421 => Ok(Started::Refused(reply)),
            200..300 => {
                let transaction = Box::new(Transaction::new(Arc::clone(self), connection, mail));
                Ok(Started::Ready(transaction, reply))
            }
            400..600 => {
                self.pool.keep(connection);
                Ok(Started::Refused(reply))
            }
            _ => Err(connection.nonsense(&reply)),
        }
    }

    /// Sends MAIL, with XFORWARD before it where that is offered: in one go to a server that can take it
    /// so. A refused XFORWARD costs a line in the other log and no mail.
    async fn announce(
        &self,
        connection: &mut Connection,
        client: Option<&Client>,
        mail_line: &str,
    ) -> Result<Reply, Error> {
        let patience = self.config.command_timeout;
        let is_forwarded = client.is_some() || connection.has_forwarded;
        let mut lines = match is_forwarded {
            true => forward::xforward(connection.capabilities.xforward, client),
            false => Vec::new(),
        };
        connection.has_forwarded = client.is_some() && !lines.is_empty();
        let forwards = lines.len();
        lines.push(mail_line.to_owned());
        if !connection.capabilities.pipelining {
            for line in lines.drain(..forwards) {
                let reply = connection.command(&line, patience).await?;
                forwarded(connection, &reply)?;
            }
            return connection.command(mail_line, patience).await;
        }
        let mut wire = lines.join("\r\n");
        wire.push_str("\r\n");
        connection.write(wire.as_bytes(), patience).await?;
        for _ in 0..forwards {
            let reply = connection.read_reply(patience).await?;
            forwarded(connection, &reply)?;
        }
        connection.read_reply(patience).await
    }

    /// Ends a transaction without a message: the connection is kept if the server forgets it.
    pub(super) async fn reset(&self, mut connection: Connection) {
        match connection.command("RSET", self.config.command_timeout).await {
            Ok(reply) if reply.code() == 250 => self.pool.keep(connection),
            Ok(_) | Err(_) => {}
        }
    }

    /// Remembers what the server offers on a connection that mail may take.
    pub(super) fn learn(&self, connection: &Connection) {
        let learned = Learned {
            capabilities: connection.capabilities,
            is_verified: connection.is_verified,
            at: Instant::now(),
        };
        *self.shared.offered.lock().unwrap_or_else(PoisonError::into_inner) = Some(learned);
    }

    fn learned(&self) -> Option<Learned> {
        let offered = *self.shared.offered.lock().unwrap_or_else(PoisonError::into_inner);
        offered.filter(|learned| learned.at.elapsed() < LEARNED_FOR)
    }

    /// Returns what the server offers, from a new connection if that is long ago; `None` if it is out of
    /// reach.
    pub(super) async fn offered(&self) -> Option<Learned> {
        if let Some(learned) = self.learned() {
            return Some(learned);
        }
        let _turn = self.shared.asking.lock().await;
        if let Some(learned) = self.learned() {
            return Some(learned);
        }
        if !self.health().may_try(self.config.connect_timeout) {
            return None;
        }
        let opened = timeout(LEARNING_PATIENCE, self.open(None)).await;
        match opened.unwrap_or(Err(Error::Timeout { ambiguous: false })) {
            Ok(connection) => {
                self.health().succeeded();
                self.pool.keep(connection);
                self.learned()
            }
            Err(error) => {
                self.note_error(&error);
                None
            }
        }
    }
}

fn forwarded(connection: &Connection, reply: &Reply) -> Result<(), Error> {
    match reply.code() {
        421 => Err(Error::Unwilling { code: 421 }),
        200..300 | 400..600 => Ok(()),
        _ => Err(connection.nonsense(reply)),
    }
}
