//! Policies from an HTTPS server on loopback.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::dns::{self, fake::Fake};
use crate::relay::tls::tests::pki::{Ca, Identity};
use crate::relay::tls::{Connector, Error, Requirement, Roots, TlsPolicy};

const ENFORCE: &str = "version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 604800\n";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A policy host: answers every connection with the same response.
struct PolicyHost {
    port: u16,
    requests: Arc<AtomicUsize>,
    response: Arc<std::sync::Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Drop for PolicyHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn response(status: &str, media_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nLocation: /x\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn ok(body: &str) -> Vec<u8> {
    response("200 OK", "text/plain; charset=utf-8", body)
}

impl PolicyHost {
    async fn start(identity: &Identity, response: Vec<u8>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = identity.acceptor();
        let requests = Arc::new(AtomicUsize::new(0));
        let response = Arc::new(std::sync::Mutex::new(response));
        let (counter, content) = (Arc::clone(&requests), Arc::clone(&response));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                let request = String::from_utf8(request).unwrap();
                assert!(request.starts_with("GET /.well-known/mta-sts.txt HTTP/1.1\r\n"), "{request}");
                assert!(request.contains("host: mta-sts.example.org\r\n"), "{request}");
                counter.fetch_add(1, Ordering::Relaxed);
                let bytes = content.lock().unwrap().clone();
                // The client may have seen enough and gone.
                if stream.write_all(&bytes).await.is_ok() && stream.shutdown().await.is_err() {
                    continue;
                }
            }
        });
        PolicyHost { port, requests, response, task }
    }

    fn set(&self, response: Vec<u8>) {
        *self.response.lock().unwrap() = response;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

fn domain() -> Domain {
    Domain::parse("example.org").unwrap()
}

fn announce(fake: &Fake, id: &str) {
    fake.set_txt("_mta-sts.example.org", Ok(vec![format!("v=STSv1; id={id};")]));
}

fn resolver() -> Arc<Fake> {
    let fake = Fake::new();
    announce(&fake, "1");
    fake.set_addresses("mta-sts.example.org", Ok(vec![Ipv4Addr::LOCALHOST.into()]));
    Arc::new(fake)
}

fn policies(fake: &Arc<Fake>, roots: &Roots, port: u16) -> Policies {
    let connector = Connector::new(roots.clone(), Arc::clone(fake) as Arc<dyn Resolver>).unwrap();
    Policies::new(Arc::clone(fake) as Arc<dyn Resolver>, connector.by_name.clone(), port)
}

#[tokio::test]
async fn a_policy_is_fetched_once_for_all_mail_of_a_domain() {
    let ca = Ca::new("ca");
    let host = PolicyHost::start(&ca.issue(&["mta-sts.example.org"]), ok(ENFORCE)).await;
    let policies = policies(&resolver(), &ca.roots(), host.port);
    let domain = domain();
    let (first, second) = tokio::join!(policies.policy(&domain), policies.policy(&domain));
    assert_eq!(first.as_ref().map(|policy| policy.mode()), Some(Mode::Enforce));
    assert_eq!(first, second);
    assert_eq!(host.requests(), 1);
}

#[tokio::test]
async fn a_domain_that_announces_nothing_is_not_asked() {
    let ca = Ca::new("ca");
    let host = PolicyHost::start(&ca.issue(&["mta-sts.example.org"]), ok(ENFORCE)).await;
    let fake = resolver();
    fake.set_txt("_mta-sts.example.org", Err(dns::Error::NoData));
    let policies = policies(&fake, &ca.roots(), host.port);
    assert_eq!(policies.policy(&domain()).await, None);
    assert_eq!(policies.policy(&Domain::parse("[192.0.2.1]").unwrap()).await, None);
    assert_eq!(host.requests(), 0);
}

#[tokio::test]
async fn responses_that_are_no_policy_are_as_good_as_none() {
    let ca = Ca::new("ca");
    let endless = format!("{ENFORCE}{}", "x: y\n".repeat(20_000));
    let broken_off = ok(ENFORCE)[..120].to_vec();
    for bad in [
        response("301 Moved Permanently", "text/plain", ENFORCE),
        response("404 Not Found", "text/plain", ENFORCE),
        response("200 OK", "text/html", ENFORCE),
        ok(&endless),
        ok("<html>"),
        broken_off,
        b"220 mx.example.org ESMTP\r\n".to_vec(),
        Vec::new(),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024)).into_bytes(),
    ] {
        let host = PolicyHost::start(&ca.issue(&["mta-sts.example.org"]), bad.clone()).await;
        let policies = policies(&resolver(), &ca.roots(), host.port);
        let found = policies.policy(&domain()).await;
        assert_eq!(found, None, "{}", String::from_utf8_lossy(&bad[..bad.len().min(60)]));
        assert_eq!(host.requests(), 1);
    }
}

#[tokio::test]
async fn a_policy_host_with_a_wrong_certificate_is_not_believed() {
    let ca = Ca::new("ca");
    for identity in [
        ca.issue(&["example.org"]),
        ca.issue_expired(&["mta-sts.example.org"]),
        Ca::new("ca").issue(&["mta-sts.example.org"]),
        Identity::self_signed(&["mta-sts.example.org"]),
    ] {
        let host = PolicyHost::start(&identity, ok(ENFORCE)).await;
        let policies = policies(&resolver(), &ca.roots(), host.port);
        assert_eq!(policies.policy(&domain()).await, None);
        assert_eq!(host.requests(), 0);
    }
}

