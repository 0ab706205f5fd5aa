//! The Bayes filter: in how many spam and ham lessons each slot was, and what that says of a message.
//!
//! The probabilities of single slots are combined by Fisher's method, for and against (Robinson, "A
//! Statistical Approach to the Spam Problem", 2003). Words of one message depend on each other, pairs of
//! words all the more, so they count for less than their number (the "effective size factor" of bogofilter),
//! and by the square of what they say. Every lesson is counted; the counts are exact, so a lesson can be
//! taken back exactly.

use super::extract::Extracted;
use super::features::{Features, SLOT_BITS};
use super::opinion::{Evidence, Opinion};
use super::{Label, Lesson};
use crate::privacy::Redacted;

/// Bits of the table: 2^22 pairs of counts, 32 MiB.
pub(super) const TABLE_BITS: u32 = 22;

/// What stands for the lessons that were not seen, added to both counts of a slot.
const UNSEEN: f64 = 0.05;
/// A slot counts from this distance of its probability from one half.
const MIN_DEVIATION: f64 = 0.4;
/// What a pair of words counts, beside a single word.
const PAIR_WEIGHT: f64 = 0.1;
/// How many independent slots one slot of a message stands for.
const EFFECTIVE_SIZE: f64 = 0.05;
/// Lessons of the rarer label at which the filter has half its voice.
const HALF_VOICE: f64 = 30.0;
/// Calibration: log-odds that fit the shares of spam counted are `SLOPE` times those of Fisher's index, and
/// `SHIFT` more.
const SLOPE: f64 = 5.0;
const SHIFT: f64 = 1.3;

/// Fewest lessons of each label before there is an opinion.
pub const MIN_LESSONS: u32 = 3;
/// Most words that an opinion names for either side.
const MAX_EVIDENCE: usize = 5;

/// In how many spam and ham lessons something was. A plain array: a table of zeros then costs no time.
pub(super) type Counts = [u32; 2];

/// The counts of all slots.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bayes {
    pub(super) lessons: Counts,
    pub(super) table: Vec<Counts>,
}

impl Bayes {
    pub(super) fn new() -> Self {
        Bayes { lessons: [0; 2], table: vec![[0; 2]; 1 << TABLE_BITS] }
    }

    pub(super) fn learn(&mut self, lesson: &Lesson) {
        self.change(lesson, |count| *count = count.saturating_add(1));
    }

    pub(super) fn unlearn(&mut self, lesson: &Lesson) {
        self.change(lesson, |count| *count = count.saturating_sub(1));
    }

    fn change(&mut self, lesson: &Lesson, step: impl Fn(&mut u32)) {
        let of = |[spam, ham]: &mut Counts| match lesson.label {
            Label::Spam => step(spam),
            Label::Ham => step(ham),
        };
        of(&mut self.lessons);
        for cell in cells(&lesson.features) {
            if let Some(counts) = self.table.get_mut(cell) {
                of(counts);
            }
        }
    }

    /// Judges a message; `None` before both labels have been learned [`MIN_LESSONS`] times.
    pub(super) fn judge(&self, extracted: &Extracted) -> Option<Opinion> {
        let [spam, ham] = self.lessons;
        let least = spam.min(ham);
        if least < MIN_LESSONS {
            return None;
        }
        let clues = self.clues(extracted);
        let voice = f64::from(least) / (f64::from(least) + HALF_VOICE);
        let (mut shape, mut for_spam, mut for_ham) = (0.0, 0.0, 0.0);
        for clue in &clues {
            let pair = if extracted.words.is_pair(clue.index) { PAIR_WEIGHT } else { 1.0 };
            let weight = pair * EFFECTIVE_SIZE * voice * (2.0 * clue.deviation()).powi(2);
            shape += weight;
            for_spam -= weight * (1.0 - clue.probability).ln();
            for_ham -= weight * clue.probability.ln();
        }
        // Each tail is the chance that slots that say nothing would say as much: the one close to 0 wins,
        // and where both are, the message is like both.
        let index = (1.0 + gamma_tail(shape, for_ham) - gamma_tail(shape, for_spam)) / 2.0;
        let index = index.clamp(1e-6, 1.0 - 1e-6);
        let log_odds = SLOPE * (index / (1.0 - index)).ln() + SHIFT * voice;
        Some(Opinion::new(log_odds, strongest(&clues, extracted, true), strongest(&clues, extracted, false)))
    }

