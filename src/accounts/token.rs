//! Secrets that are handed out: one-time links, session cookies, the tokens of forms.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::Error;

/// 32 random bytes as 43 characters of base64url. It prints as `[redacted]`; whoever gets it is let in.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Number of characters.
    pub const LEN: usize = 43;

    pub(super) fn random() -> Result<Self, Error> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        Ok(Token(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads a token that somebody sent; `None` unless it has the exact form.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.len() == Self::LEN
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        well_formed.then(|| Token(text.to_owned()))
    }

    /// Returns the characters, for the one who is to have them.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// Returns HMAC-SHA256 over a class and a value, as base64url.
pub(super) fn keyed_hash(key: &[u8; 32], class: &str, value: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes a key of any length");
    };
    mac.update(class.as_bytes());
    mac.update(&[0]);
    mac.update(value.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

/// Whether two texts are equal, in a time that does not tell where they differ.
pub(super) fn equal(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}
