//! `lazaret rules check`: errors, warnings, what is not supported and what that costs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Selection;
use crate::config::Config;
use crate::rules::{Problem, RuleSet, Severity, why_ignored};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Rule files or folders of them; without one, the built-in and the configured rules.
    paths: Vec<PathBuf>,
    /// The rules for outbound mail.
    #[arg(long)]
    outbound: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The set of scores with Bayes and without the network: which counts here.
const SET: usize = 2;

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let selection = Selection { rules: arguments.paths.clone(), outbound: arguments.outbound };
    let (set, problems) = selection.compile(config)?;
    if arguments.json {
        println!("{:#}", as_json(&set, &problems));
    } else {
        print(&set, &problems);
    }
    Ok(if has_errors(&problems) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether a problem is more than a warning.
pub(super) fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}

/// Prints what is known of a rule set.
pub(super) fn print(set: &RuleSet, problems: &[Problem]) {
    for problem in problems {
        let word = if problem.severity == Severity::Error { "error" } else { "warning" };
        println!("{word}: {problem}");
    }
    let unsupported = set.unsupported();
    if !unsupported.is_empty() {
        println!("\nThese rules never hit, since their functions do not exist here:");
        for rule in unsupported {
            let (source, line) = &rule.place;
            let points = rule.scores.get(SET).copied().unwrap_or_default();
            println!("  {:<32} {:>6.2}  {}()  {source}:{line}", rule.rule, points, rule.function);
        }
    }
    if !set.ignored().is_empty() {
        let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (keyword, count) in set.ignored() {
            by_reason.entry(why_ignored(keyword)).or_default().push(format!("{keyword} ({count})"));
        }
        println!("\nThese statements mean nothing here:");
        for (why, keywords) in by_reason {
            println!("  {}: {why}", keywords.join(", "));
        }
    }
    let kinds: Vec<String> = kinds(set).iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    println!(
        "\n{} rules: {}. {} errors, {} warnings, {} rules not supported with {:.1} points at stake.",
        set.rules().count(),
        kinds.join(", "),
        problems.iter().filter(|problem| problem.severity == Severity::Error).count(),
        problems.iter().filter(|problem| problem.severity == Severity::Warning).count(),
        unsupported.len(),
        at_stake(set),
    );
}

fn kinds(set: &RuleSet) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    for rule in set.rules() {
        *kinds.entry(rule.kind.as_str()).or_default() += 1;
    }
    kinds
}

fn at_stake(set: &RuleSet) -> f64 {
    let points = set.unsupported().iter().filter(|rule| !rule.rule.starts_with("__"));
    points
        .filter_map(|rule| rule.scores.get(SET))
        .map(|points| points.abs())
        .fold(0.0, |sum, points| sum + points)
}

fn as_json(set: &RuleSet, problems: &[Problem]) -> serde_json::Value {
    let problem = |problem: &Problem| {
        serde_json::json!({
            "severity": if problem.severity == Severity::Error { "error" } else { "warning" },
            "source": problem.source,
            "line": problem.line,
            "reason": problem.reason,
        })
    };
    let unsupported = set.unsupported().iter().map(|rule| {
        serde_json::json!({
            "rule": rule.rule,
            "function": rule.function,
            "scores": rule.scores,
            "source": rule.place.0,
            "line": rule.place.1,
        })
    });
    serde_json::json!({
        "rules": set.rules().count(),
        "kinds": kinds(set),
        "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        "unsupported": unsupported.collect::<Vec<_>>(),
        "points_at_stake": at_stake(set),
        "ignored": set.ignored(),
    })
}
