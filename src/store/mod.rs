//! The three stores: records (must not be lost), bodies (large, immutable, encrypted), state (can be had
//! again).

mod records;

pub use records::{Records, RecordsError};
