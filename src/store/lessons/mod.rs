//! The log of lessons: append-only, in the records store.
//!
//! Each line says what somebody taught in a layer, or takes such a line back. In a layer a message counts once, with
//! the label of the last line about it that was not taken back: that line is in force. What a layer has learned is the
//! fold of its lines in force, in order. A line notes, when it is written, which others it takes out of force or puts back, so that it is known
//! which models it leaves standing. Lines hold slots and keyed hashes, no text.

mod bound;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection, SqlitePool};
use thiserror::Error;
use time::OffsetDateTime;

use super::Records;
use crate::learn::{Base, Features, InvalidFeatures, Label, Lesson, MessageKey, Weight};
use crate::privacy::Pseudonym;

pub use bound::Bound;

/// Who taught a lesson.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Teacher {
    /// Somebody at the command line, or a mail server.
    Cli,
    /// The administrator, in review.
    Administrator,
    /// The gateway itself, of a message on which all that it knows agrees.
    Automatic,
    /// The gateway itself, of a message of which nobody complained.
    Implied,
    /// The gateway itself, of a message to an address that nobody uses.
    Trap,
    /// A person, by pseudonym.
    Person(Pseudonym),
}

impl Teacher {
    fn as_str(&self) -> &str {
        match self {
            Teacher::Cli => "cli",
            Teacher::Administrator => "administrator",
            Teacher::Automatic => "automatic",
            Teacher::Implied => "implied",
            Teacher::Trap => "trap",
            Teacher::Person(pseudonym) => pseudonym.as_str(),
        }
    }
}

/// Where a lesson is learned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LayerName {
    /// By all.
    Shared,
    /// By those of an organisation.
    Organisation(Pseudonym),
    /// By a person alone.
    Person(Pseudonym),
}

impl LayerName {
    /// Returns what the log writes.
    pub fn to_column(&self) -> String {
        match self {
            LayerName::Shared => String::new(),
            LayerName::Organisation(name) => format!("{ORGANISATION}{name}"),
            LayerName::Person(name) => format!("{PERSON}{name}"),
        }
    }
}

/// The layer of what was forgotten in a layer of somebody.
pub const FORGOTTEN_LAYER: &str = "forgotten:";
const ORGANISATION: &str = "organisation:";
const PERSON: &str = "person:";

/// A layer in which a lesson is taught, and what those above it said of the message.
#[derive(Debug, Clone, PartialEq)]
pub struct Taught {
    /// Which.
    pub layer: LayerName,
    /// What was said above; nothing above the shared layer.
    pub base: Base,
}

impl Taught {
    /// The shared layer.
    pub const SHARED: Taught =
        Taught { layer: LayerName::Shared, base: Base { margins: [0.0; 3], lessons: 0 } };
}

/// A lesson to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewLesson {
    /// In which layers; at least one.
    pub layers: Vec<Taught>,
    /// Of which message.
    pub message: MessageKey,
    /// What is said of it.
    pub label: Label,
    /// Its features.
    pub features: Features,
    /// Who teaches it.
    pub teacher: Teacher,
    /// When.
    pub learned_at: OffsetDateTime,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appended {
    /// Messages that were not known.
    pub learned: u64,
    /// Messages that were known under the other label.
    pub relabelled: u64,
    /// Messages that were known under this label; nothing was written.
    pub already_known: u64,
}

/// A lesson in force and its line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// The number of the line; they ascend, with gaps.
    pub sequence: i64,
    /// What a model learns.
    pub lesson: Lesson,
    /// What the layers above said.
    pub base: Base,
    /// Who taught it: what the log writes for a [`Teacher`].
    pub teacher: String,
    /// When.
    pub learned_at: OffsetDateTime,
}

/// Which lessons are to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forget {
    /// All about a message.
    Message(MessageKey),
    /// All that somebody taught.
    Teacher(Teacher),
    /// That of one line.
    Line(i64),
}

