use super::*;

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
