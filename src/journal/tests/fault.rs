//! A disk that fails, hangs, or keeps only what was synced.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::*;

/// A disk in memory.
#[derive(Default)]
pub(super) struct Faulty {
    state: Mutex<State>,
    /// A sync takes a token from here first, if there is one.
    gate: Option<Mutex<Receiver<()>>>,
    /// And an append from here.
    append_gate: Option<Mutex<Receiver<()>>>,
}

#[derive(Default)]
struct State {
    content: Vec<u8>,
    /// What a power cut leaves.
    durable: Vec<u8>,
    fails: Option<Step>,
    syncs: usize,
    /// Appends by a session itself, and by the writing thread.
    appends: (usize, usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Append,
    Sync,
    Everything,
}

impl Faulty {
    fn gated() -> (Self, SyncSender<()>) {
        let (open, gate) = sync_channel(100);
        (Faulty { gate: Some(Mutex::new(gate)), ..Faulty::default() }, open)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fail(&self, step: Option<Step>) {
        self.change(|state| state.fails = step);
    }
}

impl State {
    fn check(&self, steps: &[Step]) -> io::Result<()> {
        match self.fails {
            Some(step) if steps.contains(&step) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            _ => Ok(()),
        }
    }
}

impl Disk for Faulty {
    fn replace(&self, content: &[u8]) -> io::Result<()> {
        self.change(|state| {
            state.check(&[Step::Everything])?;
            state.content = content.to_vec();
            state.durable = content.to_vec();
            Ok(())
        })
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(gate) = &self.append_gate {
            let _opened = gate.lock().unwrap().recv();
        }
        let is_by_thread = std::thread::current().name() == Some("journal-write");
        self.change(|state| {
            *(if is_by_thread { &mut state.appends.1 } else { &mut state.appends.0 }) += 1;
            let written = state.check(&[Step::Append, Step::Everything]);
            // A full disk takes what still fits.
            let fits = if written.is_err() { bytes.len() / 2 } else { bytes.len() };
            state.content.extend_from_slice(&bytes[..fits]);
            written
        })
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(gate) = &self.gate {
            // Without a test that holds it, the gate is open.
            let _opened = gate.lock().unwrap().recv();
        }
        self.change(|state| {
            state.syncs += 1;
            let synced = state.check(&[Step::Sync, Step::Everything]);
            if synced.is_ok() {
                state.durable = state.content.clone();
            }
            synced
        })
    }
}

fn start(disk: &Arc<Faulty>, ledger: &Path, config: Config) -> Journal {
    let live = Live::new(config.max_entries, config.max_age);
    let disk: Arc<dyn Disk> = disk.clone();
    Journal::start(live, disk, Ledger::new(ledger), &key(), config, Time::new().clock()).unwrap().0
}

/// Says how it stands with A of each message after a power cut.
fn after_a_power_cut(disk: &Faulty, bodies: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("journal"), disk.change(|state| state.durable.clone())).unwrap();
    let (journal, recovered) = open(folder.path());
    assert_eq!(recovered.set_aside, None);
    bodies.iter().map(|body| standings(&journal, body, &[A])).collect()
}

#[tokio::test]
async fn a_failing_disk_is_an_error_and_the_next_writing_mends_the_file() {
    for step in [Step::Append, Step::Sync, Step::Everything] {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Faulty::default());
        let journal = start(&disk, folder.path(), config());
        let take = async |number, body| {
            let (mut attempt, envelope) = attempt(&journal, number, body, &[A]);
            attempt.begin(&envelope.recipients, Holder::NextHop).await;
            attempt.taken(&envelope.recipients, Holder::NextHop).await
        };
        take(1, "1").await.unwrap();
        disk.fail(Some(step));
        let (mut failing, envelope) = attempt(&journal, 2, "2", &[A]);
        let error = failing.taken(&envelope.recipients, Holder::NextHop).await.unwrap_err();
        assert!(matches!(error, Error::Write(_) | Error::Sync(_)), "{step:?}: {error}");
        drop(failing);
        assert_eq!(standings(&journal, "2", &[A]), "h", "{step:?}: this process remembers");
        assert_eq!(after_a_power_cut(&disk, &["1", "2"]), "hn", "{step:?}");
        if step == Step::Everything {
            take(3, "3").await.unwrap_err();
        }
        disk.fail(None);
        take(4, "4").await.unwrap();
        assert_eq!(after_a_power_cut(&disk, &["1", "2", "4"]), "hhh", "{step:?}");
        take(5, "5").await.unwrap();
        assert_eq!(after_a_power_cut(&disk, &["1", "2", "4", "5"]), "hhhh", "{step:?}");
    }
}

#[tokio::test]
async fn a_failing_disk_is_left_alone_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let config = Config { rest: std::time::Duration::from_secs(3600), ..config() };
    let journal = start(&disk, folder.path(), config);
    disk.fail(Some(Step::Append));
    for (number, body) in [(1, "1"), (2, "2")] {
        let (mut attempt, envelope) = attempt(&journal, number, body, &[A]);
        attempt.begin(&envelope.recipients, Holder::NextHop).await;
        attempt.taken(&envelope.recipients, Holder::NextHop).await.unwrap_err();
        disk.fail(None);
    }
}

