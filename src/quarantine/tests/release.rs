use super::*;

async fn released(house: &House, number: u8) -> EntryId {
    let id = letter(number, &["alice@example.org"]).put(&house.quarantine).await;
    house.quarantine.act(&Scope::All, &id, Action::Release, None, NOW).await.unwrap();
    id
}

#[tokio::test]
async fn a_release_is_delivered_once() {
    let house = House::new().await;
    let id = released(&house, 1).await;
    let job = house.quarantine.claim_due(NOW, 10).await.unwrap().remove(0);
    assert_eq!(job.entry, id);
    assert_eq!(job.recipient, address("alice@example.org").into());
    assert_eq!(job.mail.reverse_path, Some(address("bounce@evil.example")));
    assert!(house.quarantine.claim_due(NOW, 10).await.unwrap().is_empty());
    assert!(house.quarantine.delivered(&job, NOW).await.unwrap());
    assert!(!house.quarantine.delivered(&job, NOW).await.unwrap());
    assert_eq!(state(&house.quarantine, &id).await, Some(State::Released));
    assert_eq!(house.quarantine.next_due().await.unwrap(), None);
    let again = house.quarantine.act(&Scope::All, &id, Action::Release, None, NOW).await.unwrap();
    assert_eq!(again, Outcome::AlreadyDone(State::Released));
    assert!(house.quarantine.claim_due(NOW + Duration::days(1), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_worker_that_dies_loses_its_lease_and_its_say() {
    let house = House::new().await;
    let id = released(&house, 1).await;
    let dead = house.quarantine.claim_due(NOW, 10).await.unwrap().remove(0);
    let later = NOW + LEASE;
    assert_eq!(house.quarantine.next_due().await.unwrap(), Some(later));
    let alive = house.quarantine.claim_due(later, 10).await.unwrap().remove(0);
    assert_eq!(house.quarantine.not_delivered(&dead, Failure::Permanent(550), later).await.unwrap(), None);
    assert!(house.quarantine.delivered(&alive, later).await.unwrap());
    assert_eq!(state(&house.quarantine, &id).await, Some(State::Released));
}

#[tokio::test]
async fn a_restart_ends_all_leases() {
    let house = House::new().await;
    released(&house, 1).await;
    house.quarantine.claim_due(NOW, 10).await.unwrap();
    let (quarantine, recovered) = house.reopened().await;
    assert_eq!(recovered.unleased, 1);
    assert_eq!(quarantine.claim_due(NOW, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_temporary_failure_is_tried_again_later() {
    let house = House::new().await;
    let id = released(&house, 1).await;
    let job = house.quarantine.claim_due(NOW, 10).await.unwrap().remove(0);
    let state = house.quarantine.not_delivered(&job, Failure::Temporary(451), NOW).await.unwrap();
    assert_eq!(state, Some(State::Releasing));
    assert!(house.quarantine.claim_due(NOW, 10).await.unwrap().is_empty());
    let entry = house.quarantine.find(&Scope::All, &id).await.unwrap().unwrap();
    let delivery = entry.delivery.unwrap();
    assert_eq!(delivery.last_failure, Some(Failure::Temporary(451)));
    assert_eq!(delivery.attempts, 1);
    let job = house.quarantine.claim_due(delivery.due_at, 10).await.unwrap().remove(0);
    assert_eq!(job.attempts, 1);
}

#[tokio::test]
async fn a_release_refused_for_good_can_be_released_again() {
    let house = House::new().await;
    let id = released(&house, 1).await;
    let job = house.quarantine.claim_due(NOW, 10).await.unwrap().remove(0);
    let failure = Failure::Permanent(550);
    assert_eq!(house.quarantine.not_delivered(&job, failure, NOW).await.unwrap(), Some(State::Failed));
    let entry = house.quarantine.find(&Scope::All, &id).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.failure), (State::Failed, Some(failure)));
    let outcome = house.quarantine.act(&Scope::All, &id, Action::Release, None, NOW).await.unwrap();
    assert_eq!(outcome, Outcome::Done(State::Releasing));
    let entry = house.quarantine.find(&Scope::All, &id).await.unwrap().unwrap();
    assert_eq!(entry.failure, None);
    assert_eq!(house.quarantine.claim_due(NOW, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_next_hop_that_stays_away_is_given_up_in_the_end() {
    let house = House::new().await;
    let id = released(&house, 1).await;
    let mut now = NOW;
    let mut attempts = 0;
    while let Some(due) = house.quarantine.next_due().await.unwrap() {
        now = due;
        let job = house.quarantine.claim_due(now, 1).await.unwrap().remove(0);
        house.quarantine.not_delivered(&job, Failure::Unreachable, now).await.unwrap();
        attempts += 1;
    }
    assert_eq!(attempts, 38);
    assert!(now > NOW + Duration::days(4));
    assert_eq!(state(&house.quarantine, &id).await, Some(State::Failed));
}

#[tokio::test]
async fn undo_does_not_call_back_a_delivery_under_way() {
    let house = House::new().await;
    let id = released(&house, 1).await;
    let job = house.quarantine.claim_due(NOW, 10).await.unwrap().remove(0);
    let outcome = house.quarantine.act(&Scope::All, &id, Action::Undo, None, NOW).await.unwrap();
    assert_eq!(outcome, Outcome::LessonTakenBack(State::Releasing));
    assert!(house.quarantine.delivered(&job, NOW).await.unwrap());
    assert_eq!(state(&house.quarantine, &id).await, Some(State::Released));
}

#[tokio::test]
async fn workers_at_once_never_share_a_job() {
    let house = House::new().await;
    for number in 0..20 {
        released(&house, number).await;
    }
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let quarantine = house.quarantine.clone();
            tokio::spawn(async move { quarantine.claim_due(NOW, 5).await.unwrap() })
        })
        .collect();
    let mut entries = Vec::new();
    for worker in workers {
        entries.extend(worker.await.unwrap().into_iter().map(|job| job.entry));
    }
    entries.sort();
    let claimed = entries.len();
    entries.dedup();
    assert_eq!((claimed, entries.len()), (20, 20));
}
