//! The three stores: records (must not be lost), bodies (large, immutable, encrypted), state (can be had
//! again).

mod lessons;
mod records;
mod state;
pub mod bodies;
pub mod keyfile;
pub mod seal;
pub mod timestamp;

#[cfg(test)]
mod state_tests;

pub use bodies::{Bodies, BodiesError};
pub use lessons::{
    Appended, Bound, FORGOTTEN_LAYER, Forget, LayerName, LessonError, LessonLog, LogEntry, MAX_BATCH,
    NewLesson, Tally, Taught, Teacher,
};
pub use records::{Records, RecordsError, Write};
pub use seal::{SealError, Sealer};
pub use state::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Memory, SetAside, Sled, State, StateError};
