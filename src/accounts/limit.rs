//! How often somebody may try something.
//!
//! An attempt is counted before it is made, so that many at once do not slip through together.

use std::net::IpAddr;

use time::{Duration, OffsetDateTime};

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
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Password => "password",
            Kind::LinkForAddress => "link-address",
            Kind::LinkFromSource => "link-source",
        }
    }

    fn window(self) -> Duration {
        match self {
            Kind::Password => Duration::minutes(15),
            Kind::LinkForAddress | Kind::LinkFromSource => LONGEST_WINDOW,
        }
    }
}

impl Accounts {
    fn limit(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Password => self.config.failures_per_source,
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
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM attempts WHERE kind = ? AND subject = ? AND at > ?")
                .bind(kind.name())
                .bind(&subject)
                .bind(to_column(now.saturating_sub(kind.window())))
                .fetch_one(&mut *write)
                .await?;
        if count >= i64::from(self.limit(kind)) {
            return Ok(false);
        }
        sqlx::query("INSERT INTO attempts (kind, subject, at) VALUES (?, ?, ?)")
            .bind(kind.name())
            .bind(&subject)
            .bind(to_column(now))
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(true)
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
