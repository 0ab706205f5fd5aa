//! What the learned models think of a message, and how they say so.

use crate::privacy::Redacted;
use crate::verdict::{Finding, Symbol};

/// Points where spam begins: there the default policy keeps a message.
pub const SPAM_POINTS: f64 = 5.0;
/// A difference below this is not shown.
const LEAST_DIFFERENCE: f64 = 0.05;
/// Most points for either side.
pub const MAX_POINTS: f64 = 15.0;

/// What a score amounts to.
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

/// How something in the way a header is written weighs.
#[derive(Debug, Clone, PartialEq)]
pub struct Trait {
    /// What it is, for a person.
    pub words: Redacted<String>,
    /// What it adds to the score.
    pub adds: f64,
}

/// A judgement of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// The sum of what the models say, on a scale of their own: higher is more likely spam.
    pub score: f64,
    /// Of spam, by what became of messages with such scores.
    pub probability: f64,
    /// What it amounts to.
    pub state: State,
    /// The score up to which it amounts to ham.
    pub ham_to: f64,
    /// The score from which on it amounts to spam.
    pub spam_from: f64,
    /// Of spam, by the Bayes filter alone.
    pub bayes: f64,
    /// The words that speak for spam, the strongest first, five at most.
    pub for_spam: Vec<Evidence>,
    /// The words that speak for ham, the strongest first, five at most.
    pub for_ham: Vec<Evidence>,
    /// What weighs most of how the header is written, for either side, the strongest first, three at most.
    pub traits: Vec<Trait>,
}

/// Returns the probability of these log-odds.
pub(super) fn logistic(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

impl Opinion {
    /// Returns the points of the opinion, on the scale on which rules give theirs: 5 at the score where spam begins,
    /// and in proportion from there, 15 at most for either side. The first lessons have low scores, so that rules
    /// carry the first messages.
    pub fn points(&self) -> f64 {
        let points = SPAM_POINTS * self.score / self.spam_from;
        points.clamp(-MAX_POINTS, MAX_POINTS)
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
        let mut explanation =
            if words.is_empty() { format!("{intro}.") } else { format!("{intro}: {}.", words.join(", ")) };
        let speaks = |adds: f64| match self.state {
            State::Spam => adds > 0.0,
            State::Ham => adds < 0.0,
            State::Unsure => true,
        };
        let traits = self.traits.iter().filter(|each| speaks(each.adds));
        let traits: Vec<String> = traits
            .map(|each| format!("{} ({:+.1})", each.words.expose(), SPAM_POINTS * each.adds / self.spam_from))
            .collect();
        if !traits.is_empty() {
            explanation.push_str(&format!(" How its header is written weighs too: {}.", traits.join(", ")));
        }
        Finding::new(Symbol::fixed(symbol), self.points(), explanation)
    }
}

/// Returns what the layers of a recipient change in an opinion, as a finding `BAYES_PERSONAL`; `None` where it is too
/// little to be seen. `counted` are the points that were given for what is shared, of which there are `most` at most.
pub fn difference(counted: f64, own: &Opinion, most: f64) -> Option<Finding> {
    let points = own.points().clamp(-most, most) - counted;
    if points.abs() < LEAST_DIFFERENCE {
        return None;
    }
    let words = list(if points > 0.0 { &own.for_spam } else { &own.for_ham });
    let side = if points > 0.0 { "unwanted" } else { "wanted" };
    let intro = format!("By what was taught for this mailbox it is more likely {side}");
    let explanation =
        if words.is_empty() { format!("{intro}.") } else { format!("{intro}: {}.", words.join(", ")) };
    Some(Finding::new(Symbol::fixed("BAYES_PERSONAL"), points, explanation))
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

    fn opinion(score: f64, spam_from: f64) -> Opinion {
        Opinion {
            score,
            probability: 0.5,
            state: State::Unsure,
            ham_to: 0.0,
            spam_from,
            bayes: 0.5,
            for_spam: Vec::new(),
            for_ham: Vec::new(),
            traits: Vec::new(),
        }
    }

    #[test]
    fn points_are_those_of_the_policy_where_spam_begins() {
        for (score, spam_from, points) in
            [(4.0, 4.0, 5.0), (2.0, 4.0, 2.5), (-4.0, 4.0, -5.0), (90.0, 4.0, 15.0), (-90.0, 4.0, -15.0)]
        {
            assert_eq!(opinion(score, spam_from).points(), points, "{score} {spam_from}");
        }
    }

    #[test]
    fn a_finding_names_the_words_of_its_side() {
        let evidence = |words: &str| Evidence { words: Redacted::new(words.to_owned()), spam: 4, ham: 1 };
        let base = Opinion {
            for_spam: vec![evidence("offer")],
            for_ham: vec![evidence("minutes")],
            traits: vec![
                Trait { words: Redacted::new("the form of Date".to_owned()), adds: 0.4 },
                Trait { words: Redacted::new("a header field X".to_owned()), adds: -0.2 },
            ],
            ..opinion(1.0, 4.0)
        };
        for (state, symbol, named) in [
            (State::Spam, "BAYES_SPAM", &["offer (4 spam, 1 ham)", "the form of Date (+0.5)"][..]),
            (State::Ham, "BAYES_HAM", &["minutes (4 spam, 1 ham)", "a header field X (-0.2)"]),
            (State::Unsure, "BAYES_UNSURE", &["offer", "minutes"]),
        ] {
            let finding = Opinion { state, ..base.clone() }.finding();
            assert_eq!(finding.symbol.as_str(), symbol);
            let text = finding.explanation.expose();
            assert!(named.iter().all(|words| text.contains(words)), "{text}");
        }
        assert!(!opinion(0.0, 4.0).finding().explanation.expose().contains(':'));
    }
}
