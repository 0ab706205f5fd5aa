//! A scripted next hop on a loopback port, good and bad.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::mail::{Address, Recipient};

/// Plays one script for each connection, in order; a connection is closed at the end of its script.
///
/// `S:` sends a line (`S|` without CR LF), `C:` reads one that begins so, `M` reads a message up to its
/// final dot, `H` waits for the other side to close.
struct Hop {
    port: u16,
    messages: Arc<Mutex<Vec<String>>>,
    playing: JoinHandle<()>,
}

impl Hop {
    async fn start(scripts: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let scripts: Vec<String> = scripts.iter().map(|script| (*script).to_owned()).collect();
        let log = Arc::clone(&messages);
        let playing = tokio::spawn(async move {
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    play(&mut stream, line, &log).await;
                }
            }
        });
        Hop { port, messages, playing }
    }

    fn relay(&self) -> Relay {
        Relay::new(self.config())
    }

    fn config(&self) -> Config {
        let next_hop = NextHop::Smtp { host: "127.0.0.1".to_owned(), port: self.port };
        Config::new(next_hop, "gw.example")
    }

    /// Waits until every script is played.
    async fn finish(self) -> Vec<String> {
        self.playing.await.unwrap();
        self.messages.lock().unwrap().clone()
    }
}

async fn play(stream: &mut BufReader<tokio::net::TcpStream>, line: &str, messages: &Mutex<Vec<String>>) {
    if let Some(text) = line.strip_prefix("S: ") {
        drop(stream.write_all(format!("{text}\r\n").as_bytes()).await);
    } else if let Some(text) = line.strip_prefix("S|") {
        drop(stream.write_all(text.replace("\\r", "\r").replace("\\n", "\n").as_bytes()).await);
    } else if let Some(expected) = line.strip_prefix("C: ") {
        let mut got = String::new();
        stream.read_line(&mut got).await.unwrap();
        assert!(got.starts_with(expected) && got.ends_with("\r\n"), "{line}\ngot: {got}");
    } else if line == "M" {
        let mut message = String::new();
        while message != ".\r\n" && !message.ends_with("\r\n.\r\n") {
            assert!(stream.read_line(&mut message).await.unwrap() > 0);
        }
        messages.lock().unwrap().push(message);
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

/// Sends one message through all steps and says what became of it.
async fn send(relay: &Relay, mail: &Mail, message: &[Bytes]) -> String {
    let failed = |step: &str, error: &Error| {
        let kind = format!("{error:?}");
        let kind = kind.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
        format!("{step} {kind}{}", if error.is_ambiguous() { " ambiguous" } else { "" })
    };
    let said =
        |step: &str, reply: &Reply| format!("{step} {}", reply.to_wire().trim_end().replace("\r\n", "|"));
    let mut transaction = match relay.begin(None, mail).await {
        Ok(Begun::Ready(transaction, _)) => transaction,
        Ok(Begun::Refused(reply)) => return said("mail", &reply),
        Err(error) => return failed("mail", &error),
    };
    match transaction.rcpt(&rcpt()).await {
        Ok(reply) if reply.is_positive() => {}
        Ok(reply) => {
            let result = said("rcpt", &reply);
            transaction.abandon().await;
            return result;
        }
        Err(error) => return failed("rcpt", &error),
    }
    match transaction.data(message).await.first().unwrap() {
        Outcome::Accepted(accepted) => said("accepted", accepted.reply()),
        Outcome::Refused(reply) => said("data", reply),
        Outcome::Failed(error) => failed("data", error),
    }
}

fn message() -> Vec<Bytes> {
    vec![Bytes::from_static(b"X-Added: 1\r\n"), Bytes::from_static(b"\r\n.dot\r\n")]
}

const OPEN: &str = "S: 220 hop.example ESMTP
    C: EHLO gw.example
    S: 250-hop.example
    S: 250-SIZE 1000
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

#[tokio::test]
async fn a_message_arrives_with_its_dots_and_the_reply_comes_back() {
    let script = format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 250 2.0.0 queued as 1\n");
    let hop = Hop::start(&[&script]).await;
    assert_eq!(send(&hop.relay(), &mail(), &message()).await, "accepted 250 2.0.0 queued as 1");
    assert_eq!(hop.finish().await, ["X-Added: 1\r\n\r\n..dot\r\n.\r\n"]);
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_message_a_refusal_and_an_abandoned_transaction() {
    let data = "C: DATA\nS: 354 go\nM\n";
    let script = format!(
        "{OPEN}{ENVELOPE}{data}S: 250 one\nC: MAIL\nS: 550 no\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 450 later\nC: RSET\n\
         S: 250 ok\n{ENVELOPE}C: DATA\nS: 451 not now\nC: RSET\nS: 250 ok\n{ENVELOPE}{data}S: 554 spam\n\
         {ENVELOPE}{data}S: 250 two\n"
    );
    let hop = Hop::start(&[&script]).await;
    let relay = hop.relay();
    for expected in [
        "accepted 250 one",
        "mail 550 no",
        "rcpt 450 later",
        "data 451 not now",
        "data 554 spam",
        "accepted 250 two",
    ] {
        assert_eq!(send(&relay, &mail(), &message()).await, expected);
    }
    assert_eq!(hop.finish().await.len(), 3);
}

#[tokio::test]
async fn refusals_pass_through_and_421_becomes_451() {
    check(
        &format!("{OPEN}C: MAIL\nS: 452-4.3.1 full\nS: 452 4.3.1 disk\n"),
        "mail 452-4.3.1 full|452 4.3.1 disk",
    )
    .await;
    check(&format!("{OPEN}C: MAIL\nS: 421 4.3.2 bye\n"), "mail 451 4.3.2 bye").await;
    check(&format!("{OPEN}C: MAIL\nS: 250 ok\nC: RCPT\nS: 550 5.1.1 who\n"), "rcpt 550 5.1.1 who").await;
    check(&format!("{OPEN}C: MAIL\nS: 250 ok\nC: RCPT\nS: 421 4.3.2 bye\n"), "rcpt 451 4.3.2 bye").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 421 4.3.2 bye\n"), "data 451 4.3.2 bye").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 421 4.3.2 bye\n"), "data 451 4.3.2 bye").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 552 5.3.4 big\n"), "data 552 5.3.4 big").await;
}

#[tokio::test]
async fn a_hop_without_ehlo_is_greeted_with_helo() {
    let script = format!(
        "S: 220 old\nC: EHLO\nS: 500 what\nC: HELO gw.example\nS: 250 ok\n{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 250 ok\n"
    );
    check(&script, "accepted 250 ok").await;
}

#[tokio::test]
async fn a_hop_that_takes_no_mail_is_no_refusal() {
    check("S: 554 no service\n", "mail Unwilling").await;
    check("S: 421 busy\n", "mail Unwilling").await;
    check("S: 220 x\nC: EHLO\nS: 451 later\n", "mail Unwilling").await;
    check("S: 220 x\nC: EHLO\nS: 500 x\nC: HELO\nS: 550 x\n", "mail Unwilling").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let next_hop = NextHop::Smtp { host: "127.0.0.1".to_owned(), port: closed };
    let relay = Relay::new(Config::new(next_hop, "gw.example"));
    assert_eq!(send(&relay, &mail(), &message()).await, "mail Connect");
}

#[tokio::test]
async fn a_hop_that_closes_at_any_stage_loses_nothing() {
    check("", "mail Lost").await;
    check("S: 220 x\nC: EHLO\n", "mail Lost").await;
    check(&format!("{OPEN}C: MAIL\n"), "mail Lost").await;
    check(&format!("{OPEN}C: MAIL\nS: 250 ok\nC: RCPT\nS|250 2.1"), "rcpt Lost").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS|250-"), "data Lost").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\n"), "data Lost ambiguous").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS|250 2.0.0 almo"), "data Lost ambiguous").await;
}

