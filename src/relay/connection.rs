//! One connection to a next hop: commands out, replies in, each with a time limit.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::mail::Reply;
use crate::relay::{Config, Error};
use crate::smtp::client::{Capabilities, ReplyParser};
use crate::smtp::data::Encoder;

/// Room for replies in the input buffer, in bytes.
const READ_BYTES: usize = 4 * 1024;
/// Slices of a message that are handed to the system in one call.
const MAX_SLICES: usize = 64;

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    input: BytesMut,
    parser: ReplyParser,
    pub(super) capabilities: Capabilities,
    pub(super) messages: usize,
    pub(super) idle_since: Instant,
    /// Whether the final dot may be on its way, so that a failure leaves the outcome open.
    is_past_dot: bool,
}

impl Connection {
    /// Connects and says EHLO, or HELO to a server that does not know it.
    pub(super) async fn open(host: &str, port: u16, config: &Config) -> Result<Self, Error> {
        let open = async {
            let stream = TcpStream::connect((host, port)).await.map_err(Error::Connect)?;
            stream.set_nodelay(true).map_err(Error::Connect)?;
            let mut connection = Connection {
                stream,
                input: BytesMut::new(),
                parser: ReplyParser::default(),
                capabilities: Capabilities::default(),
                messages: 0,
                idle_since: Instant::now(),
                is_past_dot: false,
            };
            let greeting = connection.read_reply(config.connect_timeout).await?;
            if greeting.code() != 220 {
                return Err(Error::Unwilling { code: greeting.code() });
            }
            let helo = &config.helo;
            let mut reply = connection.command(&format!("EHLO {helo}"), config.connect_timeout).await?;
            if reply.code() == 250 {
                connection.capabilities = Capabilities::read(&reply);
            } else if reply.is_permanent() {
                reply = connection.command(&format!("HELO {helo}"), config.connect_timeout).await?;
            }
            if reply.code() == 250 { Ok(connection) } else { Err(Error::Unwilling { code: reply.code() }) }
        };
        timeout(config.connect_timeout, open).await.unwrap_or(Err(Error::Timeout { ambiguous: false }))
    }

    /// Whether nothing has arrived since the last reply: a kept connection that the next hop has closed,
    /// or on which it sent what nobody asked for, is not quiet.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.input.is_empty()
            && self
                .stream
                .try_read_buf(&mut self.input)
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends one command line and reads its reply.
    pub(super) async fn command(&mut self, line: &str, patience: Duration) -> Result<Reply, Error> {
        if !self.is_quiet() {
            // The reply to the next command would be taken from here: a 250 that belongs to nothing.
            return Err(self.unsolicited());
        }
        let write = async {
            self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
            self.stream.flush().await
        };
        match timeout(patience, write).await {
            Ok(written) => written.map_err(|source| self.lost(source))?,
            Err(_) => return Err(self.too_slow()),
        }
        self.read_reply(patience).await
    }

    /// Sends a message with its dots; the reply is still to be read, unless the next hop refused the
    /// message before its end: that reply is returned, and the connection is then of no more use.
    pub(super) async fn send(
        &mut self,
        message: &[Bytes],
        patience: Duration,
    ) -> Result<Option<Reply>, Error> {
        let mut encoder = Encoder::new(message).peekable();
        let mut batch = Vec::with_capacity(MAX_SLICES);
        while encoder.peek().is_some() {
            batch.clear();
            batch.extend(encoder.by_ref().take(MAX_SLICES).map(IoSlice::new));
            let has_dot = encoder.peek().is_none();
            if has_dot && !self.is_quiet() {
                // A reply before the final dot cannot be about the message: a 2xx here proves nothing.
                return match self.parser.parse(&mut self.input) {
                    Ok(Some(reply)) if !reply.is_positive() && reply.code() >= 400 => Ok(Some(reply)),
                    Ok(Some(reply)) => Err(self.nonsense(&reply)),
                    Ok(None) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                    Err(source) => Err(Error::Reply { ambiguous: false, source }),
                };
            }
            self.is_past_dot = has_dot;
            let mut slices = batch.as_mut_slice();
            while !slices.is_empty() {
                match timeout(patience, self.stream.write_vectored(slices)).await {
                    Ok(Ok(0)) => return Err(self.lost(io::ErrorKind::WriteZero.into())),
                    Ok(Ok(len)) => IoSlice::advance_slices(&mut slices, len),
                    Ok(Err(source)) => return Err(self.lost(source)),
                    Err(_) => return Err(self.too_slow()),
                }
            }
        }
        Ok(None)
    }

    /// Reads the reply that is due.
    pub(super) async fn read_reply(&mut self, patience: Duration) -> Result<Reply, Error> {
        let read = async {
            loop {
                match self.parser.parse(&mut self.input) {
                    Ok(Some(reply)) => return Ok(reply),
                    Ok(None) => {}
                    Err(source) => return Err(Error::Reply { ambiguous: self.is_past_dot, source }),
                }
                self.input.reserve(READ_BYTES);
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {}
                    Err(source) => return Err(self.lost(source)),
                }
            }
        };
        match timeout(patience, read).await {
            Ok(reply) => reply,
            Err(_) => Err(self.too_slow()),
        }
    }

    /// The end of data is answered: what fails from here on is no longer about that message.
    pub(super) fn end_message(&mut self) {
        self.is_past_dot = false;
        self.messages += 1;
    }

    /// Takes an error of a reply that does not fit its command.
    pub(super) fn nonsense(&self, reply: &Reply) -> Error {
        Error::Nonsense { ambiguous: self.is_past_dot, code: reply.code() }
    }

    fn unsolicited(&mut self) -> Error {
        match self.parser.parse(&mut self.input) {
            Ok(Some(reply)) => self.nonsense(&reply),
            Ok(None) => self.lost(io::ErrorKind::UnexpectedEof.into()),
            Err(source) => Error::Reply { ambiguous: self.is_past_dot, source },
        }
    }

    fn lost(&self, source: io::Error) -> Error {
        Error::Lost { ambiguous: self.is_past_dot, source }
    }

    fn too_slow(&self) -> Error {
        Error::Timeout { ambiguous: self.is_past_dot }
    }
}
