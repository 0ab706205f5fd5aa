//! The way to a session, over loopback ports and Unix sockets.

use std::process::Command;
use std::sync::Mutex;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;
use crate::ingress::tls::tests::{BOTH, Files, connector};
use crate::ingress::{Handler, ListenAddress};
use crate::mail::{Client, Direction, Mail, Recipient};
use crate::smtp::server::{Answer, Offers, SignIn, SignInAnswer};

/// Takes everything, and remembers who connected.
#[derive(Clone, Default)]
struct Open {
    peers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Service for Open {
    type Handler = Open;

    fn connect(&self, peer: SocketAddr) -> Open {
        self.peers.lock().unwrap().push(peer);
        self.clone()
    }
}

fn fine() -> Reply {
    Reply::new(250, EnhancedCode(2, 0, 0), "Ok")
}

impl Handler for Open {
    async fn offers(&mut self, _client: &Client) -> Offers {
        Offers::default()
    }

    async fn sign_in(&mut self, _client: &Client, _step: SignIn) -> SignInAnswer {
        SignInAnswer::Refused(Reply::new(535, EnhancedCode(5, 7, 8), "No"))
    }

    async fn mail(&mut self, _client: &Client, _mail: &Mail) -> Reply {
        fine()
    }

    async fn rcpt(&mut self, _recipient: &Recipient) -> Reply {
        fine()
    }

    async fn message(&mut self, _body: Bytes) -> Answer {
        Answer::All(fine())
    }

    async fn settled(&mut self) {}

    async fn reset(&mut self) {}
}

/// A listener that serves.
struct Serving {
    address: ListenAddress,
    config: watch::Sender<Arc<Config>>,
    service: Open,
    memory: Memory,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Serving {
    fn start(listener: impl Into<Listener>, config: Config) -> Self {
        Serving::beside(listener, config, Sessions::default())
    }

    fn beside(listener: impl Into<Listener>, config: Config, sessions: Sessions) -> Self {
        let listener = listener.into();
        let address = listener.address().unwrap();
        let (config, receiver) = watch::channel(Arc::new(config));
        let (shutdown, stopped) = watch::channel(false);
        let (service, memory) = (Open::default(), Memory::new(1 << 20));
        let shared = (memory.clone(), Arc::new(service.clone()));
        let task = tokio::spawn(serve(listener, receiver, shared.0, sessions, shared.1, stopped));
        Serving { address, config, service, memory, shutdown, task }
    }

    async fn on_tcp(config: Config) -> Self {
        Serving::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), config)
    }

    fn tcp_address(&self) -> SocketAddr {
        match &self.address {
            ListenAddress::Tcp(address) => *address,
            other => panic!("{other} is not TCP"),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.tcp_address()).await.unwrap()
    }

    /// Connects, says something at once, and returns the beginning of the answer; empty at a close.
    async fn try_with(&self, words: &[u8]) -> (TcpStream, String) {
        let mut stream = self.connect().await;
        stream.write_all(words).await.unwrap();
        let line = read_line(&mut stream).await;
        (stream, line)
    }

    fn peers(&self) -> Vec<String> {
        self.service.peers.lock().unwrap().iter().map(ToString::to_string).collect()
    }

    async fn stop(self) {
        self.shutdown.send(true).unwrap();
        self.task.await.unwrap();
    }
}

fn config() -> Config {
    Config::new(Direction::Inbound, "mx.example")
}

fn behind_proxy() -> Config {
    Config { proxy_networks: vec!["127.0.0.0/8".parse().unwrap()], ..config() }
}

/// Reads a line; what there is of one, where the peer closes or resets the connection.
async fn read_line<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && stream.read_buf(&mut line.limit()).await.is_ok_and(|len| len > 0) {}
    String::from_utf8(line).unwrap()
}

/// Room for one byte at a time, so that nothing after a line is taken.
trait Limit {
    fn limit(&mut self) -> bytes::buf::Limit<&mut Vec<u8>>;
}

