//! The Bayes filter: in how many spam and ham lessons each relation and each token was, and what that says of a
//! message.
//!
//! It carries the first lessons, as a voice beside the linear models that fades as they learn; it says why, in words
//! and counts; and by itself it is a second opinion: the probabilities of single slots combined by Fisher's method,
//! for and against (Robinson, "A Statistical Approach to the Spam Problem", 2003). Features of one message depend on
//! each other, so they count for less than their number (the "effective size factor" of bogofilter).

use super::Label;
use std::sync::LazyLock;

use super::extract::Extracted;
use super::features::{Features, SLOT_BITS, View};
use super::opinion::Evidence;
use crate::privacy::Redacted;

/// What the voice counts at the start, and the lessons at which it counts half as much.
const VOICE_LESSONS: f64 = 100.0;

/// What stands for the lessons that were not seen, added to both counts of a slot.
const UNSEEN: f64 = 0.05;
/// A slot counts from this distance of its probability from one half.
const MIN_DEVIATION: f64 = 0.4;
/// How many independent slots one slot of a message stands for.
const EFFECTIVE_SIZE: f64 = 0.05;

/// Most words that an opinion names for either side.
const MAX_EVIDENCE: usize = 5;
/// A count is in halves: so much is a lesson that a person gave.
const WHOLE: f64 = 2.0;

/// In how many spam and ham lessons something was, in halves. A plain array: a table of zeros then costs no time.
pub(super) type Counts = [u32; 2];

/// The views that are counted.
const VIEWS: [View; 2] = [View::Relations, View::Tokens];

/// The counts of all slots.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bayes {
    pub(super) lessons: Counts,
    /// A table for each of the views.
    pub(super) tables: [Vec<Counts>; 2],
    /// Low bits of a slot that are left out.
    shift: u32,
}

/// What the filter says of a message.
pub(super) struct Weighed {
    /// The log-odds that it adds to those of the linear models.
    pub(super) voice: f64,
    /// The probability of spam by itself.
    pub(super) probability: f64,
}

impl Bayes {
    /// Makes a filter with tables of 2^`bits` counts.
    pub(super) fn new(bits: u32) -> Self {
        let shift = SLOT_BITS.saturating_sub(bits);
        let tables = [const { Vec::new() }; 2].map(|_: Vec<()>| vec![[0; 2]; 1 << (SLOT_BITS - shift)]);
        Bayes { lessons: [0; 2], tables, shift }
    }

    /// Counts a lesson, as a whole one or half.
    pub(super) fn learn(&mut self, features: &Features, label: Label, is_half: bool) {
        let add = if is_half { 1 } else { 2 };
        let count = |[spam, ham]: &mut Counts| {
            let count = if label == Label::Spam { spam } else { ham };
            *count = count.saturating_add(add);
        };
        count(&mut self.lessons);
        for (view, table) in VIEWS.into_iter().zip(&mut self.tables) {
            for slot in features.view(view) {
                table.get_mut((*slot >> self.shift) as usize).map(count);
            }
        }
    }

    /// Whether both labels were learned.
    fn knows_both(&self) -> bool {
        self.lessons.iter().all(|lessons| *lessons > 0)
    }

    /// Whether both labels were learned so many times.
    pub(super) fn knows_both_by(&self, least: u32) -> bool {
        self.lessons.iter().all(|lessons| lessons / 2 >= least)
    }

    /// Weighs a message after so many lessons.
    pub(super) fn weigh(&self, features: &Features, lessons: u32) -> Weighed {
        self.weigh_by::<true>(features, lessons)
    }

    /// Returns the voice alone of [`Bayes::weigh`].
    pub(super) fn voice(&self, features: &Features, lessons: u32) -> f64 {
        self.weigh_by::<false>(features, lessons).voice
    }

