//! How parts are built and encoded: SpamAssassin's `MIMEEval`, and what of `BodyEval` compares parts.

use std::collections::HashMap;

use memchr::memmem;

use crate::message::Part;

use super::{Context, Counter, Function, number, plainly};

/// The functions of this family that count.
pub(super) const COUNTERS: &[(&str, Counter)] = &[("check_for_mime", fact)];

/// The other functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_for_mime_html", has_html),
    ("check_for_mime_html_only", has_html_only),
    ("check_msg_parse_flags", parse_flag),
    ("check_mime_multipart_ratio", part_ratio),
    ("check_abundant_unicode_ratio", abundant_references),
    ("check_base64_length", base64_length),
    ("check_for_ascii_text_illegal", ascii_text_illegal),
    ("check_ma_non_text", alternative_not_text),
    ("multipart_alternative_difference", alternative_difference),
    ("multipart_alternative_difference_count", alternative_difference_count),
    ("check_suspect_name", suspect_name),
    ("check_microsoft_executable", executable),
];

pub(super) fn field<'p>(part: &'p Part, name: &str) -> &'p str {
    let field = part.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    field.map(|header| header.value.trim()).unwrap_or_default()
}

fn is_encoded(part: &Part, encoding: &str) -> bool {
    field(part, "Content-Transfer-Encoding").to_ascii_lowercase().contains(encoding)
}

fn is_attached(part: &Part) -> bool {
    field(part, "Content-Disposition").to_ascii_lowercase().contains("attachment")
}

/// The media type of the message as a whole.
fn top_type(context: &Context<'_>) -> String {
    let field = context.subject().message.header("Content-Type");
    field.map(|field| field.value.trim().to_ascii_lowercase()).unwrap_or_default()
}

fn parts_of<'c>(context: &'c Context<'_>, media_type: &'static str) -> impl Iterator<Item = &'c Part> {
    context.subject().message.parts.iter().filter(move |part| part.media_type == media_type)
}

