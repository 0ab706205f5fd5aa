//! Releases on their way to the next hop.
//!
//! A row is made by the click that releases, in the same transaction. Whoever delivers takes a lease on
//! it, so that two workers never deliver the same entry, and a worker that dies loses only its lease. The
//! row goes when the next hop has taken the message, or has refused it for good.

use sqlx::Row;
use time::{Duration, OffsetDateTime};

use super::entry::{EntryId, Private, State};
use super::{Error, Quarantine};
use crate::mail::{Address, Direction, Mail, Recipient, TransactionId};
use crate::metrics::Counter;
use crate::store::timestamp::{from_column, to_column};

/// How long a worker may take over one attempt.
pub const LEASE: Duration = Duration::minutes(10);

/// Why an attempt failed, in words that are safe to store and show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke.
    Unreachable,
    /// A 4xx reply.
    Temporary(u16),
    /// A 5xx reply.
    Permanent(u16),
    /// The body is gone or does not open.
    Unreadable,
    /// Nothing succeeded for as long as is tried.
    GaveUp,
}

impl Failure {
    /// Returns the name under which it is stored: `unreachable`, `temporary-451`.
    pub fn to_name(self) -> String {
        match self {
            Failure::Unreachable => "unreachable".to_owned(),
            Failure::Temporary(code) => format!("temporary-{code}"),
            Failure::Permanent(code) => format!("permanent-{code}"),
            Failure::Unreadable => "unreadable".to_owned(),
            Failure::GaveUp => "gave-up".to_owned(),
        }
    }

    /// Reads what [`Failure::to_name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.split_once('-') {
            None if name == "unreachable" => Some(Failure::Unreachable),
            None if name == "unreadable" => Some(Failure::Unreadable),
            Some(("gave", "up")) => Some(Failure::GaveUp),
            Some(("temporary", code)) => code.parse().ok().map(Failure::Temporary),
            Some(("permanent", code)) => code.parse().ok().map(Failure::Permanent),
            _ => None,
        }
    }
}

/// One delivery to attempt, leased to whoever holds this.
#[derive(Debug, Clone)]
pub struct Job {
    /// The entry.
    pub entry: EntryId,
    /// The transaction that brought the message.
    pub transaction: TransactionId,
    /// Which way it travels.
    pub direction: Direction,
    /// The MAIL command as it was given.
    pub mail: Mail,
    /// The recipient; always one.
    pub recipient: Recipient,
    /// Attempts that ended before this one.
    pub attempts: u32,
    claim: String,
}

/// Returns how long to wait after the given number of attempts; `None` when it is time to give up, after
/// about five days.
pub fn backoff(attempts: u32) -> Option<Duration> {
    match attempts {
        0 => Some(Duration::ZERO),
        1 => Some(Duration::seconds(30)),
        2 => Some(Duration::minutes(2)),
        3 => Some(Duration::minutes(10)),
        4 => Some(Duration::minutes(30)),
        5..=9 => Some(Duration::hours(1)),
        10..=37 => Some(Duration::hours(4)),
        _ => None,
    }
}

