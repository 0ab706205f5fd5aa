//! A case as it stands in `cases.json`. A field that is not known here fails the reading.

use std::time::Duration;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) id: String,
    #[serde(rename = "cat")]
    _category: String,
    /// What must hold, in words.
    pub(super) prose: String,
    pub(super) steps: Vec<Step>,
    pub(super) check: Check,
    #[serde(default)]
    pub(super) hop: Hop,
    /// The listener, where it is not the inbound one.
    pub(super) port: Option<String>,
    /// A word that the reply to EHLO must have.
    pub(super) need: Option<String>,
    /// The client speaks before the greeting.
    #[serde(default)]
    pub(super) early: bool,
    /// It waits for a time-out.
    #[serde(default)]
    pub(super) slow: u8,
    /// It cannot be written as steps; what it is done with.
    pub(super) manual: Option<String>,
}

/// How the next hop is for this case.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hop {
    /// It takes every recipient.
    #[serde(default)]
    pub(super) trusting: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Step {
    pub(super) send: Option<OneOrMany<Piece>>,
    /// Bytes in each piece, or the lengths of the pieces; what is left over is the last.
    pub(super) split: Option<OneOrMany<usize>>,
    pub(super) pause: Option<f64>,
    /// The sender gives up after so many seconds.
    pub(super) send_s: Option<f64>,
    pub(super) noread: bool,
    pub(super) n: Option<Count>,
    /// Silence in seconds that ends `"n": "quiet"`.
    pub(super) quiet: Option<f64>,
    pub(super) expect: Option<OneOrMany<String>>,
    pub(super) within: Option<Limit>,
    pub(super) gate: bool,
    pub(super) eod: bool,
    pub(super) tls: Option<Tls>,
    pub(super) sleep: Option<f64>,
    pub(super) shut: u8,
    pub(super) reset: u8,
    pub(super) close: u8,
    pub(super) closed: Option<Limit>,
}

/// A TLS handshake.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    /// The server's name that the client asks for, as it is, however malformed.
    pub(super) sni: Option<String>,
    /// It may fail; the dialogue then ends.
    pub(super) fail: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Piece {
    Text(String),
    Repeated { rep: String, n: usize },
    Counted { count: usize, text: String },
}

impl Piece {
    /// Appends the bytes of this piece; a character is a byte.
    pub(super) fn append_to(&self, wire: &mut Vec<u8>) {
        let latin1 = |text: &str| -> Vec<u8> { text.chars().map(|c| u8::try_from(c).unwrap()).collect() };
        match self {
            Piece::Text(text) => wire.extend(latin1(text)),
            Piece::Repeated { rep, n } => wire.extend(latin1(rep).repeat(*n)),
            Piece::Counted { count, text } => {
                for number in 1..=*count {
                    wire.extend(latin1(&text.replace("%d", &number.to_string())));
                }
            }
        }
    }
}

/// How many replies a step waits for: a number, or `"quiet"`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Count {
    Exactly(usize),
    UntilQuiet(Quiet),
}

#[derive(Debug, Deserialize)]
pub(super) enum Quiet {
    #[serde(rename = "quiet")]
    Quiet,
}

/// Seconds, or `"T"` for the gateway's own time-out.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Limit {
    Seconds(f64),
    Configured(Configured),
}

#[derive(Debug, Deserialize)]
pub(super) enum Configured {
    T,
}

impl Limit {
    pub(super) fn duration(&self, configured: Duration) -> Duration {
        match self {
            Limit::Seconds(seconds) => Duration::from_secs_f64(*seconds),
            Limit::Configured(Configured::T) => configured,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Check {
    /// Least and most messages at the next hop.
    pub(super) messages: Option<[usize; 2]>,
    /// A pattern that no command line at the next hop matches, and one that some line does.
    pub(super) no_hop: Option<String>,
    pub(super) some_hop: Option<String>,
    /// Patterns for the last message's MAIL and for each of its RCPT commands.
    pub(super) mail: Option<String>,
    pub(super) rcpts: Option<Vec<String>>,
    /// Texts that stand, or do not stand, in the last message.
    pub(super) has: Option<OneOrMany<String>>,
    pub(super) has_not: Option<OneOrMany<String>>,
    /// What follows the header of the last message, and how it ends.
    pub(super) body: Option<String>,
    pub(super) body_end: Option<String>,
    /// No NUL reaches the next hop.
    pub(super) nul: bool,
    /// Least and most new entries in quarantine.
    pub(super) kept: Option<[usize; 2]>,
    pub(super) closed: bool,
    pub(super) usable: Option<Usable>,
    pub(super) replies: Vec<(String, usize, usize)>,
    pub(super) rss_mb: Option<u64>,
    pub(super) max_s: Option<f64>,
    pub(super) any: Vec<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Usable {
    Always(bool),
    OrClosed(OrClosed),
}

#[derive(Debug, Deserialize)]
pub(super) enum OrClosed {
    #[serde(rename = "or-closed")]
    OrClosed,
}
