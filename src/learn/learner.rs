//! What learns, of any size: a linear model for each of three views, and the Bayes filter.

use super::bayes::Bayes;
use super::extract::Extracted;
use super::features::{Features, View};
use super::linear::Linear;

/// How far a lesson moves the weights of each view.
const RATES: [f64; 3] = [0.45, 0.6, 0.45];
/// Lessons at which the linear models have half their voice.
const START: f64 = 20.0;

/// Features of the header of which it is told how much they weigh; some say the same.
const STRONGEST: usize = 12;

/// The models of one layer.
#[derive(Clone, PartialEq)]
pub(super) struct Learner {
    /// Of spam and of ham, given by persons.
    pub(super) lessons: [u32; 2],
    /// Header, relations, body.
    pub(super) linear: [Linear; 3],
    pub(super) bayes: Bayes,
}

impl Learner {
    /// Makes one with tables of 2^`bits` cells, that has learned nothing.
    pub(super) fn new(bits: u32) -> Self {
        Learner {
            lessons: [0; 2],
            linear: RATES.map(|rate| Linear::new(rate, bits)),
            bayes: Bayes::new(bits),
        }
    }

    /// Counts a lesson that a person gave.
    pub(super) fn count_one(&mut self, is_spam: bool) {
        let [spam, ham] = &mut self.lessons;
        let lessons = if is_spam { spam } else { ham };
        *lessons = lessons.saturating_add(1);
    }

    /// Returns the lessons that persons gave.
    pub(super) fn count(&self) -> u32 {
        let [spam, ham] = self.lessons;
        spam.saturating_add(ham)
    }

    /// Returns the bytes of its tables.
    pub(super) fn memory_bytes(&self) -> usize {
        let linear: usize = self.linear.iter().map(|linear| size_of_val(linear.weights.as_slice())).sum();
        let counts: usize = self.bayes.tables.iter().map(|table| size_of_val(table.as_slice())).sum();
        2 * linear + counts
    }

    /// Returns what each linear model says.
    pub(super) fn margins(&self, features: &Features) -> [f64; 3] {
        let [header, relations, body] = &self.linear;
        let [of_header, of_relations, of_body] = views(features);
        [header.margin(&of_header), relations.margin(&of_relations), body.margin(&of_body)]
    }

    /// Returns what of the header moves its linear model most, either way, the strongest first: places in the words of a
    /// message, and the log-odds that each adds.
    pub(super) fn strongest(&self, extracted: &Extracted) -> Vec<(usize, f64)> {
        let [header, ..] = &self.linear;
        let [of_header, ..] = views(&extracted.features);
        let origins = extracted.words.origins.iter().enumerate();
        let of_header_alone = origins.filter(|(_, origin)| origin.kind.view() == View::Header);
        let mut parts: Vec<(usize, f64)> =
            of_header_alone.map(|(place, origin)| (place, header.part(origin.slot, &of_header))).collect();
        let strongest_first = |(_, a): &(usize, f64), (_, b): &(usize, f64)| b.abs().total_cmp(&a.abs());
        if parts.len() > STRONGEST {
            parts.select_nth_unstable_by(STRONGEST, strongest_first);
            parts.truncate(STRONGEST);
        }
        parts.sort_by(|a, b| strongest_first(a, b).then(a.0.cmp(&b.0)));
        parts
    }

    /// Moves the weights towards a label, each view on its own error; `said` is what was said in each.
    pub(super) fn move_weights(&mut self, features: &Features, said: [f64; 3], is_spam: bool, share: f64) {
        for ((linear, slots), said) in self.linear.iter_mut().zip(views(features)).zip(said) {
            linear.learn(&slots, said, is_spam, share);
        }
    }
}

/// Returns how far linear models count behind which are so many lessons: the less the fewer.
pub(super) fn fade(lessons: u32) -> f64 {
    let lessons = f64::from(lessons) + 1.0;
    lessons / (lessons + START)
}

/// Returns the slots of each linear model's view.
fn views(features: &Features) -> [[&[u32]; 2]; 3] {
    [[View::Header; 2], [View::Relations; 2], [View::Grams, View::Tokens]]
        .map(|[one, other]| [features.view(one), if one == other { &[] } else { features.view(other) }])
}
