//! A mail server as next hop: kept connections and transactions over them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use crate::mail::{Address, BodyType, EnhancedCode, Mail, Reply};
use crate::relay::connection::Connection;
use crate::relay::{Accepted, Begun, Config, Error, Inner, Outcome};

/// The next hop's connections between transactions.
#[derive(Debug)]
pub(super) struct Pool {
    config: Config,
    host: String,
    port: u16,
    idle: Mutex<Vec<Connection>>,
}

/// A transaction on a connection of its own, after a positive reply to MAIL.
#[derive(Debug)]
pub(super) struct Transaction {
    pool: Arc<Pool>,
    /// `None` once the connection can no longer be trusted.
    connection: Option<Connection>,
    /// Whether 8BITMIME was declared and cannot be passed on, so that the message must be ASCII.
    needs_seven_bits: bool,
}

impl Pool {
    pub(super) fn new(config: Config, host: String, port: u16) -> Self {
        Pool { config, host, port, idle: Mutex::default() }
    }

    pub(super) async fn begin(self: &Arc<Self>, mail: &Mail) -> Result<Begun, Error> {
        if let Some(connection) = self.take() {
            match self.mail(connection, mail).await {
                Err(error @ Error::Timeout { .. }) => return Err(error),
                // It died while it was kept. Nothing of this transaction is there yet: a fresh one is asked.
                Err(_) => {}
                Ok(Begun::Refused(reply)) if reply.code() == 421 => {}
                begun => return begun.map(without_421),
            }
        }
        let connection = Connection::open(&self.host, self.port, &self.config).await?;
        self.mail(connection, mail).await.map(without_421)
    }

    async fn mail(self: &Arc<Self>, mut connection: Connection, mail: &Mail) -> Result<Begun, Error> {
        let offered = connection.capabilities;
        if let (Some(limit @ 1..), Some(size)) = (offered.size, mail.size_bytes)
            && size > limit
        {
            self.keep(connection);
            return Ok(Begun::Refused(Reply::new(552, EnhancedCode(5, 3, 4), "Message too large")));
        }
        let path_is_international = mail.reverse_path.as_ref().is_some_and(Address::is_internationalized);
        if (mail.smtputf8 || path_is_international) && !offered.smtputf8 {
            self.keep(connection);
            let text = "SMTPUTF8 is not supported on the way to the recipient";
            return Ok(Begun::Refused(Reply::new(550, EnhancedCode(5, 6, 7), text)));
        }
        let mut line =
            format!("MAIL FROM:<{}>", mail.reverse_path.as_ref().map(Address::to_path).unwrap_or_default());
        if let (Some(_), Some(size)) = (offered.size, mail.size_bytes) {
            line.push_str(&format!(" SIZE={size}"));
        }
        let is_eight_bit = mail.body == BodyType::EightBitMime;
        if is_eight_bit && offered.eight_bit_mime {
            line.push_str(" BODY=8BITMIME");
        }
        if mail.smtputf8 {
            line.push_str(" SMTPUTF8");
        }
        let reply = connection.command(&line, self.config.command_timeout).await?;
        match reply.code() {
            421 => Ok(Begun::Refused(reply)),
            200..300 => {
                let transaction = Transaction {
                    pool: Arc::clone(self),
                    connection: Some(connection),
                    needs_seven_bits: is_eight_bit && !offered.eight_bit_mime,
                };
                Ok(Begun::Ready(super::Transaction { inner: Inner::Smtp(transaction), recipients: 0 }, reply))
            }
            400..600 => {
                self.keep(connection);
                Ok(Begun::Refused(reply))
            }
            _ => Err(connection.nonsense(&reply)),
        }
    }

    /// Takes the connection that was used last; the older ones may rest and expire.
    fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        self.drop_expired(&mut idle);
        while let Some(mut connection) = idle.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection that is between two transactions.
    fn keep(&self, mut connection: Connection) {
        if connection.messages >= self.config.max_messages || !connection.is_quiet() {
            return;
        }
        connection.idle_since = Instant::now();
        let mut idle = self.lock();
        self.drop_expired(&mut idle);
        if idle.len() < self.config.max_idle {
            idle.push(connection);
        }
    }

    fn drop_expired(&self, idle: &mut Vec<Connection>) {
        idle.retain(|connection| connection.idle_since.elapsed() < self.config.idle_timeout);
    }

    /// The list stays true when a thread panicked with the lock: nothing is half done under it.
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transaction {
    pub(super) async fn rcpt(&mut self, to: &Address) -> Result<Reply, Error> {
        let mut connection = self.connection.take().ok_or(Error::Failed)?;
        let line = format!("RCPT TO:<{}>", to.to_path());
        let reply = connection.command(&line, self.pool.config.command_timeout).await?;
        match reply.code() {
            // The next hop has closed: the transaction is gone with it.
            421 => {}
            200..300 | 400..600 => self.connection = Some(connection),
            _ => return Err(connection.nonsense(&reply)),
        }
        Ok(temporary(reply))
    }

    pub(super) async fn data(mut self, message: &[Bytes]) -> Result<Outcome, Error> {
        let mut connection = self.connection.take().ok_or(Error::Failed)?;
        let config = &self.pool.config;
        if self.needs_seven_bits && !message.iter().all(|part| part.is_ascii()) {
            self.reset(connection).await;
            let text = "8BITMIME is not supported on the way to the recipient";
            return Ok(Outcome::Refused(Reply::new(554, EnhancedCode(5, 6, 3), text)));
        }
        let reply = connection.command("DATA", config.command_timeout).await?;
        match reply.code() {
            354 => {}
            421 => return Ok(Outcome::Refused(temporary(reply))),
            400..600 => {
                self.reset(connection).await;
                return Ok(Outcome::Refused(reply));
            }
            _ => return Err(connection.nonsense(&reply)),
        }
        if let Some(early) = connection.send(message, config.command_timeout).await? {
            return Ok(Outcome::Refused(temporary(early)));
        }
        let reply = connection.read_reply(config.data_timeout).await?;
        match reply.code() {
            200..300 => {
                connection.end_message();
                self.pool.keep(connection);
                Ok(Outcome::Accepted(Accepted { reply }))
            }
            421 => Ok(Outcome::Refused(temporary(reply))),
            400..600 => {
                connection.end_message();
                self.pool.keep(connection);
                Ok(Outcome::Refused(reply))
            }
            _ => Err(connection.nonsense(&reply)),
        }
    }

    pub(super) async fn abandon(mut self) {
        if let Some(connection) = self.connection.take() {
            self.reset(connection).await;
        }
    }

    /// Keeps the connection if the next hop forgets the transaction; a fresh one is as good otherwise.
    async fn reset(&self, mut connection: Connection) {
        match connection.command("RSET", self.pool.config.command_timeout).await {
            Ok(reply) if reply.code() == 250 => self.pool.keep(connection),
            Ok(_) | Err(_) => {}
        }
    }
}

fn without_421(begun: Begun) -> Begun {
    match begun {
        Begun::Refused(reply) => Begun::Refused(temporary(reply)),
        ready @ Begun::Ready(..) => ready,
    }
}

/// The next hop's 421 says that it closes its connection with us. Ours with the client stands, so there
/// the reply is a 451 (RFC 5321, section 3.8: only who closes says 421).
fn temporary(reply: Reply) -> Reply {
    if reply.code() == 421 {
        Reply::plain(451, reply.lines().to_vec()).with_enhanced(reply.enhanced())
    } else {
        reply
    }
}
