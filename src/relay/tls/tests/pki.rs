//! Certificates and TLS servers for tests.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PublicKeyData, date_time_ymd,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::relay::tls::Roots;

/// A CA.
pub(in crate::relay::tls) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A server's certificate with its chain, and its key.
pub(in crate::relay::tls) struct Identity {
    pub(in crate::relay::tls) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The public key as TLSA records select it.
    pub(in crate::relay::tls) public_key: Vec<u8>,
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn server_params(names: &[&str], is_expired: bool) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if is_expired {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    }
    params
}

impl Ca {
    pub(in crate::relay::tls) fn new(name: &str) -> Self {
        Ca(CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap())
    }

    /// Makes a CA below this one.
    pub(in crate::relay::tls) fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Ca(CertifiedIssuer::signed_by(ca_params(name), key, &self.0).unwrap())
    }

    pub(in crate::relay::tls) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(in crate::relay::tls) fn public_key(&self) -> Vec<u8> {
        self.0.key().subject_public_key_info()
    }

    pub(in crate::relay::tls) fn roots(&self) -> Roots {
        Roots::from_certificates([self.certificate()]).unwrap()
    }

    pub(in crate::relay::tls) fn issue(&self, names: &[&str]) -> Identity {
        self.issue_params(&server_params(names, false))
    }

    pub(in crate::relay::tls) fn issue_expired(&self, names: &[&str]) -> Identity {
        self.issue_params(&server_params(names, true))
    }

    fn issue_params(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity::new(vec![certificate.der().clone()], &key)
    }
}

impl Identity {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let public_key = key.subject_public_key_info();
        Identity { chain, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(), public_key }
    }

    pub(in crate::relay::tls) fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = server_params(names, false).self_signed(&key).unwrap();
        Identity::new(vec![certificate.der().clone()], &key)
    }

    /// Sends a certificate after the server's own.
    pub(in crate::relay::tls) fn with(mut self, certificate: CertificateDer<'static>) -> Self {
        self.chain.push(certificate);
        self
    }

    /// Shows this certificate with the key of another.
    pub(in crate::relay::tls) fn with_key_of(mut self, other: &Identity) -> Self {
        self.key = other.key.clone_key();
        self
    }

    pub(in crate::relay::tls) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_of(&[&TLS13, &TLS12])
    }

    pub(in crate::relay::tls) fn acceptor_of(
        &self,
        versions: &[&'static tokio_rustls::rustls::SupportedProtocolVersion],
    ) -> TlsAcceptor {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = provider.key_provider.load_private_key(self.key.clone_key()).unwrap();
        let certified = tokio_rustls::rustls::sign::CertifiedKey::new(self.chain.clone(), key);
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(tokio_rustls::rustls::sign::SingleCertAndKey::from(certified)));
        TlsAcceptor::from(Arc::new(config))
    }
}
