//! Removing what is kept no longer, and cleaning up after a run that was cut off.
//!
//! Records go first, the body after: what a crash leaves between the two is a body marked for removal,
//! which the next purge removes.

use std::collections::HashSet;

use sqlx::Row;
use time::{Duration, OffsetDateTime};

use super::put::{Provisional, doom};
use super::{Error, Quarantine};
use crate::mail::TransactionId;
use crate::metrics::Counter;
use crate::privacy::error_chain;
use crate::store::timestamp::to_column;

/// Entries removed in one transaction, so that a purge never keeps other writers waiting for long.
const BATCH: i64 = 500;

/// How much longer than a recorded body one without a record stays.
const ORPHAN_GRACE: Duration = Duration::days(1);

/// What an earlier run left half done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Provisional entries that were withdrawn: no client was told that they are kept.
    pub withdrawn: u64,
    /// Deliveries whose lease was ended: the worker that held it is gone.
    pub unleased: u64,
}

/// How records and bodies agree.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Bodies looked at.
    pub bodies: u64,
    /// Bodies that no record names: left by a put that was cut off, or by restoring older records.
    pub orphans: Vec<TransactionId>,
    /// Bodies that a record names and that are not there.
    pub missing: Vec<TransactionId>,
}

impl Quarantine {
    /// Removes the entries whose time is over, and the bodies that no entry names any more. Returns the
    /// number of entries removed. What is being released stays until that has ended.
    ///
    /// # Errors
    /// A store's failure; what was removed stays removed, and the next purge goes on.
    pub async fn purge(&self, now: OffsetDateTime) -> Result<u64, Error> {
        let abandoned = now.saturating_sub(Provisional::LIFETIME);
        let mut purged = 0;
        loop {
            let removed = self
                .remove_entries(
                    "SELECT id, body_id FROM quarantine_entries WHERE \
                     (expires_at <= ?1 AND state NOT IN ('releasing', 'provisional')) \
                     OR (state = 'provisional' AND received_at <= ?2) LIMIT ?3",
                    [to_column(now), to_column(abandoned)],
                )
                .await?;
            if removed == 0 {
                break;
            }
            purged += removed;
        }
        self.remove_doomed().await?;
        Counter::Purged.add(purged, &[]);
        Ok(purged)
    }

    /// Withdraws provisional entries and ends leases, all of them: whoever made them is gone.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn recover(&self, now: OffsetDateTime) -> Result<Recovered, Error> {
        let mut recovered = Recovered::default();
        loop {
            let removed = self
                .remove_entries(
                    "SELECT id, body_id FROM quarantine_entries WHERE state = 'provisional' LIMIT ?3",
                    [0, 0],
                )
                .await?;
            if removed == 0 {
                break;
            }
            recovered.withdrawn += removed;
        }
        self.remove_doomed().await?;
        let mut write = self.records.begin().await?;
        recovered.unleased = sqlx::query(
            "UPDATE outbox SET claim = NULL, leased_until = NULL, due_at = max(due_at, ?) \
             WHERE leased_until IS NOT NULL",
        )
        .bind(to_column(now))
        .execute(&mut *write)
        .await?
        .rows_affected();
        write.commit().await?;
        Ok(recovered)
    }

    /// Compares records and bodies. Reads every id, so it is for an administrator's command, not for the
    /// way of a message; what is being put at the same time may appear as an orphan.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn verify(&self) -> Result<Verification, Error> {
        let stored: HashSet<TransactionId> = self.bodies.list().await?.into_iter().collect();
        let recorded: Vec<String> =
            sqlx::query_scalar("SELECT id FROM quarantine_bodies").fetch_all(self.records.pool()).await?;
        let recorded: HashSet<TransactionId> =
            recorded.iter().filter_map(|id| TransactionId::parse(id)).collect();
        let mut orphans: Vec<_> = stored.difference(&recorded).cloned().collect();
        let mut missing: Vec<_> = recorded.difference(&stored).cloned().collect();
        orphans.sort();
        missing.sort();
        Ok(Verification { bodies: stored.len() as u64, orphans, missing })
    }

    /// Removes the bodies that no record names and that would have expired if one did: a put that was cut
    /// off left them, and nobody was told that they are kept. Younger ones may be on their way, or wait for
    /// records that are being restored. Lists every body, so it is for once a day. Returns their number.
    ///
    /// # Errors
    /// A store's failure; what was removed stays removed.
    pub async fn remove_orphans(&self, now: OffsetDateTime) -> Result<u64, Error> {
        let expired = now.saturating_sub(self.config.retention).saturating_sub(ORPHAN_GRACE);
        let mut removed = 0;
        for id in self.bodies.list_before(expired).await? {
            let recorded: Option<i64> = sqlx::query_scalar("SELECT 1 FROM quarantine_bodies WHERE id = ?")
                .bind(id.as_str())
                .fetch_optional(self.records.pool())
                .await?;
            if recorded.is_none() {
                self.bodies.delete(&id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Removes the bodies that are marked for it. One that the backend does not let go is logged, holds up
    /// nothing else, and is tried again by the next purge.
    pub(super) async fn remove_doomed(&self) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let doomed: Vec<String> = sqlx::query_scalar(
                "SELECT id FROM quarantine_bodies WHERE doomed = 1 AND id > ? ORDER BY id LIMIT ?",
            )
            .bind(&after)
            .bind(BATCH)
            .fetch_all(self.records.pool())
            .await?;
            let Some(last) = doomed.last() else { return Ok(()) };
            after.clone_from(last);
            let mut removed = Vec::with_capacity(doomed.len());
            for id in doomed {
                match self.bodies.delete(&TransactionId::parse(&id).ok_or(Error::Malformed("body_id"))?).await
                {
                    Ok(()) => removed.push(id),
                    Err(error) => {
                        tracing::error!(id, error = error_chain(&error), "a body cannot be removed")
                    }
                }
            }
            let mut write = self.records.begin().await?;
            for id in &removed {
                sqlx::query("DELETE FROM quarantine_bodies WHERE id = ? AND doomed = 1")
                    .bind(id)
                    .execute(&mut *write)
                    .await?;
            }
            write.commit().await?;
        }
    }

    /// Removes one batch of the entries that `selection` finds, and marks their bodies.
    async fn remove_entries(&self, selection: &'static str, times: [i64; 2]) -> Result<u64, Error> {
        let mut write = self.records.begin().await?;
        let rows =
            sqlx::query(selection).bind(times[0]).bind(times[1]).bind(BATCH).fetch_all(&mut *write).await?;
        for row in &rows {
            sqlx::query("DELETE FROM quarantine_entries WHERE id = ?")
                .bind(row.try_get::<&str, _>("id")?)
                .execute(&mut *write)
                .await?;
            let body = TransactionId::parse(row.try_get("body_id")?).ok_or(Error::Malformed("body_id"))?;
            doom(&mut write, &body).await?;
        }
        write.commit().await?;
        Ok(rows.len() as u64)
    }
}
