//! One connection to a next hop: bytes out, replies in, each with a time limit.
//!
//! Nothing is sent while something that nobody asked for has arrived, so a reply is never taken for that
//! of a later command; and a failure says exactly whether the end of a message may have been sent.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, timeout};

use crate::mail::Reply;
use crate::relay::Error;
use crate::relay::stream::Stream;
use crate::smtp::client::{Capabilities, ReplyParser};

/// Room for replies in the input buffer, in bytes.
const READ_BYTES: usize = 4 * 1024;
/// Slices of a message that are handed to the system in one call.
const MAX_SLICES: usize = 64;

#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    input: BytesMut,
    parser: ReplyParser,
    /// What the last EHLO was answered.
    pub(super) capabilities: Capabilities,
    pub(super) messages: usize,
    pub(super) idle_since: Instant,
    /// Whether the next hop was shown who the client is, so that it may judge what comes by that.
    pub(super) is_for_one_client: bool,
    /// Whether XFORWARD has named a client, which the next transaction must replace.
    pub(super) has_forwarded: bool,
    /// Whether TLS has proved that this is the server that was meant.
    pub(super) is_verified: bool,
    /// Whether the end of a message may be on its way, so that a failure leaves the outcome open.
    is_past_end: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Connection {
            stream,
            input: BytesMut::new(),
            parser: ReplyParser::default(),
            capabilities: Capabilities::default(),
            messages: 0,
            idle_since: Instant::now(),
            is_for_one_client: false,
            has_forwarded: false,
            is_verified: false,
            is_past_end: false,
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.stream.is_encrypted()
    }

    /// Gives the stream up for a TLS handshake; all that was known of the other side is forgotten.
    ///
    /// # Errors
    /// [`Error::Injected`] where something came in clear after the reply to STARTTLS: read later, it would
    /// pass for what the server says under TLS (CVE-2021-38371 and its kin).
    pub(super) fn into_stream(mut self) -> Result<Stream, Error> {
        if self.is_quiet() || self.input.is_empty() { Ok(self.stream) } else { Err(Error::Injected) }
    }

    /// Whether nothing has arrived since the last reply: a kept connection that the next hop has closed,
    /// or on which it sent what nobody asked for, is not quiet.
    pub(super) fn is_quiet(&mut self) -> bool {
        // Unconstrained: a task that has used its turn up would see no input where there is some.
        self.input.is_empty() && unconstrained(self.stream.read_buf(&mut self.input)).now_or_never().is_none()
    }

    /// Sends one command line and reads its reply.
    pub(super) async fn command(&mut self, line: &str, patience: Duration) -> Result<Reply, Error> {
        self.write(format!("{line}\r\n").as_bytes(), patience).await?;
        self.read_reply(patience).await
    }

    /// Sends whole command lines, the replies to which are still to be read.
    pub(super) async fn write(&mut self, lines: &[u8], patience: Duration) -> Result<(), Error> {
        if !self.is_quiet() {
            // The reply to the next command would be taken from here: a 250 that belongs to nothing.
            return Err(self.unsolicited());
        }
        let write = async {
            self.stream.write_all(lines).await?;
            self.stream.flush().await
        };
        match timeout(patience, write).await {
            Ok(written) => written.map_err(|source| self.lost(source)),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// Sends a message, as slices of its wire form with its end in the last one; the reply is still to be
    /// read, unless the next hop refused the message before its end: that reply is returned, and the
    /// connection is then of no more use.
    pub(super) async fn send<'a>(
        &mut self,
        wire: impl Iterator<Item = &'a [u8]>,
        patience: Duration,
    ) -> Result<Option<Reply>, Error> {
        let mut wire = wire.peekable();
        let mut batch = Vec::with_capacity(MAX_SLICES);
        while wire.peek().is_some() {
            batch.clear();
            batch.extend(wire.by_ref().take(MAX_SLICES).map(IoSlice::new));
            let has_end = wire.peek().is_none();
            if has_end && !self.is_quiet() {
                // A reply before the end cannot be about the message: a 2xx here proves nothing.
                return match self.parser.parse(&mut self.input) {
                    Ok(Some(reply)) if reply.code() >= 400 => Ok(Some(reply)),
                    Ok(Some(reply)) => Err(self.nonsense(&reply)),
                    Ok(None) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                    Err(source) => Err(Error::Reply { ambiguous: false, source }),
                };
            }
            // The system takes bytes in order, so that the end is not sent before it has taken the last of
            // them; TLS may have taken what a failed call does not own up to.
            self.is_past_end = has_end && self.is_encrypted();
            let mut slices = batch.as_mut_slice();
            while !slices.is_empty() {
                match timeout(patience, self.stream.write_vectored(slices)).await {
                    Ok(Ok(0)) => return Err(self.lost(io::ErrorKind::WriteZero.into())),
                    Ok(Ok(len)) => IoSlice::advance_slices(&mut slices, len),
                    Ok(Err(source)) => return Err(self.lost(source)),
                    Err(_) => return Err(self.too_slow()),
                }
            }
            self.is_past_end = has_end;
        }
        match timeout(patience, self.stream.flush()).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(source)) => Err(self.lost(source)),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// Reads the reply that is due; `patience` is for the whole of it.
    pub(super) async fn read_reply(&mut self, patience: Duration) -> Result<Reply, Error> {
        let read = async {
            loop {
                match self.parser.parse(&mut self.input) {
                    Ok(Some(reply)) => return Ok(reply),
                    Ok(None) => {}
                    Err(source) => return Err(Error::Reply { ambiguous: self.is_past_end, source }),
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
        self.is_past_end = false;
        self.messages += 1;
    }

    /// Takes an error of a reply that does not fit its command.
    pub(super) fn nonsense(&self, reply: &Reply) -> Error {
        Error::Nonsense { ambiguous: self.is_past_end, code: reply.code() }
    }

    fn unsolicited(&mut self) -> Error {
        match self.parser.parse(&mut self.input) {
            Ok(Some(reply)) => self.nonsense(&reply),
            Ok(None) => self.lost(io::ErrorKind::UnexpectedEof.into()),
            Err(source) => Error::Reply { ambiguous: self.is_past_end, source },
        }
    }

    fn lost(&self, source: io::Error) -> Error {
        Error::Lost { ambiguous: self.is_past_end, source }
    }

    fn too_slow(&self) -> Error {
        Error::Timeout { ambiguous: self.is_past_end }
    }
}
