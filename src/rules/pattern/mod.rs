//! Patterns, in Perl's spelling as the rules have them, over bytes.
//!
//! Most run on `regex`, in time linear in the text. Look-around, back-references and possessive quantifiers
//! run on `fancy-regex`, which backtracks: under a limit of steps, over a bounded piece of text, only where
//! a linear pattern says that a match is possible, and on the [`Budget`] of the message, since a limit of
//! steps alone does not bound the time.

mod class;
mod translate;

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::Hir;

use super::budget::Budget;

/// Longest pattern that is compiled.
const PATTERN_BYTES: usize = 256 << 10;
/// Largest compiled pattern.
const PROGRAM_BYTES: usize = 32 << 20;
/// Largest cache of a pattern that matches.
const CACHE_BYTES: usize = 1 << 20;
/// Most steps back in one text.
const STEPS: usize = 50_000;
/// How much of a text behind its first possible match a pattern that backtracks looks at.
const EXACT_BYTES: usize = 16 << 10;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    linear: Regex,
    exact: Option<Box<fancy_regex::Regex>>,
    is_unicode: bool,
    ignores_case: bool,
    /// Whether it may match anywhere: nothing in it speaks of the beginning or the end of the text.
    is_free: bool,
    /// The names of its groups.
    names: Vec<String>,
}

/// A pattern split from its delimiters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Delimited<'a> {
    body: &'a str,
    flags: &'a str,
}

impl Pattern {
    /// Compiles `/re/flags`, `m{re}flags` and the like.
    ///
    /// A pattern speaks of bytes, as in Perl over undecoded text, unless it names characters beyond ASCII
    /// as such and no bytes.
    ///
    /// # Errors
    /// The reason, in words, why it is not supported.
    pub(super) fn compile(source: &str) -> Result<Pattern, String> {
        let Delimited { body, flags } = delimited(source.trim())?;
        Pattern::of_body(body, flags)
    }

    /// Compiles a pattern without delimiters.
    ///
    /// # Errors
    /// As for [`Pattern::compile`].
    pub(super) fn of_body(body: &str, flags: &str) -> Result<Pattern, String> {
        if body.len() > PATTERN_BYTES {
            return Err(format!("the pattern is longer than {PATTERN_BYTES} bytes"));
        }
        let (mut ignores_case, mut dot_is_all, mut is_extended, mut is_multi_line) =
            (false, false, false, false);
        for flag in flags.chars() {
            match flag {
                'i' => ignores_case = true,
                's' => dot_is_all = true,
                'x' => is_extended = true,
                'm' => is_multi_line = true,
                'a' | 'u' | 'o' | 'g' | 'p' | 'n' | 'd' | 'l' => {}
                other => return Err(format!("the pattern flag `{other}` is not supported")),
            }
        }
        let is_unicode = names_characters(body);
        let translated = translate::translate(body, is_extended, is_multi_line, is_unicode)?;
        let linear = RegexBuilder::new(&translated.linear)
            .unicode(is_unicode)
            .case_insensitive(ignores_case)
            .dot_matches_new_line(dot_is_all)
            .size_limit(PROGRAM_BYTES)
            .build()
            .map_err(|error| format!("the pattern does not compile: {}", last_line(&error.to_string())))?;
        let exact = translated.exact.map(|exact| {
            use fancy_regex::BytesMode;
            fancy_regex::RegexBuilder::new(&exact)
                .bytes_mode(if is_unicode { BytesMode::UnicodeBytes } else { BytesMode::Ascii })
                .unicode_mode(is_unicode)
                .case_insensitive(ignores_case)
                .dot_matches_new_line(dot_is_all)
                .delegate_size_limit(PROGRAM_BYTES)
                .delegate_dfa_size_limit(CACHE_BYTES)
                .max_prog_size(PATTERN_BYTES)
                .backtrack_limit(STEPS)
                .build()
                .map(Box::new)
                .map_err(|error| format!("the pattern does not compile: {}", last_line(&error.to_string())))
        });
        let names = linear.capture_names().flatten().map(str::to_owned).collect();
        let mut pattern =
            Pattern { linear, exact: exact.transpose()?, is_unicode, ignores_case, is_free: false, names };
        pattern.is_free = pattern.hir().is_some_and(|hir| !hir.properties().look_set().contains_anchor());
        Ok(pattern)
    }

