//! A reply for each recipient: LMTP and PRDR.

use super::{Hop, mail, message, send, send_all};
use crate::mail::Mail;
use crate::relay::{Config, NextHop, Relay};

const LMTP: &str = "S: 220 x\nC: LHLO gw.example\nS: 250 x\n";
const TWO: &str = "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nM\n";
const PRDR: &str = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250 PRDR\n";

async fn check(scheme: &str, mail: &Mail, script: &str, expected: [&str; 2]) {
    let hop = Hop::start(&[script]).await;
    let relay = Relay::new(Config::new(hop.next_hop(scheme), "gw.example"));
    let told = send_all(&relay, None, mail, &["c@d.example", "c@d.example"], &message()).await;
    assert_eq!(told, expected, "{script}");
    hop.playing.abort();
}

#[tokio::test]
async fn lmtp_answers_for_each_recipient_even_for_one_named_twice() {
    let check = async |replies: &str, expected| {
        check("lmtp", &mail(), &format!("{LMTP}{TWO}{replies}"), expected).await;
    };
    check("S: 250 one\nS: 250 two\n", ["accepted 250 one", "accepted 250 two"]).await;
    check("S: 550 5.1.1 no\nS: 250 two\n", ["data 550 5.1.1 no", "accepted 250 two"]).await;
    check("S: 452 full\nS: 421 bye\n", ["data 452 full", "data 451 bye"]).await;
    // Too few, and what is no answer to the end of data.
    check("S: 250 one\n", ["accepted 250 one", "data Lost ambiguous"]).await;
    check("S: 554 no\nS: hm\nH", ["data 554 no", "data Reply ambiguous"]).await;
    check("S: 354 go\nS: 250 ok\nH", ["data Nonsense ambiguous"; 2]).await;
    check("S: 353 each\nS: 250 ok\nH", ["data Nonsense ambiguous"; 2]).await;
}

#[tokio::test]
async fn lmtp_does_not_fall_back_to_another_greeting() {
    let hop = Hop::start(&["S: 220 x\nC: LHLO\nS: 500 what\nH"]).await;
    let relay = Relay::new(Config::new(hop.next_hop("lmtp"), "gw.example"));
    assert_eq!(send(&relay, &mail(), &message()).await, "mail Unwilling");
    hop.finish().await;
}

#[tokio::test]
async fn an_lmtp_socket_of_this_machine_is_a_next_hop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lmtp");
    let script = format!("{LMTP}{TWO}S: 250 one\nS: 550 two\n{TWO}S: 250 a\nS: 250 b\nS: 250 c\nH");
    let hop = Hop::start_at(&path, &[&script]);
    let relay = Relay::new(Config::new(NextHop::LmtpSocket { path }, "gw.example"));
    let two = ["c@d.example", "e@d.example"];
    let told = send_all(&relay, None, &mail(), &two, &message()).await;
    assert_eq!(told, ["accepted 250 one", "data 550 two"]);
    // One reply too many: the connection goes, or the next transaction would take it for its own.
    let told = send_all(&relay, None, &mail(), &two, &message()).await;
    assert_eq!(told, ["accepted 250 a", "accepted 250 b"]);
    drop(relay);
    hop.finish().await;
}

#[tokio::test]
async fn prdr_counts_only_with_its_last_reply() {
    let wanted = Mail { prdr: true, ..mail() };
    let check = async |replies: &str, expected| {
        check("smtp", &wanted, &format!("{PRDR}{TWO}{replies}"), expected).await;
    };
    let each = "S: 353 each\n";
    check("S: 250 all\n", ["accepted 250 all"; 2]).await;
    check("S: 554 none\n", ["data 554 none"; 2]).await;
    check(&format!("{each}S: 250 one\nS: 550 two\nS: 250 all\n"), ["accepted 250 one", "data 550 two"]).await;
    // The last one overrides, whatever was said before.
    check(&format!("{each}S: 250 one\nS: 550 two\nS: 451 none\n"), ["data 451 none"; 2]).await;
    check(&format!("{each}S: 250 one\nS: 250 two\nS: 554 none\n"), ["data 554 none"; 2]).await;
    check(&format!("{each}S: 250 one\nS: 550 two\n"), ["data Lost ambiguous", "data 550 two"]).await;
    check(&format!("{each}S: 250 one\n"), ["data Lost ambiguous"; 2]).await;
    check(&format!("{each}S: 353 each\nH"), ["data Nonsense ambiguous"; 2]).await;
    check(&format!("{each}S: 250 one\nS: 354 go\nH"), ["data Nonsense ambiguous"; 2]).await;
    check(&format!("{each}S: 250 one\nS: 250 two\nS: yes\nH"), ["data Reply ambiguous"; 2]).await;
}

#[tokio::test]
async fn prdr_is_asked_for_only_where_the_client_did_and_the_hop_offers_it() {
    let wanted = Mail { prdr: true, ..mail() };
    for (mail, offer, command) in [
        (&wanted, "S: 250 PRDR", "C= MAIL FROM:<a@b.example> PRDR"),
        (&wanted, "S: 250 DSN", "C= MAIL FROM:<a@b.example>"),
        (&mail(), "S: 250 PRDR", "C= MAIL FROM:<a@b.example>"),
    ] {
        let script = format!("S: 220 x\nC: EHLO\nS: 250-x\n{offer}\n{command}\nS: 550 seen\n");
        let hop = Hop::start(&[&script]).await;
        let told = send_all(&hop.relay(), None, mail, &["c@d.example"], &message()).await;
        assert_eq!(told, ["mail 550 seen"]);
        hop.finish().await;
    }
}