/// `check_for_mime(FACT)`
fn fact(context: &Context<'_>, arguments: &[String]) -> u32 {
    let parts = context.subject().message.parts.iter();
    let raw = context.subject().raw;
    let quoted = parts
        .clone()
        .filter(|part| field(part, "Content-Transfer-Encoding").eq_ignore_ascii_case("quoted-printable"));
    let count = match arguments.first().map(String::as_str).unwrap_or_default() {
        "mime_base64_count" => parts.filter(|part| is_encoded(part, "base64")).count(),
        "mime_base64_encoded_text" => {
            // Text that needs no encoding, and is not named as a file.
            let is_needless = |part: &&Part| {
                let charset = part.charset.as_deref();
                part.media_type.starts_with("text/")
                    && is_encoded(part, "base64")
                    && charset.is_none_or(|charset| matches!(charset, "us-ascii" | "ansi_x3.4-1968"))
                    && !is_attached(part)
            };
            usize::from(parts.clone().any(|part| is_needless(&part)))
        }
        "mime_qp_count" => quoted.map(|part| escapes(part.source(raw))).sum(),
        "mime_qp_long_line" => usize::from(quoted.map(|part| part.source(raw)).any(has_long_line)),
        "mime_attachment" => parts.filter(|part| is_attached(part)).count(),
        _ => 0,
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Counts the letters that are written as escapes without need (RFC 2045, section 6.7), white space at the end of
/// lines aside.
fn escapes(body: &[u8]) -> usize {
    let is_needless = |at: &usize| match (body.get(at + 1), body.get(at + 2)) {
        (Some(b'0'), Some(b'9')) => true,
        (Some(b'3'), Some(low)) => matches!(low, b'0'..=b'9' | b'A' | b'B' | b'C' | b'E' | b'F'),
        (Some(b'2' | b'4' | b'5' | b'6'), Some(low)) => matches!(low, b'0'..=b'9' | b'A'..=b'F'),
        (Some(b'7'), Some(low)) => matches!(low, b'0'..=b'9' | b'A'..=b'E'),
        _ => false,
    };
    let is_last = |at: &usize| {
        let mut rest = body.get(*at..).unwrap_or_default();
        while let Some(after) = rest.strip_prefix(b"=20").or_else(|| rest.strip_prefix(b"=09")) {
            rest = after;
        }
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default().trim_ascii().is_empty()
    };
    memchr::memchr_iter(b'=', body).filter(|at| is_needless(at) && !is_last(at)).count()
}

/// Whether a line is longer than mail allows (RFC 5322, section 2.1.1).
fn has_long_line(body: &[u8]) -> bool {
    body.split(|byte| *byte == b'\n').any(|line| line.strip_suffix(b"\r").unwrap_or(line).len() > 78)
}

fn has_html(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(
        top_type(context).starts_with("text/html")
            || parts_of(context, "text/html").any(|part| !is_attached(part)),
    )
}

fn has_html_only(context: &Context<'_>, _: &[String]) -> Option<String> {
    let has_html = parts_of(context, "text/html").any(|part| !is_attached(part));
    let has_text = parts_of(context, "text/plain").any(|part| !is_attached(part));
    plainly(top_type(context).starts_with("text/html") || has_html && !has_text)
}

/// `check_msg_parse_flags(FLAG)`
fn parse_flag(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    use crate::message::Problem;
    let message = context.subject().message;
    let has = |problem: Problem| message.problems.contains(&problem);
    plainly(match arguments.first()?.as_str() {
        "truncated_header" => has(Problem::HeaderTooLong),
        "missing_mime_headers" => {
            has(Problem::BoundaryMissing)
                || top_type(context).starts_with("multipart/")
                    && message.parts.iter().any(|part| part.headers.is_empty())
        }
        "missing_head_body_separator" => {
            has(Problem::MalformedField) && message.body_offset == context.subject().raw.len()
        }
        "mime_epilogue_exists" => has_epilogue(context),
        _ => return None,
    })
}

/// Whether more than blanks and full stops stands behind the last part of the outermost multipart.
fn has_epilogue(context: &Context<'_>) -> bool {
    let message = context.subject().message;
    let field = message.header("Content-Type").map(|field| field.value.as_str()).unwrap_or_default();
    let Some((_, parameter)) = field.split_once("boundary=") else { return false };
    let boundary = match parameter.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => parameter.split([';', ' ']).next(),
    };
    let Some(boundary) = boundary.filter(|boundary| !boundary.is_empty()) else { return false };
    let body = context.subject().raw.get(message.body_offset..).unwrap_or_default();
    let end = format!("--{boundary}--");
    let rest = memmem::find_iter(body, end.as_bytes())
        .find(|at| *at == 0 || body.get(at - 1) == Some(&b'\n'))
        .and_then(|at| body.get(at + end.len()..))
        .unwrap_or_default();
    rest.iter().any(|byte| !byte.is_ascii_whitespace() && *byte != b'.')
}

/// `check_mime_multipart_ratio(MIN, MAX)`: the bytes of the last plain text to those of the last HTML, encoded as
/// they are, where there are alternatives.
fn part_ratio(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let low: f64 = arguments.first()?.parse().ok()?;
    let high: f64 = arguments.get(1)?.parse().ok()?;
    let raw = context.subject().raw;
    let length = |media_type| {
        let last = parts_of(context, media_type).filter(|part| !is_attached(part)).last()?;
        Some(last.source(raw).iter().filter(|byte| **byte != b'\r').count() as f64)
    };
    let (text, html) = (length("text/plain")?, length("text/html")?);
    let has_alternatives = || memmem::find(&raw.to_ascii_lowercase(), b"multipart/alternative").is_some();
    plainly(html > 0.0 && text / html >= low && text / html < high && has_alternatives())
}

/// `check_abundant_unicode_ratio(RATIO)`: how many characters of plain text are written as references, which
/// nobody reads there.
fn abundant_references(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let least = number(arguments, 0)?;
    let (mut references, mut others) = (0_usize, 0_usize);
    for part in parts_of(context, "text/plain") {
        let encoding = field(part, "Content-Transfer-Encoding").to_ascii_lowercase();
        if !matches!(encoding.as_str(), "" | "7bit" | "8bit") {
            continue;
        }
        let body = part.source(context.subject().raw);
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
        let found = memmem::find_iter(body, b"&#x").filter(|at| {
            let digits = body.get(at + 3..at + 7).is_some_and(|digits| digits.iter().all(is_digit));
            digits && body.get(at + 7) == Some(&b';')
        });
        let found = found.count();
        references += found;
        others += body.len().saturating_sub(8 * found);
    }
    plainly(others > 0 && references as f64 / others as f64 >= least)
}

/// `check_base64_length(MIN, MAX)`: the longest line of base64.
fn base64_length(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let low: usize = arguments.first()?.parse().ok()?;
    let high = arguments.get(1).and_then(|high| high.parse().ok()).unwrap_or(usize::MAX);
    if !context.subject().message.parts.iter().any(|part| is_encoded(part, "base64")) {
        return None;
    }
    let body = context.subject().raw.get(context.subject().message.body_offset..).unwrap_or_default();
    let is_base64 =
        |line: &[u8]| line.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte));
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let longest = lines.filter(|line| is_base64(line)).map(<[u8]>::len).max().unwrap_or(0);
    plainly(longest > low && longest <= high)
}

