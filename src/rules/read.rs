//! From rule files to definitions: what is defined again replaces what was before, and every line that
//! cannot be used is a [`Problem`].

use std::collections::HashMap;

use super::definition::{Definition, Definitions, Example, Flags, Test};
use super::syntax::{self, Statement};
use super::{Problem, Source};

/// Most rules in a set.
const RULES: usize = 20_000;
/// Most lines in a file.
const LINES: usize = 200_000;

/// Where a statement stands.
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

/// Reads rule files.
pub(super) fn read(sources: &[Source]) -> (Definitions, Vec<Problem>) {
    let mut drafts = Drafts::default();
    for source in sources {
        drafts.read(source);
    }
    drafts.finish()
}

#[derive(Default)]
struct Drafts<'a> {
    rules: Vec<(String, Test, Place<'a>)>,
    index: HashMap<String, usize>,
    scores: HashMap<String, ([f64; 4], Place<'a>)>,
    descriptions: HashMap<String, (String, Place<'a>)>,
    examples: Vec<(Example, Place<'a>)>,
    problems: Vec<Problem>,
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
                self.examples.push((Example { rule: name.to_owned(), is_hit, text: text.to_owned() }, place));
            }
            Statement::Rule { name, test } => self.define(name, test, place),
        }
    }

    fn define(&mut self, name: &str, test: Test, place: Place<'a>) {
        if let Some(old) = self.index.get(name).and_then(|index| self.rules.get_mut(*index)) {
            (old.1, old.2) = (test, place);
        } else if self.rules.len() >= RULES {
            self.problems.push(place.problem(format!("there are more than {RULES} rules")));
        } else {
            self.index.insert(name.to_owned(), self.rules.len());
            self.rules.push((name.to_owned(), test, place));
        }
    }

    fn finish(mut self) -> (Definitions, Vec<Problem>) {
        let mut problems = std::mem::take(&mut self.problems);
        let scored = self.scores.iter().map(|(name, (_, place))| (name, *place));
        let described = self.descriptions.iter().map(|(name, (_, place))| (name, *place));
        let shown = self.examples.iter().map(|(example, place)| (&example.rule, *place));
        for (name, place) in scored.chain(described).chain(shown) {
            if !self.index.contains_key(name) {
                problems.push(place.problem(format!("there is no rule `{name}`")));
            }
        }
        let rules = self.rules.into_iter().map(|(name, test, place)| {
            let default = if name.starts_with("T_") { 0.01 } else { 1.0 };
            Definition {
                scores: self.scores.get(&name).map_or([default; 4], |(points, _)| *points),
                description: self.descriptions.remove(&name).map(|(text, _)| text).unwrap_or_default(),
                flags: Flags::default(),
                priority: 0,
                place: (place.source.to_owned(), place.line),
                name,
                test,
            }
        });
        let rules = rules.collect();
        let examples = self.examples.into_iter().map(|(example, _)| example).collect();
        (Definitions { rules, examples, ..Definitions::default() }, problems)
    }
}
