//! The rule language: SpamAssassin's, as far as it is supported, and our own rules written in it.
//!
//! [`RuleSet::compile`] reads `.cf` files and reports every line it cannot use; [`RuleSet::evaluate`] runs
//! the rules over a message. A filter for words decides which patterns run over a text. Everything is linear in the message and bounded in the rules.

mod authentication;
mod bare_link;
mod budget;
mod builtin;
mod condition;
mod definition;
mod eval;
mod fit;
mod keyword;
mod link;
mod meta;
mod pattern;
mod prefilter;
mod read;
mod replace;
mod run;
mod source;
mod subject;
mod syntax;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::verdict::{Finding, Symbol};

pub use fit::{Options as FitOptions, Prior, Sample, fit, score as fitted_score};
pub use keyword::why_ignored;
pub use source::{Role, Source};
pub use subject::{Authentication, Evidence, Organisation, Outcome, Subject};

use definition::{Example, Flags, LinkCondition, Target};
use eval::Families;
use meta::Expr;
use pattern::Pattern;
use prefilter::Prefilter;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is named that does not exist. Files that are shared are full of it, and nothing is lost.
    Warning,
    /// The line is malformed, or over a limit.
    Error,
}

/// A line that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
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
    /// A pattern over the visible text.
    Body,
    /// A pattern over the decoded text with its markup.
    RawBody,
    /// A pattern over the message as it came.
    Full,
    /// A pattern over link targets, or conditions on one link.
    Uri,
    /// A pattern over header fields of parts.
    MimeHeader,
    /// A native function.
    Eval,
    /// An expression over other rules.
    Meta,
    /// What is not run here: look-ups in the network, functions that do not exist.
    Nothing,
}

impl Kind {
    /// Returns the keyword of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Header => "header",
            Kind::Body => "body",
            Kind::RawBody => "rawbody",
            Kind::Full => "full",
            Kind::Uri => "uri",
            Kind::MimeHeader => "mimeheader",
            Kind::Eval => "eval",
            Kind::Meta => "meta",
            Kind::Nothing => "unanswered",
        }
    }

    /// Whether it is a pattern over a text.
    pub fn is_pattern(self) -> bool {
        !matches!(self, Kind::Eval | Kind::Meta | Kind::Nothing)
    }
}

/// A rule as it is shown to an administrator.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule<'a> {
    /// Its name: the symbol of its finding.
    pub name: &'a str,
    /// Its kind.
    pub kind: Kind,
    /// Its points without Bayes and network, with network, with Bayes, with both.
    pub scores: [f64; 4],
    /// Its flags, by name.
    pub flags: Vec<&'static str>,
    /// What it means; empty where nobody said.
    pub description: &'a str,
    /// The name of the source that defines it.
    pub source: &'a str,
    /// The line there.
    pub line: usize,
}

/// What the rules found in a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation<'r> {
    /// What hit and has points.
    pub findings: Vec<Finding>,
    /// The points of those that ask what was learned (`check_bayes`).
    pub learned_points: f64,
    /// The rules that took too long and were stopped.
    pub exceeded: Vec<&'r str>,
}

/// Rules, compiled.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Entry>,
    groups: Vec<Group>,
    /// Which rules run, for each set of scores.
    active: [Vec<bool>; 4],
    unsupported: Vec<Unsupported>,
    /// How many statements of each keyword mean nothing here.
    ignored: BTreeMap<String, usize>,
    examples: Vec<Example>,
    families: Families,
    /// Whether rules give points for what was learned.
    weighs_learned: bool,
}

/// A rule whose native function does not exist here, so that it never hits.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsupported {
    /// The rule.
    pub rule: String,
    /// The function that it calls.
    pub function: String,
    /// The points at stake, in each set of scores.
    pub scores: [f64; 4],
    /// The source and the line.
    pub place: (String, usize),
}

#[derive(Debug)]
struct Entry {
    name: String,
    scores: [f64; 4],
    flags: Flags,
    /// Whether it asks what was learned.
    asks_learned: bool,
    description: String,
    /// The source and the line.
    place: (String, usize),
    test: Compiled,
}

