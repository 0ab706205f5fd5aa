//! What one session is: its name, its protocol, and what the client of this connection may use.

use crate::smtp::server::Limits;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// SMTP (RFC 5321).
    #[default]
    Smtp,
    /// LMTP (RFC 2033): LHLO, and a reply for each recipient after the end of data.
    Lmtp,
}

/// How a session treats its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The name in the greeting and in the reply to EHLO.
    pub name: String,
    /// What the session may use.
    pub limits: Limits,
    /// The protocol.
    pub kind: Kind,
    /// Whether STARTTLS is offered (RFC 3207).
    pub starttls: bool,
    /// Whether there is no transaction without TLS.
    pub require_tls: bool,
    /// Whether the client's XCLIENT counts.
    pub xclient: bool,
    /// Whether the client's XFORWARD counts.
    pub xforward: bool,
    /// Whether AUTH is offered without TLS.
    pub sign_in_in_clear: bool,
}

impl Options {
    /// Returns the defaults under a name: SMTP in clear, the client trusted in nothing.
    pub fn new(name: impl Into<String>) -> Self {
        Options {
            name: name.into(),
            limits: Limits::default(),
            kind: Kind::Smtp,
            starttls: false,
            require_tls: false,
            xclient: false,
            xforward: false,
            sign_in_in_clear: false,
        }
    }

    /// Whether the client is a peer that speaks for others.
    pub fn is_trusted(&self) -> bool {
        self.xclient || self.xforward
    }
}
