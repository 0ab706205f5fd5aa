//! Scripted dialogues over in-memory streams, and the listener on a loopback port.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::mail::{Address, Direction, EnhancedCode};

/// Writes down what it is asked. Refuses recipients that begin with `no`; panics at those that begin with
/// `panic`, and at a message that does.
#[derive(Clone, Default)]
struct Recorder {
    log: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Service for Recorder {
    type Handler = Recorder;

    fn connect(&self, _peer: SocketAddr) -> Recorder {
        self.clone()
    }
}

impl Handler for Recorder {
    async fn offers(&mut self, _client: &Client) -> Offers {
        Offers::default()
    }

    async fn sign_in(&mut self, _client: &Client, _step: SignIn) -> SignInAnswer {
        SignInAnswer::Refused(Reply::new(535, EnhancedCode(5, 7, 8), "No"))
    }

    async fn settled(&mut self) {
        self.note("settled".to_owned());
    }

    async fn mail(&mut self, client: &Client, mail: &Mail) -> Reply {
        let path = mail.reverse_path.as_ref().map(Address::to_path).unwrap_or_default();
        self.note(format!("mail <{path}> of {}", client.helo));
        Reply::new(250, EnhancedCode(2, 1, 0), "Ok")
    }

    async fn rcpt(&mut self, recipient: &Recipient) -> Reply {
        assert!(!recipient.address.local().starts_with("panic"), "a panic at RCPT");
        if recipient.address.local().starts_with("no") {
            return Reply::new(550, EnhancedCode(5, 1, 1), "Unknown");
        }
        self.note(format!("rcpt <{}>", recipient.address.to_path()));
        Reply::new(250, EnhancedCode(2, 1, 5), "Ok")
    }

    async fn message(&mut self, body: Bytes) -> Answer {
        assert!(!body.starts_with(b"panic"), "a panic at the end of data");
        let shown = if body.len() > 100 { format!("{} bytes", body.len()) } else { format!("{body:?}") };
        self.note(format!("message {shown}"));
        Answer::All(Reply::new(250, EnhancedCode(2, 0, 0), "Kept"))
    }

    async fn reset(&mut self) {
        self.note("reset".to_owned());
    }
}

fn config() -> Config {
    Config::new(Direction::Inbound, "mx.example")
}

/// A session over an in-memory stream, and the client's end of it.
struct Dialogue {
    client: BufReader<DuplexStream>,
    recorder: Recorder,
    memory: Memory,
    session: JoinHandle<io::Result<()>>,
    _shutdown: watch::Sender<bool>,
}

impl Dialogue {
    fn start(config: Config, memory: Memory) -> Self {
        let (client, server) = tokio::io::duplex(4096);
        let (sender, shutdown) = watch::channel(false);
        let recorder = Recorder::default();
        let handler = recorder.clone();
        let budget = memory.clone();
        let session = tokio::spawn(async move {
            let peer = "192.0.2.1:2525".parse().unwrap();
            serve_connection(server, peer, None, &config, &budget, handler, shutdown).await
        });
        Dialogue { client: BufReader::new(client), recorder, memory, session, _shutdown: sender }
    }

    /// Plays a script; see [`play`].
    async fn play(&mut self, script: &str) {
        play(&mut self.client, script).await;
    }

    /// Closes the client's end and returns what the handler was asked.
    async fn hang_up(self) -> Vec<String> {
        drop(self.client);
        drop(self.session.await.unwrap());
        self.recorder.log()
    }
}

/// Plays a script: `C:` is sent with CR LF (`C|` as it is, with `\r`, `\n` and `\0` spelled out), `S:` is the
/// beginning of the next line that arrives, `S: EOF` the end of the connection.
pub(super) async fn play<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<T>, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(text) = line.strip_prefix("C: ") {
            stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        } else if let Some(text) = line.strip_prefix("C|") {
            let raw = text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0");
            stream.write_all(raw.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        } else {
            let mut got = String::new();
            stream.read_line(&mut got).await.unwrap();
            match line.strip_prefix("S: ") {
                Some("EOF") => assert_eq!(got, "", "{line}"),
                Some(expected) => assert!(got.starts_with(expected), "{line}\ngot: {got}"),
                None => panic!("no script line: {line}"),
            }
        }
    }
}

pub(super) const EHLO: &str = "
    S: 220 mx.example ESMTP
    C: EHLO c.example
    S: 250-mx.example
    S: 250-PIPELINING
    S: 250-SIZE 52428800
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-ENHANCEDSTATUSCODES
    S: 250-CHUNKING
    S: 250-PRDR
    S: 250 LIMITS";

