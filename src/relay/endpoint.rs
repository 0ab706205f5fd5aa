//! Where the servers of a target listen.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::dns::Mx;
use crate::mail::Domain;
use crate::relay::tls::Connector;
use crate::relay::{Error, NextHop};

/// Exchanges of a domain that are tried for one connection.
const MAX_EXCHANGES: usize = 4;
/// Failed exchanges that are remembered.
const MAX_REMEMBERED: usize = 64;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    /// The domain whose exchange the host is; `None` where the configuration names the host.
    pub(super) domain: Option<Domain>,
    /// Whether TLS begins with the first byte.
    pub(super) is_implicit_tls: bool,
}

impl Endpoint {
    /// Returns the endpoints of a next hop in the order in which they are to be tried; none for what is not
    /// reached over TCP.
    ///
    /// # Errors
    /// [`Error::Lookup`] and [`Error::NullMx`] for a domain.
    pub(super) async fn of(
        next_hop: &NextHop,
        connector: Option<&Connector>,
        failed: &FailedExchanges,
    ) -> Result<Vec<Self>, Error> {
        let (domain, port) = match next_hop {
            NextHop::Smtp { host, port } | NextHop::Lmtp { host, port } => {
                return Ok(vec![Endpoint::configured(host, *port, false)]);
            }
            NextHop::Smtps { host, port } => return Ok(vec![Endpoint::configured(host, *port, true)]),
            NextHop::LmtpSocket { .. } | NextHop::Maildir { .. } => return Ok(Vec::new()),
            NextHop::Mx { domain, port } => (domain, *port),
        };
        let resolver = connector.ok_or(Error::NoTarget)?.resolver();
        match resolver.mx(domain.as_str()).await.map_err(Error::Lookup)? {
            Mx::Null => Err(Error::NullMx),
            Mx::Hosts { exchanges, .. } => {
                let mut ranked: Vec<(bool, u16, u64, String)> = exchanges
                    .into_iter()
                    .map(|exchange| {
                        let has_failed = failed.contains(&exchange.host);
                        let random = getrandom::u64().unwrap_or_default();
                        (has_failed, exchange.preference, random, exchange.host)
                    })
                    .collect();
                ranked.sort();
                let endpoint = |host| Endpoint {
                    domain: Some(domain.clone()),
                    ..Endpoint::configured(host, port, false)
                };
                Ok(ranked.iter().take(MAX_EXCHANGES).map(|(.., host)| endpoint(host)).collect())
            }
        }
    }

    fn configured(host: &str, port: u16, is_implicit_tls: bool) -> Self {
        Endpoint { host: host.to_owned(), port, domain: None, is_implicit_tls }
    }

    /// Connects to the first of the host's addresses that answers. What the configuration names is looked up
    /// as this machine does it, its hosts file included; an exchange is a name of the DNS and nothing else.
    pub(super) async fn connect(&self, connector: Option<&Connector>) -> Result<TcpStream, Error> {
        let stream = match (connector, &self.domain) {
            (Some(connector), Some(_)) => {
                let ips = connector.resolver().addresses(&self.host).await.map_err(Error::Lookup)?;
                connect_to_any(&ips, self.port).await
            }
            _ => TcpStream::connect((self.host.as_str(), self.port)).await,
        };
        let stream = stream.map_err(Error::Connect)?;
        stream.set_nodelay(true).map_err(Error::Connect)?;
        Ok(stream)
    }
}

async fn connect_to_any(ips: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for ip in ips {
        match TcpStream::connect((*ip, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Exchanges that have failed a short while ago, so that not every connection waits for them anew.
#[derive(Debug, Default)]
pub(super) struct FailedExchanges {
    until: Mutex<Vec<(String, Instant)>>,
}

impl FailedExchanges {
    pub(super) fn insert(&self, host: &str, pause: Duration) {
        let now = Instant::now();
        let mut failed = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|(name, until)| *until > now && name != host);
        if failed.len() < MAX_REMEMBERED {
            failed.push((host.to_owned(), now + pause));
        }
    }

    fn contains(&self, host: &str) -> bool {
        let now = Instant::now();
        let failed = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        failed.iter().any(|(name, until)| name == host && *until > now)
    }
}
