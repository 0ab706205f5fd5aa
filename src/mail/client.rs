//! Who speaks SMTP to us.

use std::net::SocketAddr;

/// The protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// It greeted with HELO, or not yet (RFC 5321).
    #[default]
    Smtp,
    /// It greeted with EHLO.
    Esmtp,
    /// It greeted with LHLO: it wants a reply for each recipient after the end of data (RFC 2033).
    Lmtp,
}

/// What is known of an encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The version, such as `TLSv1.3`.
    pub version: &'static str,
    /// The name of the cipher suite.
    pub cipher: String,
    /// The SHA-256 of the certificate that the client showed and that was verified; lower-case hex.
    pub client_fingerprint: Option<String>,
}

/// The client of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Who may do what is judged by this address: the connection's own, unless a trusted peer said another
    /// one with the PROXY protocol or XCLIENT.
    pub peer: SocketAddr,
    /// Where the mail comes from: [`Client::peer`], unless a trusted peer said another one with XFORWARD.
    /// Analysers and the log use it.
    pub address: SocketAddr,
    /// The host name of [`Client::address`], where a trusted peer said it.
    pub name: Option<String>,
    /// The argument of HELO, EHLO or LHLO, as given, or what a trusted peer said of it; empty before.
    pub helo: String,
    /// The protocol, by the greeting.
    pub protocol: Protocol,
    /// The encryption, if any.
    pub tls: Option<Tls>,
    /// The name under which the client has signed in (RFC 4954).
    pub login: Option<String>,
}

impl Client {
    /// Makes the client of a new connection.
    pub fn new(peer: SocketAddr) -> Self {
        Client {
            peer,
            address: peer,
            name: None,
            helo: String::new(),
            protocol: Protocol::default(),
            tls: None,
            login: None,
        }
    }
}
