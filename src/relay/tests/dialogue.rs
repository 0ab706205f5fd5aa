//! A whole transaction with one SMTP server: replies come through, connections are kept and replaced.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;

use super::{ENVELOPE, Hop, OPEN, check, mail, message, rcpt, send};
use crate::relay::{Begun, Config, NextHop, Relay};

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
async fn a_message_with_a_bare_line_end_is_never_sent() {
    let hop = Hop::start(&[&format!("{OPEN}{ENVELOPE}H")]).await;
    let smuggled = [Bytes::from_static(b"x\r"), Bytes::from_static(b".\r\nMAIL FROM:<>\r\n")];
    assert_eq!(send(&hop.relay(), &mail(), &smuggled).await, "data LineEnd");
    hop.finish().await;
}