const ENVELOPE: &str = "
    S: 220 mx.example ESMTP
    C: HELO c.example
    S: 250 mx.example
    C: MAIL FROM:<a@b.example>
    S: 250 2.1.0
    C: RCPT TO:<c@d.example>
    S: 250 2.1.5
    C: DATA
    S: 354 ";

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
    dialogue
        .play(
            r"
            S: 220 mx.example ESMTP
            C: EHLO c.example
            S: 250-mx.example
            S: 250-PIPELINING
            S: 250-SIZE 52428800
            S: 250-8BITMIME
            S: 250-SMTPUTF8
            S: 250-ENHANCEDSTATUSCODES
            S: 250-CHUNKING
            S: 250-PRDR
            S: 250 LIMITS RCPTMAX=500 MAILMAX=1000
            C|MAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<no@d.example>\r\n
            C|RCPT TO:<c@d.example>\r\nDATA\r\nHi\r\n..dot\r\n.\r\nMAIL FROM:<>\r\nRSET\r\nQUIT\r\n
            S: 250 2.1.0 Ok
            S: 550 5.1.1 Unknown
            S: 250 2.1.5 Ok
            S: 354
            S: 250 2.0.0 Kept
            S: 250 2.1.0 Ok
            S: 250 2.0.0 Ok
            S: 221 2.0.0 Bye
            S: EOF
            ",
        )
        .await;
    let expected = [
        "mail <a@b.example> of c.example",
        "rcpt <c@d.example>",
        "message b\"Hi\\r\\n.dot\\r\\n\"",
        "mail <> of c.example",
        "reset",
        "settled",
    ];
    assert_eq!(dialogue.hang_up().await, expected);
}

#[tokio::test]
async fn smuggled_commands_never_reach_the_handler() {
    for end in [r"\n.\n", r"\r.\r", r"\n.\r\n", r"\r\n.\n", r"\r\r\n.\r\n", r"\r\n.\0\r\n", r"\r\n\0.\r\n"] {
        let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
        dialogue.play(ENVELOPE).await;
        dialogue
            .play(&format!(
                r"C|x{end}MAIL FROM:<evil@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\ny\r\n.\r\n"
            ))
            .await;
        dialogue.play("S: 550 5.6.11\nS: EOF").await;
        let log = dialogue.hang_up().await;
        assert_eq!(log, ["mail <a@b.example> of c.example", "rcpt <c@d.example>", "reset"], "{end}");
    }
}

#[tokio::test]
async fn a_panic_in_the_handler_costs_its_own_connection() {
    let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
    dialogue.play(ENVELOPE).await;
    dialogue.play("C: panic\nC: .\nS: 451 4.3.0\nS: EOF").await;
    assert_eq!(dialogue.hang_up().await.len(), 2);
    let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
    dialogue
        .play(
            "S: 220
             C: HELO c
             S: 250
             C: MAIL FROM:<>
             S: 250
             C: RCPT TO:<panic@d.example>
             S: 451 4.3.0
             S: EOF",
        )
        .await;
}

#[tokio::test]
async fn a_lost_client_leaves_no_message_and_an_abandoned_transaction() {
    for last in ["Hi", "Hi\r\n", "Hi\r\n.", "Hi\r\n.\r"] {
        let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
        dialogue.play(ENVELOPE).await;
        dialogue.client.write_all(last.as_bytes()).await.unwrap();
        let log = dialogue.hang_up().await;
        assert_eq!(log, ["mail <a@b.example> of c.example", "rcpt <c@d.example>", "reset"], "{last:?}");
    }
}

#[tokio::test]
async fn a_client_that_half_closes_after_its_message_is_answered() {
    let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
    dialogue.play(ENVELOPE).await;
    dialogue.play("C: Hi\nC: .").await;
    dialogue.client.shutdown().await.unwrap();
    dialogue.play("S: 250 2.0.0 Kept\nS: EOF").await;
}

#[tokio::test]
async fn a_client_that_closes_after_its_answer_has_it() {
    let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
    dialogue.play(ENVELOPE).await;
    dialogue.play("C: Hi\nC: .\nS: 250 2.0.0 Kept").await;
    assert_eq!(dialogue.hang_up().await.last().unwrap(), "settled");
}

#[tokio::test]
async fn a_client_that_closed_before_its_answer_may_not_have_it() {
    let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
    dialogue.play(ENVELOPE).await;
    dialogue.client.get_mut().write_all(b"Hi\r\n.\r\n").await.unwrap();
    let log = dialogue.hang_up().await;
    assert_eq!(log.last().unwrap(), "message b\"Hi\\r\\n\"", "{log:?}");
}

