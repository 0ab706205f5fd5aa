//! Where mail goes on to: routes, failover, LMTP, TLS towards next hops and signing in there, sizes.

use std::net::SocketAddr;

use crate::parts::{Gateway, eventually, free_port, message, scratch};
use crate::scripted::{Nature, ScriptedHop};
use crate::secure::{Ca, Identity, Lines};

/// Connects, reads the greeting and says hello.
pub(crate) fn greet(to: SocketAddr, hello: &str) -> Lines {
    let mut client = Lines::connect(to);
    assert!(client.reply().starts_with("220 "));
    client.expect(hello, "250");
    client
}

/// Sends MAIL with this parameter, RCPT, and the message up to its end, whose replies are still to be read.
/// Every recipient must be accepted.
pub(crate) fn submit(client: &mut Lines, mail: &str, to: &[&str], subject: &str) {
    client.expect(mail, "250");
    for recipient in to {
        client.expect(&format!("RCPT TO:<{recipient}>"), "250");
    }
    client.expect("DATA", "354");
    let text = message(subject, "The usual place, the usual time.").replace('\n', "\r\n");
    client.send(&format!("{text}.\r\n")).unwrap();
}

/// The recipients of all that a next hop has taken.
fn recipients(hop: &ScriptedHop) -> Vec<String> {
    let taken = hop.taken();
    taken.iter().flat_map(|taken| taken.envelope.iter().skip(1).cloned()).collect()
}

fn rcpt(recipient: &str) -> String {
    format!("RCPT TO:<{recipient}>")
}

