//! What a journal is after its process or its machine died, or its file was damaged.

use proptest::prelude::*;

use super::fault::Faulty;
use super::*;

/// What is known after a prefix of the file: its length, and how it stands with A and B of x, and with C of y.
struct Mark {
    bytes: usize,
    x: String,
    y: String,
}

async fn mark(journal: &Journal, path: &Path) -> Mark {
    journal.flush().await.unwrap();
    let state = |body, recipients: &[&str]| standings(journal, body, recipients).replace('d', "n");
    Mark { bytes: std::fs::read(path).unwrap().len(), x: state("x", &[A, B]), y: state("y", &[C]) }
}

/// Writes a journal whose every step is one line.
async fn written(folder: &Path) -> (Vec<u8>, Vec<Mark>) {
    let (journal, _) = open(folder);
    let path = folder.join("journal");
    let mut marks = vec![mark(&journal, &path).await];
    let (mut x, of_x) = attempt(&journal, 1, "x", &[A, B]);
    x.begin(&of_x.recipients, Holder::NextHop).await;
    marks.push(mark(&journal, &path).await);
    x.taken(&of_x.recipients[..1], Holder::NextHop).await.unwrap();
    marks.push(mark(&journal, &path).await);
    x.refused(&of_x.recipients[1..]);
    marks.push(mark(&journal, &path).await);
    let (mut y, of_y) = attempt(&journal, 2, "y", &[C]);
    y.begin(&of_y.recipients, Holder::Quarantine).await;
    marks.push(mark(&journal, &path).await);
    y.taken(&of_y.recipients, Holder::Quarantine).await.unwrap();
    marks.push(mark(&journal, &path).await);
    x.settle();
    marks.push(mark(&journal, &path).await);
    let (mut again, of_again) = attempt(&journal, 3, "x", &[A, B]);
    again.taken(&of_again.recipients[1..], Holder::NextHop).await.unwrap();
    marks.push(mark(&journal, &path).await);
    y.settle();
    marks.push(mark(&journal, &path).await);
    drop(again);
    (std::fs::read(path).unwrap(), marks)
}

#[tokio::test]
async fn a_journal_cut_at_any_byte_is_the_journal_of_its_last_whole_line() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, marks) = written(folder.path()).await;
    let last = marks.last().unwrap();
    assert_eq!((last.bytes, last.x.as_str(), last.y.as_str()), (bytes.len(), "nh", "n"));
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("journal");
    for cut in 0..=bytes.len() {
        std::fs::write(&file, &bytes[..cut]).unwrap();
        let mut live = Live::new(config().max_entries, config().max_age);
        assert!(!disk::replay(&file, &mut live).unwrap(), "cut at {cut}");
        let (disk, ledger) = (Arc::new(Faulty::default()), Ledger::new(scratch.path()));
        let (journal, _) = Journal::start(live, disk, ledger, &key(), config(), Time::new().clock()).unwrap();
        let expected = marks.iter().rev().find(|mark| mark.bytes <= cut).unwrap_or(&marks[0]);
        assert_eq!(standings(&journal, "x", &[A, B]), expected.x, "cut at {cut}");
        assert_eq!(standings(&journal, "y", &[C]), expected.y, "cut at {cut}");
    }
}

/// Returns every line that says what a journal of these lines holds, in one order.
fn replayed(lines: &[u8]) -> Vec<Vec<u8>> {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("journal");
    std::fs::write(&file, [record::HEADER, lines].concat()).unwrap();
    let mut live = Live::new(100, config().max_age);
    assert!(!disk::replay(&file, &mut live).unwrap());
    let mut content = Vec::new();
    live.write_page(0, usize::MAX, &mut content);
    let mut lines: Vec<_> = content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    lines
}

