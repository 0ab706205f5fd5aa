//! From rule files to definitions: what is defined again replaces what was before, blocks that do not apply
//! are passed over, and every line that cannot be used is a [`Problem`].

use std::collections::{BTreeMap, HashMap, HashSet};

use super::condition;
use super::definition::{Definition, Definitions, Example, Flags, Test};
use super::meta::Expr;
use super::replace::Replacements;
use super::source::{FEEDS, Role, Source, resolve};
use super::syntax::{self, Statement};
use super::{Problem, Severity, eval};

/// Most rules in a set.
const RULES: usize = 20_000;
/// Most lines in a file.
const LINES: usize = 200_000;
/// Longest line.
const LINE_BYTES: usize = 64 << 10;
/// Deepest nesting of blocks, and of files that include files.
const DEPTH: usize = 20;
/// Most times that files are included.
const INCLUDES: usize = 1_000;
/// Most settings.
const SETTINGS: usize = 500_000;
/// The language of the descriptions that are shown.
const LANGUAGE: &str = "en";

/// Functions that ask the network: rules that call them are read, and never hit.
const NETWORK: [&str; 30] = [
    "check_access_database",
    "check_asn",
    "check_dcc",
    "check_dcc_reputation_range",
    "check_dns_sender",
    "check_hashbl_attachments",
    "check_hashbl_bodyre",
    "check_hashbl_emails",
    "check_hashbl_tag",
    "check_hashbl_uris",
    "check_pyzor",
    "check_razor2",
    "check_razor2_range",
    "check_rbl",
    "check_rbl_envfrom",
    "check_rbl_from_domain",
    "check_rbl_from_host",
    "check_rbl_headers",
    "check_rbl_ns_from",
    "check_rbl_rcvd",
    "check_rbl_sub",
    "check_rbl_txt",
    "check_uridnsbl",
    "short_url_200",
    "short_url_404",
    "short_url_chained",
    "short_url_code",
    "short_url_loop",
    "short_url_maxchain",
    "short_url_redir",
];

/// Where a statement stands.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    source: &'a str,
    line: usize,
}

impl Place<'_> {
    fn problem(self, reason: impl Into<String>) -> Problem {
        let (source, reason) = (self.source.to_owned(), reason.into());
        Problem { severity: Severity::Error, source, line: self.line, reason }
    }

    fn warning(self, reason: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..self.problem(reason) }
    }
}

/// Reads rule files. Those that are marked as included are read where a line includes them.
pub(super) fn read(sources: &[Source]) -> (Definitions, Vec<Problem>) {
    let compatibility = condition::COMPATIBILITY.map(str::to_owned).into();
    let mut drafts = Drafts { sources, compatibility, ..Drafts::default() };
    for source in sources.iter().filter(|source| source.role == Role::Rules) {
        drafts.read(source);
    }
    drafts.finish()
}

/// A test as it was read; a meta rule is text until the names of all rules are known.
enum Draft {
    Test(Test),
    Meta(String),
}

/// What was said of one rule.
#[derive(Default)]
struct Notes {
    scores: Option<[f64; 4]>,
    description: Option<String>,
    flags: Flags,
    priority: i32,
    /// Where it was spoken of first, for a rule that is never defined.
    first: Option<(String, usize)>,
}

#[derive(Default)]
struct Drafts<'a> {
    sources: &'a [Source],
    /// The files that are being read, the outermost first.
    open: Vec<&'a str>,
    includes: usize,
    rules: Vec<(String, Draft, Place<'a>)>,
    index: HashMap<String, usize>,
    notes: HashMap<String, Notes>,
    examples: Vec<(Example, Place<'a>)>,
    replacements: Replacements,
    /// The rules in whose patterns tags are replaced.
    replaced: HashSet<String>,
    /// What `enable_compat` switched on.
    compatibility: HashSet<String>,
    definitions: Definitions,
    settings: usize,
    ignored: BTreeMap<String, usize>,
    problems: Vec<Problem>,
}

/// An open `if` block.
struct Block<'a> {
    place: Place<'a>,
    /// Whether its lines are read now.
    is_on: bool,
    /// Whether the lines around it are.
    outside: bool,
}

