//! The rule language: SpamAssassin's, as far as it is supported, and our own rules written in it.
//!
//! [`RuleSet::compile`] reads `.cf` files and reports every line it cannot use; [`RuleSet::evaluate`] runs
//! the rules over a message. A filter for words decides which patterns run over a text. Everything is linear in the message and bounded in the rules.

mod builtin;
mod definition;
mod eval;
mod link;
mod meta;
mod pattern;
mod prefilter;
mod read;
mod syntax;
mod view;

use std::collections::HashMap;
use std::fmt;

use regex::Regex;

use crate::mail::Envelope;
use crate::message::{Mailbox, Message};
use crate::verdict::{Finding, Symbol};

use definition::{Example, Target};
use eval::Families;
use meta::Expr;
use prefilter::Prefilter;

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

/// What rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The message.
    pub message: &'a Message,
    /// The bytes that it was parsed from.
    pub raw: &'a [u8],
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// What others found before.
    pub evidence: &'a Evidence,
    /// Whom the gateway serves.
    pub organisation: &'a Organisation,
}

impl<'a> Subject<'a> {
    /// Makes a subject of which nothing is known but the message and its envelope.
    pub fn new(message: &'a Message, raw: &'a [u8], envelope: &'a Envelope) -> Self {
        static EVIDENCE: Evidence = Evidence { bayes: None, authentication: None };
        static ORGANISATION: Organisation = Organisation { domains: Vec::new(), people: Vec::new() };
        Subject { message, raw, envelope, evidence: &EVIDENCE, organisation: &ORGANISATION }
    }
}

/// What other analysers found that rules may ask for; what is `None` was not looked at.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// How likely the message is unwanted, by the words that were learned: 0 to 1.
    pub bayes: Option<f64>,
    /// Whether the sender is who it says.
    pub authentication: Option<Authentication>,
}

/// What checks of the sender's authenticity found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authentication {
    /// SPF of the reverse-path (RFC 7208).
    pub spf: Option<Outcome>,
    /// SPF of the name in the greeting.
    pub spf_helo: Option<Outcome>,
    /// The DKIM signatures (RFC 6376): the signing domain in lower case, and whether it holds.
    pub dkim: Vec<(String, Outcome)>,
    /// DMARC of From (RFC 7489).
    pub dmarc: Option<Outcome>,
    /// What the domain of From asks for when DMARC fails: `none`, `quarantine`, `reject`.
    pub dmarc_policy: Option<String>,
    /// The ARC chain (RFC 8617).
    pub arc: Option<Outcome>,
}

/// How one check ended, in the words of RFC 8601.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `none`
    None,
    /// `neutral`
    Neutral,
    /// `pass`
    Pass,
    /// `softfail`
    SoftFail,
    /// `fail`
    Fail,
    /// `temperror`
    TemporaryError,
    /// `permerror`
    PermanentError,
}

/// Whom the gateway serves: what others may pretend to be.
#[derive(Debug, Clone, Default)]
pub struct Organisation {
    /// Its domains, lower case.
    pub domains: Vec<String>,
    /// People whose names are worth imitating, with their addresses.
    pub people: Vec<Mailbox>,
}

/// Rules, compiled.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Entry>,
    groups: Vec<Group>,
    examples: Vec<Example>,
    families: Families,
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

impl RuleSet {
    /// Compiles rules. What cannot be used is left out and reported; what is defined again replaces what was
    /// before.
    pub fn compile(sources: &[Source]) -> (RuleSet, Vec<Problem>) {
        eval::prepare();
        let (definitions, mut problems) = read::read(sources);
        let (set, more) = link::link(definitions);
        problems.extend(more);
        problems.sort_by(|a, b| (&a.source, a.line).cmp(&(&b.source, b.line)));
        (set, problems)
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
    pub fn evaluate(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let outcome = self.run(subject);
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
    pub fn hits(&self, subject: &Subject<'_>) -> Vec<&str> {
        let outcome = self.run(subject);
        let hits = self.rules.iter().zip(outcome).filter(|(_, detail)| detail.is_some());
        hits.map(|(entry, _)| entry.name.as_str()).collect()
    }

    /// Returns the place of each rule by its name.
    fn places(&self) -> HashMap<&str, usize> {
        self.rules.iter().enumerate().map(|(place, entry)| (entry.name.as_str(), place)).collect()
    }

    /// Runs the `test` lines and returns the rules that failed one, with the text.
    pub fn failed_examples(&self) -> Vec<(&str, &str)> {
        let places = self.places();
        let fails = |example: &&Example| {
            let entry = places.get(example.rule.as_str()).and_then(|place| self.rules.get(*place));
            let Some(Entry { test: Compiled::Pattern { regex, is_negated, .. }, .. }) = entry else {
                return true;
            };
            (regex.is_match(&example.text) != *is_negated) != example.is_hit
        };
        let failed = self.examples.iter().filter(fails);
        failed.map(|example| (example.rule.as_str(), example.text.as_str())).collect()
    }

    /// Returns for each rule with `test` lines whether there is one that hits and one that misses.
    pub fn examples(&self) -> HashMap<&str, (bool, bool)> {
        let mut seen = HashMap::new();
        for example in &self.examples {
            let (hit, miss) = seen.entry(example.rule.as_str()).or_insert((false, false));
            *(if example.is_hit { hit } else { miss }) = true;
        }
        seen
    }

    /// Returns for each rule the words that explain its hit, or `None` where it did not hit.
    fn run(&self, subject: &Subject<'_>) -> Vec<Option<String>> {
        let mut outcome: Vec<Option<String>> = vec![None; self.rules.len()];
        self.run_patterns(subject.message, subject.envelope, &mut outcome);
        let context = eval::Context::new(subject, &self.families);
        for index in 0..self.rules.len() {
            let Some(entry) = self.rules.get(index) else { break };
            let detail = match &entry.test {
                Compiled::Pattern { .. } => continue,
                Compiled::Exists(name) => subject.message.header(name).map(|_| String::new()),
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
