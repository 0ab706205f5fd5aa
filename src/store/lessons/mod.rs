//! The log of lessons: append-only, in the records store.
//!
//! Each line says what somebody taught in a layer, or takes such a line back. In a layer a message counts once, with
//! the label of the last line about it that was not taken back: that line is in force. What a layer has learned is the
//! fold of its lines in force, in order. A line notes, when it is written, which others it takes out of force or puts back, so that it is known
//! which models it leaves standing. Lines hold slots and keyed hashes, no text.

mod append;
mod bound;
mod lesson;

#[cfg(test)]
mod tests;

use sqlx::{Connection, Row, SqliteConnection, SqlitePool};
use thiserror::Error;
use time::OffsetDateTime;

use super::Records;
use crate::learn::{Features, InvalidFeatures, Label, MessageKey};

pub use bound::Bound;
use lesson::entry;
pub use lesson::{Appended, FORGOTTEN_LAYER, Forget, LayerName, LogEntry, NewLesson, Tally, Taught, Teacher};

/// Why the log does not answer.
#[derive(Debug, Error)]
pub enum LessonError {
    /// The records store failed.
    #[error("using the log of lessons")]
    Store(#[from] sqlx::Error),
    /// A line cannot be read.
    #[error("reading the features of lesson {sequence}")]
    Features {
        /// The number of the line.
        sequence: i64,
        /// What is wrong with it.
        #[source]
        source: InvalidFeatures,
    },
    /// A line lacks what its kind must have.
    #[error("lesson {0} is malformed")]
    Malformed(i64),
    /// There is no such lesson to take back.
    #[error("there is no lesson {0}")]
    Unknown(i64),
    /// A lesson names no layer.
    #[error("a lesson is taught nowhere")]
    Nowhere,
}

/// The log of lessons. Cloning shares the pool.
#[derive(Debug, Clone)]
pub struct LessonLog {
    pool: SqlitePool,
}

/// The condition that a `line` is in force in its layer.
const IN_FORCE: &str = "
    AND NOT EXISTS (SELECT 1 FROM lessons taken WHERE taken.retracts = line.sequence)
    AND NOT EXISTS (
        SELECT 1 FROM lessons later
        WHERE later.message = line.message AND later.layer = line.layer AND later.kind = 'learn'
          AND later.sequence > line.sequence
          AND NOT EXISTS (SELECT 1 FROM lessons taken WHERE taken.retracts = later.sequence)) ";

/// The most lines that one call of [`LessonLog::in_force_after`] returns.
pub const MAX_BATCH: u32 = 1_000;

impl LessonLog {
    /// Takes the log of a records store.
    pub fn new(records: &Records) -> Self {
        LessonLog { pool: records.pool().clone() }
    }

    /// Takes a lesson back inside a transaction of the caller; the one before it, about the same message, is
    /// in force again. Returns `false` when it was taken back before.
    ///
    /// # Errors
    /// [`LessonError::Unknown`] when there is no such lesson; [`LessonError::Store`].
    pub async fn retract(
        connection: &mut SqliteConnection,
        sequence: i64,
        teacher: &Teacher,
        now: OffsetDateTime,
    ) -> Result<bool, LessonError> {
        let lines: Vec<(i64, Vec<u8>, String)> = sqlx::query_as(
            "SELECT sequence, message, layer FROM lessons WHERE kind = 'learn' AND (sequence = ?1 OR origin = ?1)",
        )
        .bind(sequence)
        .fetch_all(&mut *connection)
        .await?;
        if lines.is_empty() {
            return Err(LessonError::Unknown(sequence));
        }
        let mut retracted = 0;
        for (line, message, layer) in lines {
            let message = MessageKey(message.try_into().map_err(|_| LessonError::Malformed(line))?);
            let before = in_force(connection, message, &layer, None).await?.map(|(line, _)| line);
            let (ends, revives) = if before == Some(line) {
                let next = in_force(connection, message, &layer, Some(line)).await?.map(|(line, _)| line);
                (Some(line), next)
            } else {
                (None, None)
            };
            let written = sqlx::query(
                "INSERT INTO lessons (kind, retracts, ends, revives, message, learned_at, teacher, layer)
                 SELECT 'retract', ?1, ?2, ?3, ?4, ?5, ?6, ?7
                 WHERE NOT EXISTS (SELECT 1 FROM lessons WHERE retracts = ?1)",
            )
            .bind(line)
            .bind(ends)
            .bind(revives)
            .bind(message.0.as_slice())
            .bind(now.unix_timestamp())
            .bind(teacher.as_str())
            .bind(layer)
            .execute(&mut *connection)
            .await?;
            retracted += written.rows_affected();
        }
        Ok(retracted > 0)
    }

