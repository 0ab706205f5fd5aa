//! Kept mail: put, found, reviewed, released, removed.
//!
//! One entry for each recipient, one stored body for each message. The body is sealed and immutable; what
//! is personal in an entry is sealed too, so neither the files nor the records show who wrote what to
//! whom. The state of an entry changes only in a transaction that also writes what follows from it: the
//! delivery in the outbox, the lesson in the log.
//!
//! This module delivers nothing and decides nothing: `gateway` puts messages in and drains the outbox.

mod entry;
mod outbox;
mod put;
mod retention;
mod review;
mod search;

use std::error::Error as _;
use std::io;

use thiserror::Error;
use time::Duration;

pub use entry::{Delivery, Entry, EntryId, Private, SeenLink, State};
pub use outbox::{Failure, Job, LEASE, backoff};
pub use put::{Arrival, Kept, Provisional, Summary};
pub use retention::{Recovered, Verification};
pub use review::{Action, Content, Outcome, Review, possible};
pub use search::{Cursor, PAGE_LIMIT, Page, Query, Scope, UNSEAL_LIMIT};

use crate::mail::Address;
use crate::privacy::{InstallationKey, Pseudonym, PseudonymKey};
use crate::store::{Bodies, BodiesError, Records, SealError, Sealer, Teacher};

/// How long things are kept.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How long an entry is kept after it came.
    pub retention: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config { retention: Duration::days(30) }
    }
}

/// The quarantine. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Quarantine {
    records: Records,
    bodies: Bodies,
    sealer: Sealer,
    pseudonyms: PseudonymKey,
    config: Config,
}

/// Which step failed in the quarantine.
#[derive(Debug, Error)]
pub enum Error {
    /// The bodies store failed.
    #[error("the quarantine's bodies store failed")]
    Bodies(#[from] BodiesError),
    /// The records store failed.
    #[error("the quarantine's records store failed")]
    Records(#[from] sqlx::Error),
    /// Something was not sealed or does not open.
    #[error("the quarantine's sealing failed")]
    Seal(#[source] SealError),
    /// The sealed part of a record is not what this program writes.
    #[error("a record's sealed part is malformed")]
    Record(#[source] serde_json::Error),
    /// A column holds what this program never writes.
    #[error("the column {0} of a record is malformed")]
    Malformed(&'static str),
    /// The operating system gave no random bytes.
    #[error("drawing a random id")]
    Random(#[source] getrandom::Error),
    /// The key file is not the one that sealed this quarantine.
    #[error("the key file does not belong to this quarantine; restore the right one")]
    WrongKey(#[source] SealError),
    /// A message for nobody cannot be kept.
    #[error("there is no recipient to keep the message for")]
    NoRecipient,
    /// The provisional entries are gone: they were withdrawn, or waited for longer than they may.
    #[error("the provisional entries are gone")]
    ProvisionalGone,
    /// The lesson of a decision was not made or not written.
    #[error("writing the lesson of a decision")]
    Lesson(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the cause is a full disk, for the reply 452.
    pub fn is_storage_full(&self) -> bool {
        if let Error::Records(sqlx::Error::Database(error)) = self {
            // SQLITE_FULL, without its extended bits.
            return error
                .code()
                .and_then(|code| code.parse::<i32>().ok())
                .is_some_and(|code| code & 255 == 13);
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
            {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl Quarantine {
    /// Opens the quarantine over its two stores and checks that the key is the one that sealed it. The one
    /// process that serves calls [`Quarantine::recover`] next.
    ///
    /// # Errors
    /// [`Error::WrongKey`] when the stores were sealed with another key; otherwise a store's failure.
    pub async fn open(
        records: Records,
        bodies: Bodies,
        key: &InstallationKey,
        config: Config,
    ) -> Result<Self, Error> {
        let quarantine = Quarantine {
            records,
            bodies,
            sealer: Sealer::new(key),
            pseudonyms: PseudonymKey::new(key),
            config,
        };
        quarantine.check_key().await?;
        Ok(quarantine)
    }

    async fn check_key(&self) -> Result<(), Error> {
        const PLACE: &str = "key/quarantine";
        let mut write = self.records.begin().await?;
        let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT sealed FROM quarantine_key WHERE id = 1")
            .fetch_optional(&mut *write)
            .await?;
        match sealed {
            Some(sealed) => {
                self.sealer.open(PLACE, &sealed).map_err(Error::WrongKey)?;
            }
            None => {
                let sealed = self.sealer.seal(PLACE, b"lazaret").map_err(Error::Seal)?;
                sqlx::query("INSERT INTO quarantine_key (id, sealed) VALUES (1, ?)")
                    .bind(sealed)
                    .execute(&mut *write)
                    .await?;
                write.commit().await?;
            }
        }
        Ok(())
    }

    /// Returns how the log of lessons names a person who reviews their own mail.
    pub fn teacher(&self, person: &Address) -> Teacher {
        Teacher::Person(self.address_hash(person))
    }

    /// Returns the look-up column of an address.
    fn address_hash(&self, address: &Address) -> Pseudonym {
        self.pseudonyms.pseudonym("address", &address.to_normalized())
    }
}

#[cfg(test)]
mod tests;
