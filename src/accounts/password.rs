//! Passwords: Argon2id (RFC 9106), in the PHC string form; and the administrator's own.
//!
//! A stored hash that is not exactly of the form that this module writes accepts no password at all: a
//! lenient parser once let a malformed hash accept every one.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::limit::{Kind, Source};
use super::session::{NewSession, Session};
use super::{Accounts, Error, Principal};
use crate::smtp::sasl;
use crate::store::timestamp::to_column;

/// Characters that a new password has at least.
pub const PASSWORD_MINIMUM_CHARS: usize = 12;
/// Bytes that a password has at most.
pub const PASSWORD_LIMIT_BYTES: usize = sasl::PASSWORD_LIMIT_BYTES;

const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;
/// Memory in KiB, passes, lanes: OWASP's first recommendation for Argon2id.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// A stored hash may ask for this much at most; more is not ours.
const COST_LIMIT: (u32, u32, u32) = (256 * 1024, 16, 4);

/// A hash of no password, which takes as long to verify as any.
pub(super) const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What came of a password.
#[derive(Debug)]
pub enum SignIn {
    /// It is right.
    Begun(NewSession),
    /// It is wrong, or none is set.
    Refused,
    /// This source has failed too often; the password was not looked at.
    Limited,
}

/// What came of changing the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordChange {
    /// It is changed; other sessions of the administrator have ended.
    Changed,
    /// The new one is too short or too long.
    Unsuitable,
    /// The current one is wrong.
    WrongCurrent,
    /// The session is not the administrator's.
    NotAllowed,
    /// This source has failed too often.
    Limited,
}

impl Accounts {
    /// Whether a password is set.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn has_password(&self) -> Result<bool, Error> {
        Ok(self.stored_hash().await?.is_some())
    }

    /// Begins an administrator's session when the password is right.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn sign_in(
        &self,
        password: &str,
        source: Source,
        now: OffsetDateTime,
    ) -> Result<SignIn, Error> {
        if !self.attempt(Kind::Password, &source.as_subject(), now).await? {
            return Ok(SignIn::Limited);
        }
        if !self.is_current(password).await? {
            return Ok(SignIn::Refused);
        }
        self.forgive(Kind::Password, &source.as_subject()).await?;
        let mut write = self.records.begin().await?;
        let session = self.begin_session(&mut write, Principal::Administrator, false, now).await?;
        write.commit().await?;
        Ok(SignIn::Begun(session))
    }

    /// Sets the password. The current one is asked for when one is set, unless the session began with a
    /// link, which is the way back in for somebody who has forgotten it.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn change_password(
        &self,
        session: &Session,
        current: &str,
        new: &str,
        source: Source,
        now: OffsetDateTime,
    ) -> Result<PasswordChange, Error> {
        if session.principal != Principal::Administrator {
            return Ok(PasswordChange::NotAllowed);
        }
        if new.len() > PASSWORD_LIMIT_BYTES || new.chars().count() < PASSWORD_MINIMUM_CHARS {
            return Ok(PasswordChange::Unsuitable);
        }
        if !session.by_link && self.has_password().await? {
            if !self.attempt(Kind::Password, &source.as_subject(), now).await? {
                return Ok(PasswordChange::Limited);
            }
            if !self.is_current(current).await? {
                return Ok(PasswordChange::WrongCurrent);
            }
            self.forgive(Kind::Password, &source.as_subject()).await?;
        }
        let hash = self.hash(new).await?;
        let mut write = self.records.begin().await?;
        sqlx::query(
            "INSERT INTO administrator (id, password_hash, changed_at) VALUES (1, ?1, ?2) \
             ON CONFLICT (id) DO UPDATE SET password_hash = ?1, changed_at = ?2",
        )
        .bind(hash)
        .bind(to_column(now))
        .execute(&mut *write)
        .await?;
        sqlx::query("DELETE FROM sessions WHERE sealed_address IS NULL AND token_hash <> ?")
            .bind(&session.hash)
            .execute(&mut *write)
            .await?;
        sqlx::query("DELETE FROM sign_in_links WHERE sealed_address IS NULL").execute(&mut *write).await?;
        write.commit().await?;
        Ok(PasswordChange::Changed)
    }

    async fn stored_hash(&self) -> Result<Option<String>, Error> {
        Ok(sqlx::query_scalar("SELECT password_hash FROM administrator WHERE id = 1")
            .fetch_optional(self.records.pool())
            .await?)
    }

    async fn is_current(&self, password: &str) -> Result<bool, Error> {
        let Some(stored) = self.stored_hash().await? else { return Ok(false) };
        if password.len() > PASSWORD_LIMIT_BYTES {
            return Ok(false);
        }
        let password = Zeroizing::new(password.to_owned());
        self.on_hashing_thread(move || Ok(verify(&password, &stored))).await
    }

    pub(super) async fn hash(&self, password: &str) -> Result<String, Error> {
        let mut salt = [0u8; SALT_LEN];
        getrandom::fill(&mut salt).map_err(Error::Random)?;
        let password = Zeroizing::new(password.to_owned());
        self.on_hashing_thread(move || hash(&password, &salt)).await
    }

    pub(super) async fn on_hashing_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        // The semaphore is never closed, so there is always a permit in the end. It goes to the thread,
        // which goes on when nobody waits for it any more.
        let permit = Arc::clone(&self.hashing).acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(|_| Error::Thread)?
    }
}

