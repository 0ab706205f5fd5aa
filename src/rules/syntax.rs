//! Lines of a rule file: from text to statements.

use super::definition::{Choice, Flags, Form, LinkCondition, Pattern, Piece, Target, Test};
use super::keyword::{self, Keyword};

/// Most conditions of one `uri_detail` rule.
const CONDITIONS: usize = 20;

/// Most arguments of a call.
const ARGUMENTS: usize = 100;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statement<'a> {
    /// A rule.
    Rule { name: &'a str, test: Test },
    /// A meta rule, its expression still text.
    Meta { name: &'a str, expression: &'a str },
    /// `score NAME numbers`; in parentheses they are added to those before.
    Score { name: &'a str, points: [f64; 4], is_relative: bool },
    /// `describe NAME text`.
    Describe { name: &'a str, text: &'a str },
    /// `priority NAME number`.
    Priority { name: &'a str, priority: i32 },
    /// `tflags NAME flags`.
    Flags { name: &'a str, flags: &'a str },
    /// `test NAME ok|fail text`.
    Example { name: &'a str, is_hit: bool, text: &'a str },
    /// `replace_tag`, `replace_pre`, `replace_inter`, `replace_post`: what a tag stands for.
    Replace { kind: String, name: &'a str, text: &'a str },
    /// `replace_rules NAMES`: the rules in whose patterns tags are replaced.
    ReplaceIn(&'a str),
    /// Anything else that is kept.
    Setting { keyword: &'static str, value: &'a str },
    /// `clear_...`: settings that are forgotten, all or some words of them.
    Clear { keywords: &'static [&'static str], words: &'a str },
    /// `un...`: words that are taken out of settings.
    Remove { keywords: &'static [&'static str], words: &'a str },
    /// `un...`: entries that are taken out of settings, by their first word.
    RemoveLine { keywords: &'static [&'static str], first: &'a str },
    /// `enable_compat`: something that conditions ask for.
    Compatibility(&'a str),
    /// What means nothing here: the keyword as it is known.
    Ignored(String),
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

/// Reads a line without comment, which is not empty.
///
/// # Errors
/// The reason, in words, why it is not supported.
pub(super) fn read(line: &str) -> Result<Statement<'_>, String> {
    let (_, rest) = word(line);
    let keyword = keyword_of(line);
    match keyword.as_str() {
        "replace_tag" | "replace_pre" | "replace_inter" | "replace_post" | "replace_start"
        | "replace_end" => {
            let (name, text) = word(rest);
            if name.is_empty()
                || text.is_empty() && !matches!(keyword.as_str(), "replace_start" | "replace_end")
            {
                return Err(format!("`{keyword}` is a name and a pattern"));
            }
            return Ok(Statement::Replace { kind: keyword, name, text });
        }
        "replace_rules" => return Ok(Statement::ReplaceIn(rest)),
        "header" | "body" | "rawbody" | "uri" | "full" | "mimeheader" | "uri_detail" | "meta" | "score"
        | "describe" | "test" | "priority" | "tflags" => {}
        _ => {
            return match keyword::find(&keyword, rest)? {
                Some(Keyword::Setting(keyword)) => Ok(Statement::Setting { keyword, value: rest }),
                Some(Keyword::Clear(keywords)) => Ok(Statement::Clear { keywords, words: rest }),
                Some(Keyword::Remove(keywords)) => Ok(Statement::Remove { keywords, words: rest }),
                Some(Keyword::RemoveLine(keywords)) => {
                    Ok(Statement::RemoveLine { keywords, first: word(rest).0 })
                }
                Some(Keyword::Compatibility) => Ok(Statement::Compatibility(rest)),
                Some(Keyword::Network) => {
                    let (name, _) = word(rest);
                    check_name(name)?;
                    Ok(Statement::Rule { name, test: Test::Network })
                }
                Some(Keyword::Ignored) => Ok(Statement::Ignored(keyword)),
                None => Err(format!("`{keyword}` is not known")),
            };
        }
    }
    let (name, rest) = word(rest);
    check_name(name)?;
    let test = match keyword.as_str() {
        "score" => {
            let (points, is_relative) = score(rest)?;
            return Ok(Statement::Score { name, points, is_relative });
        }
        "describe" => return Ok(Statement::Describe { name, text: rest }),
        "priority" => {
            let priority = rest.parse().map_err(|_| "a priority is a whole number")?;
            return Ok(Statement::Priority { name, priority });
        }
        "tflags" => return Ok(Statement::Flags { name, flags: rest }),
        "test" => {
            let (outcome, text) = word(rest);
            return match outcome {
                "ok" => Ok(Statement::Example { name, is_hit: true, text }),
                "fail" => Ok(Statement::Example { name, is_hit: false, text }),
                _ => Err("a test says `ok` or `fail`".to_owned()),
            };
        }
        "meta" if rest.is_empty() => return Err("the expression is missing".to_owned()),
        "meta" => return Ok(Statement::Meta { name, expression: rest }),
        "header" | "body" | "rawbody" | "full"
            if rest.starts_with("eval:") || rest.starts_with("rbleval:") =>
        {
            eval(rest)?
        }
        "header" => header(rest)?,
        "mimeheader" => mime_header(rest)?,
        "uri_detail" => Test::Link(conditions(rest)?),
        "body" => pattern(Target::Body, rest),
        "rawbody" => pattern(Target::RawBody, rest),
        "full" => pattern(Target::Full, rest),
        _ => pattern(Target::Uri, rest),
    };
    Ok(Statement::Rule { name, test })
}

/// Returns the keyword of a line as it is known: lower case, with underscores.
pub(super) fn keyword_of(line: &str) -> String {
    word(line).0.to_ascii_lowercase().replace('-', "_")
}

fn check_name(name: &str) -> Result<(), String> {
    let well_named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= 100;
    if well_named { Ok(()) } else { Err("a rule name has letters, digits and `_`, at most 100".to_owned()) }
}

/// Reads the flags in a text; what is not known means nothing, as in SpamAssassin.
pub(super) fn flags(text: &str) -> Flags {
    let mut flags = Flags::default();
    for word in text.split(|c: char| c.is_whitespace() || c == ',') {
        match word.split_once('=').unwrap_or((word, "")) {
            ("multiple", _) => flags.multiple = true,
            ("maxhits", most) => flags.max_hits = most.parse().ok().or(flags.max_hits),
            ("nosubject", _) => flags.no_subject = true,
            ("net", _) => flags.net = true,
            ("nice", _) => flags.nice = true,
            ("learn", _) => flags.learn = true,
            ("userconf", _) => flags.user_conf = true,
            ("noautolearn", _) => flags.no_auto_learn = true,
            ("autolearn_force", _) => flags.auto_learn_force = true,
            ("publish", _) => flags.publish = true,
            ("fixed", _) => flags.fixed = true,
            _ => {}
        }
    }
    flags
}

fn pattern(target: Target, source: &str) -> Test {
    Test::Pattern { target, pattern: positive(source) }
}

fn positive(source: &str) -> Pattern {
    Pattern { source: source.to_owned(), is_negated: false, if_unset: None }
}

/// Splits the first word off.
pub(super) fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim())
}

/// Reads one number or four: those are for runs without Bayes and network, with network, with Bayes, with
/// both. All in parentheses or none.
fn score(text: &str) -> Result<([f64; 4], bool), String> {
    const MALFORMED: &str = "a score is one number or four, all in parentheses or none";
    let words: Vec<&str> = text.split_whitespace().collect();
    let inner =
        |word: &str| word.strip_prefix('(').and_then(|word| word.strip_suffix(')')).map(str::to_owned);
    let relative: Vec<String> = words.iter().filter_map(|word| inner(word)).collect();
    let is_relative = !relative.is_empty();
    if is_relative && relative.len() != words.len() {
        return Err(MALFORMED.to_owned());
    }
    let words = if is_relative { relative } else { words.iter().map(|word| (*word).to_owned()).collect() };
    let numbers: Option<Vec<f64>> =
        words.iter().map(|word| word.parse().ok().filter(|points: &f64| points.is_finite())).collect();
    match numbers.as_deref() {
        Some([points]) => Ok(([*points; 4], is_relative)),
        Some([a, b, c, d]) => Ok(([*a, *b, *c, *d], is_relative)),
        _ => Err(MALFORMED.to_owned()),
    }
}

fn eval(text: &str) -> Result<Test, String> {
    const MALFORMED: &str = "a call is written `eval:name(arguments)`";
    let call = text.split_once("eval:").and_then(|(_, call)| call.trim_end().strip_suffix(')'));
    let (function, arguments) = call.and_then(|call| call.split_once('(')).ok_or(MALFORMED)?;
    let function = function.trim();
    if function.is_empty() || !function.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(MALFORMED.to_owned());
    }
    Ok(Test::Eval { function: function.to_owned(), arguments: self::arguments(arguments)? })
}

/// Reads arguments: quoted ones up to the quote before a comma or the end, so that patterns need no escapes;
/// bare numbers, addresses and names up to a comma.
fn arguments(text: &str) -> Result<Vec<String>, String> {
    let mut arguments = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if arguments.len() >= ARGUMENTS {
            return Err(format!("a call has at most {ARGUMENTS} arguments"));
        }
        let (argument, behind) = match rest.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                quoted(rest, quote).ok_or_else(|| format!("the argument {rest} is not closed"))?
            }
            _ => {
                let (argument, behind) = rest.split_once(',').unwrap_or((rest, ""));
                let argument = argument.trim_end();
                let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '/');
                if argument.is_empty() || argument.starts_with('/') || !argument.chars().all(is_bare) {
                    return Err(format!("the argument `{argument}` needs quotes"));
                }
                (argument, behind)
            }
        };
        arguments.push(argument.to_owned());
        rest = behind.trim_start();
    }
    Ok(arguments)
}