#[tokio::test]
async fn a_message_beyond_the_memory_is_put_off_and_the_next_one_passes() {
    let mut dialogue = Dialogue::start(config(), Memory::new(64 * 1024));
    dialogue.play(ENVELOPE).await;
    for _ in 0..2000 {
        dialogue.client.write_all(&[b'x'; 100]).await.unwrap();
    }
    dialogue.play("C: x\nC: .\nS: 452 4.3.1").await;
    assert_eq!(dialogue.memory.available_bytes(), 64 * 1024);
    dialogue
        .play(
            "C: MAIL FROM:<>\nS: 250\nC: RCPT TO:<c@d.example>\nS: 250\nC: DATA\nS: 354\nC: Hi\nC: .\nS: 250",
        )
        .await;
    assert_eq!(dialogue.memory.available_bytes(), 64 * 1024);
    assert_eq!(dialogue.hang_up().await.len(), 7);
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let mut dialogue = Dialogue::start(config(), Memory::new(64 << 20));
    dialogue.play(ENVELOPE).await;
    let line = [b"x".repeat(98), b"\r\n".to_vec()].concat().repeat(10);
    for _ in 0..5000 {
        dialogue.client.write_all(&line).await.unwrap();
    }
    dialogue.play("C: .\nS: 250").await;
    assert_eq!(dialogue.memory.available_bytes(), 64 << 20);
    assert!(dialogue.hang_up().await.contains(&"message 5000000 bytes".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_command_must_end_in_time_however_it_drips() {
    let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
    dialogue.play("S: 220").await;
    let began = tokio::time::Instant::now();
    while dialogue.client.write_all(b"x").await.is_ok() && began.elapsed() < Duration::from_secs(1000) {
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(320));
    dialogue.play("S: 421 4.4.2\nS: EOF").await;
}

#[tokio::test(start_paused = true)]
async fn a_message_must_come_at_a_rate() {
    let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
    dialogue.play(ENVELOPE).await;
    let began = tokio::time::Instant::now();
    while dialogue.client.write_all(b"x").await.is_ok() && began.elapsed() < Duration::from_secs(1000) {
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(320));
    dialogue.play("S: 421 4.4.2\nS: EOF").await;
    assert_eq!(dialogue.hang_up().await.last().unwrap(), "reset");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_replies_is_left() {
    let mut dialogue = Dialogue::start(config(), Memory::new(1 << 20));
    dialogue.play(EHLO).await;
    let noops = "NOOP\r\n".repeat(2000);
    assert!(dialogue.client.write_all(noops.as_bytes()).await.is_err());
    assert_eq!(dialogue.session.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
}

/// A listener on a free loopback port.
struct Listening {
    address: SocketAddr,
    recorder: Recorder,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Listening {
    async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = Recorder::default();
        let (shutdown, receiver) = watch::channel(false);
        let (_, config) = watch::channel(Arc::new(config));
        let (memory, sessions) = (Memory::new(1 << 20), Sessions::default());
        let serving =
            tokio::spawn(serve(listener, config, memory, sessions, Arc::new(recorder.clone()), receiver));
        Listening { address, recorder, shutdown, serving }
    }

    async fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).await.unwrap())
    }
}

#[tokio::test]
async fn connections_over_a_limit_are_turned_away_with_its_reply() {
    for (config, reply) in [
        (Config { max_sessions: 1, ..config() }, "S: 421 4.3.2"),
        (Config { max_sessions_per_source: 1, ..config() }, "S: 421 4.7.0"),
    ] {
        let listening = Listening::start(config).await;
        let mut first = listening.connect().await;
        play(&mut first, "S: 220").await;
        let mut second = listening.connect().await;
        play(&mut second, &format!("{reply}\nS: EOF")).await;
        play(&mut first, "C: QUIT\nS: 221\nS: EOF").await;
        drop(first);
        // The place is free as soon as the session has ended, which the client cannot see.
        loop {
            let mut third = listening.connect().await;
            let mut greeting = String::new();
            third.read_line(&mut greeting).await.unwrap();
            if greeting.starts_with("220") {
                break;
            }
        }
    }
}

#[tokio::test]
async fn shutting_down_ends_idle_sessions_and_finishes_messages() {
    let listening = Listening::start(config()).await;
    let (mut idle, mut busy) = (listening.connect().await, listening.connect().await);
    play(&mut idle, "S: 220\nC: HELO c\nS: 250").await;
    play(&mut busy, ENVELOPE).await;
    listening.shutdown.send(true).unwrap();
    play(&mut idle, "S: 421 4.3.2\nS: EOF").await;
    play(&mut busy, "C: Hi\nC: .\nS: 250 2.0.0 Kept\nS: 421 4.3.2\nS: EOF").await;
    drop((idle, busy));
    listening.serving.await.unwrap();
    assert!(TcpStream::connect(listening.address).await.is_err());
    assert_eq!(listening.recorder.log().last().unwrap(), "settled");
}

#[tokio::test]
async fn a_session_that_does_not_end_is_cut_off_after_the_grace() {
    let listening = Listening::start(Config { shutdown_grace: Duration::ZERO, ..config() }).await;
    let mut busy = listening.connect().await;
    play(&mut busy, ENVELOPE).await;
    listening.shutdown.send(true).unwrap();
    listening.serving.await.unwrap();
    let mut rest = Vec::new();
    drop(busy.read_to_end(&mut rest).await);
    assert!(!rest.starts_with(b"250"));
}
