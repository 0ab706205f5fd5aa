//! Submission accounts: who may hand in mail under a name and a password, and whom they may send as.
//!
//! A name is found by its keyed hash; the name, the allowed senders, the Argon2id hash and the SCRAM keys
//! stand sealed beside it. What a command changes here, the running gateway sees at the next MAIL.

mod name;
mod sign_in;

use std::fmt;

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use name::{AllowedSender, InvalidName, LoginName};
pub use sign_in::{ScramVerdict, Verdict};

use super::token::keyed_hash;
use super::{Accounts, Error, PASSWORD_LIMIT_BYTES, PASSWORD_MINIMUM_CHARS};
use crate::mail::Address;
use crate::smtp::sasl::{self, ScramKeys};
use crate::store::timestamp::{from_column, to_column};

/// Iterations of PBKDF2 in new SCRAM keys: a client does them at every sign-in. The keys stand sealed, so
/// this is the second line.
const SCRAM_ITERATIONS: u32 = 20_000;

/// A submission account. It prints nothing personal.
#[derive(Clone)]
pub struct Submitter {
    /// The name it signs in under.
    pub name: LoginName,
    /// Whom it may send as, beside the null reverse-path.
    pub senders: Vec<AllowedSender>,
    /// Whether it may not sign in for now.
    pub is_disabled: bool,
    /// When it was added.
    pub created_at: OffsetDateTime,
}

impl Submitter {
    /// Whether it may send as this reverse-path. Everybody may send as `<>`: notices and answers of
    /// machines go out so, and nobody is impersonated.
    pub fn may_send_as(&self, reverse_path: Option<&Address>) -> bool {
        reverse_path.is_none_or(|address| self.senders.iter().any(|sender| sender.covers(address)))
    }
}

impl fmt::Debug for Submitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").field("is_disabled", &self.is_disabled).finish_non_exhaustive()
    }
}

/// What came of adding an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is there.
    Added,
    /// There is one of this name already; it is as it was.
    NameTaken,
    /// The password is too short or too long, is the name, or has a character that passwords may not have.
    UnsuitablePassword,
}

/// The sealed part of an account.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Secret {
    name: String,
    senders: Vec<String>,
    password_hash: String,
    salt: [u8; 16],
    iterations: u32,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Secret {
    fn scram_keys(&self) -> ScramKeys {
        ScramKeys {
            salt: self.salt,
            iterations: self.iterations,
            stored_key: self.stored_key,
            server_key: self.server_key,
        }
    }
}

impl Accounts {
    /// Adds a submission account. The password follows the rules of the administrator's own: at least
    /// [`PASSWORD_MINIMUM_CHARS`] characters and at most [`PASSWORD_LIMIT_BYTES`] bytes.
    ///
    /// # Errors
    /// A store's failure, or no random bytes.
    pub async fn add_submitter(
        &self,
        name: &LoginName,
        password: &str,
        senders: &[AllowedSender],
        now: OffsetDateTime,
    ) -> Result<Added, Error> {
        let Some(password) = suitable(name, password) else { return Ok(Added::UnsuitablePassword) };
        let hash = self.name_hash(name);
        if self.find_submitter(name).await?.is_some() {
            return Ok(Added::NameTaken);
        }
        let mut salt = [0u8; 16];
        getrandom::fill(&mut salt).map_err(Error::Random)?;
        let password_hash = self.hash(&password).await?;
        let keys =
            self.on_hashing_thread(move || Ok(ScramKeys::derive(&password, salt, SCRAM_ITERATIONS))).await?;
        let secret = Secret {
            name: name.as_str().to_owned(),
            senders: senders.iter().map(AllowedSender::to_text).collect(),
            password_hash,
            salt,
            iterations: keys.iterations,
            stored_key: keys.stored_key,
            server_key: keys.server_key,
        };
        let text = Zeroizing::new(serde_json::to_vec(&secret).map_err(|_| Error::Submitter)?);
        let sealed = self.sealer.seal(&place(&hash), &text).map_err(Error::Seal)?;
        let mut write = self.records.begin().await?;
        let written = sqlx::query(
            "INSERT INTO submission_accounts (name_hash, sealed_account, is_disabled, created_at) \
             VALUES (?, ?, 0, ?) ON CONFLICT (name_hash) DO NOTHING",
        )
        .bind(&hash)
        .bind(sealed)
        .bind(to_column(now))
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(if written.rows_affected() == 1 { Added::Added } else { Added::NameTaken })
    }

