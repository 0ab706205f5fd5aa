//! Tags in patterns (`replace_tag` and the like): `<A>` stands for all the ways to write an A.
//!
//! The order in which SpamAssassin's ReplaceTags puts them in is kept, since patterns are written for it.

use std::collections::HashMap;

/// Longest pattern that comes out.
const PATTERN_BYTES: usize = 256 << 10;
/// Most times that tags in what was put in are looked for.
const PASSES: usize = 6;

/// What tags stand for, by kind and name.
#[derive(Debug)]
pub(super) struct Replacements {
    tags: HashMap<String, String>,
    before: HashMap<String, String>,
    between: HashMap<String, String>,
    behind: HashMap<String, String>,
    start: String,
    end: String,
}

impl Default for Replacements {
    fn default() -> Self {
        Replacements {
            tags: HashMap::new(),
            before: HashMap::new(),
            between: HashMap::new(),
            behind: HashMap::new(),
            start: "<".to_owned(),
            end: ">".to_owned(),
        }
    }
}

impl Replacements {
    /// Defines a tag (`replace_tag`, ...), or how tags are written (`replace_start`, `replace_end`).
    pub(super) fn define(&mut self, kind: &str, name: &str, text: &str) {
        let tags = match kind {
            "replace_start" => return name.clone_into(&mut self.start),
            "replace_end" => return name.clone_into(&mut self.end),
            "replace_pre" => &mut self.before,
            "replace_inter" => &mut self.between,
            "replace_post" => &mut self.behind,
            _ => &mut self.tags,
        };
        tags.insert(name.to_owned(), text.to_owned());
    }

    /// Puts in what the tags in a pattern stand for.
    ///
    /// # Errors
    /// The reason, in words.
    pub(super) fn apply(&self, source: &str) -> Result<String, String> {
        let (head, mut body, flags) = split(source).ok_or("the pattern is not enclosed in delimiters")?;
        for _ in 0..PASSES {
            let before = self.modifier(&mut body, "pre", &self.before);
            let behind = self.modifier(&mut body, "post", &self.behind);
            let between = self.modifier(&mut body, "inter", &self.between);
            let mut again = false;
            let mut out = String::with_capacity(body.len() * 2);
            // Flags count as something in front of the first tag.
            let mut text_is_empty = flags.chars().count() == 1;
            let mut rest = body.as_str();
            while !rest.is_empty() {
                let (text, tag, after) = next_tag(rest);
                out.push_str(text);
                rest = after;
                let Some(tag) = tag else { break };
                if text.is_empty() && text_is_empty {
                    out.push_str(between);
                }
                text_is_empty = true;
                let name = tag.strip_prefix(&*self.start).and_then(|tag| tag.strip_suffix(&*self.end));
                let known = name.and_then(|name| self.tags.get(name)).filter(|text| !text.is_empty());
                out.push_str(before);
                match known {
                    Some(text) => {
                        again |= next_tag(text).1.is_some();
                        out.push_str(text);
                    }
                    None => out.push_str(tag),
                }
                out.push_str(behind);
                if out.len() > PATTERN_BYTES {
                    return Err(format!(
                        "with its tags replaced, the pattern is longer than {PATTERN_BYTES} bytes"
                    ));
                }
            }
            body = out;
            if !again {
                break;
            }
        }
        Ok(format!("{head}{body}{flags}"))
    }

    /// Takes `<kind name>` out of a pattern and returns what it stands for.
    fn modifier<'t>(&self, body: &mut String, kind: &str, known: &'t HashMap<String, String>) -> &'t str {
        let open = format!("{}{kind} ", self.start);
        let found = body.find(&open).and_then(|at| {
            let name = at + open.len();
            let length = body.get(name..)?.find(&*self.end)?;
            Some((at, name, name + length))
        });
        let Some((at, name, end)) = found else { return "" };
        let text = body.get(name..end).and_then(|name| known.get(name)).map_or("", String::as_str);
        body.replace_range(at..end + self.end.len(), "");
        text
    }
}

