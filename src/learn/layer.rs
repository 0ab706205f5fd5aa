//! A layer: what one person, or one organisation, taught, on top of what the layers above say.
//!
//! Each view learns on the error of the sum over all layers (the "feature augmentation" of Daumé, "Frustratingly
//! Easy Domain Adaptation", 2007, with the shared part held fixed). What the layers above say rightly, a layer need not
//! learn, so a new person has all that is shared from the first message; where they are wrong for this person, the
//! lesson moves this person's weights alone, as far as it takes. What the layers above said is part of the lesson.
//!
//! Who disagrees says so of one kind of mail, and of nothing else: all that this kind has in common with other mail would
//! follow. So a lesson that contradicts what is above is followed by a few of the other label that the shared model keeps
//! to hear again, which hold the rest where it is.

use std::sync::Arc;

use super::calibration::Calibration;
use super::features::Features;
use super::learner::{Learner, fade};
use super::model::Model;
use super::opinion::Evidence;
use super::{Extracted, Label, Lesson, Weight};

/// Cells of a table: a quarter of those of the shared model.
const BITS: u32 = 16;
/// Lessons of the other label that follow one against what is above.
const AGAIN: u32 = 3;
/// Messages that share so many of their words are of one kind.
const SAME_KIND: f64 = 0.5;

/// What was said of a message so far: log-odds by view, whose sum is the score, after so many lessons.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Base {
    /// Of header, relations and body.
    pub margins: [f32; 3],
    /// Lessons behind them.
    pub lessons: u32,
}

impl Base {
    /// Bytes of an encoded base.
    pub const BYTES: usize = 16;

    /// Writes it.
    pub fn encode(&self) -> [u8; Base::BYTES] {
        let [a, b, c] = self.margins.map(f32::to_le_bytes);
        let mut bytes = [0; Base::BYTES];
        for (place, byte) in bytes.iter_mut().zip([a, b, c, self.lessons.to_le_bytes()].into_iter().flatten())
        {
            *place = byte;
        }
        bytes
    }

    /// Reads what [`Base::encode`] wrote; `None` where it is nothing of the kind.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (chunks, []) = bytes.as_chunks::<4>() else { return None };
        let [a, b, c, lessons] = <[[u8; 4]; 4]>::try_from(chunks).ok()?;
        let margins = [a, b, c].map(f32::from_le_bytes);
        let is_finite = margins.iter().all(|margin| margin.is_finite());
        is_finite.then_some(Base { margins, lessons: u32::from_le_bytes(lessons) })
    }

    /// Returns the sum of what was said.
    pub fn score(&self) -> f64 {
        self.margins.iter().copied().map(f64::from).sum()
    }

    /// Adds what a layer says in each view, and in words, after so many lessons.
    pub(super) fn and(self, margins: [f64; 3], voice: f64, lessons: u32) -> Self {
        let mut said = self;
        for (sum, margin) in said.margins.iter_mut().zip(margins) {
            *sum = single(f64::from(*sum) + margin + voice / 3.0);
        }
        said.lessons = said.lessons.saturating_add(lessons);
        said
    }
}

/// Rounds to single precision, in which a lesson keeps it.
#[allow(clippy::cast_possible_truncation, reason = "rounding is what is meant, and the values are small")]
fn single(value: f64) -> f32 {
    value as f32
}

/// What is above a layer.
#[derive(Debug, Clone, Copy)]
pub struct Above<'m> {
    /// The shared model.
    pub model: &'m Model,
    /// The layers between, the widest first.
    pub layers: &'m [Arc<Layer>],
}

impl Above<'_> {
    /// Returns what is said above of features.
    pub fn base(&self, features: &Features) -> Base {
        self.layers.iter().fold(self.model.base(features), |base, layer| layer.add(&base, features))
    }
}

/// What was taught in one layer. About 2.5 MiB.
#[derive(Clone, PartialEq)]
pub struct Layer {
    learner: Learner,
    /// Lessons of the shared model that were heard again.
    heard: u64,
    pub(super) calibration: Calibration,
}

impl Layer {
    /// Returns a layer that was taught nothing.
    pub fn new() -> Self {
        Layer { learner: Learner::new(BITS), heard: 0, calibration: Calibration::new() }
    }

    /// Learns a lesson, of which the layers above said `base` when it was given.
    pub fn learn(&mut self, lesson: &Lesson, base: &Base, above: &Above<'_>) {
        let is_spam = lesson.label == Label::Spam;
        let share = if lesson.weight == Weight::Whole { 1.0 } else { 0.5 };
        if lesson.weight == Weight::Whole {
            self.calibration.learn(self.add(base, &lesson.features).score(), is_spam, share);
            self.learner.count_one(is_spam);
        }
        self.move_weights(&lesson.features, base, is_spam, share);
        let contradiction = if is_spam { -base.score() } else { base.score() };
        let other = if is_spam { Label::Ham } else { Label::Spam };
        for _ in 0..if contradiction > 0.0 { AGAIN } else { 0 } {
            self.heard += 1;
            let Some(features) = above.model.rehearsal.any(other, self.heard) else { break };
            // What is of the same kind would say the opposite of the lesson.
            if features.shared_words(&lesson.features) < SAME_KIND {
                self.move_weights(&features, &above.base(&features), !is_spam, share);
            }
        }
        self.learner.bayes.learn(&lesson.features, lesson.label, lesson.weight == Weight::Half);
    }

