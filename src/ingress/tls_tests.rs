//! Handshakes over in-memory streams, with certificates made for each test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_rustls::rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::{ClientConfig, SupportedProtocolVersion, version};

use super::*;

/// A folder with the files of an acceptor.
pub(in crate::ingress) struct Files {
    folder: TempDir,
}

impl Files {
    pub(in crate::ingress) fn new() -> Self {
        Files { folder: TempDir::new().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes a self-signed certificate for some names, and its key.
    pub(in crate::ingress) fn pair(&self, file: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        CertificateFiles {
            chain: self.write(&format!("{file}.pem"), &made.cert.pem()),
            key: self.write(&format!("{file}.key"), &made.signing_key.serialize_pem()),
        }
    }

    pub(in crate::ingress) fn acceptor(&self, own: Vec<CertificateFiles>) -> Acceptor {
        Acceptor::new(Certificates { own, clients: ClientCertificates::Ignored }).unwrap()
    }
}

/// A client's certificate and key.
pub(in crate::ingress) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Takes every server certificate, so that the test can look at it.
#[derive(Debug)]
struct Anything(CryptoProvider, Vec<SignatureScheme>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.clone()
    }
}

pub(in crate::ingress) fn connector(
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<Identity>,
) -> TlsConnector {
    let schemes = aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes();
    connector_for(versions, identity, schemes)
}

/// A client that knows these signature schemes alone.
fn connector_for(
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<Identity>,
    schemes: Vec<SignatureScheme>,
) -> TlsConnector {
    let provider = aws_lc_rs::default_provider();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything(provider, schemes)));
    let config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

pub(in crate::ingress) const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

type Established = ((TlsStream<DuplexStream>, Tls), ClientStream<DuplexStream>);

/// Does a handshake; a name that is an IP address is not sent.
async fn handshake(acceptor: &Acceptor, connector: &TlsConnector, name: &str) -> Established {
    let (client, server) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (server, client) = tokio::join!(acceptor.accept(server), connector.connect(name, client));
    (server.unwrap(), client.unwrap())
}

/// The certificate that a client gets who asks for a name.
async fn shown(acceptor: &Acceptor, name: &str) -> Vec<u8> {
    let (_, client) = handshake(acceptor, &connector(&BOTH, None), name).await;
    client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(files: &CertificateFiles) -> Vec<u8> {
    CertificateDer::from_pem_slice(&std::fs::read(&files.chain).unwrap()).unwrap().to_vec()
}

fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let files = Files::new();
    let own = vec![
        files.pair("first", &["mx.example"]),
        files.pair("second", &["mail.other.example", "*.wild.example"]),
        files.pair("third", &["mail.other.example"]),
    ];
    let acceptor = files.acceptor(own.clone());
    for (name, index) in [
        ("mx.example", 0),
        ("MX.Example", 0),
        ("mail.other.example", 1),
        ("a.wild.example", 1),
        ("a.b.wild.example", 0),
        ("wild.example", 0),
        ("nobody.example", 0),
        ("192.0.2.1", 0),
    ] {
        assert_eq!(shown(&acceptor, name).await, der(&own[index]), "{name}");
    }
}

#[tokio::test]
async fn a_client_gets_a_certificate_of_a_kind_that_it_knows() {
    let files = Files::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let params = CertificateParams::new(vec!["mx.example".to_owned()]).unwrap();
    let newer = CertificateFiles {
        chain: files.write("newer.pem", &params.self_signed(&key).unwrap().pem()),
        key: files.write("newer.key", &key.serialize_pem()),
    };
    let older = files.pair("older", &["mx.example"]);
    let acceptor = files.acceptor(vec![newer.clone(), older.clone()]);
    for (name, scheme, expected) in [
        ("mx.example", SignatureScheme::ED25519, &newer),
        ("mx.example", SignatureScheme::ECDSA_NISTP256_SHA256, &older),
        ("nobody.example", SignatureScheme::ECDSA_NISTP256_SHA256, &older),
    ] {
        let client = connector_for(&BOTH, None, vec![scheme]);
        let (_, client) = handshake(&acceptor, &client, name).await;
        assert_eq!(client.get_ref().1.peer_certificates().unwrap()[0].to_vec(), der(expected));
    }
}

