//! Sealing: what stands in a file or a column that nobody may read without the installation's key.
//!
//! XChaCha20-Poly1305 with a random nonce of 24 bytes, so that nonces need no counter. Every sealed text
//! is bound to the name of its place; moved to another row or file it does not open. The form is one
//! version byte, the nonce, and the ciphertext with its tag.

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use thiserror::Error;

use crate::privacy::{InstallationKey, Purpose};

const VERSION: u8 = 1;
const NONCE_LEN: usize = 24;
/// Texts up to this size are sealed where they are; larger ones leave the async threads.
const INLINE_LIMIT_BYTES: usize = 64 * 1024;

/// Seals and opens with one key. Cloning is cheap.
#[derive(Clone)]
pub struct Sealer(XChaCha20Poly1305);

/// Why something was not sealed or not opened.
#[derive(Debug, Error)]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("drawing a random nonce")]
    Random(#[source] getrandom::Error),
    /// The text is too long for the cipher.
    #[error("sealing failed")]
    Seal,
    /// The key is another one, or the bytes were changed or moved.
    #[error("the sealed bytes do not open with this key in this place")]
    Open,
    /// The thread that did the work is gone.
    #[error("the sealing thread ended early")]
    Thread,
}

impl Sealer {
    /// Makes a sealer from the installation's key.
    pub fn new(root: &InstallationKey) -> Self {
        Sealer(XChaCha20Poly1305::new(&root.derive(Purpose::Sealing).into()))
    }

    /// Seals `text` for `place`, a name that is unique in the installation (`body/ID`, `entry/ID`).
    ///
    /// # Errors
    /// [`SealError`] without random bytes.
    pub fn seal(&self, place: &str, text: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0u8; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(SealError::Random)?;
        let payload = Payload { msg: text, aad: place.as_bytes() };
        let ciphertext = self.0.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Seal)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + ciphertext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// Opens what [`Sealer::seal`] made for the same place.
    ///
    /// # Errors
    /// [`SealError::Open`] when key, bytes or place differ.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let Some((&VERSION, rest)) = sealed.split_first() else { return Err(SealError::Open) };
        let Some((nonce, ciphertext)) = rest.split_first_chunk::<NONCE_LEN>() else {
            return Err(SealError::Open);
        };
        let payload = Payload { msg: ciphertext, aad: place.as_bytes() };
        self.0.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Open)
    }

    /// Seals a text of any size, off the async threads when it is large.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub async fn seal_large(&self, place: String, text: Bytes) -> Result<Vec<u8>, SealError> {
        if text.len() <= INLINE_LIMIT_BYTES {
            return self.seal(&place, &text);
        }
        let sealer = self.clone();
        tokio::task::spawn_blocking(move || sealer.seal(&place, &text))
            .await
            .map_err(|_| SealError::Thread)?
    }

    /// Opens a text of any size, off the async threads when it is large.
    ///
    /// # Errors
    /// As [`Sealer::open`].
    pub async fn open_large(&self, place: String, sealed: Bytes) -> Result<Vec<u8>, SealError> {
        if sealed.len() <= INLINE_LIMIT_BYTES {
            return self.open(&place, &sealed);
        }
        let sealer = self.clone();
        tokio::task::spawn_blocking(move || sealer.open(&place, &sealed))
            .await
            .map_err(|_| SealError::Thread)?
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&InstallationKey::new([byte; 32]))
    }

    #[test]
    fn a_sealed_text_opens_in_its_place_only() {
        let sealed = sealer(1).seal("entry/a", b"hello").unwrap();
        assert_eq!(sealer(1).open("entry/a", &sealed).unwrap(), b"hello");
        assert!(sealer(1).open("entry/b", &sealed).is_err());
        assert!(sealer(2).open("entry/a", &sealed).is_err());
        assert_ne!(sealed, sealer(1).seal("entry/a", b"hello").unwrap());
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let sealed = sealer(1).seal("p", b"hello").unwrap();
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(sealer(1).open("p", &changed).is_err(), "byte {index}");
            assert!(sealer(1).open("p", &sealed[..index]).is_err(), "cut at {index}");
        }
    }

    #[tokio::test]
    async fn large_texts_survive_the_round_trip() {
        let text = Bytes::from(vec![7u8; 3 * INLINE_LIMIT_BYTES]);
        let sealed = sealer(1).seal_large("p".into(), text.clone()).await.unwrap();
        assert_eq!(sealer(1).open_large("p".into(), sealed.into()).await.unwrap(), text);
    }
}
