//! The MAIL and RCPT commands with their parameters.

use serde::{Deserialize, Serialize};

use crate::mail::Address;

/// What the client declared of the body (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyType {
    /// No BODY parameter, or `BODY=7BIT`.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
    /// `BODY=BINARYMIME`: lines may be of any length and end with anything; only BDAT carries it.
    Binary,
}

/// What a delivery status notification returns of the message (RFC 3461, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Return {
    /// `RET=FULL`.
    Full,
    /// `RET=HDRS`.
    Headers,
}

/// A MAIL command: the reverse-path and its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mail {
    /// The sender, or `None` for the null reverse-path `<>`.
    pub reverse_path: Option<Address>,
    /// The size in bytes that the client declared (RFC 1870).
    pub size_bytes: Option<u64>,
    /// The declared body type.
    pub body: BodyType,
    /// Whether the client asked for SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET of a delivery status notification (RFC 3461).
    pub ret: Option<Return>,
    /// ENVID of a delivery status notification, as xtext.
    pub envelope_id: Option<String>,
    /// REQUIRETLS: the message may travel over verified TLS alone (RFC 8689).
    pub require_tls: bool,
    /// Whether the client wants a reply for each recipient (PRDR, draft-hall-prdr).
    pub prdr: bool,
}

/// When a delivery status notification is wanted (RFC 3461, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Notify {
    /// When it was delivered.
    pub success: bool,
    /// When it could not be.
    pub failure: bool,
    /// When it takes longer.
    pub delay: bool,
}

/// A RCPT command: the forward-path and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The mailbox.
    pub address: Address,
    /// NOTIFY of a delivery status notification; all false is `NEVER`.
    pub notify: Option<Notify>,
    /// ORCPT of a delivery status notification: `addr-type;xtext`, as given.
    pub original: Option<String>,
}

impl From<Address> for Recipient {
    fn from(address: Address) -> Self {
        Recipient { address, notify: None, original: None }
    }
}