#[tokio::test]
async fn a_new_id_fetches_the_policy_again() {
    let ca = Ca::new("ca");
    let host = PolicyHost::start(&ca.issue(&["mta-sts.example.org"]), ok(ENFORCE)).await;
    let fake = resolver();
    let policies = policies(&fake, &ca.roots(), host.port);
    policies.policy(&domain()).await.unwrap();
    host.set(ok("version: STSv1\nmode: none\nmax_age: 60\n"));
    assert_eq!(policies.policy(&domain()).await.map(|policy| policy.mode()), Some(Mode::Enforce));
    announce(&fake, "2");
    assert_eq!(policies.policy(&domain()).await.map(|policy| policy.mode()), Some(Mode::None));
    assert_eq!(host.requests(), 2);
}

#[tokio::test]
async fn a_kept_policy_holds_while_its_host_fails_and_until_it_expires() {
    let ca = Ca::new("ca");
    let host = PolicyHost::start(&ca.issue(&["mta-sts.example.org"]), ok(ENFORCE)).await;
    let fake = resolver();
    let policies = policies(&fake, &ca.roots(), host.port);
    let start = Instant::now();
    let kept = policies.policy_at(&domain(), start).await;
    assert!(kept.is_some());
    host.set(response("500 Oops", "text/plain", ""));
    announce(&fake, "2");
    assert_eq!(policies.policy_at(&domain(), start + DAY).await, kept);
    fake.set_txt("_mta-sts.example.org", Err(dns::Error::Temporary("timeout")));
    assert_eq!(policies.policy_at(&domain(), start + 6 * DAY).await, kept);
    fake.set_txt("_mta-sts.example.org", Err(dns::Error::NoSuchName));
    assert_eq!(policies.policy_at(&domain(), start + 6 * DAY).await, kept);
    assert_eq!(policies.policy_at(&domain(), start + 7 * DAY).await, None);
    announce(&fake, "3");
    assert_eq!(policies.policy_at(&domain(), start + 8 * DAY).await, None);
}

#[tokio::test]
async fn a_host_that_fails_is_left_alone_for_a_while() {
    let ca = Ca::new("ca");
    let identity = ca.issue(&["mta-sts.example.org"]);
    let host = PolicyHost::start(&identity, response("500 Oops", "text/plain", "")).await;
    let policies = policies(&resolver(), &ca.roots(), host.port);
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(policies.policy_at(&domain(), start).await, None);
    }
    assert_eq!(host.requests(), 1);
    host.set(ok(ENFORCE));
    assert!(policies.policy_at(&domain(), start + RETRY_AFTER).await.is_some());
    assert_eq!(host.requests(), 2);
}

#[tokio::test]
async fn a_policy_is_refreshed_once_a_day() {
    let ca = Ca::new("ca");
    let host = PolicyHost::start(&ca.issue(&["mta-sts.example.org"]), ok(ENFORCE)).await;
    let policies = policies(&resolver(), &ca.roots(), host.port);
    let start = Instant::now();
    policies.policy_at(&domain(), start).await.unwrap();
    policies.policy_at(&domain(), start + DAY / 2).await.unwrap();
    assert_eq!(host.requests(), 1);
    policies.policy_at(&domain(), start + DAY).await.unwrap();
    assert_eq!(host.requests(), 2);
}

#[test]
fn the_policies_of_countless_domains_are_bounded() {
    let fake = resolver();
    let policies = policies(&fake, &Roots::none(), 443);
    let start = Instant::now();
    for number in 0..MAX_DOMAINS + 10 {
        let used = start + Duration::from_secs(number as u64);
        assert!(policies.state(&format!("{number}.example"), true, used).is_some());
    }
    assert_eq!(policies.domains.lock().unwrap().len(), MAX_DOMAINS);
    assert!(policies.state("0.example", false, start).is_none());
    assert!(policies.state("10.example", false, start).is_some());
}

/// What a connection to a host must be, with a policy that lists `mx.example.org`.
async fn requirement(mode: &str, host: &str, dane: bool, secure_mx: bool) -> Result<Requirement, Error> {
    let ca = Ca::new("ca");
    let text = format!("version: STSv1\nmode: {mode}\nmx: mx.example.org\nmax_age: 604800\n");
    let policy_host = PolicyHost::start(&ca.issue(&["mta-sts.example.org"]), ok(&text)).await;
    let fake = resolver();
    fake.set_exchanges("example.org", secure_mx, &[(10, host)]);
    if dane {
        fake.set_secure_tlsa(host, 25, &[(3, 1, 1, &[0; 32])]);
    }
    let mut connector = Connector::new(ca.roots(), Arc::clone(&fake) as Arc<dyn Resolver>).unwrap();
    connector.policies = Arc::new(policies(&fake, &ca.roots(), policy_host.port));
    connector.requirement(&TlsPolicy::Published, host, 25, Some(&domain())).await
}

#[tokio::test]
async fn an_enforced_policy_asks_for_a_listed_host_and_a_verified_name() {
    let requirement = requirement("enforce", "mx.example.org", false, false).await.unwrap();
    assert!(requirement.is_mandatory() && requirement.is_verified());
}

#[tokio::test]
async fn an_enforced_policy_refuses_a_host_that_it_does_not_list() {
    for dane in [false, true] {
        let result = requirement("enforce", "mx.example.com", dane, false).await;
        assert!(matches!(result, Err(Error::NotInPolicy)), "{result:?}");
    }
}

#[tokio::test]
async fn policies_that_are_not_enforced_ask_for_nothing() {
    for mode in ["testing", "none"] {
        let requirement = requirement(mode, "mx.example.com", false, false).await.unwrap();
        assert!(matches!(requirement, Requirement::Opportunistic), "{mode} {requirement:?}");
    }
}

#[tokio::test]
async fn dane_over_a_secure_mx_needs_no_policy() {
    let requirement = requirement("enforce", "mx.example.com", true, true).await.unwrap();
    assert!(requirement.is_mandatory() && requirement.is_verified());
}
