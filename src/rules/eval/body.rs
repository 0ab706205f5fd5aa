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

/// `check_body_length(MAX)`: the text, its subject included, is shorter than that.
fn body_length(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let most: usize = arguments.first()?.parse().ok()?;
    let message = context.subject().message;
    plainly(message.text.len() + message.subject.len() < most)
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

/// `check_for_uppercase(MIN, MAX)`: the share of capitals among the letters, in per cent.
fn uppercase(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    const LEAST: usize = 200;
    let (low, high) = bounds(arguments)?;
    let text = &context.subject().message.text;
    // Addresses and what looks like encoded data are no text.
    let words = text
        .split_whitespace()
        .filter(|word| word.len() < 40 && !word.contains("://") && !word.contains('@'));
    let (mut upper, mut lower) = (0_usize, 0_usize);
    for byte in words.flat_map(str::bytes) {
        upper += usize::from(byte.is_ascii_uppercase());
        lower += usize::from(byte.is_ascii_lowercase());
    }
    let percent = 100.0 * upper as f64 / (upper + lower).max(1) as f64;
    plainly(upper + lower >= LEAST && percent > low && percent <= high)
}

/// `tvd_vertical_words(MIN, MAX)`: the share of lines with more than one word, in per cent.
fn vertical_words(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    const LEAST: usize = 5;
    let (low, high) = bounds(arguments)?;
    let (mut lines, mut wordy) = (0_usize, 0_usize);
    for line in context.subject().message.text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        lines += 1;
        wordy += usize::from(line.contains(' '));
    }
    let percent = 100.0 * wordy as f64 / lines.max(1) as f64;
    plainly(lines > LEAST && percent >= low && percent <= high)
}

/// `check_bayes(MIN, MAX)`
fn bayes(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let (low, high) = bounds(arguments)?;
    let probability = context.subject().evidence.bayes?;
    plainly(if low == 0.0 { probability <= high } else { probability > low && probability <= high })
}
