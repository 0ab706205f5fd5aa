//! One connection from greeting to close: the session's steps on a stream, with every wait bounded.
//!
//! Replies to pipelined commands leave in one write. Nothing that arrived in clear is read after a
//! handshake. What a client is turned away for is counted.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::ingress::memory::{Claim, Memory};
use crate::ingress::stream::Stream;
use crate::ingress::{Config, Handler, TlsMode};
use crate::mail::{EnhancedCode, Reply, Tls};
use crate::metrics::Counter;
use crate::smtp::server::{Misconduct, Options, Question, Session, Step};

/// Room for commands in the input buffer, in bytes.
const COMMAND_READ_BYTES: usize = 4 * 1024;
/// Room for a message's bytes in the input buffer: one read takes as much as the kernel has, most often.
const DATA_READ_BYTES: usize = 64 * 1024;
/// Replies to pipelined commands are held back up to so many bytes, to be sent in one write.
const MAX_HELD_REPLIES: usize = 16 * 1024;
/// How much is read, in bytes, to find out whether a client has closed.
const MAX_READ_AHEAD: usize = 16 * 1024;
/// What a client still sends after our last reply is read and thrown away, so that the reply is not lost
/// to a reset of the connection; so many bytes and so long at most.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

struct Connection<'a, S, H> {
    stream: Stream<S>,
    config: &'a Config,
    memory: &'a Memory,
    handler: H,
    shutdown: watch::Receiver<bool>,
    session: Session,
    input: BytesMut,
    output: Vec<u8>,
    claim: Claim,
    /// Whether the handler has a transaction open.
    is_open: bool,
    /// Whether the last message was answered 2xx and the client has said nothing since.
    is_unsettled: bool,
    /// Whether the client was gone before the answer to its last message was sent.
    has_left: bool,
    is_draining: bool,
    /// When the session must have ended.
    ends: Instant,
    /// Since when, and for how many bytes, the session has been waiting for a command or a message.
    waiting: Option<(Instant, u64)>,
}

/// How a conversation ended.
enum Ended {
    /// Nothing is left to say.
    Here,
    /// The last replies are still to be sent.
    WithReplies,
    /// The stream failed.
    Lost(io::Error),
}

enum Input {
    Bytes,
    Eof,
    TimedOut,
    Stopped,
}

/// The handler panicked; it must not be asked again.
struct Panicked;

