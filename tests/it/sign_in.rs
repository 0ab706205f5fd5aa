//! Mail of our own users: who signs in, who shows a certificate, and what the next hop is shown in turn.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::parts::{Client, Encrypted, Gateway, Hop, message, printed, run, scratch};
use crate::vitals::metric;

/// The name in the gateways' certificate.
const NAME: &str = "gateway.example.org";
const PASSWORD: &str = "correct horse battery";

/// A CA, and a gateway's certificate from it, in files of a folder.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn make(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap());
        let (certificate, key) = ca.issue(NAME);
        std::fs::write(folder.join("ca.pem"), ca.0.pem()).unwrap();
        std::fs::write(folder.join("chain.pem"), certificate.pem()).unwrap();
        private(&folder.join("key.pem"), &key.serialize_pem());
        ca
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// How a client that trusts this CA does TLS, with a certificate of its own or without.
    fn client(&self, own: Option<(CertificateDer<'static>, &KeyPair)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        Arc::new(match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        })
    }
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The keys of a gateway that takes outbound mail over TLS alone, and from no network.
fn keys(files: &Path, next_hop: &str, further: &str) -> String {
    let file = |name: &str| files.join(name).display().to_string();
    format!(
        "tls.certificates = [{{ chain = \"{}\", key = \"{}\" }}]\noutbound.tls = \"required\"\n\
         outbound.networks = []\noutbound.next_hop = {next_hop}\n{further}",
        file("chain.pem"),
        file("key.pem"),
    )
}

fn add_account(folder: &Path) {
    private(&folder.join("password"), &format!("{PASSWORD}\n"));
    let add = ["accounts", "add", "kit", "--sender", "@example.org", "--password-file", "password"];
    let output = run(folder, &[&["--config", "lazaret.toml"], &add[..]].concat());
    assert!(output.status.success(), "{}", printed(&output));
}

fn plain(password: &str) -> String {
    format!("AUTH PLAIN {}", STANDARD.encode(format!("\0kit\0{password}")))
}

fn send(client: &mut Client<Encrypted>, from: &str) -> String {
    client.send(from, &["friend@elsewhere.example"], &message("submitted", "text")).unwrap()
}

#[test]
fn an_account_sends_over_tls_once_it_has_signed_in() {
    let folder = scratch();
    let ca = Authority::make(folder.path());
    let hop = Hop::start();
    let keys = keys(folder.path(), &format!("\"smtp://{}\"", hop.address), "outbound.auth = \"accounts\"");
    let gateway = Gateway::start(folder.path(), &keys);
    add_account(folder.path());

    let mut client = Client::connect(gateway.outbound).unwrap();
    assert!(!client.command("EHLO client.example").unwrap().contains("AUTH"));
    assert!(client.command(&plain(PASSWORD)).unwrap().starts_with('5'));
    assert!(client.command("MAIL FROM:<kit@example.org>").unwrap().starts_with("530"));

    let (mut client, offers) = client.encrypt(ca.client(None), NAME).unwrap();
    assert!(offers.contains("AUTH SCRAM-SHA-256 PLAIN LOGIN"), "{offers}");
    assert!(send(&mut client, "kit@example.org").starts_with("530"));
    assert!(client.command(&plain("wrong horse battery")).unwrap().starts_with("535"));
    let reply = client.command(&plain(PASSWORD)).unwrap();
    assert!(reply.starts_with("235"), "{reply}\n{}", gateway.log());
    assert!(send(&mut client, "kit@other.example").starts_with("553"));
    assert!(send(&mut client, "kit@example.org").starts_with("250"));
    assert_eq!(hop.taken().len(), 1);
    assert_eq!(metric(gateway.web, "lazaret_sign_ins_total"), Some(2));
    assert!(gateway.stop().success());
}

#[test]
fn a_client_certificate_that_is_named_sends_without_signing_in() {
    let folder = scratch();
    let ca = Authority::make(folder.path());
    let (known, other) = (ca.issue("known.example.org"), ca.issue("other.example.org"));
    let digits: String = Sha256::digest(known.0.der()).iter().map(|byte| format!("{byte:02X}")).collect();
    let hop = Hop::start();
    let further = format!(
        "outbound.client_certificates = [\"{digits}\"]\ntls.client_ca = \"{}\"",
        folder.path().join("ca.pem").display()
    );
    let keys = keys(folder.path(), &format!("\"smtp://{}\"", hop.address), &further);
    let gateway = Gateway::start(folder.path(), &keys);
    for (own, expected) in [(Some(&known), "250"), (Some(&other), "554"), (None, "554")] {
        let config = ca.client(own.map(|(certificate, key)| (certificate.der().clone(), key)));
        let (mut client, _) = Client::connect(gateway.outbound).unwrap().encrypt(config, NAME).unwrap();
        let reply = send(&mut client, "app@example.org");
        assert!(reply.starts_with(expected), "{reply}\n{}", gateway.log());
    }
    assert_eq!(hop.taken().len(), 1);
    assert!(gateway.stop().success());
}

#[test]
fn a_password_is_passed_on_to_a_next_hop_whose_certificate_is_verified() {
    let (behind, front) = (scratch(), scratch());
    let ca = Authority::make(behind.path());
    let hop = Hop::start();
    let accounts =
        keys(behind.path(), &format!("\"smtp://{}\"", hop.address), "outbound.auth = \"accounts\"");
    let last = Gateway::start(behind.path(), &accounts);
    add_account(behind.path());

    // To one that is verified by the CA of tls.roots, the client's own name and password are passed on.
    let roots = format!("tls.roots = \"{}\"", behind.path().join("ca.pem").display());
    let next_hop =
        |tls: &str, more: &str| format!("[{{ to = \"smtp://{}\", tls = \"{tls}\"{more} }}]", last.outbound);
    let verified = next_hop(&format!("verified:{NAME}"), "");
    let pass_on = keys(behind.path(), &verified, &format!("{roots}\noutbound.auth = \"next_hop\""));
    let gateway = Gateway::start(front.path(), &pass_on);
    let (mut client, offers) =
        Client::connect(gateway.outbound).unwrap().encrypt(ca.client(None), NAME).unwrap();
    assert!(offers.contains("AUTH PLAIN LOGIN"), "{offers}");
    assert!(client.command(&plain("wrong horse battery")).unwrap().starts_with("535"));
    let reply = client.command(&plain(PASSWORD)).unwrap();
    assert!(reply.starts_with("235"), "{reply}\n{}", gateway.log());
    let reply = send(&mut client, "kit@example.org");
    assert!(reply.starts_with("250"), "{reply}\n{}", gateway.log());
    assert_eq!(hop.taken().len(), 1);
    assert!(gateway.stop().success());

    // To one with another name, nothing is.
    let stranger = next_hop("verified:other.example.org", "");
    let pass_on = keys(behind.path(), &stranger, &format!("{roots}\noutbound.auth = \"next_hop\""));
    let gateway = Gateway::start(front.path(), &pass_on);
    let (mut client, _) = Client::connect(gateway.outbound).unwrap().encrypt(ca.client(None), NAME).unwrap();
    assert!(client.command(&plain(PASSWORD)).unwrap().starts_with("454"), "{}", gateway.log());
    assert!(gateway.stop().success());

    // And with a login of the gateway's own, the client needs none.
    private(&front.path().join("login"), &format!("kit\n{PASSWORD}\n"));
    let login = format!(", login_file = \"{}\"", front.path().join("login").display());
    let own = next_hop(&format!("verified:{NAME}"), &login);
    let gateway = Gateway::start(front.path(), &format!("{roots}\noutbound.next_hop = {own}"));
    let mut client = Client::connect(gateway.outbound).unwrap();
    let sent =
        client.send("kit@example.org", &["friend@elsewhere.example"], &message("own", "text")).unwrap();
    assert!(sent.starts_with("250"), "{sent}\n{}", gateway.log());
    assert_eq!(hop.taken().len(), 2);
    assert_eq!(metric(gateway.web, "lazaret_next_hop_tls_handshakes_total"), Some(1));
    assert!(gateway.stop().success());
    assert!(last.stop().success());
}