impl Limit for Vec<u8> {
    fn limit(&mut self) -> bytes::buf::Limit<&mut Vec<u8>> {
        bytes::BufMut::limit(self, 1)
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, command: &str) -> String {
    stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    read_line(stream).await
}

fn header_v1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 198.51.100.1 4321 25\r\n").into_bytes()
}

fn header_v2(command: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend_from_slice(&[command, 0x11, 0, 15, 192, 0, 2, 7, 198, 51, 100, 1, 0x10, 0xe1, 0, 25]);
    // An extension that says nothing.
    header.extend_from_slice(&[4, 0, 0]);
    header
}

#[tokio::test]
async fn a_trusted_peer_says_who_the_client_is() {
    let serving = Serving::on_tcp(behind_proxy()).await;
    for header in [header_v1("192.0.2.7"), header_v2(0x21)] {
        let (mut stream, greeting) = serving.try_with(&header).await;
        assert!(greeting.starts_with("220 mx.example"), "{greeting}");
        assert!(ask(&mut stream, "HELO c").await.starts_with("250"));
        assert_eq!(serving.peers().last().unwrap(), "192.0.2.7:4321");
    }
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), header_v2(0x20)] {
        let (stream, greeting) = serving.try_with(&header).await;
        assert!(greeting.starts_with("220"), "{greeting}");
        assert_eq!(serving.peers().last().unwrap(), &stream.local_addr().unwrap().to_string());
    }
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.8 ::1 99 25\r\n";
    let (_stream, greeting) = serving.try_with(mapped).await;
    assert!(greeting.starts_with("220"), "{greeting}");
    assert_eq!(serving.peers().last().unwrap(), "192.0.2.8:99");
}

#[tokio::test]
async fn to_anybody_else_a_header_is_an_unknown_command() {
    let elsewhere = Config { proxy_networks: vec!["192.0.2.0/24".parse().unwrap()], ..config() };
    let serving = Serving::on_tcp(elsewhere).await;
    let mut stream = serving.connect().await;
    assert!(read_line(&mut stream).await.starts_with("220"));
    let answer = ask(&mut stream, "PROXY TCP4 192.0.2.7 198.51.100.1 4321 25").await;
    assert!(answer.starts_with(['4', '5']), "{answer}");
    assert_eq!(serving.peers(), [stream.local_addr().unwrap().to_string()]);
}

#[tokio::test]
async fn a_header_that_is_cut_off_or_malformed_gets_no_word_and_no_session() {
    let serving = Serving::on_tcp(behind_proxy()).await;
    for header in [header_v1("192.0.2.7"), header_v2(0x21)] {
        for cut in 0..header.len() {
            let mut stream = serving.connect().await;
            stream.write_all(&header[..cut]).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(read_line(&mut stream).await, "", "cut at {cut}");
        }
        let mut stream = serving.connect().await;
        stream.set_nodelay(true).unwrap();
        for byte in &header {
            stream.write_all(&[*byte]).await.unwrap();
        }
        assert!(read_line(&mut stream).await.starts_with("220"));
    }
    let sessions = serving.peers().len();
    assert_eq!(sessions, 2);
    for words in [&b"EHLO c.example\r\n"[..], b"PROXY TCP4 x\r\n", b"\x16\x03\x01", &[0; 4096]] {
        assert_eq!(serving.try_with(words).await.1, "");
    }
    assert_eq!(serving.peers().len(), sessions);
}

#[tokio::test]
async fn a_header_that_does_not_come_in_time_ends_the_connection() {
    let serving = Serving::on_tcp(Config { tls_timeout: Duration::from_millis(20), ..behind_proxy() }).await;
    assert_eq!(serving.try_with(b"PROXY ").await.1, "");
}

