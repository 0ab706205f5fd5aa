//! The three stores: records (must not be lost), bodies (large, immutable, encrypted), state (can be had
//! again).

mod records;
pub mod bodies;
pub mod keyfile;
pub mod seal;
pub mod timestamp;

pub use bodies::{Bodies, BodiesError};
pub use records::{Records, RecordsError, Write};
pub use seal::{SealError, Sealer};