/// Splits a quoted argument from what follows its comma.
fn quoted(text: &str, quote: char) -> Option<(&str, &str)> {
    let inner = text.strip_prefix(quote)?;
    inner.match_indices(quote).find_map(|(end, _)| {
        let behind = inner.get(end + 1..)?.trim_start();
        let after = if behind.is_empty() { Some("") } else { behind.strip_prefix(',') };
        Some((inner.get(..end)?, after?))
    })
}

/// Splits `Name =~ rest` and `Name !~ rest`.
fn operation(text: &str) -> Option<(&str, bool, &str)> {
    let positive = text.find("=~").map(|at| (at, false));
    let negative = text.find("!~").map(|at| (at, true));
    let (at, is_negated) = [positive, negative].into_iter().flatten().min()?;
    Some((text.get(..at)?.trim(), is_negated, text.get(at + 2..)?.trim()))
}

fn header(text: &str) -> Result<Test, String> {
    const MALFORMED: &str = "a header rule is `Name =~ /re/`, `Name !~ /re/`, `exists:Name` or `eval:name()`";
    if let Some(name) = text.strip_prefix("exists:") {
        let name = name.trim();
        return Ok(Test::Exists(field_name(name.strip_suffix(':').unwrap_or(name))));
    }
    let (field, is_negated, rest) = operation(text).ok_or(MALFORMED)?;
    let (pattern, if_unset) = match rest.rsplit_once("[if-unset:") {
        Some((pattern, unset)) => {
            (pattern.trim(), Some(unset.trim().strip_suffix(']').ok_or(MALFORMED)?.trim()))
        }
        None => (rest, None),
    };
    let (name, form) = field_of(field)?;
    let pattern = Pattern { source: pattern.to_owned(), is_negated, if_unset: if_unset.map(str::to_owned) };
    Ok(Test::Pattern { target: Target::Header { name, form }, pattern })
}

