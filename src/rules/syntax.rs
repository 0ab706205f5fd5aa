//! Lines of a rule file: from text to statements.

use super::meta::Expr;

/// What a pattern looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Target {
    /// Subject and visible text, white space collapsed, one paragraph a line.
    Body,
    /// The decoded text with its line breaks.
    RawBody,
    /// Link targets, one a line.
    Uri,
    /// Header fields of a name in lower case, or a pseudo header.
    Header { name: String, form: Form },
}

/// Which form of a header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Form {
    /// Unfolded, encoded words decoded.
    Decoded,
    /// `:raw`, as it stands.
    Raw,
    /// `:addr`, the first address.
    Address,
    /// `:name`, the first display name.
    Name,
}

/// How a rule is tested.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test<'a> {
    /// A pattern, still in Perl's spelling.
    Pattern { target: Target, pattern: &'a str, is_negated: bool, if_unset: Option<&'a str> },
    /// `exists:Name`, the name in lower case.
    Exists(String),
    /// `eval:name(arguments)`.
    Eval { function: &'a str, arguments: Vec<String> },
    /// A meta expression.
    Meta(Expr<String>),
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statement<'a> {
    /// A rule.
    Rule { name: &'a str, test: Test<'a> },
    /// `score NAME numbers`.
    Score { name: &'a str, points: f64 },
    /// `describe NAME text`.
    Describe { name: &'a str, text: &'a str },
    /// `test NAME ok|fail text`.
    Example { name: &'a str, is_hit: bool, text: &'a str },
}

/// Cuts a comment off: from `#` on, unless a backslash is before it.
pub(super) fn without_comment(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        if c == '#' {
            if !out.ends_with('\\') {
                break;
            }
            out.pop();
        }
        out.push(c);
    }
    out.trim().to_owned()
}

/// Reads a line without comment; `None` for an empty one.
///
/// # Errors
/// The reason, in words, why it is not supported.
pub(super) fn read(line: &str) -> Result<Option<Statement<'_>>, String> {
    if line.is_empty() {
        return Ok(None);
    }
    let (keyword, rest) = word(line);
    let (name, rest) = word(rest);
    let is_known = matches!(
        keyword,
        "header" | "body" | "rawbody" | "uri" | "full" | "meta" | "score" | "describe" | "test"
    );
    if !is_known {
        return Err(format!("`{keyword}` is not supported"));
    }
    let well_named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= 100;
    if !well_named {
        return Err("a rule name has letters, digits and `_`, at most 100".to_owned());
    }
    let test = match keyword {
        "score" => return Ok(Some(Statement::Score { name, points: score(rest)? })),
        "describe" => return Ok(Some(Statement::Describe { name, text: rest })),
        "test" => {
            let (outcome, text) = word(rest);
            return match outcome {
                "ok" => Ok(Some(Statement::Example { name, is_hit: true, text })),
                "fail" => Ok(Some(Statement::Example { name, is_hit: false, text })),
                _ => Err("a test says `ok` or `fail`".to_owned()),
            };
        }
        "meta" => Test::Meta(Expr::read(rest)?),
        _ if rest.starts_with("eval:") => eval(rest)?,
        "header" => header(rest)?,
        "body" => pattern(Target::Body, rest),
        "rawbody" => pattern(Target::RawBody, rest),
        "uri" => pattern(Target::Uri, rest),
        _ => return Err("patterns over the full message are not supported".to_owned()),
    };
    Ok(Some(Statement::Rule { name, test }))
}

fn pattern(target: Target, pattern: &str) -> Test<'_> {
    Test::Pattern { target, pattern, is_negated: false, if_unset: None }
}

fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim())
}

/// Reads one number, or the third of four: those are for runs without Bayes and network, with network, with
/// Bayes, with both.
fn score(text: &str) -> Result<f64, String> {
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse::<f64>).collect();
    match numbers.as_deref() {
        Ok([points] | [_, _, points, _]) if points.is_finite() => Ok(*points),
        _ => Err("a score is one number or four".to_owned()),
    }
}

