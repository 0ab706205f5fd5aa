use super::*;
use crate::store::bodies::fault::Faulty;

#[tokio::test]
async fn a_kept_message_is_there_after_a_restart() {
    let house = House::new().await;
    let letter = letter(1, &["alice@example.org", "bob@example.org"]);
    let kept = house.quarantine.put(letter.arrival()).await.unwrap();
    assert_eq!(kept.transaction(), &letter.envelope.id);
    assert_eq!(kept.entries().len(), 2);

    let (quarantine, recovered) = house.reopened().await;
    assert_eq!(recovered, Recovered::default());
    let entry = quarantine.find(&Scope::All, &kept.entries()[1]).await.unwrap().unwrap();
    assert_eq!(entry.private.recipient.expose(), "bob@example.org");
    assert_eq!(entry.private.subject.expose(), "Your invoice number 1");
    assert_eq!(entry.private.reverse_path.expose(), "bounce@evil.example");
    assert_eq!(entry.main_finding().unwrap().symbol.as_str(), "URI_TEXT_MISMATCH");
    assert_eq!(entry.score.points(), 6.0);
    assert_eq!(entry.state, State::Kept);
    assert_eq!(entry.received_at, letter.received_at);
    assert_eq!(entry.expires_at, letter.received_at + Duration::days(30));
    assert_eq!(quarantine.body(&Scope::All, &entry.id).await.unwrap().unwrap(), letter.body);
    assert_eq!(quarantine.verify().await.unwrap().bodies, 1);
}

#[tokio::test]
async fn no_file_holds_what_the_message_says() {
    let house = House::new().await;
    letter(1, &["alice.private@example.org"]).put(&house.quarantine).await;
    let mut folders = vec![house.folder.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            for secret in [
                "invoice",
                "Secretname",
                "mallory",
                "bounce",
                "alice",
                "Please pay",
                "paypal",
                "paylink",
                "statement",
            ] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret} in {}", path.display());
            }
        }
    }
    assert!(files >= 2);
}

#[test]
fn a_summary_shows_where_links_go_and_what_attachments_are() {
    let html = "<p>Pay <a href=https://evil.example/a>here</a> or <a href=https://evil.example/a>there</a>\
        <img src=https://pixel.example/p></p>";
    let raw = format!(
        "From: \"Mallory\" <m@evil.example>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n{html}\r\n\
         --b\r\nContent-Type: application/pdf; name=invoice.pdf\r\nContent-Disposition: attachment\r\n\r\n\
         MZ\r\n--b--\r\n"
    );
    let summary = Summary::of(&crate::message::parse(raw.as_bytes()));
    assert_eq!(summary.subject.expose(), "Grüße");
    assert_eq!(summary.from_name.expose(), "Mallory");
    assert_eq!(summary.from_address.expose(), "m@evil.example");
    assert!(summary.preview.expose().contains("Pay here"));
    let links: Vec<_> = summary.links.iter().map(|link| (link.text.expose(), link.target.expose())).collect();
    assert_eq!(links, [(&"here".to_owned(), &"https://evil.example/a".to_owned())]);
    let [attachment] = summary.attachments.expose().as_slice() else {
        panic!("{:?}", summary.attachments.expose())
    };
    assert!(attachment.starts_with("invoice.pdf (1 kB, "), "{attachment}");
}

