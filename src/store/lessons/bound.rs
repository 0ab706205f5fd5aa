//! The log does not grow without end: what is old, or too much, leaves it.
//!
//! What the shared model learned from lines that go stays in a base model, from which the fold begins. Of other
//! layers only their last lines are folded at all, so that those before are simply removed.

use sqlx::{Connection, Row};
use time::OffsetDateTime;

use super::{LessonError, LessonLog};

/// How long lines stay, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Lines older than this leave.
    pub oldest: OffsetDateTime,
    /// So many stay in the shared layer.
    pub shared: u32,
    /// So many stay in each other layer.
    pub others: u32,
}

impl LessonLog {
    /// Returns the line up to which the shared layer has outgrown its bound; `None` where it has not.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn outgrown(&self, bound: &Bound) -> Result<Option<i64>, LessonError> {
        let by_age = "SELECT max(sequence) FROM lessons WHERE layer = '' AND learned_at < ?";
        let by_age: Option<i64> =
            sqlx::query_scalar(by_age).bind(bound.oldest.unix_timestamp()).fetch_one(&self.pool).await?;
        let by_number =
            "SELECT sequence FROM lessons WHERE layer = '' ORDER BY sequence DESC LIMIT 1 OFFSET ?";
        let by_number: Option<i64> =
            sqlx::query_scalar(by_number).bind(bound.shared).fetch_optional(&self.pool).await?;
        Ok(by_age.max(by_number))
    }

    /// Returns the model of what has left the shared layer, as it was given.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn base(&self) -> Result<Option<Vec<u8>>, LessonError> {
        let query = "SELECT model FROM lesson_base";
        Ok(sqlx::query_scalar(query).fetch_optional(&self.pool).await?)
    }

    /// Removes the lines of the shared layer up to `sequence`, of which `model` is the fold by the lines up to `seen`: where
    /// later ones took some of these out of force, or put them back, nothing is removed.
    ///
    /// # Errors
    /// [`LessonError::Store`]; then nothing was removed.
    pub async fn rebase(&self, sequence: i64, seen: i64, model: &[u8]) -> Result<u64, LessonError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let disturbed = "SELECT count(*) FROM lessons WHERE sequence > ?1 AND layer = ''
                         AND min(coalesce(ends, revives), coalesce(revives, ends)) <= ?2";
        let disturbed: i64 =
            sqlx::query_scalar(disturbed).bind(seen).bind(sequence).fetch_one(&mut *transaction).await?;
        if disturbed > 0 {
            return Ok(0);
        }
        sqlx::query("INSERT OR REPLACE INTO lesson_base (id, sequence, model) VALUES (1, ?, ?)")
            .bind(sequence)
            .bind(model)
            .execute(&mut *transaction)
            .await?;
        // Most lines say nothing of lines before the cut; those that do speak of what the base holds.
        let mut removed = 0;
        for statement in [
            "DELETE FROM lessons WHERE layer = '' AND retracts <= ?1",
            "UPDATE lessons SET ends = NULL WHERE layer = '' AND ends <= ?1",
            "UPDATE lessons SET revives = NULL WHERE layer = '' AND revives <= ?1",
            "DELETE FROM lessons WHERE layer = '' AND sequence <= ?1",
        ] {
            let done = sqlx::query(statement).bind(sequence).execute(&mut *transaction).await?;
            removed = done.rows_affected();
        }
        transaction.commit().await?;
        Ok(removed)
    }

    /// Removes from all layers but the shared one what is over their bound.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn trim_layers(&self, bound: &Bound) -> Result<u64, LessonError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let rows = sqlx::query(
            "SELECT sequence FROM (
                 SELECT sequence, learned_at, row_number() OVER (PARTITION BY layer ORDER BY sequence DESC) AS place
                 FROM lessons WHERE layer > '')
             WHERE learned_at < ? OR place > ?",
        )
        .bind(bound.oldest.unix_timestamp())
        .bind(bound.others)
        .fetch_all(&mut *transaction)
        .await?;
        for row in &rows {
            let sequence: i64 = row.try_get("sequence")?;
            for statement in [
                "DELETE FROM lessons WHERE retracts = ?1",
                "UPDATE lessons SET ends = NULL WHERE ends = ?1",
                "UPDATE lessons SET revives = NULL WHERE revives = ?1",
                "DELETE FROM lessons WHERE sequence = ?1",
            ] {
                sqlx::query(statement).bind(sequence).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(rows.len() as u64)
    }
}
