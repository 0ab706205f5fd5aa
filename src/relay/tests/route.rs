//! Several next hops: routes, legs, failover.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::{ENVELOPE, Hop, OPEN, mail, message, send, send_all};
use crate::dns::fake::Fake;
use crate::mail::Domain;
use crate::relay::tls::{Connector, Roots};
use crate::relay::{Begun, Config, Match, NextHop, Outcome, Relay, Route, Target};

const ENDED: &str = "C: DATA\nS: 354 go\nM\nS: 250 ok\n";

async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn target(port: u16, priority: u16) -> Target {
    let next_hop = NextHop::Smtp { host: "127.0.0.1".to_owned(), port };
    Target { priority, ..Target::new(next_hop) }
}

/// A relay with a route for `one.example`, one for `two.example`, and a default.
fn divided(hops: [&Hop; 3]) -> Relay {
    let route = |domain: &str, hop: &Hop| Route {
        matches: Match::RecipientDomains(vec![Domain::parse(domain).unwrap()]),
        targets: vec![target(hop.port, 1)],
    };
    let routes = vec![route("one.example", hops[0]), route("two.example", hops[1])];
    Relay::new(Config { routes, ..hops[2].config() })
}

fn whole(rcpts: usize, reply: &str) -> String {
    format!(
        "{OPEN}C: MAIL\nS: 250 ok\n{}C: DATA\nS: 354 go\nM\nS: {reply}\nH",
        "C: RCPT\nS: 250 ok\n".repeat(rcpts)
    )
}

#[tokio::test]
async fn recipients_go_their_ways_and_each_hears_of_its_own() {
    let one = Hop::start(&[&whole(2, "250 one")]).await;
    let two = Hop::start(&[&whole(1, "554 two")]).await;
    let rest = Hop::start(&[&whole(1, "250 rest")]).await;
    let relay = divided([&one, &two, &rest]);
    let recipients = ["a@one.example", "b@two.example", "c@d.example", "d@ONE.example"];
    let told = send_all(&relay, None, &mail(), &recipients, &message()).await;
    assert_eq!(told, ["accepted 250 one", "data 554 two", "accepted 250 rest", "accepted 250 one"]);
    drop(relay);
    for hop in [one, two, rest] {
        assert_eq!(hop.finish().await.len(), 1);
    }
}

#[tokio::test]
async fn a_leg_that_fails_or_is_refused_leaves_the_others_alone() {
    let one = Hop::start(&[&format!("{OPEN}C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: RCPT\n")]).await;
    let two = Hop::start(&[&format!("{OPEN}C: MAIL\nS: 550 5.7.1 not you\n")]).await;
    let rest = Hop::start(&[&whole(1, "250 rest")]).await;
    let relay = divided([&one, &two, &rest]);
    let recipients =
        ["a@one.example", "b@two.example", "c@two.example", "d@d.example", "e@one.example", "f@one.example"];
    let told = send_all(&relay, None, &mail(), &recipients, &message()).await;
    let refused = "rcpt 550 5.7.1 not you";
    assert_eq!(told, ["data Failed", refused, refused, "accepted 250 rest", "rcpt Lost", "rcpt Failed"]);
    drop(relay);
    assert_eq!(rest.finish().await.len(), 1);
}

#[tokio::test]
async fn a_leg_without_recipients_gets_no_message() {
    let one =
        Hop::start(&[&format!("{OPEN}C: MAIL\nS: 250 ok\nC: RCPT\nS: 550 who\nC: RSET\nS: 250 ok\nH")]).await;
    let rest = Hop::start(&[&whole(1, "250 rest")]).await;
    let relay = divided([&one, &one, &rest]);
    let told = send_all(&relay, None, &mail(), &["a@one.example", "d@d.example"], &message()).await;
    assert_eq!(told, ["rcpt 550 who", "accepted 250 rest"]);
    drop(relay);
    assert_eq!(one.finish().await.len(), 0);
}

#[tokio::test]
async fn legs_send_at_once_and_not_one_after_the_other() {
    // Each hop answers only after the other has the whole message.
    let (first, second) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let ports = [&first, &second].map(|listener| listener.local_addr().unwrap().port());
    let both = Arc::new(tokio::sync::Barrier::new(2));
    for listener in [first, second] {
        let both = Arc::clone(&both);
        tokio::spawn(async move {
            use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            for reply in ["220 x\r\n", "250 x\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
                stream.write_all(reply.as_bytes()).await.unwrap();
                stream.read_line(&mut String::new()).await.unwrap();
            }
            let mut text = String::new();
            while !text.ends_with("\r\n.\r\n") {
                stream.read_line(&mut text).await.unwrap();
            }
            both.wait().await;
            stream.write_all(b"250 both\r\n").await.unwrap();
        });
    }
    let route = Route {
        matches: Match::RecipientDomains(vec![Domain::parse("one.example").unwrap()]),
        targets: vec![target(ports[0], 1)],
    };
    let default = NextHop::Smtp { host: "127.0.0.1".to_owned(), port: ports[1] };
    let relay = Relay::new(Config { routes: vec![route], ..Config::new(default, "gw.example") });
    let told = send_all(&relay, None, &mail(), &["a@one.example", "d@d.example"], &message()).await;
    assert_eq!(told, ["accepted 250 both"; 2]);
}

