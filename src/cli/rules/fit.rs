//! `lazaret rules fit INDEX`: points for the rules from labelled mail, by rules alone.
//!
//! Messages that hit the same rules in the same text count
//! as one campaign: together as much as the root of their number.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::Selection;
use crate::cli::labelled;
use crate::config::Config;
use crate::learn::Label;
use crate::message;
use crate::rules::{FitOptions, Prior, RuleSet, Sample, Subject, fit, fitted_score};

/// Folds of the cross-validation.
const FOLDS: usize = 5;
/// How much of a text tells a campaign.
const CAMPAIGN_CHARS: usize = 200;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Lists of labelled messages.
    #[arg(required = true)]
    index: Vec<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// Write `score` lines for the rules whose points change.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How firmly the written points hold.
    #[arg(long, default_value_t = 0.02)]
    firmness: f64,
    /// The most that a rule may get, as a multiple of what is written.
    #[arg(long, default_value_t = 1.5)]
    most: f64,
    /// Passes over the messages.
    #[arg(long, default_value_t = 400)]
    passes: usize,
    /// Chooses the folds.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let (set, _) = arguments.selection.compile(config)?;
    let rules: Vec<_> = set.rules().filter(|rule| !rule.name.starts_with("__")).collect();
    let places: HashMap<&str, usize> =
        rules.iter().enumerate().map(|(place, rule)| (rule.name, place)).collect();
    let priors: Vec<Prior> = rules
        .iter()
        .map(|rule| {
            let points = rule.scores.first().copied().unwrap_or_default();
            // What decides by itself is no matter of counting.
            Prior { points, is_fixed: rule.flags.contains(&"fixed") || points.abs() >= 20.0 }
        })
        .collect();
    let threshold = config.way(arguments.selection.direction()).policy()?.thresholds.quarantine().points();
    let options = FitOptions {
        threshold,
        firmness: arguments.firmness,
        most: arguments.most,
        passes: arguments.passes,
    };
    let samples = samples(arguments, &set, &places)?;
    let before: Vec<f64> = priors.iter().map(|prior| prior.points).collect();
    let after = fit(&samples, &priors, &options, None);
    let folds: Vec<Vec<f64>> = (0..FOLDS).map(|fold| fit(&samples, &priors, &options, Some(fold))).collect();
    println!("{:<32} {:>7} {:>7} {:>7} {:>7}", "rule", "ham %", "spam %", "before", "after");
    let share = |place: usize, is_spam: bool| {
        let all = samples.iter().filter(|sample| sample.is_spam == is_spam).count().max(1);
        let hit =
            samples.iter().filter(|sample| sample.is_spam == is_spam && sample.hits.contains(&place)).count();
        100.0 * hit as f64 / all as f64
    };
    for (place, rule) in rules.iter().enumerate() {
        let (old, new) =
            (before.get(place).copied().unwrap_or_default(), after.get(place).copied().unwrap_or_default());
        let (ham, spam) = (share(place, false), share(place, true));
        if ham + spam > 0.0 {
            println!("{:<32} {ham:>7.2} {spam:>7.2} {old:>7.2} {new:>7.2}", rule.name);
        }
    }
    println!();
    report("as written", &samples, |sample| fitted_score(sample, &before), threshold);
    report("fitted", &samples, |sample| fitted_score(sample, &after), threshold);
    let crossed = |sample: &Sample| folds.get(sample.fold).map_or(0.0, |points| fitted_score(sample, points));
    report("fitted, each message by points that it did not teach", &samples, crossed, threshold);
    if let Some(path) = &arguments.output {
        let mut text = String::from("# Fitted by `lazaret rules fit`.\n");
        for (place, rule) in rules.iter().enumerate() {
            let (old, new) = (
                before.get(place).copied().unwrap_or_default(),
                after.get(place).copied().unwrap_or_default(),
            );
            if (old - new).abs() >= 0.05 {
                text.push_str(&format!("score {} {new:.2}\n", rule.name));
            }
        }
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what is lost and what is found at the threshold, each campaign counted once.
fn report(title: &str, samples: &[Sample], score: impl Fn(&Sample) -> f64, threshold: f64) {
    let share = |is_spam: bool| {
        let of = samples.iter().filter(|sample| sample.is_spam == is_spam);
        let (mut kept, mut all) = (0.0, 0.0);
        for sample in of {
            all += sample.weight;
            kept += if score(sample) >= threshold { sample.weight } else { 0.0 };
        }
        100.0 * kept / f64::max(all, 1e-9)
    };
    println!("{title}: ham kept {:.2} %, spam kept {:.2} % at {threshold} points", share(false), share(true));
}

/// Scans the messages of the lists.
fn samples(
    arguments: &Arguments,
    set: &RuleSet,
    places: &HashMap<&str, usize>,
) -> anyhow::Result<Vec<Sample>> {
    let entries = labelled::entries(&arguments.index)?;
    let bar = ProgressBar::new(entries.len() as u64)
        .with_style(ProgressStyle::with_template("scanning [{bar:40}] {pos}/{len}  {eta}")?);
    let envelope = arguments.selection.envelope();
    let mut campaigns: BTreeMap<(bool, u64), Vec<Vec<usize>>> = BTreeMap::new();
    for entry in entries {
        let (is_spam, raw) = (entry.label == Label::Spam, labelled::read(&entry.path)?);
        let parsed = message::parse(&raw);
        let evaluation = set.evaluate(&Subject::new(&parsed, &raw, &envelope));
        let found =
            evaluation.findings.iter().filter_map(|finding| places.get(finding.symbol.as_str()).copied());
        let mut hits: Vec<usize> = found.collect();
        hits.sort_unstable();
        let mut hasher = DefaultHasher::new();
        arguments.seed.hash(&mut hasher);
        let text: String = parsed.text.chars().filter(|c| c.is_alphabetic()).take(CAMPAIGN_CHARS).collect();
        text.hash(&mut hasher);
        campaigns.entry((is_spam, hasher.finish())).or_default().push(hits);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut samples = Vec::new();
    for ((is_spam, campaign), messages) in campaigns {
        let weight = 1.0 / (messages.len() as f64).sqrt();
        let fold = usize::try_from(campaign % FOLDS as u64).unwrap_or(0);
        samples.extend(messages.into_iter().map(|hits| Sample { hits, is_spam, weight, fold }));
    }
    Ok(samples)
}
