//! What the learned models think of a message, and how they say so.

use crate::privacy::Redacted;
use crate::verdict::{Finding, Symbol};

/// From this probability on a message is spam.
pub const SPAM_FROM: f64 = 0.95;
/// Up to this probability a message is ham.
pub const HAM_TO: f64 = 0.05;

/// Points at the threshold and at certainty, for spam and for ham. By itself the opinion marks a message at
/// the threshold and keeps it from log-odds of about 5.5 on, with the thresholds of the default policy.
const SPAM_POINTS: (f64, f64) = (4.0, 8.0);
const HAM_POINTS: (f64, f64) = (-0.5, -3.0);
/// Log-odds that count as certainty.
const CERTAIN: f64 = 8.0;

/// What a probability amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Like the ham that was learned.
    Ham,
    /// Like both, or like neither.
    Unsure,
    /// Like the spam that was learned.
    Spam,
}

/// Words of a message that were learned before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The words and where they stand, for a person.
    pub words: Redacted<String>,
    /// In how many spam lessons they were.
    pub spam: u32,
    /// In how many ham lessons they were.
    pub ham: u32,
}

/// A judgement of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// Between 0 for ham and 1 for spam, where there is as much of one as of the other.
    pub probability: f64,
    /// What it amounts to.
    pub state: State,
    /// The words that speak for spam, the strongest first, five at most.
    pub for_spam: Vec<Evidence>,
    /// The words that speak for ham, the strongest first, five at most.
    pub for_ham: Vec<Evidence>,
    log_odds: f64,
}

impl Opinion {
    pub(super) fn new(log_odds: f64, for_spam: Vec<Evidence>, for_ham: Vec<Evidence>) -> Self {
        let probability = 1.0 / (1.0 + (-log_odds).exp());
        let state = match probability {
            p if p >= SPAM_FROM => State::Spam,
            p if p <= HAM_TO => State::Ham,
            _ => State::Unsure,
        };
        Opinion { probability, state, for_spam, for_ham, log_odds }
    }

    /// Returns how much more likely the message is spam than ham: the logarithm of the odds.
    pub fn log_odds(&self) -> f64 {
        self.log_odds
    }

    /// Returns the points of the opinion: +4 to +8 for spam, -0.5 to -3 for ham, none between.
    pub fn points(&self) -> f64 {
        let ((at, full), threshold) = match self.state {
            State::Spam => (SPAM_POINTS, SPAM_FROM),
            State::Ham => (HAM_POINTS, HAM_TO),
            State::Unsure => return 0.0,
        };
        let threshold = (threshold / (1.0 - threshold)).ln().abs();
        let certainty = ((self.log_odds.abs() - threshold) / (CERTAIN - threshold)).clamp(0.0, 1.0);
        at + (full - at) * certainty
    }

    /// Returns the opinion as a finding: `BAYES_SPAM`, `BAYES_UNSURE` or `BAYES_HAM`.
    pub fn finding(&self) -> Finding {
        let (symbol, words, intro) = match self.state {
            State::Spam => ("BAYES_SPAM", list(&self.for_spam), "It has what was seen before in spam"),
            State::Ham => ("BAYES_HAM", list(&self.for_ham), "It has what was seen before in wanted mail"),
            State::Unsure => {
                let words: Vec<String> = [list(&self.for_spam), list(&self.for_ham)].concat();
                ("BAYES_UNSURE", words, "It is like spam and like wanted mail, or like neither")
            }
        };
        let explanation =
            if words.is_empty() { format!("{intro}.") } else { format!("{intro}: {}.", words.join(", ")) };
        Finding::new(Symbol::fixed(symbol), self.points(), explanation)
    }
}

fn list(evidence: &[Evidence]) -> Vec<String> {
    evidence
        .iter()
        .map(|evidence| format!("{} ({} spam, {} ham)", evidence.words.expose(), evidence.spam, evidence.ham))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(log_odds: f64, state: State, points: f64) {
        let opinion = Opinion::new(log_odds, Vec::new(), Vec::new());
        assert_eq!(opinion.state, state, "{log_odds}");
        assert!((opinion.points() - points).abs() < 0.01, "{log_odds}: {}", opinion.points());
    }

    #[test]
    fn points_grow_with_certainty() {
        check(2.945, State::Spam, 4.0);
        check(5.472, State::Spam, 6.0);
        check(70.0, State::Spam, 8.0);
        check(0.0, State::Unsure, 0.0);
        check(2.9, State::Unsure, 0.0);
        check(-2.945, State::Ham, -0.5);
        check(-5.472, State::Ham, -1.75);
        check(-70.0, State::Ham, -3.0);
    }

    #[test]
    fn a_finding_explains_itself_in_words_and_counts() {
        let evidence = Evidence { words: Redacted::new("\"invoice overdue\"".to_owned()), spam: 41, ham: 2 };
        let opinion = Opinion::new(5.0, vec![evidence], Vec::new());
        let finding = opinion.finding();
        assert_eq!(finding.symbol.as_str(), "BAYES_SPAM");
        assert_eq!(
            finding.explanation.expose(),
            "It has what was seen before in spam: \"invoice overdue\" (41 spam, 2 ham)."
        );
        assert!(!format!("{opinion:?} {finding:?}").contains("invoice"));
    }
}
