//! TLS towards next hops: what is required of a target, and the handshake that holds it to that.
//!
//! A [`TlsPolicy`] comes from the configuration, a [`Requirement`] from the policy and from what the target
//! publishes of itself; the caller offers STARTTLS accordingly and hands the stream to
//! [`Connector::connect`]. A mandatory requirement that is not met is an error, and mail waits: nothing here
//! falls back. TLS 1.2 and 1.3, aws-lc-rs, no resumption, so that every connection shows its certificate.

mod dane;
mod mta_sts;
mod policy;
mod roots;
mod verify;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{DnsName, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, Error as RustlsError};

use crate::dns::{self, Mx, Resolver};
use crate::mail::Domain;
use crate::metrics::Counter;
use crate::relay::tls::dane::Associations;
use crate::relay::tls::mta_sts::{Mode, Policies};
use crate::relay::tls::verify::{Test, Verifier};

pub use policy::{InvalidTlsPolicy, TlsPolicy};
pub use roots::Roots;

/// Where MTA-STS policies are fetched.
const HTTPS_PORT: u16 = 443;

/// What a connection must be.
#[derive(Debug, Clone)]
pub enum Requirement {
    /// In clear.
    Plain,
    /// TLS where it is offered, with any certificate; in clear where it is not, or where the handshake fails.
    Opportunistic,
    /// TLS; no mail goes without.
    Required(Verification),
}

/// What is verified of the server's certificate.
#[derive(Debug, Clone)]
pub struct Verification {
    check: Check,
    /// Whether the host itself is known to be the right one, not only from an answer that anybody may forge.
    is_route_secure: bool,
}

#[derive(Debug, Clone)]
enum Check {
    /// A CA vouches for this name.
    Name(ServerName<'static>),
    /// The verifier's own test.
    Test(Test),
}

impl Requirement {
    /// Whether no mail may go without TLS.
    pub fn is_mandatory(&self) -> bool {
        matches!(self, Requirement::Required(_))
    }

