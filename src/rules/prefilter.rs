//! Which patterns can match a text at all: one pass over the text for the words that they need.
//!
//! Of each pattern the words are found of which one must stand in every text that it matches, case aside.
//! One automaton looks for the words of all patterns; only patterns with a word in the text, and those that
//! need none, run. The filter never hides a match: it only saves the work of patterns that cannot have one.

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex_syntax::hir::{Class, Hir, HirKind};

/// Shortest word that is worth looking for.
const WORD_BYTES: usize = 3;
/// Most words of one pattern; a pattern that needs more always runs.
const WORDS: usize = 200;

/// Most words for the fastest kind of automaton.
const FAST_WORDS: usize = 3_000;

/// The words of a list of patterns.
#[derive(Debug)]
pub(super) struct Prefilter {
    words: Option<AhoCorasick>,
    /// The pattern of each word.
    owners: Vec<usize>,
    /// Patterns that always run.
    always: Vec<usize>,
    patterns: usize,
}

impl Prefilter {
    /// Prepares patterns in the spelling of the `regex` crate.
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p str>) -> Self {
        let (mut words, mut owners, mut always, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (index, pattern) in patterns.enumerate() {
            count += 1;
            match regex_syntax::parse(pattern).ok().and_then(|hir| needed(&hir)) {
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
        Prefilter { words: automaton, owners, always, patterns: count }
    }

    /// Returns the patterns that can match the text, each once, in order.
    pub(super) fn candidates(&self, text: &str) -> Vec<usize> {
        // Two signs are equal to ASCII letters, case aside, in the eyes of `regex` but not of the automaton.
        let Some(words) = self.words.as_ref().filter(|_| !text.contains(['\u{212a}', '\u{17f}'])) else {
            return (0..self.patterns).collect();
        };
        let mut found = vec![false; self.patterns];
        let owners =
            words.find_overlapping_iter(text).filter_map(|hit| self.owners.get(hit.pattern().as_usize()));
        for pattern in owners.chain(&self.always) {
            if let Some(place) = found.get_mut(*pattern) {
                *place = true;
            }
        }
        found.iter().enumerate().filter(|(_, is_found)| **is_found).map(|(index, _)| index).collect()
    }
}

/// Returns words, lower case, one of which stands in every text that the pattern matches.
fn needed(hir: &Hir) -> Option<Vec<String>> {
    let words = best(hir)?;
    (!words.is_empty() && words.len() <= WORDS && shortest(&words) >= WORD_BYTES).then_some(words)
}

fn shortest(words: &[String]) -> usize {
    words.iter().map(String::len).min().unwrap_or(0)
}

/// The depth of the pattern bounds the recursion: `regex-syntax` nests at most 250 levels.
fn best(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Literal(_) | HirKind::Class(_) => best_of_run(std::slice::from_ref(hir)),
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
            all.sort();
            all.dedup();
            Some(all)
        }
    }
}

/// Chooses among the words that stand one after another the most telling.
fn best_of_run(parts: &[Hir]) -> Option<Vec<String>> {
    let mut choices: Vec<Vec<String>> = Vec::new();
    let mut run = String::new();
    let end_run = |run: &mut String, choices: &mut Vec<Vec<String>>| {
        if !run.is_empty() {
            choices.push(vec![std::mem::take(run)]);
        }
    };
    for part in parts {
        match part.kind() {
            HirKind::Look(_) => {}
            HirKind::Literal(literal) => {
                for byte in &literal.0 {
                    if byte.is_ascii() {
                        run.push(char::from(byte.to_ascii_lowercase()));
                    } else {
                        end_run(&mut run, &mut choices);
                    }
                }
            }
            HirKind::Class(class) => match folded(class) {
                Some(letter) => run.push(letter),
                None => end_run(&mut run, &mut choices),
            },
            _ => {
                end_run(&mut run, &mut choices);
                choices.extend(best(part));
            }
        }
    }
    end_run(&mut run, &mut choices);
    choices.into_iter().max_by_key(|words| (shortest(words).min(8), std::cmp::Reverse(words.len())))
}

/// Returns the ASCII letter that all members of a class are, case aside.
fn folded(class: &Class) -> Option<char> {
    let Class::Unicode(class) = class else { return None };
    let mut letter = None;
    for range in class.iter() {
        if u32::from(range.end()) - u32::from(range.start()) > 1 {
            return None;
        }
        for c in [range.start(), range.end()] {
            let lower = match c {
                '\u{212a}' => 'k',
                '\u{17f}' => 's',
                c if c.is_ascii() => c.to_ascii_lowercase(),
                _ => return None,
            };
            if *letter.get_or_insert(lower) != lower {
                return None;
            }
        }
    }
    letter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: Option<&[&str]>) {
        let words = needed(&regex_syntax::parse(pattern).unwrap());
        let expected = expected.map(|words| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words, expected, "{pattern}");
    }

    #[test]
    fn words_that_must_stand_in_the_text_are_found() {
        check("foobar", Some(&["foobar"]));
        check("(?i)Kisses", Some(&["kisses"]));
        check(r"(?i:(?-u:\b)(?:your|the) account(?-u:\b))", Some(&[" account"]));
        check("(?:foo|barn)x?", Some(&["barn", "foo"]));
        check("(?:foo|b)x", None);
        check("a+b*", None);
        check("(?:abc)+", Some(&["abc"]));
        check("(?:abc)?xyz", Some(&["xyz"]));
        check("(?i)für", None);
        check("[a-z]{3}", None);
    }

    #[test]
    fn patterns_without_a_word_in_the_text_do_not_run() {
        let filter = Prefilter::new(["(?i)bitcoin", "x+", "wallet|coin"].into_iter());
        assert_eq!(filter.candidates("nothing here"), [1]);
        assert_eq!(filter.candidates("a BitCoin"), [0, 1, 2]);
        assert_eq!(filter.candidates("\u{212a}"), [0, 1, 2]);
    }
}
