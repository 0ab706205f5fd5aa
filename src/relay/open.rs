//! A new connection: reached, greeted, encrypted, told who we are and who the client is, signed in.
//!
//! What must be encrypted is, or there is no connection. Opportunistic TLS does without where the server
//! does not offer it, and where the handshake fails: then on a new connection, never on the one that failed.

use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::mail::{Client, Reply};
use crate::privacy::error_chain;
use crate::relay::connection::Connection;
use crate::relay::endpoint::Endpoint;
use crate::relay::forward;
use crate::relay::server::Server;
use crate::relay::sign_in::authenticate;
use crate::relay::stream::Stream;
use crate::relay::tls::{Requirement, TlsPolicy};
use crate::relay::{Credentials, Error, NextHop};
use crate::smtp::client::Capabilities;

impl Server {
    /// Opens a connection on which a transaction can begin.
    pub(super) async fn open(&self, client: Option<&Client>) -> Result<Connection, Error> {
        let (connection, reply) = self.open_with(client, self.credentials()).await?;
        match reply {
            Some(reply) if reply.code() != 235 => Err(Error::SignIn { code: reply.code() }),
            _ => {
                self.learn(&connection);
                Ok(connection)
            }
        }
    }

    /// Opens a connection at the first endpoint that answers, each within the time to connect, and signs in
    /// where there is something to sign in with; returns the reply to that.
    pub(super) async fn open_with(
        &self,
        client: Option<&Client>,
        credentials: Option<&Credentials>,
    ) -> Result<(Connection, Option<Reply>), Error> {
        let patience = self.config.connect_timeout;
        let too_slow = Error::Timeout { ambiguous: false };
        if let NextHop::LmtpSocket { path } = &self.target.next_hop {
            let open = async {
                if !matches!(self.target.tls, TlsPolicy::None | TlsPolicy::Opportunistic) {
                    return Err(Error::NotEncrypted);
                }
                let stream = UnixStream::connect(path).await.map_err(Error::Connect)?;
                let mut connection = Connection::new(Stream::Unix(stream));
                self.greeted(&mut connection).await?;
                self.hello(&mut connection).await?;
                self.prepare(connection, client, credentials).await
            };
            return timeout(patience, open).await.unwrap_or(Err(too_slow));
        }
        let connector = self.config.connector.as_ref();
        let looking_up = Endpoint::of(&self.target.next_hop, connector, &self.failed_exchanges);
        let endpoints = timeout(patience, looking_up).await.unwrap_or(Err(too_slow))?;
        let mut last = Error::NoTarget;
        for endpoint in &endpoints {
            let open = async {
                let connection = self.reach(endpoint).await?;
                self.prepare(connection, client, credentials).await
            };
            match timeout(patience, open).await.unwrap_or(Err(Error::Timeout { ambiguous: false })) {
                Ok(opened) => return Ok(opened),
                Err(error) => last = error,
            }
            if endpoint.domain.is_some() {
                self.failed_exchanges.insert(&endpoint.host, self.config.retry_after);
            }
        }
        Err(last)
    }

    async fn prepare(
        &self,
        mut connection: Connection,
        client: Option<&Client>,
        credentials: Option<&Credentials>,
    ) -> Result<(Connection, Option<Reply>), Error> {
        if self.target.xclient
            && let Some(client) = client
        {
            self.introduce(&mut connection, client).await?;
        }
        let Some(credentials) = credentials else { return Ok((connection, None)) };
        let reply = authenticate(&mut connection, credentials, self.config.connect_timeout).await?;
        Ok((connection, Some(reply)))
    }

    /// Connects, as encrypted as is required.
    async fn reach(&self, endpoint: &Endpoint) -> Result<Connection, Error> {
        let requirement = match &self.config.connector {
            Some(connector) => {
                let domain = endpoint.domain.as_ref();
                let asked = connector.requirement(&self.target.tls, &endpoint.host, endpoint.port, domain);
                asked.await.map_err(Error::Tls)?
            }
            None if endpoint.is_implicit_tls => return Err(Error::NotEncrypted),
            None => match self.target.tls {
                TlsPolicy::None | TlsPolicy::Opportunistic => Requirement::Plain,
                _ => return Err(Error::NotEncrypted),
            },
        };
        if endpoint.is_implicit_tls {
            let stream = Stream::Tcp(endpoint.connect(self.config.connector.as_ref()).await?);
            let mut connection = self.secure(stream, endpoint, &requirement).await?;
            self.greeted(&mut connection).await?;
            self.hello(&mut connection).await?;
            return Ok(connection);
        }
        match self.converse(endpoint, &requirement).await {
            Err(Error::Tls(error)) if !requirement.is_mandatory() => {
                tracing::info!(error = error_chain(&error), "going on without TLS");
                self.converse(endpoint, &Requirement::Plain).await
            }
            reached => reached,
        }
    }

