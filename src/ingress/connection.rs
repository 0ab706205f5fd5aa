//! One connection from greeting to close.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::ingress::memory::{Claim, Memory};
use crate::ingress::{Config, Handler};
use crate::mail::{EnhancedCode, Reply, Tls};
use crate::metrics::Counter;
use crate::smtp::server::{Answer, Question, Session, Step};

/// Room for commands in the input buffer, in bytes.
const COMMAND_READ_BYTES: usize = 4 * 1024;
/// Room for a message's bytes in the input buffer: one read takes as much as the kernel has, most often.
const DATA_READ_BYTES: usize = 64 * 1024;
/// Replies to pipelined commands are held back up to so many bytes, to be sent in one write.
const MAX_HELD_REPLIES: usize = 16 * 1024;
/// What a client still sends after our last reply is read and thrown away, so that the reply is not lost
/// to a reset of the connection; so many bytes and so long at most.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

struct Connection<'a, S, H> {
    stream: S,
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
    is_draining: bool,
    /// When the session must have ended.
    ends: Instant,
    /// Since when, and for how many bytes, the session has been waiting for a command or a message.
    waiting: Option<(Instant, u64)>,
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
/// The stream's error when the client is lost or does not take its replies in time. The handler knows by
/// then: it was told to reset.
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
    let mut session = Session::new(&config.name, config.limits.clone(), peer);
    if let Some(tls) = tls {
        session.secured(tls);
    }
    let mut connection = Connection {
        stream,
        config,
        memory,
        handler,
        shutdown,
        session,
        input: BytesMut::new(),
        output: Vec::new(),
        claim: Claim::default(),
        is_open: false,
        is_draining: false,
        ends: Instant::now() + config.session_timeout,
        waiting: None,
    };
    match connection.converse().await {
        Ok(ended) => {
            connection.reset().await;
            ended
        }
        Err(Panicked) => {
            connection.queue(&Reply::new(451, EnhancedCode(4, 3, 0), "Internal error, try again later"));
            connection.flush().await?;
            connection.linger().await
        }
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
    async fn converse(&mut self) -> Result<io::Result<()>, Panicked> {
        loop {
            self.claim_memory();
            let step = self.session.step(&mut self.input);
            if !matches!(step, Step::Read) {
                self.waiting = None;
            }
            let done = match step {
                Step::Read => self.read_more().await,
                Step::Reply(reply) => {
                    self.queue(&reply);
                    if self.output.len() < MAX_HELD_REPLIES {
                        Ok(true)
                    } else {
                        self.flush().await.map(|()| true)
                    }
                }
                Step::Ask(question) => {
                    let reply = self.ask(question).await?;
                    let reply = self.session.answer(reply);
                    self.queue(&reply);
                    Ok(true)
                }
                Step::Abandon => {
                    self.claim = Claim::default();
                    self.is_open = false;
                    guarded(self.handler.reset()).await?;
                    Ok(true)
                }
                Step::Close => return Ok(self.say_goodbye().await),
            };
            match done {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    async fn ask(&mut self, question: Question) -> Result<Reply, Panicked> {
        match question {
            Question::Mail(mail) => {
                let reply = guarded(self.handler.mail(self.session.client(), &mail)).await?;
                self.is_open = reply.is_positive();
                Ok(reply)
            }
            Question::Rcpt(recipient) => guarded(self.handler.rcpt(&recipient)).await,
            Question::Message(body) => {
                self.is_open = false;
                // The claim outlives the call: the body is held until then.
                let claim = std::mem::take(&mut self.claim);
                let answer = guarded(self.handler.message(body)).await;
                drop(claim);
                match answer? {
                    Answer::All(reply) | Answer::Each(_, reply) => Ok(reply),
                }
            }
        }
    }

    /// Tells the handler of a transaction that the client left open.
    async fn reset(&mut self) {
        if std::mem::take(&mut self.is_open) && guarded(self.handler.reset()).await.is_err() {
            tracing::debug!("the panic was in the last reset");
        }
    }

    /// Sends what is held back and waits for input; `false` when the connection is over.
    async fn read_more(&mut self) -> io::Result<bool> {
        self.flush().await?;
        match self.read().await? {
            Input::Bytes => Ok(true),
            Input::Eof => Ok(false),
            Input::Stopped => {
                self.is_draining = true;
                self.session.drain();
                Ok(true)
            }
            Input::TimedOut => {
                self.queue(&Reply::new(421, EnhancedCode(4, 4, 2), "Timeout, closing connection"));
                self.say_goodbye().await.map(|()| false)
            }
        }
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

    async fn say_goodbye(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.linger().await
    }

    async fn linger(&mut self) -> io::Result<()> {
        self.input.clear();
        let discard = async {
            self.stream.shutdown().await?;
            let mut discarded = 0;
            while discarded < LINGER_BYTES {
                self.input.clear();
                self.input.reserve(COMMAND_READ_BYTES);
                match self.stream.read_buf(&mut self.input).await? {
                    0 => break,
                    len => discarded += len,
                }
            }
            Ok(())
        };
        timeout(LINGER, discard).await.unwrap_or(Ok(()))
    }
}
