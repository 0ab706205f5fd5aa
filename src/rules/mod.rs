//! The rule language: SpamAssassin's, as far as it is supported, and our own rules written in it.
//!
//! [`RuleSet::compile`] reads `.cf` files and reports every line it cannot use; [`RuleSet::evaluate`] runs
//! the rules over a message. A filter for words decides which patterns run over a text. Everything is linear in the message and bounded in the rules.

mod builtin;
mod compile;
mod eval;
mod meta;
mod pattern;
mod prefilter;
mod syntax;
mod view;

use std::collections::HashMap;
use std::fmt;

use regex::Regex;

use crate::mail::Envelope;
use crate::message::Message;
use crate::verdict::{Finding, Symbol};

use meta::Expr;
use prefilter::Prefilter;
use syntax::Target;

/// A rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, for problems.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A line that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The name of the source.
    pub source: String,
    /// The line, from 1.
    pub line: usize,
    /// The reason, in words.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.source, self.line, self.reason)
    }
}

/// What kind of test a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pattern over header fields.
    Header,
    /// A pattern over the text.
    Body,
    /// A pattern over link targets.
    Uri,
    /// A native function.
    Eval,
    /// An expression over other rules.
    Meta,
}

/// A rule as it is shown to an administrator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule<'a> {
    /// Its name: the symbol of its finding.
    pub name: &'a str,
    /// Its kind.
    pub kind: Kind,
    /// Its points.
    pub score: f64,
    /// What it means; empty where nobody said.
    pub description: &'a str,
}

/// Rules, compiled.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Entry>,
    groups: Vec<Group>,
    examples: Vec<Example>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    score: f64,
    description: String,
    test: Compiled,
}

/// A test whose names are indices into the rules.
#[derive(Debug)]
enum Compiled {
    Pattern {
        target: Target,
        regex: Regex,
        is_negated: bool,
        if_unset: Option<String>,
    },
    Exists(String),
    Eval(eval::Function, Vec<String>),
    /// `None` stands for a rule that does not exist and never hits.
    Meta(Expr<Option<usize>>),
}

/// The patterns of one target.
#[derive(Debug)]
struct Group {
    target: Target,
    filter: Prefilter,
    /// The rules, in the order of the filter's patterns.
    rules: Vec<usize>,
}

#[derive(Debug)]
struct Example {
    rule: usize,
    is_hit: bool,
    text: String,
}

impl RuleSet {
    /// Compiles rules. What cannot be used is left out and reported; what is defined again replaces what was
    /// before.
    pub fn compile(sources: &[Source]) -> (RuleSet, Vec<Problem>) {
        eval::prepare();
        compile::compile(sources)
    }

