//! A new connection: reached, greeted, told who we are and who the client is, signed in.

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::mail::Client;
use crate::relay::connection::Connection;
use crate::relay::forward;
use crate::relay::server::Server;
use crate::relay::sign_in::authenticate;
use crate::relay::stream::Stream;
use crate::relay::{Error, NextHop};
use crate::smtp::client::Capabilities;

impl Server {
    /// Opens a connection on which a transaction can begin, within the time to connect.
    pub(super) async fn open(&self, client: Option<&Client>) -> Result<Connection, Error> {
        let patience = self.config.connect_timeout;
        let open = async {
            let mut connection = self.reach(client).await?;
            if let Some(credentials) = self.credentials() {
                let reply = authenticate(&mut connection, credentials, patience).await?;
                if reply.code() != 235 {
                    return Err(Error::SignIn { code: reply.code() });
                }
            }
            self.learn(&connection);
            Ok(connection)
        };
        timeout(patience, open).await.unwrap_or(Err(Error::Timeout { ambiguous: false }))
    }

    /// Opens a connection on which nobody has signed in yet.
    pub(super) async fn reach(&self, client: Option<&Client>) -> Result<Connection, Error> {
        let mut connection = self.connect().await?;
        if self.target.xclient
            && let Some(client) = client
        {
            self.introduce(&mut connection, client).await?;
        }
        Ok(connection)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let stream = match &self.target.next_hop {
            NextHop::LmtpSocket { path } => {
                Stream::Unix(UnixStream::connect(path).await.map_err(Error::Connect)?)
            }
            NextHop::Smtp { host, port } | NextHop::Lmtp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(Error::Connect)?;
                stream.set_nodelay(true).map_err(Error::Connect)?;
                Stream::Tcp(stream)
            }
            _ => return Err(Error::NoTarget),
        };
        let mut connection = Connection::new(stream);
        self.greeted(&mut connection).await?;
        self.hello(&mut connection).await?;
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
