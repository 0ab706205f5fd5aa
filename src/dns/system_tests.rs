//! The resolver against a name server on loopback, which signs its zone if asked to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use hickory_resolver::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_resolver::proto::dnssec::{DnssecSigner, SigningKey, TrustAnchors};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA, TLSA, TXT};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordSet, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::*;

/// One zone, the root, with everything in it.
#[derive(Default)]
struct Zone {
    records: HashMap<(Name, RecordType), Vec<RData>>,
    failing: Vec<Name>,
    /// Names that it does not sign, though it should.
    unsigned: Vec<Name>,
    /// Names whose records differ from those that were signed.
    forged: Vec<Name>,
    signer: Option<DnssecSigner>,
    /// Whether it proves what does not exist.
    is_proving: bool,
    /// A zone below it that is not signed.
    unsigned_zone: Option<Name>,
}

/// A name server that runs until it is dropped.
struct Server {
    address: std::net::SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn fqdn(text: &str) -> Name {
    let mut name = Name::from_str(text).unwrap();
    name.set_fqdn(true);
    name
}

fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
}

fn mx(preference: u16, host: &str) -> RData {
    RData::MX(MX::new(preference, fqdn(host)))
}

fn tlsa(data: &[u8]) -> RData {
    RData::TLSA(TLSA::new(3.into(), 1.into(), 1.into(), data.to_vec()))
}

impl Zone {
    fn with(mut self, name: &str, data: RData) -> Self {
        self.records.entry((fqdn(name), data.record_type())).or_default().push(data);
        self
    }

    /// Makes the zone sign, and returns the key that proves it.
    fn signed(mut self) -> (Self, TrustAnchors) {
        let key = Ed25519SigningKey::from_pkcs8(&Ed25519SigningKey::generate_pkcs8().unwrap()).unwrap();
        let public = key.to_public_key().unwrap();
        let mut anchors = TrustAnchors::empty();
        anchors.insert(&public);
        let dnskey = DNSKEY::from_key(&public);
        let years = Duration::from_secs(40 * 365 * 24 * 60 * 60);
        self.signer = Some(DnssecSigner::new(dnskey.clone(), Box::new(key), Name::root(), years));
        self.records
            .insert((Name::root(), RecordType::DNSKEY), vec![RData::DNSSEC(DNSSECRData::DNSKEY(dnskey))]);
        (self, anchors)
    }

    fn answer(&self, request: &Message) -> Message {
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_available = true;
        response.metadata.recursion_desired = true;
        let query = request.queries.first().unwrap().clone();
        let mut name = query.name().to_lowercase();
        response.add_query(query.clone());
        if self.failing.contains(&name) {
            response.metadata.response_code = ResponseCode::ServFail;
            return response;
        }
        if let Some(RData::CNAME(alias)) =
            self.records.get(&(name.clone(), RecordType::CNAME)).and_then(|data| data.first())
        {
            self.add(&mut response, &name, RecordType::CNAME);
            name = alias.0.clone();
        }
        self.add(&mut response, &name, query.query_type());
        if response.answers.is_empty() {
            self.deny(&mut response, &name);
        }
        response
    }

    fn add(&self, response: &mut Message, name: &Name, kind: RecordType) {
        let Some(found) = self.records.get(&(name.clone(), kind)) else { return };
        for mut record in self.set(name, kind, found) {
            if self.forged.contains(name) {
                record.data = match record.data {
                    RData::TLSA(_) => tlsa(&[6; 32]),
                    RData::A(_) => a(66),
                    other => other,
                };
            }
            response.add_answer(record);
        }
    }

