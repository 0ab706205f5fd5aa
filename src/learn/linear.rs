//! A linear model over one view of a message: logistic regression, learned on line with AdaGrad (Duchi, Hazan and
//! Singer, 2011).
//!
//! Of n slots each has the value 1/sqrt(n), so that long and short messages weigh the same.

use super::features::SLOT_BITS;
use super::opinion::logistic;

/// An error below this teaches nothing.
const LEAST_ERROR: f64 = 0.001;
/// Keeps the first step of a weight finite.
const EPSILON: f64 = 1e-7;

/// The weights of one view.
#[derive(Clone, PartialEq)]
pub(super) struct Linear {
    /// Apart from the squares, which are of no use for judging: that would halve what fits into the caches.
    pub(super) weights: Vec<f32>,
    /// Sums of squared gradients.
    pub(super) squares: Vec<f32>,
    /// How far a lesson moves the weights.
    rate: f64,
    /// Low bits of a slot that are left out: a smaller table has fewer cells.
    shift: u32,
}

impl Linear {
    /// Makes a model of 2^`bits` weights.
    pub(super) fn new(rate: f64, bits: u32) -> Self {
        let shift = SLOT_BITS.saturating_sub(bits);
        let cells = 1 << (SLOT_BITS - shift);
        Linear { weights: vec![0.0; cells], squares: vec![0.0; cells], rate, shift }
    }

    /// Returns the logarithm of the odds that a message with these slots is spam, as far as this view tells.
    pub(super) fn margin(&self, slots: &[&[u32]]) -> f64 {
        let weight = |slot: &u32| {
            self.weights.get((*slot >> self.shift) as usize).map_or(0.0, |weight| f64::from(*weight))
        };
        let sum: f64 = slots.iter().copied().flatten().map(weight).sum();
        sum * value(slots)
    }

    /// Returns the part of [`Linear::margin`] that comes from one of `slots`.
    pub(super) fn part(&self, slot: u32, slots: &[&[u32]]) -> f64 {
        let weight = self.weights.get((slot >> self.shift) as usize).copied().unwrap_or_default();
        f64::from(weight) * value(slots)
    }

    /// Moves the weights towards a label, on the error of this view alone: `margin` is what was said of these slots.
    /// `share` lessens the rate.
    pub(super) fn learn(&mut self, slots: &[&[u32]], margin: f64, is_spam: bool, share: f64) {
        let error = f64::from(u8::from(is_spam)) - logistic(margin);
        if error.abs() < LEAST_ERROR {
            return;
        }
        let gradient = error * value(slots);
        let square = gradient * gradient;
        for slot in slots.iter().copied().flatten().map(|slot| (*slot >> self.shift) as usize) {
            if let (Some(weight), Some(squares)) = (self.weights.get_mut(slot), self.squares.get_mut(slot)) {
                let sum = f64::from(*squares) + square;
                *squares = single(sum);
                *weight = single(f64::from(*weight) + share * self.rate * gradient / (sum + EPSILON).sqrt());
            }
        }
    }
}

/// The value of each slot of a message.
fn value(slots: &[&[u32]]) -> f64 {
    let count: usize = slots.iter().map(|slots| slots.len()).sum();
    1.0 / (count.max(1) as f64).sqrt()
}

/// Rounds to single precision, in which weights are kept.
#[allow(clippy::cast_possible_truncation, reason = "rounding is what is meant, and the values are small")]
fn single(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn teach(model: &mut Linear, slots: &[&[u32]], is_spam: bool) {
        model.learn(slots, model.margin(slots), is_spam, 1.0);
    }

    #[test]
    fn what_was_learned_is_told_apart_and_what_is_certain_teaches_nothing() {
        let mut model = Linear::new(0.4, SLOT_BITS);
        assert_eq!(model.margin(&[&[1, 2, 3]]), 0.0);
        for _ in 0..50 {
            teach(&mut model, &[&[1, 2], &[3]], true);
            teach(&mut model, &[&[3, 4, 5]], false);
        }
        assert!(model.margin(&[&[1, 2]]) > 2.0 && model.margin(&[&[4, 5]]) < -2.0);
        assert_eq!(model.margin(&[]), 0.0);
        let before = model.clone();
        for _ in 0..100_000 {
            teach(&mut model, &[&[1, 2], &[3]], true);
        }
        let margin = model.margin(&[&[1, 2, 3]]);
        assert!(margin < 7.0 && margin > before.margin(&[&[1, 2, 3]]), "{margin}");
    }
}
