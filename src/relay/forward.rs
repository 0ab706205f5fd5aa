//! What a next hop is told of the client: XFORWARD for its log, XCLIENT for its decisions (Postfix,
//! XFORWARD_README and XCLIENT_README).
//!
//! Every attribute that is offered is sent, an unknown one as `[UNAVAILABLE]`, so that nothing of an
//! earlier client is left. A value cannot leave its attribute: it is xtext (RFC 3461, section 4).

use std::net::IpAddr;

use crate::mail::{Client, Protocol};
use crate::smtp::client::Attributes;
use crate::smtp::xtext;

/// The longest command line, in bytes without its CR LF (RFC 5321, section 4.5.3.1.4).
const MAX_LINE_BYTES: usize = 510;
const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// Returns the XFORWARD commands for a client, or for none; no command when nothing is offered.
pub(super) fn xforward(offered: Attributes, client: Option<&Client>) -> Vec<String> {
    let values = [
        (offered.name, "NAME", client.and_then(|client| client.name.clone())),
        (offered.address, "ADDR", client.map(|client| address(client.address.ip()))),
        (offered.port, "PORT", client.map(|client| client.address.port().to_string())),
        (offered.protocol, "PROTO", client.map(|client| protocol(client).to_owned())),
        (offered.helo, "HELO", client.map(|client| client.helo.clone())),
        (offered.ident, "IDENT", None),
        (offered.source, "SOURCE", client.map(|_| "REMOTE".to_owned())),
    ];
    let mut lines: Vec<String> = Vec::new();
    for (_, name, value) in values.into_iter().filter(|&(is_offered, ..)| is_offered) {
        let attribute = attribute(name, value.as_deref());
        match lines.last_mut() {
            Some(line) if line.len() + attribute.len() <= MAX_LINE_BYTES => line.push_str(&attribute),
            _ => lines.push(format!("XFORWARD{attribute}")),
        }
    }
    lines
}

/// Returns the XCLIENT command for a client, if anything is offered. It is one line, since each begins the
/// session anew; what does not fit is unavailable.
///
/// It speaks of [`Client::peer`]: the next hop decides by it, and XFORWARD, from which another address may
/// have come to us, is for the log alone.
pub(super) fn xclient(offered: Attributes, client: &Client) -> Option<String> {
    let name = client.name.clone().filter(|_| client.peer == client.address);
    let values = [
        (offered.address, "ADDR", Some(address(client.peer.ip()))),
        (offered.port, "PORT", Some(client.peer.port().to_string())),
        (offered.protocol, "PROTO", Some(protocol(client).to_owned())),
        (offered.login, "LOGIN", client.login.clone()),
        (offered.name, "NAME", name),
        (offered.helo, "HELO", Some(client.helo.clone())),
    ];
    let mut line = "XCLIENT".to_owned();
    for (_, name, value) in values.into_iter().filter(|&(is_offered, ..)| is_offered) {
        let known = attribute(name, value.as_deref());
        // Room for what follows, were it all unavailable.
        let fits = line.len() + known.len() + 2 * UNAVAILABLE.len() + 16 <= MAX_LINE_BYTES;
        line.push_str(&if fits { known } else { attribute(name, None) });
    }
    (line != "XCLIENT").then_some(line)
}

/// The longest value, in bytes as xtext: two of them fit into a line.
const MAX_VALUE_BYTES: usize = 240;

fn attribute(name: &str, value: Option<&str>) -> String {
    let encoded =
        value.map(xtext::encode).filter(|value| !value.is_empty() && value.len() <= MAX_VALUE_BYTES);
    format!(" {name}={}", encoded.as_deref().unwrap_or(UNAVAILABLE))
}

fn address(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("IPV6:{ip}"),
    }
}

fn protocol(client: &Client) -> &'static str {
    match client.protocol {
        Protocol::Smtp => "SMTP",
        Protocol::Esmtp => "ESMTP",
        Protocol::Lmtp => "LMTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Attributes = Attributes {
        name: true,
        address: true,
        port: true,
        protocol: true,
        helo: true,
        ident: true,
        source: true,
        login: true,
    };

    fn client(peer: &str) -> Client {
        Client {
            helo: "h.example".to_owned(),
            protocol: Protocol::Esmtp,
            ..Client::new(peer.parse().unwrap())
        }
    }

    #[test]
    fn a_client_is_told_with_every_attribute_that_is_offered() {
        let known = Client { name: Some("n.example".to_owned()), ..client("192.0.2.7:99") };
        assert_eq!(
            xforward(ALL, Some(&known)),
            [
                "XFORWARD NAME=n.example ADDR=192.0.2.7 PORT=99 PROTO=ESMTP HELO=h.example IDENT=[UNAVAILABLE] \
              SOURCE=REMOTE"
            ]
        );
        let some = Attributes { address: true, helo: true, ..Attributes::default() };
        assert_eq!(xforward(some, None), ["XFORWARD ADDR=[UNAVAILABLE] HELO=[UNAVAILABLE]"]);
        assert_eq!(
            xforward(some, Some(&client("[2001:db8::1]:1"))),
            ["XFORWARD ADDR=IPV6:2001:db8::1 HELO=h.example"]
        );
        assert_eq!(xforward(Attributes::default(), Some(&known)), [""; 0]);
        let known = Client { login: Some("al=ice".to_owned()), ..known };
        assert_eq!(
            xclient(ALL, &known).as_deref(),
            Some("XCLIENT ADDR=192.0.2.7 PORT=99 PROTO=ESMTP LOGIN=al+3Dice NAME=n.example HELO=h.example")
        );
        assert_eq!(xclient(Attributes::default(), &known), None);
    }

    #[test]
    fn xclient_speaks_of_the_peer_and_not_of_what_was_said_for_the_log() {
        let forwarded = Client {
            address: "203.0.113.9:9".parse().unwrap(),
            name: Some("n.example".to_owned()),
            ..client("192.0.2.7:99")
        };
        let some = Attributes { address: true, name: true, ..Attributes::default() };
        assert_eq!(xclient(some, &forwarded).as_deref(), Some("XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]"));
        assert_eq!(xforward(some, Some(&forwarded)), ["XFORWARD NAME=n.example ADDR=203.0.113.9"]);
    }

    #[test]
    fn no_value_breaks_out_of_its_attribute_or_makes_a_line_too_long() {
        let evil = Client { helo: "x PORT=25\r\nMAIL FROM:<>".to_owned(), ..client("192.0.2.7:99") };
        let some = Attributes { helo: true, ..Attributes::default() };
        assert_eq!(xforward(some, Some(&evil)), ["XFORWARD HELO=x+20PORT+3D25+0D+0AMAIL+20FROM:<>"]);
        let long = "x".repeat(240);
        let wordy = Client {
            helo: long.clone(),
            name: Some(long.clone()),
            login: Some(long),
            ..client("[2001:db8:1111:2222:3333:4444:5555:6666]:65535")
        };
        let endless = Client { helo: "x".repeat(4000), ..client("192.0.2.7:99") };
        for client in [&wordy, &endless] {
            for line in xforward(ALL, Some(client)).into_iter().chain(xclient(ALL, client)) {
                assert!(line.len() <= MAX_LINE_BYTES, "{}: {line}", line.len());
            }
        }
        assert_eq!(xforward(some, Some(&endless)), ["XFORWARD HELO=[UNAVAILABLE]"]);
    }
}
