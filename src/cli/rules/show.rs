//! `lazaret rules list|explain|test`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::Selection;
use crate::cli::messages;
use crate::config::Config;
use crate::message;
use crate::rules::{Rule, RuleSet, Subject};

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    selection: Selection,
    /// Also those that are only parts of others.
    #[arg(long)]
    all: bool,
    /// Print one JSON object for each rule.
    #[arg(long)]
    json: bool,
}

pub(super) fn list(arguments: &List, config: &Config) -> anyhow::Result<ExitCode> {
    let (set, _) = arguments.selection.compile(config)?;
    let mut rules: Vec<Rule<'_>> =
        set.rules().filter(|rule| arguments.all || !rule.name.starts_with("__")).collect();
    rules.sort_by_key(|rule| rule.name);
    for rule in rules {
        if arguments.json {
            println!("{}", as_json(&rule));
        } else {
            let points = points(&rule);
            println!("{:<32} {:<10} {points:>6}  {}", rule.name, rule.kind.as_str(), rule.description);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the points: one number, or the four of the sets of scores.
fn points(rule: &Rule<'_>) -> String {
    let [a, b, c, d] = rule.scores;
    if a == b && b == c && c == d { format!("{a:.2}") } else { format!("{a:.2}/{b:.2}/{c:.2}/{d:.2}") }
}

fn as_json(rule: &Rule<'_>) -> serde_json::Value {
    serde_json::json!({
        "name": rule.name,
        "kind": rule.kind.as_str(),
        "scores": rule.scores,
        "flags": rule.flags,
        "description": rule.description,
        "source": rule.source,
        "line": rule.line,
    })
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Explain {
    /// The rule.
    rule: String,
    #[command(flatten)]
    selection: Selection,
}

pub(super) fn explain(arguments: &Explain, config: &Config) -> anyhow::Result<ExitCode> {
    let sources = arguments.selection.sources(config)?;
    let (set, _) = RuleSet::compile(&sources);
    let name = arguments.rule.as_str();
    let Some(rule) = set.rules().find(|rule| rule.name == name) else {
        bail!("there is no rule {name}");
    };
    println!("{name}: {}", if rule.description.is_empty() { "no description" } else { rule.description });
    println!("  kind:    {}", rule.kind.as_str());
    println!("  points:  {}  (plain / network / Bayes / both where four)", points(&rule));
    if !rule.flags.is_empty() {
        println!("  flags:   {}", rule.flags.join(" "));
    }
    println!("  defined: {}:{}", rule.source, rule.line);
    let source = sources.iter().find(|source| source.name == rule.source);
    if let Some(line) = source.and_then(|source| source.text.lines().nth(rule.line.saturating_sub(1))) {
        println!("           {}", line.trim());
    }
    match set.words(name) {
        Some(words) => println!("  runs where one of these words stands: {}", words.join(", ")),
        None if rule.kind.is_pattern() => println!("  runs over every text of its kind"),
        None => {}
    }
    let (needs, needed_by) = set.relations(name);
    for (title, names) in [("needs", needs), ("part of", needed_by)] {
        if !names.is_empty() {
            println!("  {title}: {}", names.join(", "));
        }
    }
    if let Some(rule) = set.unsupported().iter().find(|rule| rule.rule == name) {
        println!("  never hits: the function {}() does not exist here", rule.function);
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Test {
    /// The message, or - for standard input; of several, each gets a line with what has points.
    messages: Vec<PathBuf>,
    #[command(flatten)]
    selection: Selection,
}

pub(super) fn test(arguments: &Test, config: &Config) -> anyhow::Result<ExitCode> {
    let (set, problems) = arguments.selection.compile(config)?;
    if arguments.messages.is_empty() {
        let failed = set.failed_examples();
        for (rule, text) in &failed {
            println!("{rule}: wrong on “{text}”");
        }
        println!("{} rules have examples, {} examples are wrong", set.examples().len(), failed.len());
        let is_good = failed.is_empty() && !super::check::has_errors(&problems);
        return Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let envelope = arguments.selection.envelope();
    let [path] = arguments.messages.as_slice() else {
        for path in &arguments.messages {
            let raw = read(path)?;
            let parsed = message::parse(&raw);
            let evaluation = set.evaluate(&Subject::new(&parsed, &raw, &envelope));
            let mut hits: Vec<&str> =
                evaluation.findings.iter().map(|finding| finding.symbol.as_str()).collect();
            hits.sort_unstable();
            let score: f64 = evaluation.findings.iter().map(|finding| finding.score.points()).sum();
            println!("{score:>8.2}  {}  {}", path.display(), hits.join(","));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let raw = read(path)?;
    let parsed = message::parse(&raw);
    let subject = Subject::new(&parsed, &raw, &envelope);
    let scores: std::collections::HashMap<&str, String> =
        set.rules().map(|rule| (rule.name, points(&rule))).collect();
    for (name, detail) in set.hits(&subject) {
        let points = scores.get(name).map(String::as_str).unwrap_or_default();
        println!("{points:>8}  {name:<32} {}", messages::printable(&detail));
    }
    let evaluation = set.evaluate(&subject);
    let score: f64 = evaluation.findings.iter().map(|finding| finding.score.points()).sum();
    println!("{score:>8.2}  in all, by rules without Bayes and network");
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    }
    let mut raw = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut raw).context("reading standard input")?;
    Ok(raw)
}
