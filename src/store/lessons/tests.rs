//! The log of lessons against a real SQLite file: its lines, and the models that follow it.

use proptest::prelude::*;
use time::OffsetDateTime;

use super::{Bound, Forget, LayerName, LessonError, LessonLog, NewLesson, Taught, Teacher};
use crate::learn::{Base, Features, Label, MessageKey, Model};
use crate::privacy::{InstallationKey, PseudonymKey};
use crate::store::Records;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn new(message: u8, label: Label) -> NewLesson {
    let slots: Vec<u32> = (0..20).map(|n| u32::from(message % 5) * 7_919 + n * 1_000).collect();
    NewLesson {
        layers: vec![Taught::SHARED],
        message: MessageKey([message; 16]),
        label,
        features: Features::new([slots.clone(), slots.clone(), slots.clone(), slots, Vec::new()]),
        teacher: Teacher::Cli,
        learned_at: NOW,
    }
}

async fn open() -> (tempfile::TempDir, Records, LessonLog) {
    let folder = tempfile::tempdir().unwrap();
    let records = Records::open(&folder.path().join("records.sqlite")).await.unwrap();
    let log = LessonLog::new(&records);
    (folder, records, log)
}

async fn append(records: &Records, new: &NewLesson) -> i64 {
    LessonLog::append(&mut records.pool().acquire().await.unwrap(), new).await.unwrap()
}

async fn retract(records: &Records, sequence: i64) -> Result<bool, LessonError> {
    let mut connection = records.pool().acquire().await.unwrap();
    LessonLog::retract(&mut connection, sequence, &Teacher::Cli, NOW).await
}

/// Brings a model to the end of the log, from nothing where it does not stand any more.
async fn fold(log: &LessonLog, model: Model, batch: u32) -> Model {
    let disturbed = log.disturbed_after(model.sequence()).await.unwrap();
    let mut model =
        if disturbed.is_some_and(|oldest| oldest <= model.sequence()) { Model::new() } else { model };
    let end = log.last_sequence().await.unwrap();
    loop {
        let entries = log.in_force_after(model.sequence(), batch).await.unwrap();
        if entries.is_empty() {
            model.follow(end, None);
            return model;
        }
        for entry in &entries {
            model.follow(entry.sequence, Some(&entry.lesson));
        }
    }
}

