//! One direction of mail: where it comes in, who may bring it, where it goes, what it may be.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use crate::gateway::Marking;
use crate::ingress::TlsMode;
use crate::mail::{Address, Domain};
use crate::policy::{Exemption, OnDegraded, Policy, Thresholds};
use crate::relay::NextHop;
use crate::smtp::server::Kind;

/// Where a listener listens. Written `IP:PORT`, `unix:PATH` or `systemd:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and port; port 0 takes any that is free.
    Address(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
    /// A socket that systemd opened and hands over under this name (`FileDescriptorName=`).
    Systemd(String),
}

impl Listen {
    /// Whether only this machine can reach it, as far as can be told: what systemd hands over may be open
    /// to the world.
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Address(address) => address.ip().to_canonical().is_loopback(),
            Listen::Unix(_) => true,
            Listen::Systemd(_) => false,
        }
    }

    /// Whether two listeners cannot be bound at once.
    pub fn collides(&self, other: &Listen) -> bool {
        match (self, other) {
            (Listen::Address(a), Listen::Address(b)) => {
                let (x, y) = (a.ip(), b.ip());
                let same =
                    x == y || (x.is_ipv4() == y.is_ipv4() && (x.is_unspecified() || y.is_unspecified()));
                a.port() != 0 && a.port() == b.port() && same
            }
            _ => self == other,
        }
    }

    /// Whether a connection to this host and port would come here.
    pub(super) fn answers(&self, host: &str, port: u16) -> bool {
        let Listen::Address(address) = self else { return false };
        let is_here = match host.parse::<IpAddr>() {
            Ok(ip) => ip == address.ip() || (address.ip().is_unspecified() && ip.is_loopback()),
            Err(_) => {
                host.eq_ignore_ascii_case("localhost")
                    && (address.ip().is_loopback() || address.ip().is_unspecified())
            }
        };
        is_here && port != 0 && port == address.port()
    }
}

/// A text that names no place to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a place to listen is written IP:PORT, unix:/PATH or systemd:NAME")]
pub struct InvalidListen;

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        if let Some(path) = text.strip_prefix("unix:") {
            // A relative path would lie wherever the program was started.
            return if path.starts_with('/') { Ok(Listen::Unix(path.into())) } else { Err(InvalidListen) };
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            // What systemd.socket(5) allows in FileDescriptorName=.
            let is_name =
                (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            return if is_name { Ok(Listen::Systemd(name.to_owned())) } else { Err(InvalidListen) };
        }
        text.parse().map(Listen::Address).map_err(|_| InvalidListen)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Address(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
            Listen::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub listen: Listen,
    /// What it speaks.
    pub protocol: Kind,
    /// Whether it is encrypted.
    pub tls: TlsMode,
    /// Whether the clients in `smtp.proxy_networks` begin with a PROXY header.
    pub proxy_protocol: bool,
}

/// A next hop, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub to: NextHop,
    /// Lower ones are tried first.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// Whether the connection is encrypted, and what is asked of the other side.
    pub tls: String,
    /// A file with the name and the password to sign in with, a line each.
    pub login_file: Option<PathBuf>,
    /// Whether it is told the client's address by XCLIENT, which it must trust us for.
    pub xclient: bool,
}

/// Next hops for some of the mail. It is for mail that fits any of its lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Domains of recipients (inbound).
    pub domains: Vec<Domain>,
    /// Domains of senders (outbound).
    pub sender_domains: Vec<Domain>,
    /// Names under which clients signed in (outbound).
    pub accounts: Vec<String>,
    /// Where its mail goes.
    pub next_hops: Vec<Target>,
}

/// How outbound clients may sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// Against our own accounts.
    Accounts,
    /// At the next hop, which is asked.
    NextHop,
}

