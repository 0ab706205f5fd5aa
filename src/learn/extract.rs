//! From a message to its features.
//!
//! The same message gives the same features wherever it is met: in the session, in the quarantine, in a
//! Maildir below our own header fields, in an mbox below those of others (see `trail`).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::features::{Features, View};
use super::hash::FeatureKey;
use super::trail::Trail;
use super::view;
use super::words::Words;
use crate::mail::Client;
use crate::message::Message;

/// The features of a message and the words behind them.
///
/// `Debug` prints neither.
#[derive(Clone, Default)]
pub struct Extracted {
    /// What a lesson stores.
    pub features: Features,
    pub(super) words: Words,
}

impl std::fmt::Debug for Extracted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let features: usize = View::ALL.into_iter().map(|view| self.features.view(view).len()).sum();
        write!(f, "Extracted({features} features)")
    }
}

/// The name of a message in the log of lessons: a keyed hash over what every copy of it says alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey(pub [u8; 16]);

impl MessageKey {
    /// Computes the key: HMAC-SHA256 over Message-ID, Date, From, subject and text, cut to 128 bits.
    pub fn of(message: &Message, key: &FeatureKey) -> Self {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.bytes()) else {
            unreachable!("HMAC takes a key of any length");
        };
        let mut absorb = |text: &str| {
            mac.update(&(text.len() as u64).to_le_bytes());
            mac.update(text.as_bytes());
        };
        for name in ["Message-ID", "Date", "From"] {
            let header = message.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            absorb(header.map_or("", |header| header.value.trim()));
        }
        absorb(message.subject.trim());
        // Line ends and the blank lines at the end differ between copies; an mbox also quotes "From ".
        for line in message.text.trim_end().lines() {
            absorb(line.trim_start_matches('>').trim_end());
        }
        let mut bytes = [0; 16];
        for (byte, digest) in bytes.iter_mut().zip(mac.finalize().into_bytes()) {
            *byte = digest;
        }
        MessageKey(bytes)
    }
}

/// Extracts the features of a message.
///
/// `client` is the session's peer where the message bears no Received field of that session; a copy that was
/// delivered, or comes from elsewhere, has none.
pub fn extract(message: &Message, client: Option<&Client>, key: &FeatureKey) -> Extracted {
    let (features, words) = view::extract(message, &Trail::read(&message.headers, client), key);
    Extracted { features, words }
}
