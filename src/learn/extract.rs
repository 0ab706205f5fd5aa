//! From a message to its features.
//!
//! The same message gives the same features wherever it is met: in the session, in the quarantine, in a
//! Maildir below our own header fields, in an mbox below those of others (see `trail`).

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::features::Features;
use super::hash::FeatureKey;
use super::trail::{Hop, Trail};
use super::words::{Collector, Place, Words};
use crate::mail::Client;
use crate::message::{Mailbox, Message};

/// Most bytes of visible text that are looked at.
pub const MAX_TEXT_BYTES: usize = 12_000;
/// Most words of visible text that are looked at.
pub const MAX_TEXT_WORDS: usize = 1_000;
const MAX_SUBJECT_WORDS: usize = 60;
const MAX_SUBJECT_BYTES: usize = 1_000;
const MAX_MAILBOXES: usize = 3;
const MAX_VALUE_WORDS: usize = 12;
const MAX_LINKS: usize = 100;
const MAX_ATTACHMENTS: usize = 20;
const MAX_PARTS: usize = 20;

/// The features of a message and the words behind them.
///
/// `Debug` prints neither.
#[derive(Clone, Default)]
pub struct Extracted {
    /// What a lesson stores.
    pub features: Features,
    pub(super) words: Words,
}

impl std::fmt::Debug for Extracted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Extracted({} features)", self.features.words().len())
    }
}

/// The name of a message in the log of lessons: a keyed hash over what every copy of it says alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey(pub [u8; 16]);

impl MessageKey {
    /// Computes the key: HMAC-SHA256 over Message-ID, Date, From, subject and text, cut to 128 bits.
    pub fn of(message: &Message, key: &FeatureKey) -> Self {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.bytes()) else {
            unreachable!("HMAC takes a key of any length");
        };
        let mut absorb = |text: &str| {
            mac.update(&(text.len() as u64).to_le_bytes());
            mac.update(text.as_bytes());
        };
        for name in ["Message-ID", "Date", "From"] {
            let header = message.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            absorb(header.map_or("", |header| header.value.trim()));
        }
        absorb(message.subject.trim());
        // Line ends and the blank lines at the end differ between copies; an mbox also quotes "From ".
        for line in message.text.trim_end().lines() {
            absorb(line.trim_start_matches('>').trim_end());
        }
        let mut bytes = [0; 16];
        for (byte, digest) in bytes.iter_mut().zip(mac.finalize().into_bytes()) {
            *byte = digest;
        }
        MessageKey(bytes)
    }
}

/// Extracts the features of a message.
///
/// `client` is the session's peer where the message bears no Received field of that session; a copy that was
/// delivered, or comes from elsewhere, has none.
pub fn extract(message: &Message, client: Option<&Client>, key: &FeatureKey) -> Extracted {
    let trail = Trail::read(&message.headers, client);
    let mut to = Collector::new(key);
    to.add_text(Place::Subject, head(&message.subject, MAX_SUBJECT_BYTES), MAX_SUBJECT_WORDS);
    add_mailboxes(&mut to, &message.from, Place::FromName, Place::FromAddress);
    add_mailboxes(&mut to, &message.reply_to, Place::ReplyTo, Place::ReplyTo);
    add_fields(&mut to, &trail);
    add_hops(&mut to, &trail.hops);
    add_recipients(&mut to, message);
    add_links(&mut to, message);
    add_parts(&mut to, message);
    to.add_text(Place::Text, head(&message.text, MAX_TEXT_BYTES), MAX_TEXT_WORDS);
    let (features, words) = to.finish();
    Extracted { features, words }
}

fn add_mailboxes(to: &mut Collector<'_>, mailboxes: &[Mailbox], names: Place, addresses: Place) {
    for mailbox in mailboxes.iter().take(MAX_MAILBOXES) {
        to.add_words(names, &mailbox.name, MAX_VALUE_WORDS);
        match mailbox.address.rsplit_once('@') {
            Some((local, domain)) => {
                to.add(addresses, &format!("{}@", local.to_lowercase()));
                add_host(to, addresses, domain);
            }
            None => to.add(addresses, "(none)"),
        }
    }
    if mailboxes.is_empty() {
        to.add(addresses, "(missing)");
    }
}

/// Adds a host by its name, its organisation and the tail of both.
fn add_host(to: &mut Collector<'_>, place: Place, name: &str) {
    let name = name.trim_end_matches(['.', '>']).to_ascii_lowercase();
    if let Some(ip) = name.trim_matches(['[', ']']).parse().ok().filter(|_| !name.is_empty()) {
        to.add(place, "(an address)");
        add_network(to, place, ip);
        return;
    }
    to.add(place, &name);
    let organisation = psl::domain_str(&name).unwrap_or(&name);
    if organisation != name {
        to.add(place, organisation);
    }
    if let Some((_, top)) = name.rsplit_once('.') {
        to.add(place, &format!(".{top}"));
    }
}

fn add_network(to: &mut Collector<'_>, place: Place, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            if !(ip.is_private() || ip.is_loopback()) {
                to.add(place, &format!("{a}.{b}.{c}.*"));
                to.add(place, &format!("{a}.{b}.*"));
            }
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            if !(ip.is_loopback() || ip.is_unique_local()) {
                to.add(place, &format!("{a:x}:{b:x}:{c:x}:*"));
                to.add(place, &format!("{a:x}:{b:x}:*"));
            }
        }
    }
}