    /// Connects and greets, with STARTTLS (RFC 3207) where it is offered and wanted.
    async fn converse(&self, endpoint: &Endpoint, requirement: &Requirement) -> Result<Connection, Error> {
        let patience = self.config.connect_timeout;
        let stream = endpoint.connect(self.config.connector.as_ref()).await?;
        let mut connection = Connection::new(Stream::Tcp(stream));
        self.greeted(&mut connection).await?;
        self.hello(&mut connection).await?;
        if matches!(requirement, Requirement::Plain) {
            return Ok(connection);
        }
        if !connection.capabilities.start_tls {
            return if requirement.is_mandatory() { Err(Error::NotEncrypted) } else { Ok(connection) };
        }
        let reply = connection.command("STARTTLS", patience).await?;
        match reply.code() {
            220 => {}
            // It has changed its mind, and is where it was.
            400..600 if !requirement.is_mandatory() && reply.code() != 421 => return Ok(connection),
            400..600 => return Err(Error::Unwilling { code: reply.code() }),
            _ => return Err(connection.nonsense(&reply)),
        }
        let stream = connection.into_stream()?;
        let mut connection = self.secure(stream, endpoint, requirement).await?;
        self.hello(&mut connection).await?;
        Ok(connection)
    }

    /// Shakes hands; what comes back knows nothing of what was said before.
    async fn secure(
        &self,
        stream: Stream,
        endpoint: &Endpoint,
        requirement: &Requirement,
    ) -> Result<Connection, Error> {
        let (Some(connector), Stream::Tcp(stream)) = (&self.config.connector, stream) else {
            return Err(Error::NotEncrypted);
        };
        let stream = connector.connect(stream, &endpoint.host, requirement).await.map_err(Error::Tls)?;
        let mut connection = Connection::new(Stream::Tls(Box::new(stream)));
        connection.is_verified = requirement.is_verified();
        Ok(connection)
    }

    /// Reads the greeting.
    async fn greeted(&self, connection: &mut Connection) -> Result<(), Error> {
        let greeting = connection.read_reply(self.config.connect_timeout).await?;
        if greeting.code() == 220 { Ok(()) } else { Err(Error::Unwilling { code: greeting.code() }) }
    }

    /// Says EHLO or LHLO, or HELO to a server that does not know EHLO, and takes what is offered for all
    /// that is.
    async fn hello(&self, connection: &mut Connection) -> Result<(), Error> {
        let (helo, patience) = (&self.config.helo, self.config.connect_timeout);
        let is_lmtp = self.target.next_hop.is_lmtp();
        let verb = if is_lmtp { "LHLO" } else { "EHLO" };
        connection.capabilities = Capabilities::default();
        let mut reply = connection.command(&format!("{verb} {helo}"), patience).await?;
        if reply.code() == 250 {
            connection.capabilities = Capabilities::read(&reply);
        } else if reply.is_permanent() && !is_lmtp {
            reply = connection.command(&format!("HELO {helo}"), patience).await?;
        }
        if reply.code() == 250 { Ok(()) } else { Err(Error::Unwilling { code: reply.code() }) }
    }

    /// Says who the client is, with XCLIENT; the session then begins anew (XCLIENT_README). A next hop that
    /// does not offer it or refuses goes on taking us for the client.
    async fn introduce(&self, connection: &mut Connection, client: &Client) -> Result<(), Error> {
        let Some(line) = forward::xclient(connection.capabilities.xclient, client) else { return Ok(()) };
        // Whatever it answers, it was told: nobody else uses this connection.
        connection.is_for_one_client = true;
        let reply = connection.command(&line, self.config.connect_timeout).await?;
        match reply.code() {
            220 => self.hello(connection).await,
            421 => Err(Error::Unwilling { code: 421 }),
            400..600 => Ok(()),
            _ => Err(connection.nonsense(&reply)),
        }
    }
}
