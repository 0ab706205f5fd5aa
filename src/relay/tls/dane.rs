//! TLSA records: which can be used, and which certificates they stand for (RFC 6698, RFC 7671, RFC 7672).
//!
//! Only records that DNSSEC proves come here. DANE-EE(3) binds a key to the service and asks nothing more of
//! the certificate; DANE-TA(2) names a CA, whose certificates must have the right name. The PKIX usages 0
//! and 1 mean nothing for mail between servers and are as good as unusable (RFC 7672, section 3.1.3).

use std::sync::Arc;

use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::ParsedCertificate;

use crate::dns::TlsaRecord;

const DANE_TA: u8 = 2;
const DANE_EE: u8 = 3;
const CERTIFICATE: u8 = 0;
const PUBLIC_KEY: u8 = 1;
const FULL: u8 = 0;
const SHA_256: u8 = 1;
const SHA_512: u8 = 2;

/// The usable TLSA records of a service. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Associations(Arc<[TlsaRecord]>);

impl Associations {
    /// Takes the records that can be used; `None` where there is none, so that TLS is a must but nothing can be
    /// verified (RFC 7672, section 2.2).
    ///
    /// Where the same is published under both digests, SHA-256 values are left out (RFC 7671, section 9).
    pub(super) fn new(records: &[TlsaRecord]) -> Option<Self> {
        let mut usable: Vec<TlsaRecord> =
            records.iter().filter(|record| is_usable(record)).cloned().collect();
        let stronger: Vec<(u8, u8)> = usable
            .iter()
            .filter(|record| record.matching == SHA_512)
            .map(|record| (record.usage, record.selector))
            .collect();
        usable.retain(|record| {
            record.matching != SHA_256 || !stronger.contains(&(record.usage, record.selector))
        });
        (!usable.is_empty()).then(|| Associations(usable.into()))
    }

    /// Whether a DANE-EE record stands for this certificate of the server.
    pub(super) fn match_end_entity(&self, certificate: &CertificateDer<'_>) -> bool {
        self.matches(DANE_EE, certificate)
    }

    /// Whether a DANE-TA record stands for this certificate of the chain.
    pub(super) fn match_anchor(&self, certificate: &CertificateDer<'_>) -> bool {
        self.matches(DANE_TA, certificate)
    }

    /// Returns the trust anchors that are published whole, which the server need not send (RFC 7671, section 5.2.2).
    pub(super) fn published_anchors(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        self.0
            .iter()
            .filter(|record| (record.usage, record.selector, record.matching) == (DANE_TA, CERTIFICATE, FULL))
            .map(|record| CertificateDer::from(record.data.clone()))
    }

    fn matches(&self, usage: u8, certificate: &CertificateDer<'_>) -> bool {
        self.0
            .iter()
            .filter(|record| record.usage == usage)
            .any(|record| stands_for(record, certificate).unwrap_or(false))
    }
}

fn is_usable(record: &TlsaRecord) -> bool {
    let length_fits = match record.matching {
        FULL => !record.data.is_empty(),
        SHA_256 => record.data.len() == 32,
        SHA_512 => record.data.len() == 64,
        _ => false,
    };
    length_fits
        && matches!(record.usage, DANE_TA | DANE_EE)
        && matches!(record.selector, CERTIFICATE | PUBLIC_KEY)
}

/// `None` where the certificate has no public key that can be read.
fn stands_for(record: &TlsaRecord, certificate: &CertificateDer<'_>) -> Option<bool> {
    let key;
    let selected: &[u8] = if record.selector == CERTIFICATE {
        certificate.as_ref()
    } else {
        key = ParsedCertificate::try_from(certificate).ok()?.subject_public_key_info();
        key.as_ref()
    };
    let is_equal = |value: &[u8]| bool::from(record.data.as_slice().ct_eq(value));
    Some(match record.matching {
        FULL => is_equal(selected),
        SHA_256 => is_equal(&Sha256::digest(selected)),
        SHA_512 => is_equal(&Sha512::digest(selected)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    use super::*;

    fn record(usage: u8, selector: u8, matching: u8, data: &[u8]) -> TlsaRecord {
        TlsaRecord { usage, selector, matching, data: data.to_vec() }
    }

    fn certificate() -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["mx.example.org".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.der().clone(), key.subject_public_key_info())
    }

    #[test]
    fn every_selector_and_matching_type_finds_its_certificate_and_no_other() {
        let (certificate, key) = certificate();
        let (other, _) = self::certificate();
        for (selector, selected) in [(0, certificate.as_ref()), (1, key.as_slice())] {
            let digest_256 = Sha256::digest(selected);
            let digest_512 = Sha512::digest(selected);
            for (matching, data) in [(0, selected), (1, digest_256.as_slice()), (2, digest_512.as_slice())] {
                let ee = Associations::new(&[record(3, selector, matching, data)]).unwrap();
                assert!(ee.match_end_entity(&certificate), "3 {selector} {matching}");
                assert!(!ee.match_end_entity(&other), "3 {selector} {matching}");
                assert!(!ee.match_anchor(&certificate), "3 {selector} {matching}");
                let ta = Associations::new(&[record(2, selector, matching, data)]).unwrap();
                assert!(ta.match_anchor(&certificate), "2 {selector} {matching}");
                assert!(!ta.match_anchor(&other), "2 {selector} {matching}");
                assert!(!ta.match_end_entity(&certificate), "2 {selector} {matching}");
            }
        }
    }

    #[test]
    fn records_that_mean_nothing_for_mail_are_unusable() {
        for bad in [
            record(0, 0, 1, &[0; 32]),
            record(1, 1, 1, &[0; 32]),
            record(4, 1, 1, &[0; 32]),
            record(255, 1, 1, &[0; 32]),
            record(3, 2, 1, &[0; 32]),
            record(3, 1, 3, &[0; 32]),
            record(3, 1, 1, &[0; 31]),
            record(3, 1, 2, &[0; 32]),
            record(3, 1, 0, &[]),
        ] {
            assert_eq!(Associations::new(std::slice::from_ref(&bad)), None, "{bad:?}");
        }
        assert_eq!(Associations::new(&[]), None);
    }

    #[test]
    fn the_weaker_digest_does_not_count_beside_the_stronger() {
        let (certificate, key) = certificate();
        let weak = record(3, 1, 1, &Sha256::digest(&key));
        let strong = record(3, 1, 2, &[0; 64]);
        assert!(!Associations::new(&[weak.clone(), strong]).unwrap().match_end_entity(&certificate));
        let of_another_selector = record(3, 0, 2, &[0; 64]);
        assert!(Associations::new(&[weak, of_another_selector]).unwrap().match_end_entity(&certificate));
    }

    #[test]
    fn a_certificate_that_cannot_be_read_matches_no_key() {
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        let associations = Associations::new(&[record(3, 1, 1, &[0; 32])]).unwrap();
        assert!(!associations.match_end_entity(&garbage));
    }
}