fn eval(text: &str) -> Result<Test<'_>, String> {
    let call = text.strip_prefix("eval:").and_then(|call| call.trim_end().strip_suffix(')'));
    let (function, arguments) =
        call.and_then(|call| call.split_once('(')).ok_or("a call is written `eval:name(arguments)`")?;
    let arguments = arguments
        .split(',')
        .map(|argument| argument.trim().trim_matches(['\'', '"']).to_owned())
        .filter(|argument| !argument.is_empty())
        .collect();
    Ok(Test::Eval { function: function.trim(), arguments })
}

fn header(text: &str) -> Result<Test<'_>, String> {
    const MALFORMED: &str = "a header rule is `Name =~ /re/`, `Name !~ /re/`, `exists:Name` or `eval:name()`";
    if let Some(name) = text.strip_prefix("exists:") {
        return Ok(Test::Exists(name.trim().to_ascii_lowercase()));
    }
    let (field, rest) = word(text);
    let (operator, rest) = word(rest);
    let is_negated = match operator {
        "=~" => false,
        "!~" => true,
        _ => return Err(MALFORMED.to_owned()),
    };
    let (pattern, if_unset) = match rest.rsplit_once("[if-unset:") {
        Some((pattern, unset)) => {
            (pattern.trim(), Some(unset.trim().strip_suffix(']').ok_or(MALFORMED)?.trim()))
        }
        None => (rest, None),
    };
    let mut parts = field.split(':');
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let form = match parts.next() {
        None => Form::Decoded,
        Some("raw") => Form::Raw,
        Some("addr") => Form::Address,
        Some("name") => Form::Name,
        Some(other) => return Err(format!("the modifier `:{other}` is not supported")),
    };
    if parts.next().is_some() {
        return Err("only one modifier is supported".to_owned());
    }
    Ok(Test::Pattern { target: Target::Header { name, form }, pattern, is_negated, if_unset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_rule(name: &str, form: Form, is_negated: bool) -> Test<'static> {
        let target = Target::Header { name: name.to_owned(), form };
        Test::Pattern { target, pattern: "/x/", is_negated, if_unset: None }
    }

    #[test]
    fn rules_are_read() {
        let check = |line: &str, expected: Test<'_>| {
            assert_eq!(read(line), Ok(Some(Statement::Rule { name: "A", test: expected })), "{line}");
        };
        check("header A Subject =~ /x/", header_rule("subject", Form::Decoded, false));
        check("header  A\tFrom:addr   !~ /x/", header_rule("from", Form::Address, true));
        check("header A ALL:raw =~ /x/", header_rule("all", Form::Raw, false));
        check("header A exists:X-Foo", Test::Exists("x-foo".to_owned()));
        check("body A /x/", pattern(Target::Body, "/x/"));
        check("uri A m{x}i", pattern(Target::Uri, "m{x}i"));
        check("body A eval:f()", Test::Eval { function: "f", arguments: vec![] });
        let arguments = vec!["a".to_owned(), "2".to_owned()];
        check("header A eval:f('a', 2)", Test::Eval { function: "f", arguments });
        check("meta A B", Test::Meta(Expr::Rule("B".to_owned())));
        let target = Target::Header { name: "to".to_owned(), form: Form::Decoded };
        check(
            "header A To =~ /x/ [if-unset: none]",
            Test::Pattern { target, pattern: "/x/", is_negated: false, if_unset: Some("none") },
        );
    }

    #[test]
    fn other_lines_are_read() {
        let check =
            |line: &str, expected: Statement<'_>| assert_eq!(read(line), Ok(Some(expected)), "{line}");
        check("score A 1.5", Statement::Score { name: "A", points: 1.5 });
        check("score A 1 2 3 4", Statement::Score { name: "A", points: 3.0 });
        check("describe A Some words", Statement::Describe { name: "A", text: "Some words" });
        check("test A ok some text", Statement::Example { name: "A", is_hit: true, text: "some text" });
        assert_eq!(read(""), Ok(None));
        assert_eq!(without_comment(r"body A /a\#b/ # c"), "body A /a#b/");
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for line in [
            "mimeheader A Content-Type =~ /x/",
            "full A /x/",
            "score A",
            "score A 1 2",
            "score A nan",
            "header A Subject /x/",
            "header A From:domain =~ /x/",
            "header A From:addr:raw =~ /x/",
            "header A eval:f",
            "body A-B /x/",
            "body",
            "test A maybe x",
            "meta A (B",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