/// A test whose names are indices into the rules.
#[derive(Debug)]
enum Compiled {
    Pattern {
        target: Target,
        pattern: Pattern,
        is_negated: bool,
        if_unset: Option<String>,
    },
    /// A pattern with captured texts in it, which is compiled when they are known.
    Template {
        target: Target,
        source: String,
        is_negated: bool,
        if_unset: Option<String>,
    },
    Exists(String),
    Link(Vec<(LinkCondition, Pattern)>),
    Eval(eval::Native, Vec<String>),
    /// `None` stands for a rule that does not exist and never hits.
    Meta(Expr<Option<usize>>),
    /// What never hits: a look-up in the network, a function that does not exist.
    Nothing,
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
        let (set, more) = link::link(definitions, sources);
        problems.extend(more);
        problems.sort_by(|a, b| (&a.source, a.line).cmp(&(&b.source, b.line)));
        (set, problems)
    }

    /// Returns the rules, those that score nothing by themselves included, each behind those that it names.
    pub fn rules(&self) -> impl Iterator<Item = Rule<'_>> {
        self.rules.iter().map(|entry| Rule {
            name: &entry.name,
            kind: entry.kind(),
            scores: entry.scores,
            flags: entry.flags.names(),
            description: &entry.description,
            source: &entry.place.0,
            line: entry.place.1,
        })
    }

    /// Whether rules give points for what was learned (`check_bayes`), so that it need not speak for itself.
    pub fn weighs_learned(&self) -> bool {
        self.weighs_learned
    }

    /// Returns the rules that can never hit, since their functions do not exist here.
    pub fn unsupported(&self) -> &[Unsupported] {
        &self.unsupported
    }

    /// Returns how many statements of each keyword were passed over, since they mean nothing here.
    pub fn ignored(&self) -> &BTreeMap<String, usize> {
        &self.ignored
    }

    /// Runs the rules and returns what hit and has points, in the order of definition. Names that begin
    /// with two underscores are only for other rules.
    pub fn evaluate(&self, subject: &Subject<'_>) -> Evaluation<'_> {
        let set = subject.evidence.score_set();
        let none = Vec::new();
        let outcome = self.run(subject, self.active.get(set).unwrap_or(&none));
        let hit =
            self.rules.iter().zip(&outcome.hits).filter(|(entry, hit)| hit.count > 0 && entry.is_reported());
        let findings = hit.filter(|(entry, _)| entry.score(set) != 0.0).map(|(entry, hit)| {
            Finding::new(Symbol::new(entry.name.clone()), entry.score(set), entry.explain(&hit.detail))
        });
        let asked =
            self.rules.iter().zip(&outcome.hits).filter(|(entry, hit)| hit.count > 0 && entry.asks_learned);
        let learned_points = asked.map(|(entry, _)| entry.score(set)).sum();
        Evaluation { findings: findings.collect(), learned_points, exceeded: self.names(&outcome.exceeded) }
    }

    /// Returns all rules that hit, sub-rules included, with what they found. Every rule runs, also those that
    /// score nothing.
    pub fn hits(&self, subject: &Subject<'_>) -> Vec<(&str, String)> {
        let outcome = self.run(subject, &vec![true; self.rules.len()]);
        let hits = self.rules.iter().zip(outcome.hits).filter(|(_, hit)| hit.count > 0);
        hits.map(|(entry, hit)| (entry.name.as_str(), hit.detail)).collect()
    }

    fn names(&self, places: &[usize]) -> Vec<&str> {
        places.iter().filter_map(|place| self.rules.get(*place)).map(|entry| entry.name.as_str()).collect()
    }

    /// Returns the names of the rules that a rule names, and of those that name it.
    pub fn relations(&self, name: &str) -> (Vec<&str>, Vec<&str>) {
        let (mut needs, mut needed_by) = (Vec::new(), Vec::new());
        for entry in &self.rules {
            let Compiled::Meta(expr) = &entry.test else { continue };
            expr.each_rule(&mut |rule: &Option<usize>| {
                let Some(part) = rule.and_then(|rule| self.rules.get(rule)) else { return };
                if entry.name == name && !needs.contains(&part.name.as_str()) {
                    needs.push(part.name.as_str());
                }
                if part.name == name && !needed_by.contains(&entry.name.as_str()) {
                    needed_by.push(entry.name.as_str());
                }
            });
        }
        (needs, needed_by)
    }

    /// Returns the words by which the rules of a name are chosen to run; `None` where it always runs.
    pub fn words(&self, name: &str) -> Option<Vec<String>> {
        let entry = self.rules.iter().find(|entry| entry.name == name)?;
        let Compiled::Pattern { pattern, .. } = &entry.test else { return None };
        let words = prefilter::required_words(pattern)?;
        Some(words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect())
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
            let Some(Entry { test: Compiled::Pattern { pattern, is_negated, .. }, .. }) = entry else {
                return true;
            };
            let found = pattern.find(example.text.as_bytes(), 0, &mut budget::Budget::default());
            (found.is_some() != *is_negated) != example.is_hit
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
}

impl Entry {
    fn kind(&self) -> Kind {
        match &self.test {
            Compiled::Pattern { target, .. } | Compiled::Template { target, .. } => match target {
                Target::Header { .. } => Kind::Header,
                Target::MimeHeader { .. } => Kind::MimeHeader,
                Target::Body => Kind::Body,
                Target::RawBody => Kind::RawBody,
                Target::Full => Kind::Full,
                Target::Uri => Kind::Uri,
            },
            Compiled::Exists(_) => Kind::Header,
            Compiled::Link(_) => Kind::Uri,
            Compiled::Eval(..) => Kind::Eval,
            Compiled::Meta(_) => Kind::Meta,
            Compiled::Nothing => Kind::Nothing,
        }
    }

    /// Returns its points in a set of scores.
    fn score(&self, set: usize) -> f64 {
        self.scores.get(set).copied().unwrap_or_default()
    }

    /// Whether it is more than a part of other rules.
    fn is_reported(&self) -> bool {
        !self.name.starts_with("__")
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
mod function_tests;
#[cfg(test)]
mod tests;
