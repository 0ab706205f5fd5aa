use std::net::IpAddr;

use time::macros::datetime;

use super::*;

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

fn alice() -> Address {
    Address::parse("alice.private@example.org").unwrap()
}

fn source(last: u8) -> Source {
    Source::new(IpAddr::from([192, 0, 2, last]))
}

async fn administrator(accounts: &Accounts, now: OffsetDateTime) -> (NewSession, Session) {
    let link = accounts.printed_link(now).await.unwrap();
    let new = accounts.redeem(&link, now).await.unwrap().unwrap();
    let session = accounts.session(&new.cookie, now).await.unwrap().unwrap();
    (new, session)
}

async fn with_password() -> House {
    let house = house().await;
    let (_, session) = administrator(&house.accounts, NOW).await;
    let change = house.accounts.change_password(&session, "", PASSWORD, source(1), NOW).await.unwrap();
    assert_eq!(change, PasswordChange::Changed);
    house
}

async fn requested(
    accounts: &Accounts,
    address: &Address,
    from: Source,
    now: OffsetDateTime,
) -> Option<Token> {
    if !accounts.may_ask_for_link(from, now).await.unwrap() {
        return None;
    }
    accounts.mailed_link(address, now).await.unwrap()
}

#[tokio::test]
async fn a_mailed_link_lets_its_recipient_in_once() {
    let House { folder: _folder, accounts } = house().await;
    let link = requested(&accounts, &alice(), source(1), NOW).await.unwrap();
    let new = accounts.redeem(&link, NOW).await.unwrap().unwrap();
    assert_eq!(new.principal, Principal::Recipient(alice()));
    assert!(accounts.redeem(&link, NOW).await.unwrap().is_none());
    let session = accounts.session(&new.cookie, NOW).await.unwrap().unwrap();
    assert_eq!(session.principal, Principal::Recipient(alice()));
    assert!(session.by_link);
}