    /// Returns the lessons after a line that are in force in the shared layer, in order, at most `limit` and at most
    /// [`MAX_BATCH`].
    ///
    /// # Errors
    /// [`LessonError`]; a line that cannot be read is an error, for a model without it would be another.
    pub async fn in_force_after(&self, sequence: i64, limit: u32) -> Result<Vec<LogEntry>, LessonError> {
        let order = "ORDER BY sequence LIMIT ";
        self.in_force_in(&LayerName::Shared, sequence, order, limit.min(MAX_BATCH)).await
    }

    /// Returns the last lessons that are in force in a layer, in order, at most `limit`.
    ///
    /// # Errors
    /// As for [`LessonLog::in_force_after`].
    pub async fn last_in_force(&self, layer: &LayerName, limit: u32) -> Result<Vec<LogEntry>, LessonError> {
        let mut entries = self.in_force_in(layer, 0, "ORDER BY sequence DESC LIMIT ", limit).await?;
        entries.reverse();
        Ok(entries)
    }

    async fn in_force_in(
        &self,
        layer: &LayerName,
        sequence: i64,
        order: &str,
        limit: u32,
    ) -> Result<Vec<LogEntry>, LessonError> {
        let mut query = sqlx::QueryBuilder::new(
            "SELECT sequence, label, features, teacher, learned_at, base FROM lessons line
             WHERE kind = 'learn' AND layer = ",
        );
        query.push_bind(layer.to_column()).push(" AND sequence > ").push_bind(sequence);
        query.push(IN_FORCE).push(order).push_bind(limit);
        query.build().fetch_all(&self.pool).await?.iter().map(entry).collect()
    }

    /// Returns the layers, but the shared one, of which there are lines after `sequence`, as the log writes them. Lines
    /// that were forgotten are of [`FORGOTTEN_LAYER`]: whichever they were of.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn layers_after(&self, sequence: i64) -> Result<Vec<String>, LessonError> {
        let query = "SELECT DISTINCT layer FROM lessons WHERE sequence > ? AND layer > ''";
        Ok(sqlx::query_scalar(query).bind(sequence).fetch_all(&self.pool).await?)
    }

    /// Forgets lessons: they are taken back, none of them comes back, and what the lines said of a message and of a
    /// person is wiped. Returns how many there were.
    ///
    /// # Errors
    /// [`LessonError::Store`]; then nothing was forgotten.
    pub async fn forget(&self, which: &Forget, now: OffsetDateTime) -> Result<u64, LessonError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let (column, value): (&str, Vec<u8>) = match which {
            Forget::Message(message) => ("message", message.0.to_vec()),
            Forget::Teacher(teacher) => ("CAST(teacher AS BLOB)", teacher.as_str().as_bytes().to_vec()),
            Forget::Line(sequence) => ("CAST(sequence AS BLOB)", sequence.to_string().into_bytes()),
        };
        let mut query = sqlx::QueryBuilder::new("SELECT sequence FROM lessons WHERE kind = 'learn' AND ");
        query.push(column).push(" = ").push_bind(value).push(" ORDER BY sequence DESC");
        let lines: Vec<i64> = query.build_query_scalar().fetch_all(&mut *transaction).await?;
        for line in &lines {
            LessonLog::retract(&mut transaction, *line, &Teacher::Cli, now).await?;
        }
        for line in &lines {
            // The same act in other layers goes with it.
            sqlx::query(
                "UPDATE lessons SET message = zeroblob(16), teacher = 'forgotten', base = NULL,
                     layer = CASE layer WHEN '' THEN '' ELSE ?3 END,
                     features = CASE kind WHEN 'learn' THEN ?2 END
                 WHERE sequence = ?1 OR retracts = ?1
                    OR retracts IN (SELECT sequence FROM lessons WHERE origin = ?1) OR origin = ?1",
            )
            .bind(line)
            .bind(Features::default().encode())
            .bind(FORGOTTEN_LAYER)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(lines.len() as u64)
    }

