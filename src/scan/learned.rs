//! The learned models in service: one current model in memory, which follows the log of lessons.
//!
//! A message is judged without touching a store. Lessons reach the model in the background: lines of the log
//! are folded into a copy, and the copy takes the model's place whole. A snapshot in the state store saves
//! folding the whole log at start; when it is missing, damaged, of another version or of another log, the
//! log is folded from its beginning while the gateway serves.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;

use crate::learn::{Extracted, FeatureKey, Label, Lesson, MessageKey, Model, Opinion, extract};
use crate::mail::Client;
use crate::message::{self, Message};
use crate::metrics::{Counter, Gauge};
use crate::privacy::error_chain;
use crate::store::{
    Appended, LessonError, LessonLog, LogEntry, NewLesson, Records, State, StateError, Teacher,
};

/// The name of the snapshot in the state store.
const SNAPSHOT: &str = "model";
/// Lines that are read and folded at a time.
const BATCH_LINES: u32 = 500;
/// While the model is far behind, it is swapped every so many lines.
const SWAP_LINES: i64 = 4_000;
/// A snapshot is due after so many lines, or this long after the last one.
const SNAPSHOT_LINES: i64 = 1_000;
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(600);
/// How often the log is looked at without notice: other processes write to it too.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
const MESSAGE_KEY_BYTES: usize = 16;

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
    /// Told when there are new lines.
    changed: Notify,
    /// One fold at a time.
    folding: Mutex<()>,
    /// The sequence number of the last snapshot stored.
    stored: AtomicI64,
    /// The end of the log at the start: what comes after is counted as a new lesson.
    began: i64,
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
        key: FeatureKey,
    ) -> Result<Self, LearnedError> {
        let log = LessonLog::new(records);
        let began = log.last_sequence().await?;
        let model = read_snapshot(&log, Arc::clone(&state)).await?.unwrap_or_default();
        let stored = AtomicI64::new(model.sequence());
        let inner = Inner {
            model: ArcSwap::from_pointee(model),
            log,
            state,
            key,
            changed: Notify::new(),
            folding: Mutex::new(()),
            stored,
            began,
        };
        let learned = Learned { inner: Arc::new(inner) };
        learned.swap(None);
        Ok(learned)
    }

    /// Returns the model in service.
    pub fn model(&self) -> Arc<Model> {
        self.inner.model.load_full()
    }

    /// Returns the key of the features.
    pub fn key(&self) -> &FeatureKey {
        &self.inner.key
    }

    /// Extracts the features of a message; `client` as for [`extract`].
    pub fn extract(&self, message: &Message, client: Option<&Client>) -> Extracted {
        extract(message, client, &self.inner.key)
    }

    /// Judges a message; nothing is said before there are lessons enough.
    pub fn judge(&self, message: &Message, client: Option<&Client>) -> Option<Opinion> {
        let extracted = self.extract(message, client);
        self.inner.model.load().judge(&extracted)
    }

    /// Makes the lesson that a message gives, for whoever writes it to the log in a transaction of their own.
    pub fn lesson(
        &self,
        message: &Message,
        client: Option<&Client>,
        label: Label,
        teacher: Teacher,
        now: OffsetDateTime,
    ) -> NewLesson {
        NewLesson {
            message: MessageKey::of(message, &self.inner.key),
            lesson: Lesson { label, features: self.extract(message, client).features },
            teacher,
            learned_at: now,
        }
    }

    /// Learns messages in one transaction, off the async threads. They are in the log when it returns; the
    /// model in service follows.
    ///
    /// # Errors
    /// [`LearnedError`]; then nothing was learned.
    pub async fn learn(
        &self,
        label: Label,
        messages: Vec<Bytes>,
        teacher: Teacher,
        now: OffsetDateTime,
    ) -> Result<Appended, LearnedError> {
        let this = self.clone();
        let lesson = move |raw: Bytes| this.lesson(&message::parse(&raw), None, label, teacher.clone(), now);
        let batch = spawn_blocking(move || messages.into_iter().map(lesson).collect::<Vec<_>>()).await?;
        let appended = self.inner.log.append_all(&batch).await?;
        self.notify();
        Ok(appended)
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
        let mut swapped = self.model().sequence();
        let mut working: Option<Model> = None;
        loop {
            let sequence = working.as_ref().map_or(swapped, Model::sequence);
            let entries = self.inner.log.after(sequence, BATCH_LINES).await?;
            if entries.is_empty() {
                break;
            }
            self.count(&entries);
            let (current, before) = (self.model(), working.take());
            let model = spawn_blocking(move || fold(before.unwrap_or_else(|| (*current).clone()), &entries));
            let model = model.await?;
            if model.sequence() - swapped >= SWAP_LINES {
                swapped = model.sequence();
                self.swap(Some(model));
            } else {
                working = Some(model);
            }
        }
        if working.is_some() {
            self.swap(working);
        }
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
        let mut bytes = proof(&self.inner.log, sequence).await?;
        let state = Arc::clone(&self.inner.state);
        spawn_blocking(move || {
            bytes.extend(model.snapshot());
            state.put(SNAPSHOT, &bytes)
        })
        .await??;
        self.inner.stored.store(sequence, Ordering::Relaxed);
        Ok(())
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
        if let Err(error) = self.store().await {
            tracing::warn!(error = error_chain(&error), "the last snapshot of the model was not stored");
        }
    }

    async fn keep_up(&self, last_snapshot: &mut Instant) -> Result<(), LearnedError> {
        let model = self.load().await?;
        let lines = model.sequence() - self.inner.stored.load(Ordering::Relaxed);
        if lines >= SNAPSHOT_LINES || (lines > 0 && last_snapshot.elapsed() >= SNAPSHOT_INTERVAL) {
            // Also after a failure: a store that is full is not tried at every look.
            *last_snapshot = Instant::now();
            self.store().await?;
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
        let new = entries.iter().filter(|entry| entry.step.sequence > self.inner.began);
        for lesson in new.filter_map(|entry| entry.step.learn.as_ref()) {
            Counter::Lessons.increment(&[("label", lesson.label.as_str())]);
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
        model.follow(&entry.step);
    }
    model
}

/// Returns what a snapshot at `sequence` is led by: the message of that line, which another log has not.
async fn proof(log: &LessonLog, sequence: i64) -> Result<Vec<u8>, LessonError> {
    let message = log.message_at(sequence).await?;
    Ok(message.unwrap_or_else(|| vec![0; MESSAGE_KEY_BYTES]))
}

async fn read_snapshot(log: &LessonLog, state: Arc<dyn State>) -> Result<Option<Model>, LearnedError> {
    let read = spawn_blocking(move || {
        let Some(bytes) = state.get(SNAPSHOT).map_err(|error| error_chain(&error))? else { return Ok(None) };
        let (proof, model) = bytes.split_at_checked(MESSAGE_KEY_BYTES).unwrap_or_default();
        let model = Model::restore(model).map_err(|error| error_chain(&error))?;
        Ok::<_, String>(Some((proof.to_vec(), model)))
    });
    let reason = match read.await? {
        Ok(None) => return Ok(None),
        Ok(Some((found, model))) => {
            if model.sequence() > 0 && log.message_at(model.sequence()).await? == Some(found) {
                return Ok(Some(model));
            }
            "it is of another log".to_owned()
        }
        Err(reason) => reason,
    };
    tracing::warn!(reason, "the snapshot of the model is of no use; the log of lessons is folded again");
    Ok(None)
}
