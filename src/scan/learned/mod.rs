//! The learned models in service: one current model in memory, which follows the log of lessons.
//!
//! A message is judged without touching a store. Lessons reach the model in the background: lines of the log
//! are folded into a copy, and the copy takes the model's place whole. A snapshot in the state store saves
//! folding the whole log at start; when it is missing, damaged, of another version or of another log, the
//! log is folded from its beginning while the gateway serves.

mod layers;
mod snapshots;
mod teaching;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;

use layers::Layers;
pub use layers::{Apart, LAYER_LESSONS, LAYERS, Sharing};
use snapshots::{CHECKPOINTS, SNAPSHOT, put_snapshot, read_base, read_snapshots, stands};
pub use teaching::By;
use teaching::Own;

use crate::learn::{Extracted, FeatureKey, Model, UnspokenRings, extract};
use crate::mail::Client;
use crate::message::Message;
use crate::metrics::{Counter, Gauge};
use crate::privacy::{InstallationKey, PseudonymKey, error_chain};
use crate::store::{Bound, LessonError, LessonLog, LogEntry, Records, State, StateError};

/// Lines that are read and folded at a time.
pub(super) const BATCH_LINES: u32 = 500;
/// While the model is far behind, it is swapped every so many lines.
const SWAP_LINES: i64 = 4_000;
/// A snapshot is due after so many lines, or this long after the last one.
const SNAPSHOT_LINES: i64 = 1_000;
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(600);
/// How often the log is looked at without notice: other processes write to it too.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
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
        // A line of its own layer proves a snapshot: those of others may leave the log, and the model stands.
        let last = self.inner.log.last_shared(end).await?;
        working.follow(working.sequence().max(last), None);
        self.swap(Some(working));
        if !is_standing {
            // They were folded beside a model that held what was taken back.
            self.inner.layers.clear();
        }
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

    /// Removes from the log what is over its bounds. What the shared model learned from it stays in a base model.
    /// Returns how many lines went.
    ///
    /// # Errors
    /// [`LearnedError`]; then nothing that was not folded has gone.
    pub async fn bound(&self, bound: &Bound) -> Result<u64, LearnedError> {
        let mut removed = self.inner.log.trim_layers(bound).await?;
        if removed > 0 {
            self.inner.layers.clear();
        }
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
