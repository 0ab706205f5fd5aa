//! Patterns: from Perl's spelling, in which the rules are written, to the `regex` crate's.
//!
//! `regex` runs in time linear in the text, so a hostile message cannot make a pattern slow; what it cannot
//! express (look-around, back-references, possessive quantifiers) is refused with a reason.

use regex::{Regex, RegexBuilder};

/// Longest pattern that is compiled.
pub(super) const PATTERN_BYTES: usize = 16 << 10;
/// Largest compiled pattern.
pub(super) const PROGRAM_BYTES: usize = 4 << 20;

/// Compiles `/re/flags`, `m{re}flags` and the like; `multi_line` lets `^` and `$` match at line breaks.
///
/// # Errors
/// The reason, in words, why it is not supported.
pub(super) fn compile(source: &str, multi_line: bool) -> Result<Regex, String> {
    let (body, flags) = delimited(source.trim())?;
    if body.len() > PATTERN_BYTES {
        return Err(format!("the pattern is longer than {PATTERN_BYTES} bytes"));
    }
    let mut inline = if multi_line { "m".to_owned() } else { String::new() };
    for flag in flags.chars() {
        match flag {
            'i' | 's' | 'x' | 'm' if !inline.contains(flag) => inline.push(flag),
            'i' | 's' | 'x' | 'm' | 'a' | 'u' | 'o' => {}
            other => return Err(format!("the pattern flag `{other}` is not supported")),
        }
    }
    let body = translate(body)?;
    // The line break keeps a comment in an `x` pattern from swallowing the end of the group.
    let close = if inline.contains('x') { "\n)" } else { ")" };
    let text = if inline.is_empty() { format!("(?:{body})") } else { format!("(?{inline}:{body}{close}") };
    RegexBuilder::new(&text)
        .size_limit(PROGRAM_BYTES)
        .build()
        .map_err(|error| format!("the pattern does not compile: {}", last_line(&error.to_string())))
}

fn last_line(text: &str) -> String {
    text.lines().next_back().unwrap_or_default().trim().to_owned()
}

/// Splits a pattern from its delimiters and flags.
fn delimited(source: &str) -> Result<(&str, &str), String> {
    const MISSING: &str = "the pattern is not enclosed in delimiters";
    let rest = source.strip_prefix('m').filter(|rest| !rest.starts_with('/')).unwrap_or(source);
    let rest = rest.strip_prefix('m').filter(|rest| rest.starts_with('/')).unwrap_or(rest);
    let open = rest.chars().next().filter(|c| c.is_ascii_punctuation()).ok_or(MISSING)?;
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
    if flags.chars().all(|c| c.is_ascii_alphabetic()) { Ok((body, flags)) } else { Err(MISSING.to_owned()) }
}

