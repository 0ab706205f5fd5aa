//! Between the sessions and the disk: one queue, one thread that writes, one that waits for the disk.
//!
//! A session changes the memory and queues the line that says so under one lock, so that both have one
//! order. The writing thread takes whatever has been queued and writes it at once; the syncing thread makes
//! durable whatever has been written, for all who wait for it. So neither a write nor a sync is ever done
//! for one session alone while others wait, and a write does not wait for a sync.
//!
//! The memory is the truth: after any failure of the disk the file is written anew from it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use tokio::sync::oneshot;

use super::disk::Disk;
use super::key::{MessageKey, RecipientKey};
use super::ledger::{Ledger, Line};
use super::live::{Live, Place};
use super::record::{HEADER, Record};
use super::{Config, Error};
use crate::mail::TransactionId;
use crate::metrics::Counter;

/// How long a line that nobody waits for may wait for company.
const LINGER: Duration = Duration::from_millis(100);
/// Most bytes in the queue: a disk that is this far behind hangs.
const MAX_QUEUE_BYTES: usize = 16 << 20;
/// Most lines that wait for the ledger.
const MAX_DOUBTS: usize = 10_000;
/// Entries that are copied under the lock at a time.
const PAGE: usize = 500;

/// Who waits for a line, to hear whether it is there.
pub(super) type Waiter = oneshot::Sender<Result<(), Error>>;

/// What its caller wants of a line.
pub(super) enum Wish {
    /// Nothing: some time.
    Lazy,
    /// That it survives this process.
    Written(Waiter),
    /// That it survives this machine.
    Durable(Waiter),
}

/// A line for the ledger, and what may be forgotten when it is there.
pub(super) struct Doubt {
    pub(super) line: Line,
    pub(super) place: Option<Place>,
    pub(super) recipients: Vec<RecipientKey>,
    pub(super) waiter: Option<oneshot::Sender<()>>,
}

/// What sessions and threads share.
pub(super) struct Shared {
    state: Mutex<State>,
    work: Condvar,
    syncing: Mutex<Syncing>,
    syncing_work: Condvar,
}

/// The memory, and the lines that are on their way to the file.
pub(super) struct State {
    pub(super) live: Live,
    /// The attempts that have no answer yet, by what they are about.
    pub(super) claims: HashMap<(MessageKey, RecipientKey), TransactionId>,
    queue: Queue,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    written: Vec<Waiter>,
    durable: Vec<Waiter>,
    /// When the first line came that nobody waits for.
    lazy_since: Option<Instant>,
    /// The file lacks something that memory has.
    rewrite: bool,
}

#[derive(Default)]
struct Syncing {
    waiters: Vec<Waiter>,
    doubts: Vec<Doubt>,
    closed: bool,
}

impl State {
    /// Lets recipients of an entry go, or all of them, here and, some time, in the file.
    pub(super) fn forget(&mut self, place: Place, recipients: Option<&[RecipientKey]>) {
        let Some(entry) = self.live.get(place) else {
            return;
        };
        let id = entry.head.id.clone();
        if self.live.forget(place, recipients) {
            self.queue.push(&Record::Forgotten { id, recipients: recipients.map(<[_]>::to_vec) }, Wish::Lazy);
        }
    }

    /// Queues a line.
    pub(super) fn push(&mut self, record: &Record, wish: Wish) {
        self.queue.push(record, wish);
    }

    /// Wakes a waiter when everything queued before is durable.
    pub(super) fn wait_for_all(&mut self, waiter: Waiter) {
        self.queue.durable.push(waiter);
    }
}

impl Queue {
    fn push(&mut self, record: &Record, wish: Wish) {
        if self.bytes.len() > MAX_QUEUE_BYTES {
            self.rewrite = true;
            match wish {
                Wish::Lazy => {}
                Wish::Written(waiter) | Wish::Durable(waiter) => wake(waiter, Err(Error::Behind)),
            }
            return;
        }
        record.write(&mut self.bytes);
        match wish {
            Wish::Lazy => {
                // The one reading of time here that nobody can see: it only groups writes.
                self.lazy_since.get_or_insert_with(Instant::now);
            }
            Wish::Written(waiter) => self.written.push(waiter),
            Wish::Durable(waiter) => self.durable.push(waiter),
        }
    }