    /// Returns all submission accounts, by name.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn submitters(&self) -> Result<Vec<Submitter>, Error> {
        let rows = sqlx::query(SELECT_ALL).fetch_all(self.records.pool()).await?;
        let mut submitters = Vec::with_capacity(rows.len());
        for row in &rows {
            submitters.push(self.open_submitter(row)?.0);
        }
        submitters.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(submitters)
    }

    /// Returns the submission account of a name, disabled or not.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn submitter(&self, name: &LoginName) -> Result<Option<Submitter>, Error> {
        Ok(self.find_submitter(name).await?.map(|(submitter, _)| submitter))
    }

    /// Removes a submission account; returns whether there was one. Sessions that have signed in with it
    /// send no further message.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn remove_submitter(&self, name: &LoginName) -> Result<bool, Error> {
        let mut write = self.records.begin().await?;
        let removed = sqlx::query("DELETE FROM submission_accounts WHERE name_hash = ?")
            .bind(self.name_hash(name))
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(removed.rows_affected() > 0)
    }

    /// Disables a submission account or lets it in again; returns whether there is one.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn disable_submitter(&self, name: &LoginName, disabled: bool) -> Result<bool, Error> {
        let mut write = self.records.begin().await?;
        let changed = sqlx::query("UPDATE submission_accounts SET is_disabled = ? WHERE name_hash = ?")
            .bind(disabled)
            .bind(self.name_hash(name))
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(changed.rows_affected() > 0)
    }

    async fn find_submitter(&self, name: &LoginName) -> Result<Option<(Submitter, Secret)>, Error> {
        let row =
            sqlx::query(SELECT_ONE).bind(self.name_hash(name)).fetch_optional(self.records.pool()).await?;
        row.map(|row| self.open_submitter(&row)).transpose()
    }

    fn open_submitter(&self, row: &SqliteRow) -> Result<(Submitter, Secret), Error> {
        let hash: &str = row.try_get("name_hash")?;
        let sealed: &[u8] = row.try_get("sealed_account")?;
        let text = Zeroizing::new(self.sealer.open(&place(hash), sealed).map_err(Error::Seal)?);
        // The cause would quote what it could not read.
        let secret: Secret = serde_json::from_slice(&text).map_err(|_| Error::Submitter)?;
        let senders: Result<Vec<_>, _> =
            secret.senders.iter().map(|sender| AllowedSender::parse(sender)).collect();
        let submitter = Submitter {
            name: LoginName::from_stored(secret.name.clone()),
            senders: senders.map_err(Error::Address)?,
            is_disabled: row.try_get("is_disabled")?,
            created_at: from_column(row.try_get("created_at")?),
        };
        Ok((submitter, secret))
    }

    fn name_hash(&self, name: &LoginName) -> String {
        keyed_hash(&self.token_key, "submission", name.as_str())
    }
}

const SELECT_ALL: &str = "SELECT name_hash, sealed_account, is_disabled, created_at FROM submission_accounts";
const SELECT_ONE: &str =
    "SELECT name_hash, sealed_account, is_disabled, created_at FROM submission_accounts WHERE name_hash = ?";

/// Returns the prepared password, unless it is too weak or cannot be typed alike everywhere.
fn suitable(name: &LoginName, password: &str) -> Option<Zeroizing<String>> {
    if password.len() > PASSWORD_LIMIT_BYTES {
        return None;
    }
    let prepared = sasl::prepare(password)?;
    let long_enough = prepared.chars().count() >= PASSWORD_MINIMUM_CHARS;
    let is_other = prepared.to_lowercase() != name.as_str();
    (long_enough && prepared.len() <= PASSWORD_LIMIT_BYTES && is_other).then_some(prepared)
}

fn place(hash: &str) -> String {
    format!("submission/{hash}")
}

#[cfg(test)]
mod tests;
