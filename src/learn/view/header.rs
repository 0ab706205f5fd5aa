//! How the header is written: its bytes, names, order and shapes.

use super::{Collector, prefix, shape};
use crate::learn::trail::Trail;
use crate::learn::words::Kind;
use crate::message::Message;

/// Bytes of the header that fall into grams; of one field, and of one that only machines write.
const BYTES: usize = 3_000;
const FIELD_BYTES: usize = 400;
const MACHINE_BYTES: usize = 40;
/// Longest word of a value, and longest name.
const WORD_BYTES: usize = 60;
const VALUE_WORDS: usize = 20;
const SUBJECT_WORDS: usize = 60;
const MAILBOXES: usize = 3;
const PARTS: usize = 20;
const LINKS: usize = 50;

/// How the names of fields begin that only machines write and read, in lower case.
const MACHINE: [&str; 6] = [
    "arc-",
    "dkim-signature",
    "domainkey-signature",
    "x-gm-message-state",
    "x-google-dkim",
    "x-ms-exchange-",
];

/// Fields whose values have a telling shape, in lower case.
const SHAPED: [&str; 11] = [
    "cc",
    "content-type",
    "date",
    "from",
    "message-id",
    "received",
    "reply-to",
    "return-path",
    "subject",
    "to",
    "x-mailer",
];

pub(super) fn extract(message: &Message, trail: &Trail<'_>, to: &mut Collector<'_>) {
    fields(trail, to);
    to.add_tokens(Kind::HeaderSubject, &message.subject, SUBJECT_WORDS);
    for from in message.from.iter().take(MAILBOXES) {
        to.add_tokens(Kind::HeaderFrom, &from.name, VALUE_WORDS);
        to.add_tokens(Kind::HeaderFrom, &from.address, VALUE_WORDS);
    }
    structure(message, to);
    to.add(Kind::Size, format_args!("fields {}", trail.fields.len()));
    to.add(Kind::Size, "always");
}

/// The fields as text, by their words, names, order and shapes.
fn fields(trail: &Trail<'_>, to: &mut Collector<'_>) {
    let mut text = String::with_capacity(BYTES + FIELD_BYTES);
    if let Some(hop) = &trail.session {
        let ip = hop.ip.map(|ip| ip.to_string()).unwrap_or_default();
        text.push_str(&format!("Client:{} {} {ip}\n", hop.helo, hop.name));
    }
    let mut value = String::with_capacity(FIELD_BYTES);
    let mut names: [&str; 2] = ["", ""];
    let mut order = String::new();
    for field in &trail.fields {
        let name = prefix(&field.name, WORD_BYTES);
        let lower = name.to_ascii_lowercase();
        let is_machine = MACHINE.iter().any(|start| lower.starts_with(start));
        let most = if is_machine { MACHINE_BYTES } else { FIELD_BYTES };
        canonical(&field.value, most, &mut value);
        if text.len() < BYTES {
            text.extend([name, ":", &value, "\n"]);
        }
        if !is_machine && lower != "subject" && lower != "from" {
            let words = value.split(|c: char| c.is_whitespace() || ";,\"<>()=".contains(c));
            for word in words.filter(|word| !word.is_empty()).take(VALUE_WORDS) {
                to.add(Kind::Field, format_args!("{lower} {word}"));
            }
        }
        if SHAPED.contains(&lower.as_str()) {
            to.add(Kind::Shape, format_args!("{lower} {}", shape(&value, WORD_BYTES)));
        }
        to.add(Kind::Name, name);
        let [before, last] = names;
        to.add(Kind::Order, format_args!("{last} {name}"));
        to.add(Kind::Order, format_args!("{before} {last} {name}"));
        names = [last, name];
        order.extend([name, " "]);
    }
    to.add(Kind::WholeOrder, format_args!("{:016x}", to.key.word(0, order.as_bytes())));
    to.add_grams::<4>(Kind::HeaderGram, prefix(&text, BYTES).as_bytes());
}

/// Writes a value with its folds and white space collapsed and its long words cut.
fn canonical(value: &str, most: usize, to: &mut String) {
    to.clear();
    for word in value.split_whitespace() {
        if !to.is_empty() {
            to.push(' ');
        }
        to.push_str(prefix(word, WORD_BYTES));
        if to.len() >= most {
            break;
        }
    }
    to.truncate(to.floor_char_boundary(most));
}

/// What the message is made of.
fn structure(message: &Message, to: &mut Collector<'_>) {
    let (mut types, mut charsets) = (String::new(), String::new());
    for part in message.parts.iter().take(PARTS) {
        to.add(Kind::MediaType, &part.media_type);
        types.extend([&part.media_type, " "]);
        if let Some(charset) = &part.charset {
            to.add(Kind::Charset, charset);
            charsets.extend([charset, " "]);
        }
    }
    to.add(Kind::MediaType, types);
    to.add(Kind::Charset, charsets);
    for file in message.attachments.iter().take(PARTS) {
        let name = file.name.as_deref().unwrap_or_default().to_lowercase();
        let name = prefix(&name, WORD_BYTES);
        to.add(Kind::Attachment, name);
        to.add(Kind::Attachment, format_args!(".{}", name.rsplit('.').next().unwrap_or_default()));
        to.add(Kind::Attachment, format_args!("of 2^{} bytes", magnitude(file.size_bytes)));
        to.add(Kind::Attachment, &file.declared_type);
    }
    for host in message.links.iter().take(LINKS).filter_map(|link| link.host()) {
        to.add(Kind::HeaderLink, host);
    }
    // Not that of the message: copies have other header fields and line ends.
    let text = message.text.trim_end().len();
    let files: usize = message.attachments.iter().map(|file| file.size_bytes).sum();
    to.add(Kind::Size, format_args!("2^{} bytes", magnitude(text + files)));
    to.add(Kind::Size, format_args!("text of 2^{} bytes", magnitude(text)));
}

fn magnitude(bytes: usize) -> u32 {
    bytes.checked_ilog2().unwrap_or_default()
}
