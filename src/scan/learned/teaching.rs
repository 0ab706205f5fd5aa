//! From messages to lines of the log: what people say, what follows from that for others, what the gateway teaches itself.

use std::num::NonZero;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use super::{Learned, LearnedError, Sharing};
use crate::learn::{Automatic, Label, MessageKey, Unspoken, UnspokenRings, extract};
use crate::mail::Address;
use crate::message;
use crate::scan::Scanned;
use crate::store::{Appended, Forget, NewLesson, Taught, Teacher};

/// Lessons of its own that wait for being written, at most.
const MOST_WAITING: usize = 500;
/// How long people usually take to speak of a message.
const SPEAKING_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Who says what a message is.
#[derive(Debug, Clone)]
pub enum By {
    /// Somebody who speaks for all: the shared layer learns.
    All(Teacher),
    /// A person, of their own mail, and who is taught by that.
    Person(Address, Sharing),
}

/// What the gateway teaches itself.
#[derive(Default)]
pub(super) struct Own {
    automatic: Automatic,
    waiting: Vec<NewLesson>,
}

impl Learned {
    /// Learns messages in one transaction, off the async threads: in the shared layer, or in that of a person. They
    /// are in the log when it returns; what is in service follows.
    ///
    /// # Errors
    /// [`LearnedError`]; then nothing was learned.
    pub async fn learn(
        &self,
        label: Label,
        messages: Vec<Bytes>,
        by: &By,
        now: OffsetDateTime,
    ) -> Result<Appended, LearnedError> {
        let lessons = self.read(label, messages, by, now).await?;
        self.write(&lessons).await
    }

    /// Makes lessons of messages, off the async threads.
    ///
    /// # Errors
    /// [`LearnedError`].
    pub async fn read(
        &self,
        label: Label,
        messages: Vec<Bytes>,
        by: &By,
        now: OffsetDateTime,
    ) -> Result<Vec<NewLesson>, LearnedError> {
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        let share = messages.len().div_ceil(workers).max(1);
        let work = messages.chunks(share).map(<[Bytes]>::to_vec).map(|messages| {
            let key = self.inner.key.clone();
            let read = move |raw: Bytes| {
                let message = message::parse(&raw);
                (MessageKey::of(&message, &key), extract(&message, None, &key).features)
            };
            spawn_blocking(move || messages.into_iter().map(read).collect::<Vec<_>>())
        });
        let mut lessons = Vec::new();
        for (message, features) in try_join_all(work).await?.into_iter().flatten() {
            let (teacher, layers) = match by {
                By::All(teacher) => (teacher.clone(), vec![Taught::SHARED]),
                By::Person(person, sharing) => {
                    (self.teacher(person), self.taught_by(person, *sharing, &features).await?)
                }
            };
            lessons.push(NewLesson { layers, message, label, features, teacher, learned_at: now });
        }
        Ok(lessons)
    }

    /// Writes lessons in one transaction.
    ///
    /// # Errors
    /// [`LearnedError`]; then nothing was learned.
    pub async fn write(&self, lessons: &[NewLesson]) -> Result<Appended, LearnedError> {
        let appended = self.inner.log.append_all(lessons).await?;
        self.notify();
        Ok(appended)
    }

    /// Remembers what became of a message, for what follows when people speak of others.
    pub fn remember(&self, scanned: &Scanned, is_kept: bool, now: OffsetDateTime) {
        let Some(judged) = &scanned.judged else { return };
        if self.model().lessons() == (0, 0) {
            // Nothing follows from what was not judged.
            return;
        }
        let unspoken = Unspoken {
            message: MessageKey::of(&scanned.message, &self.inner.key),
            score: judged.score,
            // A copy has no room to spare, which many of them would add up to.
            features: Arc::new(judged.features.as_ref().clone()),
            at: now.unix_timestamp(),
        };
        self.unspoken().push(unspoken, is_kept);
    }

    /// Takes a lesson from a message by itself: of what was sent to a trap, that it is spam; of another, what all agree
    /// on. It is written at the next look at the log, where nobody said anything else of the message. There are at most 60
    /// of either kind an hour; of those that all agree on about as many of either label.
    pub fn teach_itself(&self, scanned: &Scanned, is_trapped: bool, now: OffsetDateTime) {
        let Some(judged) = &scanned.judged else { return };
        let (label, teacher) = match (is_trapped, judged.sure) {
            (true, _) => (Label::Spam, Teacher::Trap),
            (false, Some(label)) => (label, Teacher::Automatic),
            (false, None) => return,
        };
        let mut own = self.inner.own.lock().unwrap_or_else(PoisonError::into_inner);
        let hour = now.unix_timestamp() / 3_600;
        let has_room =
            if is_trapped { own.automatic.take_trapped(hour) } else { own.automatic.take(label, hour) };
        if has_room && own.waiting.len() < MOST_WAITING {
            own.waiting.push(NewLesson {
                layers: vec![Taught::SHARED],
                message: MessageKey::of(&scanned.message, &self.inner.key),
                label,
                features: judged.features.as_ref().clone(),
                teacher,
                learned_at: now,
            });
            self.notify();
        }
    }

    /// Learns what follows from a report that a message which was delivered is spam, or one that was kept is ham: a few
    /// others that were treated alike, a day ago or longer, and of which nobody complained, at half weight. From the
    /// report of a message that is not remembered, or was treated right, nothing follows.
    ///
    /// # Errors
    /// [`LearnedError::Log`]; the report itself is not touched by it.
    pub async fn imply(
        &self,
        message: MessageKey,
        reported: Label,
        now: OffsetDateTime,
    ) -> Result<(), LearnedError> {
        let until = (now - SPEAKING_TIME).unix_timestamp();
        let (label, others) = {
            let mut unspoken = self.unspoken();
            let is_ham = reported == Label::Ham;
            if unspoken.remove(message) != Some(is_ham) {
                return Ok(());
            }
            let draw = |most: usize| {
                let mut random = [0; 8];
                // Without randomness it is the oldest: that is no worse a choice.
                getrandom::fill(&mut random).ok();
                usize::from_le_bytes(random).checked_rem(most).unwrap_or_default()
            };
            unspoken.implied(reported, until, draw)
        };
        let lesson = |unspoken: Unspoken| NewLesson {
            layers: vec![Taught::SHARED],
            message: unspoken.message,
            label,
            features: Arc::unwrap_or_clone(unspoken.features),
            teacher: Teacher::Implied,
            learned_at: now,
        };
        let batch: Vec<NewLesson> = others.into_iter().map(lesson).collect();
        self.inner.log.append_new(&batch).await?;
        self.notify();
        Ok(())
    }

    fn unspoken(&self) -> MutexGuard<'_, UnspokenRings> {
        self.inner.unspoken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets lessons; the model in service follows.
    ///
    /// # Errors
    /// [`LearnedError`]; then nothing was forgotten.
    pub async fn forget(&self, which: &Forget, now: OffsetDateTime) -> Result<u64, LearnedError> {
        let forgotten = self.inner.log.forget(which, now).await?;
        self.notify();
        Ok(forgotten)
    }

    /// Writes what the gateway teaches itself.
    pub(super) async fn write_own(&self) -> Result<(), LearnedError> {
        let own = || self.inner.own.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = own().waiting.clone();
        if !waiting.is_empty() {
            self.inner.log.append_new(&waiting).await?;
            // What is not known to be written is written again: it counts once.
            own().waiting.drain(..waiting.len());
        }
        Ok(())
    }
}
