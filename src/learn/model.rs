//! The model as a value: a fold over lessons.
//!
//! At a given sequence number a model is a pure function of the log up to there; a snapshot only saves the
//! time to fold it again. Models that come later stand beside [`Bayes`] in [`Model`] and in the snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::{Budgets, remembered};
use super::calibration::Calibration;
use super::extract::Extracted;
use super::features::{Features, SLOT_BITS};
use super::layer::{Base, Layer};
use super::learner::{Learner, fade};
use super::opinion::{Opinion, State, Trait, logistic};
use super::rehearsal::Rehearsal;
use super::{Label, Lesson, Weight};
use crate::privacy::Redacted;

/// A lesson that no person gave moves them by this share.
const HALF: f64 = 0.5;

/// Lessons of each label before a message is called spam or ham.
pub const MIN_LESSONS: u32 = 3;

/// From so many lessons on, those that contradict the models by more than this score are slowed by how many of
/// the last of their teacher did.
const SURE_LESSONS: u32 = 100;
const CONTRADICTION: f64 = 6.0;
const CONTRADICTION_MEMORY: f64 = 200.0;
const TOLERATED: f64 = 0.01;
const SLOWEST: f64 = 0.05;
/// The models agree with a lesson from this score on.
const AGREEMENT: f64 = 2.0;
/// What is told of how the header is written: so much, where it adds so much to the score.
const MAX_TRAITS: usize = 3;
const LEAST_TRAIT: f64 = 0.02;

/// Everything learned up to one line of the log. About 22 MiB, whatever was learned.
#[derive(Clone, PartialEq)]
pub struct Model {
    pub(super) sequence: i64,
    pub(super) learner: Learner,
    pub(super) calibration: Calibration,
    /// What is heard again.
    pub(super) rehearsal: Rehearsal,
    /// How often the last lessons of each teacher contradicted the models.
    pub(super) contradicts: BTreeMap<u32, f64>,
    /// How much they taught lately.
    pub(super) budgets: Budgets,
}

/// What a model says of features.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heard {
    /// By view, for the layers below.
    pub base: Base,
    /// The probability of spam by the Bayes filter alone.
    pub bayes: f64,
}

impl Model {
    /// Returns the model that has learned nothing.
    pub fn new() -> Self {
        Model {
            sequence: 0,
            learner: Learner::new(SLOT_BITS),
            calibration: Calibration::new(),
            rehearsal: Rehearsal::default(),
            contradicts: BTreeMap::new(),
            budgets: Budgets::default(),
        }
    }

    /// Learns the lesson of a line of the log.
    pub fn follow(&mut self, sequence: i64, lesson: Option<&Lesson>) {
        if let Some(lesson) = lesson {
            self.learn(lesson);
        }
        self.sequence = sequence;
    }

    /// Learns a lesson, unless its teacher has taught enough for now: nobody alone moves the model far at once.
    pub fn learn(&mut self, lesson: &Lesson) {
        let Lesson { label, features, weight, teacher, hour } = lesson;
        let is_spam = *label == Label::Spam;
        let margins = self.learner.margins(features);
        let sum = self.faded_in(margins);
        let contradiction = if is_spam { -sum } else { sum };
        let mut share = HALF;
        let mut again = None;
        if *weight == Weight::Whole {
            // What the models are sure of moves them little; so early they are sure of nothing.
            let is_against = contradiction > -AGREEMENT && self.count() >= SURE_LESSONS;
            if !self.budgets.take(*teacher, features.sender(), *hour, is_against, self.learner.count()) {
                return;
            }
            share = self.trust(*teacher, contradiction);
            // Before both are known no score means anything.
            if self.learner.bayes.knows_both_by(MIN_LESSONS) {
                let score = sum + self.learner.bayes.weigh(features, self.count()).voice;
                self.calibration.learn(score, is_spam, share);
            }
            self.learner.count_one(is_spam);
            again = self.rehearsal.learn(features, *label);
        }
        self.learner.move_weights(features, margins, is_spam, share);
        self.learner.bayes.learn(features, *label, *weight == Weight::Half);
        if let Some(features) = again {
            let margins = self.learner.margins(&features);
            let score = self.faded_in(margins) + self.learner.bayes.weigh(&features, self.count()).voice;
            self.calibration.warn(score, !is_spam);
            self.learner.move_weights(&features, margins, !is_spam, 1.0);
        }
    }

    /// Returns by what score the linear models contradict a lesson; negative where they agree.
    pub fn contradiction(&self, lesson: &Lesson) -> f64 {
        let sum = self.sum(&lesson.features);
        if lesson.label == Label::Spam { -sum } else { sum }
    }

