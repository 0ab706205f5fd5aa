use super::*;
use crate::learn::{Features, MessageKey, Model};
use crate::store::{LessonLog, Taught};

fn content() -> Content {
    let features = Features::new([vec![3], vec![5], vec![8], vec![13], vec![21]]);
    Content { message: MessageKey([1; 16]), features, layers: vec![Taught::SHARED] }
}

/// Returns the spam and ham lessons in force.
async fn lessons(house: &House) -> (u32, u32) {
    let log = LessonLog::new(&house.quarantine.records);
    let mut model = Model::new();
    for entry in log.in_force_after(0, 1000).await.unwrap() {
        model.follow(entry.sequence, Some(&entry.lesson));
    }
    let (ham, spam) = model.lessons();
    (spam, ham)
}

async fn act(house: &House, id: &EntryId, action: Action) -> Outcome {
    house.quarantine.act(&Scope::All, id, action, None, NOW).await.unwrap()
}

#[tokio::test]
async fn decisions_are_made_once_and_can_be_taken_back() {
    let house = House::new().await;
    let id = letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    for (action, expected) in [
        (Action::Undo, Outcome::AlreadyDone(State::Kept)),
        (Action::Confirm, Outcome::Done(State::Confirmed)),
        (Action::Confirm, Outcome::AlreadyDone(State::Confirmed)),
        (Action::Release, Outcome::NotAllowed(State::Confirmed)),
        (Action::Undo, Outcome::Done(State::Kept)),
        (Action::Drop, Outcome::Done(State::Dropped)),
        (Action::Release, Outcome::NotAllowed(State::Dropped)),
        (Action::Undo, Outcome::Done(State::Kept)),
        (Action::Release, Outcome::Done(State::Releasing)),
        (Action::Release, Outcome::AlreadyDone(State::Releasing)),
        (Action::Drop, Outcome::NotAllowed(State::Releasing)),
        (Action::Undo, Outcome::Done(State::Kept)),
        (Action::Release, Outcome::Done(State::Releasing)),
    ] {
        assert_eq!(act(&house, &id, action).await, expected, "{action:?}");
    }
    assert_eq!(house.quarantine.waiting().await.unwrap(), 1);
}

