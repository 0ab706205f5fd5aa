use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use time::macros::datetime;

use super::*;
use crate::accounts::{AllowedSender, Config};
use crate::gateway::Clients;
use crate::mail::{Address, Tls};
use crate::privacy::InstallationKey;
use crate::relay::{self, NextHop};
use crate::smtp::sasl::{ScramKeys, answer_as_client};
use crate::store::Records;

const PASSWORD: &str = "correct horse battery";

/// A next hop that knows one password, and is down for one name.
struct Hop(AtomicUsize);

#[async_trait]
impl Passwords for Hop {
    async fn verify(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<Relay>, Box<dyn StdError + Send + Sync>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if credentials.name == "down" {
            return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
        }
        let maildir = NextHop::Maildir { path: "unused".into() };
        let relay = || Relay::new(relay::Config::new(maildir, "mx.example.org"));
        Ok((credentials.password.as_str() == PASSWORD).then(relay))
    }
}

async fn accounts() -> Accounts {
    let key = InstallationKey::new([3; 32]);
    let accounts = Accounts::new(Records::in_memory().await.unwrap(), &key, Config::default());
    let name = LoginName::parse("kit").unwrap();
    let senders = [AllowedSender::parse("@example.org").unwrap()];
    accounts.add_submitter(&name, PASSWORD, &senders, now()).await.unwrap();
    accounts
}

fn now() -> time::OffsetDateTime {
    datetime!(2026-03-02 09:00 UTC)
}

fn login(authority: Authority) -> Login {
    let pseudonyms = PseudonymKey::new(&InstallationKey::new([3; 32]));
    Login::new(SignIns { authority, needs_tls: true, pseudonyms, clock: Arc::new(now) })
}

/// A client from outside of our networks, over TLS.
fn client() -> Client {
    let mut client = Client::new(SocketAddr::from(([203, 0, 113, 9], 4321)));
    client.tls = Some(Tls { version: "TLSv1.3", cipher: String::new(), client_fingerprint: None });
    client
}

fn begin(mechanism: Mechanism, initial: &str) -> SignIn {
    SignIn::Begin(mechanism, Some(initial.as_bytes().to_vec()))
}

fn plain(name: &str, password: &str) -> SignIn {
    begin(Mechanism::Plain, &format!("\0{name}\0{password}"))
}

/// An answer in words.
fn said(answer: SignInAnswer) -> String {
    match answer {
        SignInAnswer::Challenge(challenge) => format!("334 {}", String::from_utf8(challenge).unwrap()),
        SignInAnswer::Done(name, reply) => format!("{} as {name}", code(&reply)),
        SignInAnswer::Refused(reply) => code(&reply),
    }
}

fn code(reply: &Reply) -> String {
    format!("{} {}", reply.code(), reply.enhanced().unwrap())
}

async fn mail(login: &Login, client: &Client, sender: &str) -> String {
    let reverse_path = (!sender.is_empty()).then(|| Address::parse(sender).unwrap());
    let access = Access::Clients(Clients::default());
    let mail = Mail { reverse_path, ..Mail::default() };
    login.check_mail(&access, client, &mail).await.map_or_else(|reply| code(&reply), |()| "ok".to_owned())
}

/// Goes through a SCRAM exchange and returns the last answer.
async fn scram(login: &mut Login, client: &Client, name: &str, password: &str) -> String {
    let first = format!("n,,n={name},r=abc");
    let answer = login.step(client, begin(Mechanism::ScramSha256, &first)).await;
    let SignInAnswer::Challenge(challenge) = answer else { panic!("no challenge") };
    let challenge = String::from_utf8(challenge).unwrap();
    let attribute =
        |name: &str| challenge.split(',').find_map(|attribute| attribute.strip_prefix(name)).unwrap();
    let salt = base64::engine::general_purpose::STANDARD.decode(attribute("s=")).unwrap();
    let keys = ScramKeys {
        salt: salt.try_into().unwrap(),
        iterations: attribute("i=").parse().unwrap(),
        stored_key: [0; 32],
        server_key: [0; 32],
    };
    let nonce = attribute("r=").strip_prefix("abc").unwrap();
    let last = answer_as_client(&first, password, &keys, nonce);
    match login.step(client, SignIn::Response(last.into_bytes())).await {
        SignInAnswer::Challenge(signature) => {
            assert!(signature.starts_with(b"v="));
            said(login.step(client, SignIn::Response(Vec::new())).await)
        }
        other => said(other),
    }
}