    /// Returns how far a lesson counts that contradicts the models so much.
    fn trust(&mut self, teacher: u32, contradiction: f64) -> f64 {
        if self.count() < SURE_LESSONS {
            return 1.0;
        }
        let contradicts = contradiction > CONTRADICTION;
        let often = remembered(&mut self.contradicts, teacher);
        *often += (f64::from(u8::from(contradicts)) - *often) / CONTRADICTION_MEMORY;
        if contradicts { (TOLERATED / *often).clamp(SLOWEST, 1.0) } else { 1.0 }
    }

    /// Returns the sum of the linear models.
    fn sum(&self, features: &Features) -> f64 {
        self.faded_in(self.learner.margins(features))
    }

    /// Adds what the linear models say, which counts the less the fewer lessons there are.
    fn faded_in(&self, margins: [f64; 3]) -> f64 {
        margins.iter().sum::<f64>() * fade(self.count())
    }

    fn count(&self) -> u32 {
        self.learner.count()
    }

    /// Returns the number of lessons in force that persons gave: ham, spam.
    pub fn lessons(&self) -> (u32, u32) {
        let [spam, ham] = self.learner.lessons;
        (ham, spam)
    }

    /// Returns up to which score a message is ham, and from which on it is spam.
    pub fn bounds(&self) -> (f64, f64) {
        (self.calibration.ham_to, self.calibration.spam_from)
    }

    /// Returns the bytes that the model takes at most: its tables, and what is heard again.
    pub fn memory_bytes(&self) -> usize {
        self.learner.memory_bytes() + Rehearsal::MEMORY_BYTES
    }

    /// Returns the number of the last step taken; 0 before the first.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Judges a message; `None` until something was learned.
    pub fn judge(&self, extracted: &Extracted) -> Option<Opinion> {
        self.judge_heard(extracted, &self.hear(&extracted.features))
    }

    /// Judges a message by what [`Model::hear`] said of its features.
    pub fn judge_heard(&self, extracted: &Extracted, heard: &Heard) -> Option<Opinion> {
        if self.learner.bayes.lessons == [0; 2] {
            return None;
        }
        let score = heard.base.score();
        let [for_spam, for_ham] = self.learner.bayes.evidence(extracted);
        let (mut state, mut spam_from) = (self.calibration.state(score), self.calibration.spam_from);
        if !self.learner.bayes.knows_both_by(MIN_LESSONS) {
            // One wrong word must not keep what is like it: so early nothing is more than half of what spam is.
            (state, spam_from) = (State::Unsure, spam_from.max(2.0 * score.abs()));
        }
        Some(Opinion {
            score,
            probability: logistic(self.calibration.log_odds(score)),
            state,
            ham_to: self.calibration.ham_to,
            spam_from,
            bayes: heard.bayes,
            for_spam,
            for_ham,
            traits: self.traits(extracted),
        })
    }

    /// Returns what weighs most of how the header is written.
    fn traits(&self, extracted: &Extracted) -> Vec<Trait> {
        let fade = fade(self.count());
        let mut traits: Vec<Trait> = Vec::new();
        for (place, adds) in self.learner.strongest(extracted) {
            let Some(origin) = extracted.words.origins.get(place) else { continue };
            let words = Redacted::new(extracted.words.describe(origin));
            let adds = adds * fade;
            let is_new = traits.iter().all(|each| each.words != words);
            if traits.len() < MAX_TRAITS && is_new && adds.abs() >= LEAST_TRAIT {
                traits.push(Trait { words, adds });
            }
        }
        traits
    }

    /// Judges a message for somebody who has layers, the widest first, on the scale on which [`Model::judge`] does;
    /// `None` until something was learned in any. The words are those of the narrowest layer that has some for its side.
    pub fn judge_for(&self, extracted: &Extracted, heard: &Heard, layers: &[Arc<Layer>]) -> Option<Opinion> {
        let features = &extracted.features;
        let mut said = heard.base;
        let mut lessons = self.lessons();
        let (mut bounds, mut most) = (&self.calibration, self.count());
        for layer in layers {
            said = layer.add(&said, features);
            let (ham, spam) = layer.lessons();
            lessons = (lessons.0.saturating_add(ham), lessons.1.saturating_add(spam));
            // Where spam begins follows the lessons of those who gave most of them.
            if ham.saturating_add(spam) > most {
                (bounds, most) = (&layer.calibration, ham.saturating_add(spam));
            }
        }
        if lessons == (0, 0) {
            return None;
        }
        let score = said.score();
        let (mut state, mut spam_from) = (bounds.state(score), bounds.spam_from);
        if lessons.0.min(lessons.1) < MIN_LESSONS {
            (state, spam_from) = (State::Unsure, spam_from.max(2.0 * score.abs()));
        }
        let mut named = layers.iter().rev().map(|layer| layer.evidence(extracted));
        let [for_spam, for_ham] =
            named.find(|sides| sides.iter().any(|side| !side.is_empty())).unwrap_or_default();
        Some(Opinion {
            score,
            probability: logistic(bounds.log_odds(score)),
            state,
            ham_to: bounds.ham_to,
            spam_from,
            bayes: heard.bayes,
            for_spam,
            for_ham,
            traits: Vec::new(),
        })
    }