#[tokio::test]
async fn fifty_clicks_at_once_release_once() {
    let house = House::new().await;
    let id = letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    let clicks: Vec<_> = (0..50)
        .map(|_| {
            let (quarantine, id) = (house.quarantine.clone(), id.clone());
            tokio::spawn(async move { quarantine.act(&Scope::All, &id, Action::Release, None, NOW).await })
        })
        .collect();
    let mut done = 0;
    for click in clicks {
        match click.await.unwrap().unwrap() {
            Outcome::Done(State::Releasing) => done += 1,
            Outcome::AlreadyDone(State::Releasing) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(done, 1);
    assert_eq!(house.quarantine.claim_due(NOW, 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_recipient_acts_on_their_own_entries_only() {
    let house = House::new().await;
    let id = letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    let mut outbound = letter(2, &["alice@example.org"]);
    outbound.envelope.direction = Direction::Outbound;
    let outbound = outbound.put(&house.quarantine).await;
    let bob = Scope::Recipient(address("bob@example.org"));
    let alice = Scope::Recipient(address("Alice@Example.ORG"));
    for (scope, id) in [(&bob, &id), (&alice, &outbound)] {
        for action in Action::ALL {
            let outcome = house.quarantine.act(scope, id, action, None, NOW).await.unwrap();
            assert_eq!(outcome, Outcome::NotFound, "{action:?}");
        }
        assert!(house.quarantine.find(scope, id).await.unwrap().is_none());
        assert!(house.quarantine.body(scope, id).await.unwrap().is_none());
    }
    assert_eq!(house.quarantine.list(&bob, &Query::default()).await.unwrap().total, Some(0));
    assert_eq!(house.quarantine.list(&alice, &Query::default()).await.unwrap().total, Some(1));
    let outcome = house.quarantine.act(&alice, &id, Action::Release, None, NOW).await.unwrap();
    assert_eq!(outcome, Outcome::Done(State::Releasing));
}

#[tokio::test]
async fn an_entry_that_does_not_exist_is_not_found() {
    let house = House::new().await;
    let id = EntryId::random().unwrap();
    assert_eq!(act(&house, &id, Action::Release).await, Outcome::NotFound);
}

#[tokio::test]
async fn decisions_teach_and_taking_them_back_forgets() {
    let house = House::new().await;
    let id = letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    for (action, expected) in [
        (Action::Confirm, (1, 0)),
        (Action::Confirm, (1, 0)),
        (Action::Undo, (0, 0)),
        (Action::Undo, (0, 0)),
        (Action::Release, (0, 1)),
        (Action::Release, (0, 1)),
        (Action::Undo, (0, 0)),
        (Action::Drop, (0, 0)),
        (Action::Undo, (0, 0)),
        (Action::Release, (0, 1)),
    ] {
        house.quarantine.act(&Scope::All, &id, action, Some(&content()), NOW).await.unwrap();
        assert_eq!(lessons(&house).await, expected, "{action:?}");
    }
    let job = house.quarantine.claim_due(NOW, 1).await.unwrap().remove(0);
    house.quarantine.not_delivered(&job, Failure::Permanent(550), NOW).await.unwrap();
    assert_eq!(lessons(&house).await, (0, 1));
    house.quarantine.act(&Scope::All, &id, Action::Release, Some(&content()), NOW).await.unwrap();
    assert_eq!(lessons(&house).await, (0, 1), "a second try teaches nothing new");
    let job = house.quarantine.claim_due(NOW, 1).await.unwrap().remove(0);
    house.quarantine.delivered(&job, NOW).await.unwrap();
    let outcome = house.quarantine.act(&Scope::All, &id, Action::Undo, None, NOW).await.unwrap();
    assert_eq!(outcome, Outcome::LessonTakenBack(State::Released));
    assert_eq!(lessons(&house).await, (0, 0));
    let outcome = house.quarantine.act(&Scope::All, &id, Action::Undo, None, NOW).await.unwrap();
    assert_eq!(outcome, Outcome::AlreadyDone(State::Released));
}

#[tokio::test]
async fn a_decision_whose_lesson_cannot_be_written_is_not_made() {
    let house = House::new().await;
    let id = letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    sqlx::query("CREATE TRIGGER fail BEFORE INSERT ON lessons BEGIN SELECT raise(ABORT, 'no'); END")
        .execute(house.quarantine.records.pool())
        .await
        .unwrap();
    for action in [Action::Release, Action::Confirm] {
        let result = house.quarantine.act(&Scope::All, &id, action, Some(&content()), NOW).await;
        assert!(matches!(result, Err(Error::Lesson(_))), "{action:?}");
    }
    assert_eq!(state(&house.quarantine, &id).await, Some(State::Kept));
    assert_eq!(house.quarantine.waiting().await.unwrap(), 0);
}

#[tokio::test]
async fn two_recipients_who_disagree_each_have_their_word() {
    let house = House::new().await;
    let kept =
        house.quarantine.put(letter(1, &["alice@example.org", "bob@example.org"]).arrival()).await.unwrap();
    let [alices, bobs] = kept.entries() else { panic!() };
    let alice = Scope::Recipient(address("alice@example.org"));
    let bob = Scope::Recipient(address("bob@example.org"));
    house.quarantine.act(&alice, alices, Action::Release, Some(&content()), NOW).await.unwrap();
    house.quarantine.act(&bob, bobs, Action::Confirm, Some(&content()), NOW).await.unwrap();
    assert_eq!(lessons(&house).await, (1, 0));
    house.quarantine.act(&bob, bobs, Action::Undo, None, NOW).await.unwrap();
    assert_eq!(lessons(&house).await, (0, 1));
}