/// Returns the name of a field in lower case. Two pseudo headers are known by their capitals alone.
fn field_name(text: &str) -> String {
    if matches!(text, "ALL" | "MESSAGEID") { text.to_owned() } else { text.to_ascii_lowercase() }
}

/// Reads the name of a field with its modifiers.
fn field_of(text: &str) -> Result<(String, Form), String> {
    let mut parts = text.split(':');
    let name = field_name(parts.next().unwrap_or_default());
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("the name of the field is missing".to_owned());
    }
    let mut form = Form::default();
    for modifier in parts.filter(|modifier| !modifier.is_empty()) {
        match modifier {
            "raw" => form.is_raw = true,
            "first" => form.choice = Choice::First,
            "last" => form.choice = Choice::Last,
            // `:host:addr` means the host, as `:addr:host` does.
            "addr" if form.piece != Piece::Whole => {}
            "addr" => form.piece = Piece::Address,
            "name" => form.piece = Piece::Name,
            "host" => form.piece = Piece::Host,
            "domain" => form.piece = Piece::Domain,
            "ip" => form.piece = Piece::Ip,
            "revip" => form.piece = Piece::ReverseIp,
            other => return Err(format!("the modifier `:{other}` is not known")),
        }
    }
    Ok((name, form))
}

fn mime_header(text: &str) -> Result<Test, String> {
    if let Some(name) = text.strip_prefix("exists:") {
        let target = Target::MimeHeader { name: name.trim().to_ascii_lowercase(), is_raw: true };
        return Ok(Test::Pattern { target, pattern: positive("/^/") });
    }
    let (field, is_negated, rest) =
        operation(text).ok_or("a rule over parts is `Name =~ /re/`, `Name !~ /re/` or `exists:Name`")?;
    let (name, form) = field_of(field)?;
    let (source, if_unset) = match rest.rsplit_once("[if-unset:") {
        Some((source, unset)) => (source.trim(), Some(unset.trim().trim_end_matches(']').trim().to_owned())),
        None => (rest, None),
    };
    Ok(Test::Pattern {
        target: Target::MimeHeader { name, is_raw: form.is_raw },
        pattern: Pattern { source: source.to_owned(), is_negated, if_unset },
    })
}

