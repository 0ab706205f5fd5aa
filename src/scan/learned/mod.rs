//! The learned models in service: one current model in memory, which follows the log of lessons.
//!
//! A message is judged without touching a store. Lessons reach the model in the background: lines of the log
//! are folded into a copy, and the copy takes the model's place whole. A snapshot in the state store saves
//! folding the whole log at start; when it is missing, damaged, of another version or of another log, the
//! log is folded from its beginning while the gateway serves.

mod layers;
mod snapshots;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::num::NonZero;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::try_join_all;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;

use layers::Layers;
pub use layers::{Apart, LAYER_LESSONS, LAYERS, Sharing};
use snapshots::{CHECKPOINTS, SNAPSHOT, put_snapshot, read_base, read_snapshots, stands};

use super::Scanned;
use crate::learn::{
    Automatic, Extracted, FeatureKey, Label, MessageKey, Model, Unspoken, UnspokenRings, extract,
};
use crate::mail::{Address, Client};
use crate::message::{self, Message};
use crate::metrics::{Counter, Gauge};
use crate::privacy::{InstallationKey, PseudonymKey, error_chain};
use crate::store::{
    Appended, Bound, Forget, LessonError, LessonLog, LogEntry, NewLesson, Records, State, StateError, Taught,
    Teacher,
};