#[tokio::test]
async fn a_peer_that_stalls_before_its_session_counts_as_one() {
    let files = Files::new();
    let tls = files.acceptor(vec![files.pair("a", &["mx.example"])]);
    let implicit = Config { tls: Some(tls), tls_mode: TlsMode::Implicit, ..config() };
    for (config, refusal) in [(behind_proxy(), "421 4.3.2"), (implicit, "")] {
        let serving = Serving::on_tcp(Config { max_sessions: 1, ..config }).await;
        let stalled = serving.connect().await;
        // Accepted in order, so the second one finds the first.
        let answer = serving.try_with(b"").await.1;
        assert!(answer.starts_with(refusal) && answer.is_empty() == refusal.is_empty(), "{answer}");
        // Stopping does not wait for it.
        tokio::time::timeout(Duration::from_secs(20), serving.stop()).await.unwrap();
        drop(stalled);
    }
}

#[tokio::test]
async fn the_caps_are_for_the_client_that_the_proxy_names() {
    let capped = Config { max_sessions_per_source: 1, max_sessions_per_network: 2, ..behind_proxy() };
    let serving = Serving::on_tcp(capped).await;
    let (first, greeting) = serving.try_with(&header_v1("192.0.2.1")).await;
    assert!(greeting.starts_with("220"), "{greeting}");
    let (_, same_source) = serving.try_with(&header_v1("192.0.2.1")).await;
    assert!(same_source.starts_with("421 4.7.0 Too many connections from your address"), "{same_source}");
    let (_second, greeting) = serving.try_with(&header_v1("192.0.2.2")).await;
    assert!(greeting.starts_with("220"), "{greeting}");
    let (_, same_network) = serving.try_with(&header_v1("192.0.2.3")).await;
    assert!(same_network.starts_with("421 4.7.0 Too many connections from your network"), "{same_network}");
    let (_third, greeting) = serving.try_with(&header_v1("203.0.113.1")).await;
    assert!(greeting.starts_with("220"), "{greeting}");
    drop(first);
    // The place is free as soon as the session has ended, which the client cannot see.
    while !serving.try_with(&header_v1("192.0.2.1")).await.1.starts_with("220") {}
}

#[tokio::test]
async fn implicit_tls_precedes_the_greeting_and_follows_the_proxy_header() {
    let files = Files::new();
    let tls = files.acceptor(vec![files.pair("a", &["mx.example"])]);
    let implicit = Config { tls: Some(tls), tls_mode: TlsMode::Implicit, ..behind_proxy() };
    let serving = Serving::on_tcp(implicit).await;
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut wire = serving.connect().await;
    let client = tokio::spawn(async move {
        let name = ServerName::try_from("mx.example").unwrap();
        let mut stream = connector(&BOTH, None).connect(name, near).await.unwrap();
        (read_line(&mut stream).await, ask(&mut stream, "HELO c").await)
    });
    // The header and the first bytes of the handshake come in one piece.
    let mut first = vec![0; 1 << 14];
    let len = far.read(&mut first).await.unwrap();
    wire.write_all(&[&header_v2(0x21), &first[..len]].concat()).await.unwrap();
    let carry = tokio::spawn(async move { drop(tokio::io::copy_bidirectional(&mut wire, &mut far).await) });
    let (greeting, answer) = client.await.unwrap();
    assert!(greeting.starts_with("220 mx.example"), "{greeting}");
    assert!(answer.starts_with("250"), "{answer}");
    assert_eq!(serving.peers(), ["192.0.2.7:4321"]);
    carry.await.unwrap();
}

#[tokio::test]
async fn an_implicit_listener_says_nothing_in_clear() {
    let files = Files::new();
    let tls = files.acceptor(vec![files.pair("a", &["mx.example"])]);
    let implicit = Config { tls: Some(tls), tls_mode: TlsMode::Implicit, ..config() };
    let without = Config { tls: None, ..implicit.clone() };
    let stalling = Config { tls_timeout: Duration::from_millis(20), ..implicit.clone() };
    let full = Config { max_sessions_per_source: 0, ..implicit.clone() };
    for (config, words) in [
        (implicit, &b"EHLO c.example\r\n"[..]),
        (without, b"EHLO c.example\r\n"),
        (stalling, b""),
        (full, b""),
    ] {
        let serving = Serving::on_tcp(config).await;
        let (_, answer) = serving.try_with(words).await;
        // An alert, at most.
        assert!(answer.is_empty() || answer.starts_with('\u{15}'), "{answer:?}");
        assert!(serving.peers().is_empty());
    }
}

