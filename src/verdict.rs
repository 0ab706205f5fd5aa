//! What analysers find and what policy makes of it.
//!
//! An analyser returns [`Finding`]s; all of them together are a [`Scan`]; only `policy` turns a scan into
//! a [`Disposition`].

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::privacy::Redacted;

/// The permanent name of a kind of finding, in UPPER_SNAKE with a family prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Symbol(Cow<'static, str>);

impl Symbol {
    /// Names a symbol of our own code.
    pub const fn fixed(name: &'static str) -> Self {
        Symbol(Cow::Borrowed(name))
    }

    /// Names a symbol that a rule file defined.
    pub fn new(name: impl Into<String>) -> Self {
        Symbol(Cow::Owned(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A score on the one scale that all analysers share: positive speaks for unwanted mail; 5 is
/// SpamAssassin's customary threshold.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
pub struct Score(f64);

impl Score {
    /// Takes a number of points; what is not finite counts as nothing, what is huge as 10,000.
    pub fn new(points: f64) -> Self {
        // Adding zero makes the negative zero of an empty sum a plain one.
        if points.is_finite() { Score(points.clamp(-10_000.0, 10_000.0) + 0.0) } else { Score(0.0) }
    }

    /// Returns the points.
    pub fn points(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded first, for the same reason: -0.04 is shown as 0.0.
        write!(f, "{:.1}", (self.0 * 10.0).round() / 10.0 + 0.0)
    }
}

/// One thing that an analyser noticed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its kind.
    pub symbol: Symbol,
    /// Its weight.
    pub score: Score,
    /// One sentence for the person who reviews the message. It may quote the message, so it goes to
    /// nobody else: logs and header fields carry symbols only.
    #[serde(with = "crate::privacy::exposed")]
    pub explanation: Redacted<String>,
}

impl Finding {
    /// Makes a finding.
    pub fn new(symbol: Symbol, score: f64, explanation: impl Into<String>) -> Self {
        Finding { symbol, score: Score::new(score), explanation: Redacted::new(explanation.into()) }
    }
}

/// An analyser that did not do its work on this message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded {
    /// Which one.
    pub analyser: &'static str,
    /// Why: a panic, a deadline, a missing model.
    pub reason: &'static str,
}

/// Everything that was found in one message.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// The findings of all analysers.
    pub findings: Vec<Finding>,
    /// The analysers that failed; the others' findings stand.
    pub degraded: Vec<Degraded>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Scan {
    /// Returns the sum of all findings.
    pub fn score(&self) -> Score {
        Score::new(self.findings.iter().map(|finding| finding.score.points()).sum())
    }
}

/// What happens to a message for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// It goes on as it is.
    Deliver,
    /// It goes on, marked as spam.
    Tag,
    /// It is kept until a person decides.
    Quarantine,
    /// The client is asked to try again later.
    Defer,
    /// The client is refused.
    Reject,
}

impl Disposition {
    /// Every disposition, mildest first.
    pub const ALL: [Disposition; 5] = [
        Disposition::Deliver,
        Disposition::Tag,
        Disposition::Quarantine,
        Disposition::Defer,
        Disposition::Reject,
    ];

    /// Returns its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Disposition::Deliver => "deliver",
            Disposition::Tag => "tag",
            Disposition::Quarantine => "quarantine",
            Disposition::Defer => "defer",
            Disposition::Reject => "reject",
        }
    }

    /// Whether the next hop gets the message.
    pub fn is_relayed(self) -> bool {
        matches!(self, Disposition::Deliver | Disposition::Tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_scores_the_sum_of_its_findings() {
        let scan = Scan {
            findings: vec![
                Finding::new(Symbol::fixed("A"), 2.5, ""),
                Finding::new(Symbol::fixed("B"), -1.0, ""),
                Finding::new(Symbol::fixed("C"), f64::NAN, ""),
            ],
            ..Scan::default()
        };
        assert_eq!(scan.score(), Score::new(1.5));
        assert_eq!(Scan::default().score().to_string(), "0.0");
    }

    #[test]
    fn explanations_are_kept_from_debug_output() {
        let finding = Finding::new(Symbol::fixed("A"), 1.0, "from alice@example.org");
        assert!(!format!("{finding:?}").contains("alice"));
        assert!(serde_json::to_string(&finding).unwrap().contains("alice"));
    }
}
