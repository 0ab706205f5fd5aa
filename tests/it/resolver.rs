//! The next hop has a name, and the resolver fails: the client hears a 4xx in time, and other mail passes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;

use crate::parts::{Client, Gateway, Hop, message, scratch};

/// A resolver on a loopback address of its own, on the port that resolvers have. It answers every question
/// with what `answer` makes of it; `None` is silence.
fn resolver(answer: fn(&[u8]) -> Option<Vec<u8>>) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let socket = (1..=250)
        .find_map(|number| {
            UdpSocket::bind((Ipv4Addr::new(127, 100 + number % 100, high, low.max(1)), 53)).ok()
        })
        .expect("a loopback address whose port 53 may be bound: run this test as root");
    answer_on(socket, answer).ip()
}

fn answer_on(socket: UdpSocket, answer: fn(&[u8]) -> Option<Vec<u8>>) -> SocketAddr {
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut question = [0u8; 1500];
        while let Ok((read, from)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer(&question[..read]) {
                socket.send_to(&answer, from).ok();
            }
        }
    });
    address
}

/// Mail for the world goes to a next hop by name, mail from the world to one by address.
fn check(resolver: IpAddr) {
    let folder = scratch();
    let hop = Hop::start();
    std::fs::write(folder.path().join("resolv.conf"), format!("nameserver {resolver}\n")).unwrap();
    let keys = format!(
        "inbound.next_hop = \"smtp://{}\"\noutbound.next_hop = \"smtp://hop.example.net:25\"\n\
         relay.connect_timeout = \"2s\"",
        hop.address
    );
    // Its own resolver, in a mount namespace of its own.
    let gateway = Gateway::try_start_as(folder.path(), &keys, |serve| {
        let mut command = Command::new("unshare");
        command.args([
            "-rm",
            "sh",
            "-c",
            "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"",
            "sh",
        ]);
        command.arg(folder.path().join("resolv.conf")).arg(serve.get_program()).args(serve.get_args());
        command.current_dir(folder.path());
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    })
    .unwrap_or_else(|log| panic!("the gateway did not start:\n{log}"));
    let mut client = Client::connect(gateway.outbound).unwrap();
    for number in 0..2 {
        let text = message(&format!("named.{number}"), "text");
        let reply = client.send("alice@example.org", &["ann@sender.example"], &text).unwrap();
        assert!(reply.starts_with("451 4.4"), "{reply}\n{}", gateway.log());
        // Meanwhile, and afterwards, what needs no name passes.
        let reply = Client::connect(gateway.inbound)
            .and_then(|mut client| client.send("ann@sender.example", &["alice@example.org"], &text))
            .unwrap();
        assert!(reply.starts_with("250"), "{reply}\n{}", gateway.log());
    }
    assert!(client.command("NOOP").unwrap().starts_with("250"));
    assert_eq!(crate::vitals::metric(gateway.web, "lazaret_panics_total"), Some(0));
}

#[test]
fn a_resolver_that_never_answers_defers_the_mail_in_time() {
    check(resolver(|_| None));
}

#[test]
fn a_resolver_that_talks_nonsense_defers_the_mail_in_time() {
    check(resolver(|question| {
        // The right id, the bit of an answer, and a name that points at itself for ever.
        let mut answer = question.get(..2)?.to_vec();
        answer.extend_from_slice(&[0x81, 0x80, 0, 1, 0, 200, 0, 0, 0, 0]);
        answer.extend_from_slice(question.get(12..)?);
        answer.extend_from_slice(&[0xc0, 0x0c, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 0x0c]);
        answer.extend_from_slice(&[0xff; 300]);
        Some(answer)
    }));
}

#[test]
fn the_resolvers_that_are_configured_are_asked_for_exchanges() {
    let folder = scratch();
    let resolver = answer_on(UdpSocket::bind("127.0.0.1:0").unwrap(), |question| {
        // The question again, as an answer: SERVFAIL.
        let mut answer = question.to_vec();
        answer.get_mut(2..4)?.copy_from_slice(&[0x81, 0x82]);
        Some(answer)
    });
    let keys = format!(
        "outbound.next_hop = \"mx://example.net\"\ndns.servers = [\"{resolver}\"]\ndns.timeout = \"500ms\"\n\
         relay.connect_timeout = \"10s\""
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let mut client = Client::connect(gateway.outbound).unwrap();
    let text = message("exchanged", "text");
    let reply = client.send("alice@example.org", &["ann@sender.example"], &text).unwrap();
    assert!(reply.starts_with("451 4.4"), "{reply}\n{}", gateway.log());
    assert!(crate::vitals::metric(gateway.web, "lazaret_dns_failures_total").unwrap() > 0);
}