#[tokio::test]
async fn nonsense_is_never_taken_for_acceptance() {
    check("S: hello\n", "mail Reply").await;
    check(&format!("{OPEN}C: MAIL\nS: 354 go\nH"), "mail Nonsense").await;
    check(&format!("{OPEN}C: MAIL\nS|250-a\\r\\n550 b\\r\\n\nH"), "mail Reply").await;
    check(&format!("{OPEN}C: MAIL\nS: 250 ok\nC: RCPT\nS: 300 hm\nH"), "rcpt Nonsense").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 250 kept\nH"), "data Nonsense").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 334 go\nH"), "data Nonsense").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 354 more\nH"), "data Nonsense ambiguous").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: ok\nH"), "data Reply ambiguous").await;
    // Replies that run ahead: the second one belongs to no command.
    check(&format!("{OPEN}C: MAIL\nS|250 ok\\r\\n250 ok\\r\\n\nH"), "rcpt Nonsense").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS|354 go\\r\\n250 kept\\r\\n\nH"), "data Nonsense").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS|354 go\\r\\n552 5.3.4 big\\r\\n\nH"), "data 552 5.3.4 big")
        .await;
}

#[tokio::test]
async fn endless_replies_are_cut_off() {
    let flood = "S: 250-and so on\n".repeat(200);
    check(&format!("{OPEN}C: MAIL\n{flood}H"), "mail Reply").await;
    let endless = format!("S|250 {}", "x".repeat(10_000));
    check(&format!("{OPEN}C: MAIL\n{endless}\nH"), "mail Reply").await;
}

