//! What passes between a session and whoever decides for it.

use std::fmt;

use bytes::Bytes;

use crate::mail::{EnhancedCode, Mail, Recipient, Reply};

/// What the owner of the connection does next.
#[derive(Debug)]
pub enum Step {
    /// Read more input, after all replies are sent.
    Read,
    /// Send a reply.
    Reply(Reply),
    /// Ask whoever decides, and call the method that the [`Question`] names with what they say.
    Ask(Question),
    /// Tell whoever decides that the open transaction is abandoned.
    Abandon,
    /// The octets of a chunk follow: provide for [`body_capacity`](super::Session::body_capacity), and go on.
    Chunk,
    /// Send this reply, do the handshake on what the client sends after it, and call
    /// [`secured`](super::Session::secured); close where the handshake fails.
    StartTls(Reply),
    /// Close the connection, after all replies are sent.
    Close,
}

/// What a session cannot decide by itself.
#[derive(Debug)]
pub enum Question {
    /// What may be offered to this client? Answered with [`offer`](super::Session::offer).
    Offers,
    /// A step of signing in. Answered with [`sign_in_answer`](super::Session::sign_in_answer).
    SignIn(SignIn),
    /// May this sender begin a transaction? Answered with [`answer`](super::Session::answer): the client
    /// gets that reply, and a positive one advances the session.
    Mail(Mail),
    /// May this recipient join it? Answered like [`Question::Mail`].
    Rcpt(Recipient),
    /// The whole message. Answered with [`answer_message`](super::Session::answer_message); the transaction
    /// is over, whatever the answer.
    Message(Bytes),
}

/// What the way onwards offers, as far as this side may offer it only then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offers {
    /// The largest message that the next hop takes, in bytes (RFC 1870), where it says.
    pub size_bytes: Option<u64>,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// The SASL mechanisms by which this client may sign in now (RFC 4954), the best first.
    pub mechanisms: Vec<Mechanism>,
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN (draft-murchison-sasl-login).
    Login,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
}

impl Mechanism {
    /// Every mechanism.
    pub const ALL: [Mechanism; 3] = [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256];

    /// Returns its registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
        }
    }

    /// Reads a registered name, in any case.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Mechanism::ALL.into_iter().find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))
    }
}

/// A step of a sign-in, as the client took it; base64 is taken off. `Debug` prints no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SignIn {
    /// AUTH, with its initial response where there is one.
    Begin(Mechanism, Option<Vec<u8>>),
    /// The response to the last challenge.
    Response(Vec<u8>),
    /// `*`: the client gives up. The answer is always [`SignInAnswer::Refused`].
    Cancel,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignIn::Begin(mechanism, Some(initial)) => {
                write!(f, "Begin({mechanism:?}, Some([{} bytes]))", initial.len())
            }
            SignIn::Begin(mechanism, None) => write!(f, "Begin({mechanism:?}, None)"),
            SignIn::Response(response) => write!(f, "Response([{} bytes])", response.len()),
            SignIn::Cancel => f.write_str("Cancel"),
        }
    }
}

/// What comes of a step of a sign-in.
#[derive(Debug)]
pub enum SignInAnswer {
    /// The client must answer this (334).
    Challenge(Vec<u8>),
    /// The client has signed in under this name, and hears this reply.
    Done(String, Reply),
    /// It has not, and hears this reply.
    Refused(Reply),
}

/// The answer to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One for all recipients.
    All(Reply),
    /// One for each accepted RCPT, in order, and one for the message: LMTP sends the former (RFC 2033),
    /// PRDR both, and plain SMTP the latter.
    Each(Vec<Reply>, Reply),
}

/// Why a client is turned away that keeps to no protocol, or to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misconduct {
    /// It talked before the greeting.
    EarlyTalker,
    /// It sent commands ahead without knowing that it may, or after STARTTLS.
    Pipelining,
    /// It speaks HTTP.
    Http,
    /// It began a TLS handshake where none is expected.
    Tls,
    /// Nothing or too little of what it says is a command in its place.
    Junk,
    /// It has failed to sign in too often.
    SignIn,
}

impl Misconduct {
    /// Returns its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Misconduct::EarlyTalker => "early talker",
            Misconduct::Pipelining => "pipelining",
            Misconduct::Http => "http",
            Misconduct::Tls => "tls",
            Misconduct::Junk => "junk",
            Misconduct::SignIn => "sign-in",
        }
    }

    /// Returns the last reply that the client gets.
    pub(super) fn reply(self) -> Reply {
        let (code, enhanced, text) = match self {
            Misconduct::EarlyTalker => (554, EnhancedCode(5, 5, 0), "You talked before the greeting"),
            Misconduct::Pipelining => {
                (503, EnhancedCode(5, 5, 0), "You sent commands ahead, closing connection")
            }
            Misconduct::Http | Misconduct::Tls => {
                (421, EnhancedCode(4, 7, 0), "This is an SMTP server, closing connection")
            }
            Misconduct::Junk => (421, EnhancedCode(4, 7, 0), "Too many errors, closing connection"),
            Misconduct::SignIn => {
                (421, EnhancedCode(4, 7, 0), "Too many failed sign-ins, closing connection")
            }
        };
        Reply::new(code, enhanced, text)
    }
}
