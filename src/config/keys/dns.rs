//! The keys of name servers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Key, SECOND};
use crate::config::value;

pub(super) static DNS: [Key; 3] = [
    Key {
        name: "dns.servers",
        default: "[]",
        meaning: "The resolvers to ask for exchanges and for what domains publish, by address or address and port:\n\
                  [\"127.0.0.1\", \"[::1]:5353\"]; empty for those in /etc/resolv.conf. The host of a next hop is\n\
                  looked up by the system.",
        set: |c, v| value::texts(v, |text| server(&text)).map(|x| c.dns.servers = x),
    },
    Key {
        name: "dns.dnssec",
        default: "false",
        meaning: "Whether answers are validated by DNSSEC, which DANE needs (\"published\"). Only for resolvers that\n\
                  pass signatures on: with others no name can be looked up.",
        set: |c, v| value::truth(v).map(|x| c.dns.dnssec = x),
    },
    Key {
        name: "dns.timeout",
        default: "\"5s\"",
        meaning: "Time for one answer of one resolver; a question may take four times as long.",
        set: |c, v| value::duration(v, Duration::from_millis(100), SECOND * 60).map(|x| c.dns.timeout = x),
    },
];

/// The port of name servers.
const PORT: u16 = 53;

fn server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>();
    let address = address.or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)));
    match address {
        Ok(address)
            if address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast() =>
        {
            Ok(address)
        }
        _ => Err(format!("\"{text}\" is no resolver; an example of one: \"127.0.0.1\" or \"[::1]:5353\"")),
    }
}
