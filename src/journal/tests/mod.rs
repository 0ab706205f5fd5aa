//! The journal as the gateway uses it.

mod crash;
mod fault;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use time::OffsetDateTime;

use super::*;
use crate::mail::{Address, Client, Envelope, Mail};

/// Returns the envelope of transaction `number`.
pub(super) fn envelope(number: u8, recipients: &[&str]) -> Envelope {
    let address = |text: &str| Address::parse(text).unwrap();
    Envelope {
        id: TransactionId::from_random([number; 16]),
        direction: Direction::Inbound,
        client: Client::new("192.0.2.1:25".parse().unwrap()),
        mail: Mail { reverse_path: Some(address("sender@example.net")), ..Mail::default() },
        recipients: recipients.iter().map(|text| address(text).into()).collect(),
    }
}

/// A clock that stands still until it is moved.
#[derive(Clone)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn new() -> Self {
        Time(Arc::new(AtomicI64::new(1_000_000_000)))
    }

    fn pass(&self, duration: time::Duration) {
        self.0.fetch_add(duration.whole_seconds(), Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let time = self.clone();
        Arc::new(move || OffsetDateTime::from_unix_timestamp(time.0.load(Ordering::SeqCst)).unwrap())
    }
}

fn key() -> InstallationKey {
    InstallationKey::new([5; 32])
}

fn config() -> Config {
    Config { rest: std::time::Duration::ZERO, ..Config::default() }
}

fn open(folder: &Path) -> (Journal, Recovered) {
    Journal::open(folder, &key(), config(), Time::new().clock()).unwrap()
}

/// Ends a journal with everything on disk.
async fn close(journal: Journal) {
    journal.flush().await.unwrap();
}

/// The attempt of transaction `number` to send the message `body`.
fn attempt(journal: &Journal, number: u8, body: &str, recipients: &[&str]) -> (Attempt, Envelope) {
    let envelope = envelope(number, recipients);
    (journal.attempt(&envelope, &BodyHash::of(body.as_bytes())), envelope)
}

/// Says how it stands with each recipient of a message, in a letter: new, deciding, held.
fn standings(journal: &Journal, body: &str, recipients: &[&str]) -> String {
    let (attempt, _) = attempt(journal, 200, body, recipients);
    let letter = |standing: &Standing| match standing {
        Standing::New => 'n',
        Standing::Deciding(_) => 'd',
        Standing::Held(_) => 'h',
    };
    attempt.standings().iter().map(letter).collect()
}

fn causes(folder: &Path) -> Vec<String> {
    Ledger::new(folder).read().unwrap().into_iter().map(|line| line.cause).collect()
}

const A: &str = "a@example.org";
const B: &str = "b@example.org";
const C: &str = "c@example.org";

#[tokio::test]
async fn a_retry_is_answered_until_the_client_has_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let (mut first, envelope) = attempt(&journal, 1, "x", &[A, B]);
    first.begin(&envelope.recipients, Holder::NextHop).await;
    assert_eq!(standings(&journal, "x", &[A, B]), "dd");
    first.taken(&envelope.recipients[..1], Holder::NextHop).await.unwrap();
    first.taken(&envelope.recipients[1..], Holder::Quarantine).await.unwrap();
    drop(first);
    assert_eq!(standings(&journal, "x", &["a@Example.Org", C, B]), "hnh");
    assert_eq!(standings(&journal, "y", &[A, B]), "nn");

    let (retry, _) = attempt(&journal, 2, "x", &[A, B]);
    let [Standing::Held(a), Standing::Held(b)] = retry.standings() else { panic!("{retry:?}") };
    assert_eq!((a.holder(), b.holder()), (Holder::NextHop, Holder::Quarantine));
    assert_eq!(a.id(), &envelope.id);
    drop(retry);
    assert_eq!(standings(&journal, "x", &[A, B]), "hh", "an answer that was lost again");

    attempt(&journal, 3, "x", &[A]).0.settle();
    assert_eq!(standings(&journal, "x", &[A, B]), "nh", "only those who were answered are forgotten");
    assert!(causes(folder.path()).is_empty());
}

#[tokio::test]
async fn the_common_case_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    for number in 0..20 {
        let (mut attempt, envelope) = attempt(&journal, number, "x", &[A, B]);
        attempt.begin(&envelope.recipients, Holder::NextHop).await;
        attempt.taken(&envelope.recipients, Holder::NextHop).await.unwrap();
        attempt.settle();
    }
    assert_eq!(journal.shared().change(|state| state.live.all().count()), 0);
    close(journal).await;
    let (journal, recovered) = open(folder.path());
    assert!(recovered.unresolved.is_empty() && recovered.set_aside.is_none());
    assert_eq!(standings(&journal, "x", &[A, B]), "nn");
    let size = std::fs::metadata(folder.path().join("journal")).unwrap().len();
    assert_eq!(size, record::HEADER.len() as u64);
}

#[tokio::test]
async fn a_lost_reply_has_a_line_in_the_ledger_and_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let (mut lost, envelope) = attempt(&journal, 1, "x", &[A, B]);
    lost.begin(&envelope.recipients, Holder::NextHop).await;
    lost.doubtful(&envelope.recipients, Cause::ReplyLost).await;
    let lines = Ledger::new(folder.path()).read().unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].recipients, lines[0].id.as_str()), (2, envelope.id.as_str()));
    assert_eq!(standings(&journal, "x", &[A, B]), "dd", "the client has no answer yet");
    lost.answered(false).await;
    assert_eq!(standings(&journal, "x", &[A, B]), "nn");
    drop(lost);
    close(journal).await;
    let (_journal, recovered) = open(folder.path());
    assert!(recovered.unresolved.is_empty());
    assert_eq!(causes(folder.path()), [Cause::ReplyLost.as_sentence()]);
}