    /// Returns what the model says of features.
    pub fn hear(&self, features: &Features) -> Heard {
        let fade = fade(self.count());
        let weighed = self.learner.bayes.weigh(features, self.count());
        let margins = self.learner.margins(features).map(|margin| margin * fade);
        let base = Base::default().and(margins, weighed.voice, self.count());
        Heard { base, bayes: weighed.probability }
    }

    /// Returns what the model says of features to the layers below.
    pub fn base(&self, features: &Features) -> Base {
        self.hear(features).base
    }
}

impl Default for Model {
    fn default() -> Self {
        Model::new()
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ham, spam) = self.lessons();
        write!(f, "Model({ham} ham, {spam} spam, at {})", self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::View;

    fn lesson(label: Label, slots: &[u32], teacher: u32) -> Lesson {
        Lesson { label, features: Features::of(View::Tokens, slots), weight: Weight::Whole, teacher, hour: 0 }
    }

    fn taught(lessons: u32) -> Model {
        let mut model = Model::new();
        for _ in 0..lessons {
            model.learn(&lesson(Label::Spam, &[1, 2, 3], 0));
            model.learn(&lesson(Label::Ham, &[3, 4, 5], 0));
        }
        model
    }

    #[test]
    fn lessons_that_nobody_gave_count_half_and_are_not_counted() {
        let whole = taught(1);
        let mut half = Model::new();
        for (label, slots) in [(Label::Spam, [1, 2, 3]), (Label::Ham, [3, 4, 5])] {
            half.learn(&Lesson { weight: Weight::Half, ..lesson(label, &slots, 0) });
        }
        assert_eq!((whole.lessons(), half.lessons()), ((1, 1), (0, 0)));
        let features = Features::of(View::Tokens, &[1, 2]);
        assert!(half.sum(&features) > 0.0 && half.sum(&features) < whole.sum(&features));
    }

    #[test]
    fn a_teacher_who_often_contradicts_is_slowed_and_others_are_not() {
        let mut model = taught(200);
        let strange = |teacher| lesson(Label::Ham, &[1, 2, 3], teacher);
        assert_eq!(model.trust(1, 7.0), 1.0);
        let trust: Vec<f64> = (0..50).map(|_| model.trust(1, 7.0)).collect();
        assert!(trust.last() < Some(&0.1), "{trust:?}");
        assert_eq!(model.trust(1, 5.0), 1.0);
        assert_eq!(model.trust(2, 7.0), 1.0);
        // What many wrong lessons move is less than what as many trusted ones move.
        let (mut slowed, mut trusted) = (taught(200), taught(200));
        for teacher in 0..10 {
            slowed.learn(&strange(7));
            trusted.learn(&strange(1_000 + teacher));
        }
        let features = Features::of(View::Tokens, &[1, 2, 3]);
        assert!(slowed.sum(&features) >= trusted.sum(&features));
    }

    #[test]
    fn nobody_teaches_more_than_so_much_in_an_hour() {
        let mut model = taught(1);
        let (_, before) = model.lessons();
        for (hour, most) in [(1, 150), (2, 30)] {
            for _ in 0..most {
                model.learn(&Lesson { hour, ..lesson(Label::Spam, &[9], 5) });
            }
        }
        model.learn(&Lesson { hour: 2, ..lesson(Label::Spam, &[9], 6) });
        assert_eq!(model.lessons().1 - before, 100 + 30 + 1);
        // Against the model it is less, until the next day.
        let mut model = taught(100);
        for hour in [1, 2, 24] {
            for slot in 0..40 {
                model.learn(&Lesson { hour, ..lesson(Label::Ham, &[1, 2, 100 + slot], 5) });
            }
        }
        assert_eq!(model.lessons().0 - 100, 8);
    }

    #[test]
    fn order_matters_and_the_same_order_gives_the_same_model() {
        assert!(taught(20) == taught(20));
        let mut other = Model::new();
        for _ in 0..20 {
            other.learn(&lesson(Label::Ham, &[3, 4, 5], 0));
            other.learn(&lesson(Label::Spam, &[1, 2, 3], 0));
        }
        assert!(other != taught(20));
    }
}
