//! Runs the analysers; holds the current models.

mod learned;

#[cfg(test)]
mod learned_tests;

pub use learned::{Learned, LearnedError};
