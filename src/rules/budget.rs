//! The time that rules may take over one message.
//!
//! Everything that is linear in the message needs no clock. What backtracks does: a rule that takes too long
//! stops for this message, and so do all of its kind when they have taken too long together. Which rules
//! were stopped is reported; their findings are missing and nothing else is.

use std::time::{Duration, Instant};

/// Time for one rule that backtracks.
const RULE: Duration = Duration::from_millis(100);
/// Time for all of them together.
const RULES: Duration = Duration::from_millis(500);

/// What is left of the time, and who used it up.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The place of the rule at work.
    rule: usize,
    of_rule: Duration,
    of_all: Duration,
    exceeded: Vec<usize>,
}

impl Budget {
    /// Says which rule is at work.
    pub(super) fn begin(&mut self, rule: usize) {
        if self.rule != rule {
            (self.rule, self.of_rule) = (rule, Duration::ZERO);
        }
    }

    /// Runs what backtracks. Returns `None` when there is no time left for it, or it gave up.
    pub(super) fn backtrack<T>(&mut self, work: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.of_rule >= RULE || self.of_all >= RULES {
            self.exceed();
            return None;
        }
        let started = Instant::now();
        let result = work();
        let taken = started.elapsed();
        self.of_rule += taken;
        self.of_all += taken;
        if result.is_none() {
            self.exceed();
        }
        result
    }

    /// Notes that the rule at work was stopped.
    pub(super) fn exceed(&mut self) {
        if !self.exceeded.contains(&self.rule) {
            self.exceeded.push(self.rule);
        }
    }

    /// Returns the places of the rules that were stopped.
    pub(super) fn exceeded(&self) -> &[usize] {
        &self.exceeded
    }
}
