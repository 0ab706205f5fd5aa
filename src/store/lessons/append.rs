//! Writing lessons: what of a batch is new, and the lines that it comes to.

use std::collections::HashMap;

use sqlx::{Connection, SqliteConnection};

use super::{Appended, LayerName, LessonError, LessonLog, NewLesson, Taught};
use crate::learn::{Label, MessageKey};

impl LessonLog {
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
