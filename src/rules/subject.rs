//! What rules look at: a message, and what is known beside it.

use crate::mail::Envelope;
use crate::message::{Mailbox, Message};

/// What rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The message.
    pub message: &'a Message,
    /// The bytes that it was parsed from.
    pub raw: &'a [u8],
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// What others found before.
    pub evidence: &'a Evidence,
    /// Whom the gateway serves.
    pub organisation: &'a Organisation,
}

impl Evidence {
    /// Returns which of the four scores of a rule counts.
    pub(super) fn score_set(&self) -> usize {
        2 * usize::from(self.bayes.is_some()) + usize::from(self.authentication.is_some())
    }
}

impl<'a> Subject<'a> {
    /// Makes a subject of which nothing is known but the message and its envelope.
    pub fn new(message: &'a Message, raw: &'a [u8], envelope: &'a Envelope) -> Self {
        static EVIDENCE: Evidence = Evidence { bayes: None, authentication: None };
        static ORGANISATION: Organisation =
            Organisation { domains: Vec::new(), people: Vec::new(), authserv_ids: Vec::new() };
        Subject { message, raw, envelope, evidence: &EVIDENCE, organisation: &ORGANISATION }
    }
}

/// What other analysers found that rules may ask for; what is `None` was not looked at.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// How likely the message is unwanted, by the words that were learned: 0 to 1.
    pub bayes: Option<f64>,
    /// Whether the sender is who it says.
    pub authentication: Option<Authentication>,
}

/// What checks of the sender's authenticity found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authentication {
    /// SPF of the reverse-path (RFC 7208).
    pub spf: Option<Outcome>,
    /// SPF of the name in the greeting.
    pub spf_helo: Option<Outcome>,
    /// The DKIM signatures (RFC 6376): the signing domain in lower case, and whether it holds.
    pub dkim: Vec<(String, Outcome)>,
    /// DMARC of From (RFC 7489).
    pub dmarc: Option<Outcome>,
    /// What the domain of From asks for when DMARC fails: `none`, `quarantine`, `reject`.
    pub dmarc_policy: Option<String>,
    /// The ARC chain (RFC 8617).
    pub arc: Option<Outcome>,
}

/// How one check ended, in the words of RFC 8601.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `none`
    None,
    /// `neutral`
    Neutral,
    /// `pass`
    Pass,
    /// `softfail`
    SoftFail,
    /// `fail`
    Fail,
    /// `temperror`
    TemporaryError,
    /// `permerror`
    PermanentError,
}

/// Whom the gateway serves: what others may pretend to be.
#[derive(Debug, Clone, Default)]
pub struct Organisation {
    /// Its domains, lower case.
    pub domains: Vec<String>,
    /// People whose names are worth imitating, with their addresses.
    pub people: Vec<Mailbox>,
    /// Names under which hosts of its own note what they found on a sender's authenticity (RFC 8601).
    pub authserv_ids: Vec<String>,
}
