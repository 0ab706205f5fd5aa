//! The bytes of a message while it is being received, and why it is refused.
//!
//! The buffer grows with what arrives, never with what was declared, and never beyond the limit of one
//! message. A message that is refused is let go of at once.

use bytes::Bytes;
use thiserror::Error;

use crate::mail::{EnhancedCode, Reply};

/// Why a message is refused at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It has a bare CR, a bare LF, or a NUL beside a dot that opens a line.
    #[error("the message has a line end other than CR LF")]
    LineEnd,
    /// It is larger than the limit.
    #[error("the message is too large")]
    TooLarge,
    /// This server has no memory to hold it now.
    #[error("no memory to hold the message")]
    NoMemory,
}

impl Refusal {
    /// Returns the reply to the end of data.
    pub fn reply(self) -> Reply {
        match self {
            Refusal::LineEnd => Reply::new(550, EnhancedCode(5, 6, 11), "Bare CR or LF in message"),
            Refusal::TooLarge => Reply::new(552, EnhancedCode(5, 3, 4), "Message too large"),
            Refusal::NoMemory => Reply::new(452, EnhancedCode(4, 3, 1), "Insufficient system storage"),
        }
    }
}

/// The bytes of a message, up to a limit.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    max_bytes: usize,
    refusal: Option<Refusal>,
}

impl Body {
    /// The smallest buffer that is taken for a message, in bytes.
    const MIN_CAPACITY: usize = 4 * 1024;

    pub(super) fn new(max_bytes: usize) -> Self {
        Body { bytes: Vec::new(), max_bytes, refusal: None }
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Gives the message up. The first reason stands, unless a later one is [`Refusal::LineEnd`]: that one
    /// says that the end itself is doubtful.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        if refusal == Refusal::LineEnd || self.refusal.is_none() {
            self.refusal = Some(refusal);
        }
        self.bytes = Vec::new();
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the number of bytes that the buffer holds memory for.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns the number of bytes that the buffer needs before it can take `incoming` more: half as much
    /// again whenever it grows, so that a long message is copied a bounded number of times, but never more
    /// than a message may have.
    pub(super) fn capacity_for(&self, incoming: usize) -> usize {
        let needed = self.bytes.len().saturating_add(incoming);
        if self.refusal.is_some() || needed <= self.bytes.capacity() {
            return self.bytes.capacity();
        }
        needed.max(self.bytes.capacity().saturating_mul(3) / 2).max(Self::MIN_CAPACITY).min(self.max_bytes)
    }

    /// Grows to [`Body::capacity_for`] so many bytes.
    pub(super) fn reserve(&mut self, incoming: usize) {
        if self.refusal.is_none() {
            let capacity = self.capacity_for(incoming);
            self.bytes.reserve_exact(capacity.saturating_sub(self.bytes.len()));
        }
    }

    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if self.refusal.is_some() {
            return;
        }
        if self.bytes.len() + bytes.len() > self.max_bytes {
            self.refuse(Refusal::TooLarge);
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    pub(super) fn finish(self) -> Result<Bytes, Refusal> {
        match self.refusal {
            Some(refusal) => Err(refusal),
            None => Ok(Bytes::from(self.bytes)),
        }
    }
}