#[tokio::test]
async fn mechanisms_are_offered_over_tls_to_those_who_may_use_them() {
    let accounts = accounts().await;
    let hop = || Authority::NextHop(Arc::new(Hop(AtomicUsize::new(0))), accounts.clone());
    let all = vec![Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];
    assert_eq!(login(Authority::Accounts(accounts.clone())).mechanisms(&client()), all);
    assert_eq!(login(hop()).mechanisms(&client()), [Mechanism::Plain, Mechanism::Login]);
    assert_eq!(login(Authority::Nobody).mechanisms(&client()), []);
    let clear = Client { tls: None, ..client() };
    assert_eq!(login(hop()).mechanisms(&clear), []);
    let mut trusting = login(Authority::Accounts(accounts.clone()));
    trusting.shared.needs_tls = false;
    assert_eq!(trusting.mechanisms(&clear), all);
    let signed_in = Client { login: Some("kit".to_owned()), ..client() };
    assert_eq!(login(hop()).mechanisms(&signed_in), []);
}

#[tokio::test]
async fn an_account_signs_in_by_every_mechanism() {
    let accounts = accounts().await;
    let fresh = || login(Authority::Accounts(accounts.clone()));
    assert_eq!(said(fresh().step(&client(), plain("Kit", PASSWORD)).await), "235 2.7.0 as kit");
    assert_eq!(scram(&mut fresh(), &client(), "kit", PASSWORD).await, "235 2.7.0 as kit");
    let mut login = fresh();
    for (step, expected) in [
        (SignIn::Begin(Mechanism::Login, None), "334 Username:"),
        (SignIn::Response(b"kit".to_vec()), "334 Password:"),
        (SignIn::Response(PASSWORD.into()), "235 2.7.0 as kit"),
        (SignIn::Response(PASSWORD.into()), "503 5.5.1"),
    ] {
        assert_eq!(said(login.step(&client(), step).await), expected);
    }
}

#[tokio::test]
async fn every_refusal_has_its_code() {
    let accounts = accounts().await;
    let clear = Client { tls: None, ..client() };
    let signed_in = Client { login: Some("kit".to_owned()), ..client() };
    let ours = || Authority::Accounts(accounts.clone());
    let hop = Authority::NextHop(Arc::new(Hop(AtomicUsize::new(0))), accounts.clone());
    for (authority, client, step, expected) in [
        (ours(), client(), plain("kit", "wrong"), "535 5.7.8"),
        (ours(), client(), plain("nobody", PASSWORD), "535 5.7.8"),
        (ours(), client(), begin(Mechanism::Plain, "other\0kit\0x"), "535 5.7.8"),
        (ours(), client(), begin(Mechanism::Plain, "\0\0\0"), "501 5.5.2"),
        (ours(), client(), begin(Mechanism::Plain, &"x".repeat(9000)), "500 5.5.6"),
        (ours(), client(), begin(Mechanism::ScramSha256, "p=tls-unique,,n=kit,r=x"), "504 5.5.4"),
        (ours(), client(), SignIn::Response(b"x".to_vec()), "503 5.5.1"),
        (ours(), client(), SignIn::Cancel, "501 5.7.0"),
        (ours(), clear, plain("kit", PASSWORD), "538 5.7.11"),
        (ours(), signed_in, plain("kit", PASSWORD), "503 5.5.1"),
        (Authority::Nobody, client(), plain("kit", PASSWORD), "503 5.5.1"),
        (hop.clone(), client(), begin(Mechanism::ScramSha256, "n,,n=kit,r=x"), "504 5.5.4"),
        (hop, client(), plain("down", PASSWORD), "454 4.7.0"),
    ] {
        assert_eq!(said(login(authority).step(&client, step).await), expected);
    }
}