impl<'a> Drafts<'a> {
    fn read(&mut self, source: &'a Source) {
        self.open.push(&source.name);
        let mut blocks: Vec<Block<'a>> = Vec::new();
        for (number, line) in source.text.lines().enumerate() {
            let place = Place { source: &source.name, line: number + 1 };
            if number >= LINES || line.len() > LINE_BYTES {
                let reason = format!("a file has at most {LINES} lines, of at most {LINE_BYTES} bytes");
                self.problems.push(place.problem(reason));
                break;
            }
            let line = syntax::without_comment(line);
            if line.is_empty() {
                continue;
            }
            let is_on = blocks.last().is_none_or(|block| block.is_on);
            let (_, rest) = syntax::word(&line);
            match syntax::keyword_of(&line).as_str() {
                keyword @ ("if" | "ifplugin" | "else" | "endif") => {
                    match turn(&mut blocks, keyword, rest, is_on, place, &self.compatibility) {
                        Ok(None) => {}
                        Ok(Some(plugin)) => {
                            self.problems.push(place.warning(format!(
                                "there is no plugin `{plugin}` here: the block is left out"
                            )))
                        }
                        Err(reason) => self.problems.push(place.problem(reason)),
                    }
                }
                _ if !is_on => {}
                "include" => {
                    if let Err(reason) = self.include(rest, place) {
                        self.problems.push(place.problem(reason));
                    }
                }
                "lang" => {
                    let (language, statement) = syntax::word(rest);
                    if language.split(['_', '.']).next() == Some(LANGUAGE) && !statement.is_empty() {
                        self.line(statement, place);
                    }
                }
                _ => self.line(&line, place),
            }
        }
        for block in blocks {
            self.problems.push(block.place.problem("the block has no `endif`"));
        }
        self.open.pop();
    }

    fn include(&mut self, name: &str, place: Place<'a>) -> Result<(), String> {
        if name.is_empty() {
            return Err("`include` has no file".to_owned());
        }
        let wanted = resolve(place.source, name);
        let found = self.sources.iter().find(|source| source.name == wanted);
        let source = found.ok_or_else(|| format!("`{name}` cannot be included: it was not found"))?;
        if self.open.contains(&source.name.as_str()) {
            return Err(format!("`{name}` includes itself"));
        }
        if self.open.len() > DEPTH {
            return Err(format!("files include files deeper than {DEPTH}"));
        }
        self.includes += 1;
        if self.includes > INCLUDES {
            return Err(format!("files are included more than {INCLUDES} times"));
        }
        self.read(source);
        Ok(())
    }

    fn line(&mut self, line: &str, place: Place<'a>) {
        match syntax::read(line) {
            Ok(statement) => self.take(statement, place),
            Err(reason) => self.problems.push(place.problem(reason)),
        }
    }

    fn note(&mut self, name: &str, place: Place<'_>) -> &mut Notes {
        let notes = self.notes.entry(name.to_owned()).or_default();
        notes.first.get_or_insert_with(|| (place.source.to_owned(), place.line));
        notes
    }