fn add_hops(to: &mut Collector<'_>, hops: &[Hop]) {
    for (index, hop) in hops.iter().enumerate() {
        let places: &[Place] = if index == 0 { &[Place::Client, Place::Hop] } else { &[Place::Hop] };
        for place in places.iter().copied() {
            if let Some(ip) = hop.ip {
                add_network(to, place, ip);
            }
            if hop.helo.starts_with('[') || hop.helo.parse::<IpAddr>().is_ok() {
                to.add(place, "(greets with an address)");
            } else if !hop.helo.contains('.') {
                to.add(place, "(greets without a domain)");
            } else {
                add_host(to, place, &hop.helo);
            }
        }
        if hop.name.parse::<IpAddr>().is_err() && !hop.name.is_empty() {
            add_host(to, Place::Hop, &hop.name);
        }
    }
}

fn add_fields(to: &mut Collector<'_>, trail: &Trail<'_>) {
    for header in &trail.fields {
        let name = head(&header.name, 60);
        to.add(Place::HeaderName, name);
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "x-mailer" | "user-agent" | "x-mimeole" => {
                to.add_words(Place::Mailer, head(&header.value, 400), MAX_VALUE_WORDS)
            }
            "message-id" => {
                let id = header.value.trim().trim_matches(['<', '>']);
                to.add(Place::Structure, &format!("Message-ID {}", shape(id)));
                if let Some((_, domain)) = id.rsplit_once('@') {
                    to.add(
                        Place::HeaderValue,
                        &format!("message-id {}", head(domain, 60).to_ascii_lowercase()),
                    );
                }
            }
            "date" => to.add(Place::Structure, &format!("Date {}", shape(header.value.trim()))),
            "received" | "subject" | "from" | "to" | "cc" | "reply-to" | "dkim-signature" => {}
            _ => {
                for word in head(&header.value, 400)
                    .split(|c: char| {
                        c.is_whitespace() || matches!(c, ';' | ',' | '"' | '<' | '>' | '(' | ')')
                    })
                    .filter(|word| !word.is_empty())
                    .take(MAX_VALUE_WORDS)
                {
                    to.add(Place::HeaderValue, &format!("{lower}: {}", head(&word.to_lowercase(), 40)));
                }
            }
        }
    }
    for pair in trail.fields.windows(2) {
        if let [first, second] = pair {
            to.add(Place::HeaderOrder, &format!("{}, {}", head(&first.name, 38), head(&second.name, 38)));
        }
    }
    for name in ["From", "To", "Subject", "Date", "Message-ID"] {
        if !trail.fields.iter().any(|header| header.name.eq_ignore_ascii_case(name)) {
            to.add(Place::Structure, &format!("no {name}"));
        }
    }
}

/// Writes a value as its kinds of characters: 9 for digits, A and a for letters, runs shortened.
fn shape(value: &str) -> String {
    let mut shape = String::new();
    let mut last = '\0';
    let mut run = 0;
    for c in value.chars().take(60) {
        let kind = match c {
            '0'..='9' => '9',
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            _ if c.is_ascii() => c,
            _ => 'u',
        };
        run = if kind == last { run + 1 } else { 1 };
        last = kind;
        if run <= 2 {
            shape.push(kind);
        }
    }
    shape
}

fn add_recipients(to: &mut Collector<'_>, message: &Message) {
    let count = message.to.len();
    to.add(
        Place::Recipient,
        match count {
            0 => "(none named)",
            1 => "(one)",
            2..=5 => "(two to five)",
            6..=20 => "(six to twenty)",
            _ => "(more than twenty)",
        },
    );
    for mailbox in message.to.iter().take(MAX_MAILBOXES) {
        let named = if mailbox.name.is_empty() { "(without a name)" } else { "(with a name)" };
        to.add(Place::Recipient, named);
    }
}

fn add_links(to: &mut Collector<'_>, message: &Message) {
    for link in message.links.iter().take(MAX_LINKS) {
        let Some((scheme, rest)) = link.target.split_once(':') else { continue };
        let authority = rest.trim_start_matches('/').split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = host.split(':').next().unwrap_or_default();
        if !host.is_empty() && host.len() <= 255 {
            add_host(to, Place::Link, host);
        }
        to.add(Place::Structure, &format!("{:?} {}:", link.source, head(scheme, 20).to_ascii_lowercase()));
    }
}

fn add_parts(to: &mut Collector<'_>, message: &Message) {
    let mut sequence = String::new();
    for part in message.parts.iter().take(MAX_PARTS) {
        to.add(Place::Structure, &part.media_type);
        if let Some(charset) = &part.charset {
            to.add(Place::Structure, charset);
        }
        sequence.push_str(head(&part.media_type, 30));
        sequence.push(' ');
    }
    to.add(Place::Structure, sequence.trim_end());
    for attachment in message.attachments.iter().take(MAX_ATTACHMENTS) {
        to.add(Place::AttachmentType, &attachment.declared_type);
        if let Some(detected) = attachment.detected_type {
            to.add(Place::AttachmentType, detected);
        }
        if let Some(name) = &attachment.name {
            let name = name.to_lowercase();
            to.add_words(Place::AttachmentName, head(&name, 200), MAX_VALUE_WORDS);
            if let Some((_, extension)) = name.rsplit_once('.') {
                to.add(Place::AttachmentName, &format!(".{}", head(extension, 20)));
            }
        }
    }
}

/// Returns at most the first `max` bytes of a text, whole characters only.
fn head(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
