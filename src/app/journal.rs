//! Opens the journal and settles what an earlier run left without an outcome.

use std::path::PathBuf;

use anyhow::Context;
use futures_util::future::try_join_all;

use super::Folder;
use crate::gateway::Clock;
use crate::journal::{Config, Journal};
use crate::quarantine::Quarantine;

/// Opens the journal before mail comes in. What the earlier run was about to keep is kept if the quarantine
/// says so; what was on its way to the next hop goes into the ledger.
pub(super) async fn open_journal(
    folder: &Folder,
    quarantine: &Quarantine,
    clock: Clock,
) -> anyhow::Result<Journal> {
    let (path, key): (PathBuf, _) = (folder.journal(), folder.key.clone());
    let opened = tokio::task::spawn_blocking(move || Journal::open(&path, &key, Config::default(), clock));
    let (journal, recovered) = opened.await.context("opening the journal")??;
    // All at once: thousands may have been open, and they share what the disk takes for one.
    let resolving = recovered.unresolved.into_iter().map(async |unresolved| {
        let id = unresolved.id().clone();
        let kept = quarantine.is_kept(&id).await?;
        journal.resolve(unresolved, kept).await.with_context(|| format!("settling transaction {id}"))
    });
    try_join_all(resolving).await?;
    Ok(journal)
}
