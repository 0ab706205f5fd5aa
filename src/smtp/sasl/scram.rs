//! SCRAM-SHA-256 (RFC 5802, RFC 7677): messages and arithmetic.
//!
//! The stored keys let nobody sign in who has only them, and the proof of one exchange is worth nothing in
//! another. A name that nobody has gets keys that look like others and stay the same, so that the challenge
//! does not tell who exists.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{NAME_LIMIT_BYTES, Problem};

/// Iterations that keys have at least (RFC 7677, section 4).
pub const SCRAM_ITERATIONS_MINIMUM: u32 = 4_096;

const KEY_LEN: usize = 32;
const SALT_LEN: usize = 16;
/// Characters that a client's nonce has at most.
const NONCE_LIMIT: usize = 256;

/// What a server keeps of a password (RFC 5802, section 2.2). It prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ScramKeys {
    /// The salt of PBKDF2.
    pub salt: [u8; SALT_LEN],
    /// The iterations of PBKDF2.
    pub iterations: u32,
    /// SHA-256 of the client's key: what its proof is held against.
    pub stored_key: [u8; KEY_LEN],
    /// The key of our own signature.
    pub server_key: [u8; KEY_LEN],
}

impl ScramKeys {
    /// Derives the keys of a prepared password. Takes milliseconds of one core.
    pub fn derive(password: &str, salt: [u8; SALT_LEN], iterations: u32) -> Self {
        let iterations = iterations.max(SCRAM_ITERATIONS_MINIMUM);
        let mut salted = Zeroizing::new([0u8; KEY_LEN]);
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, iterations, &mut *salted);
        let client_key = Zeroizing::new(hmac(&*salted, &[b"Client Key"]));
        ScramKeys {
            salt,
            iterations,
            stored_key: Sha256::digest(*client_key).into(),
            server_key: hmac(&*salted, &[b"Server Key"]),
        }
    }

    /// Makes the keys of a name that nobody has: no password fits, and the salt is always the same.
    pub fn of_nobody(key: &[u8; KEY_LEN], name: &str, iterations: u32) -> Self {
        let mut salt = [0u8; SALT_LEN];
        let drawn = hmac(key, &[b"salt\0", name.as_bytes()]);
        salt.iter_mut().zip(drawn).for_each(|(to, from)| *to = from);
        ScramKeys {
            salt,
            iterations,
            stored_key: hmac(key, &[b"stored\0", name.as_bytes()]),
            server_key: hmac(key, &[b"server\0", name.as_bytes()]),
        }
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys([redacted])")
    }
}

/// The client's first message.
pub(super) struct ClientFirst {
    /// The GS2 header as it came: the client's last message repeats it.
    header: String,
    bare: String,
    nonce: String,
    name: String,
}