    /// Says that a name has no such records, with proof where the zone is signed.
    fn deny(&self, response: &mut Message, name: &Name) {
        let kinds: Vec<RecordType> =
            self.records.keys().filter(|(known, _)| known == name).map(|(_, kind)| *kind).collect();
        if kinds.is_empty() {
            response.metadata.response_code = ResponseCode::NXDomain;
        }
        // A delegation's own absences are denied by the parent.
        let apex = match &self.unsigned_zone {
            Some(zone) if zone.zone_of(name) && zone != name => zone.clone(),
            _ => Name::root(),
        };
        let soa = SOA::new(fqdn("ns"), fqdn("hostmaster"), 1, 60, 60, 60, 60);
        response.add_authorities(self.set(&apex, RecordType::SOA, &[RData::SOA(soa)]));
        if self.signer.is_some() && self.is_proving && apex.is_root() {
            // One record that covers every name, where the name does not exist.
            let owner = if kinds.is_empty() { Name::root() } else { name.clone() };
            let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new_cover_self(fqdn("zzz"), kinds)));
            let mut set = RecordSet::with_ttl(owner.clone(), RecordType::NSEC, 60);
            set.add_rdata(nsec);
            response.add_authorities(self.sign(&set));
        }
    }

    fn set(&self, name: &Name, kind: RecordType, found: &[RData]) -> Vec<Record> {
        let mut set = RecordSet::with_ttl(name.clone(), kind, 60);
        for data in found {
            set.add_rdata(data.clone());
        }
        let is_delegated = self.unsigned_zone.as_ref().is_some_and(|zone| zone.zone_of(name));
        if self.signer.is_none() || is_delegated || self.unsigned.contains(name) {
            return set.records_without_rrsigs().cloned().collect();
        }
        self.sign(&set)
    }

    fn sign(&self, set: &RecordSet) -> Vec<Record> {
        let inception = time::macros::datetime!(2025-01-01 0:00 UTC);
        let signature =
            RRSIG::from_rrset(set, DNSClass::IN, inception, self.signer.as_ref().unwrap()).unwrap();
        let signature = RData::DNSSEC(DNSSECRData::RRSIG(signature));
        let signature = Record::from_rdata(set.name().clone(), 60, signature);
        set.records_without_rrsigs().cloned().chain([signature]).collect()
    }

    async fn serve(self) -> Server {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let response = self.answer(&Message::from_vec(&buffer[..length]).unwrap());
                socket.send_to(&response.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        Server { address, task }
    }
}

fn config(server: &Server) -> Config {
    Config { servers: vec![server.address], ..Config::default() }
}

async fn system(zone: Zone) -> (System, Server) {
    let server = zone.serve().await;
    (System::new(&config(&server)).unwrap(), server)
}

async fn validating(zone: Zone) -> (System, Server) {
    let (zone, anchors) = zone.signed();
    let server = zone.serve().await;
    let config = Config { dnssec: true, ..config(&server) };
    (System::with_trust_anchors(&config, anchors).unwrap(), server)
}

fn hosts(exchanges: &[(u16, &str)], secure: bool) -> Mx {
    let exchanges = exchanges
        .iter()
        .map(|(preference, host)| Exchange { preference: *preference, host: (*host).to_owned() })
        .collect();
    Mx::Hosts { exchanges, secure }
}

#[tokio::test]
async fn exchanges_come_sorted_and_in_lower_case() {
    let zone = Zone::default()
        .with("example.org", mx(20, "mx2.example.org"))
        .with("example.org", mx(10, "MX1.Example.ORG"));
    let (resolver, _server) = system(zone).await;
    let expected = hosts(&[(10, "mx1.example.org"), (20, "mx2.example.org")], false);
    assert_eq!(resolver.mx("example.org").await, Ok(expected.clone()));
    assert_eq!(resolver.mx("Example.org.").await, Ok(expected));
}

#[tokio::test]
async fn a_null_mx_says_that_the_domain_takes_no_mail() {
    let (resolver, _server) = system(Zone::default().with("example.org", mx(0, "."))).await;
    assert_eq!(resolver.mx("example.org").await, Ok(Mx::Null));
}

#[tokio::test]
async fn a_domain_without_mx_is_its_own_exchange() {
    let (resolver, _server) = system(Zone::default().with("example.org", a(1))).await;
    assert_eq!(resolver.mx("Example.ORG.").await, Ok(hosts(&[(0, "example.org")], false)));
}