    fn weigh_by<const ALONE: bool>(&self, features: &Features, lessons: u32) -> Weighed {
        if !self.knows_both() {
            return Weighed { voice: 0.0, probability: 0.5 };
        }
        let [per_spam, per_ham] = self.rates();
        let base = (per_spam / per_ham).ln();
        let (mut voice, mut shape, mut for_spam, mut for_ham) = (0.0, 0.0, 0.0, 0.0);
        for (view, table) in VIEWS.into_iter().zip(&self.tables) {
            let slots = features.view(view);
            let mut sum = 0.0;
            for slot in slots {
                let counts = table.get((*slot >> self.shift) as usize).copied().unwrap_or_default();
                if counts == [0; 2] {
                    continue;
                }
                let [p, q] = counts.map(f64::from);
                let (p, q) = (p * per_spam, q * per_ham);
                let distance = (p - q) / (p + q);
                let [spam, ham] = counts.map(ln_of_count);
                sum += (spam - ham + base) * distance * distance;
                if !ALONE {
                    continue;
                }
                let probability = of_counts(counts, [per_spam, per_ham]);
                let deviation = (probability - 0.5).abs();
                if deviation >= MIN_DEVIATION {
                    let weight = EFFECTIVE_SIZE * (2.0 * deviation).powi(2);
                    shape += weight;
                    for_spam -= weight * (1.0 - probability).ln();
                    for_ham -= weight * probability.ln();
                }
            }
            voice += sum / (slots.len().max(1) as f64).sqrt();
        }
        // Each tail is the chance that slots that say nothing would say as much: the one close to 0 wins,
        // and where both are, the message is like both.
        let probability = (1.0 + gamma_tail(shape, for_ham) - gamma_tail(shape, for_spam)) / 2.0;
        Weighed { voice: voice * VOICE_LESSONS / (VOICE_LESSONS + f64::from(lessons)), probability }
    }

    /// What a count of spam and of ham is to be multiplied with.
    fn rates(&self) -> [f64; 2] {
        self.lessons.map(|lessons| 1.0 / (f64::from(lessons) / WHOLE + 1.0))
    }

    /// Returns what speaks most for spam and for ham, the strongest first.
    pub(super) fn evidence(&self, extracted: &Extracted) -> [Vec<Evidence>; 2] {
        let rates = self.rates();
        let mut sides: [Vec<(f64, usize, Counts)>; 2] = [Vec::new(), Vec::new()];
        for (index, origin) in extracted.words.origins.iter().enumerate() {
            let table = VIEWS.iter().zip(&self.tables).find(|(view, _)| **view == origin.kind.view());
            let Some(counts) =
                table.and_then(|(_, table)| table.get((origin.slot >> self.shift) as usize)).copied()
            else {
                continue;
            };
            let probability = of_counts(counts, rates);
            let deviation = (probability - 0.5).abs();
            if counts == [0; 2] || deviation < MIN_DEVIATION {
                continue;
            }
            // What was seen often says more to a person than what was seen once, however pure; and so does what
            // the person sees in the message.
            let visible = if origin.kind.is_visible() { 1.0 } else { 0.3 };
            let weight = visible * deviation * counts.map(f64::from).iter().sum::<f64>().ln_1p();
            let [for_spam, for_ham] = &mut sides;
            if probability > 0.5 { for_spam } else { for_ham }.push((weight, index, counts));
        }
        sides.map(|mut side| {
            side.sort_by(|(a, one, _), (b, other, _)| b.total_cmp(a).then(one.cmp(other)));
            let mut named: Vec<Evidence> = Vec::new();
            for (_, index, counts) in side {
                let Some(origin) = extracted.words.origins.get(index) else { continue };
                let words = Redacted::new(extracted.words.describe(origin));
                if named.len() < MAX_EVIDENCE && named.iter().all(|evidence| evidence.words != words) {
                    let [spam, ham] = counts.map(|count| count.div_ceil(2));
                    named.push(Evidence { words, spam, ham });
                }
            }
            named
        })
    }
}

