//! What the message says: decoded subject and text, with the targets of links.

use super::{Collector, prefix};
use crate::learn::words::Kind;
use crate::message::Message;

/// Bytes of text that are looked at, and those of them that fall into grams.
const TEXT_BYTES: usize = 12_000;
const GRAM_BYTES: usize = 2_500;
const SUBJECT_BYTES: usize = 1_000;
const TOKENS: usize = 1_000;
const HIDDEN_TOKENS: usize = 200;
/// Links that are looked at, and their bytes.
const LINKS: usize = 100;
const LINK_BYTES: usize = 200;
const LINKS_BYTES: usize = 2_000;

/// Returns the text that counts: subject, where the links lead, visible text. Links come first, for the text of most
/// mail is longer than what is looked at.
pub(super) fn text(message: &Message) -> String {
    let mut text = String::with_capacity(TEXT_BYTES.min(message.text.len()) + SUBJECT_BYTES + LINKS_BYTES);
    text.push_str(prefix(&message.subject, SUBJECT_BYTES));
    let end = text.len() + LINKS_BYTES;
    for link in message.links.iter().take(LINKS) {
        if text.len() > end {
            break;
        }
        text.push('\n');
        text.push_str(prefix(&link.target, LINK_BYTES));
    }
    text.push('\n');
    push_unquoted(prefix(message.text.trim_end(), TEXT_BYTES), &mut text);
    text
}

/// Adds a text without what a mailbox file puts before lines that begin with "From ".
fn push_unquoted(mut text: &str, to: &mut String) {
    while let Some((before, rest)) = text.split_once("\n>") {
        to.push_str(before);
        to.push('\n');
        let line = rest.trim_start_matches('>');
        let is_quoted = line.starts_with("From ");
        if !is_quoted {
            to.push('>');
        }
        text = if is_quoted { line } else { rest };
    }
    to.push_str(text);
}

pub(super) fn grams(text: &str, to: &mut Collector<'_>) {
    to.add_grams::<4>(Kind::BodyGram, prefix(text, GRAM_BYTES).as_bytes());
}

pub(super) fn tokens(message: &Message, text: &str, to: &mut Collector<'_>) {
    to.add_tokens(Kind::Text, text, TOKENS);
    // What is not seen is not mixed with what is: it would dilute it.
    to.add_tokens(Kind::Hidden, prefix(&message.hidden_text, TEXT_BYTES), HIDDEN_TOKENS);
    to.add(Kind::Text, "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quotes_of_a_mailbox_file_are_left_out() {
        for (text, expected) in [
            ("a\n>From b\n>>From c", "a\nFrom b\nFrom c"),
            ("a\n> From b\n>Fromage", "a\n> From b\n>Fromage"),
            ("a\n>", "a\n>"),
            ("", ""),
        ] {
            let mut found = String::new();
            push_unquoted(text, &mut found);
            assert_eq!(found, expected);
        }
    }
}