    fn take(&mut self, statement: Statement<'_>, place: Place<'a>) {
        match statement {
            Statement::Score { name, points, is_relative } => {
                let scores = &mut self.note(name, place).scores;
                let before = scores.unwrap_or([0.0; 4]);
                *scores = Some(if is_relative {
                    std::array::from_fn(|set| {
                        before.get(set).zip(points.get(set)).map_or(0.0, |(a, b)| a + b)
                    })
                } else {
                    points
                });
            }
            Statement::Describe { name, text } => {
                self.note(name, place).description = Some(text.to_owned());
            }
            Statement::Priority { name, priority } => self.note(name, place).priority = priority,
            Statement::Flags { name, flags } => {
                self.note(name, place).flags = syntax::flags(flags);
            }
            Statement::Example { name, is_hit, text } => {
                self.examples.push((Example { rule: name.to_owned(), is_hit, text: text.to_owned() }, place));
            }
            Statement::Rule { name, test } => self.define(name, Draft::Test(test), place),
            Statement::Meta { name, expression } => {
                self.define(name, Draft::Meta(expression.to_owned()), place);
            }
            Statement::Replace { kind, name, text } => self.replacements.define(&kind, name, text),
            Statement::ReplaceIn(names) => {
                self.replaced.extend(names.split_whitespace().map(str::to_owned));
            }
            Statement::Setting { keyword, value } => {
                self.settings += 1;
                if self.settings <= SETTINGS && FEEDS.contains(&keyword) {
                    // Kept under the name by which it was read.
                    let name = resolve(place.source, value);
                    if !self.sources.iter().any(|source| source.name == name) {
                        let reason = format!("there is no list `{value}` below the folder of the rules");
                        self.problems.push(place.warning(reason));
                    }
                    self.definitions.settings.push(keyword, name);
                } else if self.settings <= SETTINGS {
                    self.definitions.settings.push(keyword, value);
                } else if self.settings == SETTINGS + 1 {
                    self.problems.push(place.problem(format!("there are more than {SETTINGS} settings")));
                }
            }
            Statement::Clear { keywords, words } => {
                let settings = &mut self.definitions.settings;
                for keyword in keywords {
                    if words.is_empty() {
                        settings.clear(keyword);
                    } else {
                        settings.remove_words(keyword, words);
                    }
                }
            }
            Statement::Remove { keywords, words } => {
                keywords.iter().for_each(|keyword| self.definitions.settings.remove_words(keyword, words));
            }
            Statement::RemoveLine { keywords, first } => {
                keywords.iter().for_each(|keyword| self.definitions.settings.remove_lines(keyword, first));
            }
            Statement::Compatibility(name) => {
                self.compatibility.insert(name.to_owned());
            }
            Statement::Ignored(keyword) => *self.ignored.entry(keyword).or_default() += 1,
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

    fn finish(mut self) -> (Definitions, Vec<Problem>) {
        let mut problems = std::mem::take(&mut self.problems);
        let mut orphans: BTreeMap<&String, (&str, usize)> = BTreeMap::new();
        for (name, notes) in &self.notes {
            if let Some((source, line)) = notes.first.as_ref().filter(|_| !self.index.contains_key(name)) {
                orphans.insert(name, (source, *line));
            }
        }
        for (example, place) in &self.examples {
            if !self.index.contains_key(&example.rule) {
                orphans.entry(&example.rule).or_insert((place.source, place.line));
            }
        }
        for (name, (source, line)) in orphans {
            problems.push(Place { source, line }.warning(format!("there is no rule `{name}`")));
        }
        let names: Vec<String> = self.rules.iter().map(|(name, ..)| name.clone()).collect();
        for (name, draft, place) in std::mem::take(&mut self.rules) {
            let test = match draft {
                Draft::Meta(text) => {
                    // A rule is never among those that its own globs mean.
                    let others = || names.iter().filter(|other| **other != name);
                    Expr::read(&with_matching(&text, others)).map(Test::Meta)
                }
                Draft::Test(Test::Eval { function, .. })
                    if NETWORK.contains(&function.as_str()) && eval::find(&function).is_none() =>
                {
                    Ok(Test::Network)
                }
                Draft::Test(test) if self.replaced.contains(&name) => self.replace(test),
                Draft::Test(test) => Ok(test),
            };
            let test = match test {
                Ok(test) => test,
                Err(reason) => {
                    problems.push(place.problem(reason));
                    continue;
                }
            };
            let notes = self.notes.remove(&name).unwrap_or_default();
            let default = if name.starts_with("T_") { 0.01 } else { 1.0 };
            let default = if notes.flags.nice { -default } else { default };
            self.definitions.rules.push(Definition {
                scores: notes.scores.unwrap_or([default; 4]),
                description: notes.description.unwrap_or_default(),
                flags: notes.flags,
                priority: notes.priority,
                place: (place.source.to_owned(), place.line),
                name,
                test,
            });
        }
        self.definitions.examples = self.examples.into_iter().map(|(example, _)| example).collect();
        self.definitions.ignored = self.ignored;
        (self.definitions, problems)
    }

    fn replace(&self, test: Test) -> Result<Test, String> {
        Ok(match test {
            Test::Pattern { target, mut pattern } => {
                pattern.source = self.replacements.apply(&pattern.source)?;
                Test::Pattern { target, pattern }
            }
            other => other,
        })
    }
}

/// Opens, turns or closes a block. Returns the plugin for whose want a block is left out.
fn turn<'a>(
    blocks: &mut Vec<Block<'a>>,
    keyword: &str,
    rest: &str,
    is_on: bool,
    place: Place<'a>,
    compatibility: &HashSet<String>,
) -> Result<Option<String>, String> {
    match keyword {
        "else" | "endif" => {
            let Some(block) = blocks.last_mut() else { return Err(format!("`{keyword}` without `if`")) };
            if keyword == "else" {
                block.is_on = !block.is_on && block.outside;
            } else {
                blocks.pop();
            }
            Ok(None)
        }
        _ => {
            if blocks.len() >= DEPTH {
                return Err(format!("blocks are nested deeper than {DEPTH}"));
            }
            let answer = match keyword {
                _ if !is_on => Ok(condition::Answer::default()),
                "ifplugin" => condition::plugin(rest),
                _ => condition::answer(rest, compatibility),
            };
            // A block with a condition that cannot be read is left out.
            let holds = answer.as_ref().is_ok_and(|answer| answer.holds);
            blocks.push(Block { place, is_on: holds, outside: is_on && answer.is_ok() });
            answer.map(|answer| answer.missing)
        }
    }
}

/// Replaces `rules_matching(GLOBS)` by the sum of the rules whose names match.
fn with_matching<'n, N: Iterator<Item = &'n String>>(text: &str, names: impl Fn() -> N) -> String {
    const CALL: &str = "rules_matching(";
    let mut out = text.to_owned();
    for _ in 0..20 {
        let Some(at) = out.find(CALL) else { break };
        let inner = out.get(at + CALL.len()..).and_then(|rest| rest.split_once(')')).map(|(inner, _)| inner);
        let Some(inner) = inner.map(str::to_owned) else { break };
        let globs: Vec<&str> = inner.split([',', ' ', '|']).filter(|glob| !glob.is_empty()).collect();
        let matching = names().filter(|name| globs.iter().any(|glob| matches(glob, name)));
        let sum: Vec<&str> = matching.map(String::as_str).collect();
        let sum = if sum.is_empty() { "0".to_owned() } else { format!("({})", sum.join(" + ")) };
        out.replace_range(at..at + CALL.len() + inner.len() + 1, &sum);
    }
    out
}

/// Whether a glob with `*` and `?` matches all of a text, in time linear in the text for each `*`.
pub(super) fn matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut at, mut to) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while to < text.len() {
        match (glob.get(at), text.get(to)) {
            (Some('*'), _) => {
                star = Some((at, to));
                at += 1;
            }
            (Some(sign), Some(c)) if *sign == '?' || sign == c => {
                at += 1;
                to += 1;
            }
            _ => match &mut star {
                Some((star_at, star_to)) => {
                    *star_to += 1;
                    (at, to) = (*star_at + 1, *star_to);
                }
                None => return false,
            },
        }
    }
    glob.get(at..).is_none_or(|rest| rest.iter().all(|sign| *sign == '*'))
}
