//! What a line of the log says.

use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use super::LessonError;
use crate::learn::{Base, Features, Label, Lesson, MessageKey, Weight};
use crate::privacy::Pseudonym;

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
    pub(super) fn as_str(&self) -> &str {
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

/// Reads a line that teaches.
pub(super) fn entry(row: &SqliteRow) -> Result<LogEntry, LessonError> {
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