fn any_record() -> impl Strategy<Value = Record> {
    let recipients = prop::sample::subsequence(vec![1, 2, 3], 1..=3)
        .prop_map(|numbers| numbers.into_iter().map(RecipientKey).collect::<Vec<_>>());
    (0u8..3, 0..4, any::<bool>(), recipients).prop_map(|(number, kind, kept, recipients)| {
        let id = TransactionId::from_random([number; TransactionId::LEN]);
        let stage = match kind {
            0 => Stage::Pending,
            1 => Stage::Taken,
            2 => return Record::Forgotten { id, recipients: Some(recipients) },
            _ => return Record::Forgotten { id, recipients: None },
        };
        let key = key::MessageKey(u128::from(number));
        let head = record::Head { at: 1, direction: Direction::Inbound, key, id };
        let holder = if kept { Holder::Quarantine } else { Holder::NextHop };
        Record::Noted { head, stage, holder, recipients }
    })
}

proptest! {
    #[test]
    fn lines_that_a_rewritten_file_holds_already_change_nothing(
        records in prop::collection::vec(any_record(), 1..12),
        places in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let (a, b) = (places.0.index(records.len() + 1), places.1.index(records.len() + 1));
        let (queued, taken_down) = (a.min(b), a.max(b));
        let lines = |records: &[Record]| {
            let mut out = Vec::new();
            records.iter().for_each(|record| record.write(&mut out));
            out
        };
        let mut rewritten = replayed(&lines(&records[..taken_down])).concat();
        rewritten.extend(lines(&records[queued..]));
        prop_assert_eq!(replayed(&rewritten), replayed(&lines(&records)));
    }
}

#[tokio::test]
async fn a_damaged_journal_is_set_aside_and_its_whole_lines_count() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, marks) = written(folder.path()).await;
    let whole = |from: &Mark, to: &Mark| from.bytes..to.bytes;
    // The line that says that A was taken, the one that says so of B at the end, and the header.
    let taken = whole(&marks[1], &marks[2]);
    for (place, x) in [(taken.start + 20, "nh"), (marks[7].bytes - 20, "nn"), (3, "nh")] {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("journal"), &damaged).unwrap();
        let (journal, recovered) = open(folder.path());
        let aside = recovered.set_aside.expect("it is damaged");
        assert_eq!(aside.file_name().unwrap(), "journal.damaged-20010909T014640Z");
        assert_eq!(std::fs::read(aside).unwrap(), damaged);
        assert_eq!(standings(&journal, "x", &[A, B]), x, "{place}");
        close(journal).await;
        assert_eq!(open(folder.path()).1.set_aside, None);
    }
}

#[tokio::test]
async fn anything_at_all_in_the_file_is_survived() {
    let zeros = vec![0; 5000];
    let lines = b"\n".repeat(5000);
    let noise: Vec<u8> = (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for content in [&zeros[..], &lines, &noise, b"lazaret journal 2\nwhat the next version writes\n"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("journal"), content).unwrap();
        let (journal, recovered) = open(folder.path());
        assert!(recovered.set_aside.is_some() && recovered.unresolved.is_empty());
        let (mut attempt, envelope) = attempt(&journal, 1, "x", &[A]);
        attempt.taken(&envelope.recipients, Holder::NextHop).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_file_is_written_anew_with_what_is_live() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let config = Config { max_file_bytes: 4000, ..config() };
    let (journal, _) = Journal::open(folder.path(), &key(), config, Time::new().clock()).unwrap();
    let (mut live, envelope) = attempt(&journal, 1, "live", &[A, B]);
    live.begin(&envelope.recipients, Holder::NextHop).await;
    live.taken(&envelope.recipients[..1], Holder::NextHop).await.unwrap();
    for number in 2..150 {
        let (mut attempt, envelope) = attempt(&journal, number, "x", &[A]);
        attempt.begin(&envelope.recipients, Holder::NextHop).await;
        attempt.taken(&envelope.recipients, Holder::NextHop).await.unwrap();
        attempt.settle();
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size <= 4000, "{size}");
    }
    journal.flush().await.unwrap();
    let image = std::fs::read(&path).unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("journal"), image).unwrap();
    let (reopened, recovered) = open(other.path());
    assert_eq!(standings(&reopened, "live", &[A, B]), "hn");
    assert_eq!(standings(&reopened, "x", &[A]), "n");
    assert_eq!(recovered.unresolved.len(), 1);
    assert_eq!(recovered.unresolved[0].id(), &envelope.id);
}
