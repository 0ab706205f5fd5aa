use std::net::IpAddr;

use time::macros::datetime;

use super::*;
use crate::accounts::{Config, Source};
use crate::privacy::InstallationKey;
use crate::smtp::sasl::{Exchange, Step};
use crate::smtp::server::Mechanism;
use crate::store::Records;

const NOW: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);
const PASSWORD: &str = "correct horse battery";

struct House {
    folder: tempfile::TempDir,
    accounts: Accounts,
}

async fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(&folder.path().join("records.db")).await.unwrap();
    let accounts = Accounts::new(records, &InstallationKey::new([3; 32]), Config::default());
    House { folder, accounts }
}

/// With an account `kit` that may send as anybody of example.org.
async fn with_kit() -> House {
    let house = house().await;
    assert_eq!(add(&house.accounts, "kit", PASSWORD).await, Added::Added);
    house
}

async fn add(accounts: &Accounts, name: &str, password: &str) -> Added {
    let senders = [AllowedSender::parse("@example.org").unwrap()];
    accounts.add_submitter(&login(name), password, &senders, NOW).await.unwrap()
}

fn login(name: &str) -> LoginName {
    LoginName::parse(name).unwrap()
}

fn source(last: u8) -> Source {
    Source::new(IpAddr::from([192, 0, 2, last]))
}

async fn plain(
    accounts: &Accounts,
    name: &str,
    password: &str,
    from: u8,
    now: OffsetDateTime,
) -> &'static str {
    let password = Zeroizing::new(password.to_owned());
    said(&accounts.verify_plain(name, &password, source(from), now).await.unwrap())
}

fn said<T>(verdict: &Verdict<T>) -> &'static str {
    match verdict {
        Verdict::Accepted(_) => "accepted",
        Verdict::Refused => "refused",
        Verdict::Limited => "limited",
    }
}

/// Goes through a SCRAM exchange as a client with this password would.
async fn scram(accounts: &Accounts, name: &str, password: &str) -> &'static str {
    let first = format!("n,,n={name},r=abc");
    let (mut exchange, step) = Exchange::begin(Mechanism::ScramSha256, Some(first.as_bytes())).unwrap();
    let Step::Keys(asked) = step else { panic!() };
    let keys = accounts.scram_keys(&asked).await.unwrap();
    let answer = sasl::answer_as_client(&first, password, &keys, "def");
    exchange.challenge(keys, "def").unwrap();
    let Ok(Step::Proof(proof)) = exchange.respond(answer.as_bytes()) else { panic!() };
    said(&accounts.verify_scram(&proof, source(1), NOW).await.unwrap())
}

#[tokio::test]
async fn the_right_password_signs_in_by_every_spelling_of_the_name() {
    let House { folder: _folder, accounts } = with_kit().await;
    for (name, password, expected) in [
        ("kit", PASSWORD, "accepted"),
        ("KIT", PASSWORD, "accepted"),
        ("kit", "correct\u{a0}horse\u{ad} battery", "accepted"),
        ("kit", "correct horse batterY", "refused"),
        ("kit", "", "refused"),
        ("kit", "\u{7}", "refused"),
        ("kit", &"x".repeat(5000), "refused"),
        ("nobody", PASSWORD, "refused"),
        ("ABC\r\n", PASSWORD, "refused"),
        ("", PASSWORD, "refused"),
    ] {
        assert_eq!(plain(&accounts, name, password, 1, NOW).await, expected, "{name:?}");
    }
}

#[tokio::test]
async fn a_scram_proof_signs_in_and_a_name_that_nobody_has_looks_like_any() {
    let House { folder: _folder, accounts } = with_kit().await;
    assert_eq!(scram(&accounts, "kit", PASSWORD).await, "accepted");
    assert_eq!(scram(&accounts, "Kit", PASSWORD).await, "accepted");
    assert_eq!(scram(&accounts, "kit", "wrong").await, "refused");
    assert_eq!(scram(&accounts, "nobody", PASSWORD).await, "refused");
    let kit = accounts.scram_keys("kit").await.unwrap();
    let nobody = accounts.scram_keys("nobody").await.unwrap();
    assert_eq!(kit.iterations, nobody.iterations);
    assert_ne!(kit.salt, nobody.salt);
    assert_eq!(nobody, accounts.scram_keys("NOBODY").await.unwrap());
}

#[tokio::test]
async fn a_disabled_or_removed_account_signs_in_no_more() {
    let House { folder: _folder, accounts } = with_kit().await;
    assert!(accounts.disable_submitter(&login("kit"), true).await.unwrap());
    assert!(accounts.submitter(&login("kit")).await.unwrap().unwrap().is_disabled);
    assert_eq!(plain(&accounts, "kit", PASSWORD, 1, NOW).await, "refused");
    assert_eq!(scram(&accounts, "kit", PASSWORD).await, "refused");
    assert!(accounts.disable_submitter(&login("kit"), false).await.unwrap());
    assert_eq!(plain(&accounts, "kit", PASSWORD, 1, NOW).await, "accepted");
    assert!(accounts.remove_submitter(&login("kit")).await.unwrap());
    assert!(!accounts.remove_submitter(&login("kit")).await.unwrap());
    assert!(!accounts.disable_submitter(&login("kit"), true).await.unwrap());
    assert_eq!(plain(&accounts, "kit", PASSWORD, 1, NOW).await, "refused");
    assert_eq!(scram(&accounts, "kit", PASSWORD).await, "refused");
}

