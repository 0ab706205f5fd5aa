//! Runs a rule set over one message.

use std::collections::HashMap;

use memchr::memmem;

use super::budget::Budget;
use super::definition::{Form, LinkCondition};
use super::eval::{self, Context};
use super::link::template_names;
use super::pattern::Pattern;
use super::view::{self, View, Views};
use super::{Compiled, Entry, Group, RuleSet, Subject};

/// Most hits that are counted of a rule that may hit more than once.
const HITS: u32 = 1_000;
/// Most rules with captured texts in their patterns that are compiled for one message.
const TEMPLATES: usize = 50;
/// Most texts that are kept of one capture, and the longest that is.
const CAPTURES: usize = 10;
const CAPTURE_BYTES: usize = 200;

/// What a rule came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Hit {
    /// How often it hit.
    pub(super) count: u32,
    /// What it found, or a sentence of its own.
    pub(super) detail: String,
}

/// What all rules came to.
pub(super) struct Outcome {
    /// In the order of the rules.
    pub(super) hits: Vec<Hit>,
    /// The rules that took too long, by place.
    pub(super) exceeded: Vec<usize>,
}

/// One pass over a message.
struct Pass<'r, 'a> {
    set: &'r RuleSet,
    /// Which rules run.
    active: &'r [bool],
    context: &'r Context<'a>,
    views: &'r Views<'a>,
    hits: Vec<Hit>,
    captured: HashMap<&'r str, Vec<String>>,
    budget: Budget,
}

impl RuleSet {
    /// Runs the rules that are active.
    pub(super) fn run(&self, subject: &Subject<'_>, active: &[bool]) -> Outcome {
        let (context, views) = (Context::new(subject, &self.families), Views::default());
        let mut pass = Pass {
            set: self,
            active,
            context: &context,
            views: &views,
            hits: vec![Hit::default(); self.rules.len()],
            captured: HashMap::new(),
            budget: Budget::default(),
        };
        for group in &self.groups {
            pass.group(group);
        }
        pass.rest();
        Outcome { hits: pass.hits, exceeded: pass.budget.exceeded().to_vec() }
    }
}

