//! The memory of a journal, and the lines that are on their way to its file.
//!
//! A session changes the memory and queues the line that says so under one lock, so that both have one order.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Error;
use super::key::{MessageKey, RecipientKey};
use super::live::{Live, Place};
use super::record::Record;
use crate::mail::TransactionId;

/// How long a line that nobody waits for may wait for company.
const LINGER: Duration = Duration::from_millis(100);
/// Most bytes in the queue: a disk that is this far behind hangs.
const MAX_QUEUE_BYTES: usize = 16 << 20;

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

/// The memory, and the lines that are on their way to the file.
pub(super) struct State {
    pub(super) live: Live,
    /// The attempts that have no answer yet, by what they are about.
    pub(super) claims: HashMap<(MessageKey, RecipientKey), TransactionId>,
    queue: Queue,
    pub(super) closed: bool,
}

/// Lines in their order, and who waits for them.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) bytes: Vec<u8>,
    pub(super) written: Vec<Waiter>,
    pub(super) durable: Vec<Waiter>,
    /// When the first line came that nobody waits for.
    lazy_since: Option<Instant>,
    /// The file lacks something that memory has.
    pub(super) rewrite: bool,
}

/// When the lines are to be written.
pub(super) enum Due {
    Now,
    In(Duration),
    /// There are none.
    Never,
}

impl State {
    pub(super) fn new(live: Live) -> Self {
        State { live, claims: HashMap::new(), queue: Queue::default(), closed: false }
    }

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

    /// Has the file written anew with the next lines.
    pub(super) fn rewrite(&mut self) {
        self.queue.rewrite = true;
    }

    /// Whether there are lines that nobody waits for, and such as somebody waits for.
    pub(super) fn queued(&self) -> (bool, bool) {
        (self.queue.lazy_since.is_some(), self.queue.is_awaited())
    }

    pub(super) fn due(&self) -> Due {
        match self.queue.lazy_since.map(|since| since.elapsed()) {
            _ if self.queue.is_awaited() => Due::Now,
            None => Due::Never,
            Some(waited) if waited >= LINGER || self.closed => Due::Now,
            Some(waited) => Due::In(LINGER.saturating_sub(waited)),
        }
    }

    /// Takes what is queued.
    pub(super) fn take(&mut self) -> Queue {
        mem::take(&mut self.queue)
    }

    /// Takes what is queued if it is lines to append, of so many bytes at most.
    pub(super) fn take_within(&mut self, max_bytes: u64) -> Option<Queue> {
        let fits = !self.queue.rewrite && self.queue.bytes.len() as u64 <= max_bytes;
        fits.then(|| self.take())
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

fn wake(waiter: Waiter, result: Result<(), Error>) {
    // Whoever has stopped waiting does not want to know.
    let _gone = waiter.send(result);
}

pub(super) fn wake_all(waiters: Vec<Waiter>, result: &Result<(), Error>) {
    for waiter in waiters {
        wake(waiter, result.clone());
    }
}
