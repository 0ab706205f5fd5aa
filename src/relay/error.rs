//! What goes wrong on the way to a next hop, and whether the message may have arrived nevertheless.

use std::io;

use thiserror::Error;

use crate::dns;
use crate::relay::tls;
use crate::smtp::client::ReplyError;

/// Why the next hop has not answered. None of these is a refusal of the mail: the client tries again.
#[derive(Debug, Error)]
pub enum Error {
    /// No next hop is configured for this mail.
    #[error("no next hop is configured for this mail")]
    NoTarget,
    /// The servers of the domain cannot be looked up.
    #[error("looking up the servers of the next hop")]
    Lookup(#[source] dns::Error),
    /// The domain says that it takes no mail (RFC 7505). It is one that the configuration names, so that
    /// this is a mistake to be put right, and no reason to refuse mail for good.
    #[error("the domain of the next hop takes no mail")]
    NullMx,
    /// It cannot be reached.
    #[error("connecting to the next hop")]
    Connect(#[source] io::Error),
    /// There is no TLS as it is required.
    #[error("securing the connection to the next hop")]
    Tls(#[source] tls::Error),
    /// TLS or a password is to be used, and the next hop does not offer TLS.
    #[error("the connection to the next hop would not be encrypted")]
    NotEncrypted,
    /// Something came in clear after the reply to STARTTLS, to be taken for what the server says under TLS.
    #[error("somebody has put words into the mouth of the next hop, before TLS")]
    Injected,
    /// It did not answer or take the message in time.
    #[error("the next hop is too slow")]
    Timeout {
        /// Whether the end of the message may have been sent.
        ambiguous: bool,
    },
    /// The connection failed or was closed.
    #[error("the connection to the next hop is lost")]
    Lost {
        /// Whether the end of the message may have been sent.
        ambiguous: bool,
        /// What the system said; an unexpected end of file when the next hop closed.
        #[source]
        source: io::Error,
    },
    /// It sent what is no reply.
    #[error("the next hop sends no replies that can be read")]
    Reply {
        /// Whether the end of the message may have been sent.
        ambiguous: bool,
        /// What is wrong with it.
        #[source]
        source: ReplyError,
    },
    /// It sent a reply that does not belong to the command, or one that nobody asked for.
    #[error("the next hop answers with a code that does not fit")]
    Nonsense {
        /// Whether the end of the message may have been sent.
        ambiguous: bool,
        /// The code.
        code: u16,
    },
    /// It does not take mail now: its greeting or its reply to EHLO and HELO says so.
    #[error("the next hop takes no mail")]
    Unwilling {
        /// The code.
        code: u16,
    },
    /// It does not let us sign in, or offers no way to that we know.
    #[error("signing in to the next hop")]
    SignIn {
        /// The code; 504 where no mechanism is offered that we know.
        code: u16,
    },
    /// The transaction has failed before; it can only be dropped.
    #[error("the transaction with the next hop has failed before")]
    Failed,
    /// The message has a bare CR or LF, which this side never sends. A fault of this program.
    #[error("the message to send has a line end other than CR LF")]
    LineEnd,
    /// The Maildir cannot be written.
    #[error("writing to the Maildir")]
    Maildir {
        /// Whether the message may be there nevertheless.
        ambiguous: bool,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the next hop may hold the message all the same: its end may have been sent, and the reply to
    /// it was lost (RFC 1047). Trying again may then deliver the message twice; that is the client's to
    /// decide, by its own retry.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Timeout { ambiguous }
            | Error::Lost { ambiguous, .. }
            | Error::Reply { ambiguous, .. }
            | Error::Nonsense { ambiguous, .. }
            | Error::Maildir { ambiguous, .. } => *ambiguous,
            Error::NoTarget
            | Error::Lookup(_)
            | Error::NullMx
            | Error::Connect(_)
            | Error::Tls(_)
            | Error::Injected
            | Error::Unwilling { .. }
            | Error::SignIn { .. }
            | Error::NotEncrypted
            | Error::Failed
            | Error::LineEnd => false,
        }
    }

    /// Returns the label of the metric.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Error::NoTarget => "no_target",
            Error::Lookup(_) => "lookup",
            Error::NullMx => "null_mx",
            Error::Connect(_) => "connect",
            Error::Tls(_) => "tls",
            Error::Injected => "injected",
            Error::Timeout { .. } => "timeout",
            Error::Lost { .. } => "lost",
            Error::Reply { .. } => "reply",
            Error::Nonsense { .. } => "nonsense",
            Error::Unwilling { .. } => "unwilling",
            Error::SignIn { .. } => "sign_in",
            Error::NotEncrypted => "not_encrypted",
            Error::Failed => "failed",
            Error::LineEnd => "line_end",
            Error::Maildir { .. } => "maildir",
        }
    }
}
