//! The words of mail: addresses, envelopes, replies.
//!
//! Values only. An [`Address`] has no `Display` and a silent `Debug`, so that it reaches a log only on
//! purpose (see `privacy`).

mod address;
mod client;
mod parameter;
mod reply;

use std::fmt;

pub use address::{Address, Domain, InvalidAddress};
pub use client::{Client, Protocol, Tls};
pub use parameter::{BodyType, Mail, Notify, Recipient, Return};
pub use reply::{EnhancedCode, Reply};

/// Which way a message travels, seen from the organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the world to our users.
    Inbound,
    /// From our users to the world.
    Outbound,
}

impl Direction {
    /// Both directions, inbound first.
    pub const ALL: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

    /// Returns `"inbound"` or `"outbound"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }

    /// Reads what [`Direction::as_str`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Direction::ALL.into_iter().find(|direction| direction.as_str() == name)
    }
}

/// The name of one transaction in replies, logs, our header fields and the quarantine: 16 characters of
/// `0-9a-z`, random, so that it tells nothing and cannot be guessed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(String);

impl TransactionId {
    /// Number of characters of an id.
    pub const LEN: usize = 16;

    /// Makes an id from 16 random bytes, five bits of each (80 bits in all).
    pub fn from_random(bytes: [u8; Self::LEN]) -> Self {
        const ALPHABET: [char; 32] = [
            '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'j',
            'k', 'm', 'n', 'p', 'q', 'r', 's', 't', 'v', 'w', 'x', 'y', 'z',
        ];
        TransactionId(bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 31)).copied()).collect())
    }

    /// Reads an id that somebody sent; `None` unless it has the exact form.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.len() == Self::LEN
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        well_formed.then(|| TransactionId(text.to_owned()))
    }

    /// Returns the characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything known of a message besides its bytes.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The name of the transaction.
    pub id: TransactionId,
    /// Which way it travels.
    pub direction: Direction,
    /// Who handed it to us.
    pub client: Client,
    /// The MAIL command.
    pub mail: Mail,
    /// The recipients that the next hop accepted, in order, each once.
    pub recipients: Vec<Recipient>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_ids_survive_a_round_trip() {
        let id = TransactionId::from_random([0, 31, 255, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(id.as_str(), "0zz3456789abcdef");
        assert_eq!(TransactionId::parse(id.as_str()), Some(id));
        for bad in ["", "short", "0zz3456789abcde/", "0zz3456789abcdefg", "0ZZ3456789ABCDEF"] {
            assert_eq!(TransactionId::parse(bad), None, "{bad}");
        }
    }
}
