//! TLS towards next hops, and signing in over it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::{ENVELOPE, Hop, OPEN, mail, message, send};
use crate::dns::fake::Fake;
use crate::mail::Mail;
use crate::relay::tls::{Connector, Roots, TlsPolicy};
use crate::relay::{Config, Credentials, Relay, SignedIn};

const ENDED: &str = "C: DATA\nS: 354 go\nM\nS: 250 ok\n";
const CLEAR: &str = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250-AUTH PLAIN\nS: 250 STARTTLS\nC= STARTTLS\n";
const SECURED: &str = "C: EHLO\nS: 250-x\nS: 250-REQUIRETLS\nS: 250 AUTH LOGIN PLAIN\n";

/// What a server shows, and a connector that trusts it.
fn certificate() -> (TlsAcceptor, Connector) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let roots = Roots::from_certificates([made.cert.der().clone()]).unwrap();
    (TlsAcceptor::from(Arc::new(config)), Connector::new(roots, Arc::new(Fake::new())).unwrap())
}

struct Secure {
    hop: Hop,
    connector: Connector,
}

impl Secure {
    async fn start(scripts: &[&str]) -> Self {
        let (acceptor, connector) = certificate();
        Secure { hop: Hop::start_with(scripts, Some(acceptor)).await, connector }
    }

    fn config(&self, scheme: &str, policy: &str) -> Config {
        let mut config = Config::new(self.hop.next_hop(scheme), "gw.example");
        config.connector = Some(self.connector.clone());
        config.targets[0].tls = policy.parse().unwrap();
        config
    }

    fn relay(&self, policy: &str) -> Relay {
        Relay::new(self.config("smtp", policy))
    }
}

async fn check(policy: &str, mail: &Mail, scripts: &[&str], expected: &str) {
    let secure = Secure::start(scripts).await;
    assert_eq!(send(&secure.relay(policy), mail, &message()).await, expected, "{policy} {scripts:?}");
    secure.hop.playing.abort();
}

#[tokio::test]
async fn mail_goes_under_tls_where_it_is_offered() {
    let script = format!("{CLEAR}S: 220 go\nT\n{SECURED}{ENVELOPE}{ENDED}{ENVELOPE}{ENDED}");
    for policy in ["opportunistic", "required", "verified", "published"] {
        let secure = Secure::start(&[&script]).await;
        let relay = secure.relay(policy);
        for _ in 0..2 {
            assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 ok", "{policy}");
        }
        assert_eq!(secure.hop.finish().await.len(), 2);
    }
    let implicit = format!("T\nS: 220 x\n{SECURED}{ENVELOPE}{ENDED}");
    let secure = Secure::start(&[&implicit]).await;
    let relay = Relay::new(secure.config("smtps", "verified"));
    assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 ok");
}

#[tokio::test]
async fn what_is_said_in_clear_after_starttls_is_an_attack_and_not_an_answer() {
    for policy in ["opportunistic", "required", "verified"] {
        let script = format!("{CLEAR}S|220 go\\r\\n250-x\\r\\n250 AUTH PLAIN\\r\\n\nH");
        check(policy, &mail(), &[&script], "mail Injected").await;
        let script = format!("{CLEAR}S|220 go\\r\\n2\nH");
        check(policy, &mail(), &[&script], "mail Injected").await;
    }
}

#[tokio::test]
async fn what_was_offered_in_clear_is_forgotten_under_tls() {
    let clear = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250-SIZE 5\nS: 250-SMTPUTF8\nS: 250 STARTTLS\nC: STARTTLS\n";
    let script = format!("{clear}S: 220 go\nT\nC: EHLO\nS: 250 x\nC= MAIL FROM:<a@b.example>\nS: 550 seen\n");
    check("required", &Mail { size_bytes: Some(9), ..mail() }, &[&script], "mail 550 seen").await;
    let script = format!("{clear}S: 220 go\nT\nC: EHLO\nS: 250 x\nH");
    let expected = "mail 550 5.6.7 SMTPUTF8 is not supported on the way to the recipient";
    check("required", &Mail { smtputf8: true, ..mail() }, &[&script], expected).await;
}