#[tokio::test]
async fn a_new_configuration_is_for_new_connections() {
    let serving = Serving::on_tcp(config()).await;
    let mut before = serving.connect().await;
    assert!(read_line(&mut before).await.starts_with("220 mx.example"));
    serving.config.send(Arc::new(Config::new(Direction::Inbound, "new.example"))).unwrap();
    let mut after = serving.connect().await;
    assert!(read_line(&mut after).await.starts_with("220 new.example"));
    assert!(ask(&mut before, "HELO c").await.starts_with("250 mx.example"));
    assert!(ask(&mut after, "HELO c").await.starts_with("250 new.example"));
}

#[tokio::test]
async fn a_unix_socket_serves_local_peers_without_a_cap_for_each() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("lmtp.sock");
    let address = ListenAddress::Unix(path.clone());
    let listener = Listener::open(&address, &mut crate::ingress::Inherited::default()).unwrap();
    let serving = Serving::start(listener, Config { max_sessions_per_source: 1, ..config() });
    assert_eq!(serving.address, address);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        assert!(read_line(&mut stream).await.starts_with("220"));
        streams.push(stream);
    }
    assert_eq!(serving.peers(), ["127.0.0.1:0"; 3]);

    serving.config.send(Arc::new(Config { max_sessions_per_source: 1, ..behind_proxy() })).unwrap();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(&header_v1("192.0.2.7")).await.unwrap();
        answers.push(read_line(&mut stream).await);
        streams.push(stream);
    }
    assert!(answers[0].starts_with("220") && answers[1].starts_with("421 4.7.0"), "{answers:?}");
    assert_eq!(serving.peers().last().unwrap(), "192.0.2.7:4321");
}

#[tokio::test]
async fn a_socket_that_somebody_else_holds_too_is_closed_and_not_shut_down() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    held.set_nonblocking(true).unwrap();
    let ours = TcpListener::from_std(held.try_clone().unwrap()).unwrap();
    let serving = Serving::start(ours, config());
    let address = serving.tcp_address();
    serving.stop().await;
    // Nobody serves now; the connection waits for the successor, which greets it.
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let successor = Serving::start(TcpListener::from_std(held).unwrap(), config());
    assert!(read_line(&mut waiting).await.starts_with("220"));
    drop(waiting);
    successor.stop().await;
}

#[tokio::test]
async fn messages_of_many_sessions_stay_within_the_budget_and_give_it_back() {
    let serving = Serving::on_tcp(config()).await;
    let body = [b"x".repeat(98), b"\r\n".to_vec()].concat().repeat(1000);
    let mut sessions = Vec::new();
    for _ in 0..40 {
        let mut stream = serving.connect().await;
        let body = body.clone();
        sessions.push(tokio::spawn(async move {
            read_line(&mut stream).await;
            for command in ["HELO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"] {
                ask(&mut stream, command).await;
            }
            stream.write_all(&body).await.unwrap();
            ask(&mut stream, ".").await
        }));
    }
    let mut taken = 0;
    for session in sessions {
        let answer = session.await.unwrap();
        assert!(answer.starts_with("250") || answer.starts_with("452 4.3.1"), "{answer}");
        taken += usize::from(answer.starts_with("250"));
    }
    assert!(taken > 0);
    let memory = serving.memory.clone();
    serving.stop().await;
    assert_eq!(memory.available_bytes(), 1 << 20);
}