#[tokio::test]
async fn many_wait_for_one_sync_and_no_write_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, open) = Faulty::gated();
    let disk = Arc::new(disk);
    let journal = start(&disk, folder.path(), config());
    let mut attempts: Vec<_> = (0..64).map(|number| attempt(&journal, number, "x", &[A])).collect();
    let (mut first, of_first) = attempts.pop().unwrap();
    let (mut last, of_last) = attempts.pop().unwrap();
    let first = first.taken(&of_first.recipients, Holder::NextHop);
    let others = futures_util::future::join_all(
        attempts.iter_mut().map(|(attempt, envelope)| attempt.taken(&envelope.recipients, Holder::NextHop)),
    );
    let opening = async {
        // Queued after all of the others, and written without waiting for the sync that is stuck.
        last.begin(&of_last.recipients, Holder::NextHop).await;
        assert_eq!(disk.change(|state| state.syncs), 0);
        for _ in 0..2 {
            open.send(()).unwrap();
        }
    };
    let (first, others, ()) = futures_util::join!(first, others, opening);
    assert!(first.is_ok() && others.iter().all(Result::is_ok));
    assert!(disk.change(|state| state.syncs) <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_blocks_nobody_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, _open) = Faulty::gated();
    let disk = Arc::new(disk);
    let journal = start(&disk, folder.path(), config());
    let (mut stuck, envelope) = attempt(&journal, 1, "x", &[A]);
    let error = stuck.taken(&envelope.recipients, Holder::NextHop).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut), "{error}");
    stuck.settle();
    assert_eq!(standings(&journal, "x", &[A]), "n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_many_sessions_were_promised_survives_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    // Small, so that the file is written anew all the time.
    let config = Config { max_file_bytes: 3000, ..config() };
    let journal = start(&disk, folder.path(), config);
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (journal, disk) = (journal.clone(), Arc::clone(&disk));
        sessions.spawn(async move {
            for round in 0..20 {
                let body = format!("{number} {round}");
                let mut envelope = envelope(number, &[A]);
                let mut random = [round; TransactionId::LEN];
                random[0] = number;
                envelope.id = TransactionId::from_random(random);
                let mut attempt = journal.attempt(&envelope, &BodyHash::of(body.as_bytes()));
                attempt.begin(&envelope.recipients, Holder::NextHop).await;
                attempt.taken(&envelope.recipients, Holder::NextHop).await.unwrap();
                if round % 5 == 0 {
                    assert_eq!(after_a_power_cut(&disk, &[&body]), "h", "{body}");
                }
                if round % 2 == 0 {
                    attempt.settle();
                }
            }
        });
    }
    while let Some(ended) = sessions.join_next().await {
        ended.unwrap();
    }
    journal.flush().await.unwrap();
    let bodies: Vec<String> =
        (0..16).flat_map(|number| (0..20).map(move |round| format!("{number} {round}"))).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    assert_eq!(after_a_power_cut(&disk, &bodies), "nh".repeat(160));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_has_the_file_to_itself_writes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let journal = start(&disk, folder.path(), config());
    let (mut alone, envelope) = attempt(&journal, 1, "x", &[A]);
    alone.begin(&envelope.recipients, Holder::NextHop).await;
    alone.taken(&envelope.recipients, Holder::NextHop).await.unwrap();
    assert_eq!(disk.change(|state| state.appends), (2, 0));
    assert_eq!(after_a_power_cut(&disk, &["x"]), "h");
    // What is more than a line to append is left to the thread.
    disk.fail(Some(Step::Append));
    let (mut failing, envelope) = attempt(&journal, 2, "y", &[A]);
    failing.taken(&envelope.recipients, Holder::NextHop).await.unwrap_err();
    disk.fail(None);
    let (mut mending, envelope) = attempt(&journal, 3, "z", &[A]);
    mending.taken(&envelope.recipients, Holder::NextHop).await.unwrap();
    assert_eq!(after_a_power_cut(&disk, &["x", "y", "z"]), "hhh");
    assert_eq!(disk.change(|state| state.appends), (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_hangs_holds_up_one_session_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (open, gate) = sync_channel(100);
    let disk = Arc::new(Faulty { append_gate: Some(Mutex::new(gate)), ..Faulty::default() });
    let config = Config { patience: std::time::Duration::from_millis(50), ..config() };
    let journal = start(&disk, folder.path(), config);
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..8 {
        let journal = journal.clone();
        sessions.spawn(async move {
            let (mut attempt, envelope) = attempt(&journal, number, &number.to_string(), &[A]);
            attempt.taken(&envelope.recipients, Holder::NextHop).await
        });
    }
    for _ in 0..7 {
        let ended = sessions.join_next().await.unwrap().unwrap();
        assert!(matches!(ended, Err(Error::TimedOut)));
    }
    for _ in 0..8 {
        open.send(()).unwrap();
    }
    assert!(sessions.join_next().await.unwrap().is_ok());
    journal.flush().await.unwrap();
    let bodies: Vec<String> = (0..8).map(|number: u8| number.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    assert_eq!(after_a_power_cut(&disk, &bodies), "h".repeat(8));
}
