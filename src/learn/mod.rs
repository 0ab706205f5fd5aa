//! What the gateway learns: the features of a message, and the models that are folded from lessons.
//!
//! A message becomes [`Features`] (hashed slots without text) and the words behind them, which never leave
//! memory but in an [`Opinion`]'s explanation. A [`Lesson`] is features and a label. A [`Model`] is a pure
//! function of the log of lessons: learning and taking back are exact, so it can be rebuilt anywhere and
//! comes out the same. Nothing here decides; the opinion is a finding like others.
//!
//! The one model so far is a Bayes filter over single words and sparse pairs (`bayes`). Each further model
//! gets a view of its own in [`Features`] and a field in [`Model`].

mod bayes;
mod extract;
mod features;
mod hash;
mod measure;
mod model;
mod opinion;
mod trail;
mod words;

#[cfg(test)]
mod tests;

pub use bayes::MIN_LESSONS;
pub use extract::{Extracted, MAX_TEXT_BYTES, MAX_TEXT_WORDS, MessageKey, extract};
pub use features::{Features, InvalidFeatures, MAX_ENCODED_BYTES, MAX_SLOTS};
pub use hash::FeatureKey;
pub use measure::{Measures, Scored, calibration_error, measure};
pub use model::{InvalidSnapshot, MAX_SNAPSHOT_BYTES, Model};
pub use opinion::{Evidence, HAM_TO, Opinion, SPAM_FROM, State};

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

/// A message's features and what somebody said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    /// What was said.
    pub label: Label,
    /// Of what.
    pub features: Features,
}

/// What one line of the log does to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The number of the line; they ascend, with gaps.
    pub sequence: i64,
    /// The lesson that is no longer in force from here on.
    pub unlearn: Option<Lesson>,
    /// The lesson that is in force from here on.
    pub learn: Option<Lesson>,
}