#[tokio::test]
async fn of_many_who_redeem_a_link_at_once_one_gets_in() {
    let House { folder: _folder, accounts } = house().await;
    let link = requested(&accounts, &alice(), source(1), NOW).await.unwrap();
    let tries: Vec<_> = (0..20)
        .map(|_| {
            let (accounts, link) = (accounts.clone(), link.clone());
            tokio::spawn(async move { accounts.redeem(&link, NOW).await.unwrap().is_some() })
        })
        .collect();
    let mut winners = 0;
    for attempt in tries {
        winners += usize::from(attempt.await.unwrap());
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn links_expire() {
    let House { folder: _folder, accounts } = house().await;
    let mailed = requested(&accounts, &alice(), source(1), NOW).await.unwrap();
    let printed = accounts.printed_link(NOW).await.unwrap();
    assert!(accounts.redeem(&mailed, NOW + Duration::minutes(15)).await.unwrap().is_none());
    assert!(accounts.redeem(&mailed, NOW).await.unwrap().is_none());
    assert!(accounts.redeem(&printed, NOW + Duration::hours(23)).await.unwrap().is_some());
    let printed = accounts.printed_link(NOW).await.unwrap();
    assert!(accounts.redeem(&printed, NOW + Duration::hours(24)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_new_printed_link_ends_the_earlier_one() {
    let House { folder: _folder, accounts } = house().await;
    let first = accounts.printed_link(NOW).await.unwrap();
    let second = accounts.printed_link(NOW).await.unwrap();
    assert!(accounts.redeem(&first, NOW).await.unwrap().is_none());
    assert!(accounts.redeem(&second, NOW).await.unwrap().is_some());
}

#[tokio::test]
async fn links_are_limited_by_address_and_by_source() {
    let House { folder: _folder, accounts } = house().await;
    for from in 0..5 {
        assert!(requested(&accounts, &alice(), source(from), NOW).await.is_some());
    }
    let shouted = Address::parse("ALICE.PRIVATE@EXAMPLE.ORG").unwrap();
    assert!(requested(&accounts, &shouted, source(9), NOW).await.is_none());
    assert!(requested(&accounts, &alice(), source(9), NOW + Duration::hours(1)).await.is_some());
    let mut granted = 0;
    for number in 0..40 {
        let address = Address::parse(&format!("user{number}@example.org")).unwrap();
        granted += u32::from(requested(&accounts, &address, source(50), NOW).await.is_some());
    }
    assert_eq!(granted, Config::default().links_per_source);
}

#[tokio::test]
async fn sessions_end_by_idleness_by_age_and_by_the_person() {
    let House { folder: _folder, accounts } = house().await;
    let (idle, _) = administrator(&accounts, NOW).await;
    assert!(accounts.session(&idle.cookie, NOW + Duration::minutes(29)).await.unwrap().is_some());
    assert!(accounts.session(&idle.cookie, NOW + Duration::minutes(58)).await.unwrap().is_some());
    assert!(accounts.session(&idle.cookie, NOW + Duration::minutes(88)).await.unwrap().is_none());

    let (busy, _) = administrator(&accounts, NOW).await;
    for minutes in (20..720).step_by(20) {
        let found = accounts.session(&busy.cookie, NOW + Duration::minutes(minutes)).await.unwrap();
        assert!(found.is_some(), "{minutes}");
    }
    assert!(accounts.session(&busy.cookie, NOW + Duration::minutes(720)).await.unwrap().is_none());

    let (left, _) = administrator(&accounts, NOW).await;
    accounts.end_session(&left.cookie).await.unwrap();
    assert!(accounts.session(&left.cookie, NOW).await.unwrap().is_none());
}

#[tokio::test]
async fn a_form_token_belongs_to_one_session() {
    let House { folder: _folder, accounts } = house().await;
    let (_, first) = administrator(&accounts, NOW).await;
    let (_, second) = administrator(&accounts, NOW).await;
    assert!(first.accepts(first.form_token()));
    assert!(!first.accepts(second.form_token()));
    assert!(!first.accepts(""));
}

#[tokio::test]
async fn the_password_lets_the_administrator_in() {
    let House { folder: _folder, accounts } = with_password().await;
    let SignIn::Begun(new) = accounts.sign_in(PASSWORD, source(2), NOW).await.unwrap() else { panic!() };
    assert_eq!(new.principal, Principal::Administrator);
    assert!(!accounts.session(&new.cookie, NOW).await.unwrap().unwrap().by_link);
    assert!(matches!(accounts.sign_in("wrong", source(2), NOW).await.unwrap(), SignIn::Refused));
}

#[tokio::test]
async fn without_a_password_none_is_accepted() {
    let House { folder: _folder, accounts } = house().await;
    for password in ["", "admin", PASSWORD] {
        assert!(matches!(accounts.sign_in(password, source(2), NOW).await.unwrap(), SignIn::Refused));
    }
}

#[tokio::test]
async fn guessing_is_stopped_even_when_the_guess_is_right_at_last() {
    let House { folder: _folder, accounts } = with_password().await;
    for _ in 0..10 {
        assert!(matches!(accounts.sign_in("guess", source(2), NOW).await.unwrap(), SignIn::Refused));
    }
    assert!(matches!(accounts.sign_in(PASSWORD, source(2), NOW).await.unwrap(), SignIn::Limited));
    assert!(matches!(accounts.sign_in(PASSWORD, source(3), NOW).await.unwrap(), SignIn::Begun(_)));
    let later = NOW + Duration::minutes(15);
    assert!(matches!(accounts.sign_in(PASSWORD, source(2), later).await.unwrap(), SignIn::Begun(_)));
}

#[tokio::test]
async fn changing_the_password_asks_for_the_current_one_and_ends_other_sessions() {
    let House { folder: _folder, accounts } = with_password().await;
    let SignIn::Begun(mine) = accounts.sign_in(PASSWORD, source(2), NOW).await.unwrap() else { panic!() };
    let SignIn::Begun(other) = accounts.sign_in(PASSWORD, source(2), NOW).await.unwrap() else { panic!() };
    let session = accounts.session(&mine.cookie, NOW).await.unwrap().unwrap();
    for (current, new, expected) in [
        ("wrong", "another good password", PasswordChange::WrongCurrent),
        (PASSWORD, "too short", PasswordChange::Unsuitable),
        (PASSWORD, &"x".repeat(2000), PasswordChange::Unsuitable),
        (PASSWORD, "another good password", PasswordChange::Changed),
    ] {
        let change = accounts.change_password(&session, current, new, source(2), NOW).await.unwrap();
        assert_eq!(change, expected);
    }
    assert!(accounts.session(&mine.cookie, NOW).await.unwrap().is_some());
    assert!(accounts.session(&other.cookie, NOW).await.unwrap().is_none());
    assert!(matches!(accounts.sign_in(PASSWORD, source(3), NOW).await.unwrap(), SignIn::Refused));
}

#[tokio::test]
async fn a_recipient_sets_no_password() {
    let House { folder: _folder, accounts } = house().await;
    let link = requested(&accounts, &alice(), source(1), NOW).await.unwrap();
    let new = accounts.redeem(&link, NOW).await.unwrap().unwrap();
    let session = accounts.session(&new.cookie, NOW).await.unwrap().unwrap();
    let change = accounts.change_password(&session, "", PASSWORD, source(1), NOW).await.unwrap();
    assert_eq!(change, PasswordChange::NotAllowed);
    assert!(!accounts.has_password().await.unwrap());
}

#[tokio::test]
async fn nothing_that_is_stored_opens_a_session() {
    let house = with_password().await;
    let accounts = &house.accounts;
    let link = requested(accounts, &alice(), source(1), NOW).await.unwrap();
    let other = requested(accounts, &alice(), source(1), NOW).await.unwrap();
    let new = accounts.redeem(&other, NOW).await.unwrap().unwrap();
    for file in std::fs::read_dir(house.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for secret in [link.expose(), new.cookie.expose(), PASSWORD, "alice.private"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
}

#[tokio::test]
async fn what_has_expired_is_removed() {
    let House { folder: _folder, accounts } = house().await;
    requested(&accounts, &alice(), source(1), NOW).await.unwrap();
    administrator(&accounts, NOW).await;
    assert_eq!(accounts.purge(NOW).await.unwrap(), 0);
    assert_eq!(accounts.purge(NOW + Duration::days(1)).await.unwrap(), 4);
}

#[test]
fn an_ipv6_source_is_its_network() {
    let a = Source::new("2001:db8:1:2:3::1".parse().unwrap());
    let b = Source::new("2001:db8:1:2:ffff::9".parse().unwrap());
    assert_eq!(a, b);
    assert_ne!(a, Source::new("2001:db8:1:3::1".parse().unwrap()));
    assert_eq!(Source::new("::ffff:192.0.2.1".parse().unwrap()), source(1));
}