#[tokio::test]
async fn names_that_do_not_exist_are_told_from_those_without_data() {
    let (resolver, _server) = system(Zone::default().with("example.org", a(1))).await;
    assert_eq!(resolver.mx("nowhere.example").await, Err(Error::NoSuchName));
    assert_eq!(resolver.addresses("nowhere.example").await, Err(Error::NoSuchName));
    assert_eq!(resolver.txt("nowhere.example").await, Err(Error::NoSuchName));
    assert_eq!(resolver.txt("example.org").await, Err(Error::NoData));
}

#[tokio::test]
async fn addresses_of_both_families_are_found_also_behind_an_alias() {
    let zone = Zone::default()
        .with("mx.example.org", a(1))
        .with("mx.example.org", RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)))
        .with("alias.example.org", RData::CNAME(CNAME(fqdn("mx.example.org"))));
    let (resolver, _server) = system(zone).await;
    for host in ["mx.example.org", "alias.example.org"] {
        let mut found = resolver.addresses(host).await.unwrap();
        found.sort();
        assert_eq!(found, [IpAddr::from([192, 0, 2, 1]), Ipv6Addr::LOCALHOST.into()], "{host}");
    }
}

#[tokio::test]
async fn an_address_stands_for_itself() {
    let (resolver, _server) = system(Zone::default()).await;
    assert_eq!(resolver.addresses("2001:db8::1").await, Ok(vec!["2001:db8::1".parse().unwrap()]));
    assert_eq!(resolver.tlsa("192.0.2.1", 25).await, Ok(Tlsa::default()));
}

#[tokio::test]
async fn what_is_no_name_is_not_asked_for() {
    let (resolver, _server) = system(Zone::default()).await;
    let long = "a".repeat(64);
    for bad in ["", ".", "a..b", long.as_str()] {
        assert_eq!(resolver.txt(bad).await, Err(Error::InvalidName), "{bad:?}");
    }
}

