//! Which patterns can match a text at all: one pass over the text for the words that they need.
//!
//! Of each pattern the words are found of which one must stand in every text that it matches, case aside.
//! One automaton looks for the words of all patterns; only patterns with a word in a piece of the text run,
//! and over that piece alone. The filter never hides a match: it only saves the work of patterns that
//! cannot have one.

use std::cmp::Reverse;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use memchr::memmem;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::pattern::Pattern;

/// Shortest word that is worth looking for.
const WORD_BYTES: usize = 3;
/// Longest word that is looked for: more bytes hardly tell more.
const LONGEST_WORD: usize = 12;
/// Most words of one pattern; a pattern that needs more always runs.
const WORDS: usize = 300;
/// Most texts that a sequence of choices (`[ae]`) is multiplied out to.
const PRODUCT: usize = 32;
/// Most words for the fastest kind of automaton.
const FAST_WORDS: usize = 4_000;

/// The words of a list of patterns.
#[derive(Debug)]
pub(super) struct Prefilter {
    words: Option<AhoCorasick>,
    /// The pattern of each word.
    owners: Vec<usize>,
    /// Patterns that need no word, and always run.
    always: Vec<usize>,
    patterns: usize,
    /// Whether a pattern ignores the case of letters beyond ASCII.
    is_unicode: bool,
}

impl Prefilter {
    /// Prepares patterns.
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Self {
        let (mut words, mut owners, mut always, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut is_unicode = false;
        for (index, pattern) in patterns.enumerate() {
            count += 1;
            is_unicode |= pattern.is_unicode();
            match required_words(pattern) {
                Some(needed) => {
                    owners.extend(std::iter::repeat_n(index, needed.len()));
                    words.extend(needed);
                }
                None => always.push(index),
            }
        }
        // The fast kind takes some kilobytes a word.
        let kind =
            if words.len() <= FAST_WORDS { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA };
        let automaton =
            AhoCorasick::builder().kind(Some(kind)).ascii_case_insensitive(true).build(&words).ok();
        if automaton.is_none() {
            always = (0..count).collect();
        }
        Prefilter { words: automaton, owners, always, patterns: count, is_unicode }
    }

    /// Returns the patterns that must run over every piece of a text.
    pub(super) fn always(&self, text: &[u8]) -> Vec<usize> {
        // Two signs are equal to ASCII letters, case aside, in the eyes of `regex` but not of the automaton.
        let is_odd = self.is_unicode
            && ["\u{212a}", "\u{17f}"].iter().any(|sign| memmem::find(text, sign.as_bytes()).is_some());
        if is_odd { (0..self.patterns).collect() } else { self.always.clone() }
    }

    /// Calls `found` with each pattern and place of a word of it, in the order of the places.
    pub(super) fn each_word(&self, text: &[u8], mut found: impl FnMut(usize, usize)) {
        let Some(words) = &self.words else { return };
        for hit in words.find_overlapping_iter(text) {
            if let Some(owner) = self.owners.get(hit.pattern().as_usize()) {
                found(*owner, hit.start());
            }
        }
    }
}

/// Returns words, ASCII letters in lower case, one of which stands in every text that the pattern matches.
pub(super) fn required_words(pattern: &Pattern) -> Option<Vec<Vec<u8>>> {
    needed(&pattern.hir()?)
}

fn needed(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let mut words = best(hir)?;
    for word in &mut words {
        word.truncate(LONGEST_WORD);
    }
    words.sort();
    words.dedup();
    (!words.is_empty() && words.len() <= WORDS && shortest(&words) >= WORD_BYTES).then_some(words)
}

fn shortest(words: &[Vec<u8>]) -> usize {
    words.iter().map(Vec::len).min().unwrap_or(0)
}

/// How rarely the commonest of the words is met: about the bits that it tells, at most 20.
fn rarity(words: &[Vec<u8>]) -> u32 {
    let bits = |byte: &u8| match byte {
        b' ' | b'e' => 2,
        b'a' | b'i' | b'n' | b'o' | b'r' | b's' | b't' => 3,
        b'c' | b'd' | b'h' | b'l' | b'm' | b'p' | b'u' | b'g' | b'.' | b'/' => 4,
        _ => 5,
    };
    words.iter().map(|word| word.iter().map(bits).sum::<u32>().min(20)).min().unwrap_or(0)
}

/// The depth of the pattern bounds the recursion: `regex-syntax` nests at most 250 levels.
fn best(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Literal(_) | HirKind::Class(_) => exact(hir),
        HirKind::Repetition(repetition) => {
            if repetition.min > 0 {
                best(&repetition.sub)
            } else {
                None
            }
        }
        HirKind::Capture(capture) => best(&capture.sub),
        HirKind::Concat(parts) => best_of_run(parts),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(best(branch)?);
                if all.len() > WORDS {
                    return None;
                }
            }
            Some(all)
        }
    }
}

/// The texts that a run of parts can begin with, while they are few.
struct Run {
    texts: Vec<Vec<u8>>,
}

impl Run {
    fn new() -> Self {
        Run { texts: vec![Vec::new()] }
    }

    /// Continues every text with each of the choices. Returns false when that would be too many.
    fn extend(&mut self, choices: &[Vec<u8>]) -> bool {
        if self.texts.len() * choices.len() > PRODUCT {
            return false;
        }
        let texts = self
            .texts
            .iter()
            .flat_map(|text| choices.iter().map(move |choice| [text.as_slice(), choice.as_slice()].concat()));
        self.texts = texts.collect();
        true
    }

