//! Signing in, seen from the server (SASL, RFC 4422): PLAIN, LOGIN and SCRAM-SHA-256.
//!
//! An [`Exchange`] takes the client's responses, base64 taken off, and says what to do next. It knows no
//! account: it hands out the password to check, the name whose keys it needs, the proof to verify, and only
//! a verified [`Proof`] makes the signature that ends a SCRAM exchange. Nothing random is made here; the
//! server's nonce comes from the caller. Channel bindings are not offered.

mod scram;

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::smtp::server::Mechanism;

#[cfg(test)]
pub(crate) use scram::answer_as_client;
pub use scram::{Proof, Proven, SCRAM_ITERATIONS_MINIMUM, ScramKeys};

/// Bytes that a name has at most; an address fits.
pub const NAME_LIMIT_BYTES: usize = 320;
/// Bytes that a password has at most.
pub const PASSWORD_LIMIT_BYTES: usize = 1_024;
/// Bytes that a response has at most: PLAIN with two names and a password.
const RESPONSE_LIMIT_BYTES: usize = 2 * NAME_LIMIT_BYTES + PASSWORD_LIMIT_BYTES + 2;

/// A name and a password, as a client sent them. It prints as `[redacted]`.
#[derive(Clone)]
pub struct Credentials {
    /// The authentication identity.
    pub name: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([redacted])")
    }
}

/// Why a response cannot be used. It never repeats the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Problem {
    /// It is not of the form that the mechanism prescribes, or no response was due.
    #[error("the response is malformed")]
    Malformed,
    /// It is longer than any honest one.
    #[error("the response is too long")]
    TooLong,
    /// The client wants to act for somebody else than whom it signs in as.
    #[error("nobody may act under another name")]
    ForeignIdentity,
    /// The client insists on a channel binding or an extension that is not offered.
    #[error("the client asks for something that is not offered")]
    NotOffered,
}

/// What to do next.
pub enum Step {
    /// Send this challenge, and hand the answer to [`Exchange::respond`].
    Challenge(Vec<u8>),
    /// Check this password. The exchange is over.
    Password(Credentials),
    /// Look up the keys of this name and call [`Exchange::challenge`].
    Keys(String),
    /// Verify this proof and call [`Exchange::confirm`].
    Proof(Proof),
    /// The client has heard our signature: it is signed in under the name that was proven.
    Done(String),
}

/// One exchange, from AUTH to its end. After a [`Problem`] it is over.
pub struct Exchange(State);

enum State {
    Plain,
    LoginName,
    LoginPassword(String),
    ScramFirst,
    ScramKeys(scram::ClientFirst),
    ScramFinal(scram::Challenged),
    ScramProof,
    ScramLast(String),
    Over,
}

impl Exchange {
    /// Begins an exchange, with the initial response where the client sent one.
    ///
    /// # Errors
    /// A [`Problem`] of the initial response.
    pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> Result<(Self, Step), Problem> {
        let (state, challenge): (_, &[u8]) = match mechanism {
            Mechanism::Plain => (State::Plain, b""),
            Mechanism::Login => (State::LoginName, b"Username:"),
            Mechanism::ScramSha256 => (State::ScramFirst, b""),
        };
        let mut exchange = Exchange(state);
        let step = match initial {
            Some(initial) => exchange.respond(initial)?,
            None => Step::Challenge(challenge.to_vec()),
        };
        Ok((exchange, step))
    }