#[tokio::test]
async fn opportunistic_tls_falls_back_on_a_new_connection_and_required_tls_never() {
    let plain = format!("{OPEN}{ENVELOPE}{ENDED}");
    let without = format!("S: 220 x\nC: EHLO\nS: 250-x\nS: 250 STARTTLS\n{ENVELOPE}{ENDED}");
    let broken = format!("{CLEAR}S: 220 go\nR\nS: no handshake of yours\n");
    let closed = format!("{CLEAR}S: 220 go\nR\n");
    let refused = format!("{CLEAR}S: 454 not now\n{ENVELOPE}{ENDED}");
    check("opportunistic", &mail(), &[&plain], "accepted 250 ok").await;
    check("opportunistic", &mail(), &[&broken, &without], "accepted 250 ok").await;
    check("opportunistic", &mail(), &[&closed, &without], "accepted 250 ok").await;
    check("opportunistic", &mail(), &[&refused], "accepted 250 ok").await;
    check("none", &mail(), &[&without], "accepted 250 ok").await;
    for policy in ["required", "verified"] {
        check(policy, &mail(), &[&plain], "mail NotEncrypted").await;
        check(policy, &mail(), &[&broken, &without], "mail Tls").await;
        check(policy, &mail(), &[&closed, &without], "mail Tls").await;
        check(policy, &mail(), &[&refused], "mail Unwilling").await;
    }
    let other = format!("sha256:{}", "00".repeat(32));
    let script = format!("{CLEAR}S: 220 go\nT\n");
    check(&other, &mail(), &[&script, &without], "mail Tls").await;
}

#[tokio::test]
async fn what_must_be_encrypted_is_out_of_reach_without_a_connector() {
    let hop = Hop::start(&[]).await;
    for (scheme, policy) in [("smtp", TlsPolicy::Required), ("smtps", TlsPolicy::default())] {
        let mut config = Config::new(hop.next_hop(scheme), "gw.example");
        config.targets[0].tls = policy;
        assert_eq!(send(&Relay::new(config), &mail(), &message()).await, "mail NotEncrypted");
    }
}

#[tokio::test]
async fn requiretls_is_passed_on_to_a_verified_server_and_to_no_other() {
    let script =
        format!("{CLEAR}S: 220 go\nT\n{SECURED}C= MAIL FROM:<a@b.example> REQUIRETLS\nS: 550 seen\n");
    let secret = Mail { require_tls: true, ..mail() };
    check("verified", &secret, &[&script], "mail 550 seen").await;
    let refused = "mail 550 5.7.30 REQUIRETLS is not supported on the way to the recipient";
    for policy in ["opportunistic", "required"] {
        check(policy, &secret, &[&script], refused).await;
    }
    let secure = Secure::start(&[&script]).await;
    assert!(secure.relay("verified").offers().await.require_tls);
    let secure = Secure::start(&[&script]).await;
    assert!(!secure.relay("required").offers().await.require_tls);
}

fn secret(text: &str) -> String {
    STANDARD.encode(text)
}

#[tokio::test]
async fn a_client_signs_in_to_the_next_hop_and_all_its_mail_goes_over_connections_of_its_own() {
    let signing_in =
        format!("{CLEAR}S: 220 go\nT\n{SECURED}C= AUTH PLAIN {}\n", secret("\0alice\0pass word"));
    let first = format!(
        "{signing_in}S: 235 2.7.0 in\n{ENVELOPE}{ENDED}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 250 bye\n"
    );
    let again = format!("{signing_in}S: 235 in\n{ENVELOPE}{ENDED}C: MAIL\nS: 421 bye\n");
    let changed = format!("{signing_in}S: 535 5.7.8 no longer\nH");
    let other = format!("{CLEAR}S: 220 go\nT\n{SECURED}C: MAIL\nS: 530 sign in\n");
    let secure = Secure::start(&[&first, &again, &changed, &other]).await;
    let relay = secure.relay("required");
    let signed_in = relay.sign_in("alice", "pass word").await.unwrap();
    let SignedIn::Accepted(own, reply) = signed_in else { panic!("{signed_in:?}") };
    assert_eq!(reply.to_wire(), "235 2.7.0 in\r\n");
    assert_eq!(send(&own, &mail(), &message()).await, "accepted 250 ok");
    assert_eq!(send(&own, &mail(), &message()).await, "accepted 250 bye");
    assert_eq!(send(&own, &mail(), &message()).await, "accepted 250 ok", "signed in again");
    assert_eq!(send(&own, &mail(), &message()).await, "mail SignIn", "its password was changed meanwhile");
    assert_eq!(send(&relay, &mail(), &message()).await, "mail 530 sign in", "nobody inherits it");
    secure.hop.finish().await;
}