#[tokio::test]
async fn a_silent_hop_runs_into_the_time_limits() {
    let limit = Duration::from_millis(300);
    let connect = |config: Config| Config { connect_timeout: limit, ..config };
    let command = |config: Config| Config { command_timeout: limit, ..config };
    let data = |config: Config| Config { data_timeout: limit, ..config };
    let whole = format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nH");
    for (script, config, expected) in [
        ("H", &connect as &dyn Fn(Config) -> Config, "mail Timeout"),
        (&format!("{OPEN}C: MAIL\nH"), &command, "mail Timeout"),
        (&whole, &data, "data Timeout ambiguous"),
    ] {
        let hop = Hop::start(&[script]).await;
        let relay = Relay::new(config(hop.config()));
        assert_eq!(send(&relay, &mail(), &message()).await, expected, "{script}");
        hop.finish().await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_once() {
    let whole = format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 250 ok\n");
    for end in ["", "C: MAIL\n", "C: MAIL\nS: 421 idle\n", "S: 421 idle\nH", "C: MAIL\nS: nonsense\n"] {
        let dying = format!("{whole}{end}");
        let hop = Hop::start(&[&dying, &whole]).await;
        let relay = hop.relay();
        for _ in 0..2 {
            assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 ok", "{end}");
        }
        assert_eq!(hop.finish().await.len(), 2);
    }
    let dying = format!("{whole}{ENVELOPE}C: DATA\nS: 354 go\nM\n");
    let hop = Hop::start(&[&dying, &whole]).await;
    let relay = hop.relay();
    assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 ok");
    assert_eq!(send(&relay, &mail(), &message()).await, "data Lost ambiguous");
    hop.playing.abort();
}

#[tokio::test]
async fn a_dropped_transaction_closes_its_connection() {
    let hop = Hop::start(&[&format!("{OPEN}{ENVELOPE}H")]).await;
    let relay = hop.relay();
    let Ok(Begun::Ready(mut transaction, _)) = relay.begin(None, &mail()).await else { panic!("not ready") };
    transaction.rcpt(&rcpt()).await.unwrap();
    drop(transaction);
    hop.finish().await;
}

#[tokio::test]
async fn what_the_hop_does_not_offer_is_not_asked_of_it() {
    let bare = "S: 220 x\nC: EHLO\nS: 250 x\n";
    let eight_bit = Mail { body: crate::mail::BodyType::EightBitMime, ..mail() };
    let utf8 = Mail { smtputf8: true, ..mail() };
    let large = Mail { size_bytes: Some(1001), ..mail() };
    let high = [Bytes::from_static(b"caf\xe9\r\n")];

    let hop = Hop::start(&[bare]).await;
    let refused = "mail 550 5.6.7 SMTPUTF8 is not supported on the way to the recipient";
    assert_eq!(send(&hop.relay(), &utf8, &message()).await, refused);
    let hop = Hop::start(&[OPEN]).await;
    assert_eq!(send(&hop.relay(), &large, &message()).await, "mail 552 5.3.4 Message too large");
    let plain = format!("{bare}C: MAIL FROM:<a@b.example>\r\n{}", "S: 250 x\nC: RCPT\nS: 250 x\n");
    let hop = Hop::start(&[&format!("{plain}C: RSET\nS: 250 x\n")]).await;
    let refused = "data 554 5.6.3 8BITMIME is not supported on the way to the recipient";
    assert_eq!(send(&hop.relay(), &eight_bit, &high).await, refused);
    let hop = Hop::start(&[&format!("{plain}C: DATA\nS: 354 go\nM\nS: 250 ok\n")]).await;
    assert_eq!(send(&hop.relay(), &eight_bit, &message()).await, "accepted 250 ok");
    let all = Mail { size_bytes: Some(9), smtputf8: true, ..eight_bit };
    let hop =
        Hop::start(&[&format!("{OPEN}C: MAIL FROM:<a@b.example> SIZE=9 BODY=8BITMIME SMTPUTF8\nS: 550 x\n")])
            .await;
    assert_eq!(send(&hop.relay(), &all, &message()).await, "mail 550 x");
}

#[tokio::test]
async fn a_message_with_a_bare_line_end_is_never_sent() {
    let hop = Hop::start(&[&format!("{OPEN}{ENVELOPE}H")]).await;
    let smuggled = [Bytes::from_static(b"x\r"), Bytes::from_static(b".\r\nMAIL FROM:<>\r\n")];
    assert_eq!(send(&hop.relay(), &mail(), &smuggled).await, "data LineEnd");
    hop.finish().await;
}

#[tokio::test]
async fn a_maildir_holds_envelope_and_message_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mail");
    let relay = Relay::new(Config::new(NextHop::Maildir { path: path.clone() }, "gw.example"));
    for _ in 0..2 {
        assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 2.0.0 Delivered");
    }
    let files: Vec<_> =
        std::fs::read_dir(path.join("new")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2);
    let expected = "Return-Path: <a@b.example>\r\nDelivered-To: c@d.example\r\nX-Added: 1\r\n\r\n.dot\r\n";
    for file in files {
        assert_eq!(std::fs::read_to_string(file).unwrap(), expected);
    }
    assert_eq!(std::fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(send(&relay, &mail(), &message()).await, "data Maildir");
    assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 2.0.0 Delivered");
}

#[tokio::test]
async fn a_maildir_that_cannot_be_made_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "in the way").unwrap();
    let relay = Relay::new(Config::new(NextHop::Maildir { path }, "gw.example"));
    assert_eq!(send(&relay, &mail(), &message()).await, "data Maildir");
}