impl ClientFirst {
    /// Reads `gs2-header client-first-message-bare` (RFC 5802, section 7).
    pub(super) fn parse(message: &[u8]) -> Result<Self, Problem> {
        let message = std::str::from_utf8(message).map_err(|_| Problem::Malformed)?;
        let (binding, rest) = message.split_once(',').ok_or(Problem::Malformed)?;
        let (acting, bare) = rest.split_once(',').ok_or(Problem::Malformed)?;
        match binding {
            // `y`: the client could bind the channel and saw that we do not offer it, which is so.
            "n" | "y" => {}
            _ if binding.starts_with("p=") => return Err(Problem::NotOffered),
            _ => return Err(Problem::Malformed),
        }
        let mut attributes = bare.split(',');
        let first = attributes.next().unwrap_or_default();
        if first.starts_with("m=") {
            return Err(Problem::NotOffered);
        }
        let name = first.strip_prefix("n=").and_then(unescape).ok_or(Problem::Malformed)?;
        let nonce = attributes
            .next()
            .and_then(|attribute| attribute.strip_prefix("r="))
            .filter(|nonce| is_nonce(nonce) && nonce.len() <= NONCE_LIMIT)
            .ok_or(Problem::Malformed)?;
        if name.is_empty() || !attributes.all(is_attribute) {
            return Err(Problem::Malformed);
        }
        if name.len() > NAME_LIMIT_BYTES {
            return Err(Problem::TooLong);
        }
        if !acting.is_empty() {
            let acting = acting.strip_prefix("a=").and_then(unescape).ok_or(Problem::Malformed)?;
            if acting != name {
                return Err(Problem::ForeignIdentity);
            }
        }
        Ok(ClientFirst {
            header: format!("{binding},{acting},"),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
            name,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns our first message, and what waits for the client's last one.
    pub(super) fn challenge(self, keys: ScramKeys, nonce: &str) -> (Vec<u8>, Challenged) {
        let nonce = format!("{}{nonce}", self.nonce);
        let message = format!("r={nonce},s={},i={}", STANDARD.encode(keys.salt), keys.iterations);
        let exchanged = format!("{},{message}", self.bare);
        (message.into_bytes(), Challenged { header: self.header, nonce, exchanged, keys, name: self.name })
    }
}

/// The state between our challenge and the client's last message.
pub(super) struct Challenged {
    header: String,
    nonce: String,
    exchanged: String,
    keys: ScramKeys,
    name: String,
}

impl Challenged {
    /// Reads `channel-binding "," nonce ["," extensions] "," proof` (RFC 5802, section 7).
    pub(super) fn read_final(self, message: &[u8]) -> Result<Proof, Problem> {
        let message = std::str::from_utf8(message).map_err(|_| Problem::Malformed)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(Problem::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes
            .next()
            .and_then(|attribute| attribute.strip_prefix("c="))
            .and_then(|binding| STANDARD.decode(binding).ok())
            .ok_or(Problem::Malformed)?;
        let nonce =
            attributes.next().and_then(|attribute| attribute.strip_prefix("r=")).ok_or(Problem::Malformed)?;
        let proof = STANDARD.decode(proof).map_err(|_| Problem::Malformed)?;
        let client_proof = <[u8; KEY_LEN]>::try_from(proof).map_err(|_| Problem::Malformed)?;
        // Another header is a downgrade under way, another nonce a message out of another exchange.
        if binding != self.header.as_bytes() || nonce != self.nonce || !attributes.all(is_attribute) {
            return Err(Problem::Malformed);
        }
        let exchanged = format!("{},{without_proof}", self.exchanged);
        Ok(Proof { exchanged, client_proof, keys: self.keys, name: self.name })
    }
}

/// A client's proof that it knows the password, not yet verified.
pub struct Proof {
    exchanged: String,
    client_proof: [u8; KEY_LEN],
    keys: ScramKeys,
    name: String,
}

/// What only the verification of a [`Proof`] makes.
pub struct Proven {
    name: String,
    signature: Vec<u8>,
}

impl Proof {
    /// Returns the name that the client gave.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Verifies the proof, in a time that does not tell where it differs; `None` when it is wrong.
    pub fn verify(&self) -> Option<Proven> {
        let signature = hmac(&self.keys.stored_key, &[self.exchanged.as_bytes()]);
        let mut client_key = Zeroizing::new(self.client_proof);
        client_key.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let stored_key: [u8; KEY_LEN] = Sha256::digest(*client_key).into();
        if !bool::from(stored_key.ct_eq(&self.keys.stored_key)) {
            return None;
        }
        let own = hmac(&self.keys.server_key, &[self.exchanged.as_bytes()]);
        let signature = format!("v={}", STANDARD.encode(own)).into_bytes();
        Some(Proven { name: self.name.clone(), signature })
    }
}

impl Proven {
    pub(super) fn into_parts(self) -> (String, Vec<u8>) {
        (self.name, self.signature)
    }
}

/// Whether a text may stand as a nonce: printable ASCII without a comma, not empty.
pub(super) fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// Whether a text is an extension, which is passed over: one letter, `=`, a value.
fn is_attribute(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b'=', _, ..] if letter.is_ascii_alphabetic()) && !text.contains('\0')
}

/// Reads a saslname: `=2C` is a comma and `=3D` an equals sign. `None` for a NUL or any other `=`.
fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (character, rest) = piece
            .strip_prefix("2C")
            .map(|rest| (',', rest))
            .or(piece.strip_prefix("3D").map(|r| ('=', r)))?;
        name.push(character);
        name.push_str(rest);
    }
    (!name.contains('\0')).then_some(name)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; KEY_LEN] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes a key of any length");
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Returns the last message of a client that knows a password, for tests.
#[cfg(test)]
pub(crate) fn answer_as_client(first: &str, password: &str, keys: &ScramKeys, server_nonce: &str) -> String {
    let bare = first.strip_prefix("n,,").unwrap();
    let nonce = format!("{}{server_nonce}", bare.split_once("r=").unwrap().1);
    let without_proof = format!("c=biws,r={nonce}");
    let salt = STANDARD.encode(keys.salt);
    let exchanged = format!("{bare},r={nonce},s={salt},i={},{without_proof}", keys.iterations);
    let salted: [u8; KEY_LEN] =
        pbkdf2::pbkdf2_hmac_array::<Sha256, KEY_LEN>(password.as_bytes(), &keys.salt, keys.iterations);
    let mut proof = hmac(&salted, &[b"Client Key"]);
    let stored_key: [u8; KEY_LEN] = Sha256::digest(proof).into();
    let signature = hmac(&stored_key, &[exchanged.as_bytes()]);
    proof.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
    format!("{without_proof},p={}", STANDARD.encode(proof))
}
