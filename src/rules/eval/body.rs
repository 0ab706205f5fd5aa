//! The shape of the text: SpamAssassin's `BodyEval`; and its ranges of the Bayes filter.

use std::collections::HashSet;

use super::{Context, Function, argument_matches, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_body_length", body_length),
    ("check_blank_line_ratio", blank_line_ratio),
    ("check_for_uppercase", uppercase),
    ("tvd_vertical_words", vertical_words),
    ("check_bayes", bayes),
    ("check_stock_info", stock_info),
];

/// `check_stock_info(LEAST)`: so many different lines of the first text begin as those about shares do.
fn stock_info(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    const LABEL: &str = "(?:^trad(?:e|ing)date|company(?:name)?|s\\w?(?:t\\w?o\\w?c\\w?k|y\\w?m(?:\\w?b\\w?o\\w?l)?)|t(?:arget|icker)|\
        (?:opening|current)p(?:rice)?|p(?:rojected|osition)|expectations|weeks?high|marketperformance|\
        (?:year|week|month|day|price)(?:target|estimates?)|sector|r(?:ecommendation|ating))$";
    let least: usize = arguments.first()?.parse().ok()?;
    let subject = context.subject();
    let first = subject.message.parts.iter().find(|part| part.media_type == "text/plain");
    let bytes = first.and_then(|part| part.content.as_ref()).map(|content| content.bytes(subject.raw));
    let text = String::from_utf8_lossy(bytes.unwrap_or_default());
    let labels = text.lines().filter_map(|line| {
        let (label, value) = line.split_once(':')?;
        let label = label.trim();
        let is_label = (3..=30).contains(&label.len()) && !value.trim().is_empty();
        is_label
            .then(|| label.to_ascii_lowercase().chars().filter(char::is_ascii_lowercase).collect::<String>())
    });
    let labels: HashSet<String> = labels.collect();
    let hits = labels.iter().filter(|label| argument_matches(LABEL, std::iter::once(label.as_str())));
    plainly(least == 0 || hits.count() >= least)
}

fn bounds(arguments: &[String]) -> Option<(f64, f64)> {
    let read = |text: &String| if text == "undef" { Some(f64::INFINITY) } else { text.parse().ok() };
    Some((read(arguments.first()?)?, read(arguments.get(1)?)?))
}

/// `check_body_length(MAX)`: the body as it came has at most so many bytes.
fn body_length(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let most: usize = arguments.first()?.parse().ok()?;
    let body = context.subject().raw.get(context.subject().message.body_offset..).unwrap_or_default();
    plainly(body.iter().filter(|byte| **byte != b'\r').take(most + 1).count() <= most)
}

/// The lines of the text part as they came.
fn raw_lines<'c>(context: &'c Context<'_>) -> impl Iterator<Item = &'c [u8]> {
    let subject = context.subject();
    let contents = subject.message.parts.iter().filter_map(|part| part.content.as_ref());
    contents.flat_map(move |content| content.bytes(subject.raw).split(|byte| *byte == b'\n'))
}

/// `check_blank_line_ratio(MIN, MAX, LINES)`: the share of blank lines, in per cent.
fn blank_line_ratio(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let (low, high) = bounds(arguments)?;
    let least: usize = arguments.get(2)?.parse().ok()?;
    let (mut lines, mut blank) = (0_usize, 0_usize);
    for line in raw_lines(context) {
        lines += 1;
        blank += usize::from(line.trim_ascii().is_empty());
    }
    let ratio = 100.0 * blank as f64 / lines.max(1) as f64;
    plainly(lines >= least && ratio >= low && ratio < high)
}

/// `check_for_uppercase(MIN, MAX)`: the share of capitals among letters and digits, in per cent.
fn uppercase(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    const LEAST: usize = 200;
    let (low, high) = bounds(arguments)?;
    // Character sets whose bytes look like capitals.
    let looks_like_capitals = |charset: &str| {
        ["koi8", "windows-1251", "gb", "big5", "euc", "iso-2022", "shift", "ks_c", "tis-620"]
            .iter()
            .any(|start| charset.starts_with(start))
    };
    let mut charsets = context.subject().message.parts.iter().filter_map(|part| part.charset.as_deref());
    if charsets.any(looks_like_capitals) {
        return None;
    }
    let (mut upper, mut lower, mut length) = (0_usize, 0_usize, 0_usize);
    for line in context.body().pieces() {
        // One word says nothing, and encoded data is no text.
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        if words.clone().count() < 2 || words.take(2).all(|word| (60..=76).contains(&word.len())) {
            continue;
        }
        length += line.len();
        upper += line.iter().filter(|byte| byte.is_ascii_uppercase()).count();
        lower += line.iter().filter(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count();
    }
    let percent = 100.0 * upper as f64 / (upper + lower).max(1) as f64;
    plainly(length >= LEAST && percent > low && percent <= high)
}

/// `tvd_vertical_words(MIN, MAX)`: the largest share of blanks in a paragraph, in per cent of its letters.
fn vertical_words(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let (low, high) = bounds(arguments)?;
    let share = |line: &[u8]| {
        let blanks = line.iter().filter(|byte| **byte == b' ').count();
        let others = line.len() - blanks;
        if blanks > others || others == 0 { 100 } else { 100 * blanks / others }
    };
    let largest = context.body().pieces().filter(|line| line.len() > 5).map(share).max();
    let largest = largest.map_or(-1.0, |largest| largest as f64);
    plainly(largest >= low && (high >= 100.0 || largest < high))
}

/// `check_bayes(MIN, MAX)`
fn bayes(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let (low, high) = bounds(arguments)?;
    let probability = context.subject().evidence.bayes?;
    plainly(if low == 0.0 { probability <= high } else { probability > low && probability <= high })
}
