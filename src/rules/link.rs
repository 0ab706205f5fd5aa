//! From definitions to a rule set: patterns compiled, names resolved, rules ordered.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::definition::{Definition, Definitions, Target, Test};
use super::eval::{self, Families};
use super::meta::Expr;
use super::pattern::Pattern;
use super::prefilter::Prefilter;
use super::source::Source;
use super::{Compiled, Entry, Group, Problem, RuleSet, Severity, Unsupported};

/// Deepest chain of rules that name rules.
const DEPTH: usize = 50;
/// Most threads that compile patterns.
const THREADS: usize = 8;

impl Definition {
    fn problem(&self, reason: impl Into<String>) -> Problem {
        let (source, line) = self.place.clone();
        Problem { severity: Severity::Error, source, line, reason: reason.into() }
    }
}

/// Links definitions.
pub(super) fn link(definitions: Definitions, sources: &[Source]) -> (RuleSet, Vec<Problem>) {
    let mut problems = Vec::new();
    let families = Families::read(&definitions.settings, sources);
    let mut unsupported = Vec::new();
    let mut compiled = Vec::new();
    for (definition, test) in compile_all(definitions.rules) {
        match test {
            Ok(test) => {
                if let (Test::Eval { function, .. }, Some(Compiled::Nothing)) = (&definition.test, &test) {
                    unsupported.push(Unsupported {
                        rule: definition.name.clone(),
                        function: function.clone(),
                        scores: definition.scores,
                        place: definition.place.clone(),
                    });
                }
                compiled.push((definition, test));
            }
            Err(reason) => problems.push(definition.problem(reason)),
        }
    }
    let index: HashMap<String, usize> = compiled
        .iter()
        .enumerate()
        .map(|(index, (definition, _))| (definition.name.clone(), index))
        .collect();
    let order = order(&compiled, &index, &mut problems);
    let position: HashMap<usize, usize> =
        order.iter().enumerate().map(|(position, index)| (*index, position)).collect();
    let place_of = |name: &str| index.get(name).and_then(|index| position.get(index)).copied();
    let examples = definitions.examples.into_iter().filter(|example| place_of(&example.rule).is_some());
    let examples = examples.collect();
    let mut compiled: Vec<Option<(Definition, Option<Compiled>)>> = compiled.into_iter().map(Some).collect();
    let mut weighs_learned = false;
    let mut rules: Vec<Entry> = Vec::new();
    for index_in_order in order {
        let Some((definition, test)) = compiled.get_mut(index_in_order).and_then(Option::take) else {
            continue;
        };
        let test = match (test, &definition.test) {
            (Some(test), _) => test,
            (None, Test::Meta(expr)) => Compiled::Meta(expr.resolve(&mut |name| {
                // What stands behind is part of a cycle or too deep, and was reported.
                if !index.contains_key(name) {
                    let problem = definition.problem(format!("there is no rule `{name}`"));
                    problems.push(Problem { severity: Severity::Warning, ..problem });
                }
                place_of(name).filter(|found| *found < rules.len())
            })),
            (None, _) => continue,
        };
        // With what was learned known, the third and fourth set of scores counts.
        let asks_learned =
            matches!(&definition.test, Test::Eval { function, .. } if function == "check_bayes");
        weighs_learned |= asks_learned && definition.scores.iter().skip(2).any(|score| *score != 0.0);
        rules.push(Entry {
            scores: definition.scores,
            flags: definition.flags,
            asks_learned,
            description: definition.description,
            name: definition.name,
            place: definition.place,
            test,
        });
    }
    let groups = group(&rules);
    let active = std::array::from_fn(|set| active(&rules, set));
    let ignored = definitions.ignored;
    (RuleSet { rules, groups, active, examples, unsupported, ignored, families, weighs_learned }, problems)
}

type Compilation = (Definition, Result<Option<Compiled>, String>);

/// Compiles all tests, on several threads, in the order of the definitions.
fn compile_all(definitions: Vec<Definition>) -> Vec<Compilation> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let share = definitions.len().div_ceil(threads).max(50);
    let mut shares: Vec<Vec<Definition>> = Vec::new();
    for (index, definition) in definitions.into_iter().enumerate() {
        if index % share == 0 {
            shares.push(Vec::with_capacity(share));
        }
        if let Some(last) = shares.last_mut() {
            last.push(definition);
        }
    }
    let work = |share: Vec<Definition>| -> Vec<Compilation> {
        share
            .into_iter()
            .map(|definition| {
                let test = compile(&definition);
                (definition, test)
            })
            .collect()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || work(share))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    })
}

/// Compiles a test; `None` for a meta rule, whose names are resolved later.
fn compile(definition: &Definition) -> Result<Option<Compiled>, String> {
    Ok(Some(match &definition.test {
        Test::Meta(_) => return Ok(None),
        Test::Exists(name) => Compiled::Exists(name.clone()),
        Test::Eval { function, arguments } => match eval::find(function) {
            Some(found) => Compiled::Eval(found, arguments.clone()),
            None => Compiled::Nothing,
        },
        Test::Link(conditions) => {
            let compiled = conditions
                .iter()
                .map(|condition| Ok((condition.clone(), Pattern::compile(&condition.pattern.source)?)));
            Compiled::Link(compiled.collect::<Result<_, String>>()?)
        }
        Test::Network => Compiled::Nothing,
        Test::Pattern { target, pattern } if !template_names(&pattern.source).is_empty() => {
            // Any text in the place of a capture shows whether the rest of the pattern is well formed.
            let mut sample = pattern.source.clone();
            for name in template_names(&pattern.source) {
                sample = sample.replace(&format!("%{{{name}}}"), "x");
            }
            Pattern::compile(&sample)?;
            Compiled::Template {
                target: target.clone(),
                source: pattern.source.clone(),
                is_negated: pattern.is_negated,
                if_unset: pattern.if_unset.clone(),
            }
        }
        Test::Pattern { target, pattern } => Compiled::Pattern {
            target: target.clone(),
            pattern: Pattern::compile(&pattern.source)?,
            is_negated: pattern.is_negated,
            if_unset: pattern.if_unset.clone(),
        },
    }))
}