#[tokio::test]
async fn a_message_for_nobody_is_not_kept() {
    let house = House::new().await;
    let error = house.quarantine.put(letter(1, &[]).arrival()).await.unwrap_err();
    assert!(matches!(error, Error::NoRecipient));
    assert_eq!(house.bodies.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_full_disk_keeps_nothing_and_says_so() {
    let house = House::with(tempfile::tempdir().unwrap(), Faulty::at(2, 1).bodies()).await;
    letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    let second = letter(2, &["alice@example.org"]);
    let error = house.quarantine.put(second.arrival()).await.unwrap_err();
    assert!(error.is_storage_full(), "{error:?}");
    assert_eq!(house.quarantine.list(&Scope::All, &Query::default()).await.unwrap().total, Some(1));
    house.quarantine.put(second.arrival()).await.unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_written_takes_its_body_along() {
    let house = House::new().await;
    sqlx::query(
        "CREATE TRIGGER fail BEFORE INSERT ON quarantine_entries BEGIN SELECT raise(ABORT, 'no'); END",
    )
    .execute(house.quarantine.records.pool())
    .await
    .unwrap();
    let error = house.quarantine.put(letter(1, &["alice@example.org"]).arrival()).await.unwrap_err();
    assert!(matches!(error, Error::Records(_)) && !error.is_storage_full());
    assert_eq!(house.bodies.list().await.unwrap(), []);
}

#[tokio::test]
async fn the_same_transaction_is_not_kept_twice() {
    let house = House::new().await;
    let letter = letter(1, &["alice@example.org"]);
    let id = letter.put(&house.quarantine).await;
    assert!(matches!(house.quarantine.put(letter.arrival()).await, Err(Error::Bodies(BodiesError::Exists))));
    assert_eq!(house.quarantine.body(&Scope::All, &id).await.unwrap().unwrap(), letter.body);
}

#[tokio::test]
async fn provisional_entries_are_invisible_until_they_are_committed() {
    let house = House::new().await;
    let letter = letter(1, &["alice@example.org"]);
    let provisional = house.quarantine.put_provisional(letter.arrival()).await.unwrap();
    let everyone = [Scope::All, Scope::Recipient(address("alice@example.org"))];
    for scope in &everyone {
        assert_eq!(house.quarantine.list(scope, &Query::default()).await.unwrap().total, Some(0));
    }
    let kept = provisional.commit().await.unwrap();
    for scope in &everyone {
        assert!(house.quarantine.find(scope, &kept.entries()[0]).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn withdrawn_entries_leave_nothing() {
    let house = House::new().await;
    let letter = letter(1, &["alice@example.org", "bob@example.org"]);
    let provisional = house.quarantine.put_provisional(letter.arrival()).await.unwrap();
    provisional.withdraw().await.unwrap();
    assert_eq!(house.bodies.list().await.unwrap(), []);
    assert_eq!(house.quarantine.list(&Scope::All, &Query::default()).await.unwrap().total, Some(0));
}

#[tokio::test]
async fn a_restart_withdraws_what_nobody_was_told_of() {
    let house = House::new().await;
    let provisional =
        house.quarantine.put_provisional(letter(1, &["alice@example.org"]).arrival()).await.unwrap();
    letter(2, &["alice@example.org"]).put(&house.quarantine).await;
    let (quarantine, recovered) = house.reopened().await;
    assert_eq!(recovered.withdrawn, 1);
    assert_eq!(house.bodies.list().await.unwrap().len(), 1);
    assert!(matches!(provisional.commit().await, Err(Error::ProvisionalGone)));
    assert_eq!(quarantine.list(&Scope::All, &Query::default()).await.unwrap().total, Some(1));
}

#[tokio::test]
async fn another_key_does_not_open_the_quarantine() {
    let house = House::new().await;
    let result = open(house.folder.path(), house.bodies.clone(), [6; 32]).await;
    assert!(matches!(result, Err(Error::WrongKey(_))));
}

#[tokio::test]
async fn a_body_that_cannot_be_removed_holds_up_nothing_else() {
    let house = House::new().await;
    let letters = [1, 2, 3].map(|number| letter(number, &["alice@example.org"]));
    for letter in &letters {
        letter.put(&house.quarantine).await;
    }
    // A folder in the place of a body is not removed as one.
    let id = letters[1].envelope.id.as_str();
    let file = house.folder.path().join("bodies").join(id.split_at(1).0).join(id);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("x")).unwrap();
    assert_eq!(house.quarantine.purge(NOW + Duration::days(31)).await.unwrap(), 3);
    assert_eq!(house.bodies.get(&letters[0].envelope.id).await.unwrap(), None);
    assert_eq!(house.bodies.get(&letters[2].envelope.id).await.unwrap(), None);
    // It is tried again, and then its record goes too.
    std::fs::remove_dir_all(&file).unwrap();
    house.quarantine.purge(NOW + Duration::days(31)).await.unwrap();
    assert!(house.quarantine.verify().await.unwrap().missing.is_empty());
}

#[tokio::test]
async fn an_old_body_without_a_record_is_removed_and_nothing_else() {
    let house = House::new().await;
    letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    let stray = TransactionId::from_random([30; TransactionId::LEN]);
    house.bodies.put(&stray, Bytes::from_static(b"x")).await.unwrap();
    // The file system dates bodies; a century each way is before and after whatever it says.
    let century = Duration::days(36_500);
    assert_eq!(house.quarantine.remove_orphans(NOW - century).await.unwrap(), 0);
    assert_eq!(house.bodies.list().await.unwrap().len(), 2);
    assert_eq!(house.quarantine.remove_orphans(NOW + century).await.unwrap(), 1);
    assert_eq!(house.bodies.list().await.unwrap().len(), 1);
    assert!(house.quarantine.verify().await.unwrap().orphans.is_empty());
}

#[tokio::test]
async fn bodies_without_a_record_and_records_without_a_body_are_reported() {
    let house = House::new().await;
    let lost = letter(1, &["alice@example.org"]);
    let id = lost.put(&house.quarantine).await;
    house.bodies.delete(&lost.envelope.id).await.unwrap();
    let stray = TransactionId::from_random([30; TransactionId::LEN]);
    house.bodies.put(&stray, Bytes::from_static(b"x")).await.unwrap();
    let verification = house.quarantine.verify().await.unwrap();
    assert_eq!(verification.orphans, [stray]);
    assert_eq!(verification.missing, [lost.envelope.id]);
    assert!(house.quarantine.body(&Scope::All, &id).await.unwrap().is_none());
}

#[tokio::test]
async fn retention_removes_entries_then_the_body_with_the_last_one() {
    let house = House::new().await;
    let old = letter(1, &["alice@example.org", "bob@example.org"]);
    let kept = house.quarantine.put(old.arrival()).await.unwrap();
    letter(100, &["alice@example.org"]).put(&house.quarantine).await;
    let releasing = &kept.entries()[1];
    house.quarantine.act(&Scope::All, releasing, Action::Release, None, NOW).await.unwrap();

    let later = NOW + Duration::days(30) + Duration::seconds(50);
    assert_eq!(house.quarantine.purge(later).await.unwrap(), 1);
    assert_eq!(house.bodies.list().await.unwrap().len(), 2);
    assert_eq!(state(&house.quarantine, releasing).await, Some(State::Releasing));

    let job = house.quarantine.claim_due(later, 10).await.unwrap().remove(0);
    house.quarantine.delivered(&job, later).await.unwrap();
    assert_eq!(house.quarantine.purge(later).await.unwrap(), 1);
    assert_eq!(house.bodies.list().await.unwrap().len(), 1);
    assert_eq!(house.quarantine.purge(later).await.unwrap(), 0);
}

#[tokio::test]
async fn a_purge_that_was_cut_off_goes_on_with_the_body() {
    let house = House::new().await;
    let letter = letter(1, &["alice@example.org"]);
    letter.put(&house.quarantine).await;
    let pool = house.quarantine.records.pool();
    sqlx::query("DELETE FROM quarantine_entries").execute(pool).await.unwrap();
    sqlx::query("UPDATE quarantine_bodies SET doomed = 1").execute(pool).await.unwrap();
    house.quarantine.purge(NOW).await.unwrap();
    assert_eq!(house.bodies.list().await.unwrap(), []);
    let verification = house.quarantine.verify().await.unwrap();
    assert!(verification.orphans.is_empty() && verification.missing.is_empty());
}