#[tokio::test]
async fn a_malformed_name_ends_in_an_alert_or_the_first_certificate_and_in_no_panic() {
    let files = Files::new();
    let acceptor = files.acceptor(vec![files.pair("first", &["mx.example"])]);
    for name in [
        "mx.exampl\\",
        "\\x.example",
        "mx..xample",
        "mx.exampl\0",
        ".x.example",
        "mx example",
        "\u{ff}x.exampl",
    ] {
        assert_eq!(name.len(), "mx.example".len());
        // The hello of a client that asks for a well-formed name, with this one in its place.
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let server_name = ServerName::try_from("mx.example").unwrap();
        let connector = connector(&BOTH, None);
        let connecting = tokio::spawn(async move { drop(connector.connect(server_name, near).await) });
        let mut hello = vec![0; 1 << 14];
        let len = far.read(&mut hello).await.unwrap();
        connecting.abort();
        hello.truncate(len);
        let at = hello.windows(10).position(|window| window == b"mx.example").unwrap();
        hello[at..at + 10].copy_from_slice(name.as_bytes());
        let (mut client, mut wire) = tokio::io::duplex(1 << 16);
        client.write_all(&hello).await.unwrap();
        client.shutdown().await.unwrap();
        let error = acceptor.accept(&mut wire).await.map(|_| ()).unwrap_err();
        assert!(
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
            "{name:?}: {error}"
        );
    }
    assert!(!shown(&acceptor, "mx.example").await.is_empty());
}

#[tokio::test]
async fn files_read_anew_give_new_certificates_and_leave_open_sessions_alone() {
    let files = Files::new();
    let pair = files.pair("only", &["mx.example"]);
    let acceptor = files.acceptor(vec![pair.clone()]);
    let client = connector(&BOTH, None);
    let ((mut server_end, _), mut client_end) = handshake(&acceptor, &client, "mx.example").await;
    let old = der(&pair);

    files.pair("only", &["mx.example"]);
    let new = der(&pair);
    assert_ne!(old, new);
    let renewed = files.acceptor(vec![pair.clone()]);
    let (_, second) = handshake(&renewed, &client, "mx.example").await;
    assert_eq!(second.get_ref().1.peer_certificates().unwrap()[0].to_vec(), new);
    client_end.write_all(b"NOOP\r\n").await.unwrap();
    let mut got = [0; 6];
    server_end.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"NOOP\r\n");
    // What was read before stays in use where it is.
    assert_eq!(shown(&acceptor, "mx.example").await, old);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let files = Files::new();
    let (a, b) = (files.pair("a", &["a.example"]), files.pair("b", &["b.example"]));
    let empty = files.write("empty.pem", "");
    let garbage = files.write("garbage.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let nonsense =
        files.write("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = files.folder.path().join("missing.pem");
    let load = |chain: &PathBuf, key: &PathBuf, clients| {
        let own = vec![CertificateFiles { chain: chain.clone(), key: key.clone() }];
        Acceptor::new(Certificates { own, clients }).map(|_| ()).unwrap_err()
    };
    let none = ClientCertificates::Ignored;
    assert!(matches!(load(&a.chain, &b.key, none.clone()), TlsError::Mismatch { .. }));
    assert!(matches!(load(&missing, &a.key, none.clone()), TlsError::Read { path, .. } if path == missing));
    assert!(matches!(load(&a.chain, &missing, none.clone()), TlsError::Read { path, .. } if path == missing));
    assert!(matches!(load(&empty, &a.key, none.clone()), TlsError::Pem { path, .. } if path == empty));
    assert!(matches!(load(&garbage, &a.key, none.clone()), TlsError::Pem { path, .. } if path == garbage));
    assert!(matches!(load(&a.chain, &a.chain, none.clone()), TlsError::Pem { what: "private key", .. }));
    assert!(matches!(load(&nonsense, &a.key, none.clone()), TlsError::Unusable { .. }));
    let signed_by = |path: &PathBuf| ClientCertificates::SignedBy(path.clone());
    assert!(matches!(load(&a.chain, &a.key, signed_by(&missing)), TlsError::Read { .. }));
    assert!(matches!(load(&a.chain, &a.key, signed_by(&nonsense)), TlsError::Authority { .. }));
    let nothing = Certificates { own: Vec::new(), clients: none };
    assert!(matches!(Acceptor::new(nothing), Err(TlsError::NoCertificate)));
}

#[tokio::test]
async fn the_session_says_how_it_is_encrypted() {
    let files = Files::new();
    let acceptor = files.acceptor(vec![files.pair("a", &["a.example"])]);
    for (version, name) in [(&version::TLS12, "TLSv1.2"), (&version::TLS13, "TLSv1.3")] {
        let ((_, tls), _) = handshake(&acceptor, &connector(&[version], None), "a.example").await;
        assert_eq!(tls.version, name);
        assert!(tls.cipher.starts_with("TLS"), "{}", tls.cipher);
        assert_eq!(tls.client_fingerprint, None);
    }
}

#[tokio::test]
async fn older_versions_are_refused_with_an_alert() {
    let files = Files::new();
    let acceptor = files.acceptor(vec![files.pair("a", &["a.example"])]);
    // A hello of TLS 1.1: its version, 32 random bytes, no session id, one suite, no compression.
    let mut hello = vec![3, 2];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xc0, 0x13, 1, 0]);
    // One extension: signature algorithms.
    hello.extend_from_slice(&[0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let handshake = [&[1, 0, 0, 51][..], &hello].concat();
    let record = [&[0x16, 3, 1, 0, 55][..], &handshake].concat();
    let (mut client, server) = tokio::io::duplex(1 << 12);
    client.write_all(&record).await.unwrap();
    assert_eq!(acceptor.accept(server).await.map(|_| ()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    // A fatal alert: protocol_version.
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70]);
}

/// A certificate authority and a certificate that it made.
fn authority() -> (String, Identity) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (issuer.pem(), (vec![certificate.der().clone()], key))
}