/// How many lessons are in force of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// What was said.
    pub label: Label,
    /// Who taught: `cli`, `administrator`, `automatic`, `implied`, `trap` or `person`.
    pub teacher: String,
    /// Where: `shared`, `organisation` or `person`.
    pub layer: String,
    /// How many.
    pub lessons: i64,
}

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

    /// Writes a lesson inside a transaction of the caller, a line for each layer, and returns its number for
    /// [`LessonLog::retract`].
    ///
    /// It is written even when the same is in force already: each person's word can be taken back by itself.
    ///
    /// # Errors
    /// [`LessonError::Store`].
    pub async fn append(connection: &mut SqliteConnection, new: &NewLesson) -> Result<i64, LessonError> {
        let (_, rows) = plan(connection, std::slice::from_ref(new), Which::Every).await?;
        write(connection, &rows).await?;
        rows.first().map(|row| row.sequence).ok_or(LessonError::Nowhere)
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

    /// Writes a batch in one transaction, leaving out what is in force already.
    ///
    /// # Errors
    /// [`LessonError::Store`]; then nothing of the batch was written.
    pub async fn append_all(&self, batch: &[NewLesson]) -> Result<Appended, LessonError> {
        let mut connection = self.pool.acquire().await?;
        // The write lock comes first: what is in force must not change between the look and the write.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let (appended, rows) = plan(&mut transaction, batch, Which::Changed).await?;
        write(&mut transaction, &rows).await?;
        transaction.commit().await?;
        Ok(appended)
    }

    /// Writes those of a batch in one transaction of whose messages nothing is in force in their layer.
    ///
    /// # Errors
    /// [`LessonError::Store`]; then nothing of the batch was written.
    pub async fn append_new(&self, batch: &[NewLesson]) -> Result<(), LessonError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let (_, rows) = plan(&mut transaction, batch, Which::New).await?;
        write(&mut transaction, &rows).await?;
        transaction.commit().await?;
        Ok(())
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
                     layer = CASE layer WHEN '' THEN '' ELSE 'forgotten:' END,
                     features = CASE kind WHEN 'learn' THEN ?2 END
                 WHERE sequence = ?1 OR retracts = ?1
                    OR retracts IN (SELECT sequence FROM lessons WHERE origin = ?1) OR origin = ?1",
            )
            .bind(line)
            .bind(Features::default().encode())
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

/// Which lessons of a batch are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// All.
    Every,
    /// Those that say something else than what is in force.
    Changed,
    /// Those of whose messages nothing is in force.
    New,
}

/// A line that is to be written.
struct Line<'a> {
    sequence: i64,
    ends: Option<i64>,
    /// The first line of the same act.
    origin: Option<i64>,
    new: &'a NewLesson,
    taught: &'a Taught,
    layer: String,
}

/// Says which lines a batch comes to, in a transaction that has the write lock: what is in force does not change, and
/// nobody else takes a number.
async fn plan<'a>(
    connection: &mut SqliteConnection,
    batch: &'a [NewLesson],
    which: Which,
) -> Result<(Appended, Vec<Line<'a>>), LessonError> {
    let last = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'lessons'";
    let mut sequence: i64 = sqlx::query_scalar(last).fetch_one(&mut *connection).await?;
    let mut known = all_in_force(connection, batch).await?;
    let (mut appended, mut lines) = (Appended::default(), Vec::with_capacity(batch.len()));
    for new in batch {
        let (mut origin, mut is_relabelled) = (None, false);
        for taught in &new.layers {
            let layer = taught.layer.to_column();
            let name = (new.message, layer.clone());
            let before = known.get(&name).copied();
            let is_written = match (which, before) {
                (Which::Every, _) | (_, None) => true,
                (Which::Changed, Some((_, label))) => label != new.label,
                (Which::New, Some(_)) => false,
            };
            if is_written {
                sequence += 1;
                let ends = before.map(|(line, _)| line);
                is_relabelled |= ends.is_some();
                known.insert(name, (sequence, new.label));
                lines.push(Line { sequence, ends, origin, new, taught, layer });
                origin = origin.or(Some(sequence));
            }
        }
        *match (origin, is_relabelled) {
            (None, _) => &mut appended.already_known,
            (_, true) => &mut appended.relabelled,
            (_, false) => &mut appended.learned,
        } += 1;
    }
    Ok((appended, lines))
}