/// Splits a pattern into what is before it, itself, and what is behind it.
fn split(source: &str) -> Option<(&str, String, &str)> {
    let start = match source.strip_prefix('m') {
        Some(rest) => 1 + rest.chars().next()?.len_utf8(),
        None => source.starts_with('/').then_some(1)?,
    };
    let open = source.get(..start)?.chars().next_back()?;
    let close = match open {
        '{' => '}',
        '(' => ')',
        '[' => ']',
        '<' => '>',
        other => other,
    };
    let end = source.rfind(close).filter(|end| *end >= start)?;
    Some((source.get(..start)?, source.get(start..end)?.to_owned(), source.get(end..)?))
}

/// Returns the text before the next `<...>`, that, and what is behind it.
fn next_tag(text: &str) -> (&str, Option<&str>, &str) {
    let mut from = 0;
    while let Some(open) = text.get(from..).and_then(|rest| rest.find('<')).map(|at| from + at) {
        let inside = text.get(open + 1..).unwrap_or_default();
        match inside.find(['<', '>']) {
            Some(length) if length > 0 && inside.get(length..).is_some_and(|rest| rest.starts_with('>')) => {
                let end = open + 1 + length + 1;
                return (
                    text.get(..open).unwrap_or_default(),
                    text.get(open..end),
                    text.get(end..).unwrap_or_default(),
                );
            }
            _ => from = open + 1,
        }
    }
    (text, None, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &str) {
        let mut tags = Replacements::default();
        for (kind, name, text) in [
            ("replace_tag", "A", "[a@]"),
            ("replace_tag", "B", "(?:b|8)"),
            ("replace_tag", "AB", "<A><B>"),
            ("replace_pre", "P", "\\b"),
            ("replace_inter", "I", "\\W?"),
            ("replace_post", "Q", "{1,2}"),
        ] {
            tags.define(kind, name, text);
        }
        assert_eq!(tags.apply(source).as_deref(), Ok(expected), "{source}");
    }

    #[test]
    fn tags_are_put_in() {
        check("/<A>c/", "/[a@]c/");
        check("m{x<A><B>}i", "m{x[a@](?:b|8)}i");
        check("/<AB>/i", "/[a@](?:b|8)/i");
        check("/<C>d/", "/<C>d/");
        check("/(?<!x)<A> < >/", "/(?<!x)[a@] < >/");
    }

    #[test]
    fn modifiers_stand_around_tags() {
        check("/<inter I>x<A><B>y<B>/", "/x[a@]\\W?(?:b|8)y(?:b|8)/");
        check("/<post Q>x<A><B>/i", "/x[a@]{1,2}(?:b|8){1,2}/i");
        check("/<pre P>x<A>/", "/x\\b[a@]/");
        check("/<inter I><post Q>x<A><B>/i", "/x[a@]{1,2}\\W?(?:b|8){1,2}/i");
        check("/<inter I><A><B>/", "/\\W?[a@]\\W?(?:b|8)/");
        check("/<inter I><A><B>/i", "/[a@]\\W?(?:b|8)/i");
        check("/<inter none>x<A><B>/", "/x[a@](?:b|8)/");
    }

    #[test]
    fn tags_are_written_otherwise_where_a_file_says_so() {
        let mut tags = Replacements::default();
        tags.define("replace_start", "<_", "");
        tags.define("replace_end", "_>", "");
        tags.define("replace_tag", "A", "x");
        assert_eq!(tags.apply("/<_A_><A>/").as_deref(), Ok("/x<A>/"));
    }

    #[test]
    fn what_grows_without_end_is_refused() {
        let mut tags = Replacements::default();
        tags.define("replace_tag", "X", &"<X>".repeat(2_000));
        assert!(tags.apply("/<X>/").unwrap_err().starts_with("with its tags replaced"));
        assert!(tags.apply("x").is_err());
    }
}
