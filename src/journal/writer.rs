//! Between the sessions and the disk.
//!
//! A session that waits for a line writes what is queued itself where nobody else is writing: what is not
//! written dies with this process, so no thread has to wake up in between. Otherwise the writing thread does
//! so, at once, for all who wait. The syncing thread makes durable whatever has been written. So a sync is
//! never done for one session alone while others wait, and a write does not wait for a sync.
//!
//! The memory is the truth: after any failure of the disk the file is written anew from it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{io, mem, thread};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::disk::Disk;
use super::key::RecipientKey;
use super::ledger::{Ledger, Line};
use super::live::{Live, Place};
use super::queue::{Due, Queue, State, Waiter, wake_all};
use super::record::HEADER;
use super::{Config, Error};
use crate::metrics::Counter;

/// Most lines that wait for the ledger.
const MAX_DOUBTS: usize = 10_000;
/// Entries that are copied under the lock at a time.
const PAGE: usize = 500;
/// Most bytes that a session writes itself.
const MAX_DIRECT_BYTES: u64 = 64 << 10;

/// A line for the ledger, and what may be forgotten when it is there.
pub(super) struct Doubt {
    pub(super) line: Line,
    pub(super) place: Option<Place>,
    pub(super) recipients: Vec<RecipientKey>,
    pub(super) waiter: Option<oneshot::Sender<()>>,
}

/// What sessions and threads share. Of the locks, that of the file comes first.
pub(super) struct Shared {
    state: Mutex<State>,
    work: Condvar,
    file: Mutex<Writing>,
    syncing: Mutex<Syncing>,
    syncing_work: Condvar,
}

/// The file, as its writers know it.
struct Writing {
    disk: Arc<dyn Disk>,
    size_bytes: u64,
    /// The file is written anew when it gets beyond this.
    limit_bytes: u64,
    config: Config,
    /// The last failure, until the file has been written anew.
    failure: Option<(Error, Instant)>,
}

#[derive(Default)]
struct Syncing {
    waiters: Vec<Waiter>,
    doubts: Vec<Doubt>,
    closed: bool,
}

impl Shared {
    /// Takes the memory, which the file holds already, in `size_bytes`.
    pub(super) fn new(live: Live, disk: Arc<dyn Disk>, config: Config, size_bytes: u64) -> Self {
        let limit_bytes = config.max_file_bytes.max(2 * size_bytes);
        Shared {
            state: Mutex::new(State::new(live)),
            work: Condvar::new(),
            file: Mutex::new(Writing { disk, size_bytes, limit_bytes, config, failure: None }),
            syncing: Mutex::default(),
            syncing_work: Condvar::new(),
        }
    }