#[tokio::test]
async fn a_cancelled_or_refused_exchange_is_over() {
    let mut login = login(Authority::Accounts(accounts().await));
    login.step(&client(), SignIn::Begin(Mechanism::Plain, None)).await;
    login.step(&client(), SignIn::Cancel).await;
    let late = SignIn::Response(format!("\0kit\0{PASSWORD}").into_bytes());
    assert_eq!(said(login.step(&client(), late).await), "503 5.5.1");
    assert_eq!(scram(&mut login, &client(), "kit", "wrong").await, "535 5.7.8");
    assert_eq!(said(login.step(&client(), SignIn::Response(Vec::new())).await), "503 5.5.1");
    assert_eq!(mail(&login, &client(), "kit@example.org").await, "530 5.7.0");
}

#[tokio::test]
async fn guessing_is_limited_over_all_sessions_and_mechanisms() {
    let accounts = accounts().await;
    for number in 0..10 {
        let mut login = login(Authority::Accounts(accounts.clone()));
        let answer = match number % 2 {
            0 => said(login.step(&client(), plain("kit", "wrong")).await),
            _ => scram(&mut login, &client(), "kit", "wrong").await,
        };
        assert_eq!(answer, "535 5.7.8", "{number}");
    }
    let mut login = login(Authority::Accounts(accounts));
    assert_eq!(said(login.step(&client(), plain("kit", PASSWORD)).await), "454 4.7.0");
    assert_eq!(scram(&mut login, &client(), "kit", PASSWORD).await, "454 4.7.0");
}

#[tokio::test]
async fn the_next_hop_is_asked_within_the_limits_only() {
    let accounts = accounts().await;
    let hop = Arc::new(Hop(AtomicUsize::new(0)));
    let fresh = || login(Authority::NextHop(hop.clone(), accounts.clone()));
    let mut session = fresh();
    assert_eq!(said(session.step(&client(), plain("Lee", PASSWORD)).await), "235 2.7.0 as Lee");
    let lee = Client { login: Some("Lee".to_owned()), ..client() };
    assert!(session.relay(&lee).is_some());
    assert!(session.relay(&client()).is_none());
    assert_eq!(mail(&session, &lee, "anybody@elsewhere.example").await, "ok", "the next hop decides");
    for _ in 0..12 {
        fresh().step(&client(), plain("lee", "wrong")).await;
    }
    assert_eq!(hop.0.load(Ordering::SeqCst), 11);
    for _ in 0..12 {
        let other = Client::new(SocketAddr::from(([203, 0, 113, 10], 1)));
        let other = Client { tls: client().tls, ..other };
        assert_eq!(said(fresh().step(&other, plain("down", "x")).await), "454 4.7.0");
    }
    assert_eq!(hop.0.load(Ordering::SeqCst), 23, "a next hop that is down is no failure of the client's");
}

#[tokio::test]
async fn who_has_signed_in_sends_as_their_allowed_senders_while_the_account_stands() {
    let accounts = accounts().await;
    let mut session = login(Authority::Accounts(accounts.clone()));
    assert_eq!(mail(&session, &client(), "kit@example.org").await, "530 5.7.0");
    assert_eq!(mail(&session, &Client { tls: None, ..client() }, "kit@example.org").await, "530 5.7.0");
    assert_eq!(mail(&login(Authority::Nobody), &client(), "kit@example.org").await, "554 5.7.1");
    session.step(&client(), plain("kit", PASSWORD)).await;
    let kit = Client { login: Some("kit".to_owned()), ..client() };
    assert_eq!(mail(&session, &kit, "kit@example.org").await, "ok");
    assert_eq!(mail(&session, &kit, "").await, "ok");
    assert_eq!(mail(&session, &kit, "kit@example.net").await, "553 5.7.1");
    assert_eq!(mail(&session, &client(), "kit@example.org").await, "530 5.7.0", "forgotten at STARTTLS");
    let vouched_for = Client { login: Some("lee".to_owned()), ..client() };
    assert_eq!(mail(&session, &vouched_for, "kit@example.org").await, "530 5.7.0");
    let name = LoginName::parse("kit").unwrap();
    accounts.disable_submitter(&name, true).await.unwrap();
    assert_eq!(mail(&session, &kit, "kit@example.org").await, "550 5.7.1");
    accounts.remove_submitter(&name).await.unwrap();
    assert_eq!(mail(&session, &kit, "").await, "550 5.7.1");
}