/// Lines that are read and folded at a time.
pub(super) const BATCH_LINES: u32 = 500;
/// While the model is far behind, it is swapped every so many lines.
const SWAP_LINES: i64 = 4_000;
/// A snapshot is due after so many lines, or this long after the last one.
const SNAPSHOT_LINES: i64 = 1_000;
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(600);
/// How often the log is looked at without notice: other processes write to it too.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Lessons of its own that wait for being written, at most.
const MOST_WAITING: usize = 500;
/// How long people usually take to speak of a message.
const SPEAKING_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Why the model cannot follow the log.
#[derive(Debug, Error)]
pub enum LearnedError {
    /// The log does not answer, or has a line that cannot be read.
    #[error("following the log of lessons")]
    Log(#[from] LessonError),
    /// The snapshot cannot be stored.
    #[error("storing a snapshot of the model")]
    State(#[from] StateError),
    /// Learning panicked, or the runtime is ending.
    #[error("learning was broken off")]
    BrokenOff,
}

/// The text of a [`JoinError`] quotes the panic, which may quote a message: it goes no further.
impl From<JoinError> for LearnedError {
    fn from(_: JoinError) -> Self {
        LearnedError::BrokenOff
    }
}

/// Who says what a message is.
#[derive(Debug, Clone)]
pub enum By {
    /// Somebody who speaks for all: the shared layer learns.
    All(Teacher),
    /// A person, of their own mail, and who is taught by that.
    Person(Address, Sharing),
}

/// The models in service. Cloning shares them.
#[derive(Clone)]
pub struct Learned {
    inner: Arc<Inner>,
}

struct Inner {
    model: ArcSwap<Model>,
    log: LessonLog,
    state: Arc<dyn State>,
    key: FeatureKey,
    layers: Layers,
    /// Told when there are new lines.
    changed: Notify,
    /// One fold at a time.
    folding: Mutex<()>,
    /// The line up to which the log is in the models.
    folded: AtomicI64,
    /// The sequence number of the last snapshot stored.
    stored: AtomicI64,
    /// The last line whose lesson was counted, at the start the end of the log: what is folded again counts once.
    counted: AtomicI64,
    /// Messages of which nobody spoke yet.
    unspoken: std::sync::Mutex<UnspokenRings>,
    /// What the gateway teaches itself, until it is written.
    own: std::sync::Mutex<Own>,
}

/// What the gateway teaches itself.
#[derive(Default)]
struct Own {
    automatic: Automatic,
    waiting: Vec<NewLesson>,
}

impl Learned {
    /// Opens the models with the last snapshot, or empty where there is none that fits the log. The log is
    /// not folded yet: see [`Learned::follow`] and [`Learned::load`].
    ///
    /// # Errors
    /// [`LearnedError::Log`] when the records store does not answer. Whatever is wrong with the snapshot is
    /// logged and is no error.
    pub async fn open(
        records: &Records,
        state: Arc<dyn State>,
        key: &InstallationKey,
    ) -> Result<Self, LearnedError> {
        let log = LessonLog::new(records);
        let began = log.last_sequence().await?;
        let model = read_snapshots(&log, &state).await?;
        let stored = AtomicI64::new(model.sequence());
        let layers = Layers::open(&log, PseudonymKey::new(key)).await?;
        let inner = Inner {
            model: ArcSwap::from_pointee(model),
            log,
            state,
            key: FeatureKey::new(key),
            layers,
            changed: Notify::new(),
            folding: Mutex::new(()),
            folded: AtomicI64::new(-1),
            stored,
            counted: AtomicI64::new(began),
            unspoken: std::sync::Mutex::default(),
            own: std::sync::Mutex::default(),
        };
        let learned = Learned { inner: Arc::new(inner) };
        learned.swap(None);
        Ok(learned)
    }

    /// Returns the model in service.
    pub fn model(&self) -> Arc<Model> {
        self.inner.model.load_full()
    }

    /// Whether the log was folded to what was its end at some time.
    fn has_followed(&self) -> bool {
        self.inner.folded.load(Ordering::Relaxed) >= 0
    }

    /// Returns the key of the features.
    pub fn key(&self) -> &FeatureKey {
        &self.inner.key
    }

    /// Returns the log of lessons.
    pub fn log(&self) -> &LessonLog {
        &self.inner.log
    }

    /// Extracts the features of a message; `client` as for [`extract`].
    pub fn extract(&self, message: &Message, client: Option<&Client>) -> Extracted {
        extract(message, client, &self.inner.key)
    }

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

    fn unspoken(&self) -> std::sync::MutexGuard<'_, UnspokenRings> {
        self.inner.unspoken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells [`Learned::follow`] that there are new lines.
    pub fn notify(&self) {
        self.inner.changed.notify_one();
    }

    /// Folds the log to its end and returns the model: what a command needs that starts, works and ends.
    ///
    /// # Errors
    /// [`LearnedError`]; the model in service is then as far as it came.
    pub async fn load(&self) -> Result<Arc<Model>, LearnedError> {
        let _one_at_a_time = self.inner.folding.lock().await;
        self.fold_to_end().await
    }

    /// Folds the log to its end; the caller has the lock.
    async fn fold_to_end(&self) -> Result<Arc<Model>, LearnedError> {
        let end = self.inner.log.last_sequence().await?;
        self.inner.layers.follow(&self.inner.log, end).await?;
        let current = self.model();
        if self.inner.folded.load(Ordering::Relaxed) == end {
            return Ok(current);
        }
        let is_standing = stands(&self.inner.log, &current).await?;
        if is_standing && self.inner.log.in_force_after(current.sequence(), 1).await?.is_empty() {
            // What there is new was taught in other layers.
            self.inner.folded.store(end, Ordering::Relaxed);
            return Ok(current);
        }
        // What was taken back is not in the model that serves for long: it is folded anew, from the last snapshot
        // before the line that went, and takes its place whole.
        let mut working = if is_standing {
            Model::clone(&current)
        } else {
            read_snapshots(&self.inner.log, &self.inner.state).await?
        };
        let mut swapped = working.sequence();
        loop {
            let mut entries = self.inner.log.in_force_after(working.sequence(), BATCH_LINES).await?;
            // What came meanwhile waits: it may take back what was read before, and would hide that.
            entries.retain(|entry| entry.sequence <= end);
            let (before, is_last) = (working.sequence(), entries.len() < BATCH_LINES as usize);
            self.count(&entries);
            working = spawn_blocking(move || fold(working, &entries)).await?;
            if is_last {
                break;
            }
            if is_standing && working.sequence() - swapped >= SWAP_LINES {
                swapped = working.sequence();
                self.swap(Some(working.clone()));
            }
            let now = working.sequence();
            for (name, _) in CHECKPOINTS.iter().filter(|(_, lines)| now / lines > before / lines) {
                let model = Arc::new(working);
                if let Err(error) = put_snapshot(&self.inner, name, Arc::clone(&model)).await {
                    tracing::warn!(
                        name,
                        error = error_chain(&error),
                        "a snapshot of the model was not stored"
                    );
                }
                working = Arc::unwrap_or_clone(model);
            }
        }
        working.follow(working.sequence().max(end), None);
        self.swap(Some(working));
        self.inner.folded.store(end, Ordering::Relaxed);
        Ok(self.model())
    }

    /// Stores a snapshot, unless the last one is of the same model.
    ///
    /// # Errors
    /// [`LearnedError`]; the one before is then still there.
    pub async fn store(&self) -> Result<(), LearnedError> {
        let model = self.model();
        let sequence = model.sequence();
        if self.inner.stored.load(Ordering::Relaxed) == sequence {
            return Ok(());
        }
        put_snapshot(&self.inner, SNAPSHOT, model).await?;
        self.inner.stored.store(sequence, Ordering::Relaxed);
        Ok(())
    }

    /// Folds the whole log anew, whatever is stored, and stores the snapshot in place of all that there were.
    ///
    /// # Errors
    /// [`LearnedError`].
    pub async fn rebuild(&self) -> Result<Arc<Model>, LearnedError> {
        self.remove_snapshots().await?;
        self.swap(Some(read_snapshots(&self.inner.log, &self.inner.state).await?));
        self.inner.folded.store(-1, Ordering::Relaxed);
        let model = self.load().await?;
        self.store().await?;
        Ok(model)
    }

    async fn remove_snapshots(&self) -> Result<(), LearnedError> {
        let state = Arc::clone(&self.inner.state);
        let names = CHECKPOINTS.map(|(name, _)| name);
        spawn_blocking(move || [SNAPSHOT].into_iter().chain(names).try_for_each(|name| state.remove(name)))
            .await??;
        self.inner.stored.store(0, Ordering::Relaxed);
        Ok(())
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

    /// Removes from the log what is over its bounds. What the shared model learned from it stays in a base model.
    /// Returns how many lines went.
    ///
    /// # Errors
    /// [`LearnedError`]; then nothing that was not folded has gone.
    pub async fn bound(&self, bound: &Bound) -> Result<u64, LearnedError> {
        let mut removed = self.inner.log.trim_layers(bound).await?;
        let Some(cut) = self.inner.log.outgrown(bound).await? else { return Ok(removed) };
        let seen = self.inner.log.last_sequence().await?;
        let mut model = read_base(&self.inner.log).await?;
        loop {
            let mut entries = self.inner.log.in_force_after(model.sequence(), BATCH_LINES).await?;
            entries.retain(|entry| entry.sequence <= cut);
            if entries.is_empty() {
                break;
            }
            model = spawn_blocking(move || fold(model, &entries)).await?;
        }
        model.follow(cut, None);
        let bytes = spawn_blocking(move || model.snapshot()).await?;
        // With the lines goes what tells that a model does not stand any more: what there is of models must be whole.
        let _one_at_a_time = self.inner.folding.lock().await;
        self.fold_to_end().await?;
        self.remove_snapshots().await?;
        removed += self.inner.log.rebase(cut, seen, &bytes).await?;
        self.store().await?;
        Ok(removed)
    }

    /// Follows the log until `shutdown` resolves, then stores a last snapshot. It never gives up: what fails
    /// is logged, and tried again at the next look.
    pub async fn follow(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut last_snapshot = Instant::now();
        let mut healthy = true;
        loop {
            // What was folded stays, so the work may be dropped at any point.
            let worked = tokio::select! {
                () = &mut shutdown => break,
                worked = self.keep_up(&mut last_snapshot) => worked,
            };
            if let Err(error) = &worked
                && healthy
            {
                tracing::error!(
                    error = error_chain(error),
                    "the learned model cannot keep up; it stays as it is"
                );
            }
            healthy = worked.is_ok();
            tokio::select! {
                () = &mut shutdown => break,
                () = self.inner.changed.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
        if let Err(error) = self.write_own().await {
            tracing::warn!(error = error_chain(&error), "what the gateway taught itself last is lost");
        }
        if let Err(error) = self.store().await {
            tracing::warn!(error = error_chain(&error), "the last snapshot of the model was not stored");
        }
    }

    async fn keep_up(&self, last_snapshot: &mut Instant) -> Result<(), LearnedError> {
        self.write_own().await?;
        let model = self.load().await?;
        let lines = model.sequence() - self.inner.stored.load(Ordering::Relaxed);
        if lines >= SNAPSHOT_LINES || (lines > 0 && last_snapshot.elapsed() >= SNAPSHOT_INTERVAL) {
            // Also after a failure: a store that is full is not tried at every look.
            *last_snapshot = Instant::now();
            self.store().await?;
        }
        Ok(())
    }

    /// Writes what the gateway teaches itself.
    async fn write_own(&self) -> Result<(), LearnedError> {
        let own = || self.inner.own.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = own().waiting.clone();
        if !waiting.is_empty() {
            self.inner.log.append_new(&waiting).await?;
            // What is not known to be written is written again: it counts once.
            own().waiting.drain(..waiting.len());
        }
        Ok(())
    }

    /// Puts a model in service.
    fn swap(&self, model: Option<Model>) {
        if let Some(model) = model {
            self.inner.model.store(Arc::new(model));
        }
        let (ham, spam) = self.inner.model.load().lessons();
        Gauge::ModelLessons.set(f64::from(ham) + f64::from(spam));
    }

    fn count(&self, entries: &[LogEntry]) {
        let Some(last) = entries.last() else { return };
        let counted = self.inner.counted.fetch_max(last.sequence, Ordering::Relaxed);
        for entry in entries.iter().filter(|entry| entry.sequence > counted) {
            Counter::Lessons.increment(&[("label", entry.lesson.label.as_str())]);
        }
    }
}

impl std::fmt::Debug for Learned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Learned").field(&self.inner.model.load()).finish()
    }
}

fn fold(mut model: Model, entries: &[LogEntry]) -> Model {
    for entry in entries {
        model.follow(entry.sequence, Some(&entry.lesson));
    }
    model
}