#[tokio::test]
async fn weak_passwords_and_taken_names_are_refused() {
    let House { folder: _folder, accounts } = with_kit().await;
    for (name, password, expected) in [
        ("lee", "short", Added::UnsuitablePassword),
        ("lee", &"x".repeat(PASSWORD_LIMIT_BYTES + 1), Added::UnsuitablePassword),
        ("lee", "a\u{7}correct horse", Added::UnsuitablePassword),
        (
            "lee",
            "\u{ad}\u{ad}\u{ad}\u{ad}\u{ad}\u{ad}\u{ad}\u{ad}\u{ad}\u{ad}\u{ad}short",
            Added::UnsuitablePassword,
        ),
        ("lee@example.org", "Lee@Example.org", Added::UnsuitablePassword),
        ("KIT", "another good password", Added::NameTaken),
        ("lee", "another good password", Added::Added),
    ] {
        assert_eq!(add(&accounts, name, password).await, expected, "{name}");
    }
    assert_eq!(plain(&accounts, "kit", PASSWORD, 1, NOW).await, "accepted", "it is as it was");
    let names: Vec<_> =
        accounts.submitters().await.unwrap().into_iter().map(|account| account.name).collect();
    assert_eq!(names, [login("kit"), login("lee")]);
}

#[tokio::test]
async fn guessing_is_limited_by_source_and_by_name_and_success_costs_nothing() {
    let House { folder: _folder, accounts } = with_kit().await;
    for _ in 0..12 {
        assert_eq!(plain(&accounts, "kit", PASSWORD, 1, NOW).await, "accepted");
    }
    for number in 0..10 {
        assert_eq!(plain(&accounts, &format!("user{number}"), "guess", 2, NOW).await, "refused");
    }
    assert_eq!(plain(&accounts, "kit", PASSWORD, 2, NOW).await, "limited", "also a right password");
    assert_eq!(plain(&accounts, "kit", PASSWORD, 1, NOW).await, "accepted");
    assert_eq!(plain(&accounts, "kit", PASSWORD, 2, NOW + time::Duration::minutes(15)).await, "accepted");

    let config = Config { failures_per_name: 3, ..Config::default() };
    let accounts = Accounts { config, ..accounts };
    for from in 10..13 {
        assert_eq!(plain(&accounts, "Kit", "guess", from, NOW).await, "refused");
    }
    assert_eq!(plain(&accounts, "kit", PASSWORD, 13, NOW).await, "limited");
    assert_eq!(scram(&accounts, "kit", PASSWORD).await, "limited");
}

#[tokio::test]
async fn of_many_guesses_at_once_no_more_than_the_limit_are_looked_at() {
    let House { folder: _folder, accounts } = house().await;
    let looked_at = std::sync::atomic::AtomicU32::new(0);
    let guesses = (0..40).map(|_| {
        accounts.limited::<(), Error>("kit", source(1), NOW, async {
            looked_at.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(None)
        })
    });
    let verdicts = futures_util::future::join_all(guesses).await;
    let limited = verdicts.iter().filter(|verdict| said(verdict.as_ref().unwrap()) == "limited").count();
    assert_eq!((looked_at.into_inner(), limited), (10, 30));
}

#[tokio::test]
async fn of_many_right_passwords_at_once_none_is_limited() {
    let House { folder: _folder, accounts } = house().await;
    let attempts = (0..40).map(|_| {
        accounts.limited::<(), Error>("kit", source(1), NOW, async {
            tokio::task::yield_now().await;
            Ok(Some(()))
        })
    });
    for verdict in futures_util::future::join_all(attempts).await {
        assert_eq!(said(&verdict.unwrap()), "accepted");
    }
}

#[tokio::test]
async fn an_account_sends_as_its_allowed_senders_and_as_nobody() {
    let House { folder: _folder, accounts } = with_kit().await;
    let kit = accounts.submitter(&login("kit")).await.unwrap().unwrap();
    let address = |text: &str| Address::parse(text).unwrap();
    assert!(kit.may_send_as(Some(&address("anybody@example.org"))));
    assert!(kit.may_send_as(None));
    assert!(!kit.may_send_as(Some(&address("anybody@example.net"))));
}

#[tokio::test]
async fn nothing_that_is_stored_names_an_account_or_opens_it() {
    let House { folder, accounts } = house().await;
    add(&accounts, "kit.private@example.org", PASSWORD).await;
    plain(&accounts, "kit.private@example.org", "guess", 1, NOW).await;
    let keys = accounts.scram_keys("kit.private@example.org").await.unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for secret in [PASSWORD.as_bytes(), b"kit.private", b"example.org", b"argon2id$", &keys.stored_key] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
    let kit = accounts.submitter(&login("kit.private@example.org")).await.unwrap().unwrap();
    assert!(!format!("{kit:?} {accounts:?}").contains("private"));
}