    /// Returns the slots of a message that tell spam from ham.
    fn clues(&self, extracted: &Extracted) -> Vec<Clue> {
        let [per_spam, per_ham] = self.lessons.map(|lessons| 1.0 / (f64::from(lessons) + 1.0));
        let slots = extracted.features.words().iter();
        // Nearly every look into the table misses the cache: a loop that does nothing else overlaps them.
        let counts: Vec<Counts> =
            slots.map(|slot| self.table.get(cell(*slot)).copied().unwrap_or_default()).collect();
        let mut clues = Vec::with_capacity(512);
        for (index, counts) in counts.into_iter().enumerate() {
            if counts == [0; 2] {
                continue;
            }
            let [spam, ham] = counts.map(|count| f64::from(count) + UNSEEN);
            let (spam, ham) = (spam * per_spam, ham * per_ham);
            let clue = Clue { probability: spam / (spam + ham), index, counts };
            if clue.deviation() >= MIN_DEVIATION {
                clues.push(clue);
            }
        }
        clues
    }
}

/// A slot that tells spam from ham.
struct Clue {
    /// Of spam, given the slot alone and as much ham as spam.
    probability: f64,
    /// Which slot of the message.
    index: usize,
    counts: Counts,
}

impl Clue {
    fn deviation(&self) -> f64 {
        (self.probability - 0.5).abs()
    }
}

/// Returns the clues that say most for one side, the strongest first.
fn strongest(clues: &[Clue], extracted: &Extracted, for_spam: bool) -> Vec<Evidence> {
    // What was seen often says more to a person than what was seen once, however pure; and so do words that
    // the person sees in the message.
    let weight = |clue: &Clue| {
        let visible = if extracted.words.is_visible(clue.index) { 1.0 } else { 0.3 };
        visible * clue.deviation() * clue.counts.map(f64::from).iter().sum::<f64>().ln_1p()
    };
    let side = clues.iter().filter(|clue| (clue.probability > 0.5) == for_spam);
    let mut side: Vec<(f64, &Clue)> = side.map(|clue| (weight(clue), clue)).collect();
    if side.len() > MAX_EVIDENCE {
        side.select_nth_unstable_by(MAX_EVIDENCE, |(a, _), (b, _)| b.total_cmp(a));
        side.truncate(MAX_EVIDENCE);
    }
    side.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.index.cmp(&other.index)));
    side.into_iter()
        .filter_map(|(_, clue)| {
            let words = Redacted::new(extracted.words.describe(clue.index)?);
            let [spam, ham] = clue.counts;
            Some(Evidence { words, spam, ham })
        })
        .collect()
}

/// Returns the cells of a message, each once: neighbouring slots may share one.
fn cells(features: &Features) -> impl Iterator<Item = usize> {
    let mut last = None;
    features.words().iter().map(|slot| cell(*slot)).filter(move |cell| last.replace(*cell) != Some(*cell))
}

fn cell(slot: u32) -> usize {
    (slot >> (SLOT_BITS - TABLE_BITS)) as usize
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

    #[test]
    fn slots_that_share_a_cell_count_once() {
        let mut bayes = Bayes::new();
        let lesson = Lesson { label: Label::Spam, features: Features::new(vec![4, 5, 6, 7, 8]) };
        bayes.learn(&lesson);
        assert_eq!(bayes.table[1..3], [[1, 0]; 2]);
        bayes.unlearn(&lesson);
        assert!(bayes == Bayes::new());
    }
}