    /// Whether a connection that meets it leads to the right host beyond doubt, as REQUIRETLS asks: the
    /// certificate is verified, and the host comes from the configuration, from DNSSEC or from an MTA-STS
    /// policy (RFC 8689, section 4.2.1).
    pub fn is_verified(&self) -> bool {
        match self {
            Requirement::Plain | Requirement::Opportunistic => false,
            Requirement::Required(verification) => {
                verification.is_route_secure && !matches!(verification.check, Check::Test(Test::Any))
            }
        }
    }
}

/// Why there is no TLS as required. For a mandatory requirement all of these mean: not now, try again later.
#[derive(Debug, Error)]
pub enum Error {
    /// The CA certificates cannot be read.
    #[error("reading CA certificates from {}", path.display())]
    ReadRoots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// There are no CA certificates.
    #[error("there are no CA certificates to verify names against")]
    NoRoots,
    /// TLS cannot be set up. A fault of this program.
    #[error("setting up TLS")]
    Setup(#[source] RustlsError),
    /// The host's name is none that a certificate can have.
    #[error("no certificate can be issued for the name of the next hop")]
    Name,
    /// Whether the next hop has TLSA records cannot be known (RFC 7672, section 2.1.1).
    #[error("looking up the TLSA records of the next hop")]
    Tlsa(#[source] dns::Error),
    /// The domain's MTA-STS policy does not list the host (RFC 8461, section 4.1).
    #[error("the next hop is not among the hosts of the domain's MTA-STS policy")]
    NotInPolicy,
    /// The certificate is not the one that is required.
    #[error("the certificate of the next hop is refused")]
    Certificate(#[source] RustlsError),
    /// The handshake failed otherwise.
    #[error("the TLS handshake with the next hop failed")]
    Handshake(#[source] io::Error),
}

/// Makes TLS connections to next hops. Cloning shares everything.
#[derive(Clone)]
pub struct Connector {
    provider: Arc<CryptoProvider>,
    roots: Roots,
    resolver: Arc<dyn Resolver>,
    policies: Arc<Policies>,
    /// Any certificate: by far the most frequent.
    any: Arc<ClientConfig>,
    /// A known CA and the name; `None` without a CA.
    by_name: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("roots", &self.roots.0.len()).finish_non_exhaustive()
    }
}

impl Connector {
    /// Makes a connector that verifies names against `roots` and asks `resolver` what targets publish.
    ///
    /// # Errors
    /// [`Error::Setup`].
    pub fn new(roots: Roots, resolver: Arc<dyn Resolver>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let any = client_config(&provider, own_verifier(&provider, Test::Any))?;
        let by_name = if roots.0.is_empty() {
            None
        } else {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots.0), Arc::clone(&provider))
                    .build()
                    .map_err(|error| Error::Setup(RustlsError::General(error.to_string())))?;
            Some(client_config(&provider, verifier)?)
        };
        let policies = Arc::new(Policies::new(Arc::clone(&resolver), by_name.clone(), HTTPS_PORT));
        Ok(Connector { provider, roots, resolver, policies, any, by_name })
    }

    /// Returns whom it asks for names.
    pub(super) fn resolver(&self) -> &dyn Resolver {
        self.resolver.as_ref()
    }

    /// Says what a connection to a host must be; what is published is looked up here, and kept for a while.
    ///
    /// `domain` is the mail domain that the host is an exchange of; `None` where the configuration names the host.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::NoRoots`], and for [`TlsPolicy::Published`] [`Error::Tlsa`] and [`Error::NotInPolicy`].
    pub async fn requirement(
        &self,
        policy: &TlsPolicy,
        host: &str,
        port: u16,
        domain: Option<&Domain>,
    ) -> Result<Requirement, Error> {
        let required =
            |check, is_route_secure| Ok(Requirement::Required(Verification { check, is_route_secure }));
        match policy {
            TlsPolicy::None => Ok(Requirement::Plain),
            TlsPolicy::Opportunistic => Ok(Requirement::Opportunistic),
            TlsPolicy::Required => required(Check::Test(Test::Any), false),
            TlsPolicy::Verified { name: Some(name) } => required(self.check_name(name)?, true),
            TlsPolicy::Verified { name: None } => {
                required(self.check_name(host)?, self.is_route_secure(domain).await)
            }
            TlsPolicy::Fingerprint(known) => {
                required(Check::Test(Test::Fingerprint(known.as_slice().into())), true)
            }
            TlsPolicy::Published => self.published(host, port, domain).await,
        }
    }

    /// Shakes hands on a stream and verifies the certificate as required.
    ///
    /// What the peer has sent in clear before must be thrown away by the caller. There is no time limit here.
    /// [`Requirement::Plain`] is taken as [`Requirement::Opportunistic`], as the caller has decided for TLS.
    ///
    /// # Errors
    /// [`Error::Certificate`], [`Error::Handshake`], [`Error::Name`], [`Error::NoRoots`]. The stream is gone.
    pub async fn connect<S>(
        &self,
        stream: S,
        host: &str,
        requirement: &Requirement,
    ) -> Result<TlsStream<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (config, name) = match requirement {
            Requirement::Plain | Requirement::Opportunistic => (Arc::clone(&self.any), server_name(host)?),
            Requirement::Required(Verification { check: Check::Name(name), .. }) => {
                (self.by_name.clone().ok_or(Error::NoRoots)?, name.clone())
            }
            Requirement::Required(Verification { check: Check::Test(Test::Any), .. }) => {
                (Arc::clone(&self.any), server_name(host)?)
            }
            Requirement::Required(Verification { check: Check::Test(test), .. }) => {
                let verifier = own_verifier(&self.provider, test.clone());
                (client_config(&self.provider, verifier)?, server_name(host)?)
            }
        };
        // Counts a handshake that is given up, too: this future is dropped then.
        let mut attempt = Attempt { result: "abandoned" };
        let connected = TlsConnector::from(config).connect(name, stream).await.map_err(handshake_error);
        attempt.result = match &connected {
            Ok(_) => "done",
            Err(Error::Certificate(_)) => "certificate",
            Err(_) => "failed",
        };
        connected
    }

