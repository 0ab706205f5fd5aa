//! Which certificates are taken: any, one of a list, or one that TLSA records stand for.
//!
//! Verification by name and CA is rustls's own (`WebPkiServerVerifier`). Here is what it does not have. All
//! verifiers check the handshake's signature: a certificate proves nothing unless the peer has its key.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme,
};

use crate::relay::tls::dane::Associations;

/// Certificates of a chain that are looked at for a trust anchor.
const MAX_CHAIN: usize = 16;

/// What makes a certificate acceptable.
#[derive(Debug, Clone)]
pub(super) enum Test {
    /// Nothing.
    Any,
    /// The SHA-256 of its DER form is one of these.
    Fingerprint(Arc<[[u8; 32]]>),
    /// The TLSA records say so; a chain to one of their trust anchors must have one of these names.
    Dane { associations: Associations, names: Arc<[ServerName<'static>]> },
}

/// A certificate verifier with a test of its own.
#[derive(Debug)]
pub(super) struct Verifier {
    test: Test,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(test: Test, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Verifier { test, algorithms }
    }

    /// Checks a certificate chain against TLSA records.
    fn verify_dane(
        &self,
        associations: &Associations,
        names: &[ServerName<'static>],
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), RustlsError> {
        // Neither names nor dates count here: the record binds the key to the service (RFC 7672, section 3.1.1).
        if associations.match_end_entity(end_entity) {
            return Ok(());
        }
        let intermediates = intermediates.get(..MAX_CHAIN).unwrap_or(intermediates);
        let mut anchors = RootCertStore::empty();
        let in_chain = intermediates.iter().filter(|certificate| associations.match_anchor(certificate));
        anchors.add_parsable_certificates(in_chain.map(|certificate| certificate.clone().into_owned()));
        anchors.add_parsable_certificates(associations.published_anchors());
        if anchors.is_empty() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let end_entity = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &end_entity,
            &anchors,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if names.iter().any(|name| verify_server_name(&end_entity, name).is_ok()) {
            Ok(())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        match &self.test {
            Test::Any => {}
            Test::Fingerprint(known) => {
                let seen = Sha256::digest(end_entity.as_ref());
                let found = known
                    .iter()
                    .fold(Choice::from(0), |found, value| found | value.as_slice().ct_eq(seen.as_slice()));
                if !bool::from(found) {
                    return Err(CertificateError::ApplicationVerificationFailure.into());
                }
            }
            Test::Dane { associations, names } => {
                self.verify_dane(associations, names, end_entity, intermediates, now)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
