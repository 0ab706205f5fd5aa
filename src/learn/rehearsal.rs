//! Earlier lessons, heard again where one label is taught for long.
//!
//! What is learned last weighs most. Where somebody teaches a folder of ham and then one of spam, all that the two have in
//! common would speak for spam. So from the twentieth lesson of one label in a row on, each is followed by an earlier one
//! of the other. In mail as it comes such rows do not happen.

use super::hash::finalise;
use super::{Features, Label};

/// Lessons that are kept of each label, encoded: about 5 KB each.
pub(super) const KEPT: usize = 1_024;
/// Longer ones are not kept: together they must fit into a snapshot.
const MAX_BYTES: usize = 12 * 1024;
/// From so many lessons of one label in a row on, those of the other are heard again.
const ROW: u32 = 20;
/// What is kept is an even sample (Vitter's algorithm R, 1985) of about so many lessons of a label.
const MEMORY: u64 = 16_384;
/// Spreads what is heard over all that is kept.
const STRIDE: u64 = 97;

/// Lessons of one label.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Heard {
    pub(super) lessons: Vec<Vec<u8>>,
    /// How many were kept, and heard again.
    pub(super) kept: u64,
    pub(super) again: u64,
}

/// The lessons that are kept, and the row that is taught now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rehearsal {
    pub(super) spam: Heard,
    pub(super) ham: Heard,
    /// Lessons of spam in a row; of ham where it is negative.
    pub(super) row: i32,
}

impl Rehearsal {
    /// Bytes that are kept, with lessons of the usual length.
    pub(super) const MEMORY_BYTES: usize = 2 * KEPT * MAX_BYTES / 2;

    /// Returns one of the lessons that are kept of a label, another for each number.
    pub(super) fn any(&self, label: Label, number: u64) -> Option<Features> {
        let heard = if label == Label::Spam { &self.spam } else { &self.ham };
        let place = place(finalise(number), heard.lessons.len() as u64)?;
        heard.lessons.get(place).and_then(|lesson| Features::decode(lesson).ok())
    }

    /// Keeps a lesson; returns one of the other label where it is time to hear that again.
    pub(super) fn learn(&mut self, features: &Features, label: Label) -> Option<Features> {
        let is_spam = label == Label::Spam;
        let continues = if is_spam { self.row > 0 } else { self.row < 0 };
        let row = if continues { self.row } else { 0 };
        self.row = if is_spam { row.saturating_add(1) } else { row.saturating_sub(1) };
        let (own, other) =
            if is_spam { (&mut self.spam, &mut self.ham) } else { (&mut self.ham, &mut self.spam) };
        own.keep(features);
        if self.row.unsigned_abs() >= ROW { other.next() } else { None }
    }
}

impl Heard {
    fn keep(&mut self, features: &Features) {
        let lesson = features.encode();
        if lesson.len() > MAX_BYTES {
            return;
        }
        if self.lessons.len() < KEPT {
            self.lessons.push(lesson);
        } else {
            let place = place(finalise(self.kept), self.kept.min(MEMORY));
            if let Some(old) = place.and_then(|place| self.lessons.get_mut(place)) {
                *old = lesson;
            }
        }
        self.kept += 1;
    }

    fn next(&mut self) -> Option<Features> {
        let place = place(self.again * STRIDE, self.lessons.len() as u64)?;
        self.again += 1;
        self.lessons.get(place).and_then(|lesson| Features::decode(lesson).ok())
    }
}

fn place(number: u64, of: u64) -> Option<usize> {
    number.checked_rem(of).and_then(|place| usize::try_from(place).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::View;

    fn features(number: u32) -> Features {
        Features::of(View::Tokens, &[number])
    }

    #[test]
    fn a_long_row_is_mixed_with_what_was_heard_of_the_other_label() {
        let mut rehearsal = Rehearsal::default();
        for number in 0..40 {
            assert_eq!(rehearsal.learn(&features(number), Label::Ham), None, "nothing is known of spam");
        }
        let heard: Vec<bool> =
            (0..30).map(|number| rehearsal.learn(&features(1_000 + number), Label::Spam).is_some()).collect();
        assert_eq!(heard.iter().position(|heard| *heard), Some(19));
        assert!(heard.iter().skip(19).all(|heard| *heard));
        assert_eq!(rehearsal.learn(&features(5), Label::Ham), None);
        assert_eq!(rehearsal.row, -1);
    }

    #[test]
    fn what_is_kept_is_bounded_and_all_of_it_is_heard() {
        let mut rehearsal = Rehearsal::default();
        for number in 0..3_000 {
            rehearsal.learn(&features(number), Label::Ham);
        }
        assert_eq!(rehearsal.ham.lessons.len(), KEPT);
        let kept = |number: &u32| rehearsal.ham.lessons.contains(&features(*number).encode());
        let (first, last) = ((0..1_500).filter(kept).count(), (1_500..3_000).filter(kept).count());
        assert!(first.abs_diff(last) < KEPT / 8, "of all that was taught: {first} {last}");
        let mut heard: Vec<Features> = (0..u32::try_from(KEPT).unwrap() + 19)
            .filter_map(|number| rehearsal.learn(&features(number), Label::Spam))
            .collect();
        heard.sort_by_key(|features| features.view(View::Tokens).to_vec());
        heard.dedup();
        assert_eq!(heard.len(), KEPT);
    }
}
