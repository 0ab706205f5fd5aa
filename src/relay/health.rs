//! Which targets are worth trying, and in what order.
//!
//! A target that fails is set aside, longer each time; when its time is over one transaction tries it, and
//! the others wait for what comes of that. Health is about reaching a target: what becomes of a message
//! says nothing of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Gauge;

/// The most that the time of a target aside is doubled.
const MAX_DOUBLINGS: u32 = 5;

/// Whether a target can be reached, as far as is known. Shared by all who use it.
#[derive(Debug, Default)]
pub(super) struct Health {
    aside: Mutex<Option<Aside>>,
}

#[derive(Debug, Clone, Copy)]
struct Aside {
    failures: u32,
    until: Instant,
}

impl Health {
    /// Returns when the target is to be tried again; `None` when nothing is known against it.
    pub(super) fn set_aside_until(&self) -> Option<Instant> {
        self.with(|aside| aside.map(|aside| aside.until))
    }

    /// Whether the caller may try the target now. When its time aside is over, the first to ask may, and
    /// the others are told to wait for `trial`.
    pub(super) fn may_try(&self, trial: Duration) -> bool {
        let now = Instant::now();
        self.with(|aside| match aside {
            None => true,
            Some(aside) if aside.until > now => false,
            Some(aside) => {
                aside.until = now + trial;
                true
            }
        })
    }

    /// The target was reached.
    pub(super) fn succeeded(&self) {
        if self.with(|aside| aside.take().is_some()) {
            Gauge::NextHopsSetAside.add(-1.0);
        }
    }

    /// The target was not reached.
    pub(super) fn failed(&self, retry_after: Duration) {
        let now = Instant::now();
        let is_first = self.with(|aside| {
            let failures = aside.map_or(0, |aside| aside.failures);
            let pause = retry_after.saturating_mul(1 << failures.min(MAX_DOUBLINGS));
            let is_first = aside.is_none();
            *aside = Some(Aside { failures: failures.saturating_add(1), until: now + pause });
            is_first
        });
        if is_first {
            Gauge::NextHopsSetAside.add(1.0);
        }
    }

    /// What the lock guards is never half done, so it stands when a thread panicked with it.
    fn with<T>(&self, change: impl FnOnce(&mut Option<Aside>) -> T) -> T {
        change(&mut self.aside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.succeeded();
    }
}

/// Returns an order of targets, given by priority and weight: by priority, and at random among equals, each
/// as often first as its weight says (as RFC 2782 has it, but for a weight of zero, which counts as one).
pub(super) fn order(targets: &[(u16, u16)], mut random: impl FnMut() -> u64) -> Vec<usize> {
    let mut left: Vec<(u16, u64, usize)> = targets
        .iter()
        .enumerate()
        .map(|(index, &(priority, weight))| (priority, u64::from(weight.max(1)), index))
        .collect();
    left.sort_by_key(|&(priority, ..)| priority);
    let mut ordered = Vec::with_capacity(left.len());
    while let Some(&(first, ..)) = left.first() {
        let equals = left.iter().take_while(|&&(priority, ..)| priority == first);
        let (count, sum) =
            equals.fold((0usize, 0), |(count, sum), &(_, weight, _)| (count + 1, sum + weight));
        let mut drawn = if count > 1 { random() % sum } else { 0 };
        let chosen = left.iter().position(|&(_, weight, _)| {
            let is_here = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            is_here
        });
        ordered.push(left.remove(chosen.unwrap_or_default()).2);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_come_by_priority_and_among_equals_by_weight() {
        let targets = [(20, 1), (10, 1), (10, 3), (5, 0), (20, 1)];
        for (drawn, expected) in [(0, [3, 1, 2, 0, 4]), (1, [3, 2, 1, 4, 0]), (3, [3, 2, 1, 4, 0])] {
            assert_eq!(order(&targets, || drawn), expected, "{drawn}");
        }
        assert_eq!(order(&[], || 0), [0; 0]);
        let firsts = (0..400).filter(|&drawn| order(&[(1, 1), (1, 3)], || drawn)[0] == 1).count();
        assert_eq!(firsts, 300);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_fails_is_set_aside_for_twice_as_long_each_time() {
        let health = Health::default();
        let second = Duration::from_secs(1);
        assert!(health.may_try(second) && health.set_aside_until().is_none());
        for pause in [10, 20, 40, 80, 160, 320, 320] {
            health.failed(10 * second);
            tokio::time::advance((pause - 1) * second).await;
            assert!(!health.may_try(second), "{pause}");
            tokio::time::advance(second).await;
            assert!(health.may_try(second), "{pause}");
            assert!(!health.may_try(second), "one tries, the others wait");
        }
        health.succeeded();
        assert!(health.may_try(second) && health.may_try(second));
    }
}