/// One direction.
#[derive(Debug, Clone)]
pub struct Way {
    /// Where the default listener listens; `None` where it is switched off.
    pub listen: Option<Listen>,
    /// Whether the default listener is encrypted.
    pub tls: TlsMode,
    /// Further listeners.
    pub listeners: Vec<Listener>,
    /// Our own domains (inbound).
    pub domains: Vec<Domain>,
    /// Our own networks (outbound).
    pub networks: Vec<IpNet>,
    /// How clients may sign in (outbound).
    pub auth: Auth,
    /// The SHA-256 of the client certificates that may send (outbound), in lower-case hex.
    pub client_certificates: Vec<String>,
    /// Where what passes goes, unless a route says otherwise.
    pub next_hops: Vec<Target>,
    /// What the next hops that are given without a policy of their own are asked for.
    pub next_hop_tls: String,
    /// Next hops for some of the mail.
    pub routes: Vec<Route>,
    /// Score from which a message is marked.
    pub tag: f64,
    /// Score from which it is kept.
    pub quarantine: f64,
    /// Score from which it is refused.
    pub reject: f64,
    /// Recipients whose mail always passes, marked.
    pub exempt: Vec<Exemption>,
    /// What happens when an analyser fails.
    pub on_degraded: OnDegraded,
    /// What we write into the header.
    pub marking: Marking,
}

impl Way {
    /// Returns the policy of the direction.
    ///
    /// # Errors
    /// [`crate::policy::Unordered`] when the thresholds do not rise; a loaded configuration has been
    /// checked.
    pub fn policy(&self) -> Result<Policy, crate::policy::Unordered> {
        Ok(Policy {
            thresholds: Thresholds::new(self.tag, self.quarantine, self.reject)?,
            on_degraded: self.on_degraded,
            exemptions: self.exempt.clone(),
        })
    }

    /// Returns every listener, the default one first.
    pub fn all_listeners(&self) -> Vec<Listener> {
        let default = self.listen.iter().map(|listen| Listener {
            listen: listen.clone(),
            protocol: Kind::Smtp,
            tls: self.tls,
            proxy_protocol: false,
        });
        default.chain(self.listeners.iter().cloned()).collect()
    }

    /// Returns the lists of next hops, the default one first, each with the name of its key below the
    /// direction's.
    pub(super) fn all_next_hops(&self) -> impl Iterator<Item = (String, &[Target])> {
        let routes = self.routes.iter().enumerate();
        let routes = routes.map(|(n, route)| (format!("route[{}].next_hops", n + 1), &route.next_hops[..]));
        std::iter::once(("next_hop".to_owned(), &self.next_hops[..])).chain(routes)
    }
}

/// Reads who is exempt: a mailbox, or a local part at any domain.
pub(super) fn exemption(text: String) -> Result<Exemption, String> {
    if text.contains('@') {
        let address = Address::parse(&text).map_err(|error| format!("\"{text}\": {error}"))?;
        Ok(Exemption::Mailbox(address))
    } else {
        Ok(Exemption::LocalPart(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Listen {
        text.parse().unwrap()
    }

    #[test]
    fn places_to_listen_are_addresses_files_and_names() {
        for text in ["0.0.0.0:25", "[::]:25", "unix:/run/lazaret/lmtp.sock", "systemd:inbound"] {
            assert_eq!(listen(text).to_string(), text);
        }
        for text in
            ["25", "localhost:25", "unix:", "unix:lmtp.sock", "systemd:", "systemd:a:b", "systemd:a b"]
        {
            assert_eq!(text.parse::<Listen>(), Err(InvalidListen), "{text}");
        }
    }

    #[test]
    fn one_address_takes_one_listener() {
        for (a, b, expected) in [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("[::]:25", "0.0.0.0:25", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:25", "127.0.0.1:26", false),
            ("unix:/a", "unix:/a", true),
            ("systemd:a", "systemd:b", false),
        ] {
            assert_eq!(listen(a).collides(&listen(b)), expected, "{a} {b}");
            assert_eq!(listen(b).collides(&listen(a)), expected, "{b} {a}");
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
            assert_eq!(listen(place).answers(host, port), expected, "{place} {host}:{port}");
        }
    }
}