/// Returns the lines in force about the messages of a batch, by message and layer.
async fn all_in_force(
    connection: &mut SqliteConnection,
    batch: &[NewLesson],
) -> Result<HashMap<(MessageKey, String), (i64, Label)>, LessonError> {
    let mut known = HashMap::new();
    for some in batch.chunks(MOST_BINDS) {
        let mut query = sqlx::QueryBuilder::new(
            "SELECT message, layer, sequence, label FROM lessons line
             WHERE kind = 'learn' AND NOT EXISTS (SELECT 1 FROM lessons taken WHERE taken.retracts = line.sequence)
               AND message IN (",
        );
        let mut messages = query.separated(", ");
        for new in some {
            messages.push_bind(new.message.0.to_vec());
        }
        query.push(") ORDER BY sequence");
        let rows: Vec<(Vec<u8>, String, i64, String)> =
            query.build_query_as().fetch_all(&mut *connection).await?;
        for (message, layer, sequence, label) in rows {
            let malformed = || LessonError::Malformed(sequence);
            let message = MessageKey(message.try_into().map_err(|_| malformed())?);
            let label = Label::from_name(&label).ok_or_else(malformed)?;
            known.insert((message, layer), (sequence, label));
        }
    }
    Ok(known)
}

/// Values that are bound in one statement, at most; a line has ten.
const MOST_BINDS: usize = 5_000;

async fn write(connection: &mut SqliteConnection, lines: &[Line<'_>]) -> Result<(), LessonError> {
    for some in lines.chunks(MOST_BINDS / 10) {
        let mut query = sqlx::QueryBuilder::new(
            "INSERT INTO lessons
                 (kind, sequence, ends, label, message, features, learned_at, teacher, layer, base, origin) ",
        );
        query.push_values(some, |mut row, line| {
            let base = (line.taught.layer != LayerName::Shared).then(|| line.taught.base.encode().to_vec());
            row.push("'learn'")
                .push_bind(line.sequence)
                .push_bind(line.ends)
                .push_bind(line.new.label.as_str())
                .push_bind(line.new.message.0.to_vec())
                .push_bind(line.new.features.encode())
                .push_bind(line.new.learned_at.unix_timestamp())
                .push_bind(line.new.teacher.as_str())
                .push_bind(line.layer.clone())
                .push_bind(base)
                .push_bind(line.origin);
        });
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

fn entry(row: &SqliteRow) -> Result<LogEntry, LessonError> {
    let sequence: i64 = row.try_get("sequence")?;
    let label = Label::from_name(row.try_get("label")?).ok_or(LessonError::Malformed(sequence))?;
    let features = Features::decode(row.try_get("features")?)
        .map_err(|source| LessonError::Features { sequence, source })?;
    let teacher: &str = row.try_get("teacher")?;
    let is_half =
        [Teacher::Automatic, Teacher::Implied, Teacher::Trap].iter().any(|half| half.as_str() == teacher);
    let weight = if is_half { Weight::Half } else { Weight::Whole };
    // The administrator's own hand is 0.
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(teacher));
    let is_own = [Teacher::Cli, Teacher::Administrator].iter().any(|own| own.as_str() == teacher);
    let number = if is_own { 0 } else { u32::from_le_bytes([a, b, c, d]) };
    let learned_at = OffsetDateTime::from_unix_timestamp(row.try_get("learned_at")?)
        .map_err(|_| LessonError::Malformed(sequence))?;
    let hour = learned_at.unix_timestamp() / 3_600;
    let lesson = Lesson { label, features, weight, teacher: number, hour };
    let base: Option<&[u8]> = row.try_get("base")?;
    let base = base.map(|base| Base::decode(base).ok_or(LessonError::Malformed(sequence))).transpose()?;
    let base = base.unwrap_or_default();
    Ok(LogEntry { sequence, lesson, base, teacher: teacher.to_owned(), learned_at })
}