/// Compares the log with the lessons that should be in force, in order.
async fn check(log: &LessonLog, expected: &[(u8, Label)]) {
    let found = log.in_force_after(0, 1_000).await.unwrap();
    let expected: Vec<(Label, Features)> =
        expected.iter().map(|(message, label)| (*label, new(*message, *label).features)).collect();
    let found: Vec<(Label, Features)> =
        found.into_iter().map(|entry| (entry.lesson.label, entry.lesson.features)).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_batch_leaves_out_what_is_known_and_relabels_what_changed() {
    let (_folder, _records, log) = open().await;
    let batch = [new(1, Label::Spam), new(2, Label::Ham), new(1, Label::Spam)];
    let appended = log.append_all(&batch).await.unwrap();
    assert_eq!((appended.learned, appended.relabelled, appended.already_known), (2, 0, 1));
    let appended =
        log.append_all(&[new(1, Label::Ham), new(2, Label::Ham), new(3, Label::Ham)]).await.unwrap();
    assert_eq!((appended.learned, appended.relabelled, appended.already_known), (1, 1, 1));
    check(&log, &[(2, Label::Ham), (1, Label::Ham), (3, Label::Ham)]).await;
    assert_eq!((log.count().await.unwrap(), log.last_sequence().await.unwrap()), (4, 4));
}

#[tokio::test]
async fn taking_a_lesson_back_revives_the_one_before() {
    let (_folder, records, log) = open().await;
    let first = append(&records, &new(1, Label::Spam)).await;
    let second = append(&records, &new(1, Label::Ham)).await;
    check(&log, &[(1, Label::Ham)]).await;
    assert!(retract(&records, second).await.unwrap());
    check(&log, &[(1, Label::Spam)]).await;
    assert!(retract(&records, first).await.unwrap());
    check(&log, &[]).await;
}

#[tokio::test]
async fn two_people_who_say_the_same_count_once_and_each_can_take_it_back() {
    let (_folder, records, log) = open().await;
    let alice = append(&records, &new(1, Label::Ham)).await;
    let bob = append(&records, &new(1, Label::Ham)).await;
    check(&log, &[(1, Label::Ham)]).await;
    assert!(retract(&records, alice).await.unwrap());
    check(&log, &[(1, Label::Ham)]).await;
    assert!(retract(&records, bob).await.unwrap());
    check(&log, &[]).await;
}

#[tokio::test]
async fn a_lesson_is_taken_back_once_and_only_if_it_exists() {
    let (_folder, records, log) = open().await;
    let sequence = append(&records, &new(1, Label::Spam)).await;
    assert!(retract(&records, sequence).await.unwrap());
    assert!(!retract(&records, sequence).await.unwrap());
    assert!(matches!(retract(&records, 99).await, Err(LessonError::Unknown(99))));
    assert!(matches!(retract(&records, 2).await, Err(LessonError::Unknown(2))), "a retraction is no lesson");
    assert_eq!(log.append_all(&[new(1, Label::Spam)]).await.unwrap().learned, 1);
}

#[tokio::test]
async fn a_transaction_that_fails_leaves_no_lesson() {
    let (_folder, records, log) = open().await;
    let mut transaction = records.pool().begin().await.unwrap();
    LessonLog::append(&mut transaction, &new(1, Label::Spam)).await.unwrap();
    transaction.rollback().await.unwrap();
    check(&log, &[]).await;
}

#[tokio::test]
async fn a_damaged_line_is_an_error() {
    let (_folder, records, log) = open().await;
    append(&records, &new(1, Label::Spam)).await;
    sqlx::query("UPDATE lessons SET features = x'ff'").execute(records.pool()).await.unwrap();
    assert!(matches!(log.in_force_after(0, 10).await, Err(LessonError::Features { sequence: 1, .. })));
}

#[tokio::test]
async fn what_is_forgotten_leaves_nothing_and_revives_nothing() {
    let (_folder, records, log) = open().await;
    let person = Teacher::Person(
        PseudonymKey::new(&InstallationKey::new([1; 32])).pseudonym("address", "ann@example.org"),
    );
    let by_person = |message, label| NewLesson { teacher: person.clone(), ..new(message, label) };
    append(&records, &new(1, Label::Spam)).await;
    append(&records, &by_person(1, Label::Ham)).await;
    append(&records, &by_person(2, Label::Ham)).await;
    let line = append(&records, &new(3, Label::Ham)).await;
    append(&records, &new(4, Label::Ham)).await;
    assert_eq!(log.forget(&Forget::Line(line), NOW).await.unwrap(), 1);
    check(&log, &[(1, Label::Ham), (2, Label::Ham), (4, Label::Ham)]).await;
    assert_eq!(log.forget(&Forget::Teacher(person.clone()), NOW).await.unwrap(), 2);
    check(&log, &[(1, Label::Spam), (4, Label::Ham)]).await;
    assert_eq!(log.forget(&Forget::Message(MessageKey([1; 16])), NOW).await.unwrap(), 1);
    check(&log, &[(4, Label::Ham)]).await;
    assert_eq!(log.forget(&Forget::Message(MessageKey([9; 16])), NOW).await.unwrap(), 0);
    // What names a person, a message or its words is wiped from every line.
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM lessons WHERE (sequence <> 5)
             AND (message <> zeroblob(16) OR teacher <> 'forgotten' OR length(features) > 60)",
    )
    .fetch_one(records.pool())
    .await
    .unwrap();
    assert_eq!(left, 0);
    let tally = log.tally().await.unwrap();
    assert_eq!(
        tally.iter().map(|row| (row.label, row.teacher.as_str(), row.lessons)).collect::<Vec<_>>(),
        [(Label::Ham, "cli", 1)]
    );
    assert!(log.disturbed_after(0).await.unwrap() == Some(1));
}

#[derive(Debug, Clone)]
enum Act {
    Append(u8, bool),
    Batch(Vec<(u8, bool)>),
    Retract(prop::sample::Index),
    Snapshot,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u8..6, any::<bool>()).prop_map(|(message, spam)| Act::Append(message, spam)),
        prop::collection::vec((0u8..6, any::<bool>()), 1..4).prop_map(Act::Batch),
        any::<prop::sample::Index>().prop_map(Act::Retract),
        Just(Act::Snapshot),
    ]
}

fn label(spam: bool) -> Label {
    if spam { Label::Spam } else { Label::Ham }
}

