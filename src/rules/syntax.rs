//! Lines of a rule file: from text to statements.

use super::definition::{Form, Pattern, Piece, Target, Test};
use super::meta::Expr;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statement<'a> {
    /// A rule.
    Rule { name: &'a str, test: Test },
    /// `score NAME numbers`.
    Score { name: &'a str, points: [f64; 4] },
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

fn pattern(target: Target, source: &str) -> Test {
    Test::Pattern {
        target,
        pattern: Pattern { source: source.to_owned(), is_negated: false, if_unset: None },
    }
}

fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim())
}

/// Reads one number or four: those are for runs without Bayes and network, with network, with Bayes, with
/// both.
fn score(text: &str) -> Result<[f64; 4], String> {
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse::<f64>).collect();
    match numbers.as_deref() {
        Ok([points]) if points.is_finite() => Ok([*points; 4]),
        Ok([a, b, c, d]) if numbers.iter().flatten().all(|points| points.is_finite()) => Ok([*a, *b, *c, *d]),
        _ => Err("a score is one number or four".to_owned()),
    }
}

fn eval(text: &str) -> Result<Test, String> {
    let call = text.strip_prefix("eval:").and_then(|call| call.trim_end().strip_suffix(')'));
    let (function, arguments) =
        call.and_then(|call| call.split_once('(')).ok_or("a call is written `eval:name(arguments)`")?;
    let arguments = arguments
        .split(',')
        .map(|argument| argument.trim().trim_matches(['\'', '"']).to_owned())
        .filter(|argument| !argument.is_empty())
        .collect();
    Ok(Test::Eval { function: function.trim().to_owned(), arguments })
}

fn header(text: &str) -> Result<Test, String> {
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
        None => Form::default(),
        Some("raw") => Form { is_raw: true, ..Form::default() },
        Some("addr") => Form { piece: Piece::Address, ..Form::default() },
        Some("name") => Form { piece: Piece::Name, ..Form::default() },
        Some(other) => return Err(format!("the modifier `:{other}` is not supported")),
    };
    if parts.next().is_some() {
        return Err("only one modifier is supported".to_owned());
    }
    let pattern = Pattern { source: pattern.to_owned(), is_negated, if_unset: if_unset.map(str::to_owned) };
    Ok(Test::Pattern { target: Target::Header { name, form }, pattern })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_rule(name: &str, form: Form, is_negated: bool) -> Test {
        let target = Target::Header { name: name.to_owned(), form };
        Test::Pattern { target, pattern: Pattern { source: "/x/".to_owned(), is_negated, if_unset: None } }
    }

    #[test]
    fn rules_are_read() {
        let check = |line: &str, expected: Test| {
            assert_eq!(read(line), Ok(Some(Statement::Rule { name: "A", test: expected })), "{line}");
        };
        check("header A Subject =~ /x/", header_rule("subject", Form::default(), false));
        check(
            "header  A\tFrom:addr   !~ /x/",
            header_rule("from", Form { piece: Piece::Address, ..Form::default() }, true),
        );
        check("header A ALL:raw =~ /x/", header_rule("all", Form { is_raw: true, ..Form::default() }, false));
        check("header A exists:X-Foo", Test::Exists("x-foo".to_owned()));
        check("body A /x/", pattern(Target::Body, "/x/"));
        check("uri A m{x}i", pattern(Target::Uri, "m{x}i"));
        check("body A eval:f()", Test::Eval { function: "f".to_owned(), arguments: vec![] });
        let arguments = vec!["a".to_owned(), "2".to_owned()];
        check("header A eval:f('a', 2)", Test::Eval { function: "f".to_owned(), arguments });
        check("meta A B", Test::Meta(Expr::Rule("B".to_owned())));
        let target = Target::Header { name: "to".to_owned(), form: Form::default() };
        check(
            "header A To =~ /x/ [if-unset: none]",
            Test::Pattern {
                target,
                pattern: Pattern {
                    source: "/x/".to_owned(),
                    is_negated: false,
                    if_unset: Some("none".to_owned()),
                },
            },
        );
    }

    #[test]
    fn other_lines_are_read() {
        let check =
            |line: &str, expected: Statement<'_>| assert_eq!(read(line), Ok(Some(expected)), "{line}");
        check("score A 1.5", Statement::Score { name: "A", points: [1.5; 4] });
        check("score A 1 2 3 4", Statement::Score { name: "A", points: [1.0, 2.0, 3.0, 4.0] });
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