#[tokio::test]
async fn a_client_that_is_refused_hears_the_servers_own_reply() {
    let open = format!("{CLEAR}S: 220 go\nT\n");
    let login = format!(
        "{open}C: EHLO\nS: 250-x\nS: 250 AUTH LOGIN\nC= AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC= {}\nS: 334 x\nC= {}\n",
        secret("alice"),
        secret("wrong")
    );
    let long = "x".repeat(400);
    let response = secret(&format!("\0alice\0{long}"));
    for (script, password, expected) in [
        (format!("{login}S: 535 5.7.8 no\n"), "wrong", Ok("535 5.7.8 no")),
        (format!("{login}S: 235 yes\nH"), "wrong", Ok("235 yes")),
        (format!("{open}{SECURED}C: AUTH PLAIN\nS: 454 4.7.0 later\n"), "wrong", Ok("454 4.7.0 later")),
        (format!("{open}{SECURED}C: AUTH PLAIN\nS: 421 bye\n"), "wrong", Ok("451 bye")),
        (
            format!("{open}{SECURED}C= AUTH PLAIN\nS: 334 \nC= {response}\nS: 235 yes\nH"),
            &long,
            Ok("235 yes"),
        ),
        // Never a sign-in by a code that says something else.
        (format!("{open}{SECURED}C: AUTH PLAIN\nS: 250 yes\nH"), "wrong", Err("sign_in")),
        (format!("{open}{SECURED}C: AUTH PLAIN\nS: 334 more\nH"), "wrong", Err("sign_in")),
        (format!("{open}C: EHLO\nS: 250 x\nH"), "wrong", Err("sign_in")),
        // Nothing secret goes in clear.
        ("S: 220 x\nC: EHLO\nS: 250-x\nS: 250 AUTH PLAIN\nH".to_owned(), "wrong", Err("sign_in")),
        (format!("{CLEAR}S: 454 no\nH"), "wrong", Err("sign_in")),
    ] {
        let secure = Secure::start(&[&script]).await;
        let told = match secure.relay("opportunistic").sign_in("alice", password).await {
            Ok(SignedIn::Accepted(_, reply) | SignedIn::Refused(reply)) => Ok(reply.to_wire()),
            Err(_) => Err("sign_in"),
        };
        assert_eq!(told.as_deref().map(str::trim_end), expected.as_deref(), "{script}");
        secure.hop.finish().await;
    }
    let secure = Secure::start(&[]).await;
    let refused = secure.relay("required").sign_in("al\0ice", "x").await.unwrap();
    assert!(matches!(refused, SignedIn::Refused(reply) if reply.code() == 535));
}

#[tokio::test]
async fn a_wrong_password_of_a_client_sets_nobody_aside() {
    let refused = format!("{CLEAR}S: 220 go\nT\n{SECURED}C: AUTH\nS: 535 no\n");
    let up = format!("{CLEAR}S: 220 go\nT\n{SECURED}{ENVELOPE}{ENDED}");
    let spare = Hop::start(&[]).await;
    let secure = Secure::start(&[&refused, &up]).await;
    let mut config = secure.config("smtp", "required");
    config
        .targets
        .push(crate::relay::Target { priority: 99, ..crate::relay::Target::new(spare.next_hop("smtp")) });
    let relay = Relay::new(config);
    assert!(matches!(relay.sign_in("alice", "x").await, Ok(SignedIn::Refused(_))));
    assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 ok");
}

#[tokio::test]
async fn we_sign_in_ourselves_where_the_target_asks_for_it() {
    let signing_in = format!("{CLEAR}S: 220 go\nT\n{SECURED}C= AUTH PLAIN {}\n", secret("\0gw\0key"));
    for (answer, expected) in [("S: 235 in\n", "accepted 250 ok"), ("S: 535 no\n", "mail SignIn")] {
        let secure = Secure::start(&[&format!("{signing_in}{answer}{ENVELOPE}{ENDED}")]).await;
        let mut config = secure.config("smtp", "required");
        config.targets[0].auth = Credentials::new("gw", "key");
        assert_eq!(send(&Relay::new(config), &mail(), &message()).await, expected);
        secure.hop.playing.abort();
    }
    let hop = Hop::start(&["S: 220 x\nC: EHLO\nS: 250-x\nS: 250 AUTH PLAIN\nH"]).await;
    let mut config = hop.config();
    config.targets[0].auth = Credentials::new("gw", "key");
    assert_eq!(format!("{:?}", config.targets[0].auth), "Some(Credentials([redacted]))");
    assert_eq!(send(&Relay::new(config), &mail(), &message()).await, "mail NotEncrypted");
    hop.finish().await;
}
