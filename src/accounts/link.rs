//! One-time links: made, limited, redeemed.

use sqlx::Row;
use time::{Duration, OffsetDateTime};

use super::limit::{Kind, Source};
use super::session::NewSession;
use super::token::{Token, keyed_hash};
use super::{Accounts, Error, Principal};
use crate::mail::Address;
use crate::store::timestamp::to_column;

impl Accounts {
    /// Makes the administrator's link that is printed at the start. Earlier ones stop working.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn printed_link(&self, now: OffsetDateTime) -> Result<Token, Error> {
        let mut write = self.records.begin().await?;
        sqlx::query("DELETE FROM sign_in_links WHERE sealed_address IS NULL").execute(&mut *write).await?;
        write.commit().await?;
        self.make_link(&Principal::Administrator, self.config.printed_link, now).await
    }

    /// Counts that somebody asks for a link; returns whether this source may still ask. It is the same for
    /// every address, so that the answer tells nothing about one.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn may_ask_for_link(&self, source: Source, now: OffsetDateTime) -> Result<bool, Error> {
        self.attempt(Kind::LinkFromSource, &source.as_subject(), now).await
    }

    /// Makes a link for a recipient, which is to be mailed to that address and to nobody else; `None` when
    /// the address has got enough of them.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn mailed_link(&self, address: &Address, now: OffsetDateTime) -> Result<Option<Token>, Error> {
        if !self.attempt(Kind::LinkForAddress, &address.to_normalized(), now).await? {
            return Ok(None);
        }
        let principal = Principal::Recipient(address.clone());
        self.make_link(&principal, self.config.mailed_link, now).await.map(Some)
    }

    /// Returns how long a mailed link works.
    pub fn mailed_link_lifetime(&self) -> Duration {
        self.config.mailed_link
    }

    /// Uses a link up and begins a session; `None` when it is unknown, expired or used.
    ///
    /// # Errors
    /// A store's failure; the link is not used up then.
    pub async fn redeem(&self, token: &Token, now: OffsetDateTime) -> Result<Option<NewSession>, Error> {
        let hash = self.link_hash(token);
        let mut write = self.records.begin().await?;
        let row = sqlx::query(
            "DELETE FROM sign_in_links WHERE token_hash = ? RETURNING sealed_address, expires_at",
        )
        .bind(&hash)
        .fetch_optional(&mut *write)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if row.try_get::<i64, _>("expires_at")? <= to_column(now) {
            write.commit().await?;
            return Ok(None);
        }
        let principal = self.open_principal(&place(&hash), row.try_get("sealed_address")?)?;
        let session = self.begin_session(&mut write, principal, true, now).await?;
        write.commit().await?;
        Ok(Some(session))
    }

    async fn make_link(
        &self,
        principal: &Principal,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Token, Error> {
        let token = Token::random()?;
        let hash = self.link_hash(&token);
        let mut write = self.records.begin().await?;
        sqlx::query("INSERT INTO sign_in_links (token_hash, sealed_address, expires_at) VALUES (?, ?, ?)")
            .bind(&hash)
            .bind(self.seal_principal(&place(&hash), principal)?)
            .bind(to_column(now.saturating_add(lifetime)))
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(token)
    }

    fn link_hash(&self, token: &Token) -> String {
        keyed_hash(&self.token_key, "link", token.expose())
    }
}

fn place(hash: &str) -> String {
    format!("link/{hash}")
}