/// Returns the probability of spam given one slot, as if there were as much ham as spam.
fn of_counts(counts: Counts, [per_spam, per_ham]: [f64; 2]) -> f64 {
    let [spam, ham] = counts.map(|count| f64::from(count) / WHOLE + UNSEEN);
    let (spam, ham) = (spam * per_spam, ham * per_ham);
    spam / (spam + ham)
}

/// Returns the logarithm of a count in halves, as lessons and a half more. Most counts are small.
fn ln_of_count(count: u32) -> f64 {
    static SMALL: LazyLock<Vec<f64>> =
        LazyLock::new(|| (0..1_024).map(|count| (f64::from(count) / WHOLE + 0.5).ln()).collect());
    SMALL.get(count as usize).copied().unwrap_or_else(|| (f64::from(count) / WHOLE + 0.5).ln())
}

/// Returns the upper tail of the gamma distribution of shape `a` at `x`, which is that of chi-square with
/// 2a degrees of freedom at 2x: the regularised incomplete gamma function Q(a, x).
fn gamma_tail(a: f64, x: f64) -> f64 {
    if a <= 0.0 || x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    let tail = if x < a + 1.0 {
        // The series of the lower tail.
        let (mut term, mut sum, mut k) = (1.0 / a, 1.0 / a, a);
        for _ in 0..2_000 {
            k += 1.0;
            term *= x / k;
            sum += term;
            if term < sum * 1e-15 {
                break;
            }
        }
        1.0 - front * sum
    } else {
        // The continued fraction of the upper tail, by Lentz's method.
        let tiny = 1e-300;
        let mut b = x + 1.0 - a;
        let (mut c, mut d) = (1.0 / tiny, 1.0 / b);
        let mut h = d;
        for i in 1..2_000 {
            let an = -f64::from(i) * (f64::from(i) - a);
            b += 2.0;
            d = an * d + b;
            d = 1.0 / if d.abs() < tiny { tiny } else { d };
            c = b + an / c;
            c = if c.abs() < tiny { tiny } else { c };
            let delta = d * c;
            h *= delta;
            if (delta - 1.0).abs() < 1e-15 {
                break;
            }
        }
        front * h
    };
    tail.clamp(0.0, 1.0)
}

/// Returns the logarithm of the gamma function (Lanczos's approximation, g = 7, n = 9).
fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // Reflection.
        return (std::f64::consts::PI / (std::f64::consts::PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = COEFFICIENTS
        .iter()
        .zip(1u8..)
        .fold(0.999_999_999_999_809_9, |sum, (coefficient, i)| sum + coefficient / (x + f64::from(i)));
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: f64, x: f64, expected: f64) {
        let found = gamma_tail(a, x);
        assert!((found - expected).abs() < 1e-9, "Q({a}, {x}) = {found}, not {expected}");
    }

    #[test]
    fn the_gamma_tail_agrees_with_known_values() {
        // Q(1, x) = e^-x; Q(2, x) = (1 + x) e^-x; Q(1/2, x) = erfc(sqrt x).
        check(1.0, 0.5, (-0.5f64).exp());
        check(1.0, 20.0, (-20.0f64).exp());
        check(2.0, 3.0, 4.0 * (-3.0f64).exp());
        check(0.5, 1.0, 0.157_299_207_050_285_13);
        check(0.5, 0.25, 0.479_500_122_186_953_4);
        check(100.0, 1.0, 1.0);
        check(1.0, 1e6, 0.0);
        check(0.0, 1.0, 1.0);
    }

    #[test]
    fn the_gamma_tail_is_a_probability_everywhere() {
        for a in [1e-6, 0.1, 1.0, 7.5, 100.0, 5_000.0] {
            for x in [0.0, 1e-9, 0.1, 1.0, 50.0, 4_999.0, 1e7] {
                let q = gamma_tail(a, x);
                assert!((0.0..=1.0).contains(&q), "Q({a}, {x}) = {q}");
            }
        }
    }
}
