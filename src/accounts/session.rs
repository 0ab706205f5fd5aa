//! Sessions: begun by a sign-in, found by their cookie, ended by time or by the person.

use std::fmt;

use sqlx::{Row, SqliteConnection};
use time::{Duration, OffsetDateTime};

use super::token::{Token, equal, keyed_hash};
use super::{Accounts, Error, Principal};
use crate::store::timestamp::{from_column, to_column};

/// A session's last use is written down this often, not at every request.
const SEEN_STEP: Duration = Duration::minutes(1);

/// A session that has just begun.
#[derive(Debug)]
pub struct NewSession {
    /// The value of the cookie; it is nowhere else.
    pub cookie: Token,
    /// Whose it is.
    pub principal: Principal,
}

/// A session that was found by its cookie.
#[derive(Clone)]
pub struct Session {
    /// Who is signed in.
    pub principal: Principal,
    /// Whether it began with a one-time link, not with a password.
    pub by_link: bool,
    pub(super) hash: String,
    form_token: String,
}

impl Session {
    /// Returns the token that every form of this session carries.
    pub fn form_token(&self) -> &str {
        &self.form_token
    }

    /// Whether a form's token is this session's.
    pub fn accepts(&self, form_token: &str) -> bool {
        equal(&self.form_token, form_token)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl Accounts {
    /// Finds a session by its cookie; `None` when it is unknown or over.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn session(&self, cookie: &Token, now: OffsetDateTime) -> Result<Option<Session>, Error> {
        let hash = self.session_hash(cookie);
        let row = sqlx::query(
            "SELECT sealed_address, by_link, created_at, seen_at FROM sessions WHERE token_hash = ?",
        )
        .bind(&hash)
        .fetch_optional(self.records.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let created_at = from_column(row.try_get("created_at")?);
        let seen_at = from_column(row.try_get("seen_at")?);
        if now - created_at >= self.config.session_total || now - seen_at >= self.config.session_idle {
            self.end_session(cookie).await?;
            return Ok(None);
        }
        if now - seen_at >= SEEN_STEP {
            let mut write = self.records.begin().await?;
            sqlx::query("UPDATE sessions SET seen_at = max(seen_at, ?) WHERE token_hash = ?")
                .bind(to_column(now))
                .bind(&hash)
                .execute(&mut *write)
                .await?;
            write.commit().await?;
        }
        Ok(Some(Session {
            principal: self.open_principal(&place(&hash), row.try_get("sealed_address")?)?,
            by_link: row.try_get("by_link")?,
            form_token: keyed_hash(&self.token_key, "form", cookie.expose()),
            hash,
        }))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn end_session(&self, cookie: &Token) -> Result<(), Error> {
        let mut write = self.records.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE token_hash = ?")
            .bind(self.session_hash(cookie))
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(())
    }

    pub(super) async fn begin_session(
        &self,
        write: &mut SqliteConnection,
        principal: Principal,
        by_link: bool,
        now: OffsetDateTime,
    ) -> Result<NewSession, Error> {
        let cookie = Token::random()?;
        let hash = self.session_hash(&cookie);
        sqlx::query(
            "INSERT INTO sessions (token_hash, sealed_address, by_link, created_at, seen_at) \
             VALUES (?1, ?2, ?3, ?4, ?4)",
        )
        .bind(&hash)
        .bind(self.seal_principal(&place(&hash), &principal)?)
        .bind(by_link)
        .bind(to_column(now))
        .execute(write)
        .await?;
        Ok(NewSession { cookie, principal })
    }

    fn session_hash(&self, cookie: &Token) -> String {
        keyed_hash(&self.token_key, "session", cookie.expose())
    }
}

fn place(hash: &str) -> String {
    format!("session/{hash}")
}