    fn is_awaited(&self) -> bool {
        !self.written.is_empty() || !self.durable.is_empty()
    }
}

impl Shared {
    pub(super) fn new(live: Live) -> Self {
        Shared {
            state: Mutex::new(State { live, claims: HashMap::new(), queue: Queue::default(), closed: false }),
            work: Condvar::new(),
            syncing: Mutex::default(),
            syncing_work: Condvar::new(),
        }
    }

    /// Changes the memory and queues lines, as one.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let (idle, awaited) = (state.queue.lazy_since.is_none(), state.queue.is_awaited());
        let result = change(&mut state);
        // The writing thread is woken for the first line of a kind; later ones go with it.
        let wake = (idle && state.queue.lazy_since.is_some()) || (!awaited && state.queue.is_awaited());
        drop(state);
        if wake {
            self.work.notify_one();
        }
        result
    }

    /// Queues a line for the ledger. It is logged where that is impossible.
    pub(super) fn doubt(&self, doubt: Doubt) {
        let mut syncing = lock(&self.syncing);
        if syncing.doubts.len() >= MAX_DOUBTS || syncing.closed {
            drop(syncing);
            self.give_up(vec![doubt], &"it does not keep up");
            return;
        }
        syncing.doubts.push(doubt);
        drop(syncing);
        self.syncing_work.notify_one();
    }

    /// Lets the threads write what is queued, and end.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.work.notify_one();
    }

    fn next_queue(&self) -> Option<Queue> {
        let mut state = lock(&self.state);
        loop {
            let waited = state.queue.lazy_since.map(|since| since.elapsed());
            let due = waited.is_some_and(|waited| waited >= LINGER || state.closed);
            if due || state.queue.is_awaited() {
                return Some(mem::take(&mut state.queue));
            }
            state = match waited {
                None if state.closed => return None,
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(waited) => {
                    let rest = LINGER.saturating_sub(waited);
                    self.work.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Writes down the whole memory, a page at a time: what changes meanwhile is queued and follows.
    fn snapshot(&self) -> Vec<u8> {
        let mut content = HEADER.to_vec();
        let mut from = Some(0);
        while let Some(place) = from {
            from = lock(&self.state).live.write_page(place, PAGE, &mut content);
        }
        content
    }

    fn sync_for(&self, mut waiters: Vec<Waiter>) {
        if !waiters.is_empty() {
            lock(&self.syncing).waiters.append(&mut waiters);
            self.syncing_work.notify_one();
        }
    }

    fn next_syncing(&self) -> Option<(Vec<Waiter>, Vec<Doubt>)> {
        let mut syncing = lock(&self.syncing);
        loop {
            if !syncing.waiters.is_empty() || !syncing.doubts.is_empty() {
                return Some((mem::take(&mut syncing.waiters), mem::take(&mut syncing.doubts)));
            }
            if syncing.closed {
                return None;
            }
            syncing = self.syncing_work.wait(syncing).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn settle_doubts(&self, doubts: Vec<Doubt>) {
        self.change(|state| {
            for doubt in &doubts {
                if let Some(place) = doubt.place {
                    state.forget(place, Some(&doubt.recipients));
                }
            }
        });
        for waiter in doubts.into_iter().filter_map(|doubt| doubt.waiter) {
            // Nobody need wait any more.
            let _gone = waiter.send(());
        }
    }

    /// Names in the log what the ledger did not take.
    fn give_up(&self, doubts: Vec<Doubt>, error: &dyn std::fmt::Display) {
        for Doubt { line, .. } in &doubts {
            Counter::JournalFailures.increment(&[("step", "ledger")]);
            tracing::error!(
                id = line.id,
                recipients = line.recipients,
                cause = line.cause,
                %error,
                "the ledger could not be written; this message may exist twice"
            );
        }
        self.settle_doubts(doubts);
    }
}

/// Starts the two threads. The file holds the memory already, in `size_bytes`.
///
/// # Errors
/// The system has no thread to give.
pub(super) fn start(
    shared: &Arc<Shared>,
    disk: Arc<dyn Disk>,
    ledger: Ledger,
    config: Config,
    size_bytes: u64,
) -> io::Result<()> {
    let writing = Writing {
        shared: Arc::clone(shared),
        disk: Arc::clone(&disk),
        size_bytes,
        limit_bytes: config.max_file_bytes.max(2 * size_bytes),
        config,
        failure: None,
    };
    thread::Builder::new().name("journal-write".to_owned()).spawn(|| writing.run())?;
    let shared = Arc::clone(shared);
    let started = thread::Builder::new().name("journal-sync".to_owned()).spawn({
        let shared = Arc::clone(&shared);
        move || sync(&shared, disk.as_ref(), &ledger, config.max_ledger_bytes)
    });
    if started.is_err() {
        shared.close();
    }
    started.map(drop)
}

/// The writing thread.
struct Writing {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    size_bytes: u64,
    /// The file is written anew when it gets beyond this.
    limit_bytes: u64,
    config: Config,
    /// The last failure, until the file has been written anew.
    failure: Option<(Error, Instant)>,
}

impl Writing {
    fn run(mut self) {
        while let Some(queue) = self.shared.next_queue() {
            self.write(queue);
        }
        lock(&self.shared.syncing).closed = true;
        self.shared.syncing_work.notify_one();
    }

    fn write(&mut self, queue: Queue) {
        let Queue { bytes, written, durable, rewrite, .. } = queue;
        let size_bytes = self.size_bytes + bytes.len() as u64;
        if rewrite || self.failure.is_some() {
            let result = self.repair();
            wake_all(written, &result);
            wake_all(durable, &result);
            return;
        }
        if size_bytes > self.limit_bytes {
            match self.rewrite() {
                Ok(()) => {
                    wake_all(written, &Ok(()));
                    wake_all(durable, &Ok(()));
                    return;
                }
                Err(error) => {
                    // The file as it is will do for a while.
                    tracing::error!(%error, "the journal could not be written anew and goes on growing");
                    Counter::JournalFailures.increment(&[("step", "rewrite")]);
                    self.limit_bytes = size_bytes + self.config.max_file_bytes;
                }
            }
        }
        match self.disk.append(&bytes) {
            Ok(()) => {
                self.size_bytes = size_bytes;
                self.shared.sync_for(durable);
                wake_all(written, &Ok(()));
            }
            Err(error) => {
                let result = Err(self.fail(error));
                wake_all(written, &result);
                wake_all(durable, &result);
            }
        }
    }

    /// Writes the file anew after a failure, unless the last one was a moment ago.
    fn repair(&mut self) -> Result<(), Error> {
        if let Some((error, since)) = &self.failure
            && since.elapsed() < self.config.rest
        {
            return Err(error.clone());
        }
        self.rewrite().map_err(|error| self.fail(error))?;
        if self.failure.take().is_some() {
            tracing::info!("the journal can be written again");
        }
        Ok(())
    }

    /// Puts a file in place that holds the memory as it is now, what has just been queued included.
    fn rewrite(&mut self) -> io::Result<()> {
        let content = self.shared.snapshot();
        self.disk.replace(&content)?;
        self.size_bytes = content.len() as u64;
        self.limit_bytes = self.config.max_file_bytes.max(2 * self.size_bytes);
        Ok(())
    }

    fn fail(&mut self, error: io::Error) -> Error {
        let error = Error::Write(Arc::new(error));
        self.failure = Some((error.clone(), Instant::now()));
        error
    }
}

/// The syncing thread.
fn sync(shared: &Shared, disk: &dyn Disk, ledger: &Ledger, max_ledger_bytes: u64) {
    while let Some((waiters, doubts)) = shared.next_syncing() {
        if !waiters.is_empty() {
            let result = disk.sync().map_err(|error| Error::Sync(Arc::new(error)));
            if result.is_err() {
                // The system may have dropped what it failed to write, and say so once only.
                lock(&shared.state).queue.rewrite = true;
            }
            wake_all(waiters, &result);
        }
        if doubts.is_empty() {
            continue;
        }
        let lines: Vec<Line> = doubts.iter().map(|doubt| doubt.line.clone()).collect();
        match ledger.append(&lines, max_ledger_bytes) {
            Ok(()) => shared.settle_doubts(doubts),
            Err(error) => shared.give_up(doubts, &error),
        }
    }
}

fn wake(waiter: Waiter, result: Result<(), Error>) {
    // Whoever has stopped waiting does not want to know.
    let _gone = waiter.send(result);
}

fn wake_all(waiters: Vec<Waiter>, result: &Result<(), Error>) {
    for waiter in waiters {
        wake(waiter, result.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