/// Serves one connection to its end. `tls` says how it is encrypted already, if it is.
///
/// # Errors
/// The stream's error when the client is lost, does not take its replies in time, or fails its handshake.
/// The handler knows by then: it was told to reset.
pub async fn serve_connection<S, H>(
    stream: S,
    peer: SocketAddr,
    tls: Option<Tls>,
    config: &Config,
    memory: &Memory,
    handler: H,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    H: Handler,
{
    let mut session = Session::new(options(config, peer), peer);
    if let Some(tls) = tls {
        session.secured(tls);
    }
    let mut connection = Connection {
        stream: Stream::Plain(stream),
        config,
        memory,
        handler,
        shutdown,
        session,
        input: BytesMut::new(),
        output: Vec::new(),
        claim: Claim::default(),
        is_open: false,
        is_unsettled: false,
        has_left: false,
        is_draining: false,
        ends: Instant::now() + config.session_timeout,
        waiting: None,
    };
    let conversation = connection.converse().await;
    if let Some(misconduct) = connection.session.misconduct() {
        let labels = [("direction", config.direction.as_str()), ("reason", misconduct.as_str())];
        Counter::TurnedAway.increment(&labels);
    }
    match conversation {
        Ok(Ended::Here) => {
            connection.reset().await;
            Ok(())
        }
        Ok(Ended::WithReplies) => {
            let said = connection.say_goodbye().await;
            if matches!(said, Ok(true)) && connection.closed_in_order().await.is_err() {
                // The handler must not be asked again.
                return said.map(drop);
            }
            connection.reset().await;
            said.map(drop)
        }
        Ok(Ended::Lost(error)) => {
            connection.reset().await;
            Err(error)
        }
        Err(Panicked) => {
            connection.queue(&Reply::new(451, EnhancedCode(4, 3, 0), "Internal error, try again later"));
            connection.say_goodbye().await.map(drop)
        }
    }
}

/// Returns what a session may be for this client.
fn options(config: &Config, peer: SocketAddr) -> Options {
    let client = peer.ip();
    Options {
        name: config.name.clone(),
        limits: config.limits.clone(),
        kind: config.kind,
        starttls: config.tls.is_some() && matches!(config.tls_mode, TlsMode::Offered | TlsMode::Required),
        require_tls: config.requires_tls(client),
        xclient: config.trusts_xclient(client),
        xforward: config.trusts_xforward(client),
        sign_in_in_clear: config.sign_in_in_clear,
    }
}

/// Waits until a flag is true or nobody is left who could set it.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Awaits a handler's answer; a panic in it is counted and ends the connection alone.
async fn guarded<T>(answer: impl Future<Output = T> + Send) -> Result<T, Panicked> {
    AssertUnwindSafe(answer).catch_unwind().await.map_err(|_| {
        Counter::Panics.increment(&[]);
        tracing::error!("a session's handler panicked; its connection is closed");
        Panicked
    })
}

impl<S, H> Connection<'_, S, H>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    H: Handler,
{
    async fn converse(&mut self) -> Result<Ended, Panicked> {
        if let Err(error) = self.wait_to_greet().await {
            return Ok(Ended::Lost(error));
        }
        loop {
            self.claim_memory();
            let mut step = self.session.step(&mut self.input);
            if !matches!(step, Step::Read) {
                self.waiting = None;
            }
            if matches!(step, Step::Reply(_) | Step::Ask(_))
                && self.session.must_wait()
                && !self.input.is_empty()
            {
                step = self.session.turn_away(Misconduct::Pipelining);
            }
            let done = match step {
                Step::Read => match self.read_more().await? {
                    Ok(true) => Ok(()),
                    Ok(false) => return Ok(Ended::Here),
                    Err(error) => Err(error),
                },
                Step::Reply(reply) => self.answer(&reply).await,
                Step::Ask(question) => self.ask(question).await?,
                Step::Abandon => {
                    self.claim = Claim::default();
                    self.is_open = false;
                    guarded(self.handler.reset()).await?;
                    Ok(())
                }
                Step::Chunk => Ok(()),
                Step::StartTls(reply) => self.start_tls(&reply).await,
                Step::Close => return Ok(Ended::WithReplies),
            };
            if let Err(error) = done {
                return Ok(Ended::Lost(error));
            }
        }
    }

    /// Leaves the client alone for a while; whoever talks now does not speak SMTP, but shouts it.
    async fn wait_to_greet(&mut self) -> io::Result<()> {
        let delay = self.config.greeting_delay;
        if delay.is_zero() || self.session.is_trusted() {
            return Ok(());
        }
        self.make_room(false);
        let read = tokio::select! {
            read = timeout(delay, self.stream.read_buf(&mut self.input)) => read,
            () = stopped(&mut self.shutdown) => return Ok(()),
        };
        match read {
            Err(_) => Ok(()),
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => {
                let step = self.session.turn_away(Misconduct::EarlyTalker);
                if let Step::Reply(reply) = step {
                    self.queue(&reply);
                }
                Ok(())
            }
            Ok(Err(error)) => Err(error),
        }
    }

    /// Puts a question to the handler and its answer to the session.
    async fn ask(&mut self, question: Question) -> Result<io::Result<()>, Panicked> {
        let reply = match question {
            Question::Offers => {
                let offers = guarded(self.handler.offers(self.session.client())).await?;
                self.session.offer(offers)
            }
            Question::SignIn(step) => {
                let answer = guarded(self.handler.sign_in(self.session.client(), step)).await?;
                self.session.sign_in_answer(answer)
            }
            Question::Mail(mail) => {
                let reply = guarded(self.handler.mail(self.session.client(), &mail)).await?;
                self.is_open = reply.is_positive();
                self.session.answer(reply)
            }
            Question::Rcpt(recipient) => {
                let reply = guarded(self.handler.rcpt(&recipient)).await?;
                self.session.answer(reply)
            }
            Question::Message(body) => {
                self.is_open = false;
                // The claim outlives the call: the body is held until then.
                let claim = mem::take(&mut self.claim);
                let answer = guarded(self.handler.message(body)).await;
                drop(claim);
                let replies = self.session.answer_message(answer?);
                self.is_unsettled = replies.iter().any(Reply::is_positive);
                self.has_left = self.is_unsettled && self.is_at_end();
                return Ok(self.send(&replies).await);
            }
        };
        Ok(self.answer(&reply).await)
    }

    /// Answers a command; a refusal after a pause, where that is configured. The end of a message is never
    /// delayed: a client that gives up waiting sends it again.
    async fn answer(&mut self, reply: &Reply) -> io::Result<()> {
        let is_refusal = reply.is_temporary() || reply.is_permanent();
        let pause = self.config.tarpit;
        if is_refusal && !pause.is_zero() && !self.is_draining && !self.session.answers_message() {
            self.flush().await?;
            let until = (Instant::now() + pause).min(self.ends);
            tokio::select! {
                () = sleep_until(until) => {}
                () = stopped(&mut self.shutdown) => {}
            }
        }
        self.send(std::slice::from_ref(reply)).await
    }

    /// Holds replies back for one write, unless they become too many.
    async fn send(&mut self, replies: &[Reply]) -> io::Result<()> {
        for reply in replies {
            self.queue(reply);
            if self.output.len() >= MAX_HELD_REPLIES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Encrypts the connection, or loses it. Whatever was sent before the handshake was sent in clear, by
    /// whomever, and is not read.
    async fn start_tls(&mut self, reply: &Reply) -> io::Result<()> {
        self.queue(reply);
        self.flush().await?;
        self.input = BytesMut::new();
        let refused = io::ErrorKind::ConnectionRefused;
        let Some(acceptor) = &self.config.tls else { return Err(refused.into()) };
        let Stream::Plain(stream) = mem::replace(&mut self.stream, Stream::Lost) else {
            return Err(refused.into());
        };
        let deadline = (Instant::now() + self.config.tls_timeout).min(self.ends);
        let accepted = tokio::select! {
            accepted = timeout_at(deadline, acceptor.accept(stream)) => accepted,
            // There is nothing in flight that a client could lose.
            () = stopped(&mut self.shutdown) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let (stream, tls) = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.stream = Stream::Tls(Box::new(stream));
        self.session.secured(tls);
        Ok(())
    }

    /// Tells the handler of a transaction that the client left open.
    async fn reset(&mut self) {
        if mem::take(&mut self.is_open) && guarded(self.handler.reset()).await.is_err() {
            tracing::debug!("the panic was in the last reset");
        }
    }

    /// Sends what is held back and waits for input; `false` when the connection is over.
    async fn read_more(&mut self) -> Result<io::Result<bool>, Panicked> {
        if let Err(error) = self.flush().await {
            return Ok(Err(error));
        }
        let input = match self.read().await {
            Ok(input) => input,
            Err(error) => return Ok(Err(error)),
        };
        match input {
            Input::Bytes => {
                if mem::take(&mut self.is_unsettled) {
                    guarded(self.handler.settled()).await?;
                }
                Ok(Ok(true))
            }
            Input::Eof => {
                self.closed_in_order().await?;
                Ok(Ok(false))
            }
            Input::Stopped => {
                self.is_draining = true;
                self.session.drain();
                Ok(Ok(true))
            }
            Input::TimedOut => {
                self.queue(&Reply::new(421, EnhancedCode(4, 4, 2), "Timeout, closing connection"));
                match self.say_goodbye().await {
                    Ok(true) => self.closed_in_order().await?,
                    Ok(false) => {}
                    Err(error) => return Ok(Err(error)),
                }
                Ok(Ok(false))
            }
        }
    }

    /// The client closed, in order, after its answers were sent. One that had given up before does not have
    /// them, and one that leaves them unread resets the connection.
    async fn closed_in_order(&mut self) -> Result<(), Panicked> {
        if mem::take(&mut self.is_unsettled) && !self.has_left {
            guarded(self.handler.settled()).await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> io::Result<Input> {
        let is_in_data = self.session.is_in_data();
        let (since, received) = *self.waiting.get_or_insert_with(|| (Instant::now(), 0));
        let allowed = if is_in_data {
            let rate = u64::from(self.config.min_data_rate.max(1));
            self.config.data_timeout + Duration::from_millis(received.saturating_mul(1000) / rate)
        } else {
            self.config.command_timeout
        };
        let deadline = (since + allowed).min(self.ends);
        self.make_room(is_in_data);
        let read = tokio::select! {
            read = timeout_at(deadline, self.stream.read_buf(&mut self.input)) => read,
            () = stopped(&mut self.shutdown), if !is_in_data && !self.is_draining => return Ok(Input::Stopped),
        };
        match read {
            Err(_) => Ok(Input::TimedOut),
            Ok(read) => match read? {
                0 => Ok(Input::Eof),
                len => {
                    let len = u64::try_from(len).unwrap_or(u64::MAX);
                    self.waiting = Some((since, received.saturating_add(len)));
                    Ok(Input::Bytes)
                }
            },
        }
    }

    /// Whether the client has closed already. What it has sent before is kept.
    fn is_at_end(&mut self) -> bool {
        while self.input.len() < MAX_READ_AHEAD {
            self.make_room(false);
            match self.stream.read_buf(&mut self.input).now_or_never() {
                Some(Ok(0) | Err(_)) => return true,
                Some(Ok(_)) => {}
                None => return false,
            }
        }
        false
    }

    /// Makes room in the input buffer; a buffer that was large for a message does not stay so.
    fn make_room(&mut self, is_in_data: bool) {
        let room = if is_in_data { DATA_READ_BYTES } else { COMMAND_READ_BYTES };
        if !is_in_data && self.input.is_empty() && self.input.capacity() > COMMAND_READ_BYTES {
            self.input = BytesMut::new();
        }
        if self.input.capacity() - self.input.len() < COMMAND_READ_BYTES / 2 {
            self.input.reserve(room);
        }
    }

    /// Claims memory for the message before it takes it; without memory the message is read and not held.
    fn claim_memory(&mut self) {
        if self.session.is_in_data() {
            let wanted = self.session.body_capacity(self.input.len());
            if !self.memory.enlarge(&mut self.claim, wanted) {
                self.session.refuse_body();
                self.claim = Claim::default();
            }
        }
    }

    fn queue(&mut self, reply: &Reply) {
        self.output.extend_from_slice(reply.to_wire().as_bytes());
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        timeout(self.config.write_timeout, write)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.output.clear();
        Ok(())
    }

    /// Sends the last replies; returns whether the client then closed.
    async fn say_goodbye(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.linger().await
    }

    async fn linger(&mut self) -> io::Result<bool> {
        self.input.clear();
        let discard = async {
            self.stream.shutdown().await?;
            let mut discarded = 0;
            while discarded < LINGER_BYTES {
                self.input.clear();
                self.input.reserve(COMMAND_READ_BYTES);
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) => return Ok(true),
                    Ok(len) => discarded += len,
                    // Few clients end TLS in form, and there is nothing left that could be cut off.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
                    Err(error) => return Err(error),
                }
            }
            Ok(false)
        };
        timeout(LINGER, discard).await.unwrap_or(Ok(false))
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