fn hash(password: &str, salt: &[u8; SALT_LEN]) -> Result<String, Error> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, Some(HASH_LEN)).map_err(Error::Hash)?;
    let mut output = [0u8; HASH_LEN];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut output)
        .map_err(Error::Hash)?;
    Ok(format!(
        "$argon2id$v=19$m={memory},t={passes},p={lanes}${}${}",
        STANDARD_NO_PAD.encode(salt),
        STANDARD_NO_PAD.encode(output)
    ))
}

/// Whether a password is the one of a stored hash. Anything unexpected in the hash is a no.
pub(super) fn verify(password: &str, stored: &str) -> bool {
    verification(password, stored).unwrap_or(false)
}

fn verification(password: &str, stored: &str) -> Option<bool> {
    let parsed = PasswordHash::new(stored).ok()?;
    if parsed.algorithm.as_str() != "argon2id" || parsed.version != Some(19) {
        return None;
    }
    let salt = parsed.salt.as_ref()?;
    let expected = parsed.hash.as_ref()?;
    if salt.len() != SALT_LEN || expected.as_bytes().len() != HASH_LEN {
        return None;
    }
    let params = Params::try_from(&parsed).ok()?;
    let (memory, passes, lanes) = COST_LIMIT;
    if params.m_cost() > memory || params.t_cost() > passes || params.p_cost() > lanes {
        return None;
    }
    let mut output = [0u8; HASH_LEN];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut output)
        .ok()?;
    Some(output.ct_eq(expected.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_accepted_by_its_own_hash_only() {
        let stored = hash("correct horse battery", &[7; 16]).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify("correct horse battery", &stored));
        assert!(!verify("correct horse batterY", &stored));
        assert!(!verify("", &stored));
    }

    #[test]
    fn the_decoy_is_verified_in_full_and_accepts_no_password() {
        for password in ["", "\0", "correct horse battery"] {
            assert_eq!(verification(password, DECOY), Some(false));
        }
    }

    #[test]
    fn a_malformed_hash_accepts_no_password() {
        let stored = hash("pw", &[7; 16]).unwrap();
        let without_output = stored.rsplit_once('$').unwrap().0;
        let without_salt = without_output.rsplit_once('$').unwrap().0;
        let malformed = [
            String::new(),
            "$".into(),
            "pw".into(),
            "$argon2id$".into(),
            without_output.into(),
            format!("{without_output}$"),
            without_salt.into(),
            format!("{without_salt}$$"),
            stored.replace("argon2id", "argon2i"),
            stored.replace("v=19$", ""),
            stored.replace("v=19", "v=16"),
            stored.replace("m=19456", "m=4000000000"),
            stored.replace("t=2", "t=4000000000"),
            format!("{stored}A"),
            stored.chars().take(stored.len() - 4).collect(),
        ];
        for hash in malformed {
            for password in ["pw", "", "$", "x"] {
                assert!(!verify(password, &hash), "{password:?} by {hash:?}");
            }
        }
    }
}