impl<'r> Pass<'r, '_> {
    fn is_active(&self, rule: usize) -> bool {
        self.active.get(rule).copied().unwrap_or(false)
    }

    /// Runs the patterns of one target.
    fn group(&mut self, group: &'r Group) {
        if !group.rules.iter().any(|rule| self.is_active(*rule)) {
            return;
        }
        let views = self.views;
        views.with(&group.target, self.context, |view| self.look(group, view));
    }

    fn look(&mut self, group: &'r Group, view: Option<&View<'_>>) {
        if let Some(view) = view {
            self.scan(group, view);
        }
        for rule in &group.rules {
            if !self.is_active(*rule) {
                continue;
            }
            let Some(Compiled::Pattern { pattern, is_negated, if_unset, .. }) = self.test(*rule) else {
                continue;
            };
            // A field that is missing is an empty text, unless the rule says what it is.
            if view.is_none() {
                let text = if_unset.as_deref().unwrap_or_default().as_bytes();
                self.try_piece(*rule, pattern, text);
            }
            if *is_negated && let Some(hit) = self.hits.get_mut(*rule) {
                *hit = Hit { count: u32::from(hit.count == 0), detail: String::new() };
            }
        }
    }

    fn test(&self, rule: usize) -> Option<&'r Compiled> {
        self.set.rules.get(rule).map(|entry| &entry.test)
    }

    /// Runs the patterns of a group over the pieces where they can match.
    fn scan(&mut self, group: &'r Group, view: &View<'_>) {
        // The last piece that each pattern was tried on.
        let mut tried: Vec<usize> = vec![0; group.rules.len()];
        let mut before = 0;
        for run in view.runs() {
            group.filter.each_word(run.text(), |position, at| {
                let piece = run.piece_at(at);
                let (Some(rule), Some(last)) = (group.rules.get(position), tried.get_mut(position)) else {
                    return;
                };
                let number = before + piece + 1;
                if *last < number {
                    *last = number;
                    self.try_rule(*rule, number, run.piece(piece), view.has_subject);
                }
            });
            for position in group.filter.always(run.text()) {
                let (Some(rule), Some(last)) = (group.rules.get(position), tried.get(position)) else {
                    continue;
                };
                let is_free = match self.test(*rule) {
                    Some(Compiled::Pattern { pattern, .. }) if self.is_active(*rule) => {
                        pattern.is_free().then_some(pattern)
                    }
                    _ => continue,
                };
                let mut piece = 0;
                while piece < run.len() {
                    // One look at all pieces tells the next that can match.
                    if let Some(pattern) = is_free {
                        match pattern.possible(run.text(), run.start(piece)) {
                            Some(at) => piece = run.piece_at(at).max(piece),
                            None => break,
                        }
                    }
                    if *last != before + piece + 1 {
                        self.try_rule(*rule, before + piece + 1, run.piece(piece), view.has_subject);
                    }
                    piece += 1;
                    if self.is_done(*rule) {
                        break;
                    }
                }
            }
            before += run.len();
        }
    }

    /// Whether more hits of a rule would not count.
    fn is_done(&self, rule: usize) -> bool {
        let most = self.set.rules.get(rule).map_or(0, Entry::most_hits);
        self.hits.get(rule).is_some_and(|hit| hit.count >= most)
    }

    /// Tries a rule on the piece of a number, from 1.
    fn try_rule(&mut self, rule: usize, number: usize, text: &[u8], has_subject: bool) {
        let Some(entry) = self.set.rules.get(rule) else { return };
        if self.is_done(rule) || !self.is_active(rule) || entry.flags.no_subject && has_subject && number == 1
        {
            return;
        }
        if let Compiled::Pattern { pattern, .. } = &entry.test {
            self.try_piece(rule, pattern, text);
        }
    }

    fn try_piece(&mut self, rule: usize, pattern: &'r Pattern, text: &[u8]) {
        let Some(entry) = self.set.rules.get(rule) else { return };
        self.budget.begin(rule);
        let found = count(pattern, text, entry, self.hits.get_mut(rule), &mut self.budget);
        if found && !pattern.names().is_empty() {
            for (name, value) in pattern.captures(text, &mut self.budget) {
                let values = self.captured.entry(name).or_default();
                let value = String::from_utf8_lossy(&value).into_owned();
                if values.len() < CAPTURES && value.len() <= CAPTURE_BYTES && !values.contains(&value) {
                    values.push(value);
                }
            }
        }
    }

    /// Runs what is no plain pattern, in the order of dependence.
    fn rest(&mut self) {
        let mut templates = 0;
        for rule in 0..self.set.rules.len() {
            if !self.is_active(rule) {
                continue;
            }
            let Some(entry) = self.set.rules.get(rule) else { break };
            let hit = match &entry.test {
                Compiled::Pattern { .. } | Compiled::Nothing => continue,
                Compiled::Exists(name) => plain(view::header(name, Form::default(), self.context).is_some()),
                Compiled::Eval(eval::Native::Says(function), arguments) => {
                    match function(self.context, arguments) {
                        Some(detail) => Hit { count: 1, detail },
                        None => Hit::default(),
                    }
                }
                Compiled::Eval(eval::Native::Counts(function), arguments) => {
                    Hit { count: function(self.context, arguments).min(HITS), detail: String::new() }
                }
                Compiled::Link(conditions) => self.links(rule, conditions),
                Compiled::Template { .. } if templates >= TEMPLATES => continue,
                Compiled::Template { .. } => {
                    templates += 1;
                    self.template(rule, entry)
                }
                // A meta rule stands behind those it names: see `link`.
                Compiled::Meta(expr) => {
                    let value = |rule: &Option<usize>| {
                        rule.and_then(|rule| self.hits.get(rule)).map_or(0.0, |hit| f64::from(hit.count))
                    };
                    plain(expr.value(&value) != 0.0)
                }
            };
            if let Some(place) = self.hits.get_mut(rule) {
                *place = hit;
            }
        }
    }

    /// Runs a pattern with captured texts in it, once they are known.
    fn template(&mut self, rule: usize, entry: &'r Entry) -> Hit {
        let Compiled::Template { target, source, is_negated, if_unset } = &entry.test else {
            return Hit::default();
        };
        // Most texts do not hold what was captured: to see that is cheaper than to compile a pattern.
        let is_possible = self.views.with(target, self.context, |view| {
            template_names(source).iter().all(|name| {
                let values = self.captured.get(name).map(Vec::as_slice).unwrap_or_default();
                view.is_none_or(|view| values.iter().any(|value| holds(view, value)))
            })
        });
        let Some(source) = fill(source, &self.captured).filter(|_| is_possible || *is_negated) else {
            return Hit::default();
        };
        let Ok(pattern) = Pattern::compile(&source) else { return Hit::default() };
        self.budget.begin(rule);
        let mut hit = Hit::default();
        let budget = &mut self.budget;
        self.views.with(target, self.context, |view| match view {
            None => {
                let text = if_unset.as_deref().unwrap_or_default().as_bytes();
                count(&pattern, text, entry, Some(&mut hit), budget);
            }
            Some(view) => {
                for run in view.runs() {
                    for piece in 0..run.len() {
                        count(&pattern, run.piece(piece), entry, Some(&mut hit), budget);
                    }
                }
            }
        });
        if *is_negated { plain(hit.count == 0) } else { hit }
    }

    /// Looks for a link that fulfils every condition.
    fn links(&mut self, rule: usize, conditions: &'r [(LinkCondition, Pattern)]) -> Hit {
        self.budget.begin(rule);
        let message = self.context.subject().message;
        let found = message.links.iter().find(|link| {
            conditions.iter().all(|(condition, pattern)| {
                let texts = super::eval::link_texts(link, &condition.key);
                let is_match =
                    texts.iter().any(|text| pattern.find(text.as_bytes(), 0, &mut self.budget).is_some());
                is_match != condition.pattern.is_negated
            })
        });
        found.map_or(Hit::default(), |link| Hit { count: 1, detail: super::quote(&link.target) })
    }
}

