//! From a score to a probability, and to one of three states, by what became of earlier messages with such scores.
//!
//! Each lesson is judged before it is learned: how often messages with such a score were spam is counted in a few
//! bins, older lessons less and less. The shares are made monotone (pool adjacent violators: Ayer and others, 1955)
//! and read between the middles of the bins.

use super::opinion::{State, logistic};

/// The scores at the middles of the outer bins; each bin is one wide.
const OUTER: f64 = 12.0;
const BINS: usize = 25;
/// What is believed before anything was counted, in lessons for each bin: log-odds of this share of the score.
const BELIEF: f64 = 1.0;
const BELIEVED_SLOPE: f64 = 0.8;
/// Lessons after which one counts for a third.
const MEMORY: f64 = 2_000.0;

/// Where the states begin; at the start, and how far a lesson moves them.
const FIRST_SPAM: f64 = 5.0;
/// Spam never begins below: what is like nothing that was learned scores about 0.
const LEAST_SPAM: f64 = 2.0;
const STEP: f64 = 2.0;
/// The share of ham that may be called spam, and of spam that may be called ham.
const HAM_LOST: f64 = 0.001;
const SPAM_PASSED: f64 = 0.01;
/// No bound goes further than this.
const FURTHEST: f64 = 20.0;

/// How spam and ham scored so far.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Calibration {
    /// Lessons of spam and of ham in each bin.
    pub(super) bins: [[f64; 2]; BINS],
    /// From this score on a message is spam.
    pub(super) spam_from: f64,
    /// Up to this score it is ham.
    pub(super) ham_to: f64,
}

impl Calibration {
    pub(super) fn new() -> Self {
        Calibration { bins: [[0.0; 2]; BINS], spam_from: FIRST_SPAM, ham_to: 0.0 }
    }

    /// Counts a message that had a score and is said to be spam or ham; `trust` is how far that is believed.
    pub(super) fn learn(&mut self, score: f64, is_spam: bool, trust: f64) {
        for count in self.bins.iter_mut().flatten() {
            *count *= 1.0 - 1.0 / MEMORY;
        }
        let bin = (0..BINS).rfind(|bin| score >= middle(*bin) - 0.5).unwrap_or(0);
        if let Some([spam, ham]) = self.bins.get_mut(bin) {
            *(if is_spam { spam } else { ham }) += trust;
        }
        if trust < 1.0 {
            // What is likely said by mistake moves no bound.
            return;
        }
        if is_spam {
            let passed = score <= self.ham_to;
            self.ham_to += if passed { -STEP * (1.0 - SPAM_PASSED) } else { STEP * SPAM_PASSED };
        } else {
            let lost = score >= self.spam_from;
            self.spam_from += if lost { STEP * (1.0 - HAM_LOST) } else { -STEP * HAM_LOST };
        }
        self.spam_from = self.spam_from.clamp(LEAST_SPAM, FURTHEST);
        self.ham_to = self.ham_to.clamp(-FURTHEST, 0.0);
    }

    /// Moves the bounds where a message that was learned before is lost or passed now. It says nothing of how often that
    /// happens.
    pub(super) fn warn(&mut self, score: f64, is_spam: bool) {
        if is_spam && score <= self.ham_to {
            self.ham_to = (self.ham_to - STEP).max(-FURTHEST);
        } else if !is_spam && score >= self.spam_from {
            self.spam_from = (self.spam_from + STEP).min(FURTHEST);
        }
    }

    /// Returns the state that a score amounts to.
    pub(super) fn state(&self, score: f64) -> State {
        match score {
            score if score >= self.spam_from => State::Spam,
            score if score <= self.ham_to => State::Ham,
            _ => State::Unsure,
        }
    }

    /// Returns the log-odds that a message with this score is spam.
    pub(super) fn log_odds(&self, score: f64) -> f64 {
        let shares = self.shares();
        let share = |bin: usize| shares.get(bin).copied().unwrap_or(0.5);
        let at = (score.clamp(-OUTER, OUTER) + OUTER).clamp(0.0, 2.0 * OUTER);
        let below = (0..BINS).rfind(|bin| at >= *bin as f64).unwrap_or(0);
        let part = at - below as f64;
        let logit = |share: f64| (share / (1.0 - share)).ln();
        logit(share(below)) * (1.0 - part) + logit(share((below + 1).min(BINS - 1))) * part
    }

    /// Returns the share of spam in each bin, never falling.
    fn shares(&self) -> [f64; BINS] {
        let mut blocks: Vec<(f64, f64, usize)> = Vec::with_capacity(BINS);
        for (bin, [spam, ham]) in self.bins.iter().enumerate() {
            let believed = BELIEF * logistic(BELIEVED_SLOPE * middle(bin));
            let mut block = (spam + believed, spam + ham + BELIEF, 1);
            while let Some((spam, all, width)) =
                blocks.pop_if(|(spam, all, _)| *spam / *all >= block.0 / block.1)
            {
                block = (spam + block.0, all + block.1, width + block.2);
            }
            blocks.push(block);
        }
        let mut shares = [0.5; BINS];
        let flat = blocks.into_iter().flat_map(|(spam, all, width)| std::iter::repeat_n(spam / all, width));
        shares.iter_mut().zip(flat).for_each(|(share, found)| *share = found);
        shares
    }
}

fn middle(bin: usize) -> f64 {
    bin as f64 - OUTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_came_true_are_what_is_said_next() {
        let mut calibration = Calibration::new();
        for n in 0..1_000 {
            calibration.learn(4.0, n % 2 == 0, 1.0);
            calibration.learn(-4.0, n % 10 == 0, 1.0);
        }
        let probability = |score| logistic(calibration.log_odds(score));
        assert!((probability(4.0) - 0.5).abs() < 0.05, "{}", probability(4.0));
        assert!((probability(-4.0) - 0.1).abs() < 0.03, "{}", probability(-4.0));
    }

    #[test]
    fn probabilities_never_fall_as_scores_rise() {
        let mut calibration = Calibration::new();
        for (score, is_spam) in
            [(3.0, false), (2.0, true), (-5.0, true), (0.5, false), (80.0, true), (-80.0, true)]
        {
            for _ in 0..20 {
                calibration.learn(score, is_spam, 1.0);
            }
        }
        let scores: Vec<f64> =
            (-300..300).map(|tenths| calibration.log_odds(f64::from(tenths) / 10.0)).collect();
        assert!(scores.iter().zip(scores.iter().skip(1)).all(|(one, next)| *next > one - 1e-9));
    }

    #[test]
    fn the_bounds_follow_what_is_lost() {
        let mut calibration = Calibration::new();
        assert_eq!(
            [5.1, 0.1, -0.1].map(|score| calibration.state(score)),
            [State::Spam, State::Unsure, State::Ham]
        );
        calibration.learn(6.0, false, 1.0);
        assert_eq!(calibration.state(6.5), State::Unsure);
        (0..3_000).for_each(|_| calibration.learn(-3.0, false, 1.0));
        assert_eq!([1.9, 2.0].map(|score| calibration.state(score)), [State::Unsure, State::Spam]);
        let bins = calibration.bins;
        calibration.warn(-3.0, false);
        assert_eq!(calibration.state(2.0), State::Spam);
        calibration.warn(3.0, false);
        assert_eq!((calibration.state(3.9), calibration.bins), (State::Unsure, bins));
        calibration.learn(-1.0, true, 1.0);
        assert_eq!(calibration.state(-1.5), State::Unsure);
    }
}