/// Reads `key =~ /re/ key !~ /re/ ...`.
fn conditions(text: &str) -> Result<Vec<LinkCondition>, String> {
    const KEYS: [&str; 6] = ["raw", "type", "cleaned", "text", "domain", "host"];
    const MALFORMED: &str = "a link rule has conditions `key =~ /re/` or `key !~ /re/`";
    let mut conditions = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, is_negated, behind) = operation(rest).ok_or(MALFORMED)?;
        if !KEYS.contains(&key) {
            return Err(format!("links have no `{key}`"));
        }
        let end = pattern_end(behind).ok_or(MALFORMED)?;
        let (source, behind) = behind.split_at_checked(end).ok_or(MALFORMED)?;
        // Of several conditions on one key the last counts.
        conditions.retain(|condition: &LinkCondition| condition.key != key);
        conditions.push(LinkCondition {
            key: key.to_owned(),
            pattern: Pattern { source: source.to_owned(), is_negated, if_unset: None },
        });
        if conditions.len() > CONDITIONS {
            return Err(format!("a link rule has at most {CONDITIONS} conditions"));
        }
        rest = behind.trim_start();
    }
    if conditions.is_empty() { Err(MALFORMED.to_owned()) } else { Ok(conditions) }
}

/// Returns where a pattern with its flags ends.
fn pattern_end(text: &str) -> Option<usize> {
    let mut chars = text.char_indices();
    let (_, mut open) = chars.next()?;
    if open == 'm' {
        open = chars.next()?.1;
    }
    let close = match open {
        '{' => '}',
        '(' => ')',
        '[' => ']',
        '<' => '>',
        other => other,
    };
    let mut depth = 1;
    let mut is_escaped = false;
    for (at, c) in chars.by_ref() {
        if std::mem::take(&mut is_escaped) {
            continue;
        }
        if c == '\\' {
            is_escaped = true;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                let flags = text.get(at + c.len_utf8()..)?;
                let flags = flags.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(flags.len());
                return Some(at + c.len_utf8() + flags);
            }
        } else if c == open {
            depth += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(target: Target, source: &str, is_negated: bool) -> Test {
        Test::Pattern { target, pattern: Pattern { source: source.to_owned(), is_negated, if_unset: None } }
    }

    fn field(name: &str, form: Form) -> Target {
        Target::Header { name: name.to_owned(), form }
    }

    fn call(function: &str, arguments: &[&str]) -> Test {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Test::Eval { function: function.to_owned(), arguments }
    }

    #[test]
    fn rules_are_read() {
        let check = |line: &str, expected: Test| {
            assert_eq!(read(line), Ok(Statement::Rule { name: "A", test: expected }), "{line}");
        };
        let plain = Form::default();
        let raw = Form { is_raw: true, ..plain };
        let address = Form { piece: Piece::Address, ..plain };
        check("header A Subject =~ /x/", over(field("subject", plain), "/x/", false));
        check("header  A\tFrom:addr   !~ /x/", over(field("from", address), "/x/", true));
        check("header A ALL:raw =~/x/", over(field("ALL", raw), "/x/", false));
        let last = Form { choice: Choice::Last, piece: Piece::Domain, ..plain };
        check("header A Received:last:domain =~ /x/", over(field("received", last), "/x/", false));
        check("header A Subject: =~ /x/", over(field("subject", plain), "/x/", false));
        let host = Form { piece: Piece::Host, ..plain };
        check("header A From:host:addr =~ /x/", over(field("from", host), "/x/", false));
        check("header A exists:X-Foo:", Test::Exists("x-foo".to_owned()));
        check("header A exists:X-Foo", Test::Exists("x-foo".to_owned()));
        check("body A /x/", over(Target::Body, "/x/", false));
        check("full A /x/", over(Target::Full, "/x/", false));
        check(
            "uri_detail A raw =~ /x/ raw =~ /y/",
            Test::Link(vec![LinkCondition { key: "raw".to_owned(), pattern: positive("/y/") }]),
        );
        check("uri A m{x}i", over(Target::Uri, "m{x}i", false));
        let part = Target::MimeHeader { name: "content-type".to_owned(), is_raw: true };
        check("mimeheader A Content-Type:raw =~ /x/", over(part, "/x/", false));
        check("body A eval:f()", call("f", &[]));
        check("header A eval:f('a', 2)", call("f", &["a", "2"]));
        check("header A eval:f('a,b', \"c'd\", '')", call("f", &["a,b", "c'd", ""]));
        check("header A eval:f('(?i)it''s', x)", call("f", &["(?i)it''s", "x"]));
        check("header A rbleval:f(127.0.0.1, a_b)", call("f", &["127.0.0.1", "a_b"]));
        check("urirhssub A multi.example. A 2", Test::Network);
        let condition = |key: &str, source: &str, is_negated| LinkCondition {
            key: key.to_owned(),
            pattern: Pattern { source: source.to_owned(), is_negated, if_unset: None },
        };
        check(
            "uri_detail A text =~ /a b/i domain !~ m{c{2}}",
            Test::Link(vec![condition("text", "/a b/i", false), condition("domain", "m{c{2}}", true)]),
        );
        let pattern =
            Pattern { source: "/x/".to_owned(), is_negated: false, if_unset: Some("none".to_owned()) };
        check("header A To =~ /x/ [if-unset: none]", Test::Pattern { target: field("to", plain), pattern });
    }

    #[test]
    fn other_lines_are_read() {
        let check = |line: &str, expected: Statement<'_>| assert_eq!(read(line), Ok(expected), "{line}");
        let score = |points, is_relative| Statement::Score { name: "A", points, is_relative };
        check("score A 1.5", score([1.5; 4], false));
        check("score A 1 2 3 4", score([1.0, 2.0, 3.0, 4.0], false));
        check("score A (-1)", score([-1.0; 4], true));
        check("meta A B && C", Statement::Meta { name: "A", expression: "B && C" });
        check("describe A Some words", Statement::Describe { name: "A", text: "Some words" });
        check("test A ok some text", Statement::Example { name: "A", is_hit: true, text: "some text" });
        check("priority A -100", Statement::Priority { name: "A", priority: -100 });
        check("tflags A net nice", Statement::Flags { name: "A", flags: "net nice" });
        check(
            "replace_tag A [a4]",
            Statement::Replace { kind: "replace_tag".to_owned(), name: "A", text: "[a4]" },
        );
        check(
            "Whitelist_From *@a.example",
            Statement::Setting { keyword: "welcomelist_from", value: "*@a.example" },
        );
        check("Report-Safe 1", Statement::Ignored("report_safe".to_owned()));
        check("enable_compat x", Statement::Compatibility("x"));
        let networks = Statement::Clear { keywords: &["trusted_networks"], words: "" };
        check("clear_trusted_networks", networks);
        assert_eq!(without_comment(r"body A /a\#b/ # c"), "body A /a#b/");
        let expected = Flags { multiple: true, max_hits: Some(3), no_subject: true, ..Flags::default() };
        assert_eq!(flags("multiple maxhits=3 nonsense nosubject"), expected);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for line in [
            "frobnicate A",
            "score A",
            "score A 1 2",
            "score A nan",
            "score A (1) 2 3 4",
            "priority A high",
            "header A Subject /x/",
            "header A From:colour =~ /x/",
            "header A eval:f",
            "header A eval:f('x)",
            "header A eval:f(/x/)",
            "header A eval:f(,x)",
            "replace_tag A",
            "trusted_networks",
            "uri_detail A colour =~ /x/",
            "uri_detail A text =~ /x",
            "uri_detail A",
            "body A-B /x/",
            "body",
            "test A maybe x",
            "meta A",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
