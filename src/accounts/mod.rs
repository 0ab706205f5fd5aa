//! Who may look at kept mail, and who may hand mail in: one administrator, every recipient at their own, and
//! submission accounts.
//!
//! The administrator signs in with a password or with a link printed at the start; a recipient with a
//! link mailed to their own address, which proves that it is theirs. Links work once. A submission account
//! signs in over SMTP, and sends only as whom the administrator allowed. What is stored opens nothing:
//! tokens stand as keyed hashes, passwords as Argon2id hashes and SCRAM keys, addresses and names sealed.
//!
//! This module sends no mail and knows no cookie; `digest` and `web` do.

mod limit;
mod link;
mod password;
mod session;
mod submission;
mod token;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use time::{Duration, OffsetDateTime};
use tokio::sync::Semaphore;

pub use limit::Source;
pub use password::{PASSWORD_LIMIT_BYTES, PASSWORD_MINIMUM_CHARS, PasswordChange, SignIn};
pub use session::{NewSession, Session};
pub use submission::{Added, AllowedSender, InvalidName, LoginName, ScramVerdict, Submitter, Verdict};
pub use token::Token;

use crate::mail::{Address, InvalidAddress};
use crate::privacy::{InstallationKey, Purpose};
use crate::store::timestamp::to_column;
use crate::store::{Records, SealError, Sealer};

/// Somebody who has signed in.
#[derive(Clone, PartialEq, Eq)]
pub enum Principal {
    /// Sees all kept mail.
    Administrator,
    /// Sees the mail kept for this address.
    Recipient(Address),
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Principal::Administrator => "Administrator",
            Principal::Recipient(_) => "Recipient([redacted])",
        })
    }
}

/// How long links and sessions last, and how often somebody may try.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How long a link in a mail works.
    pub mailed_link: Duration,
    /// How long the link printed at the start works.
    pub printed_link: Duration,
    /// How long a session lasts without a request.
    pub session_idle: Duration,
    /// How long a session lasts at most.
    pub session_total: Duration,
    /// Wrong passwords from one source in a quarter of an hour: the administrator's, and apart from them
    /// those of submission accounts.
    pub failures_per_source: u32,
    /// Wrong passwords for one submission account in a quarter of an hour, from everywhere. More than for a
    /// source, so that a single one does not lock somebody else out.
    pub failures_per_name: u32,
    /// Links mailed to one address in an hour.
    pub links_per_address: u32,
    /// Links asked for by one source in an hour.
    pub links_per_source: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mailed_link: Duration::minutes(15),
            printed_link: Duration::hours(24),
            session_idle: Duration::minutes(30),
            session_total: Duration::hours(12),
            failures_per_source: 10,
            failures_per_name: 50,
            links_per_address: 5,
            links_per_source: 30,
        }
    }
}

/// The accounts. Cloning shares them.
#[derive(Clone)]
pub struct Accounts {
    records: Records,
    sealer: Sealer,
    token_key: [u8; 32],
    /// One Argon2id computation takes 19 MiB; this bounds how many run at once.
    hashing: Arc<Semaphore>,
    attempts: Arc<limit::Attempts>,
    config: Config,
}

/// Which step failed in the accounts.
#[derive(Debug, Error)]
pub enum Error {
    /// The records store failed.
    #[error("the accounts' records store failed")]
    Records(#[from] sqlx::Error),
    /// An address was not sealed or does not open.
    #[error("sealing an address failed")]
    Seal(#[source] SealError),
    /// A sealed address is none.
    #[error("a stored address is malformed")]
    Address(#[source] InvalidAddress),
    /// The operating system gave no random bytes.
    #[error("drawing a random token")]
    Random(#[source] getrandom::Error),
    /// A stored submission account is none, or cannot be written.
    #[error("a stored submission account is malformed")]
    Submitter,
    /// Argon2id did not run.
    #[error("hashing a password: {0}")]
    Hash(argon2::Error),
    /// The thread that hashed is gone.
    #[error("the hashing thread ended early")]
    Thread,
}

impl Accounts {
    /// Opens the accounts over the records store.
    pub fn new(records: Records, key: &InstallationKey, config: Config) -> Self {
        Accounts {
            records,
            sealer: Sealer::new(key),
            token_key: key.derive(Purpose::Tokens),
            hashing: Arc::new(Semaphore::new(2)),
            attempts: Arc::default(),
            config,
        }
    }

    /// Removes expired links, ended sessions and old attempts. Nothing depends on it but the size of the
    /// store. Returns how many rows went.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn purge(&self, now: OffsetDateTime) -> Result<u64, Error> {
        let mut write = self.records.begin().await?;
        let mut removed = 0;
        for (statement, before) in [
            ("DELETE FROM sign_in_links WHERE expires_at <= ?", now),
            ("DELETE FROM sessions WHERE seen_at <= ?", now.saturating_sub(self.config.session_idle)),
            ("DELETE FROM sessions WHERE created_at <= ?", now.saturating_sub(self.config.session_total)),
            ("DELETE FROM attempts WHERE at <= ?", now.saturating_sub(limit::LONGEST_WINDOW)),
        ] {
            removed +=
                sqlx::query(statement).bind(to_column(before)).execute(&mut *write).await?.rows_affected();
        }
        write.commit().await?;
        Ok(removed)
    }

    fn seal_principal(&self, place: &str, principal: &Principal) -> Result<Option<Vec<u8>>, Error> {
        match principal {
            Principal::Administrator => Ok(None),
            Principal::Recipient(address) => {
                self.sealer.seal(place, address.to_path().as_bytes()).map(Some).map_err(Error::Seal)
            }
        }
    }

    fn open_principal(&self, place: &str, sealed: Option<&[u8]>) -> Result<Principal, Error> {
        let Some(sealed) = sealed else { return Ok(Principal::Administrator) };
        let path = self.sealer.open(place, sealed).map_err(Error::Seal)?;
        let address = Address::parse(&String::from_utf8_lossy(&path)).map_err(Error::Address)?;
        Ok(Principal::Recipient(address))
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
