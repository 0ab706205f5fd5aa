//! From rule files to a rule set: every definition collected, then compiled, then ordered.

use std::collections::{BTreeMap, HashMap};

use super::meta::Expr;
use super::pattern;
use super::prefilter::Prefilter;
use super::syntax::{self, Form, Statement, Target, Test};
use super::{Compiled, Entry, Example, Group, Problem, RuleSet, Source, eval};

/// Most rules in a set.
const RULES: usize = 20_000;
/// Most lines in a file.
const LINES: usize = 200_000;
/// Deepest chain of meta rules that name meta rules.
const META_DEPTH: usize = 50;

/// Where a definition stands.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    source: &'a str,
    line: usize,
}

impl Place<'_> {
    fn problem(self, reason: impl Into<String>) -> Problem {
        Problem { source: self.source.to_owned(), line: self.line, reason: reason.into() }
    }
}

/// A rule whose test is not compiled yet, if it is a meta rule.
enum Draft {
    Done(Compiled),
    Meta(Expr<String>),
}

#[derive(Default)]
struct Drafts<'a> {
    rules: Vec<(String, Draft, Place<'a>)>,
    index: HashMap<String, usize>,
    scores: HashMap<String, (f64, Place<'a>)>,
    descriptions: HashMap<String, (String, Place<'a>)>,
    examples: Vec<(String, bool, String, Place<'a>)>,
    problems: Vec<Problem>,
}

/// Compiles rule files.
pub(super) fn compile(sources: &[Source]) -> (RuleSet, Vec<Problem>) {
    let mut drafts = Drafts::default();
    for source in sources {
        drafts.read(source);
    }
    drafts.finish()
}

impl<'a> Drafts<'a> {
    fn read(&mut self, source: &'a Source) {
        // The line where an unsupported block begins, and how deep it is nested.
        let mut skipping: Option<(usize, usize)> = None;
        for (number, line) in source.text.lines().enumerate() {
            let place = Place { source: &source.name, line: number + 1 };
            if number >= LINES {
                self.problems.push(place.problem(format!("a file has at most {LINES} lines")));
                break;
            }
            let line = syntax::without_comment(line);
            let keyword = line.split_whitespace().next().unwrap_or_default();
            match (keyword, &mut skipping) {
                ("if" | "ifplugin", Some((_, depth))) => *depth += 1,
                ("if" | "ifplugin", None) => {
                    skipping = Some((place.line, 1));
                    let reason = format!("`{keyword}` is not supported: the block up to `endif` is left out");
                    self.problems.push(place.problem(reason));
                }
                ("endif", Some((_, depth))) => {
                    *depth -= 1;
                    if *depth == 0 {
                        skipping = None;
                    }
                }
                (_, Some(_)) => {}
                (_, None) => match syntax::read(&line) {
                    Ok(Some(statement)) => self.take(statement, place),
                    Ok(None) => {}
                    Err(reason) => self.problems.push(place.problem(reason)),
                },
            }
        }
        if let Some((line, _)) = skipping {
            let place = Place { source: &source.name, line };
            self.problems.push(place.problem("the block has no `endif`"));
        }
    }

    fn take(&mut self, statement: Statement<'_>, place: Place<'a>) {
        match statement {
            Statement::Score { name, points } => {
                self.scores.insert(name.to_owned(), (points, place));
            }
            Statement::Describe { name, text } => {
                self.descriptions.insert(name.to_owned(), (text.to_owned(), place));
            }
            Statement::Example { name, is_hit, text } => {
                self.examples.push((name.to_owned(), is_hit, text.to_owned(), place));
            }
            Statement::Rule { name, test } => match draft(test) {
                Ok(draft) => self.define(name, draft, place),
                Err(reason) => self.problems.push(place.problem(reason)),
            },
        }
    }

    fn define(&mut self, name: &str, draft: Draft, place: Place<'a>) {
        if let Some(old) = self.index.get(name).and_then(|index| self.rules.get_mut(*index)) {
            (old.1, old.2) = (draft, place);
        } else if self.rules.len() >= RULES {
            self.problems.push(place.problem(format!("there are more than {RULES} rules")));
        } else {
            self.index.insert(name.to_owned(), self.rules.len());
            self.rules.push((name.to_owned(), draft, place));
        }
    }

    fn finish(mut self) -> (RuleSet, Vec<Problem>) {
        let order = self.order();
        let position: HashMap<usize, usize> =
            order.iter().enumerate().map(|(position, index)| (*index, position)).collect();
        let place_of = |name: &str| self.index.get(name).and_then(|index| position.get(index)).copied();
        let mut problems = std::mem::take(&mut self.problems);
        for (name, place) in self
            .scores
            .iter()
            .map(|(name, (_, place))| (name, place))
            .chain(self.descriptions.iter().map(|(name, (_, place))| (name, place)))
        {
            if !self.index.contains_key(name) {
                problems.push(place.problem(format!("there is no rule `{name}`")));
            }
        }
        let mut examples = Vec::new();
        for (name, is_hit, text, place) in std::mem::take(&mut self.examples) {
            match place_of(&name) {
                Some(rule) => examples.push(Example { rule, is_hit, text }),
                None => problems.push(place.problem(format!("there is no rule `{name}`"))),
            }
        }
        let drafts: HashMap<usize, (String, Draft, Place<'a>)> =
            std::mem::take(&mut self.rules).into_iter().enumerate().collect();
        let mut drafts = drafts;
        let mut rules: Vec<Entry> = Vec::new();
        for index in order {
            let Some((name, draft, place)) = drafts.remove(&index) else { continue };
            let test = match draft {
                Draft::Done(test) => test,
                Draft::Meta(expr) => Compiled::Meta(expr.resolve(&mut |name| {
                    // What stands behind is part of a cycle or too deep, and was reported.
                    let found = place_of(name);
                    if !self.index.contains_key(name) {
                        problems.push(place.problem(format!("there is no rule `{name}`")));
                    }
                    found.filter(|found| *found < rules.len())
                })),
            };
            let default = if name.starts_with("T_") { 0.01 } else { 1.0 };
            rules.push(Entry {
                score: self.scores.get(&name).map_or(default, |(points, _)| *points),
                description: self.descriptions.remove(&name).map(|(text, _)| text).unwrap_or_default(),
                name,
                test,
            });
        }
        let groups = group(&rules);
        problems.extend(std::mem::take(&mut self.problems));
        problems.sort_by(|a, b| (&a.source, a.line).cmp(&(&b.source, b.line)));
        (RuleSet { rules, groups, examples }, problems)
    }

    /// Returns the rules so that each meta rule stands behind those it names. Rules in a cycle are left out.
    fn order(&mut self) -> Vec<usize> {
        let mut depth_of: HashMap<usize, usize> = HashMap::new();
        let mut waiting: Vec<(usize, Vec<usize>)> = Vec::new();
        for (index, (_, draft, _)) in self.rules.iter().enumerate() {
            match draft {
                Draft::Done(_) => {
                    depth_of.insert(index, 0);
                }
                Draft::Meta(expr) => {
                    let names = expr.names();
                    waiting.push((
                        index,
                        names.iter().filter_map(|name| self.index.get(name)).copied().collect(),
                    ));
                }
            }
        }
        for depth in 1..=META_DEPTH {
            let (ready, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, needs): &(usize, Vec<usize>)| {
                    needs.iter().all(|need| depth_of.contains_key(need))
                });
            waiting = rest;
            for (index, _) in &ready {
                depth_of.insert(*index, depth);
            }
            if ready.is_empty() {
                break;
            }
        }
        for (index, _) in waiting {
            if let Some((name, _, place)) = self.rules.get(index) {
                let reason =
                    format!("`{name}` depends on itself, or on more than {META_DEPTH} levels of rules");
                self.problems.push(place.problem(reason));
            }
        }
        let mut order: Vec<usize> = depth_of.keys().copied().collect();
        order.sort_by_key(|index| (depth_of.get(index).copied(), *index));
        order
    }
}

fn draft(test: Test<'_>) -> Result<Draft, String> {
    Ok(Draft::Done(match test {
        Test::Meta(expr) => return Ok(Draft::Meta(expr)),
        Test::Exists(name) => Compiled::Exists(name),
        Test::Eval { function, arguments } => match eval::find(function) {
            Some(found) => Compiled::Eval(found, arguments),
            None => return Err(format!("there is no function `{function}`")),
        },
        Test::Pattern { target, pattern, is_negated, if_unset } => {
            let is_one_text =
                matches!(&target, Target::Header { name, form } if name == "all" || *form == Form::Raw);
            let regex = pattern::compile(pattern, !is_one_text)?;
            Compiled::Pattern { target, regex, is_negated, if_unset: if_unset.map(str::to_owned) }
        }
    }))
}

/// Gathers the patterns of each target, so that it is prepared once.
fn group(rules: &[Entry]) -> Vec<Group> {
    let mut by_target: BTreeMap<&Target, Vec<(usize, &str)>> = BTreeMap::new();
    for (index, entry) in rules.iter().enumerate() {
        if let Compiled::Pattern { target, regex, .. } = &entry.test {
            by_target.entry(target).or_default().push((index, regex.as_str()));
        }
    }
    let group = |(target, patterns): (&Target, Vec<(usize, &str)>)| Group {
        target: target.clone(),
        filter: Prefilter::new(patterns.iter().map(|(_, pattern)| *pattern)),
        rules: patterns.iter().map(|(index, _)| *index).collect(),
    };
    by_target.into_iter().map(group).collect()
}