    async fn published(&self, host: &str, port: u16, domain: Option<&Domain>) -> Result<Requirement, Error> {
        let tlsa = match self.resolver.tlsa(host, port).await {
            Ok(tlsa) => tlsa,
            Err(error) if error.is_absence() => dns::Tlsa::default(),
            Err(error) => return Err(Error::Tlsa(error)),
        };
        let is_dane = tlsa.secure && !tlsa.records.is_empty();
        let mut is_route_secure = self.is_route_secure(domain).await;
        // Where DNSSEC proves the whole way, MTA-STS has nothing to add and must not take anything away
        // (RFC 8461, section 2). Where it does not, a forged MX could lead to a host with TLSA records of its
        // own, so the policy is asked for its hosts.
        let mut is_enforced = false;
        if !(is_dane && is_route_secure)
            && let Some(domain) = domain
            && let Some(policy) = self.policies.policy(domain).await
            && policy.mode() == Mode::Enforce
        {
            if !policy.allows(host) {
                return Err(Error::NotInPolicy);
            }
            is_enforced = true;
            is_route_secure = true;
        }
        let check = match is_dane.then(|| Associations::new(&tlsa.records)) {
            Some(Some(associations)) => {
                let mut names = vec![server_name(host)?];
                // A CA certificate may name the domain instead of the host (RFC 7672, section 3.2.2), if the
                // domain is known to send its mail there.
                if is_route_secure && let Some(domain) = domain {
                    names.extend(server_name(domain.as_str()));
                }
                Check::Test(Test::Dane { associations, names: names.into() })
            }
            _ if is_enforced => self.check_name(host)?,
            Some(None) => Check::Test(Test::Any),
            None => return Ok(Requirement::Opportunistic),
        };
        Ok(Requirement::Required(Verification { check, is_route_secure }))
    }

    /// Whether the host is known from the configuration, or from DNSSEC as an exchange of the domain.
    async fn is_route_secure(&self, domain: Option<&Domain>) -> bool {
        match domain {
            None => true,
            Some(domain) => {
                matches!(self.resolver.mx(domain.as_str()).await, Ok(Mx::Hosts { secure: true, .. }))
            }
        }
    }

    fn check_name(&self, name: &str) -> Result<Check, Error> {
        if self.by_name.is_none() {
            return Err(Error::NoRoots);
        }
        Ok(Check::Name(server_name(name)?))
    }
}

/// A handshake in [`Counter::NextHopTlsHandshakes`].
struct Attempt {
    result: &'static str,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        Counter::NextHopTlsHandshakes.increment(&[("result", self.result)]);
    }
}

fn own_verifier(provider: &CryptoProvider, test: Test) -> Arc<Verifier> {
    Arc::new(Verifier::new(test, provider.signature_verification_algorithms))
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(Error::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Reads a host as a name in a certificate: an address, or a name, in its ASCII form (RFC 5890).
fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    Ok(ServerName::DnsName(ascii_name(host).ok_or(Error::Name)?))
}

/// Returns a name in its ASCII form, lower-cased, without a final dot.
fn ascii_name(name: &str) -> Option<DnsName<'static>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = match url::Host::parse(name) {
        Ok(url::Host::Domain(name)) => name,
        _ => return None,
    };
    DnsName::try_from(name).ok()
}

fn handshake_error(error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) {
        Some(inner @ (RustlsError::InvalidCertificate(_) | RustlsError::NoCertificatesPresented)) => {
            Error::Certificate(inner.clone())
        }
        _ => Error::Handshake(error),
    }
}

#[cfg(test)]
mod tests;
