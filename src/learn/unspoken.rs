//! Messages of which nobody spoke: what people tell of the others teaches these too.
//!
//! Where people report only mistakes, a model that learns nothing else drifts: it never hears of what it does right.
//! A reported spam says that its reader looked; others delivered before, of which nobody complained, were likely
//! wanted. The same holds for a released ham and what was kept beside it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::features::Features;
use super::{Label, MessageKey};

/// Messages that are kept of each kind.
const KEPT: usize = 300;
/// Lessons that follow from one, and the messages drawn for each.
const LESSONS: usize = 3;
const DRAWS: usize = 3;

/// A message of which nobody spoke so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Unspoken {
    /// Which.
    pub message: MessageKey,
    /// How it was scored.
    pub score: f64,
    /// Its features.
    pub features: Arc<Features>,
    /// When it was scored, in seconds of any clock.
    pub at: i64,
}

/// The last messages that were delivered and that were kept. At most 600, of about 25 KiB.
#[derive(Debug, Default)]
pub struct UnspokenRings {
    delivered: VecDeque<Unspoken>,
    kept: VecDeque<Unspoken>,
}

impl UnspokenRings {
    /// Remembers a message, once, and forgets the oldest where there are enough.
    pub fn push(&mut self, message: Unspoken, is_kept: bool) {
        self.remove(message.message);
        let ring = if is_kept { &mut self.kept } else { &mut self.delivered };
        if ring.len() >= KEPT {
            ring.pop_front();
        }
        ring.push_back(message);
    }

    /// Somebody spoke of a message: it teaches by itself. Says whether it was kept, or delivered, if it was here.
    pub fn remove(&mut self, message: MessageKey) -> Option<bool> {
        let mut was_kept = None;
        for (ring, is_kept) in [(&mut self.delivered, false), (&mut self.kept, true)] {
            let before = ring.len();
            ring.retain(|unspoken| unspoken.message != message);
            was_kept = if ring.len() < before { Some(is_kept) } else { was_kept };
        }
        was_kept
    }

    /// Takes out what follows from a message that was delivered and is spam, or was kept and is ham: up to three
    /// others that were treated alike and scored no later than `until`, with the label that they seem to deserve.
    /// `draw` returns a number below the one it is given, at random.
    pub fn implied(
        &mut self,
        reported: Label,
        until: i64,
        mut draw: impl FnMut(usize) -> usize,
    ) -> (Label, Vec<Unspoken>) {
        let (ring, label) = match reported {
            Label::Spam => (&mut self.delivered, Label::Ham),
            Label::Ham => (&mut self.kept, Label::Spam),
        };
        // The surest of a few: the lowest score among the delivered, the highest among the kept.
        let doubt = |score: f64| if label == Label::Ham { score } else { -score };
        let mut taken = Vec::new();
        for _ in 0..LESSONS {
            // Those who read slowly may still speak of what is younger.
            let old = ring.partition_point(|unspoken| unspoken.at <= until);
            if old == 0 {
                break;
            }
            let draws: Vec<usize> = (0..DRAWS).map(|_| draw(old)).collect();
            let surest = draws.into_iter().filter_map(|place| Some((place, doubt(ring.get(place)?.score))));
            let place = surest.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(place, _)| place);
            taken.extend(place.and_then(|place| ring.remove(place)));
        }
        (label, taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unspoken(number: u8) -> Unspoken {
        Unspoken {
            message: MessageKey([number; 16]),
            score: f64::from(number),
            features: Arc::default(),
            at: number.into(),
        }
    }

    #[test]
    fn a_report_teaches_others_that_were_treated_alike_the_surest_first() {
        let mut rings = UnspokenRings::default();
        for number in 0..6 {
            rings.push(unspoken(number), number >= 3);
        }
        let mut places = (0..3).cycle();
        let mut draw = |most: usize| places.next().unwrap().min(most - 1);
        let (label, taken) = rings.implied(Label::Spam, 9, &mut draw);
        assert_eq!(
            (label, taken.iter().map(|found| found.score).collect::<Vec<_>>()),
            (Label::Ham, vec![0.0, 1.0, 2.0])
        );
        let (label, taken) = rings.implied(Label::Ham, 9, &mut draw);
        assert_eq!(
            (label, taken.iter().map(|found| found.score).collect::<Vec<_>>()),
            (Label::Spam, vec![5.0, 4.0, 3.0])
        );
        assert_eq!(rings.implied(Label::Spam, 9, draw).1, []);
    }

    #[test]
    fn what_is_young_teaches_nothing_yet() {
        let mut rings = UnspokenRings::default();
        (4..8).for_each(|number| rings.push(unspoken(number), false));
        let taken = rings.implied(Label::Spam, 5, |most| most - 1).1;
        assert_eq!(taken.iter().map(|found| found.at).collect::<Vec<_>>(), [5, 4]);
        assert_eq!(rings.delivered.len(), 2);
    }

    #[test]
    fn rings_are_bounded_and_what_was_spoken_of_leaves_them() {
        let mut rings = UnspokenRings::default();
        for number in 0..KEPT + 10 {
            let message =
                MessageKey(std::array::from_fn(
                    |place| if place < 2 { number.to_le_bytes()[place] } else { 7 },
                ));
            rings.push(Unspoken { message, ..unspoken(1) }, false);
        }
        assert_eq!(rings.delivered.len(), KEPT);
        rings = UnspokenRings::default();
        rings.push(unspoken(1), true);
        rings.push(unspoken(1), false);
        rings.push(unspoken(2), true);
        assert_eq!(rings.remove(MessageKey([2; 16])), Some(true));
        assert_eq!(rings.remove(MessageKey([1; 16])), Some(false));
        assert_eq!(rings.remove(MessageKey([1; 16])), None);
        assert!(rings.kept.is_empty() && rings.delivered.is_empty());
    }
}
