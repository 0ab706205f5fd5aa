//! Points for rules, from counted hits: logistic regression with signs and sizes kept.
//!
//! The written points are the prior: a rule that the samples do not speak of keeps them, and one that they
//! speak of moves as far as they carry. A sign of spam never gets points below zero, nor one of ham above;
//! no rule gets more than a multiple of what was written. The same samples give the same points, bit for bit.

/// A message: which rules hit, what it is, how much it counts, and its fold for cross-validation.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Places of rules.
    pub hits: Vec<usize>,
    /// Whether it is spam.
    pub is_spam: bool,
    /// How much it counts.
    pub weight: f64,
    /// Messages of one campaign share a fold.
    pub fold: usize,
}

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// The points that were written.
    pub points: f64,
    /// Whether they stay.
    pub is_fixed: bool,
}

/// How to fit.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The score from which on mail is kept.
    pub threshold: f64,
    /// How firmly the prior holds: the weight of a squared point of distance.
    pub firmness: f64,
    /// The most that a rule may get, as a multiple of what was written.
    pub most: f64,
    /// Passes over the samples.
    pub passes: usize,
}

/// Fits points, leaving one fold out where `left_out` names one.
pub fn fit(samples: &[Sample], priors: &[Prior], options: &Options, left_out: Option<usize>) -> Vec<f64> {
    const STEP: f64 = 0.5;
    let mut points: Vec<f64> = priors.iter().map(|prior| prior.points).collect();
    let used: Vec<&Sample> = samples.iter().filter(|sample| Some(sample.fold) != left_out).collect();
    let total = |is_spam: bool| {
        used.iter().filter(|sample| sample.is_spam == is_spam).map(|sample| sample.weight).sum::<f64>()
    };
    let (ham, spam) = (total(false).max(1.0), total(true).max(1.0));
    // Adam without chance: a step a pass, over all samples, of a size of its own for each rule.
    let (mut mean, mut square) = (vec![0.0; points.len()], vec![0.0; points.len()]);
    for pass in 1..=options.passes {
        let mut slope: Vec<f64> = points
            .iter()
            .zip(priors)
            .map(|(points, prior)| options.firmness * (points - prior.points))
            .collect();
        for sample in &used {
            let score: f64 = sample.hits.iter().filter_map(|rule| points.get(*rule)).sum();
            // Half of the threshold is even chance: from there on a message should be kept.
            let chance = 1.0 / (1.0 + (-(score - options.threshold / 2.0)).exp());
            let share = sample.weight / if sample.is_spam { spam } else { ham };
            let error = (chance - f64::from(u8::from(sample.is_spam))) * share;
            for rule in &sample.hits {
                if let Some(slope) = slope.get_mut(*rule) {
                    *slope += error;
                }
            }
        }
        let decay = STEP / (1.0 + pass as f64).sqrt();
        for (rule, prior) in priors.iter().enumerate() {
            let (Some(points), Some(slope), Some(mean), Some(square)) =
                (points.get_mut(rule), slope.get(rule), mean.get_mut(rule), square.get_mut(rule))
            else {
                continue;
            };
            if prior.is_fixed {
                continue;
            }
            *mean = 0.9 * *mean + 0.1 * slope;
            *square = 0.99 * *square + 0.01 * slope * slope;
            let step = decay * *mean / (square.sqrt() + 1e-4);
            let bound = prior.points * options.most;
            *points = (*points - step).clamp(bound.min(0.0), bound.max(0.0));
        }
    }
    points.iter().map(|points| (points * 100.0).round() / 100.0).collect()
}

/// Returns the score of a sample.
pub fn score(sample: &Sample, points: &[f64]) -> f64 {
    sample.hits.iter().filter_map(|rule| points.get(*rule)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(hits: &[usize], is_spam: bool) -> Sample {
        Sample { hits: hits.to_vec(), is_spam, weight: 1.0, fold: 0 }
    }

    const OPTIONS: Options = Options { threshold: 6.0, firmness: 0.01, most: 2.0, passes: 200 };

    fn prior(points: f64) -> Prior {
        Prior { points, is_fixed: false }
    }

    #[test]
    fn points_follow_the_hits_within_sign_and_size() {
        // The first rule hits spam alone, the second ham alone, the third nothing, the fourth is fixed.
        let mut samples = Vec::new();
        for _ in 0..50 {
            samples.extend([sample(&[0, 3], true), sample(&[1, 3], false), sample(&[], false)]);
        }
        let priors = [prior(1.0), prior(1.0), prior(1.5), Prior { points: 2.0, is_fixed: true }];
        let points = fit(&samples, &priors, &OPTIONS, None);
        assert!(points[0] > 1.5 && points[0] <= 2.0, "{points:?}");
        assert!((0.0..0.3).contains(&points[1]), "{points:?}");
        assert_eq!((points[2], points[3]), (1.5, 2.0));
        assert_eq!(points, fit(&samples, &priors, &OPTIONS, None));
        assert_eq!(score(&samples[0], &points), points[0] + 2.0);
    }

    #[test]
    fn a_fold_that_is_left_out_teaches_nothing() {
        let mut spam = sample(&[0], true);
        spam.fold = 1;
        let points = fit(&[spam, sample(&[], false)], &[prior(1.0)], &OPTIONS, Some(1));
        assert_eq!(points, [1.0]);
    }
}
