//! The connection's own part: handshakes, pauses, memory, and what the handler is asked.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadBuf};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;
use crate::ingress::tests::{EHLO, play};
use crate::ingress::tls::tests::{BOTH, Files, connector};
use crate::mail::{Client, Direction, Mail, Protocol, Recipient};
use crate::smtp::server::{Answer, Kind, Mechanism, Offers, SignIn, SignInAnswer};

/// Takes everything and writes it down. To a client that reads a reply for each recipient, only the first one
/// has a message.
#[derive(Clone, Default)]
struct Decider {
    log: Arc<Mutex<Vec<String>>>,
    offers: Offers,
    recipients: usize,
    reads_each: bool,
    /// Where it is there, a message is decided when it is notified.
    gate: Option<Arc<Notify>>,
}

impl Decider {
    fn note(&self, text: impl Into<String>) {
        self.log.lock().unwrap().push(text.into());
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn fine(text: &str) -> Reply {
    Reply::new(250, EnhancedCode(2, 0, 0), text)
}

impl Handler for Decider {
    async fn offers(&mut self, client: &Client) -> Offers {
        self.note(format!("offers to {}", client.helo));
        self.offers.clone()
    }

    async fn sign_in(&mut self, _client: &Client, step: SignIn) -> SignInAnswer {
        match step {
            SignIn::Begin(Mechanism::Plain, Some(secret)) if secret == b"\0a\0b" => {
                SignInAnswer::Done("a".to_owned(), Reply::new(235, EnhancedCode(2, 7, 0), "In"))
            }
            _ => SignInAnswer::Refused(Reply::new(535, EnhancedCode(5, 7, 8), "No")),
        }
    }

    async fn mail(&mut self, client: &Client, mail: &Mail) -> Reply {
        let tls = client.tls.as_ref().map_or("", |tls| tls.version);
        let login = client.login.as_deref().unwrap_or_default();
        self.note(format!("mail from {} {} {tls} {login}", client.address.ip(), client.helo));
        self.recipients = 0;
        self.reads_each = mail.prdr || client.protocol == Protocol::Lmtp;
        fine("Ok")
    }

    async fn rcpt(&mut self, recipient: &Recipient) -> Reply {
        if recipient.address.local().starts_with("no") {
            return Reply::new(550, EnhancedCode(5, 1, 1), "Unknown");
        }
        self.recipients += 1;
        fine("Ok")
    }

    async fn message(&mut self, body: Bytes) -> Answer {
        self.note(format!("message of {} bytes", body.len()));
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        if !self.reads_each {
            return Answer::All(fine("Kept"));
        }
        let refused = Reply::new(550, EnhancedCode(5, 7, 1), "Not for you");
        let mut each = vec![refused; self.recipients];
        each[0] = fine("Yours");
        Answer::Each(each, fine("Kept"))
    }

    async fn settled(&mut self) {
        self.note("settled");
    }

    async fn reset(&mut self) {
        self.note("reset");
    }
}

fn config() -> Config {
    Config::new(Direction::Inbound, "mx.example")
}

/// A session over an in-memory stream, seen from the client.
struct Session<T = DuplexStream> {
    client: BufReader<T>,
    decider: Decider,
    memory: Memory,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<io::Result<()>>,
}

impl Session {
    fn start(config: Config) -> Self {
        Session::with(config, Decider::default())
    }

    fn with(config: Config, decider: Decider) -> Self {
        let (client, server) = tokio::io::duplex(4096);
        Session::over(client, server, config, decider)
    }

    fn over<S>(client: DuplexStream, server: S, config: Config, decider: Decider) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let memory = Memory::new(1 << 20);
        let (shutdown, receiver) = watch::channel(false);
        let (handler, budget) = (decider.clone(), memory.clone());
        let serving = tokio::spawn(async move {
            let peer = "192.0.2.1:2525".parse().unwrap();
            serve_connection(server, peer, None, &config, &budget, handler, receiver).await
        });
        Session { client: BufReader::new(client), decider, memory, shutdown, serving }
    }

    /// Does the client's side of a handshake.
    async fn encrypt(self) -> Session<tokio_rustls::client::TlsStream<DuplexStream>> {
        let Session { client, decider, memory, shutdown, serving } = self;
        let name = ServerName::try_from("mx.example").unwrap();
        let client = connector(&BOTH, None).connect(name, client.into_inner()).await.unwrap();
        Session { client: BufReader::new(client), decider, memory, shutdown, serving }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Session<T> {
    async fn play(&mut self, script: &str) {
        play(&mut self.client, script).await;
    }

    /// Closes the client's end; returns how the session ended and what the handler was asked.
    async fn hang_up(self) -> (io::Result<()>, Vec<String>) {
        drop(self.client);
        (self.serving.await.unwrap(), self.decider.log())
    }
}

/// A configuration with a certificate, and the files that must outlive it.
fn encrypted(files: &Files) -> Config {
    let acceptor = files.acceptor(vec![files.pair("own", &["mx.example"])]);
    Config { tls: Some(acceptor), tls_mode: TlsMode::Offered, ..config() }
}

const ONE: &str = "
    C: MAIL FROM:<>
    S: 250
    C: RCPT TO:<a@b.example>
    S: 250";
const STARTTLS: &str = "S: 250 STARTTLS\nC: STARTTLS\nS: 220 2.0.0";

/// The reply to EHLO up to the line before the last one.
fn ehlo_but_last() -> String {
    EHLO.replace("S: 250 LIMITS", "S: 250-LIMITS")
}

#[tokio::test]
async fn a_session_goes_on_over_tls_as_if_nothing_had_been_said() {
    let files = Files::new();
    let mut session = Session::start(encrypted(&files));
    session.play(&format!("{}\n{STARTTLS}", ehlo_but_last())).await;
    let mut session = session.encrypt().await;
    session.play("C: MAIL FROM:<>\nS: 503").await;
    session.play(&EHLO.replace("S: 220 mx.example ESMTP", "").replace("c.example", "d.example")).await;
    session.play(ONE).await;
    session.play("C: DATA\nS: 354").await;
    for _ in 0..2000 {
        session.client.write_all(&[b"x".repeat(98), b"\r\n".to_vec()].concat()).await.unwrap();
    }
    session.play("C: .\nS: 250 2.0.0 Kept\nC: STARTTLS\nS: 503\nC: QUIT\nS: 221\nS: EOF").await;
    assert_eq!(session.memory.available_bytes(), 1 << 20);
    let (ended, log) = session.hang_up().await;
    ended.unwrap();
    let expected = [
        "offers to c.example",
        "offers to d.example",
        "mail from 192.0.2.1 d.example TLSv1.3 ",
        "message of 200000 bytes",
        "settled",
    ];
    assert_eq!(log, expected);
}

#[tokio::test]
async fn plaintext_sent_with_starttls_is_never_executed() {
    let files = Files::new();
    let mut session = Session::start(encrypted(&files));
    session.play(&ehlo_but_last()).await;
    session.play("S: 250 STARTTLS").await;
    session.play(r"C|STARTTLS\r\nMAIL FROM:<evil@b.example>\r\nRCPT TO:<a@b.example>\r\n").await;
    session.play("S: 503 5.5.0\nS: EOF").await;
    assert_eq!(session.hang_up().await.1, ["offers to c.example"]);
}

#[tokio::test]
async fn plaintext_sent_after_starttls_breaks_the_handshake_and_is_not_answered() {
    let files = Files::new();
    let mut session = Session::start(encrypted(&files));
    session.play(&format!("{}\n{STARTTLS}", ehlo_but_last())).await;
    session.play("C: EHLO evil.example\nC: MAIL FROM:<evil@b.example>").await;
    let mut rest = Vec::new();
    session.client.read_to_end(&mut rest).await.unwrap();
    // A TLS alert at most (RFC 8446, section 5.1: content type 21).
    assert!(rest.is_empty() || rest[0] == 21, "{rest:?}");
    let (ended, log) = session.hang_up().await;
    assert!(ended.is_err());
    assert_eq!(log, ["offers to c.example"]);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_is_given_up() {
    let files = Files::new();
    let mut session = Session::start(Config { tls_timeout: Duration::from_secs(7), ..encrypted(&files) });
    session.play(&format!("{}\n{STARTTLS}", ehlo_but_last())).await;
    let began = Instant::now();
    session.play("S: EOF").await;
    assert_eq!(began.elapsed().as_secs(), 7);
    assert_eq!(session.hang_up().await.0.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn chunks_arrive_as_one_message_and_their_memory_comes_back() {
    let mut session = Session::start(config());
    session.play(EHLO).await;
    session.play(ONE).await;
    for _ in 0..10 {
        session.play("C: BDAT 1000").await;
        session.client.write_all(&[b'x'; 1000]).await.unwrap();
        session.play("S: 250 2.0.0 Ok").await;
        assert!(session.memory.available_bytes() < 1 << 20);
    }
    session.play(r"C|BDAT 2 LAST\r\n\r\nNOOP\r\n").await;
    session.play("S: 250 2.0.0 Kept\nS: 250 2.0.0 Ok").await;
    assert_eq!(session.memory.available_bytes(), 1 << 20);
    assert_eq!(session.hang_up().await.1[2], "message of 10002 bytes");
}

#[tokio::test]
async fn a_flood_of_tiny_chunks_holds_no_more_than_their_bytes() {
    let limits = crate::smtp::server::Limits { commands: 100_000, ..Default::default() };
    let mut session = Session::start(Config { limits, ..config() });
    session.play(EHLO).await;
    session.play(ONE).await;
    for _ in 0..50 {
        session.client.write_all("BDAT 1\r\nx".repeat(100).as_bytes()).await.unwrap();
        session.play(&"S: 250 2.0.0 Ok\n".repeat(100)).await;
    }
    assert!(session.memory.available_bytes() >= (1 << 20) - 16 * 1024);
    session.play("C: RSET\nS: 250").await;
    assert_eq!(session.memory.available_bytes(), 1 << 20);
}

#[tokio::test]
async fn a_chunk_beyond_the_memory_is_put_off_and_the_next_message_passes() {
    let mut session = Session::start(config());
    session.play(EHLO).await;
    session.play(ONE).await;
    session.play("C: BDAT 2000000").await;
    for _ in 0..200 {
        session.client.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    session.play("S: 452 4.3.1").await;
    assert_eq!(session.memory.available_bytes(), 1 << 20);
    session.play(r"C|BDAT 6 LAST\r\nRSET\r\n").await;
    session.play("S: 503").await;
    session.play(ONE).await;
    session.play(r"C|BDAT 3 LAST\r\nx\r\n").await;
    session.play("S: 250 2.0.0 Kept").await;
    let (_, log) = session.hang_up().await;
    let mail = "mail from 192.0.2.1 c.example  ";
    assert_eq!(log[1..], [mail, "reset", mail, "message of 3 bytes", "settled"]);
}

#[tokio::test]
async fn each_recipient_is_answered_over_lmtp_and_with_prdr() {
    let mut session = Session::start(Config { kind: Kind::Lmtp, ..config() });
    session.play("S: 220 mx.example LMTP\nC: LHLO c.example").await;
    session.play(&"S: 250-\n".repeat(7)).await;
    session.play("S: 250 LIMITS").await;
    session.play(ONE).await;
    session.play("C: RCPT TO:<c@b.example>\nS: 250\nC: DATA\nS: 354\nC: .").await;
    session.play("S: 250 2.0.0 Yours\nS: 550 5.7.1 Not for you\nC: QUIT\nS: 221\nS: EOF").await;
    assert_eq!(session.hang_up().await.1.last().unwrap(), "settled");
    let mut session = Session::start(config());
    session.play(EHLO).await;
    session.play(&ONE.replace("FROM:<>", "FROM:<> PRDR")).await;
    session.play("C: RCPT TO:<c@b.example>\nS: 250\nC: DATA\nS: 354\nC: .").await;
    session.play("S: 353\nS: 250 2.0.0 Yours\nS: 550 5.7.1 Not for you\nS: 250 2.0.0 Kept").await;
}

#[tokio::test]
async fn a_message_is_settled_once_when_the_client_speaks_or_closes_after_its_answer() {
    for last in [
        r"C|.\r\n",
        // Sent together, it does not say that the answer arrived; the close does.
        r"C|.\r\nNOOP\r\n",
        r"C|.\r\nQUIT\r\n",
        "C|.\\r\\n\nS: 250 2.0.0 Kept\nC: QUIT",
        "C|.\\r\\n\nS: 250 2.0.0 Kept\nC: MAIL FROM:<>",
    ] {
        let mut session = Session::start(config());
        session.play(EHLO).await;
        session.play(ONE).await;
        session.play("C: DATA\nS: 354").await;
        session.play(last).await;
        session.play(if last.contains("Kept") { "S: 2" } else { "S: 250 2.0.0 Kept" }).await;
        let (_, log) = session.hang_up().await;
        assert_eq!(log.iter().filter(|line| *line == "settled").count(), 1, "{last}");
    }
}

#[tokio::test]
async fn a_client_that_left_before_its_answer_does_not_have_it_whatever_it_said_last() {
    for last in ["", "RSET\r\n", "NOOP\r\nNOOP\r\n"] {
        let gate = Arc::new(Notify::new());
        let decider = Decider { gate: Some(Arc::clone(&gate)), ..Decider::default() };
        let mut session = Session::with(config(), decider);
        session.play(EHLO).await;
        session.play(ONE).await;
        session.play("C: DATA\nS: 354\nC: .").await;
        while session.decider.log().last().is_none_or(|line| !line.starts_with("message")) {
            tokio::task::yield_now().await;
        }
        session.client.write_all(last.as_bytes()).await.unwrap();
        // As over TCP, where what is written to a client that is gone goes well at first.
        session.client.shutdown().await.unwrap();
        gate.notify_one();
        session.serving.await.unwrap().unwrap();
        let log = session.decider.log();
        assert!(!log.contains(&"settled".to_owned()), "{last}: {log:?}");
    }
}

#[tokio::test]
async fn a_client_signs_in_and_its_name_reaches_the_handler() {
    let offers = Offers { mechanisms: vec![Mechanism::Plain], ..Offers::default() };
    let decider = Decider { offers, ..Decider::default() };
    let mut session = Session::with(Config { sign_in_in_clear: true, ..config() }, decider);
    session.play(&ehlo_but_last()).await;
    session.play("S: 250 AUTH PLAIN\nC: AUTH PLAIN AGEAYw==\nS: 535\nC: AUTH PLAIN AGEAYg==\nS: 235").await;
    session.play(ONE).await;
    assert_eq!(session.hang_up().await.1[1], "mail from 192.0.2.1 c.example  a");
}

#[tokio::test]
async fn a_trusted_peer_tells_where_its_mail_comes_from() {
    let networks = vec!["192.0.2.0/24".parse().unwrap()];
    let mut session = Session::start(Config { xforward_networks: networks, ..config() });
    session.play(&ehlo_but_last()).await;
    session.play("S: 250 XFORWARD\nC: XFORWARD ADDR=198.51.100.7 HELO=far.example\nS: 250").await;
    session.play(ONE).await;
    assert_eq!(session.hang_up().await.1[1], "mail from 198.51.100.7 far.example  ");
}

#[tokio::test(start_paused = true)]
async fn who_talks_before_the_greeting_is_turned_away() {
    let config = Config { greeting_delay: Duration::from_secs(3), ..config() };
    let mut session = Session::start(config.clone());
    session.play("C: EHLO c.example\nS: 554 5.5.0\nS: EOF").await;
    assert!(session.hang_up().await.1.is_empty());
    let mut session = Session::start(config);
    let began = Instant::now();
    session.play(EHLO).await;
    assert_eq!(began.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn commands_sent_ahead_without_leave_are_not_executed() {
    for input in [
        r"C|EHLO c.example\r\nMAIL FROM:<>\r\n",
        r"C|HELO c.example\r\nMAIL FROM:<>\r\n",
        r"C|NOOP\r\nNOOP\r\n",
        r"C|XYZZY\r\nEHLO c.example\r\n",
    ] {
        let mut session = Session::start(config());
        session.play(&format!("S: 220\n{input}\nS: 503 5.5.0\nS: EOF")).await;
        assert!(session.hang_up().await.1.is_empty(), "{input}");
    }
    let mut session = Session::start(config());
    session.play("S: 220\nC: HELO c\nS: 250").await;
    session.play(ONE).await;
    session.play("C|DATA\\r\\nx\\r\\n.\\r\\n\nS: 503 5.5.0\nS: EOF").await;
    assert_eq!(session.hang_up().await.1, ["mail from 192.0.2.1 c  ", "reset"]);
    // The answer to a message is not withheld from a client that says QUIT with it.
    let mut session = Session::start(config());
    session.play("S: 220\nC: HELO c\nS: 250").await;
    session.play(ONE).await;
    session.play("C: DATA\nS: 354\nC|x\\r\\n.\\r\\nQUIT\\r\\n\nS: 250 2.0.0 Kept\nS: 221\nS: EOF").await;
}

#[tokio::test]
async fn a_trusted_peer_may_send_ahead() {
    let networks = vec!["192.0.2.1/32".parse().unwrap()];
    let mut session = Session::start(Config { xclient_networks: networks, ..config() });
    session.play("S: 220\nC|HELO c\\r\\nNOOP\\r\\n\nS: 250\nS: 250").await;
}

#[tokio::test(start_paused = true)]
async fn refusals_come_late_and_the_answer_to_a_message_does_not() {
    let limits = crate::smtp::server::Limits { message_bytes: 10, ..Default::default() };
    let mut session = Session::start(Config { tarpit: Duration::from_secs(5), limits, ..config() });
    session.play(&EHLO.replace("52428800", "10")).await;
    session.play(ONE).await;
    let began = Instant::now();
    session.play("C|RCPT TO:<no@b.example>\\r\\nRCPT TO:<no@b.example>\\r\\n\nS: 550").await;
    assert_eq!(began.elapsed().as_secs(), 5);
    session.play("S: 550").await;
    assert_eq!(began.elapsed().as_secs(), 10);
    session.play("C: DATA\nS: 354\nC: much too long\nC: .\nS: 552\nC: NOOP\nS: 250").await;
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn late_refusals_count_toward_the_time_of_the_session() {
    let config =
        Config { tarpit: Duration::from_secs(50), session_timeout: Duration::from_secs(60), ..config() };
    let mut session = Session::start(config);
    let began = Instant::now();
    session.play(EHLO).await;
    session.play("C|XYZZY\\r\\nXYZZY\\r\\n\nS: 500\nS: 500\nS: 421 4.4.2\nS: EOF").await;
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_ends_a_pause_and_finishes_a_message_in_chunks() {
    let mut session = Session::start(Config { tarpit: Duration::from_secs(500), ..config() });
    session.play(EHLO).await;
    session.play("C|XYZZY\\r\\nXYZZY\\r\\n\nS: 500").await;
    session.shutdown.send(true).unwrap();
    let began = Instant::now();
    session.play("S: 500\nS: 421 4.3.2\nS: EOF").await;
    assert!(began.elapsed().as_secs() < 5);
    let mut session = Session::start(config());
    session.play(EHLO).await;
    session.play(ONE).await;
    session.play("C|BDAT 1\\r\\nx\nS: 250").await;
    session.shutdown.send(true).unwrap();
    session.play("C|BDAT 2 LAST\\r\\n\\r\\n\nS: 250 2.0.0 Kept\nS: 421 4.3.2\nS: EOF").await;
}

#[tokio::test]
async fn shutting_down_does_not_wait_for_a_handshake() {
    let files = Files::new();
    let mut session = Session::start(encrypted(&files));
    session.play(&format!("{}\n{STARTTLS}", ehlo_but_last())).await;
    session.shutdown.send(true).unwrap();
    session.play("S: EOF").await;
    assert_eq!(session.hang_up().await.0.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

/// A stream that counts its writes.
struct Counting {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[tokio::test]
async fn replies_to_pipelined_commands_leave_in_one_write() {
    let (client, stream) = tokio::io::duplex(64 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    let server = Counting { stream, writes: Arc::clone(&writes) };
    let mut session = Session::over(client, server, config(), Decider::default());
    session.play(EHLO).await;
    let before = writes.load(Ordering::Relaxed);
    let group = format!("MAIL FROM:<>\\r\\n{}", "RCPT TO:<a@b.example>\\r\\n".repeat(20));
    session.play(&format!("C|{group}DATA\\r\\n\n{}S: 354", "S: 250\n".repeat(21))).await;
    session.play("C|.\\r\\nQUIT\\r\\n\nS: 250 2.0.0 Kept\nS: 221\nS: EOF").await;
    assert_eq!(writes.load(Ordering::Relaxed) - before, 2);
}