    /// Returns the rules in the order of their definition, those that score nothing by themselves included.
    pub fn rules(&self) -> impl Iterator<Item = Rule<'_>> {
        self.rules.iter().map(|entry| Rule {
            name: &entry.name,
            kind: entry.kind(),
            score: entry.score,
            description: &entry.description,
        })
    }

    /// Runs the rules and returns what hit and has points, in the order of definition. Names that begin
    /// with two underscores are only for other rules.
    pub fn evaluate(&self, message: &Message, envelope: &Envelope) -> Vec<Finding> {
        let outcome = self.run(message, envelope);
        let mut findings = Vec::new();
        for (entry, detail) in self.rules.iter().zip(&outcome) {
            let Some(detail) = detail else { continue };
            if entry.score == 0.0 || entry.name.starts_with("__") {
                continue;
            }
            findings.push(Finding::new(Symbol::new(entry.name.clone()), entry.score, entry.explain(detail)));
        }
        findings
    }

    /// Returns the names of all rules that hit, sub-rules included.
    pub fn hits(&self, message: &Message, envelope: &Envelope) -> Vec<&str> {
        let outcome = self.run(message, envelope);
        let hits = self.rules.iter().zip(outcome).filter(|(_, detail)| detail.is_some());
        hits.map(|(entry, _)| entry.name.as_str()).collect()
    }

    /// Runs the `test` lines and returns the rules that failed one, with the text.
    pub fn failed_examples(&self) -> Vec<(&str, &str)> {
        let fails = |example: &&Example| {
            let Some(Entry { test: Compiled::Pattern { regex, is_negated, .. }, .. }) =
                self.rules.get(example.rule)
            else {
                return true;
            };
            (regex.is_match(&example.text) != *is_negated) != example.is_hit
        };
        let failed = self.examples.iter().filter(fails);
        failed
            .filter_map(|example| Some((self.rules.get(example.rule)?.name.as_str(), example.text.as_str())))
            .collect()
    }

    /// Returns for each rule with `test` lines whether there is one that hits and one that misses.
    pub fn examples(&self) -> HashMap<&str, (bool, bool)> {
        let mut seen = HashMap::new();
        for example in &self.examples {
            if let Some(entry) = self.rules.get(example.rule) {
                let (hit, miss) = seen.entry(entry.name.as_str()).or_insert((false, false));
                *(if example.is_hit { hit } else { miss }) = true;
            }
        }
        seen
    }

    /// Returns for each rule the words that explain its hit, or `None` where it did not hit.
    fn run(&self, message: &Message, envelope: &Envelope) -> Vec<Option<String>> {
        let mut outcome: Vec<Option<String>> = vec![None; self.rules.len()];
        self.run_patterns(message, envelope, &mut outcome);
        let context = eval::Context::new(message, envelope);
        for index in 0..self.rules.len() {
            let Some(entry) = self.rules.get(index) else { break };
            let detail = match &entry.test {
                Compiled::Pattern { .. } => continue,
                Compiled::Exists(name) => message.header(name).map(|_| String::new()),
                Compiled::Eval(function, arguments) => function(&context, arguments),
                // A meta rule stands behind those it names: see `compile`.
                Compiled::Meta(expr) => {
                    let hit = |rule: &Option<usize>| {
                        rule.and_then(|rule| outcome.get(rule)).is_some_and(|detail| detail.is_some())
                    };
                    (expr.value(&hit) != 0.0).then(String::new)
                }
            };
            if let Some(place) = outcome.get_mut(index) {
                *place = detail;
            }
        }
        outcome
    }

    fn run_patterns(&self, message: &Message, envelope: &Envelope, outcome: &mut [Option<String>]) {
        for group in &self.groups {
            let text = view::select(&group.target, message, envelope);
            let mut candidates = vec![false; group.rules.len()];
            for position in text.iter().flat_map(|text| group.filter.candidates(text)) {
                if let Some(candidate) = candidates.get_mut(position) {
                    *candidate = true;
                }
            }
            for (rule, is_candidate) in group.rules.iter().zip(candidates) {
                let Some(Compiled::Pattern { regex, is_negated, if_unset, .. }) =
                    self.rules.get(*rule).map(|entry| &entry.test)
                else {
                    continue;
                };
                let found = match (&text, if_unset) {
                    (Some(text), _) if is_candidate => regex.find(text),
                    (None, Some(unset)) => regex.find(unset),
                    _ => None,
                };
                if let Some(place) = outcome.get_mut(*rule).filter(|_| found.is_some() != *is_negated) {
                    *place = Some(found.map(|found| quote(found.as_str())).unwrap_or_default());
                }
            }
        }
    }
}

impl Entry {
    fn kind(&self) -> Kind {
        match &self.test {
            Compiled::Pattern { target: Target::Header { .. }, .. } | Compiled::Exists(_) => Kind::Header,
            Compiled::Pattern { target: Target::Uri, .. } => Kind::Uri,
            Compiled::Pattern { .. } => Kind::Body,
            Compiled::Eval(..) => Kind::Eval,
            Compiled::Meta(_) => Kind::Meta,
        }
    }

    /// Writes the sentence for the reviewer. Functions write a sentence of their own; a pattern quotes what
    /// it found.
    fn explain(&self, detail: &str) -> String {
        match (&self.test, self.description.as_str(), detail) {
            (Compiled::Eval(..), _, sentence) if !sentence.is_empty() => sentence.to_owned(),
            (_, "", "") => format!("The rule {} applies.", self.name),
            (_, "", found) => format!("The rule {} applies: “{found}”.", self.name),
            (_, description, "") => format!("{}.", description.trim_end_matches('.')),
            (_, description, found) => format!("{}: “{found}”.", description.trim_end_matches('.')),
        }
    }
}

/// Shortens what a pattern found for a sentence.
fn quote(found: &str) -> String {
    const CHARS: usize = 60;
    let mut words = found.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(CHARS) {
        words.truncate(end);
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests;