fn plain(is_hit: bool) -> Hit {
    Hit { count: u32::from(is_hit), detail: String::new() }
}

/// Counts the matches of a rule in a piece. Returns whether there is one.
fn count(pattern: &Pattern, text: &[u8], entry: &Entry, hit: Option<&mut Hit>, budget: &mut Budget) -> bool {
    let Some(hit) = hit else { return false };
    let before = hit.count;
    let mut from = 0;
    while hit.count < entry.most_hits()
        && let Some(found) = pattern.find(text, from, budget)
    {
        if hit.count == 0 {
            let found = text.get(found.clone()).unwrap_or_default();
            hit.detail = super::quote(&String::from_utf8_lossy(found));
        }
        hit.count += 1;
        // An empty match would be found again and again.
        from = found.end.max(found.start + 1);
        if from > text.len() {
            break;
        }
    }
    hit.count > before
}

impl Entry {
    /// Returns the most hits that count.
    fn most_hits(&self) -> u32 {
        if self.flags.multiple { self.flags.max_hits.unwrap_or(HITS).clamp(1, HITS) } else { 1 }
    }
}

/// Whether a text holds a value, the case of ASCII letters aside.
fn holds(view: &View<'_>, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    view.runs().iter().any(|run| memmem::find(&run.text().to_ascii_lowercase(), value.as_bytes()).is_some())
}

/// Puts captured texts in the place of their names; `None` when one is not known.
fn fill(source: &str, captured: &HashMap<&str, Vec<String>>) -> Option<String> {
    let mut filled = source.to_owned();
    for name in template_names(source) {
        let values = captured.get(name)?;
        let escaped: Vec<String> = values.iter().map(|value| escape(value)).collect();
        filled = filled.replace(&format!("%{{{name}}}"), &format!("(?:{})", escaped.join("|")));
    }
    Some(filled)
}

/// Writes a text so that it stands for itself in a pattern, whatever its delimiter.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || !c.is_ascii() {
            out.push(c);
        } else {
            out.push_str(&format!("\\x{:02X}", u32::from(c)));
        }
    }
    out
}