#[tokio::test]
async fn a_refused_recipient_is_nobodys_and_in_no_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let (mut refused, envelope) = attempt(&journal, 1, "x", &[A, B]);
    refused.begin(&envelope.recipients, Holder::NextHop).await;
    refused.taken(&envelope.recipients[..1], Holder::NextHop).await.unwrap();
    refused.refused(&envelope.recipients[1..]);
    drop(refused);
    assert_eq!(standings(&journal, "x", &[A, B]), "hn");
    close(journal).await;
    assert!(causes(folder.path()).is_empty());
}

#[tokio::test]
async fn a_session_that_ends_without_a_verdict_is_in_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let (mut cut, envelope) = attempt(&journal, 1, "x", &[A]);
    cut.begin(&envelope.recipients, Holder::NextHop).await;
    drop(cut);
    assert_eq!(standings(&journal, "x", &[A]), "n");
    // The ledger takes its lines in order, so what was dropped is there when this is.
    let (mut later, envelope) = attempt(&journal, 2, "y", &[A]);
    later.begin(&envelope.recipients, Holder::NextHop).await;
    later.doubtful(&envelope.recipients, Cause::ReplyLost).await;
    assert_eq!(causes(folder.path()), [Cause::SessionEnded, Cause::ReplyLost].map(Cause::as_sentence));
}

#[tokio::test]
async fn what_was_taken_answers_even_if_nobody_waited_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let (mut cut, envelope) = attempt(&journal, 1, "x", &[A]);
    cut.begin(&envelope.recipients, Holder::NextHop).await;
    let mut taking = Box::pin(cut.taken(&envelope.recipients, Holder::NextHop));
    let _polled_once = futures_util::FutureExt::now_or_never(taking.as_mut());
    drop(taking);
    drop(cut);
    assert_eq!(standings(&journal, "x", &[A]), "h");
}

#[tokio::test]
async fn a_death_without_a_verdict_is_resolved_by_what_the_quarantine_holds() {
    for (kept, expected) in [(true, "nhn"), (false, "nnn")] {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = open(folder.path());
        let (mut divided, envelope) = attempt(&journal, 1, "x", &[A, B]);
        divided.begin(&envelope.recipients[..1], Holder::NextHop).await;
        divided.begin(&envelope.recipients[1..], Holder::Quarantine).await;
        journal.flush().await.unwrap();
        let image = std::fs::read(folder.path().join("journal")).unwrap();

        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("journal"), image).unwrap();
        let (journal, mut recovered) = open(folder.path());
        assert_eq!(standings(&journal, "x", &[A, B, C]), "nnn");
        let unresolved = recovered.unresolved.pop().unwrap();
        assert!(recovered.unresolved.is_empty());
        assert_eq!((unresolved.id(), unresolved.direction()), (&envelope.id, Direction::Inbound));
        journal.resolve(unresolved, kept).await.unwrap();
        assert_eq!(standings(&journal, "x", &[A, B, C]), expected);
        assert_eq!(causes(folder.path()), [Cause::GatewayStopped.as_sentence()]);
        close(journal).await;
        let (journal, recovered) = open(folder.path());
        assert!(recovered.unresolved.is_empty());
        assert_eq!(standings(&journal, "x", &[A, B, C]), expected);
    }
}

#[tokio::test]
async fn the_oldest_fall_out_by_number_and_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let time = Time::new();
    let config = Config { max_entries: 3, ..config() };
    let (journal, _) = Journal::open(folder.path(), &key(), config, time.clock()).unwrap();
    for (number, body) in [(1, "1"), (2, "2"), (3, "3"), (4, "4")] {
        let (mut attempt, envelope) = attempt(&journal, number, body, &[A]);
        attempt.taken(&envelope.recipients, Holder::NextHop).await.unwrap();
        time.pass(time::Duration::days(1));
    }
    let all = |journal: &Journal| ["1", "2", "3", "4"].map(|body| standings(journal, body, &[A])).concat();
    assert_eq!(all(&journal), "nhhh");
    time.pass(time::Duration::days(2));
    assert_eq!(all(&journal), "nnhh", "the second is five days old now");
    close(journal).await;
    let (journal, _) = Journal::open(folder.path(), &key(), config, time.clock()).unwrap();
    assert_eq!(all(&journal), "nnhh");
}

#[tokio::test]
async fn a_message_for_many_counts_as_many() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { max_entries: 3, ..config() };
    let (journal, _) = Journal::open(folder.path(), &key(), config, Time::new().clock()).unwrap();
    for (number, body, recipients) in [(1, "1", &[A, B, C][..]), (2, "2", &[A])] {
        let (mut attempt, envelope) = attempt(&journal, number, body, recipients);
        attempt.begin(&envelope.recipients, Holder::NextHop).await;
        attempt.taken(&envelope.recipients, Holder::NextHop).await.unwrap();
        assert_eq!(standings(&journal, body, &[A]), "h");
    }
    assert_eq!(standings(&journal, "1", &[A, B, C]), "nnn");
    assert_eq!(standings(&journal, "2", &[A, B, C]), "hnn");
}

#[tokio::test]
async fn files_are_for_us_alone_and_name_nobody() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("data/journal");
    let (journal, _) = open(&folder);
    let (mut lost, envelope) = attempt(&journal, 1, "x", &[A]);
    lost.begin(&envelope.recipients, Holder::NextHop).await;
    lost.doubtful(&envelope.recipients, Cause::ReplyLost).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in ["journal", "ledger"] {
        assert_eq!(mode(&folder.join(name)), 0o600);
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(!text.contains("example"), "{text}");
    }
}