    /// Returns the place of the first match at or behind `from`.
    pub(super) fn find(&self, text: &[u8], from: usize, budget: &mut Budget) -> Option<Range<usize>> {
        let possible = self.linear.find_at(text, from.min(text.len()))?;
        let Some(exact) = &self.exact else { return Some(possible.range()) };
        let end = text.len().min(possible.start() + EXACT_BYTES);
        let text = text.get(..end)?;
        budget.backtrack(|| exact.find_from_pos(text, possible.start()).ok())?.map(|found| found.range())
    }

    /// Whether it may match anywhere in a text, so that a text that is longer shows at once whether it can.
    pub(super) fn is_free(&self) -> bool {
        self.is_free
    }

    /// Returns where a match may begin at or behind `from`; there may be none.
    pub(super) fn possible(&self, text: &[u8], from: usize) -> Option<usize> {
        self.linear.find_at(text, from.min(text.len())).map(|found| found.start())
    }

    /// Returns what the named groups hold in the first match.
    pub(super) fn captures(&self, text: &[u8], budget: &mut Budget) -> Vec<(&str, Vec<u8>)> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let Some(possible) = self.possible(text, 0) else { return Vec::new() };
        let names = self.names.iter().map(String::as_str);
        let captured = match &self.exact {
            None => self.linear.captures_at(text, possible).map(|captures| {
                names.filter_map(|name| Some((name, captures.name(name)?.as_bytes().to_vec()))).collect()
            }),
            // What stands behind the match belongs to it: a pattern may look ahead.
            Some(exact) => {
                let end = text.len().min(possible + EXACT_BYTES);
                let text = text.get(..end).unwrap_or_default();
                let found = budget.backtrack(|| exact.captures_from_pos(text, possible).ok());
                found.flatten().map(|captures| {
                    let get = |name: &str| captures.name(name).map(|group| group.as_bytes().to_vec());
                    names.filter_map(|name| Some((name, get(name)?))).collect()
                })
            }
        };
        captured.unwrap_or_default()
    }

    /// Returns the names of its groups: what it captures for other rules.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the structure of a pattern that matches at least wherever this one does.
    pub(super) fn hir(&self) -> Option<Hir> {
        regex_syntax::ParserBuilder::new()
            .utf8(false)
            .unicode(self.is_unicode)
            .case_insensitive(self.ignores_case)
            .build()
            .parse(self.linear.as_str())
            .ok()
    }

    /// Whether it speaks of characters instead of bytes.
    pub(super) fn is_unicode(&self) -> bool {
        self.is_unicode
    }
}

/// Whether a pattern names characters beyond ASCII, and no bytes beyond ASCII.
fn names_characters(body: &str) -> bool {
    let names_bytes = || {
        let escapes = body.split("\\x").skip(1);
        let mut codes = escapes.filter_map(|rest| u8::from_str_radix(rest.get(..2)?, 16).ok());
        codes.any(|code| code >= 128)
    };
    let has_characters =
        !body.is_ascii() || ["\\p", "\\P", "\\x{"].iter().any(|escape| body.contains(escape));
    has_characters && !names_bytes()
}

fn last_line(text: &str) -> String {
    text.lines().next_back().unwrap_or_default().trim().to_owned()
}

/// Splits a pattern from its delimiters and flags.
fn delimited(source: &str) -> Result<Delimited<'_>, String> {
    const MISSING: &str = "the pattern is not enclosed in delimiters";
    let rest = source.strip_prefix("qr").or_else(|| source.strip_prefix('m')).unwrap_or(source);
    let open = rest.chars().next().filter(char::is_ascii_punctuation).ok_or(MISSING)?;
    if rest.len() == source.len() && open != '/' {
        return Err(MISSING.to_owned());
    }
    let close = match open {
        '{' => '}',
        '(' => ')',
        '[' => ']',
        '<' => '>',
        other => other,
    };
    let (body, flags) = rest.strip_prefix(open).and_then(|rest| rest.rsplit_once(close)).ok_or(MISSING)?;
    if flags.chars().all(|c| c.is_ascii_alphabetic()) {
        Ok(Delimited { body, flags })
    } else {
        Err(MISSING.to_owned())
    }
}

#[cfg(test)]
mod tests;
