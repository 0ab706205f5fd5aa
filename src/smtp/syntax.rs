//! Why a line is no command, and what the client hears.

use thiserror::Error;

use crate::mail::{EnhancedCode, Reply};

/// Why a line is no command that this server carries out. Never repeats the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SyntaxError {
    /// The line has a bare CR or a NUL.
    #[error("the line has a character that may not stand in a command")]
    Character,
    /// No such verb.
    #[error("the command is unknown")]
    Unknown,
    /// A verb that exists, but is not offered here.
    #[error("the command is not offered")]
    NotOffered,
    /// Another protocol is spoken: HTTP, most often.
    #[error("this is another protocol")]
    Foreign,
    /// The argument is missing, malformed or one too many.
    #[error("the arguments are malformed")]
    Arguments,
    /// The reverse-path is no mailbox.
    #[error("the reverse-path is malformed")]
    ReversePath,
    /// The forward-path is no mailbox.
    #[error("the forward-path is malformed")]
    ForwardPath,
    /// A mailbox that is not ASCII, without SMTPUTF8 (RFC 6531, section 3.5).
    #[error("the mailbox needs SMTPUTF8")]
    NeedsSmtpUtf8,
    /// A parameter whose value is malformed, or that stands twice.
    #[error("a parameter is malformed")]
    ParameterValue,
    /// A parameter that the reply to EHLO does not offer.
    #[error("a parameter is not offered")]
    ParameterNotOffered,
    /// A BDAT command that does not say how many octets follow it. What they are cannot be known, so nothing
    /// after it may be read.
    #[error("the size of a chunk is malformed")]
    ChunkSize,
    /// A SASL mechanism that is unknown, or not offered (RFC 4954, section 4).
    #[error("the mechanism is not offered")]
    Mechanism,
    /// A response that is no base64 (RFC 4954, section 4).
    #[error("the response is no base64")]
    Base64,
}

impl SyntaxError {
    /// Returns the reply that the client gets.
    pub fn reply(self) -> Reply {
        let (code, enhanced, text) = match self {
            SyntaxError::Character => (500, EnhancedCode(5, 5, 2), "Bare CR or NUL in command"),
            SyntaxError::Unknown => (500, EnhancedCode(5, 5, 2), "Command not recognized"),
            SyntaxError::NotOffered => (502, EnhancedCode(5, 5, 1), "Command not implemented"),
            SyntaxError::Foreign => {
                (421, EnhancedCode(4, 7, 0), "This is an SMTP server, closing connection")
            }
            SyntaxError::Arguments => (501, EnhancedCode(5, 5, 4), "Syntax error in arguments"),
            SyntaxError::ReversePath => (501, EnhancedCode(5, 1, 7), "Bad sender address syntax"),
            SyntaxError::ForwardPath => (501, EnhancedCode(5, 1, 3), "Bad recipient address syntax"),
            SyntaxError::NeedsSmtpUtf8 => (553, EnhancedCode(5, 6, 7), "Address requires SMTPUTF8"),
            SyntaxError::ParameterValue => (501, EnhancedCode(5, 5, 4), "Bad parameter value"),
            SyntaxError::ParameterNotOffered => (555, EnhancedCode(5, 5, 4), "Parameter not implemented"),
            SyntaxError::ChunkSize => (501, EnhancedCode(5, 5, 4), "Bad chunk size, closing connection"),
            SyntaxError::Mechanism => (504, EnhancedCode(5, 5, 4), "Mechanism not offered"),
            SyntaxError::Base64 => (501, EnhancedCode(5, 5, 2), "Bad base64"),
        };
        Reply::new(code, enhanced, text)
    }
}