    fn move_weights(&mut self, features: &Features, base: &Base, is_spam: bool, share: f64) {
        let mut said = base.margins.map(f64::from);
        said.iter_mut().zip(self.learner.margins(features)).for_each(|(said, own)| *said += own);
        self.learner.move_weights(features, said, is_spam, share);
    }

    /// Adds what this layer says to what those above it said.
    pub fn add(&self, base: &Base, features: &Features) -> Base {
        let lessons = self.learner.count();
        let all = base.lessons.saturating_add(lessons);
        let voice = self.learner.bayes.voice(features, all);
        let fade = fade(all);
        base.and(self.learner.margins(features).map(|margin| margin * fade), voice, lessons)
    }

    /// Returns the number of lessons that persons gave: ham, spam.
    pub fn lessons(&self) -> (u32, u32) {
        let [spam, ham] = self.learner.lessons;
        (ham, spam)
    }

    /// Returns what speaks most for spam and for ham, the strongest first.
    pub(super) fn evidence(&self, extracted: &Extracted) -> [Vec<Evidence>; 2] {
        self.learner.bayes.evidence(extracted)
    }
}

impl Default for Layer {
    fn default() -> Self {
        Layer::new()
    }
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ham, spam) = self.lessons();
        write!(f, "Layer({ham} ham, {spam} spam)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::View;

    fn lesson(label: Label, slots: &[u32]) -> Lesson {
        // Slots that fall into cells of their own in the smaller tables.
        let slots: Vec<u32> = slots.iter().map(|slot| slot * 1_000).collect();
        let features = Features::new(View::ALL.map(|_| slots.clone()));
        Lesson { label, features, weight: Weight::Whole, teacher: 0, hour: 0 }
    }

    fn taught() -> Model {
        let mut model = Model::new();
        for _ in 0..60 {
            model.learn(&lesson(Label::Spam, &[1, 2, 3]));
            model.learn(&lesson(Label::Ham, &[3, 4, 5]));
        }
        model
    }

    fn said(model: &Model, layer: &Layer, slots: &[u32]) -> f64 {
        let features = lesson(Label::Ham, slots).features;
        layer.add(&model.base(&features), &features).score()
    }

    #[test]
    fn a_taste_is_learned_in_a_few_lessons_and_the_rest_stays() {
        let (model, mut layer) = (taught(), Layer::new());
        let (newsletter, spam) = ([3, 4, 5], [1, 2, 3]);
        let before = [said(&model, &layer, &newsletter), said(&model, &layer, &spam)];
        assert!(before[0] < -3.0 && before[1] > 3.0);
        assert!((model.base(&lesson(Label::Ham, &spam).features).score() - before[1]).abs() < 1e-9);
        for _ in 0..20 {
            let lesson = lesson(Label::Spam, &newsletter);
            layer.learn(&lesson, &model.base(&lesson.features), &Above { model: &model, layers: &[] });
        }
        assert!(said(&model, &layer, &newsletter) > 1.0);
        assert!(said(&model, &layer, &spam) > 3.0);
        assert_eq!(layer.lessons(), (0, 20));
    }

    #[test]
    fn what_is_said_rightly_above_moves_a_layer_little() {
        let (model, mut layer) = (taught(), Layer::new());
        let before = said(&model, &layer, &[3, 4, 5]);
        for _ in 0..20 {
            let lesson = lesson(Label::Ham, &[3, 4, 5]);
            layer.learn(&lesson, &model.base(&lesson.features), &Above { model: &model, layers: &[] });
        }
        let after = said(&model, &layer, &[3, 4, 5]);
        assert!(after <= before && after > before * 1.5, "{before} {after}");
    }

    #[test]
    fn nothing_is_said_before_anything_was_learned_and_little_before_both_labels_were() {
        let (model, mut layer) = (Model::new(), Layer::new());
        let extracted = Extracted { features: lesson(Label::Spam, &[1]).features, ..Extracted::default() };
        let judged =
            |layer: Arc<Layer>| model.judge_for(&extracted, &model.hear(&extracted.features), &[layer]);
        assert_eq!(judged(Arc::new(layer.clone())), None);
        layer.learn(&lesson(Label::Spam, &[1]), &Base::default(), &Above { model: &model, layers: &[] });
        let opinion = judged(Arc::new(layer)).unwrap();
        assert!(opinion.points() <= 2.5 && opinion.points() > 0.0);
    }

    #[test]
    fn a_base_is_read_as_it_was_written() {
        let base = Base { margins: [1.5, -2.25, 0.0], lessons: 77 };
        assert_eq!(Base::decode(&base.encode()), Some(base));
        let mut bytes = base.encode();
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        for bad in [&bytes[..], &bytes[..15], &[], &[0; 17]] {
            assert_eq!(Base::decode(bad), None);
        }
    }
}