#[tokio::test]
async fn a_server_that_fails_is_a_temporary_failure() {
    let zone = Zone { failing: vec![fqdn("example.org")], ..Zone::default() };
    let (resolver, _server) = system(zone).await;
    let error = resolver.mx("example.org").await.unwrap_err();
    assert!(matches!(error, Error::Temporary(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_is_silent_is_a_temporary_failure() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = Config {
        servers: vec![silent.local_addr().unwrap()],
        timeout: Duration::from_millis(20),
        retries: 0,
        ..Config::default()
    };
    let resolver = System::new(&config).unwrap();
    assert_eq!(resolver.mx("example.org").await, Err(Error::Temporary("timeout")));
    assert_eq!(resolver.addresses("example.org").await, Err(Error::Temporary("timeout")));
}

#[tokio::test]
async fn the_pieces_of_a_text_are_joined() {
    let pieces = vec!["v=STSv1; ".to_owned(), "id=1".to_owned()];
    let zone = Zone::default().with("a.example", RData::TXT(TXT::new(pieces)));
    let (resolver, _server) = system(zone).await;
    assert_eq!(resolver.txt("a.example").await, Ok(vec!["v=STSv1; id=1".to_owned()]));
}

#[test]
fn a_text_that_is_too_long_is_left_out() {
    let text = |pieces| TXT::new(vec!["x".repeat(128); pieces]);
    assert_eq!(system::read_text(&text(64)).map(|text| text.len()), Some(MAX_TEXT_BYTES));
    assert_eq!(system::read_text(&text(65)), None);
}

#[tokio::test]
async fn without_validation_nothing_is_secure() {
    let zone = Zone::default().with("mx.example", a(1)).with("_25._tcp.mx.example", tlsa(&[7; 32]));
    let (resolver, _server) = system(zone.signed().0).await;
    assert_eq!(resolver.tlsa("mx.example", 25).await, Ok(Tlsa::default()));
}

#[tokio::test]
async fn signed_records_are_secure() {
    let zone = Zone::default()
        .with("example.org", mx(10, "mx.example"))
        .with("mx.example", a(1))
        .with("_25._tcp.mx.example", tlsa(&[7; 32]));
    let (resolver, _server) = validating(zone).await;
    assert_eq!(resolver.mx("example.org").await, Ok(hosts(&[(10, "mx.example")], true)));
    let record = TlsaRecord { usage: 3, selector: 1, matching: 1, data: vec![7; 32] };
    let expected = Tlsa { secure: true, records: vec![record] };
    assert_eq!(resolver.tlsa("mx.example", 25).await, Ok(expected.clone()));
    // The second answer comes from the cache.
    assert_eq!(resolver.tlsa("mx.example", 25).await, Ok(expected));
}

#[tokio::test]
async fn forged_and_unsigned_records_of_a_signed_zone_are_bogus() {
    let zone = Zone {
        forged: vec![fqdn("_25._tcp.forged.example"), fqdn("address.example")],
        unsigned: vec![fqdn("_25._tcp.unsigned.example"), fqdn("unsigned.example.org")],
        ..Zone::default()
    };
    let zone = zone
        .with("forged.example", a(1))
        .with("_25._tcp.forged.example", tlsa(&[7; 32]))
        .with("unsigned.example", a(1))
        .with("_25._tcp.unsigned.example", tlsa(&[7; 32]))
        .with("address.example", a(1))
        .with("unsigned.example.org", mx(10, "mx.example"));
    let (resolver, _server) = validating(zone).await;
    assert_eq!(resolver.tlsa("forged.example", 25).await, Err(Error::Bogus));
    assert_eq!(resolver.tlsa("unsigned.example", 25).await, Err(Error::Bogus));
    assert_eq!(resolver.addresses("address.example").await, Err(Error::Bogus));
    assert_eq!(resolver.mx("unsigned.example.org").await, Err(Error::Bogus));
}

#[tokio::test]
async fn an_absence_that_a_signed_zone_does_not_prove_is_bogus() {
    let (resolver, _server) = validating(Zone::default().with("mx.example", a(1))).await;
    assert_eq!(resolver.tlsa("mx.example", 25).await, Err(Error::Bogus));
    assert_eq!(resolver.mx("nowhere.example").await, Err(Error::Bogus));
}

#[tokio::test]
async fn an_absence_that_a_signed_zone_proves_is_an_absence() {
    let zone = Zone { is_proving: true, ..Zone::default() };
    let (resolver, _server) = validating(zone.with("mx.example", a(1))).await;
    assert_eq!(resolver.tlsa("mx.example", 25).await, Ok(Tlsa::default()));
    assert_eq!(resolver.mx("mx.example").await, Ok(hosts(&[(0, "mx.example")], true)));
    assert_eq!(resolver.mx("nowhere.example").await, Err(Error::NoSuchName));
    assert_eq!(resolver.addresses("nowhere.example").await, Err(Error::NoSuchName));
}

#[tokio::test]
async fn records_of_a_zone_that_is_provably_unsigned_are_found_and_not_secure() {
    let zone = Zone { is_proving: true, unsigned_zone: Some(fqdn("example")), ..Zone::default() };
    let zone = zone
        .with("example", RData::NS(NS(fqdn("ns.example"))))
        .with("example.example", mx(10, "mx.example"))
        .with("mx.example", a(1))
        // Never asked for: the addresses are not secure.
        .with("_25._tcp.mx.example", tlsa(&[7; 32]));
    let (resolver, _server) = validating(zone).await;
    assert_eq!(resolver.mx("example.example").await, Ok(hosts(&[(10, "mx.example")], false)));
    assert_eq!(resolver.addresses("mx.example").await, Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]));
    assert_eq!(resolver.tlsa("mx.example", 25).await, Ok(Tlsa::default()));
    assert_eq!(resolver.mx("mx.example").await, Ok(hosts(&[(0, "mx.example")], false)));
    assert_eq!(resolver.mx("nowhere.example").await, Err(Error::NoSuchName));
}
