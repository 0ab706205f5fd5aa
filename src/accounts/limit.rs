//! How often somebody may try something.
//!
//! An attempt is counted before it is made, so that many at once do not slip through together. Where most
//! attempts succeed, failures alone are written down, and attempts under way count as failures until they
//! are over: one that could be too many waits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::SqliteConnection;
use time::{Duration, OffsetDateTime};
use tokio::sync::Notify;

use super::{Accounts, Error};
use crate::accounts::token::keyed_hash;
use crate::store::timestamp::to_column;

/// No limit looks further back than this.
pub(super) const LONGEST_WINDOW: Duration = Duration::hours(1);

/// Where a request comes from: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source(IpAddr);

impl Source {
    /// Takes the source of a connection.
    pub fn new(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Source(IpAddr::from([a, b, c, d, 0, 0, 0, 0]))
            }
            v4 => Source(v4),
        }
    }

    pub(super) fn as_subject(self) -> String {
        self.0.to_string()
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Password,
    LinkForAddress,
    LinkFromSource,
    SubmissionFromSource,
    SubmissionForName,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Password => "password",
            Kind::LinkForAddress => "link-address",
            Kind::LinkFromSource => "link-source",
            Kind::SubmissionFromSource => "submission-source",
            Kind::SubmissionForName => "submission-name",
        }
    }

    fn window(self) -> Duration {
        match self {
            Kind::Password | Kind::SubmissionFromSource | Kind::SubmissionForName => Duration::minutes(15),
            Kind::LinkForAddress | Kind::LinkFromSource => LONGEST_WINDOW,
        }
    }
}

/// Attempts that have begun and are not over, by the keyed hashes of their subjects.
#[derive(Default)]
pub(super) struct Attempts {
    /// Held while one looks whether it may begin.
    turn: tokio::sync::Mutex<()>,
    under_way: Mutex<HashMap<String, u32>>,
    over: Notify,
}

/// An attempt that has begun; dropped, it is over.
pub(super) struct UnderWay {
    attempts: Arc<Attempts>,
    subjects: [(Kind, String); 2],
}

impl Attempts {
    fn count(&self, subject: &str) -> u32 {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.get(subject).copied().unwrap_or(0)
    }

    fn begin(self: &Arc<Self>, subjects: [(Kind, String); 2]) -> UnderWay {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, subject) in &subjects {
            *under_way.entry(subject.clone()).or_default() += 1;
        }
        drop(under_way);
        UnderWay { attempts: Arc::clone(self), subjects }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.attempts.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, subject) in &self.subjects {
            if let Some(count) = under_way.get_mut(subject) {
                *count -= 1;
                if *count == 0 {
                    under_way.remove(subject);
                }
            }
        }
        drop(under_way);
        self.attempts.over.notify_waiters();
    }
}

impl Accounts {
    fn limit(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Password | Kind::SubmissionFromSource => self.config.failures_per_source,
            Kind::SubmissionForName => self.config.failures_per_name,
            Kind::LinkForAddress => self.config.links_per_address,
            Kind::LinkFromSource => self.config.links_per_source,
        }
    }

    /// Counts an attempt, unless the limit is reached; returns whether it may be made.
    pub(super) async fn attempt(
        &self,
        kind: Kind,
        subject: &str,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let subject = keyed_hash(&self.token_key, kind.name(), subject);
        let mut write = self.records.begin().await?;
        let count = count(&mut write, kind, &subject, now).await?;
        if count >= i64::from(self.limit(kind)) {
            return Ok(false);
        }
        insert(&mut write, kind, &subject, now).await?;
        write.commit().await?;
        Ok(true)
    }

    /// Begins an attempt of which only a failure is to be counted, after waiting for others where those could
    /// reach a limit; `None` when one is reached.
    pub(super) async fn enter(
        &self,
        subjects: [(Kind, &str); 2],
        now: OffsetDateTime,
    ) -> Result<Option<UnderWay>, Error> {
        let subjects =
            subjects.map(|(kind, subject)| (kind, keyed_hash(&self.token_key, kind.name(), subject)));
        loop {
            // Listens before it looks, so that no end is missed between the two.
            let mut over = std::pin::pin!(self.attempts.over.notified());
            over.as_mut().enable();
            let turn = self.attempts.turn.lock().await;
            let mut must_wait = false;
            for (kind, subject) in &subjects {
                let limit = i64::from(self.limit(*kind));
                // First those under way: one that ends in between is then counted twice, not never.
                let under_way = i64::from(self.attempts.count(subject));
                let failures = if under_way < limit {
                    count(&mut *self.records.pool().acquire().await?, *kind, subject, now).await?
                } else {
                    0
                };
                if failures >= limit {
                    return Ok(None);
                }
                must_wait |= failures + under_way >= limit;
            }
            if !must_wait {
                return Ok(Some(self.attempts.begin(subjects)));
            }
            drop(turn);
            over.await;
        }
    }

    /// Writes down that an attempt has failed.
    pub(super) async fn record_failure(&self, attempt: UnderWay, now: OffsetDateTime) -> Result<(), Error> {
        let mut write = self.records.begin().await?;
        for (kind, subject) in &attempt.subjects {
            insert(&mut write, *kind, subject, now).await?;
        }
        write.commit().await?;
        Ok(())
    }

    /// Forgets the attempts of one that has succeeded.
    pub(super) async fn forgive(&self, kind: Kind, subject: &str) -> Result<(), Error> {
        let subject = keyed_hash(&self.token_key, kind.name(), subject);
        let mut write = self.records.begin().await?;
        sqlx::query("DELETE FROM attempts WHERE kind = ? AND subject = ?")
            .bind(kind.name())
            .bind(&subject)
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(())
    }
}

async fn count(
    connection: &mut SqliteConnection,
    kind: Kind,
    subject: &str,
    now: OffsetDateTime,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM attempts WHERE kind = ? AND subject = ? AND at > ?")
        .bind(kind.name())
        .bind(subject)
        .bind(to_column(now.saturating_sub(kind.window())))
        .fetch_one(connection)
        .await?)
}

async fn insert(
    connection: &mut SqliteConnection,
    kind: Kind,
    subject: &str,
    now: OffsetDateTime,
) -> Result<(), Error> {
    sqlx::query("INSERT INTO attempts (kind, subject, at) VALUES (?, ?, ?)")
        .bind(kind.name())
        .bind(subject)
        .bind(to_column(now))
        .execute(connection)
        .await?;
    Ok(())
}
