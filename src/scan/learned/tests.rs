//! The learned models over real stores: what is in service follows the log, and survives its snapshot.

use std::sync::Arc;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::{By, Learned, Sharing};
use crate::learn::{Label, MessageKey, Model};
use crate::mail::{Address, Recipient};
use crate::message::parse;
use crate::privacy::InstallationKey;
use crate::store::{
    Bound, Forget, LessonLog, Memory, NewLesson, Records, State, StateError, Taught, Teacher,
};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

struct House {
    folder: tempfile::TempDir,
    records: Records,
    state: Arc<Memory>,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("records.sqlite")).await.unwrap();
        House { folder, records, state: Arc::new(Memory::default()) }
    }

    async fn open(&self) -> Learned {
        self.open_with(Arc::clone(&self.state) as Arc<dyn State>).await
    }

    async fn open_with(&self, state: Arc<dyn State>) -> Learned {
        Learned::open(&self.records, state, &InstallationKey::new([4; 32])).await.unwrap()
    }
}

fn mails(subject: &str, text: &str, count: usize) -> Vec<Bytes> {
    (0..count)
        .map(|n| format!("From: a@example.org\r\nSubject: {subject}\r\n\r\n{text} {n}\r\n").into())
        .collect()
}

async fn teach(learned: &Learned, count: usize) {
    for (label, subject, text) in [
        (Label::Spam, "Claim your prize", "You won lottery money, send bank details"),
        (Label::Ham, "Minutes", "We talked about the agenda on Tuesday"),
    ] {
        learned.learn(label, mails(subject, text, count), &By::All(Teacher::Cli), NOW).await.unwrap();
    }
}

/// Compares the model in service with one folded from the whole log.
async fn check(house: &House, model: &Model) {
    let log = LessonLog::new(&house.records);
    let mut expected = Model::new();
    for entry in &log.in_force_after(0, 1_000).await.unwrap() {
        expected.follow(entry.sequence, Some(&entry.lesson));
    }
    expected.follow(log.last_sequence().await.unwrap(), None);
    assert!(*model == expected);
}

#[tokio::test]
async fn a_model_learns_and_judges() {
    let house = House::new().await;
    let learned = house.open().await;
    let message = parse(b"Subject: Claim your prize\r\n\r\nlottery money, send bank details\r\n");
    let judge = || learned.model().judge(&learned.extract(&message, None));
    assert_eq!(judge(), None);
    teach(&learned, 60).await;
    let model = learned.load().await.unwrap();
    assert_eq!(model.lessons(), (60, 60));
    let finding = judge().unwrap().finding();
    assert_eq!(finding.symbol.as_str(), "BAYES_SPAM");
    check(&house, &model).await;
}

#[tokio::test]
async fn a_snapshot_saves_the_fold_and_changes_nothing() {
    let house = House::new().await;
    let learned = house.open().await;
    teach(&learned, 10).await;
    learned.load().await.unwrap();
    learned.store().await.unwrap();
    let second = house.open().await;
    assert_eq!(second.model().lessons(), (10, 10), "the snapshot is in service at once");
    second.learn(Label::Spam, mails("More", "of it", 5), &By::All(Teacher::Cli), NOW).await.unwrap();
    let model = second.load().await.unwrap();
    assert_eq!(model.lessons(), (10, 15));
    check(&house, &model).await;
}

