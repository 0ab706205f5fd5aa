//! What patterns look at: a message, prepared once.

use crate::mail::Envelope;
use crate::message::{Header, Message};

use super::definition::{Form, Piece, Target};

/// Returns the text that a target selects, entries one a line; `None` where there is none.
pub(super) fn select(target: &Target, message: &Message, envelope: &Envelope) -> Option<String> {
    match target {
        Target::Body => Some(body(message)),
        Target::RawBody => {
            let mut text = message.text.clone();
            text.push_str(&message.hidden_text);
            Some(text)
        }
        Target::Uri => {
            let targets = message.links.iter().map(|link| link.target.as_str());
            Some(targets.collect::<Vec<_>>().join("\n"))
        }
        Target::Full | Target::MimeHeader { .. } => None,
        Target::Header { name, form } => header(name, *form, message, envelope),
    }
}

/// Writes the subject and every paragraph on a line of its own, white space collapsed.
fn body(message: &Message) -> String {
    let mut text = String::with_capacity(message.subject.len() + message.text.len() + 2);
    let paragraphs = message.text.split("\n\n").chain(message.hidden_text.split("\n\n"));
    for paragraph in std::iter::once(message.subject.as_str()).chain(paragraphs) {
        let mut is_first = true;
        for word in paragraph.split_whitespace() {
            if !is_first {
                text.push(' ');
            }
            is_first = false;
            text.push_str(word);
        }
        if !is_first {
            text.push('\n');
        }
    }
    text
}

fn header(name: &str, form: Form, message: &Message, envelope: &Envelope) -> Option<String> {
    let named = |names: &[&str]| -> Vec<&Header> {
        let is_named = |header: &&Header| names.iter().any(|name| header.name.eq_ignore_ascii_case(name));
        message.headers.iter().filter(is_named).collect()
    };
    let fields = match name {
        "all" => {
            let lines = message.headers.iter().map(|header| {
                let value = if form.is_raw { &header.raw } else { &header.value };
                format!("{}: {}", header.name, value.trim_start())
            });
            return Some(lines.collect::<Vec<_>>().join("\n"));
        }
        "envelopefrom" => {
            let path = envelope.mail.reverse_path.as_ref().map(|path| path.to_path());
            return path.or_else(|| return_path(message));
        }
        "tocc" => named(&["To", "Cc"]),
        "messageid" => named(&["Message-ID", "Resent-Message-ID", "X-Message-ID"]),
        _ => named(&[name]),
    };
    let first = fields.first()?;
    Some(match (form.piece, form.is_raw) {
        (Piece::Address | Piece::Name, _) => {
            let mailbox = crate::message::mailboxes(&first.raw).into_iter().next().unwrap_or_default();
            if form.piece == Piece::Address { mailbox.address } else { mailbox.name }
        }
        (_, false) => fields.iter().map(|header| header.value.as_str()).collect::<Vec<_>>().join("\n"),
        (_, true) => fields.iter().map(|header| header.raw.as_str()).collect::<Vec<_>>().join("\n"),
    })
}

/// Returns the address in Return-Path, which tells the reverse-path of a message that has been delivered.
pub(super) fn return_path(message: &Message) -> Option<String> {
    let value = message.header("Return-Path")?.value.trim();
    let address = value.trim_start_matches('<').trim_end_matches('>').trim();
    (!address.is_empty()).then(|| address.to_owned())
}
