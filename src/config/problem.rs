//! What can be wrong with a configuration, and how it is told: every problem at once, with line and key.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1, where the problem has one.
    pub line: Option<usize>,
    /// The dotted key or the variable; empty for a mistake of syntax. A table in an array has its number,
    /// counted from 1: `inbound.listener[2].tls`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// All problems of a configuration, in the order of their lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It has problems.
    #[error("the configuration {} is not usable:\n{problems}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them.
        problems: Problems,
    },
}

/// A mistake inside a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where in the text, in bytes; where the value begins if nothing closer is known.
    pub(super) offset: Option<usize>,
    /// The key inside the value, such as `[2].priority`; empty for the value itself.
    pub(super) below: String,
    /// What is wrong, and what would be right.
    pub(super) message: String,
}

/// The mistakes inside a value; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Faults(pub(super) Vec<Fault>);

impl From<String> for Faults {
    fn from(message: String) -> Self {
        Faults(vec![Fault { offset: None, below: String::new(), message }])
    }
}

impl From<&str> for Faults {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl Faults {
    /// Says where the faulty value stands in one that holds it.
    pub(super) fn inside(mut self, key: &str, offset: usize) -> Self {
        for fault in &mut self.0 {
            fault.offset.get_or_insert(offset);
            let dot = if fault.below.is_empty() || fault.below.starts_with('[') { "" } else { "." };
            fault.below = format!("{key}{dot}{}", fault.below);
        }
        self
    }
}
