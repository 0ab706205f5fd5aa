//! The three stores: records (must not be lost), bodies (large, immutable, encrypted), state (can be had
//! again).

mod lessons;
mod records;
mod state;

#[cfg(test)]
mod lessons_tests;
#[cfg(test)]
mod state_tests;

pub use lessons::{Appended, LessonError, LessonLog, LogEntry, MAX_BATCH, NewLesson, Teacher};
pub use records::{Records, RecordsError};
pub use state::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Memory, SetAside, Sled, State, StateError};