impl Quarantine {
    /// Takes up to `limit` deliveries that are due, oldest first, for the time of [`LEASE`].
    ///
    /// # Errors
    /// A store's failure: nothing was taken. An entry that does not open is marked failed and left out.
    pub async fn claim_due(&self, now: OffsetDateTime, limit: usize) -> Result<Vec<Job>, Error> {
        let claim = EntryId::random()?.to_string();
        let mut write = self.records.begin().await?;
        let rows = sqlx::query(
            "SELECT o.entry_id, o.attempts, e.body_id, e.direction, e.size_bytes, e.sealed \
             FROM outbox o JOIN quarantine_entries e ON e.id = o.entry_id \
             WHERE o.due_at <= ?1 AND (o.leased_until IS NULL OR o.leased_until <= ?1) \
             ORDER BY o.due_at LIMIT ?2",
        )
        .bind(to_column(now))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *write)
        .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut jobs = Vec::with_capacity(rows.len());
        let mut unreadable = Vec::new();
        for row in &rows {
            let entry = EntryId::parse(row.try_get("entry_id")?).ok_or(Error::Malformed("entry_id"))?;
            match self.job(row, entry.clone(), claim.clone()) {
                Ok(job) => jobs.push(job),
                Err(error) => {
                    tracing::error!(%entry, %error, "a release cannot be read");
                    unreadable.push(entry.clone());
                }
            }
            sqlx::query("UPDATE outbox SET claim = ?, leased_until = ? WHERE entry_id = ?")
                .bind(&claim)
                .bind(to_column(now.saturating_add(LEASE)))
                .bind(entry.as_str())
                .execute(&mut *write)
                .await?;
        }
        write.commit().await?;
        for entry in unreadable {
            self.end(&entry, &claim, State::Failed, Some(Failure::Unreadable), now).await?;
        }
        Ok(jobs)
    }

    fn job(&self, row: &sqlx::sqlite::SqliteRow, entry: EntryId, claim: String) -> Result<Job, Error> {
        let private = Private::open(row.try_get("sealed")?, &entry, &self.sealer)?;
        let reverse_path = private.reverse_path.expose();
        let reverse_path = if reverse_path.is_empty() {
            None
        } else {
            Some(Address::parse(reverse_path).map_err(|_| Error::Malformed("reverse_path"))?)
        };
        let parameters = private.parameters.expose().clone();
        Ok(Job {
            transaction: TransactionId::parse(row.try_get("body_id")?).ok_or(Error::Malformed("body_id"))?,
            direction: Direction::from_name(row.try_get("direction")?)
                .ok_or(Error::Malformed("direction"))?,
            mail: Mail {
                reverse_path,
                size_bytes: u64::try_from(row.try_get::<i64, _>("size_bytes")?).ok(),
                body: parameters.body,
                smtputf8: parameters.smtputf8,
                require_tls: parameters.require_tls,
                ret: parameters.ret,
                envelope_id: parameters.envelope_id,
                prdr: false,
            },
            recipient: Recipient {
                address: Address::parse(private.recipient.expose())
                    .map_err(|_| Error::Malformed("recipient"))?,
                notify: parameters.notify,
                original: parameters.original,
            },
            attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
            entry,
            claim,
        })
    }

    /// Records that the next hop has the message. Returns whether the job was still leased to its holder.
    ///
    /// # Errors
    /// A store's failure; the message may be delivered a second time when the lease ends.
    pub async fn delivered(&self, job: &Job, now: OffsetDateTime) -> Result<bool, Error> {
        Counter::OutboxAttempts.increment(&[("result", "delivered")]);
        self.end(&job.entry, &job.claim, State::Released, None, now).await
    }

    /// Records a failed attempt: the job is due again after [`backoff`], or has failed for good when the
    /// next hop said so or it is time to give up. Returns the state of the entry, `None` when the job was
    /// not leased to its holder any more.
    ///
    /// # Errors
    /// A store's failure; the job is due again when the lease ends.
    pub async fn not_delivered(
        &self,
        job: &Job,
        failure: Failure,
        now: OffsetDateTime,
    ) -> Result<Option<State>, Error> {
        let attempts = job.attempts.saturating_add(1);
        let wait = match failure {
            Failure::Permanent(_) | Failure::Unreadable | Failure::GaveUp => None,
            Failure::Unreachable | Failure::Temporary(_) => backoff(attempts),
        };
        let Some(wait) = wait else {
            Counter::OutboxAttempts.increment(&[("result", "failed")]);
            let ended = self.end(&job.entry, &job.claim, State::Failed, Some(failure), now).await?;
            return Ok(ended.then_some(State::Failed));
        };
        Counter::OutboxAttempts.increment(&[("result", "deferred")]);
        let mut write = self.records.begin().await?;
        let held = sqlx::query(
            "UPDATE outbox SET attempts = ?, due_at = ?, last_failure = ?, claim = NULL, leased_until = NULL \
             WHERE entry_id = ? AND claim = ?",
        )
        .bind(i64::from(attempts))
        .bind(to_column(now.saturating_add(wait)))
        .bind(failure.to_name())
        .bind(job.entry.as_str())
        .bind(&job.claim)
        .execute(&mut *write)
        .await?
        .rows_affected();
        write.commit().await?;
        Ok((held == 1).then_some(State::Releasing))
    }

    /// Returns when the next delivery is due, leases counted as busy; `None` when nothing waits.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn next_due(&self) -> Result<Option<OffsetDateTime>, Error> {
        let due: Option<i64> =
            sqlx::query_scalar("SELECT min(max(due_at, coalesce(leased_until, 0))) FROM outbox")
                .fetch_one(self.records.pool())
                .await?;
        Ok(due.map(from_column))
    }

    /// Returns how many releases wait.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn waiting(&self) -> Result<u64, Error> {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(self.records.pool()).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Takes a job out of the outbox and gives its entry the state it ended in.
    async fn end(
        &self,
        entry: &EntryId,
        claim: &str,
        state: State,
        failure: Option<Failure>,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let mut write = self.records.begin().await?;
        let held = sqlx::query("DELETE FROM outbox WHERE entry_id = ? AND claim = ?")
            .bind(entry.as_str())
            .bind(claim)
            .execute(&mut *write)
            .await?
            .rows_affected();
        if held != 1 {
            return Ok(false);
        }
        sqlx::query("UPDATE quarantine_entries SET state = ?, failure = ?, changed_at = ? WHERE id = ?")
            .bind(state.as_str())
            .bind(failure.map(Failure::to_name))
            .bind(to_column(now))
            .bind(entry.as_str())
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_survive_their_column() {
        for failure in [
            Failure::Unreachable,
            Failure::Temporary(451),
            Failure::Permanent(550),
            Failure::Unreadable,
            Failure::GaveUp,
        ] {
            assert_eq!(Failure::from_name(&failure.to_name()), Some(failure));
        }
        for bad in ["", "temporary", "temporary-x", "temporary-99999999", "gave"] {
            assert_eq!(Failure::from_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn waiting_grows_and_ends_after_five_days() {
        let mut total = Duration::ZERO;
        let mut last = Duration::ZERO;
        let mut attempts = 0;
        while let Some(wait) = backoff(attempts) {
            assert!(wait >= last);
            last = wait;
            total += wait;
            attempts += 1;
        }
        assert!((Duration::days(4)..Duration::days(6)).contains(&total), "{total}");
    }
}
