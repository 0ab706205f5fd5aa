//! Scripted next hops, good and bad.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::mail::{Address, Client, Mail, Recipient, Reply};
use crate::relay::{Begun, Config, Error, NextHop, Outcome, Relay};

mod dialogue;
mod extension;
mod hostile;
mod lmtp;
mod maildir;
mod route;
mod secure;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> Box<dyn Io> {
        match self {
            Listener::Tcp(listener) => Box::new(listener.accept().await.unwrap().0),
            Listener::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
        }
    }
}

/// Plays one script for each connection, in order; a connection is closed at the end of its script.
///
/// `S:` sends a line (`S|` without CR LF), `C:` reads one that begins so (`C=` is so), `M` reads a message
/// up to its final dot, `B` so many bytes, `R` at least one byte, `T` shakes hands for TLS, `H` waits for the
/// other side to close.
struct Hop {
    port: u16,
    messages: Arc<Mutex<Vec<String>>>,
    playing: JoinHandle<()>,
}

impl Hop {
    async fn start(scripts: &[&str]) -> Self {
        Hop::start_with(scripts, None).await
    }

    async fn start_with(scripts: &[&str], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Hop::play(scripts, port, tls, Listener::Tcp(listener))
    }

    fn start_at(path: &Path, scripts: &[&str]) -> Self {
        Hop::play(scripts, 0, None, Listener::Unix(UnixListener::bind(path).unwrap()))
    }

    fn play(scripts: &[&str], port: u16, tls: Option<TlsAcceptor>, listener: Listener) -> Self {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let scripts: Vec<String> = scripts.iter().map(|script| (*script).to_owned()).collect();
        let log = Arc::clone(&messages);
        let playing = tokio::spawn(async move {
            for script in scripts {
                let mut stream = BufReader::new(listener.accept().await);
                for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    if line == "T" {
                        assert!(stream.buffer().is_empty(), "words before the handshake");
                        let acceptor = tls.as_ref().unwrap();
                        match acceptor.accept(stream.into_inner()).await {
                            Ok(secured) => stream = BufReader::new(Box::new(secured)),
                            Err(_) => break,
                        }
                    } else {
                        play(&mut stream, line, &log).await;
                    }
                }
            }
        });
        Hop { port, messages, playing }
    }

    fn relay(&self) -> Relay {
        Relay::new(self.config())
    }

    fn config(&self) -> Config {
        Config::new(self.next_hop("smtp"), "gw.example")
    }

    fn next_hop(&self, scheme: &str) -> NextHop {
        format!("{scheme}://127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// Waits until every script is played.
    async fn finish(self) -> Vec<String> {
        self.playing.await.unwrap();
        self.messages.lock().unwrap().clone()
    }
}

async fn play(stream: &mut BufReader<Box<dyn Io>>, line: &str, messages: &Mutex<Vec<String>>) {
    let mut got = String::new();
    if let Some(text) = line.strip_prefix("S: ") {
        drop(stream.write_all(format!("{text}\r\n").as_bytes()).await);
        drop(stream.flush().await);
    } else if let Some(text) = line.strip_prefix("S|") {
        drop(stream.write_all(text.replace("\\r", "\r").replace("\\n", "\n").as_bytes()).await);
        drop(stream.flush().await);
    } else if let Some(expected) = line.strip_prefix("C: ") {
        stream.read_line(&mut got).await.unwrap();
        assert!(got.starts_with(expected) && got.ends_with("\r\n"), "{line}\ngot: {got}");
    } else if let Some(expected) = line.strip_prefix("C= ") {
        stream.read_line(&mut got).await.unwrap();
        assert_eq!(got, format!("{expected}\r\n"));
    } else if let Some(len) = line.strip_prefix("B ") {
        let mut message = vec![0; len.parse().unwrap()];
        stream.read_exact(&mut message).await.unwrap();
        messages.lock().unwrap().push(String::from_utf8(message).unwrap());
    } else if line == "M" {
        while got != ".\r\n" && !got.ends_with("\r\n.\r\n") {
            assert!(stream.read_line(&mut got).await.unwrap() > 0);
        }
        messages.lock().unwrap().push(got);
    } else if line == "R" {
        drop(stream.read(&mut [0]).await);
    } else if line == "H" {
        drop(stream.read_to_end(&mut Vec::new()).await);
    } else {
        panic!("no script line: {line}");
    }
}

fn mail() -> Mail {
    Mail { reverse_path: Some(Address::parse("a@b.example").unwrap()), ..Mail::default() }
}

fn rcpt() -> Recipient {
    Address::parse("c@d.example").unwrap().into()
}

fn failed(step: &str, error: &Error) -> String {
    let kind = format!("{error:?}");
    let kind = kind.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    format!("{step} {kind}{}", if error.is_ambiguous() { " ambiguous" } else { "" })
}

fn said(step: &str, reply: &Reply) -> String {
    format!("{step} {}", reply.to_wire().trim_end().replace("\r\n", "|"))
}

/// Sends one message through all steps and says what became of it for each recipient; one word when MAIL
/// is as far as it came.
async fn send_all(
    relay: &Relay,
    client: Option<&Client>,
    mail: &Mail,
    recipients: &[&str],
    message: &[Bytes],
) -> Vec<String> {
    let mut transaction = match relay.begin(client, mail).await {
        Ok(Begun::Ready(transaction, _)) => transaction,
        Ok(Begun::Refused(reply)) => return vec![said("mail", &reply)],
        Err(error) => return vec![failed("mail", &error)],
    };
    let mut told = Vec::new();
    for recipient in recipients {
        told.push(match transaction.rcpt(&Address::parse(recipient).unwrap().into()).await {
            Ok(reply) if reply.is_positive() => String::new(),
            Ok(reply) => said("rcpt", &reply),
            Err(error) => failed("rcpt", &error),
        });
    }
    if told.iter().all(|word| !word.is_empty()) {
        transaction.abandon().await;
        return told;
    }
    let mut outcomes = transaction.data(message).await.into_iter();
    for word in told.iter_mut().filter(|word| word.is_empty()) {
        *word = match outcomes.next().unwrap() {
            Outcome::Accepted(accepted) => said("accepted", accepted.reply()),
            Outcome::Refused(reply) => said("data", &reply),
            Outcome::Failed(error) => failed("data", &error),
        };
    }
    assert!(outcomes.next().is_none(), "more outcomes than recipients");
    told
}

async fn send(relay: &Relay, mail: &Mail, message: &[Bytes]) -> String {
    send_all(relay, None, mail, &["c@d.example"], message).await.remove(0)
}

fn message() -> Vec<Bytes> {
    vec![Bytes::from_static(b"X-Added: 1\r\n"), Bytes::from_static(b"\r\n.dot\r\n")]
}

const OPEN: &str = "S: 220 hop.example ESMTP
    C: EHLO gw.example
    S: 250-hop.example
    S: 250-SIZE 3000
    S: 250-SMTPUTF8
    S: 250 8BITMIME
    ";
const ENVELOPE: &str = "C: MAIL FROM:<a@b.example>
    S: 250 2.1.0 Ok
    C: RCPT TO:<c@d.example>
    S: 250 2.1.5 Ok
    ";

async fn check(script: &str, expected: &str) {
    let hop = Hop::start(&[script]).await;
    assert_eq!(send(&hop.relay(), &mail(), &message()).await, expected, "{script}");
    hop.playing.abort();
}
