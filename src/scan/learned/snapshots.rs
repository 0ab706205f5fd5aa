//! Snapshots of the shared model: they only save the time to fold the log.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{Inner, LearnedError};
use crate::learn::Model;
use crate::privacy::error_chain;
use crate::store::{LessonError, LessonLog, State};

/// The names of the snapshots in the state store: of the model in service, and of the model where it last passed a
/// multiple of so many lines. What is taken back is folded anew from the newest of them that is older.
pub(super) const SNAPSHOT: &str = "model";
pub(super) const CHECKPOINTS: [(&str, i64); 2] = [("model-10000", 10_000), ("model-100000", 100_000)];
const MESSAGE_KEY_BYTES: usize = 16;

/// Returns what a snapshot at `sequence` is led by: the message of that line, which another log has not.
async fn proof(log: &LessonLog, sequence: i64) -> Result<Vec<u8>, LessonError> {
    let message = log.message_at(sequence).await?;
    Ok(message.unwrap_or_else(|| vec![0; MESSAGE_KEY_BYTES]))
}

/// Stores a model under a name.
pub(super) async fn put_snapshot(
    inner: &Inner,
    name: &'static str,
    model: Arc<Model>,
) -> Result<(), LearnedError> {
    let mut bytes = proof(&inner.log, model.sequence()).await?;
    let state = Arc::clone(&inner.state);
    spawn_blocking(move || {
        bytes.extend(model.snapshot());
        state.put(name, &bytes)
    })
    .await??;
    Ok(())
}

/// Whether a model is what the log gives up to its line: nothing before that has gone or come back since.
pub(super) async fn stands(log: &LessonLog, model: &Model) -> Result<bool, LessonError> {
    Ok(log.disturbed_after(model.sequence()).await?.is_none_or(|oldest| oldest > model.sequence()))
}

/// Returns the newest stored model that stands, or that with which the fold begins.
pub(super) async fn read_snapshots(log: &LessonLog, state: &Arc<dyn State>) -> Result<Model, LearnedError> {
    for name in [SNAPSHOT].into_iter().chain(CHECKPOINTS.map(|(name, _)| name)) {
        let state = Arc::clone(state);
        let read = spawn_blocking(move || {
            let Some(bytes) = state.get(name).map_err(|error| error_chain(&error))? else { return Ok(None) };
            let (proof, model) = bytes.split_at_checked(MESSAGE_KEY_BYTES).unwrap_or_default();
            let model = Model::restore(model).map_err(|error| error_chain(&error))?;
            Ok::<_, String>(Some((proof.to_vec(), model)))
        });
        let reason = match read.await? {
            Ok(None) => continue,
            Ok(Some((found, model))) => {
                if log.message_at(model.sequence()).await? == Some(found) {
                    if stands(log, &model).await? {
                        return Ok(model);
                    }
                    continue;
                }
                "it is of another log".to_owned()
            }
            Err(reason) => reason,
        };
        tracing::warn!(
            name,
            reason,
            "a snapshot of the model is of no use; the log of lessons is folded again"
        );
    }
    read_base(log).await
}

/// Returns the model with which the fold begins: of the lines that have left the log, or one that has learned nothing.
pub(super) async fn read_base(log: &LessonLog) -> Result<Model, LearnedError> {
    let Some(bytes) = log.base().await? else { return Ok(Model::new()) };
    let read = spawn_blocking(move || Model::restore(&bytes)).await?;
    Ok(read.unwrap_or_else(|error| {
        let error = error_chain(&error);
        tracing::error!(
            error,
            "what was learned from lessons that have left the log cannot be read: it is left out"
        );
        Model::new()
    }))
}