#[test]
fn each_recipient_of_a_message_is_answered_by_the_next_hop_of_its_route() {
    let folder = scratch();
    let org = ScriptedHop::start(Nature { refuses: Some("nobody"), ..Nature::default() });
    let net = ScriptedHop::start(Nature { is_lmtp: true, refuses: Some("full"), ..Nature::default() });
    let lmtp = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let keys = format!(
        "inbound.domains = [\"example.org\", \"example.net\"]\ninbound.next_hop = \"smtp://{}\"\n\
         inbound.route = [{{ domains = [\"example.net\"], next_hops = [\"lmtp://{}\"] }}]\n\
         inbound.listener = [{{ listen = \"{lmtp}\", protocol = \"lmtp\" }}]\n",
        org.address, net.address
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let mail = "MAIL FROM:<ann@sender.example>";

    // SMTP: one reply for all.
    let mut client = greet(gateway.inbound, "EHLO client.example");
    submit(&mut client, mail, &["alice@example.org", "bob@example.net"], "for two routes");
    assert!(client.reply().starts_with("250 2.0.0 "));
    assert_eq!(recipients(&org), [rcpt("alice@example.org")]);
    assert_eq!(recipients(&net), [rcpt("bob@example.net")]);
    client.expect(mail, "250");
    client.expect("RCPT TO:<nobody@example.org>", "550 5.1.1 ");
    client.expect("RSET", "250");

    // PRDR: one for each, and the last word.
    let prdr = format!("{mail} PRDR");
    submit(&mut client, &prdr, &["carl@example.org", "full@example.net"], "for one of two");
    for expected in ["353 ", "250 ", "552 5.2.2 ", "250 "] {
        let reply = client.reply();
        assert!(reply.starts_with(expected), "{reply}, expected {expected}");
    }

    // LMTP: one for each.
    let mut client = greet(lmtp, "LHLO client.example");
    let to = ["dora@example.org", "full@example.net", "eve@example.net"];
    submit(&mut client, mail, &to, "for two of three");
    for expected in ["250 2.0.0 ", "552 5.2.2 ", "250 2.0.0 "] {
        let reply = client.reply();
        assert!(reply.starts_with(expected), "{reply}, expected {expected}");
    }
    client.expect("QUIT", "221");
    assert_eq!(recipients(&org)[1..], ["carl@example.org", "dora@example.org"].map(rcpt));
    let last = net.taken().pop().unwrap();
    assert_eq!(last.envelope[1..], ["full@example.net", "eve@example.net"].map(rcpt));
    assert!(last.text.replace("\r\n ", " ").contains(" with LMTP id "), "{}", last.text);
    assert!(gateway.stop().success());
}

#[test]
fn mail_passes_by_a_next_hop_that_is_down_and_comes_back_to_it() {
    let folder = scratch();
    let first = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let second = ScriptedHop::start(Nature::default());
    let keys = format!(
        "inbound.next_hop = [\"smtp://{first}\", \"smtp://{}\"]\nrelay.back_off = \"1s\"\n",
        second.address
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let mut client = greet(gateway.inbound, "EHLO client.example");
    let mut number = 0;
    let mut send = || {
        number += 1;
        let subject = format!("number {number}");
        submit(&mut client, "MAIL FROM:<ann@sender.example>", &["alice@example.org"], &subject);
        assert!(client.reply().starts_with("250 "));
    };
    send();
    send();
    assert_eq!(second.taken().len(), 2);
    let first = ScriptedHop::start_at(first, Nature::default());
    eventually("the first next hop to be taken back", || {
        send();
        first.taken().pop()
    });
    let before = second.taken().len();
    send();
    assert_eq!((first.taken().len(), second.taken().len()), (2, before));
    assert!(gateway.stop().success());
}

#[test]
fn a_next_hop_is_reached_as_its_tls_policy_asks_or_not_at_all() {
    let folder = scratch();
    let ca = Ca::new(folder.path());
    let (own, by_address, by_name) =
        (ca.self_signed("127.0.0.1"), ca.issue("127.0.0.1"), ca.issue("hop.example"));
    let plain = Nature::default;
    let showing = |identity: &Identity| Nature { tls: Some(identity.server()), ..Nature::default() };
    let injected = || Nature { is_injected: true, ..showing(&own) };
    let this = format!("sha256:{}", own.fingerprint);
    // Whether the message comes over TLS, where it comes at all.
    let cases = [
        ("none", showing(&own), Some(false)),
        ("opportunistic", plain(), Some(false)),
        ("opportunistic", showing(&own), Some(true)),
        ("opportunistic", injected(), None),
        ("required", showing(&own), Some(true)),
        ("required", plain(), None),
        ("required", injected(), None),
        ("verified", showing(&by_address), Some(true)),
        ("verified", showing(&by_name), None),
        ("verified", showing(&own), None),
        ("verified:hop.example", showing(&by_name), Some(true)),
        (&this, showing(&own), Some(true)),
        (&this, showing(&by_address), None),
    ];
    let mut routes = String::new();
    let hops = cases.each_ref().map(|(policy, nature, _)| {
        let hop = ScriptedHop::start(nature.clone());
        routes.push_str(&format!(
            "{{ domains = [\"d{}.example\"], next_hops = [{{ to = \"smtp://{}\", tls = \"{policy}\" }}] }}, ",
            hop.address.port(),
            hop.address
        ));
        hop
    });
    let keys = format!("tls.roots = \"{}\"\ninbound.route = [{routes}]\n", ca.file().display());
    let gateway = Gateway::start(folder.path(), &keys);
    let mut client = greet(gateway.inbound, "EHLO client.example");
    for ((policy, _, expected), hop) in cases.iter().zip(&hops) {
        let to = format!("alice@d{}.example", hop.address.port());
        if let Some(is_secure) = expected {
            let subject = format!("to {to}");
            submit(&mut client, "MAIL FROM:<ann@sender.example>", &[&to], &subject);
            assert!(client.reply().starts_with("250 "), "{policy}");
            assert_eq!(hop.taken().pop().unwrap().is_secure, *is_secure, "{policy}");
        } else {
            client.expect("MAIL FROM:<ann@sender.example>", "250");
            client.expect(&rcpt(&to), "451 4.4.1 ");
            client.expect("RSET", "250");
            let commands = hop.commands();
            assert!(!commands.iter().any(|command| command.starts_with("MAIL")), "{policy} {commands:?}");
        }
    }
    assert!(gateway.stop().success());
}

#[test]
fn what_would_not_fit_with_our_own_fields_is_refused_at_mail() {
    let folder = scratch();
    let hop = ScriptedHop::start(Nature { offers: vec!["SIZE 10000".to_owned()], ..Nature::default() });
    let keys = format!("inbound.next_hop = \"smtp://{}\"\n", hop.address);
    let gateway = Gateway::start(folder.path(), &keys);
    let mut client = Lines::connect(gateway.inbound);
    client.reply();
    let hello = client.expect("EHLO client.example", "250");
    let offered = hello.lines().find_map(|line| line.get(4..)?.strip_prefix("SIZE ")).unwrap();
    let largest: usize = offered.parse().unwrap();
    assert!((7_000..9_500).contains(&largest), "{hello}");
    client.expect(&format!("MAIL FROM:<ann@sender.example> SIZE={}", largest + 1), "552 5.3.4 ");

    // The largest that is offered passes, with all that is added.
    client.expect(&format!("MAIL FROM:<ann@sender.example> SIZE={largest}"), "250");
    client.expect("RCPT TO:<alice@example.org>", "250");
    client.expect("DATA", "354");
    let mut text = message("as large as may be", "").replace('\n', "\r\n");
    while text.len() + 60 < largest {
        text.push_str(&format!("{:>58}\r\n", text.len()));
    }
    text.push_str(&format!("{}\r\n", "x".repeat(largest - text.len() - 2)));
    assert_eq!(text.len(), largest);
    client.send(&format!("{text}.\r\n")).unwrap();
    let reply = client.reply();
    assert!(reply.starts_with("250 "), "{reply}");
    let taken = hop.taken().pop().unwrap();
    assert_eq!(taken.envelope[0], "MAIL FROM:<ann@sender.example> SIZE=10000");
    assert!(taken.text.len() > largest && taken.text.len() <= 10_000, "{}", taken.text.len());
    assert!(gateway.stop().success());
}
