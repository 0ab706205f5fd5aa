//! Handshakes over in-memory streams with servers of every kind.

pub(in crate::relay::tls) mod pki;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::dns::Tlsa;
use crate::dns::fake::Fake;
use pki::{Ca, Identity};

const HOST: &str = "mx.example.org";

fn connector(roots: Roots, fake: Fake) -> Connector {
    Connector::new(roots, Arc::new(fake)).unwrap()
}

fn policy(text: &str) -> TlsPolicy {
    text.parse().unwrap()
}

/// Shakes hands with a server; on success a byte goes over and back.
async fn shake(connector: &Connector, acceptor: TlsAcceptor, requirement: &Requirement) -> Result<(), Error> {
    let (ours, theirs) = duplex(16 * 1024);
    let serve = async move {
        let Ok(mut stream) = acceptor.accept(theirs).await else { return };
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
            stream.flush().await.unwrap();
        }
    };
    let connect = async move {
        let mut stream = connector.connect(ours, HOST, requirement).await?;
        stream.write_all(b"x").await.map_err(Error::Handshake)?;
        stream.flush().await.map_err(Error::Handshake)?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(Error::Handshake)?;
        assert_eq!(&byte, b"x");
        Ok(())
    };
    tokio::join!(serve, connect).1
}

/// Shakes hands as a policy asks, without a mail domain.
async fn attempt(connector: &Connector, identity: &Identity, text: &str) -> Result<(), Error> {
    let requirement = connector.requirement(&policy(text), HOST, 25, None).await?;
    shake(connector, identity.acceptor(), &requirement).await
}

fn is_refused(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Certificate(_)))
}

#[tokio::test]
async fn the_right_name_from_the_right_ca_is_accepted() {
    let ca = Ca::new("ca");
    let connector = connector(ca.roots(), Fake::new());
    attempt(&connector, &ca.issue(&[HOST]), "verified").await.unwrap();
    attempt(&connector, &ca.issue(&["*.example.org"]), "verified").await.unwrap();
    attempt(&connector, &ca.issue(&["other.example"]), "verified:other.example").await.unwrap();
}

#[tokio::test]
async fn a_wrong_name_is_refused() {
    let ca = Ca::new("ca");
    let connector = connector(ca.roots(), Fake::new());
    assert!(is_refused(&attempt(&connector, &ca.issue(&["mx.example.com"]), "verified").await));
    assert!(is_refused(&attempt(&connector, &ca.issue(&[HOST]), "verified:other.example").await));
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let connector = connector(Ca::new("ca").roots(), Fake::new());
    assert!(is_refused(&attempt(&connector, &Ca::new("ca").issue(&[HOST]), "verified").await));
    assert!(is_refused(&attempt(&connector, &Identity::self_signed(&[HOST]), "verified").await));
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let ca = Ca::new("ca");
    let connector = connector(ca.roots(), Fake::new());
    assert!(is_refused(&attempt(&connector, &ca.issue_expired(&[HOST]), "verified").await));
}

#[tokio::test]
async fn without_a_ca_nothing_is_verified() {
    let connector = connector(Roots::none(), Fake::new());
    let result = attempt(&connector, &Identity::self_signed(&[HOST]), "verified").await;
    assert!(matches!(result, Err(Error::NoRoots)), "{result:?}");
}

