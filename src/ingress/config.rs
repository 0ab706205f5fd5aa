//! How a listener treats its clients: every limit by its name.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::ingress::tls::Acceptor;
use crate::mail::Direction;
use crate::smtp::server::{Kind, Limits};

/// Whether sessions are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Never: STARTTLS is not offered.
    #[default]
    None,
    /// STARTTLS is offered, and whoever does not use it is served too (RFC 3207).
    Offered,
    /// STARTTLS is offered, and there is no transaction without it.
    Required,
    /// The handshake comes before the greeting (RFC 8314, section 3).
    Implicit,
}

/// How a listener treats its clients.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which way its mail travels; the label of its metrics.
    pub direction: Direction,
    /// The protocol: SMTP, or LMTP with a reply for each recipient.
    pub kind: Kind,
    /// The name in the greeting and in the reply to EHLO.
    pub name: String,
    /// The limits of the protocol.
    pub limits: Limits,
    /// Its certificates. Without them no session is encrypted, and an implicit listener serves nobody.
    pub tls: Option<Acceptor>,
    /// Whether sessions are encrypted.
    pub tls_mode: TlsMode,
    /// Clients that get no transaction without encryption, whatever [`Config::tls_mode`] says.
    pub require_tls_networks: Vec<IpNet>,
    /// Peers that begin each connection with a PROXY header, and whose word on the client's address counts.
    /// The peers of a Unix socket are 127.0.0.1.
    pub proxy_networks: Vec<IpNet>,
    /// Clients whose XCLIENT counts.
    pub xclient_networks: Vec<IpNet>,
    /// Clients whose XFORWARD counts.
    pub xforward_networks: Vec<IpNet>,
    /// Sessions open at once, with those of the listeners that share its [`Sessions`](super::Sessions); what
    /// precedes a session counts as one. So it is with the next two.
    pub max_sessions: usize,
    /// Sessions open at once from one IPv4 address or one IPv6 /64.
    pub max_sessions_per_source: usize,
    /// Sessions open at once from one IPv4 /24 or one IPv6 /48.
    pub max_sessions_per_network: usize,
    /// Time for one command, from the reply before it to its CR LF.
    pub command_timeout: Duration,
    /// Time for a message, from 354 to its end, beside the time that its bytes may take.
    pub data_timeout: Duration,
    /// Time for a TLS handshake, and for a PROXY header.
    pub tls_timeout: Duration,
    /// The rate in bytes per second at which a message's bytes earn more time.
    pub min_data_rate: u32,
    /// Time for a client to take our replies.
    pub write_timeout: Duration,
    /// Time for a whole session.
    pub session_timeout: Duration,
    /// Time that sessions have to end when the listener is stopped.
    pub shutdown_grace: Duration,
    /// How long a client must wait in silence for the greeting; one that talks before it is turned away.
    pub greeting_delay: Duration,
    /// The pause before each reply that refuses something.
    pub tarpit: Duration,
    /// Whether a password may be sent over a connection that is not encrypted.
    pub sign_in_in_clear: bool,
}

impl Config {
    /// Returns the defaults for a listener under a name: SMTP in clear, nobody's word believed, no delays.
    pub fn new(direction: Direction, name: impl Into<String>) -> Self {
        Config {
            direction,
            kind: Kind::Smtp,
            name: name.into(),
            limits: Limits::default(),
            tls: None,
            tls_mode: TlsMode::None,
            require_tls_networks: Vec::new(),
            proxy_networks: Vec::new(),
            xclient_networks: Vec::new(),
            xforward_networks: Vec::new(),
            max_sessions: 4000,
            max_sessions_per_source: 200,
            max_sessions_per_network: 1000,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(300),
            tls_timeout: Duration::from_secs(30),
            min_data_rate: 1000,
            write_timeout: Duration::from_secs(60),
            session_timeout: Duration::from_secs(3600),
            shutdown_grace: Duration::from_secs(30),
            greeting_delay: Duration::ZERO,
            tarpit: Duration::ZERO,
            sign_in_in_clear: false,
        }
    }

    /// Whether each connection of a peer begins with a PROXY header.
    pub fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        contains(&self.proxy_networks, peer)
    }

    /// Whether a client's XCLIENT counts.
    pub fn trusts_xclient(&self, client: IpAddr) -> bool {
        contains(&self.xclient_networks, client)
    }

    /// Whether a client's XFORWARD counts.
    pub fn trusts_xforward(&self, client: IpAddr) -> bool {
        contains(&self.xforward_networks, client)
    }

    /// Whether a client gets a transaction only over an encrypted connection.
    pub fn requires_tls(&self, client: IpAddr) -> bool {
        matches!(self.tls_mode, TlsMode::Required | TlsMode::Implicit)
            || contains(&self.require_tls_networks, client)
    }

    pub(super) fn labels(&self) -> [(&'static str, &'static str); 1] {
        [("direction", self.direction.as_str())]
    }
}

/// Whether an address is in one of some networks; an IPv4 address in IPv6 form is the IPv4 address.
fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}
