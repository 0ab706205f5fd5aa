//! How good scores are, in the measures of the TREC spam track (Cormack and Lynam, 2005).
//!
//! A score is higher for what is more likely spam; nothing else is assumed of its scale.

/// A message's score and what it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Higher is more likely spam.
    pub score: f64,
    /// Whether it is spam.
    pub is_spam: bool,
    /// Whether it was treated as spam.
    pub is_kept: bool,
}

/// Measures, in per cent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measures {
    /// How often a ham is above a spam, of all pairs: the area above the ROC curve.
    pub roca_error: f64,
    /// The logistic average of what is lost and missed.
    pub lam: f64,
    /// Ham that was treated as spam.
    pub ham_lost: f64,
    /// Spam that was not.
    pub spam_missed: f64,
    /// Spam below the lowest threshold that loses at most a tenth of a per cent of ham.
    pub missed_at_tenth: f64,
    /// Spam below the lowest threshold that loses at most a hundredth of a per cent of ham.
    pub missed_at_hundredth: f64,
}

/// Measures scores and what was made of them. Without ham or without spam there is nothing to measure.
pub fn measure(scored: &[Scored]) -> Option<Measures> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    let spam = sorted.iter().filter(|scored| scored.is_spam).count() as f64;
    let ham = sorted.len() as f64 - spam;
    if spam == 0.0 || ham == 0.0 {
        return None;
    }
    let lost = sorted.iter().filter(|scored| !scored.is_spam && scored.is_kept).count() as f64;
    let missed = sorted.iter().filter(|scored| scored.is_spam && !scored.is_kept).count() as f64;
    Some(Measures {
        roca_error: 100.0 * inversions(&sorted) / (ham * spam),
        lam: 100.0 * logistic_average(lost, ham, missed, spam),
        ham_lost: 100.0 * lost / ham,
        spam_missed: 100.0 * missed / spam,
        missed_at_tenth: 100.0 * missed_at(&sorted, (ham / 1_000.0).floor()) / spam,
        missed_at_hundredth: 100.0 * missed_at(&sorted, (ham / 10_000.0).floor()) / spam,
    })
}

/// Counts the pairs of a ham above a spam; equal scores count half. The scores descend.
fn inversions(sorted: &[Scored]) -> f64 {
    let (mut ham_above, mut pairs) = (0.0, 0.0);
    for equal in sorted.chunk_by(|a, b| a.score == b.score) {
        let spam = equal.iter().filter(|scored| scored.is_spam).count() as f64;
        let ham = equal.len() as f64 - spam;
        pairs += spam * (ham_above + ham / 2.0);
        ham_above += ham;
    }
    pairs
}

/// Counts the spam below the lowest threshold above which there are at most so many ham. The scores descend.
fn missed_at(sorted: &[Scored], most_ham: f64) -> f64 {
    let (mut ham, mut found) = (0.0, 0.0);
    for equal in sorted.chunk_by(|a, b| a.score == b.score) {
        let spam = equal.iter().filter(|scored| scored.is_spam).count() as f64;
        ham += equal.len() as f64 - spam;
        if ham > most_ham {
            break;
        }
        found += spam;
    }
    sorted.iter().filter(|scored| scored.is_spam).count() as f64 - found
}

/// The logistic average of two shares; half a message is added to what was lost and missed, so that none is zero.
fn logistic_average(lost: f64, ham: f64, missed: f64, spam: f64) -> f64 {
    let logit = |count: f64, all: f64| ((count + 0.5) / (all - count + 0.5)).ln();
    1.0 / (1.0 + (-(logit(lost, ham) + logit(missed, spam)) / 2.0).exp())
}

/// How far probabilities are from what came true, in per cent: the mean over ten bins of equal width, by their
/// messages (expected calibration error).
pub fn calibration_error(probabilities: &[(f64, bool)]) -> f64 {
    const BINS: usize = 10;
    let mut bins = [(0.0_f64, 0.0_f64, 0.0_f64); BINS];
    for (probability, is_spam) in probabilities {
        // The bin of a probability: the last takes 1.
        let place = (0..BINS).rfind(|bin| *probability >= *bin as f64 / BINS as f64).unwrap_or(0);
        if let Some((count, sum, spam)) = bins.get_mut(place) {
            *count += 1.0;
            *sum += probability;
            *spam += f64::from(u8::from(*is_spam));
        }
    }
    let all: f64 = bins.iter().map(|(count, ..)| count).sum();
    100.0 * bins.iter().map(|(_, sum, spam)| (sum - spam).abs()).sum::<f64>() / all.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(ham: &[f64], spam: &[f64]) -> Vec<Scored> {
        let of = |scores: &[f64], is_spam| -> Vec<Scored> {
            scores.iter().map(|score| Scored { score: *score, is_spam, is_kept: *score >= 2.5 }).collect()
        };
        [of(ham, false), of(spam, true)].concat()
    }

    #[test]
    fn measures_are_those_of_the_pairs_and_the_threshold() {
        let measures = measure(&scored(&[0.0, 1.0, 3.0, -1.0], &[2.0, 3.0, 4.0, 5.0])).unwrap();
        // Of 16 pairs, one ham is above a spam and one beside a spam.
        assert_eq!(measures.roca_error, 100.0 * 1.5 / 16.0);
        assert_eq!((measures.ham_lost, measures.spam_missed), (25.0, 25.0));
        assert!((measures.lam - 30.0).abs() < 0.1, "{}", measures.lam);
        // Not one ham may be lost: the threshold is above 3.
        assert_eq!((measures.missed_at_tenth, measures.missed_at_hundredth), (50.0, 50.0));
        assert_eq!(measure(&scored(&[1.0], &[])), None);
    }

    #[test]
    fn a_thousand_ham_may_lose_one() {
        let ham: Vec<f64> = (0..1_000).map(f64::from).collect();
        let measures = measure(&scored(&ham, &[998.5, 999.5])).unwrap();
        assert_eq!((measures.missed_at_tenth, measures.missed_at_hundredth), (0.0, 50.0));
    }

    #[test]
    fn probabilities_are_held_against_what_came_true() {
        let sure = |count: usize, probability: f64, spam: usize| {
            (0..count).map(move |place| (probability, place < spam)).collect::<Vec<_>>()
        };
        assert!(calibration_error(&sure(10, 0.9, 9)).abs() < 1e-9);
        assert!((calibration_error(&[sure(10, 1.0, 5), sure(10, 0.0, 0)].concat()) - 25.0).abs() < 1e-9);
        assert_eq!(calibration_error(&[]), 0.0);
    }
}