#[tokio::test]
async fn a_useless_snapshot_is_folded_again() {
    let house = House::new().await;
    let learned = house.open().await;
    teach(&learned, 5).await;
    learned.load().await.unwrap();
    learned.store().await.unwrap();
    let good = house.state.get("model").unwrap().unwrap();
    let mut of_another_log = good.clone();
    of_another_log[3] ^= 1;
    let mut damaged = good.clone();
    damaged[50] ^= 1;
    let mut older_format = good.clone();
    older_format[23] = 1;
    for bad in [of_another_log, damaged, older_format, good[..10].to_vec(), Vec::new()] {
        house.state.put("model", &bad).unwrap();
        let learned = house.open().await;
        assert_eq!(learned.model().lessons(), (0, 0));
        check(&house, &learned.load().await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_snapshot_that_is_ahead_of_the_log_is_not_used() {
    let house = House::new().await;
    let learned = house.open().await;
    teach(&learned, 5).await;
    learned.load().await.unwrap();
    learned.store().await.unwrap();
    let restored = House { state: house.state, ..House::new().await };
    assert!(restored.folder.path().exists());
    assert_eq!(restored.open().await.model().sequence(), 0);
}

struct Broken;

impl State for Broken {
    fn get(&self, _: &str) -> Result<Option<Vec<u8>>, StateError> {
        Err(StateError::Panicked)
    }

    fn put(&self, _: &str, _: &[u8]) -> Result<(), StateError> {
        Err(StateError::Panicked)
    }

    fn remove(&self, _: &str) -> Result<(), StateError> {
        Err(StateError::Panicked)
    }
}

#[tokio::test]
async fn a_broken_state_store_does_not_stop_learning() {
    let house = House::new().await;
    let learned = house.open_with(Arc::new(Broken)).await;
    teach(&learned, 5).await;
    assert!(learned.store().await.is_ok(), "nothing was folded yet");
    check(&house, &learned.load().await.unwrap()).await;
    assert!(learned.store().await.is_err());
}

#[tokio::test]
async fn the_follower_takes_up_lessons_and_leaves_a_snapshot() {
    let house = House::new().await;
    let learned = house.open().await;
    teach(&learned, 3).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let follower = learned.clone();
    let task = tokio::spawn(async move {
        follower
            .follow(async {
                drop(stopped.await);
            })
            .await;
    });
    while learned.model().lessons() != (3, 3) {
        tokio::task::yield_now().await;
    }
    // Another process appends; a notice makes the follower look.
    let other = house.open_with(Arc::new(Memory::default())).await;
    teach(&other, 6).await;
    learned.notify();
    while learned.model().lessons() != (6, 6) {
        tokio::task::yield_now().await;
    }
    stop.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(house.open().await.model().lessons(), (6, 6));
}

#[tokio::test]
async fn a_lesson_taken_back_leaves_the_model_in_service() {
    let house = House::new().await;
    let learned = house.open().await;
    teach(&learned, 4).await;
    learned.load().await.unwrap();
    let message = parse(b"Subject: one more\r\n\r\nwords\r\n");
    let lesson = NewLesson {
        layers: vec![Taught::SHARED],
        message: MessageKey::of(&message, learned.key()),
        label: Label::Ham,
        features: learned.extract(&message, None).features,
        teacher: Teacher::Cli,
        learned_at: NOW,
    };
    let mut connection = house.records.pool().acquire().await.unwrap();
    let sequence = LessonLog::append(&mut connection, &lesson).await.unwrap();
    assert_eq!(learned.load().await.unwrap().lessons(), (5, 4));
    LessonLog::retract(&mut connection, sequence, &Teacher::Automatic, NOW).await.unwrap();
    drop(connection);
    let model = learned.load().await.unwrap();
    assert_eq!(model.lessons(), (4, 4));
    check(&house, &model).await;
}

#[tokio::test]
async fn what_is_forgotten_is_folded_from_the_newest_snapshot_that_stands() {
    let house = House::new().await;
    let learned = house.open().await;
    teach(&learned, 4).await;
    learned.load().await.unwrap();
    learned.store().await.unwrap();
    // A snapshot of before is of use; one of after holds what is forgotten, and is passed over.
    house.state.put("model-10000", &house.state.get("model").unwrap().unwrap()).unwrap();
    learned.learn(Label::Spam, mails("More", "of it", 3), &By::All(Teacher::Cli), NOW).await.unwrap();
    let end = learned.load().await.unwrap().sequence();
    learned.store().await.unwrap();
    assert_eq!(learned.forget(&Forget::Line(end - 1), NOW).await.unwrap(), 1);
    let model = learned.load().await.unwrap();
    assert_eq!(model.lessons(), (4, 6));
    check(&house, &model).await;
    assert_eq!(house.open().await.model().lessons(), (4, 4), "the older snapshot is in service at once");
    let rebuilt = learned.rebuild().await.unwrap();
    assert!(rebuilt == model);
    assert_eq!(house.state.get("model-10000").unwrap(), None);
    assert_eq!(house.open().await.model().lessons(), (4, 6));
}

#[tokio::test]
async fn the_audit_finds_the_lesson_that_all_others_contradict() {
    let house = House::new().await;
    let learned = house.open().await;
    teach(&learned, 40).await;
    let wrong = mails("Claim your prize", "You won lottery money, send bank details, number", 1);
    learned.learn(Label::Ham, wrong, &By::All(Teacher::Cli), NOW).await.unwrap();
    let found = learned.audit(3).await.unwrap();
    assert_eq!(
        found.first().map(|lesson| (lesson.sequence, lesson.label)),
        Some((81, Label::Ham)),
        "{found:?}"
    );
    assert!(found.len() <= 3 && found.is_sorted_by(|a, b| a.by >= b.by));
}

#[tokio::test]
async fn a_report_teaches_others_of_which_nobody_spoke_for_a_day() {
    let house = House::new().await;
    let learned = house.open().await;
    teach(&learned, 5).await;
    learned.load().await.unwrap();
    let scanned = |subject: &str| {
        let raw = format!("From: b@example.org\r\nSubject: {subject}\r\n\r\nWe talked about the agenda\r\n");
        let message = Arc::new(parse(raw.as_bytes()));
        let extracted = learned.extract(&message, None);
        let score = learned.model().judge(&extracted).unwrap().score;
        let judged = Some(crate::scan::Judged { score, features: Arc::new(extracted.features), sure: None });
        crate::scan::Scanned { message, judged, ..crate::scan::Scanned::exempt() }
    };
    let implied = async || {
        let tally = learned.log().tally().await.unwrap();
        tally
            .iter()
            .filter(|row| row.teacher == "implied")
            .map(|row| (row.label, row.lessons))
            .collect::<Vec<_>>()
    };
    let key = |scanned: &crate::scan::Scanned| crate::learn::MessageKey::of(&scanned.message, learned.key());
    let later = NOW + time::Duration::days(2);
    let reported: Vec<_> = ["one", "two", "three", "four"].map(scanned).into_iter().collect();
    reported.iter().for_each(|scanned| learned.remember(scanned, false, NOW));
    learned.remember(&scanned("young"), false, later);
    let [first, second, ..] = &reported[..] else { unreachable!("there are four") };
    // It was delivered, and that was right; it is not known; it is too early.
    learned.imply(key(first), Label::Ham, later).await.unwrap();
    learned.imply(key(&scanned("never seen")), Label::Spam, later).await.unwrap();
    learned.remember(first, false, NOW);
    learned.imply(key(first), Label::Spam, NOW + time::Duration::hours(20)).await.unwrap();
    assert_eq!(implied().await, []);
    // Three are left that are old enough, and one of them is the one reported.
    learned.imply(key(second), Label::Spam, later).await.unwrap();
    assert_eq!(implied().await, [(Label::Ham, 2)]);
    let model = learned.load().await.unwrap();
    assert_eq!(model.lessons(), (5, 5), "they are no lessons that somebody gave");
    check(&house, &model).await;
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// How a message is judged for somebody; `None` where they have no layer.
async fn judged_for(learned: &Learned, person: &str, raw: &[u8]) -> Option<f64> {
    let recipients: Vec<Recipient> = vec![address(person).into()];
    let apart = learned.layers_of(&recipients).await.unwrap().pop()?;
    let extracted = learned.extract(&parse(raw), None);
    let model = learned.model();
    Some(model.judge_for(&extracted, &model.hear(&extracted.features), &apart.layers).unwrap().score)
}

#[tokio::test]
async fn what_a_person_teaches_is_theirs_unless_policy_shares_it() {
    let message =
        b"From: a@example.org\r\nSubject: Minutes\r\n\r\nWe talked about the agenda on Tuesday 99\r\n";
    for (sharing, others) in [(Sharing::Person, 0), (Sharing::Organisation, 1), (Sharing::Everyone, 2)] {
        let house = House::new().await;
        let learned = house.open().await;
        teach(&learned, 30).await;
        let before = learned.load().await.unwrap();
        let shared = |model: &Model| model.judge(&learned.extract(&parse(message), None)).unwrap().score;
        let was = shared(&before);
        assert!(was < -2.0 && judged_for(&learned, "ann@example.org", message).await.is_none());
        let by = By::Person(address("Ann@example.org"), sharing);
        // Ann does not want what all others want.
        let unwanted = mails("Minutes", "We talked about the agenda on Tuesday", 20);
        learned.learn(Label::Spam, unwanted, &by, NOW).await.unwrap();
        let after = learned.load().await.unwrap();
        let ann = judged_for(&learned, "ann@example.org", message).await.unwrap();
        assert!(ann > 2.0, "{sharing:?}: {ann}");
        let bob = judged_for(&learned, "bob@example.org", message).await;
        assert_eq!(bob.is_some(), others >= 1, "{sharing:?}");
        assert!(bob.is_none_or(|bob| bob > was + 2.0));
        assert!(judged_for(&learned, "carl@example.net", message).await.is_none());
        assert_eq!(shared(&after) > was, others == 2, "{sharing:?}");
        // Taking it back leaves nothing, in whatever layers it was; and a layer is the same after a restart.
        let reopened = house.open().await;
        reopened.load().await.unwrap();
        assert_eq!(judged_for(&reopened, "ann@example.org", message).await, Some(ann));
        let person = Forget::Teacher(learned.teacher(&address("ann@example.org")));
        assert_eq!(learned.forget(&person, NOW).await.unwrap(), 20 * (others + 1));
        let after = learned.load().await.unwrap();
        assert_eq!(shared(&after), was);
        let empty = judged_for(&learned, "ann@example.org", message).await.unwrap();
        assert!((empty - was).abs() < 1e-5, "{empty} {was}");
    }
}

#[tokio::test]
async fn a_person_alone_teaches_an_empty_installation_for_themselves() {
    let house = House::new().await;
    let learned = house.open().await;
    let by = By::Person(address("ann@example.org"), Sharing::Person);
    for (label, subject, text) in
        [(Label::Spam, "Claim your prize", "You won lottery money"), (Label::Ham, "Minutes", "We talked")]
    {
        learned.learn(label, mails(subject, text, 20), &by, NOW).await.unwrap();
    }
    assert_eq!(learned.load().await.unwrap().lessons(), (0, 0));
    let judge = async |text: &str| {
        let raw = format!("From: a@example.org\r\nSubject: {text}\r\n\r\n{text}\r\n");
        judged_for(&learned, "ann@example.org", raw.as_bytes()).await.unwrap()
    };
    assert!(judge("Claim your prize").await > 2.0 && judge("Minutes").await < -2.0);
}

#[tokio::test]
async fn what_leaves_the_log_stays_learned() {
    let house = House::new().await;
    let learned = house.open().await;
    teach(&learned, 30).await;
    let whole = learned.load().await.unwrap();
    let bound = Bound { oldest: NOW, shared: 20, others: 10 };
    assert_eq!(learned.bound(&bound).await.unwrap(), 40);
    assert_eq!(learned.log().count().await.unwrap(), 20);
    assert_eq!(learned.bound(&bound).await.unwrap(), 0);
    // The model is the same, folded from the base and the lines that are left, with or without its snapshots.
    for state in [Arc::clone(&house.state), Arc::new(Memory::default())] {
        let reopened = house.open_with(state).await;
        assert!(*reopened.load().await.unwrap() == *whole);
        assert!(*reopened.rebuild().await.unwrap() == *whole);
    }
    teach(&learned, 31).await;
    let more = learned.load().await.unwrap();
    assert_eq!(more.lessons(), (41, 31 + 30), "who comes again after leaving counts again");
    assert_eq!(learned.bound(&Bound { oldest: NOW, shared: 5, others: 5 }).await.unwrap(), 57);
    assert!(*house.open_with(Arc::new(Memory::default())).await.load().await.unwrap() == *more);
    // A base that cannot be read is left out, and said in the log; the rest is folded.
    sqlx::query("UPDATE lesson_base SET model = x'00'").execute(house.records.pool()).await.unwrap();
    let left = house.open_with(Arc::new(Memory::default())).await.load().await.unwrap();
    assert_eq!(left.lessons(), (5, 0));
}