    /// Ends the run: what it tells is one of the choices.
    fn end(&mut self, choices: &mut Vec<Vec<Vec<u8>>>) {
        let texts = std::mem::replace(&mut self.texts, vec![Vec::new()]);
        if shortest(&texts) > 0 {
            choices.push(texts);
        }
    }
}

/// Chooses among the words that stand one after another the most telling.
fn best_of_run(parts: &[Hir]) -> Option<Vec<Vec<u8>>> {
    let mut choices: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut run = Run::new();
    for part in parts {
        if matches!(part.kind(), HirKind::Look(_)) {
            continue;
        }
        match exact(part) {
            Some(texts) => {
                if !run.extend(&texts) {
                    run.end(&mut choices);
                    // Too many to go on with may still be few enough to begin anew.
                    if !run.extend(&texts) {
                        choices.push(texts);
                    }
                }
            }
            None => {
                run.end(&mut choices);
                choices.extend(best(part));
            }
        }
    }
    run.end(&mut choices);
    choices
        .into_iter()
        .filter(|words| shortest(words) >= WORD_BYTES && words.len() <= WORDS)
        .max_by_key(|words| (rarity(words), Reverse(words.len())))
}

/// Returns all the texts that a part stands for, case aside, when they are few.
fn exact(part: &Hir) -> Option<Vec<Vec<u8>>> {
    match part.kind() {
        HirKind::Literal(literal) => Some(vec![literal.0.to_ascii_lowercase()]),
        HirKind::Class(class) => members(class),
        HirKind::Capture(capture) => exact(&capture.sub),
        HirKind::Concat(parts) => {
            let mut run = Run::new();
            for part in parts {
                if !matches!(part.kind(), HirKind::Look(_)) && !run.extend(&exact(part)?) {
                    return None;
                }
            }
            Some(run.texts)
        }
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(exact(branch)?);
                if all.len() > WORDS {
                    return None;
                }
            }
            all.sort();
            all.dedup();
            Some(all)
        }
        HirKind::Repetition(repetition) if repetition.min == 1 && repetition.max == Some(1) => {
            exact(&repetition.sub)
        }
        _ => None,
    }
}

/// Returns the members of a small class, case aside.
fn members(class: &Class) -> Option<Vec<Vec<u8>>> {
    const MOST: usize = 8;
    let mut all: Vec<Vec<u8>> = Vec::new();
    match class {
        Class::Unicode(class) => {
            for range in class.iter() {
                if u32::from(range.end()) - u32::from(range.start()) > 26 {
                    return None;
                }
                for c in range.start()..=range.end() {
                    // These two are `k` and `s` to a pattern that ignores case: see `always`.
                    if !matches!(c, '\u{212a}' | '\u{17f}') {
                        all.push(c.to_ascii_lowercase().to_string().into_bytes());
                    }
                }
            }
        }
        Class::Bytes(class) => {
            for range in class.iter() {
                if range.end() - range.start() > 26 {
                    return None;
                }
                all.extend((range.start()..=range.end()).map(|byte| vec![byte.to_ascii_lowercase()]));
            }
        }
    }
    all.sort();
    all.dedup();
    (!all.is_empty() && all.len() <= MOST).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: Option<&[&str]>) {
        let words = required_words(&Pattern::compile(pattern).unwrap());
        let expected =
            expected.map(|words| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
        assert_eq!(words, expected, "{pattern}");
    }

    #[test]
    fn words_that_must_stand_in_the_text_are_found() {
        check("/foobar/", Some(&["foobar"]));
        check("/Kisses/i", Some(&["kisses"]));
        check(r"/\b(?:your|the) account\b/i", Some(&["the account", "your account"]));
        check("/(?:foo|barn)x?/", Some(&["barn", "foo"]));
        check("/(?:foo|b)x/", None);
        check("/(?:foo|b)xyz/", Some(&["bxyz", "fooxyz"]));
        check("/a+b*/", None);
        check("/(?:abc)+/", Some(&["abc"]));
        check("/(?:abc)?xyz/", Some(&["xyz"]));
        check("/für/", Some(&["f\u{fc}r"]));
        check("/für/i", Some(&["f\u{dc}r", "f\u{fc}r"]));
        check("/gr[ae]y/", Some(&["gray", "grey"]));
        check("/[a-z]{3}/", None);
        check("/viagra(?!x)/", Some(&["viagra"]));
        check("/(a)bcd\\1/", Some(&["abcd"]));
        check("/the.*quixotic/", Some(&["quixotic"]));
    }

    #[test]
    fn patterns_are_found_by_their_words() {
        let patterns = ["/bitcoin/i", "/x+/", "/wallet|coin/"].map(|text| Pattern::compile(text).unwrap());
        let filter = Prefilter::new(patterns.iter());
        let found = |text: &str| {
            let mut found = Vec::new();
            filter.each_word(text.as_bytes(), |pattern, at| found.push((pattern, at)));
            found
        };
        assert_eq!(found("nothing here"), []);
        assert_eq!(found("a BitCoin"), [(0, 2), (2, 5)]);
        assert_eq!(filter.always(b"a"), [1]);
        let unicode = Prefilter::new([Pattern::compile("/kü/i").unwrap()].iter());
        assert_eq!((unicode.always(b"a").len(), unicode.always("\u{212a}".as_bytes()).len()), (0, 1));
    }
}
