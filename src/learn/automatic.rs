//! Lessons that nobody gave: of messages on which rules, linear models and Bayes filter agree with a margin.
//!
//! They count half, are as many of either label, and few in an hour: a filter that teaches itself much drifts. Before
//! people taught enough there are none.

use super::{Label, Opinion};

/// Lessons that people gave before the first.
const GIVEN: u32 = 200;
/// The score lies by this beyond where spam begins, or ham ends.
const MARGIN: f64 = 4.0;
/// The Bayes filter by itself is so sure.
const SURE: f64 = 0.99;
/// Points of rules for spam, at least; for ham there are none.
const SPAM_POINTS: f64 = 3.0;
/// Lessons in an hour, and how many more of one label than of the other.
const MAX_AN_HOUR: u32 = 60;
const MAX_AHEAD: i32 = 10;

/// Returns the label on which all agree; `rules` are their points, `given` the lessons that people gave.
pub fn sure_label(opinion: &Opinion, rules: f64, given: u32) -> Option<Label> {
    if given < GIVEN {
        return None;
    }
    let (ham_to, spam_from) = (opinion.ham_to, opinion.spam_from);
    if opinion.score >= spam_from + MARGIN && opinion.bayes >= SURE && rules >= SPAM_POINTS {
        Some(Label::Spam)
    } else if opinion.score <= ham_to - MARGIN && opinion.bayes <= 1.0 - SURE && rules <= 0.0 {
        Some(Label::Ham)
    } else {
        None
    }
}

/// How many such lessons there were lately.
#[derive(Debug, Clone, Default)]
pub struct Automatic {
    hour: i64,
    taken: u32,
    /// Spam less ham.
    ahead: i32,
    /// Of messages to traps.
    trapped: u32,
}

impl Automatic {
    /// Whether there is room for a lesson of a label in an hour of any clock; it counts then.
    pub fn take(&mut self, label: Label, hour: i64) -> bool {
        self.begin(hour);
        let step = if label == Label::Spam { 1 } else { -1 };
        let has_room = self.taken < MAX_AN_HOUR && (self.ahead + step).abs() <= MAX_AHEAD;
        if has_room {
            self.taken += 1;
            self.ahead += step;
        }
        has_room
    }

    /// Whether there is room for a lesson from a message to a trap, which is spam whatever was learned of late.
    pub fn take_trapped(&mut self, hour: i64) -> bool {
        self.begin(hour);
        self.trapped += 1;
        self.trapped <= MAX_AN_HOUR
    }

    fn begin(&mut self, hour: i64) {
        if self.hour != hour {
            (self.hour, self.taken, self.trapped) = (hour, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::State;

    fn check(score: f64, bayes: f64, rules: f64, given: u32, expected: Option<Label>) {
        let opinion = Opinion {
            score,
            probability: 0.5,
            state: State::Unsure,
            ham_to: -1.0,
            spam_from: 5.0,
            bayes,
            for_spam: Vec::new(),
            for_ham: Vec::new(),
            traits: Vec::new(),
        };
        assert_eq!(sure_label(&opinion, rules, given), expected, "{score} {bayes} {rules} {given}");
    }

    #[test]
    fn all_must_agree_and_people_must_have_taught() {
        check(9.0, 0.995, 3.0, 200, Some(Label::Spam));
        check(9.0, 0.995, 3.0, 199, None);
        check(8.9, 0.995, 3.0, 200, None);
        check(9.0, 0.98, 3.0, 200, None);
        check(9.0, 0.995, 2.9, 200, None);
        check(-5.0, 0.005, 0.0, 200, Some(Label::Ham));
        check(-4.9, 0.005, 0.0, 200, None);
        check(-5.0, 0.02, 0.0, 200, None);
        check(-5.0, 0.005, 0.1, 200, None);
    }

    #[test]
    fn they_are_balanced_and_few() {
        let mut automatic = Automatic::default();
        let taken = (0..100).filter(|_| automatic.take(Label::Spam, 1)).count();
        assert_eq!(taken, 10);
        let taken = (0..200).filter(|n| automatic.take([Label::Ham, Label::Spam][n % 2], 1)).count();
        assert_eq!(taken, 50);
        assert!(automatic.take(Label::Ham, 2));
        assert_eq!((0..100).filter(|_| automatic.take_trapped(2)).count(), 60);
        assert!(automatic.take_trapped(3));
    }
}