#[test]
fn what_happens_before_a_session_is_counted_and_gauges_come_back() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    ::metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let files = Files::new();
            let tls = files.acceptor(vec![files.pair("a", &["mx.example"])]);
            let behind = Serving::on_tcp(Config { max_sessions_per_source: 1, ..behind_proxy() }).await;
            drop(behind.try_with(b"EHLO c.example\r\n").await);
            let (mut first, _) = behind.try_with(&header_v1("192.0.2.1")).await;
            drop(behind.try_with(&header_v1("192.0.2.1")).await);
            for command in ["HELO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA"] {
                ask(&mut first, command).await;
            }
            first.write_all(&[b'x'; 1000]).await.unwrap();
            assert!(ask(&mut first, "\r\n.").await.starts_with("250"));
            drop(first);
            behind.stop().await;
            let implicit = Config { tls: Some(tls), tls_mode: TlsMode::Implicit, ..config() };
            let implicit = Serving::on_tcp(implicit).await;
            drop(implicit.try_with(b"EHLO c.example\r\n").await);
            implicit.stop().await;
            let full = Serving::on_tcp(Config { max_sessions: 0, ..config() }).await;
            drop(full.try_with(b"").await);
            full.stop().await;
        });
    });
    let text = recorder.handle().render();
    for line in [
        "lazaret_connections_total{direction=\"inbound\"} 2",
        "lazaret_connections_refused_total{direction=\"inbound\",reason=\"proxy_header\"} 1",
        "lazaret_connections_refused_total{direction=\"inbound\",reason=\"source\"} 1",
        "lazaret_connections_refused_total{direction=\"inbound\",reason=\"sessions\"} 1",
        "lazaret_tls_handshakes_total{result=\"failed\"} 1",
        "lazaret_sessions 0",
        "lazaret_bytes_in_flight 0",
    ] {
        assert!(text.lines().any(|got| got == line), "{line}\n{text}");
    }
}

/// The variable that makes a test the process that runs out of descriptors.
const POOR: &str = "LAZARET_TEST_POOR";

/// Runs itself again with few descriptors, because it takes them all.
#[test]
fn accepting_goes_on_when_there_are_descriptors_again() {
    let own_name = "ingress::serve::tests::accepting_goes_on_when_there_are_descriptors_again";
    if std::env::var_os(POOR).is_none() {
        let poor = Command::new("sh")
            .args(["-c", r#"ulimit -n 64; exec "$@""#, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", own_name])
            .env(POOR, "1")
            .output()
            .unwrap();
        assert!(poor.status.success(), "{}", String::from_utf8_lossy(&poor.stdout));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let serving = Serving::on_tcp(config()).await;
        let mut client = serving.connect().await;
        let hoard: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        assert!(!hoard.is_empty());
        // The listener's turns: it finds the connection and no descriptor for it.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(serving.peers().is_empty());
        drop(hoard);
        assert!(read_line(&mut client).await.starts_with("220"));
    });
}

#[tokio::test]
async fn the_caps_hold_over_all_listeners_that_share_their_count() {
    let sessions = Sessions::default();
    let beside = |config: Config| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Serving::beside(listener, config, sessions.clone())
    };
    for (caps, refusal) in [
        (Config { max_sessions: 1, ..config() }, "421 4.3.2"),
        (
            Config { max_sessions_per_source: 1, ..config() },
            "421 4.7.0 Too many connections from your address",
        ),
        (
            Config { max_sessions_per_network: 1, ..config() },
            "421 4.7.0 Too many connections from your network",
        ),
    ] {
        let (one, other) = (beside(caps.clone()).await, beside(caps).await);
        let (held, greeting) = one.try_with(b"").await;
        assert!(greeting.starts_with("220"), "{greeting}");
        let (_, answer) = other.try_with(b"").await;
        assert!(answer.starts_with(refusal), "{answer}");
        drop(held);
        one.stop().await;
        let (_held, greeting) = other.try_with(b"").await;
        assert!(greeting.starts_with("220"), "{greeting}");
        other.stop().await;
    }
}
