//! How a next hop is written.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use crate::mail::Domain;

/// Where mail goes on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// A mail server. Written `smtp://host:port`; the port is 25 where none is given.
    Smtp {
        /// A name or an address; an IPv6 address without its brackets.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// A mail server that speaks TLS from the first byte (RFC 8314). Written `smtps://host:port`; the port
    /// is 465 where none is given.
    Smtps {
        /// A name or an address; an IPv6 address without its brackets.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// A server that answers for each recipient (RFC 2033). Written `lmtp://host:port`; the port is 24
    /// where none is given.
    Lmtp {
        /// A name or an address; an IPv6 address without its brackets.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// The same on a socket of this machine. Written `lmtp:PATH`.
    LmtpSocket {
        /// The socket.
        path: PathBuf,
    },
    /// Whatever servers the MX records of a domain name. Written `mx://domain:port`; the port is 25 where
    /// none is given.
    Mx {
        /// The domain.
        domain: Domain,
        /// The TCP port.
        port: u16,
    },
    /// A Maildir on this machine. Written `maildir:PATH`.
    Maildir {
        /// The folder that holds `tmp`, `new` and `cur`.
        path: PathBuf,
    },
}

/// A text that names no next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a next hop is written smtp://HOST:PORT, smtps://HOST:PORT, lmtp://HOST:PORT, lmtp:PATH, mx://DOMAIN or \
     maildir:PATH"
)]
pub struct InvalidNextHop;

impl FromStr for NextHop {
    type Err = InvalidNextHop;

    fn from_str(text: &str) -> Result<Self, InvalidNextHop> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme {
                "smtp" => host_and_port(rest, 25).map(|(host, port)| NextHop::Smtp { host, port }),
                "smtps" => host_and_port(rest, 465).map(|(host, port)| NextHop::Smtps { host, port }),
                "lmtp" => host_and_port(rest, 24).map(|(host, port)| NextHop::Lmtp { host, port }),
                "mx" => {
                    let (host, port) = host_and_port(rest, 25)?;
                    let domain = Domain::parse(&host).map_err(|_| InvalidNextHop)?;
                    Ok(NextHop::Mx { domain, port })
                }
                _ => Err(InvalidNextHop),
            };
        }
        let (scheme, path) = text.split_once(':').ok_or(InvalidNextHop)?;
        let path = PathBuf::from(path);
        match scheme {
            _ if path.as_os_str().is_empty() => Err(InvalidNextHop),
            "lmtp" => Ok(NextHop::LmtpSocket { path }),
            "maildir" => Ok(NextHop::Maildir { path }),
            _ => Err(InvalidNextHop),
        }
    }
}

impl NextHop {
    /// Whether it answers for each recipient after the end of data.
    pub(super) fn is_lmtp(&self) -> bool {
        matches!(self, NextHop::Lmtp { .. } | NextHop::LmtpSocket { .. })
    }
}

fn host_and_port(rest: &str, default: u16) -> Result<(String, u16), InvalidNextHop> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or(InvalidNextHop)?,
        None => rest.find(':').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, "")),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| InvalidNextHop)?,
        None if port.is_empty() => default,
        None => return Err(InvalidNextHop),
    };
    let is_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || port == 0 || !host.chars().all(is_host) {
        return Err(InvalidNextHop);
    }
    Ok((host.to_owned(), port))
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            NextHop::Smtp { host, port } => ("smtp", host.as_str(), port),
            NextHop::Smtps { host, port } => ("smtps", host.as_str(), port),
            NextHop::Lmtp { host, port } => ("lmtp", host.as_str(), port),
            NextHop::Mx { domain, port } => ("mx", domain.as_str(), port),
            NextHop::LmtpSocket { path } => return write!(f, "lmtp:{}", path.display()),
            NextHop::Maildir { path } => return write!(f, "maildir:{}", path.display()),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_are_written_and_read() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<NextHop>().ok().map(|next_hop| next_hop.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("smtp://mx.example:2500", Some("smtp://mx.example:2500"));
        check("smtp://mx.example", Some("smtp://mx.example:25"));
        check("smtp://[::1]:26/", Some("smtp://[::1]:26"));
        check("smtps://mx.example", Some("smtps://mx.example:465"));
        check("lmtp://[::1]", Some("lmtp://[::1]:24"));
        check("lmtp:/run/lmtp", Some("lmtp:/run/lmtp"));
        check("mx://Example.ORG", Some("mx://example.org:25"));
        check("maildir:/var/mail/x", Some("maildir:/var/mail/x"));
        for text in [
            "",
            "mx.example:25",
            "smtp://",
            "smtp://:25",
            "smtp://a:b",
            "smtp://a:0",
            "smtp://[::1",
            "smtp:/a",
            "maildir:",
            "lmtp:",
            "mx://",
            "mx://a..b",
            "http://a",
        ] {
            check(text, None);
        }
    }
}