/// Follows the log through snapshots taken on the way, and beside it keeps the plain list of what was said.
async fn run(acts: Vec<Act>) {
    let (_folder, records, log) = open().await;
    let mut said: Vec<(i64, u8, Label)> = Vec::new();
    let mut followed = Model::new();
    for act in acts {
        match act {
            Act::Append(message, spam) => {
                let sequence = append(&records, &new(message, label(spam))).await;
                said.push((sequence, message, label(spam)));
            }
            Act::Batch(batch) => {
                for (message, spam) in batch {
                    let known = said.iter().rev().find(|line| line.1 == message).map(|line| line.2);
                    log.append_all(&[new(message, label(spam))]).await.unwrap();
                    if known != Some(label(spam)) {
                        said.push((log.last_sequence().await.unwrap(), message, label(spam)));
                    }
                }
            }
            Act::Retract(index) if !said.is_empty() => {
                let (sequence, ..) = said.remove(index.index(said.len()));
                assert!(retract(&records, sequence).await.unwrap());
            }
            Act::Retract(_) => {}
            Act::Snapshot => {
                followed = fold(&log, followed, 2).await;
                followed = Model::restore(&followed.snapshot()).unwrap();
            }
        }
    }
    let followed = fold(&log, followed, 2).await;
    assert!(followed == fold(&log, Model::new(), 1_000).await, "following and rebuilding agree");
    let last = |line: &&(i64, u8, Label)| said.iter().rev().find(|other| other.1 == line.1) == Some(*line);
    let in_force: Vec<(u8, Label)> = said.iter().filter(last).map(|line| (line.1, line.2)).collect();
    check(&log, &in_force).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_model_is_a_pure_function_of_the_log(acts in prop::collection::vec(act(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(acts));
    }
}

fn person(name: &str) -> LayerName {
    LayerName::Person(PseudonymKey::new(&InstallationKey::new([1; 32])).pseudonym("address", name))
}

fn own(message: u8, label: Label, layers: &[LayerName]) -> NewLesson {
    let base = Base { margins: [0.5, -1.0, 2.0], lessons: 7 };
    let taught = |layer: &LayerName| Taught { layer: layer.clone(), base };
    NewLesson { layers: layers.iter().map(taught).collect(), ..new(message, label) }
}

async fn labels(log: &LessonLog, layer: &LayerName) -> Vec<Label> {
    let entries = log.last_in_force(layer, 10).await.unwrap();
    entries.into_iter().map(|entry| entry.lesson.label).collect()
}

#[tokio::test]
async fn each_layer_has_its_own_word_about_a_message_and_an_act_is_taken_back_in_all_of_its_layers() {
    let (_folder, records, log) = open().await;
    let (ann, bob) = (person("ann"), person("bob"));
    append(&records, &own(1, Label::Spam, std::slice::from_ref(&ann))).await;
    append(&records, &own(1, Label::Ham, std::slice::from_ref(&bob))).await;
    let act = append(&records, &own(2, Label::Ham, &[bob.clone(), LayerName::Shared])).await;
    assert_eq!(labels(&log, &ann).await, [Label::Spam]);
    assert_eq!(labels(&log, &bob).await, [Label::Ham, Label::Ham]);
    check(&log, &[(2, Label::Ham)]).await;
    let base = log.last_in_force(&ann, 10).await.unwrap()[0].base;
    assert_eq!((base.margins, base.lessons), ([0.5, -1.0, 2.0], 7));
    assert_eq!(log.layers_after(0).await.unwrap().len(), 2);
    assert_eq!(log.layers_after(act + 1).await.unwrap(), Vec::<String>::new());
    let tally = log.tally().await.unwrap();
    let tally: Vec<_> = tally.iter().map(|row| (row.layer.as_str(), row.label, row.lessons)).collect();
    assert_eq!(tally, [("shared", Label::Ham, 1), ("person", Label::Ham, 2), ("person", Label::Spam, 1)]);
    assert!(retract(&records, act).await.unwrap());
    assert!(!retract(&records, act).await.unwrap());
    assert_eq!(labels(&log, &bob).await, [Label::Ham]);
    check(&log, &[]).await;
}

#[tokio::test]
async fn what_is_over_a_bound_leaves_and_the_base_stands_for_it() {
    let (_folder, records, log) = open().await;
    let ann = person("ann");
    for message in 0..10 {
        append(&records, &new(message, label(message % 2 == 0))).await;
        append(&records, &own(message, Label::Spam, std::slice::from_ref(&ann))).await;
    }
    // Of the lines that stay, some speak of lines that go.
    append(&records, &new(1, Label::Spam)).await;
    retract(&records, 3).await.unwrap();
    let bound = Bound { oldest: NOW, shared: 6, others: 4 };
    let cut = log.outgrown(&bound).await.unwrap().unwrap();
    let end = log.last_sequence().await.unwrap();
    // Something before the cut was taken back after the model was folded.
    assert_eq!(log.rebase(cut, end - 2, b"a model").await.unwrap(), 0);
    assert_eq!(log.rebase(cut, end, b"a model").await.unwrap(), 6);
    assert_eq!(log.base().await.unwrap().unwrap(), b"a model");
    assert_eq!(log.outgrown(&bound).await.unwrap(), None);
    check(&log, &[(6, Label::Spam), (7, Label::Ham), (8, Label::Spam), (9, Label::Ham), (1, Label::Spam)])
        .await;
    assert_eq!(log.trim_layers(&bound).await.unwrap(), 6);
    assert_eq!(labels(&log, &ann).await.len(), 4);
    let later = Bound { oldest: NOW + time::Duration::SECOND, ..bound };
    assert_eq!(log.outgrown(&later).await.unwrap(), Some(log.last_sequence().await.unwrap()));
    assert_eq!(log.trim_layers(&later).await.unwrap(), 4);
}
