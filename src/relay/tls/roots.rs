//! The CA certificates that names are verified against.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::relay::tls::Error;

/// Bytes of a bundle file: twenty times what browsers trust.
const MAX_BUNDLE_BYTES: u64 = 8 * 1024 * 1024;

/// The CA certificates that names are verified against. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Roots(pub(super) Arc<RootCertStore>);

impl Roots {
    /// No CA at all: whatever asks for a verified name fails with [`Error::NoRoots`].
    pub fn none() -> Self {
        Roots(Arc::new(RootCertStore::empty()))
    }

    /// Reads those that this machine trusts. `SSL_CERT_FILE` and `SSL_CERT_DIR` in the environment name others.
    ///
    /// # Errors
    /// [`Error::NoRoots`] when there are none.
    pub fn system() -> Result<Self, Error> {
        let found = rustls_native_certs::load_native_certs();
        if !found.errors.is_empty() {
            tracing::warn!(count = found.errors.len(), "some CA certificates of this machine cannot be read");
        }
        Roots::from_certificates(found.certs)
    }

    /// Reads a bundle: a file of certificates in PEM form.
    ///
    /// # Errors
    /// [`Error::ReadRoots`] and [`Error::NoRoots`].
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::ReadRoots { path: path.to_owned(), source };
        let mut pem = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_BUNDLE_BYTES).read_to_end(&mut pem).map_err(failed)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates =
            certificates.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Roots::from_certificates(certificates)
    }

    /// Takes certificates in DER form; those that cannot be a CA's are left out, as old bundles have some.
    ///
    /// # Errors
    /// [`Error::NoRoots`] when none is left.
    pub fn from_certificates(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates);
        if store.is_empty() { Err(Error::NoRoots) } else { Ok(Roots(Arc::new(store))) }
    }
}
