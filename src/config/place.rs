//! What places to listen mean to each other and to the world.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::ingress::ListenAddress;

/// Whether only this machine can reach a place, as far as can be told: what systemd hands over may be open
/// to the world.
pub(super) fn is_local(place: &ListenAddress) -> bool {
    match place {
        ListenAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
        ListenAddress::Unix(_) => true,
        ListenAddress::Inherited(_) => false,
    }
}

/// Whether two places cannot be listened on at once. Of sockets with one name each listener takes another.
pub(super) fn collide(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
            one.port() != 0
                && one.port() == other.port()
                && (takes(one, other.ip()) || takes(other, one.ip()))
        }
        (ListenAddress::Unix(one), ListenAddress::Unix(other)) => one == other,
        _ => false,
    }
}

/// Whether a connection to this host and port would come to a place.
pub(super) fn answers(place: &ListenAddress, host: &str, port: u16) -> bool {
    let ListenAddress::Tcp(address) = place else { return false };
    if port == 0 || port != address.port() {
        return false;
    }
    // The addresses of other names are known only to those who look them up.
    if host.eq_ignore_ascii_case("localhost") {
        return takes(address, Ipv4Addr::LOCALHOST.into()) || takes(address, Ipv6Addr::LOCALHOST.into());
    }
    host.parse::<IpAddr>().is_ok_and(|ip| {
        // Of the addresses that an unspecified one stands for, those of loopback alone are known here.
        ip == address.ip() || (ip.is_loopback() && takes(address, ip))
    })
}

/// Whether a connection to an IP address comes to a bound address; `[::]` takes IPv4 too.
fn takes(bound: &SocketAddr, ip: IpAddr) -> bool {
    match bound.ip() {
        IpAddr::V4(own) if own.is_unspecified() => ip.is_ipv4(),
        IpAddr::V6(own) if own.is_unspecified() => true,
        own => own == ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> ListenAddress {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_takes_one_listener() {
        for (a, b, expected) in [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("[::]:25", "0.0.0.0:25", true),
            ("[::1]:25", "0.0.0.0:25", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:25", "127.0.0.1:26", false),
            ("unix:/a", "unix:/a", true),
            ("systemd:a", "systemd:a", false),
        ] {
            assert_eq!(collide(&listen(a), &listen(b)), expected, "{a} {b}");
            assert_eq!(collide(&listen(b), &listen(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_listener_knows_what_would_come_to_it() {
        for (place, host, port, expected) in [
            ("127.0.0.1:25", "127.0.0.1", 25, true),
            ("0.0.0.0:25", "127.0.0.1", 25, true),
            ("0.0.0.0:25", "localhost", 25, true),
            ("[::]:25", "::1", 25, true),
            ("127.0.0.1:25", "192.0.2.1", 25, false),
            ("192.0.2.1:25", "localhost", 25, false),
            ("127.0.0.1:25", "127.0.0.1", 26, false),
        ] {
            assert_eq!(answers(&listen(place), host, port), expected, "{place} {host}:{port}");
        }
    }
}
