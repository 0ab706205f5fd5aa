//! The server's side of TLS: which certificate a client gets, and what is known of the client's own.
//!
//! TLS 1.2 and later, one crypto provider. Files are read as a whole or not at all, once: new ones are for a
//! new [`Acceptor`]. No early data: it can be replayed, and SMTP is not idempotent.
//!
//! A certificate that a client shows is never a reason to end the connection: it is proof of who the client
//! is where it is verified, and nothing where it is not. A sender that shows its web server's certificate
//! to everybody must not be driven back to plaintext by it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::mail::Tls;
use crate::metrics::Counter;

/// The files that an [`Acceptor`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The server's certificates. A client gets the first one that has the name it asks for (SNI), and the
    /// first of all where none has or it asks for none.
    pub own: Vec<CertificateFiles>,
    /// What is asked of clients.
    pub clients: ClientCertificates,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the certificate, then those that lead to its root.
    pub chain: PathBuf,
    /// PEM: the private key, in PKCS #8, PKCS #1 or SEC1 form.
    pub key: PathBuf,
}

/// Which certificates of clients count. None is ever demanded here: who must show one is a matter of access.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// Clients are not asked.
    #[default]
    Ignored,
    /// Those that lead to a certificate in this PEM file.
    SignedBy(PathBuf),
    /// Any one, self-signed ones too: only its fingerprint says who the client is. That the client has the
    /// key is checked like always.
    Any,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate of our own is named.
    #[error("no certificate is named")]
    NoCertificate,
    /// A file could not be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not PEM, or holds nothing of the kind.
    #[error("no {what} could be found in {path}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate is malformed, or its key is of a kind that is not supported.
    #[error("the certificate in {chain} cannot be used with the key in {key}")]
    Unusable {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A key is not that of its certificate.
    #[error("the key in {key} is not the key of the certificate in {chain}")]
    Mismatch {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A certificate that clients' certificates are to lead to is malformed.
    #[error("a certificate in {path} cannot be used to verify clients")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Clients' certificates cannot be verified.
    #[error("the certificates in {path} cannot be used to verify clients")]
    Verifier {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// The crypto provider has not what TLS needs.
    #[error("the crypto provider cannot be used")]
    Provider(#[source] rustls::Error),
}

/// Does the server's side of handshakes. Cloning shares the certificates.
#[derive(Clone)]
pub struct Acceptor {
    files: Arc<Certificates>,
    config: Arc<ServerConfig>,
    clients: Judge,
}

/// Says which certificates of clients count.
#[derive(Clone)]
enum Judge {
    Nobody,
    SignedBy(Arc<dyn ClientCertVerifier>),
    Anybody,
}

impl Acceptor {
    /// Reads certificates and keys; blocks for as long as that takes.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn new(files: Certificates) -> Result<Self, TlsError> {
        let (config, clients) = load(&files)?;
        Ok(Acceptor { files: Arc::new(files), config: Arc::new(config), clients })
    }

    /// Does a handshake; how long it may take is the caller's to say.
    ///
    /// # Errors
    /// The stream's error, or what the client did wrong; it was sent an alert.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Tls)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Counts a handshake that is given up, too: this future is dropped then.
        let mut attempt = Attempt { result: "abandoned" };
        let accepted = tokio_rustls::TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await;
        attempt.result = if accepted.is_ok() { "done" } else { "failed" };
        let stream = accepted?;
        let tls = self.describe(stream.get_ref().1);
        Ok((stream, tls))
    }

    fn describe(&self, connection: &ServerConnection) -> Tls {
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLS",
        };
        let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        Tls {
            version,
            cipher: suite.unwrap_or_default().to_owned(),
            client_fingerprint: self.fingerprint(connection.peer_certificates().unwrap_or_default()),
        }
    }

    /// Judged after the handshake and not in it, so that a resumed session is judged by today's authorities.
    fn fingerprint(&self, shown: &[CertificateDer<'_>]) -> Option<String> {
        let (own, others) = shown.split_first()?;
        let counts = match &self.clients {
            Judge::Nobody => false,
            Judge::SignedBy(verifier) => {
                let now = self.config.time_provider.current_time();
                now.is_some_and(|now| verifier.verify_client_cert(own, others, now).is_ok())
            }
            Judge::Anybody => true,
        };
        counts.then(|| Sha256::digest(own).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("files", &self.files).finish_non_exhaustive()
    }
}

/// A handshake in [`Counter::TlsHandshakes`].
struct Attempt {
    result: &'static str,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        Counter::TlsHandshakes.increment(&[("result", self.result)]);
    }
}

fn load(files: &Certificates) -> Result<(ServerConfig, Judge), TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut keys = Vec::new();
    for pair in &files.own {
        keys.push(Arc::new(certified_key(pair, &provider)?));
    }
    if keys.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Provider)?;
    let (builder, clients) = match &files.clients {
        ClientCertificates::Ignored => (builder.with_no_client_auth(), Judge::Nobody),
        ClientCertificates::SignedBy(path) => {
            let verifier = client_verifier(path, &provider)?;
            let hints = verifier.root_hint_subjects().to_vec();
            let asks = Arc::new(Asks { hints, provider });
            (builder.with_client_cert_verifier(asks), Judge::SignedBy(verifier))
        }
        ClientCertificates::Any => {
            let asks = Arc::new(Asks { hints: Vec::new(), provider });
            (builder.with_client_cert_verifier(asks), Judge::Anybody)
        }
    };
    Ok((builder.with_cert_resolver(Arc::new(ByName { keys })), clients))
}

fn certified_key(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let CertificateFiles { chain, key } = files;
    let certificates = certificates(chain)?;
    let private_key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|source| TlsError::Pem {
        what: "private key",
        path: key.clone(),
        source,
    })?;
    CertifiedKey::from_der(certificates, private_key, provider).map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { chain: chain.clone(), key: key.clone() },
        source => TlsError::Unusable { chain: chain.clone(), key: key.clone(), source },
    })
}

fn client_verifier(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|source| TlsError::Verifier { path: path.to_owned(), source })
}

/// Reads every certificate in a file; there is at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let malformed = |source| TlsError::Pem { what: "certificate", path: path.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<_, _>>().map_err(malformed)?;
    if found.is_empty() { Err(malformed(pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// Reads a file, which may hold a key: what was read is wiped.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// Chooses the certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let schemes = hello.signature_schemes();
        // One name may have certificates of several kinds, for clients that do not know the newer one.
        let usable = || self.keys.iter().filter(|key| key.key.choose_scheme(schemes).is_some());
        let named = name.and_then(|name| usable().find(|key| has_name(key, &name)));
        named.or_else(|| usable().next()).cloned()
    }
}

/// Whether a certificate is for a name (RFC 9525; a wildcard stands for one label).
fn has_name(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    certificate.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

/// Asks clients for a certificate and has them prove that the key is theirs; what the certificate is worth
/// is judged afterwards.
#[derive(Debug)]
struct Asks {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Asks {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
pub(super) mod tests;