/// Rewrites what Perl spells differently.
fn translate(body: &str) -> Result<String, String> {
    let refuse = |what: &str| Err(format!("{what} are not supported"));
    let mut out = String::with_capacity(body.len() + 16);
    let mut chars = body.chars().peekable();
    let mut in_class = false;
    let mut after_quantifier = false;
    while let Some(c) = chars.next() {
        let quantified = std::mem::take(&mut after_quantifier);
        match c {
            '\\' => match chars.next() {
                None => return Err("the pattern ends with a backslash".to_owned()),
                Some('1'..='9' | 'g' | 'k') if !in_class => return refuse("back-references"),
                Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                Some('Z') => out.push_str("\\z"),
                Some('h') => out.push_str(if in_class { " \\t" } else { "[ \\t]" }),
                Some('R') if !in_class => out.push_str("(?:\\r\\n|\\n|\\r)"),
                Some('e') => out.push_str("\\x1B"),
                Some(other @ ('Q' | 'E' | 'G' | 'K' | 'X' | 'N' | 'l' | 'u' | 'L' | 'U')) => {
                    return Err(format!("the escape `\\{other}` is not supported"));
                }
                // In this crate these two are word boundaries.
                Some(angle @ ('<' | '>')) => out.push(angle),
                Some(other) if !other.is_ascii() || other == '_' => out.push(other),
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
            },
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
                if chars.peek() == Some(&']') {
                    chars.next();
                    out.push_str("\\]");
                }
            }
            '[' if chars.peek() != Some(&':') => out.push_str("\\["),
            '[' => {
                // A POSIX class: copied up to its end.
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Set operations of this crate, which Perl does not know.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '(' if !in_class && chars.peek() == Some(&'?') => {
                let ahead: String = chars.clone().skip(1).take(2).collect();
                if ahead.starts_with(['=', '!']) || matches!(ahead.as_str(), "<=" | "<!") {
                    return refuse("look-around assertions");
                }
                if ahead.starts_with('>') {
                    return refuse("atomic groups");
                }
                if ahead.starts_with(['|', '&', '#', '{', 'R', '(']) {
                    return refuse("extended groups");
                }
                out.push('(');
            }
            '+' if !in_class && quantified => return refuse("possessive quantifiers"),
            '*' | '+' | '?' if !in_class => {
                after_quantifier = !quantified;
                // `(?` opens a group and is no quantifier.
                after_quantifier &= !(c == '?' && out.ends_with('('));
                out.push(c);
            }
            '}' if !in_class => {
                after_quantifier = true;
                out.push('}');
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, hit: &str, miss: &str) {
        let pattern = compile(source, false).unwrap();
        assert!(pattern.is_match(hit), "{source} should match {hit:?}");
        assert!(!pattern.is_match(miss), "{source} should not match {miss:?}");
    }

    #[test]
    fn perl_spellings_are_understood() {
        check("/foo/", "a foo", "a FOO");
        check("/FOO bar/i", "foo BAR", "foobar");
        check("m{a/b}", "a/b", "a-b");
        check("m!a/b!i", "A/B", "a-b");
        check("m#x|y#", "y", "z");
        check("m,x,", "x", "z");
        check("m/x/", "x", "z");
        check(r"/\bfoo\b/", "a foo.", "food");
        check(r"/a\/b\@c\<d\>\_\'/", "a/b@c<d>_'", "ab");
        check("/[^]]x/", "ax", "]x");
        check("/[]a]x/", "]x", "bx");
        check("/[a&&b]x/", "&x", "cx");
        check("/[[:digit:]]+$/", "12", "12a");
        check(r"/a\hb\Z/", "a\tb", "a\nb");
        check("/a b # c/x", "ab", "a b");
        check("/a+?b*c??d{2,3}/", "aadd", "d");
        check("/(?:a|b)(?i)c/", "aC", "dc");
        check(r"/[a-f\/]{2}/", "/a", "g");
    }

    #[test]
    fn what_is_not_supported_is_refused_with_a_reason() {
        for (source, reason) in [
            ("foo", "the pattern is not enclosed in delimiters"),
            ("/foo", "the pattern is not enclosed in delimiters"),
            ("/(?=a)/", "look-around assertions are not supported"),
            ("/(?<!a)b/", "look-around assertions are not supported"),
            (r"/(a)\1/", "back-references are not supported"),
            ("/a++/", "possessive quantifiers are not supported"),
            ("/a{2}+/", "possessive quantifiers are not supported"),
            ("/(?>a)/", "atomic groups are not supported"),
            (r"/\Qa\E/", r"the escape `\Q` is not supported"),
            ("/a/g", "the pattern flag `g` is not supported"),
            ("/a(/", "the pattern does not compile: error: unclosed group"),
            (
                "/(?:a{1000}){1000}/",
                "the pattern does not compile: Compiled regex exceeds size limit of 4194304 bytes.",
            ),
        ] {
            assert_eq!(
                compile(source, false).map(|pattern| pattern.to_string()),
                Err(reason.to_owned()),
                "{source}"
            );
        }
    }
}