    /// Changes the memory and queues lines, as one.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let (was_lazy, was_awaited) = state.queued();
        let result = change(&mut state);
        let (is_lazy, is_awaited) = state.queued();
        drop(state);
        // The writing thread is woken for the first line of a kind; later ones go with it.
        if (!was_lazy && is_lazy) || (!was_awaited && is_awaited) {
            self.work.notify_one();
        }
        result
    }

    /// The same for a line that is waited for: it is in the file when this returns, unless somebody else is
    /// writing, or there is more to do than that. A disk that hangs holds one caller up, and makes the others
    /// wait for the writing thread, as long as they have patience.
    pub(super) fn change_and_write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut lock(&self.state));
        if !self.write_directly() {
            self.work.notify_one();
        }
        result
    }

    /// Writes what is queued, if that is a matter of a moment. Returns whether nothing is left of it.
    fn write_directly(&self) -> bool {
        // A disk may hang all the same. Only a runtime with other threads can let this one wait.
        let may_block = Handle::try_current()
            .is_ok_and(|handle| matches!(handle.runtime_flavor(), RuntimeFlavor::MultiThread));
        may_block
            && tokio::task::block_in_place(|| {
                let Ok(mut file) = self.file.try_lock() else { return false };
                let room = file.room_bytes().min(MAX_DIRECT_BYTES);
                let queue = lock(&self.state).take_within(room);
                queue.is_some_and(|queue| {
                    self.write(&mut file, queue);
                    true
                })
            })
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

    /// Waits until something is to be written; `false` when there will be nothing more.
    fn wait_for_work(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            state = match state.due() {
                Due::Now => return true,
                Due::Never if state.closed => return false,
                Due::Never => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Due::In(rest) => {
                    self.work.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// The writing thread.
    fn run_writing(&self) {
        while self.wait_for_work() {
            let mut file = lock(&self.file);
            // Taken with the file in hand, so that lines are written in their order.
            let queue = lock(&self.state).take();
            self.write(&mut file, queue);
        }
        lock(&self.syncing).closed = true;
        self.syncing_work.notify_one();
    }

    fn write(&self, file: &mut Writing, queue: Queue) {
        let Queue { bytes, written, durable, rewrite, .. } = queue;
        let size_bytes = file.size_bytes + bytes.len() as u64;
        if rewrite || file.failure.is_some() {
            let result = self.repair(file);
            wake_all(written, &result);
            wake_all(durable, &result);
            return;
        }
        if size_bytes > file.limit_bytes {
            match self.rewrite(file) {
                Ok(()) => {
                    wake_all(written, &Ok(()));
                    wake_all(durable, &Ok(()));
                    return;
                }
                Err(error) => {
                    // The file as it is will do for a while.
                    tracing::error!(%error, "the journal could not be written anew and goes on growing");
                    Counter::JournalFailures.increment(&[("step", "rewrite")]);
                    file.limit_bytes = size_bytes + file.config.max_file_bytes;
                }
            }
        }
        match file.disk.append(&bytes) {
            Ok(()) => {
                file.size_bytes = size_bytes;
                self.sync_for(durable);
                wake_all(written, &Ok(()));
            }
            Err(error) => {
                let result = Err(file.fail(error));
                wake_all(written, &result);
                wake_all(durable, &result);
            }
        }
    }

    /// Writes the file anew after a failure, unless the last one was a moment ago.
    fn repair(&self, file: &mut Writing) -> Result<(), Error> {
        if let Some((error, since)) = &file.failure
            && since.elapsed() < file.config.rest
        {
            return Err(error.clone());
        }
        self.rewrite(file).map_err(|error| file.fail(error))?;
        if file.failure.take().is_some() {
            tracing::info!("the journal can be written again");
        }
        Ok(())
    }

    /// Puts a file in place that holds the memory as it is now, what has just been queued included.
    fn rewrite(&self, file: &mut Writing) -> io::Result<()> {
        let content = self.snapshot();
        file.disk.replace(&content)?;
        file.size_bytes = content.len() as u64;
        file.limit_bytes = file.config.max_file_bytes.max(2 * file.size_bytes);
        Ok(())
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

impl Writing {
    /// Returns how many bytes can be appended as things are.
    fn room_bytes(&self) -> u64 {
        if self.failure.is_some() { 0 } else { self.limit_bytes.saturating_sub(self.size_bytes) }
    }

    fn fail(&mut self, error: io::Error) -> Error {
        let error = Error::Write(Arc::new(error));
        self.failure = Some((error.clone(), Instant::now()));
        error
    }
}

/// Starts the two threads.
///
/// # Errors
/// The system has no thread to give.
pub(super) fn start(
    shared: &Arc<Shared>,
    disk: Arc<dyn Disk>,
    ledger: Ledger,
    max_ledger_bytes: u64,
) -> io::Result<()> {
    let writing = Arc::clone(shared);
    thread::Builder::new().name("journal-write".to_owned()).spawn(move || writing.run_writing())?;
    let syncing = Arc::clone(shared);
    let started = thread::Builder::new()
        .name("journal-sync".to_owned())
        .spawn(move || sync(&syncing, disk.as_ref(), &ledger, max_ledger_bytes));
    if started.is_err() {
        shared.close();
    }
    started.map(drop)
}

/// The syncing thread.
fn sync(shared: &Shared, disk: &dyn Disk, ledger: &Ledger, max_ledger_bytes: u64) {
    while let Some((waiters, doubts)) = shared.next_syncing() {
        if !waiters.is_empty() {
            let result = disk.sync().map_err(|error| Error::Sync(Arc::new(error)));
            if result.is_err() {
                // The system may have dropped what it failed to write, and say so once only.
                lock(&shared.state).rewrite();
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