/// Text that calls itself ASCII and is not.
fn ascii_text_illegal(context: &Context<'_>, _: &[String]) -> Option<String> {
    let raw = context.subject().raw;
    plainly(parts_of(context, "text/plain").any(|part| {
        part.charset.as_deref().is_none_or(|charset| charset == "us-ascii")
            && part.content.as_ref().is_some_and(|content| !content.bytes(raw).is_ascii())
    }))
}

/// An alternative is no text.
fn alternative_not_text(context: &Context<'_>, _: &[String]) -> Option<String> {
    if !top_type(context).starts_with("multipart/alternative") {
        return None;
    }
    let is_other = |part: &Part| {
        !["text/", "multipart/", "message/"].iter().any(|kind| part.media_type.starts_with(kind))
    };
    plainly(context.subject().message.parts.iter().any(is_other))
}

/// How often each word stands in the parts of a type.
fn words(context: &Context<'_>, media_type: &'static str) -> HashMap<String, usize> {
    let raw = context.subject().raw;
    let mut words = HashMap::new();
    for part in parts_of(context, media_type) {
        let Some(content) = &part.content else { continue };
        let text = String::from_utf8_lossy(content.bytes(raw));
        let text =
            if media_type == "text/html" { crate::message::html_text(&text) } else { text.into_owned() };
        for word in text
            .split_whitespace()
            .filter(|word| word.contains(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        {
            *words.entry(word.to_owned()).or_insert(0) += 1;
        }
    }
    words
}

/// How many different words the HTML has, how many of them the text has not as often, and how many the text has.
fn difference(context: &Context<'_>) -> Option<(usize, usize, usize)> {
    let raw = context.subject().raw;
    let spellings = [&b"multipart/alternative"[..], b"Multipart/Alternative", b"MULTIPART/ALTERNATIVE"];
    let has_alternatives = spellings.iter().any(|spelling| memchr::memmem::find(raw, spelling).is_some());
    if !has_alternatives {
        return None;
    }
    let (html, text) = (words(context, "text/html"), words(context, "text/plain"));
    let missing =
        html.iter().filter(|(word, count)| text.get(*word).is_none_or(|there| there < count)).count();
    (!html.is_empty()).then_some((html.len(), missing, text.len()))
}

/// `multipart_alternative_difference(MIN, MAX)`, in per cent.
fn alternative_difference(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let low: f64 = arguments.first()?.parse().ok()?;
    let high: f64 = arguments.get(1)?.parse().unwrap_or(f64::INFINITY);
    let (html, missing, _) = difference(context)?;
    let percent = missing as f64 / html as f64 * 100.0;
    plainly((low == 0.0 || percent > low) && percent <= high)
}

/// `multipart_alternative_difference_count(RATIO, MIN)`
fn alternative_difference_count(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let ratio: f64 = arguments.first()?.parse().ok()?;
    let least: usize = arguments.get(1)?.parse().ok()?;
    let (html, _, text) = difference(context)?;
    plainly(html > least && text as f64 / html as f64 > ratio)
}

/// The name of a file promises something else than its type.
fn suspect_name(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.subject().message.attachments.iter().any(|file| {
        let Some((_, ending)) = file.name.as_deref().and_then(|name| name.rsplit_once('.')) else {
            return false;
        };
        let kind = file.declared_type.split('/').next().unwrap_or_default();
        match kind {
            "text" => {
                matches!(ending.to_ascii_lowercase().as_str(), "exe" | "com" | "bat" | "scr" | "pif" | "vbs")
            }
            "audio" | "image" | "video" => matches!(
                ending.to_ascii_lowercase().as_str(),
                "exe" | "com" | "bat" | "scr" | "pif" | "vbs" | "doc" | "zip"
            ),
            _ => false,
        }
    }))
}

/// A program for Windows is attached.
fn executable(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.subject().message.attachments.iter().any(|file| {
        file.detected_type == Some("application/vnd.microsoft.portable-executable")
            || file.name.as_deref().is_some_and(|name| {
                let ending = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
                matches!(ending.as_str(), "exe" | "scr" | "pif" | "bat" | "com" | "cmd" | "vbs" | "hta")
            })
    }))
}
