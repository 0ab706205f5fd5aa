//! Personal data, made hard to leak by type.
//!
//! An address, subject or body never reaches a log line, metric or error as itself: it is wrapped in
//! [`Redacted`], which prints nothing, or turned into a [`Pseudonym`], a keyed hash that the same
//! installation can compare but nobody can turn back (POLICY P15, P16). What must be shown to a person
//! who may see it is taken out with [`Redacted::expose`], a word that is easy to search for.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A value that prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Redacted(value)
    }

    /// Returns the value itself, for the protocol or for a person entitled to see it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Serialisation of a [`Redacted`] value in full, for `#[serde(with = "crate::privacy::exposed")]`: only where
/// the text is sealed, or shown to a person entitled to see it.
pub mod exposed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Redacted;

    /// Writes the value itself.
    ///
    /// # Errors
    /// The serialiser's own.
    pub fn serialize<T: Serialize, S: Serializer>(value: &Redacted<T>, to: S) -> Result<S::Ok, S::Error> {
        value.expose().serialize(to)
    }

    /// Reads a value and wraps it.
    ///
    /// # Errors
    /// The deserialiser's own.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Redacted<T>, D::Error> {
        T::deserialize(from).map(Redacted::new)
    }
}

/// Writes an error with its causes on one line, for the log. Our errors carry no personal data; a test reads
/// the log for it.
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The installation's root secret: 32 random bytes, from which every other key is derived.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct InstallationKey([u8; 32]);

/// What a derived key is for. One purpose, one key: a leaked one opens nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Sealing message bodies and the private part of records.
    Sealing,
    /// Pseudonyms in logs and look-up columns.
    Pseudonyms,
    /// Slots of the learned models.
    Features,
    /// Sign-in links and session cookies as they are stored.
    Tokens,
    /// Names of messages and recipients in the journal.
    Journal,
    /// What is put into filters that remember correspondents and lists.
    Filters,
}

impl InstallationKey {
    /// Takes 32 random bytes as the root secret.
    pub fn new(bytes: [u8; 32]) -> Self {
        InstallationKey(bytes)
    }

    /// Returns the key for one purpose (HKDF-SHA256, RFC 5869).
    pub fn derive(&self, purpose: Purpose) -> [u8; 32] {
        let info: &[u8] = match purpose {
            Purpose::Sealing => b"lazaret sealing 1",
            Purpose::Pseudonyms => b"lazaret pseudonyms 1",
            Purpose::Features => b"lazaret features 1",
            Purpose::Tokens => b"lazaret tokens 1",
            Purpose::Journal => b"lazaret journal 1",
            Purpose::Filters => b"lazaret filters 1",
        };
        let mut key = [0u8; 32];
        // A 32-byte output is far below HKDF's limit of 255 blocks, so this cannot fail.
        if Hkdf::<Sha256>::new(None, &self.0).expand(info, &mut key).is_err() {
            unreachable!("32 bytes is a valid HKDF output length");
        }
        key
    }
}

impl fmt::Debug for InstallationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstallationKey([redacted])")
    }
}

/// The key of this installation's pseudonyms.
#[derive(Clone)]
pub struct PseudonymKey([u8; 32]);

impl PseudonymKey {
    /// Derives the pseudonym key of an installation.
    pub fn new(root: &InstallationKey) -> Self {
        PseudonymKey(root.derive(Purpose::Pseudonyms))
    }

    /// Returns the pseudonym of a value: HMAC-SHA256 over its class and its text, cut to 128 bits.
    ///
    /// `class` keeps a value of one kind from being compared with one of another kind.
    pub fn pseudonym(&self, class: &str, value: &str) -> Pseudonym {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC takes a key of any length");
        };
        mac.update(class.as_bytes());
        mac.update(&[0]);
        mac.update(value.as_bytes());
        let mut text = String::with_capacity(32);
        for byte in mac.finalize().into_bytes().iter().take(16) {
            text.push_str(&format!("{byte:02x}"));
        }
        Pseudonym(text)
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKey([redacted])")
    }
}

/// A keyed hash in 32 hexadecimal digits: may be logged, stored and compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pseudonym(String);

impl Pseudonym {
    /// Returns the hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted_values_print_nothing_of_themselves() {
        let value = Redacted::new("alice@example.org".to_owned());
        assert_eq!(format!("{value} {value:?}"), "[redacted] [redacted]");
        assert_eq!(value.expose(), "alice@example.org");
    }

    #[test]
    fn each_purpose_has_a_key_of_its_own() {
        let root = InstallationKey::new([7; 32]);
        let keys = [
            Purpose::Sealing,
            Purpose::Pseudonyms,
            Purpose::Features,
            Purpose::Tokens,
            Purpose::Journal,
            Purpose::Filters,
        ]
        .map(|purpose| root.derive(purpose));
        for (i, a) in keys.iter().enumerate() {
            for b in keys.iter().skip(i + 1) {
                assert_ne!(a, b);
            }
        }
        assert_eq!(root.derive(Purpose::Sealing), InstallationKey::new([7; 32]).derive(Purpose::Sealing));
    }

    #[test]
    fn pseudonyms_depend_on_installation_class_and_value() {
        let key = PseudonymKey::new(&InstallationKey::new([1; 32]));
        let other = PseudonymKey::new(&InstallationKey::new([2; 32]));
        let alice = key.pseudonym("address", "alice@example.org");
        assert_eq!(alice, key.pseudonym("address", "alice@example.org"));
        assert_ne!(alice, key.pseudonym("address", "bob@example.org"));
        assert_ne!(alice, key.pseudonym("host", "alice@example.org"));
        assert_ne!(alice, other.pseudonym("address", "alice@example.org"));
        assert_eq!(alice.as_str().len(), 32);
    }
}
