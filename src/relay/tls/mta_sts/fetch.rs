//! Fetching a policy: one GET over HTTPS (RFC 8461, section 3.3).
//!
//! The host belongs to a stranger: the certificate is verified by name before a byte of the request goes
//! out, redirects are not followed, and length, time and the number of fetches at once are bounded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::DnsName;

use super::policy::{InvalidPolicy, Policy};
use crate::dns::{self, Resolver};

/// Bytes of a policy.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Bytes of the response's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Time for all of it, waiting for other fetches included; mail waits for it. The RFC allows a minute.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Time for one address to take the connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Addresses that are tried.
const MAX_ADDRESSES: usize = 4;
/// Fetches at once.
const MAX_FETCHES: usize = 32;

/// Fetches policies.
pub(super) struct Fetcher {
    resolver: Arc<dyn Resolver>,
    /// Verification by name; `None` where there is no CA to verify against.
    tls: Option<Arc<ClientConfig>>,
    port: u16,
    slots: Semaphore,
}

/// Why a policy cannot be had. The domain is then as good as without one, unless an older one still lives.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    /// There are no CA certificates.
    #[error("there are no CA certificates to verify the policy host against")]
    NoRoots,
    /// The domain is too long for a policy host.
    #[error("the domain cannot have a policy host")]
    Name,
    /// The policy host has no address.
    #[error("looking up the policy host")]
    Resolve(#[source] dns::Error),
    /// The policy host cannot be reached.
    #[error("connecting to the policy host")]
    Connect(#[source] io::Error),
    /// The handshake failed, or the certificate is not the policy host's.
    #[error("the TLS handshake with the policy host failed")]
    Handshake(#[source] io::Error),
    /// The response is no HTTP.
    #[error("asking the policy host")]
    Http(#[source] hyper::Error),
    /// The status is not 200.
    #[error("the policy host answers with status {0}")]
    Status(u16),
    /// The content is not `text/plain`.
    #[error("the policy is not text/plain")]
    ContentType,
    /// The content is too long (64 KiB) or breaks off.
    #[error("the policy is too long or breaks off")]
    Body,
    /// It took too long.
    #[error("the policy host is too slow")]
    Timeout,
    /// The content is no policy.
    #[error("the policy cannot be read")]
    Policy(#[source] InvalidPolicy),
}

impl FetchError {
    /// Returns its label in metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            FetchError::NoRoots => "no_roots",
            FetchError::Name | FetchError::Resolve(_) => "no_host",
            FetchError::Connect(_) => "connection",
            FetchError::Handshake(_) => "tls",
            FetchError::Http(_) | FetchError::Status(_) => "http",
            FetchError::ContentType | FetchError::Body | FetchError::Policy(_) => "no_policy",
            FetchError::Timeout => "timeout",
        }
    }
}

impl Fetcher {
    pub(super) fn new(resolver: Arc<dyn Resolver>, tls: Option<Arc<ClientConfig>>, port: u16) -> Self {
        Fetcher { resolver, tls, port, slots: Semaphore::new(MAX_FETCHES) }
    }

    /// Fetches the policy of a domain, given in its ASCII form.
    pub(super) async fn fetch(&self, domain: &str) -> Result<Policy, FetchError> {
        let fetch = async {
            let _slot = self.slots.acquire().await.map_err(|_| FetchError::Timeout)?;
            let host = format!("mta-sts.{domain}");
            let stream = self.connect(&host).await?;
            let body = get(stream, &host).await?;
            // The policy is ASCII; what is not cannot be part of a field that counts.
            Policy::parse(&String::from_utf8_lossy(&body)).map_err(FetchError::Policy)
        };
        timeout(TIME_LIMIT, fetch).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn connect(&self, host: &str) -> Result<TlsStream<TcpStream>, FetchError> {
        let tls = self.tls.clone().ok_or(FetchError::NoRoots)?;
        let name = DnsName::try_from(host.to_owned()).map_err(|_| FetchError::Name)?;
        let addresses = self.resolver.addresses(host).await.map_err(FetchError::Resolve)?;
        let mut failure = FetchError::Resolve(dns::Error::NoData);
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            match timeout(CONNECT_LIMIT, TcpStream::connect((address, self.port))).await {
                Ok(Ok(stream)) => {
                    let handshake = TlsConnector::from(tls).connect(name.into(), stream);
                    return handshake.await.map_err(FetchError::Handshake);
                }
                Ok(Err(error)) => failure = FetchError::Connect(error),
                Err(_) => failure = FetchError::Timeout,
            }
        }
        Err(failure)
    }
}

/// Asks for the policy and returns the content.
async fn get(stream: TlsStream<TcpStream>, host: &str) -> Result<Bytes, FetchError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::Http)?;
    let exchange = async {
        let request = Request::get("/.well-known/mta-sts.txt")
            .header(HOST, host)
            .header(USER_AGENT, "lazaret")
            .body(Empty::<Bytes>::new())
            .map_err(|_| FetchError::Name)?;
        let response = sender.send_request(request).await.map_err(FetchError::Http)?;
        // Redirects are not followed: they could lead to a host that the domain's owner does not control.
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("text/plain") {
            return Err(FetchError::ContentType);
        }
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES);
        Ok(body.collect().await.map_err(|_| FetchError::Body)?.to_bytes())
    };
    tokio::pin!(exchange);
    // The connection moves the bytes; it may end before the response is read to its end.
    tokio::select! {
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}
