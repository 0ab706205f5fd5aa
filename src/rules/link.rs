//! From definitions to a rule set: patterns compiled, names resolved, rules ordered.

use std::collections::{BTreeMap, HashMap};

use super::definition::{Definition, Definitions, Form, Target, Test};
use super::eval::{self, Families};
use super::pattern;
use super::prefilter::Prefilter;
use super::{Compiled, Entry, Group, Problem, RuleSet};

/// Deepest chain of meta rules that name meta rules.
const META_DEPTH: usize = 50;

impl Definition {
    fn problem(&self, reason: impl Into<String>) -> Problem {
        Problem { source: self.place.0.clone(), line: self.place.1, reason: reason.into() }
    }
}

/// Links definitions.
pub(super) fn link(definitions: Definitions) -> (RuleSet, Vec<Problem>) {
    let mut problems = Vec::new();
    let families = Families::read(&definitions.settings, &mut problems);
    let mut definitions = definitions;
    let mut compiled = Vec::new();
    for definition in std::mem::take(&mut definitions.rules) {
        match compile(&definition) {
            Ok(test) => compiled.push((definition, test)),
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
                    problems.push(definition.problem(format!("there is no rule `{name}`")));
                }
                place_of(name).filter(|found| *found < rules.len())
            })),
            (None, _) => continue,
        };
        rules.push(Entry {
            score: definition.scores[2],
            description: definition.description,
            name: definition.name,
            test,
        });
    }
    let groups = group(&rules);
    (RuleSet { rules, groups, examples, families }, problems)
}

/// Compiles a test; `None` for a meta rule, whose names are resolved later.
fn compile(definition: &Definition) -> Result<Option<Compiled>, String> {
    Ok(Some(match &definition.test {
        Test::Meta(_) => return Ok(None),
        Test::Exists(name) => Compiled::Exists(name.clone()),
        Test::Eval { function, arguments } => match eval::find(function) {
            Some(found) => Compiled::Eval(found, arguments.clone()),
            None => return Err(format!("there is no function `{function}`")),
        },
        Test::Pattern { target: target @ (Target::Full | Target::MimeHeader { .. }), .. } => {
            return Err(format!("patterns over {target:?} are not supported"));
        }
        Test::Link(_) | Test::Network => return Err("this kind of rule is not supported".to_owned()),
        Test::Pattern { target, pattern } => {
            let is_one_text = matches!(
                target,
                Target::Header { name, form: Form { is_raw, .. } } if name == "all" || *is_raw
            );
            let regex = pattern::compile(&pattern.source, !is_one_text)?;
            Compiled::Pattern {
                target: target.clone(),
                regex,
                is_negated: pattern.is_negated,
                if_unset: pattern.if_unset.clone(),
            }
        }
    }))
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
    for depth in 1..=META_DEPTH {
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
                "`{}` depends on itself, or on more than {META_DEPTH} levels of rules",
                definition.name
            )));
        }
    }
    let mut order: Vec<usize> = depth_of.keys().copied().collect();
    order.sort_by_key(|position| (depth_of.get(position).copied(), *position));
    order
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