    /// Counts the lessons in force by layer, label and kind of teacher.
    ///
    /// # Errors
    /// [`LessonError`].
    pub async fn tally(&self) -> Result<Vec<Tally>, LessonError> {
        let mut query = sqlx::QueryBuilder::new(
            "SELECT CASE WHEN layer = '' THEN 'shared' ELSE substr(layer, 1, instr(layer, ':') - 1) END AS place, label,
                    CASE WHEN teacher IN ('cli', 'administrator', 'automatic', 'implied', 'trap') THEN teacher ELSE 'person' END
                        AS who,
                    count(*)
             FROM lessons line WHERE kind = 'learn'",
        );
        query.push(IN_FORCE).push("GROUP BY place, label, who ORDER BY place DESC, label, who");
        let rows: Vec<(String, String, String, i64)> = query.build_query_as().fetch_all(&self.pool).await?;
        let tally = |(layer, label, teacher, lessons): (String, String, String, i64)| {
            let label = Label::from_name(&label).ok_or(LessonError::Malformed(0))?;
            Ok(Tally { label, teacher, layer, lessons })
        };
        rows.into_iter().map(tally).collect()
    }

    /// Returns the oldest line of the shared layer that later ones than `sequence` took out of force, or put into force again. A model
    /// that was folded up to `sequence` holds as long as there is none, or only one after it.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn disturbed_after(&self, sequence: i64) -> Result<Option<i64>, LessonError> {
        let query = "SELECT min(min(coalesce(ends, revives), coalesce(revives, ends))) FROM lessons
                     WHERE sequence > ? AND layer = ''";
        Ok(sqlx::query_scalar(query).bind(sequence).fetch_one(&self.pool).await?)
    }

    /// Returns the number of the last line; 0 when there is none.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn last_sequence(&self) -> Result<i64, LessonError> {
        let query = "SELECT coalesce(max(sequence), 0) FROM lessons";
        Ok(sqlx::query_scalar(query).fetch_one(&self.pool).await?)
    }

    /// Returns the number of the last line of the shared layer up to `end`; 0 when there is none.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn last_shared(&self, end: i64) -> Result<i64, LessonError> {
        let query = "SELECT coalesce(max(sequence), 0) FROM lessons WHERE layer = '' AND sequence <= ?";
        Ok(sqlx::query_scalar(query).bind(end).fetch_one(&self.pool).await?)
    }

    /// Returns the number of lines.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn count(&self) -> Result<i64, LessonError> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM lessons").fetch_one(&self.pool).await?)
    }

    /// Returns the message of a line, by which a snapshot proves that it was folded from this log.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn message_at(&self, sequence: i64) -> Result<Option<Vec<u8>>, LessonError> {
        let query = "SELECT message FROM lessons WHERE sequence = ?";
        Ok(sqlx::query_scalar(query).bind(sequence).fetch_optional(&self.pool).await?)
    }
}

/// Returns the last line about a message in a layer that was not taken back; `without` is passed over.
async fn in_force(
    connection: &mut SqliteConnection,
    message: MessageKey,
    layer: &str,
    without: Option<i64>,
) -> Result<Option<(i64, Label)>, LessonError> {
    let row = sqlx::query(
        "SELECT sequence, label FROM lessons line
         WHERE message = ? AND layer = ? AND kind = 'learn' AND sequence IS NOT ?
           AND NOT EXISTS (SELECT 1 FROM lessons taken WHERE taken.retracts = line.sequence)
         ORDER BY sequence DESC LIMIT 1",
    )
    .bind(message.0.as_slice())
    .bind(layer)
    .bind(without)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let sequence: i64 = row.try_get("sequence")?;
    let label = Label::from_name(row.try_get("label")?).ok_or(LessonError::Malformed(sequence))?;
    Ok(Some((sequence, label)))
}
