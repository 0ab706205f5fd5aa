//! Tags in patterns (`<A>`) and what they stand for: SpamAssassin's `ReplaceTags`.

use std::collections::HashMap;

/// How often replaced text is looked through for tags again.
const PASSES: usize = 5;
/// Longest pattern that replacement makes.
const PATTERN_BYTES: usize = 256 << 10;

/// What tags stand for, by kind (`replace_tag`, `replace_pre`, ...) and name.
#[derive(Debug, Default)]
pub(super) struct Replacements {
    texts: HashMap<(String, String), String>,
}

impl Replacements {
    /// Defines a tag.
    pub(super) fn define(&mut self, kind: &str, name: &str, text: &str) {
        let kind = kind.to_ascii_lowercase();
        self.texts.insert((kind, name.to_owned()), text.to_owned());
    }

    fn get(&self, kind: &str, name: &str) -> Option<&str> {
        self.texts.get(&(kind.to_owned(), name.to_owned())).map(String::as_str)
    }

    /// Replaces the tags in a pattern. Tags that nobody defined stay as they are.
    ///
    /// # Errors
    /// When the pattern grows too long.
    pub(super) fn apply(&self, pattern: &str) -> Result<String, String> {
        let mut text = pattern.to_owned();
        for _ in 0..PASSES {
            let replaced = self.pass(&text);
            if replaced.len() > PATTERN_BYTES {
                return Err(format!(
                    "with its tags replaced, the pattern is longer than {PATTERN_BYTES} bytes"
                ));
            }
            if replaced == text {
                break;
            }
            text = replaced;
        }
        Ok(text)
    }

    fn pass(&self, pattern: &str) -> String {
        let mut text = pattern.to_owned();
        let mut around = [None, None, None];
        for (kind, found) in ["pre", "inter", "post"].into_iter().zip(&mut around) {
            let start = format!("<{kind} ");
            let Some(at) = text.find(&start) else { continue };
            let Some(length) = text.get(at..).and_then(|rest| rest.find('>')) else { continue };
            let name = text.get(at + start.len()..at + length).unwrap_or_default().to_owned();
            *found = self.get(&format!("replace_{kind}"), &name);
            text.replace_range(at..=at + length, "");
        }
        let [pre, inter, post] = around.map(Option::unwrap_or_default);
        let mut out = String::with_capacity(text.len() * 2);
        let mut rest = text.as_str();
        let mut after_tag = false;
        while let Some(at) = rest.find('<') {
            let (before, tag) = rest.split_at_checked(at).unwrap_or((rest, ""));
            let name = tag.get(1..).and_then(|tag| tag.split_once('>')).map(|(name, _)| name);
            out.push_str(before);
            match name.and_then(|name| Some((name, self.get("replace_tag", name)?))) {
                Some((name, replacement)) => {
                    if after_tag && before.is_empty() {
                        out.push_str(inter);
                    }
                    out.push_str(pre);
                    out.push_str(replacement);
                    out.push_str(post);
                    rest = tag.get(name.len() + 2..).unwrap_or_default();
                    after_tag = true;
                }
                None => {
                    out.push('<');
                    rest = tag.get(1..).unwrap_or_default();
                    after_tag = false;
                }
            }
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_replaced_with_what_stands_around_them() {
        let mut replacements = Replacements::default();
        replacements.define("replace_tag", "A", "[a4]");
        replacements.define("replace_tag", "B", "<A>b");
        replacements.define("replace_inter", "W", "\\s?");
        replacements.define("replace_post", "P", "{1,3}");
        for (pattern, expected) in [
            ("/x<A>y/", "/x[a4]y/"),
            ("/<inter W><A><A>/i", "/[a4]\\s?[a4]/i"),
            ("/<inter W><post P><A>x<A>/", "/[a4]{1,3}x[a4]{1,3}/"),
            ("/<B>/", "/[a4]b/"),
            ("/<C>(?<N>x)/", "/<C>(?<N>x)/"),
        ] {
            assert_eq!(replacements.apply(pattern).as_deref(), Ok(expected), "{pattern}");
        }
        replacements.define("replace_tag", "X", "<X><X>");
        assert!(replacements.apply(&"<X>".repeat(20_000)).is_err());
    }
}