fn copy(identity: &Identity) -> Identity {
    (identity.0.clone(), identity.1.clone_key())
}

#[tokio::test]
async fn a_verified_client_certificate_is_reported_and_another_one_counts_for_nothing() {
    let files = Files::new();
    let own = vec![files.pair("a", &["a.example"])];
    let (pem, signed) = authority();
    let (_, stranger) = authority();
    let clients = ClientCertificates::SignedBy(files.write("clients.pem", &pem));
    let acceptor = Acceptor::new(Certificates { own: own.clone(), clients }).unwrap();
    for version in BOTH {
        let tls = async |acceptor: &Acceptor, identity: Option<&Identity>| {
            let connector = connector(&[version], identity.map(copy));
            handshake(acceptor, &connector, "a.example").await.0.1.client_fingerprint
        };
        assert_eq!(tls(&acceptor, Some(&signed)).await, Some(fingerprint(&signed.0[0])));
        assert_eq!(tls(&acceptor, Some(&stranger)).await, None);
        assert_eq!(tls(&acceptor, None).await, None);

        let any = Certificates { own: own.clone(), clients: ClientCertificates::Any };
        let any = Acceptor::new(any).unwrap();
        assert_eq!(tls(&any, Some(&stranger)).await, Some(fingerprint(&stranger.0[0])));
        assert_eq!(tls(&any, None).await, None);
        assert_eq!(tls(&files.acceptor(own.clone()), Some(&signed)).await, None);
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_proves_nothing() {
    #[derive(Debug)]
    struct Thief(Arc<CertifiedKey>);
    impl rustls::client::ResolvesClientCert for Thief {
        fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    let files = Files::new();
    let own = vec![files.pair("a", &["a.example"])];
    let acceptor = Acceptor::new(Certificates { own, clients: ClientCertificates::Any }).unwrap();
    let ((stolen, _), (_, (_, own_key))) = (authority().1, authority());
    let provider = aws_lc_rs::default_provider();
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let key = provider.key_provider.load_private_key(own_key).unwrap();
    for version in BOTH {
        let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything(provider.clone(), schemes.clone())))
            .with_client_cert_resolver(Arc::new(Thief(Arc::new(CertifiedKey::new(
                stolen.clone(),
                Arc::clone(&key),
            )))));
        let (client, server) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("a.example").unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, client);
        let (accepted, connected) = tokio::join!(acceptor.accept(server), connecting);
        drop(connected);
        assert_eq!(accepted.map(|_| ()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