/// Returns the names of captures in a pattern: `NAME` of `%{NAME}`, unless a backslash is before it.
pub(super) fn template_names(source: &str) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (at, _) in source.match_indices("%{") {
        let is_escaped = source.get(..at).is_some_and(|before| before.ends_with('\\'));
        let name = source.get(at + 2..).and_then(|rest| rest.split_once('}')).map(|(name, _)| name);
        let is_name = |name: &&str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if let Some(name) = name.filter(is_name).filter(|name| !is_escaped && !names.contains(name)) {
            names.push(name);
        }
    }
    names
}

/// Returns the rules so that each meta rule stands behind those it names. Rules in a cycle are left out.
fn order(
    rules: &[(Definition, Option<Compiled>)],
    index: &HashMap<String, usize>,
    problems: &mut Vec<Problem>,
) -> Vec<usize> {
    let mut depth_of: HashMap<usize, usize> = HashMap::new();
    let mut waiting: Vec<(usize, Vec<usize>)> = Vec::new();
    for (position, (definition, _)) in rules.iter().enumerate() {
        if let Test::Meta(expr) = &definition.test {
            let names = expr.names();
            waiting.push((position, names.iter().filter_map(|name| index.get(name)).copied().collect()));
        } else {
            depth_of.insert(position, 0);
        }
    }
    for depth in 1..=DEPTH {
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, needs): &(usize, Vec<usize>)| {
                needs.iter().all(|need| depth_of.contains_key(need))
            });
        waiting = rest;
        for (position, _) in &ready {
            depth_of.insert(*position, depth);
        }
        if ready.is_empty() {
            break;
        }
    }
    for (position, _) in waiting {
        if let Some((definition, _)) = rules.get(position) {
            problems.push(definition.problem(format!(
                "`{}` depends on itself, or on more than {DEPTH} levels of rules",
                definition.name
            )));
        }
    }
    let mut order: Vec<usize> = depth_of.keys().copied().collect();
    order.sort_by_key(|position| (depth_of.get(position).copied(), *position));
    order
}

/// Returns which rules run with a set of scores: those that score, and those that they need. A rule whose
/// score is zero does not run, and counts as a miss where it is named.
fn active(rules: &[Entry], set: usize) -> Vec<bool> {
    let with_network = set % 2 == 1;
    // A meta rule with the flag `net` runs all the same: what it names may not have answered, that is all.
    let runs = |entry: &Entry| {
        let is_look_up = entry.flags.net && !matches!(entry.test, Compiled::Meta(_));
        entry.score(set) != 0.0 && (with_network || !is_look_up)
    };
    let captured: HashSet<&str> = rules
        .iter()
        .filter_map(|entry| match &entry.test {
            Compiled::Template { source, .. } => Some(template_names(source)),
            _ => None,
        })
        .flatten()
        .collect();
    let mut active = vec![false; rules.len()];
    // A meta rule stands behind those it names, so one pass from the end reaches them all.
    for (place, entry) in rules.iter().enumerate().rev() {
        let captures = match &entry.test {
            Compiled::Pattern { pattern, .. } => {
                pattern.names().iter().any(|name| captured.contains(name.as_str()))
            }
            _ => false,
        };
        let is_needed = active.get(place).copied().unwrap_or(false) || entry.is_reported() || captures;
        let is_active = is_needed && runs(entry);
        if let Some(place) = active.get_mut(place) {
            *place = is_active;
        }
        if let (true, Compiled::Meta(expr)) = (is_active, &entry.test) {
            mark(expr, &mut active);
        }
    }
    active
}

fn mark(expr: &Expr<Option<usize>>, active: &mut [bool]) {
    expr.each_rule(&mut |rule: &Option<usize>| {
        if let Some(place) = rule.and_then(|rule| active.get_mut(rule)) {
            *place = true;
        }
    });
}

/// Gathers the patterns of each target, so that it is prepared once.
fn group(rules: &[Entry]) -> Vec<Group> {
    let mut by_target: BTreeMap<&Target, Vec<(usize, &Pattern)>> = BTreeMap::new();
    for (index, entry) in rules.iter().enumerate() {
        if let Compiled::Pattern { target, pattern, .. } = &entry.test {
            by_target.entry(target).or_default().push((index, pattern));
        }
    }
    let group = |(target, patterns): (&Target, Vec<(usize, &Pattern)>)| Group {
        target: target.clone(),
        filter: Prefilter::new(patterns.iter().map(|(_, pattern)| *pattern)),
        rules: patterns.iter().map(|(index, _)| *index).collect(),
    };
    by_target.into_iter().map(group).collect()
}