#[tokio::test]
async fn any_certificate_will_do_where_none_is_asked_for() {
    let connector = connector(Roots::none(), Fake::new());
    for text in ["opportunistic", "required", "published"] {
        attempt(&connector, &Identity::self_signed(&["whatever.example"]), text).await.unwrap();
        attempt(&connector, &Ca::new("ca").issue_expired(&[HOST]), text).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_proves_nothing() {
    let connector = connector(Roots::none(), Fake::new());
    let thief = Identity::self_signed(&[HOST]).with_key_of(&Identity::self_signed(&[HOST]));
    for versions in [[&TLS13], [&TLS12]] {
        for text in ["opportunistic", "required"] {
            let requirement = connector.requirement(&policy(text), HOST, 25, None).await.unwrap();
            let result = shake(&connector, thief.acceptor_of(&versions), &requirement).await;
            assert!(result.is_err(), "{text} {versions:?}");
        }
    }
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken() {
    let ca = Ca::new("ca");
    let connector = connector(ca.roots(), Fake::new());
    let identity = ca.issue(&[HOST]);
    for versions in [[&TLS13], [&TLS12]] {
        for text in ["opportunistic", "verified"] {
            let requirement = connector.requirement(&policy(text), HOST, 25, None).await.unwrap();
            shake(&connector, identity.acceptor_of(&versions), &requirement).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_fails_the_handshake() {
    let connector = connector(Roots::none(), Fake::new());
    let (ours, mut theirs) = duplex(1024);
    theirs.write_all(b"220 mx.example.org ESMTP\r\n").await.unwrap();
    let result = connector.connect(ours, HOST, &Requirement::Opportunistic).await;
    assert!(matches!(result, Err(Error::Handshake(_))), "{result:?}");
}

#[tokio::test]
async fn a_fingerprint_accepts_its_certificate_and_no_other() {
    let connector = connector(Roots::none(), Fake::new());
    let identity = Identity::self_signed(&["whatever.example"]);
    let digest: [u8; 32] = Sha256::digest(identity.chain[0].as_ref()).into();
    let text = TlsPolicy::Fingerprint(vec![[0; 32], digest]).to_string();
    attempt(&connector, &identity, &text).await.unwrap();
    assert!(is_refused(&attempt(&connector, &Identity::self_signed(&["whatever.example"]), &text).await));
}

#[tokio::test]
async fn what_is_asked_for_says_whether_it_is_mandatory_and_verified() {
    let connector = connector(Ca::new("ca").roots(), Fake::new());
    let fingerprint = format!("sha256:{}", "0".repeat(64));
    for (text, is_mandatory, is_verified) in [
        ("none", false, false),
        ("opportunistic", false, false),
        ("published", false, false),
        ("required", true, false),
        ("verified", true, true),
        ("verified:mx.example.org", true, true),
        (fingerprint.as_str(), true, true),
    ] {
        let requirement = connector.requirement(&policy(text), HOST, 25, None).await.unwrap();
        assert_eq!(requirement.is_mandatory(), is_mandatory, "{text}");
        assert_eq!(requirement.is_verified(), is_verified, "{text}");
    }
}

#[tokio::test]
async fn a_name_from_an_mx_that_anybody_may_forge_is_not_verified_beyond_doubt() {
    let fake = Fake::new();
    fake.set_exchanges("signed.example", true, &[(10, HOST)]);
    fake.set_exchanges("unsigned.example", false, &[(10, HOST)]);
    let connector = connector(Ca::new("ca").roots(), fake);
    for (domain, is_verified) in [("signed.example", true), ("unsigned.example", false)] {
        let domain = Domain::parse(domain).unwrap();
        let requirement = connector.requirement(&policy("verified"), HOST, 25, Some(&domain)).await.unwrap();
        assert!(requirement.is_mandatory());
        assert_eq!(requirement.is_verified(), is_verified);
    }
}

#[tokio::test]
async fn a_host_that_no_certificate_can_name_is_refused() {
    let connector = connector(Ca::new("ca").roots(), Fake::new());
    for host in ["", "a b", "a..b"] {
        let result = connector.requirement(&policy("verified"), host, 25, None).await;
        assert!(matches!(result, Err(Error::Name)), "{host:?} {result:?}");
    }
    for host in ["192.0.2.1", "2001:db8::1", "bücher.example", "mx_1.example.", "localhost"] {
        connector.requirement(&policy("verified"), host, 25, None).await.unwrap();
    }
}

fn tlsa(records: &[(u8, u8, u8, &[u8])]) -> Connector {
    let fake = Fake::new();
    fake.set_secure_tlsa(HOST, 25, records);
    connector(Roots::none(), fake)
}

#[tokio::test]
async fn dane_ee_matches_the_key_whatever_the_name_and_the_dates() {
    let identity = Ca::new("unknown").issue_expired(&["wrong.example"]);
    let connector = tlsa(&[(3, 1, 1, &Sha256::digest(&identity.public_key))]);
    attempt(&connector, &identity, "published").await.unwrap();
    let other = Ca::new("unknown").issue(&[HOST]);
    assert!(is_refused(&attempt(&connector, &other, "published").await));
}

#[tokio::test]
async fn dane_ta_matches_a_chain_with_the_right_name_only() {
    let ca = Ca::new("ca");
    let intermediate = ca.below("intermediate");
    for connector in [
        tlsa(&[(2, 1, 1, &Sha256::digest(ca.public_key()))]),
        tlsa(&[(2, 0, 1, &Sha256::digest(ca.certificate()))]),
        tlsa(&[(2, 1, 1, &Sha256::digest(intermediate.public_key()))]),
    ] {
        let chained = |identity: Identity| identity.with(intermediate.certificate()).with(ca.certificate());
        attempt(&connector, &chained(intermediate.issue(&[HOST])), "published").await.unwrap();
        for bad in [intermediate.issue(&["wrong.example"]), intermediate.issue_expired(&[HOST])] {
            assert!(is_refused(&attempt(&connector, &chained(bad), "published").await));
        }
    }
}

#[tokio::test]
async fn a_ca_that_only_stands_in_the_chain_vouches_for_nothing() {
    let ca = Ca::new("ca");
    let connector = tlsa(&[(2, 1, 1, &Sha256::digest(ca.public_key()))]);
    let forged = Identity::self_signed(&[HOST]).with(ca.certificate());
    assert!(is_refused(&attempt(&connector, &forged, "published").await));
    let forged = Ca::new("ca").issue(&[HOST]).with(ca.certificate());
    assert!(is_refused(&attempt(&connector, &forged, "published").await));
}

#[tokio::test]
async fn a_trust_anchor_that_is_published_whole_need_not_be_sent() {
    let ca = Ca::new("ca");
    let connector = tlsa(&[(2, 0, 0, ca.certificate().as_ref())]);
    attempt(&connector, &ca.issue(&[HOST]), "published").await.unwrap();
    assert!(is_refused(&attempt(&connector, &Ca::new("ca").issue(&[HOST]), "published").await));
}

#[tokio::test]
async fn dane_ta_takes_the_name_of_a_domain_whose_mx_is_secure() {
    let ca = Ca::new("ca");
    for secure in [true, false] {
        let fake = Fake::new();
        fake.set_secure_tlsa(HOST, 25, &[(2, 0, 0, ca.certificate().as_ref())]);
        fake.set_exchanges("example.net", secure, &[(10, HOST)]);
        let connector = connector(Roots::none(), fake);
        let domain = Domain::parse("example.net").unwrap();
        let requirement =
            connector.requirement(&TlsPolicy::Published, HOST, 25, Some(&domain)).await.unwrap();
        assert_eq!(requirement.is_verified(), secure);
        let result = shake(&connector, ca.issue(&["example.net"]).acceptor(), &requirement).await;
        assert_eq!(result.is_ok(), secure, "{result:?}");
    }
}

#[tokio::test]
async fn unusable_records_ask_for_tls_and_verify_nothing() {
    let connector = tlsa(&[(1, 1, 1, &[0; 32]), (3, 1, 1, &[0; 5])]);
    let requirement = connector.requirement(&TlsPolicy::Published, HOST, 25, None).await.unwrap();
    assert!(requirement.is_mandatory() && !requirement.is_verified());
    attempt(&connector, &Identity::self_signed(&["whatever.example"]), "published").await.unwrap();
}

#[tokio::test]
async fn insecure_records_say_nothing() {
    let fake = Fake::new();
    let record = dns::TlsaRecord { usage: 3, selector: 1, matching: 1, data: vec![0; 32] };
    fake.set_tlsa(HOST, 25, Ok(Tlsa { secure: false, records: vec![record] }));
    let connector = connector(Roots::none(), fake);
    let requirement = connector.requirement(&TlsPolicy::Published, HOST, 25, None).await.unwrap();
    assert!(matches!(requirement, Requirement::Opportunistic), "{requirement:?}");
}

#[tokio::test]
async fn records_that_cannot_be_known_make_mail_wait() {
    for error in [dns::Error::Bogus, dns::Error::Temporary("timeout")] {
        let fake = Fake::new();
        fake.set_tlsa(HOST, 25, Err(error.clone()));
        let connector = connector(Roots::none(), fake);
        let result = connector.requirement(&TlsPolicy::Published, HOST, 25, None).await;
        assert!(matches!(&result, Err(Error::Tlsa(cause)) if *cause == error), "{result:?}");
    }
}

#[test]
fn a_bundle_without_certificates_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    assert!(matches!(Roots::from_file(&path), Err(Error::ReadRoots { .. })));
    std::fs::write(&path, "no certificates\n").unwrap();
    assert!(matches!(Roots::from_file(&path), Err(Error::NoRoots)));
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(Roots::from_file(&path), Err(Error::ReadRoots { .. })));
    let pem = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
    std::fs::write(&path, pem).unwrap();
    assert_eq!(Roots::from_file(&path).unwrap().0.len(), 1);
}
