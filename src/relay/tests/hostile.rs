//! Next hops that are broken or mean harm.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{ENVELOPE, Hop, OPEN, check, mail, message, send, send_all};
use crate::mail::{BodyType, Mail};
use crate::relay::{Config, NextHop, Relay};

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
async fn codes_that_belong_to_another_command_or_to_none_are_no_answer() {
    check("S: 354 go\nH", "mail Unwilling").await;
    check("S: 250 hello\nH", "mail Unwilling").await;
    check(&format!("{OPEN}C: MAIL\nS: 150 wait\nH"), "mail Reply").await;
    check(&format!("{OPEN}C: MAIL\nS: 650 what\nH"), "mail Reply").await;
    check(&format!("{OPEN}C: MAIL\nS: 250 ok\nC: RCPT\nS: 354 go\nH"), "rcpt Nonsense").await;
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 353 go\nH"), "data Nonsense").await;
    // Nobody asked for a reply for each recipient.
    check(&format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 353 each\nH"), "data Nonsense ambiguous").await;
    check(
        &format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 100 wait\nS: 250 ok\nH"),
        "data Reply ambiguous",
    )
    .await;
    check(
        &format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\nS|250-2.0.0 a\\r\\n250\\x b\\r\\n\nH"),
        "data Reply ambiguous",
    )
    .await;
}

#[tokio::test]
async fn a_reply_that_drips_in_has_no_more_time_than_one_that_comes_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dripping = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b"2").await.is_ok() {
            ticks.tick().await;
        }
    });
    let next_hop = NextHop::Smtp { host: "127.0.0.1".to_owned(), port };
    let limit = Duration::from_millis(200);
    let relay = Relay::new(Config { connect_timeout: limit, ..Config::new(next_hop, "gw.example") });
    assert_eq!(send(&relay, &mail(), &message()).await, "mail Timeout");
    dripping.await.unwrap();
}

#[tokio::test]
async fn what_arrives_after_the_last_reply_costs_the_connection() {
    let whole = |end: &str| format!("{OPEN}{ENVELOPE}C: DATA\nS: 354 go\nM\n{end}H");
    let scripts = [whole("S|250 one\\r\\n250 two\\r\\n\n"), whole("S: 250 ok\n")];
    let hop = Hop::start(&[&scripts[0], &scripts[1]]).await;
    let relay = hop.relay();
    for expected in ["accepted 250 one", "accepted 250 ok"] {
        assert_eq!(send(&relay, &mail(), &message()).await, expected);
    }
    drop(relay);
    assert_eq!(hop.finish().await.len(), 2);
}

/// Answers as told, each reply to what comes before it, but closes after a number of bytes.
async fn closing_hop(replies: &'static [&'static str], cut: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut left = cut;
        for (place, reply) in replies.iter().enumerate() {
            let is_message = place > 0 && replies[place - 1].starts_with("354");
            if place > 0 && !read_step(&mut stream, is_message).await {
                return;
            }
            let len = reply.len().min(left);
            if stream.write_all(&reply.as_bytes()[..len]).await.is_err() || len < reply.len() {
                return;
            }
            left -= len;
        }
    });
    port
}

/// Reads a command, with what BDAT brings, or a message up to its final dot.
async fn read_step(stream: &mut BufReader<TcpStream>, is_message: bool) -> bool {
    let mut text = String::new();
    loop {
        if stream.read_line(&mut text).await.unwrap_or(0) == 0 {
            return false;
        }
        if !is_message || text.ends_with("\r\n.\r\n") {
            break;
        }
    }
    let len = text.strip_prefix("BDAT ").and_then(|rest| rest.strip_suffix(" LAST\r\n"));
    let mut chunk = vec![0; len.map_or(0, |len| len.parse().unwrap())];
    stream.read_exact(&mut chunk).await.is_ok()
}

/// Cuts a dialogue at every byte of the server's. `ends` are the replies that settle the recipients, the
/// last of the dialogue; a recipient is accepted only when the whole of its reply has arrived.
async fn cut_everywhere(
    scheme: &str,
    mail: &Mail,
    recipients: &[&str],
    replies: &'static [&'static str],
    needed: &[usize],
) {
    let total: usize = replies.iter().map(|reply| reply.len()).sum();
    let last = replies.last().unwrap().len();
    for cut in 0..=total {
        let port = closing_hop(replies, cut).await;
        let relay =
            Relay::new(Config::new(format!("{scheme}://127.0.0.1:{port}").parse().unwrap(), "gw.example"));
        let outcomes = send_all(&relay, None, mail, recipients, &message()).await;
        for (recipient, needed) in needed.iter().enumerate() {
            let outcome = outcomes.get(recipient).map_or("", String::as_str);
            let is_whole = cut >= total - last + needed;
            assert_eq!(
                outcome.starts_with("accepted"),
                is_whole,
                "{scheme} cut at {cut} of {total}: {outcomes:?}"
            );
            let is_open = cut >= total - last && !is_whole;
            assert_eq!(
                outcome.ends_with("ambiguous"),
                is_open,
                "{scheme} cut at {cut} of {total}: {outcomes:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_close_at_any_byte_is_never_taken_for_acceptance() {
    let two = ["c@d.example", "e@d.example"];
    let smtp = &[
        "220 hop\r\n",
        "250-hop\r\n250 SIZE\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "250-2.0.0 queued\r\n250 2.0.0 as 1\r\n",
    ];
    let whole = smtp.last().unwrap().len();
    cut_everywhere("smtp", &mail(), &two, smtp, &[whole, whole]).await;
    let lmtp = &[
        "220 hop\r\n",
        "250-hop\r\n250 SIZE\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "250 one\r\n250 two\r\n",
    ];
    cut_everywhere("lmtp", &mail(), &two, lmtp, &[9, 18]).await;
    let prdr = &[
        "220 hop\r\n",
        "250-hop\r\n250 PRDR\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "353 each\r\n250 one\r\n250 two\r\n250 all\r\n",
    ];
    let whole = prdr.last().unwrap().len();
    cut_everywhere("smtp", &Mail { prdr: true, ..mail() }, &two, prdr, &[whole, whole]).await;
    let bdat = &[
        "220 hop\r\n",
        "250-hop\r\n250-CHUNKING\r\n250 BINARYMIME\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "250 22 bytes\r\n",
    ];
    let whole = bdat.last().unwrap().len();
    let binary = Mail { body: BodyType::Binary, ..mail() };
    cut_everywhere("smtp", &binary, &two, bdat, &[whole, whole]).await;
}
