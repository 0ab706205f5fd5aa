//! What the gateway learns: the features of a message, and the models that are folded from lessons.
//!
//! A message becomes [`Features`] (hashed slots without text) and the words behind them, which never leave
//! memory but in an [`Opinion`]'s explanation. A [`Lesson`] is features and a label. A [`Model`] is a pure
//! function of the log of lessons: learning and taking back are exact, so it can be rebuilt anywhere and
//! comes out the same. Nothing here decides; the opinion is a finding like others.
//!
//! The [`Model`] is shared by all; a [`Layer`] holds what one person or one organisation taught on top of it.

mod automatic;
mod bayes;
mod budget;
mod calibration;
mod extract;
mod features;
mod hash;
mod layer;
mod learner;
mod linear;
mod measure;
mod model;
mod opinion;
mod rehearsal;
mod snapshot;
mod trail;
mod unspoken;
mod view;
mod words;

#[cfg(test)]
mod attack_tests;
#[cfg(test)]
mod tests;

pub use automatic::{Automatic, sure_label};
pub use extract::{Extracted, MessageKey, extract};
pub use features::{Features, InvalidFeatures, MAX_ENCODED_BYTES, MAX_SLOTS, View};
pub use hash::FeatureKey;
pub use layer::{Above, Base, Layer};
pub use measure::{Measures, Scored, calibration_error, measure};
pub use model::{Heard, MIN_LESSONS, Model};
pub use opinion::{Evidence, MAX_POINTS, Opinion, SPAM_POINTS, State, Trait, difference};
pub use snapshot::{InvalidSnapshot, MAX_SNAPSHOT_BYTES};
pub use unspoken::{Unspoken, UnspokenRings};

/// What somebody said of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Label {
    /// Wanted.
    Ham,
    /// Not wanted.
    Spam,
}

impl Label {
    /// Returns `"ham"` or `"spam"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Label::Ham => "ham",
            Label::Spam => "spam",
        }
    }

    /// Reads what [`Label::as_str`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        [Label::Ham, Label::Spam].into_iter().find(|label| label.as_str() == name)
    }
}

/// How much a lesson counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weight {
    /// A person gave it.
    Whole,
    /// It follows from what a person said of other messages, or the gateway gave it itself.
    Half,
}

/// A message's features and what somebody said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    /// What was said.
    pub label: Label,
    /// Of what.
    pub features: Features,
    /// How much it counts.
    pub weight: Weight,
    /// Who said it, by a number; 0 is the administrator's own hand.
    pub teacher: u32,
    /// The hour in which it was said, of any clock.
    pub hour: i64,
}