    /// Takes the client's response to the last challenge.
    ///
    /// # Errors
    /// A [`Problem`]; the exchange is over then.
    pub fn respond(&mut self, response: &[u8]) -> Result<Step, Problem> {
        let state = std::mem::replace(&mut self.0, State::Over);
        if response.len() > RESPONSE_LIMIT_BYTES {
            return Err(Problem::TooLong);
        }
        match state {
            State::Plain => plain(response).map(Step::Password),
            State::LoginName => {
                self.0 = State::LoginPassword(text(response, NAME_LIMIT_BYTES)?.to_owned());
                Ok(Step::Challenge(b"Password:".to_vec()))
            }
            State::LoginPassword(name) => {
                let password = Zeroizing::new(text(response, PASSWORD_LIMIT_BYTES)?.to_owned());
                Ok(Step::Password(Credentials { name, password }))
            }
            State::ScramFirst => {
                let first = scram::ClientFirst::parse(response)?;
                let name = first.name().to_owned();
                self.0 = State::ScramKeys(first);
                Ok(Step::Keys(name))
            }
            State::ScramFinal(challenged) => {
                let proof = challenged.read_final(response)?;
                self.0 = State::ScramProof;
                Ok(Step::Proof(proof))
            }
            // SMTP has no room for data beside a success, so the signature went out as a challenge, which
            // the client answers with nothing (RFC 4954, section 4).
            State::ScramLast(name) if response.is_empty() => Ok(Step::Done(name)),
            State::ScramLast(_) | State::ScramKeys(_) | State::ScramProof | State::Over => {
                Err(Problem::Malformed)
            }
        }
    }

    /// Takes the keys that [`Step::Keys`] asked for and returns the challenge to send. `nonce` is fresh and
    /// random, and printable ASCII without a comma.
    ///
    /// # Errors
    /// [`Problem::Malformed`] when no keys were asked for, or the nonce is not of that form.
    pub fn challenge(&mut self, keys: ScramKeys, nonce: &str) -> Result<Vec<u8>, Problem> {
        match std::mem::replace(&mut self.0, State::Over) {
            State::ScramKeys(first) if scram::is_nonce(nonce) => {
                let (challenge, challenged) = first.challenge(keys, nonce);
                self.0 = State::ScramFinal(challenged);
                Ok(challenge)
            }
            _ => Err(Problem::Malformed),
        }
    }

    /// Takes the verified proof that [`Step::Proof`] asked for and returns the last challenge to send: our
    /// own signature, by which the client knows us.
    ///
    /// # Errors
    /// [`Problem::Malformed`] when no proof was asked for.
    pub fn confirm(&mut self, proven: Proven) -> Result<Vec<u8>, Problem> {
        match std::mem::replace(&mut self.0, State::Over) {
            State::ScramProof => {
                let (name, signature) = proven.into_parts();
                self.0 = State::ScramLast(name);
                Ok(signature)
            }
            _ => Err(Problem::Malformed),
        }
    }
}

/// Prepares a name or a password for comparison: SASLprep (RFC 4013), so that one text typed on two machines
/// is one text. `None` when it has a character that may not stand in either.
pub fn prepare(text: &str) -> Option<Zeroizing<String>> {
    stringprep::saslprep(text).ok().map(|prepared| Zeroizing::new(prepared.into_owned()))
}

/// Reads `[authzid] NUL authcid NUL passwd` (RFC 4616, section 2).
fn plain(response: &[u8]) -> Result<Credentials, Problem> {
    let mut fields = response.split(|byte| *byte == 0);
    let (Some(acting), Some(name), Some(password), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(Problem::Malformed);
    };
    let name = text(name, NAME_LIMIT_BYTES)?;
    let password = text(password, PASSWORD_LIMIT_BYTES)?;
    if name.is_empty() || password.is_empty() {
        return Err(Problem::Malformed);
    }
    if !acting.is_empty() && acting != name.as_bytes() {
        return Err(Problem::ForeignIdentity);
    }
    Ok(Credentials { name: name.to_owned(), password: Zeroizing::new(password.to_owned()) })
}

/// Reads a text that has no NUL. Other control characters are nobody's name, but that is for the accounts to
/// say: a refusal here would tell the prompts of LOGIN apart.
fn text(bytes: &[u8], limit: usize) -> Result<&str, Problem> {
    if bytes.len() > limit {
        return Err(Problem::TooLong);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Problem::Malformed),
    }
}

#[cfg(test)]
mod tests;