#[tokio::test]
async fn a_target_that_is_down_is_passed_over_and_then_left_aside() {
    for bad in ["S: 554 no\n", "S: 421 busy\n", "S: 220 x\nC: EHLO\nS: 451 no\n", "", "S: nonsense\n"] {
        let down = Hop::start(&[bad]).await;
        let up = Hop::start(&[&format!("{OPEN}{ENVELOPE}{ENDED}{ENVELOPE}{ENDED}")]).await;
        let targets = vec![target(up.port, 20), target(down.port, 10)];
        let relay = Relay::new(Config { targets, ..up.config() });
        for _ in 0..2 {
            assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 ok", "{bad}");
        }
        down.finish().await;
        assert_eq!(up.finish().await.len(), 2);
    }
}

#[tokio::test]
async fn a_421_to_mail_on_a_new_connection_sends_the_mail_elsewhere_and_a_450_does_not() {
    let closing = Hop::start(&[&format!("{OPEN}C: MAIL\nS: 421 bye\n")]).await;
    let busy = Hop::start(&[&format!(
        "{OPEN}C: MAIL\nS: 450 later\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\n{ENDED}"
    )])
    .await;
    let targets = vec![target(closing.port, 1), target(busy.port, 2)];
    let relay = Relay::new(Config { targets, ..busy.config() });
    assert_eq!(send(&relay, &mail(), &message()).await, "mail 450 later");
    assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 ok");
    // When there is nobody else, the client hears it.
    let closing = Hop::start(&[&format!("{OPEN}C: MAIL\nS: 421 4.3.2 bye\n")]).await;
    assert_eq!(send(&closing.relay(), &mail(), &message()).await, "mail 451 4.3.2 bye");
}

#[tokio::test]
async fn when_all_are_down_the_one_that_is_due_first_is_tried_all_the_same() {
    let hop = Hop::start(&["", "", &format!("{OPEN}{ENVELOPE}{ENDED}")]).await;
    let relay = hop.relay();
    assert_eq!(send(&relay, &mail(), &message()).await, "mail Lost");
    assert_eq!(send(&relay, &mail(), &message()).await, "mail Lost");
    assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 ok");
    let targets = vec![target(closed_port().await, 1), target(closed_port().await, 1)];
    let relay = Relay::new(Config { targets, ..hop.config() });
    for _ in 0..3 {
        assert_eq!(send(&relay, &mail(), &message()).await, "mail Connect");
    }
    let relay = Relay::new(Config { targets: Vec::new(), ..hop.config() });
    assert_eq!(send(&relay, &mail(), &message()).await, "mail NoTarget");
}

#[tokio::test]
async fn no_other_target_is_tried_when_the_client_has_waited_long_enough() {
    let silent = Hop::start(&["H"]).await;
    let up = Hop::start(&[&format!("{OPEN}{ENVELOPE}{ENDED}")]).await;
    let limit = Duration::from_millis(100);
    let targets = vec![target(silent.port, 1), target(up.port, 2)];
    let config = Config { targets, connect_timeout: limit, command_timeout: limit, ..up.config() };
    assert_eq!(send(&Relay::new(config), &mail(), &message()).await, "mail Timeout");
    up.playing.abort();
}

#[tokio::test]
async fn a_maildir_takes_over_from_a_server_that_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let maildir = Target { priority: 9, ..Target::new(NextHop::Maildir { path: folder.path().to_owned() }) };
    let targets = vec![maildir, target(closed_port().await, 1)];
    let relay =
        Relay::new(Config { targets, ..Config::new(NextHop::Maildir { path: "x".into() }, "gw.example") });
    assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 2.0.0 Delivered");
}

#[tokio::test]
async fn the_exchanges_of_a_domain_are_tried_in_their_order() {
    let hop = Hop::start(&[&format!("{OPEN}{ENVELOPE}{ENDED}C: MAIL\nS: 550 kept\n")]).await;
    let at = |last| Ok(vec![IpAddr::from(Ipv4Addr::new(127, 0, 0, last))]);
    let fake = Fake::new();
    fake.set_exchanges("d.example", false, &[(20, "b.example"), (10, "a.example"), (10, "gone.example")])
        .set_addresses("a.example", at(2))
        .set_addresses("b.example", at(1));
    fake.set_mx("null.example", Ok(crate::dns::Mx::Null));
    let connector = Connector::new(Roots::none(), Arc::new(fake)).unwrap();
    let relay = |domain: &str| {
        let next_hop = format!("mx://{domain}:{}", hop.port).parse().unwrap();
        Relay::new(Config { connector: Some(connector.clone()), ..Config::new(next_hop, "gw.example") })
    };
    let mx = relay("d.example");
    assert_eq!(send(&mx, &mail(), &message()).await, "accepted 250 ok");
    assert_eq!(send(&mx, &mail(), &message()).await, "mail 550 kept");
    assert_eq!(send(&relay("null.example"), &mail(), &message()).await, "mail NullMx");
    assert_eq!(send(&relay("none.example"), &mail(), &message()).await, "mail Lookup");
    assert_eq!(hop.finish().await.len(), 1);
}

#[tokio::test]
async fn a_recipient_that_is_named_twice_over_two_legs_has_two_outcomes() {
    let one = Hop::start(&[&whole(2, "250 one")]).await;
    let rest = Hop::start(&[]).await;
    let relay = divided([&one, &rest, &rest]);
    let Ok(Begun::Ready(mut transaction, reply)) = relay.begin(None, &mail()).await else {
        panic!("not ready")
    };
    assert_eq!(reply.code(), 250);
    let to = crate::mail::Address::parse("a@one.example").unwrap().into();
    for _ in 0..2 {
        assert!(transaction.rcpt(&to).await.unwrap().is_positive());
    }
    let outcomes = transaction.data(&message()).await;
    assert!(matches!(outcomes.as_slice(), [Outcome::Accepted(_), Outcome::Accepted(_)]));
}
