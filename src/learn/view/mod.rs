//! Three views of a message, each a set of hashed features for a linear model of its own: how its header is
//! written ([`header`]), how what it says of itself fits together ([`relations`]), and what it says ([`body`]).

mod body;
mod header;
mod relations;

use std::fmt::{Display, Write};

use super::features::{Features, MAX_SLOTS, SLOT_BITS};
use super::hash::FeatureKey;
use super::trail::Trail;
use super::words::{Kind, Words};
use crate::message::Message;

/// Room for the slots of a view, enough for most.
const SLOTS: usize = 4_096;
/// Longest token in bytes; of a longer one only the length counts.
const TOKEN_BYTES: usize = 40;
/// Longest feature in bytes.
const FEATURE_BYTES: usize = 200;

/// Looks at a message from all sides.
pub(super) fn extract(message: &Message, trail: &Trail<'_>, key: &FeatureKey) -> (Features, Words) {
    let mut to = Collector::new(key);
    header::extract(message, trail, &mut to);
    let header = to.take();
    relations::extract(message, trail, &mut to);
    let relations = to.take();
    let text = body::text(message);
    body::grams(&text, &mut to);
    let grams = to.take();
    body::tokens(message, &text, &mut to);
    let tokens = to.take();
    let author = message.from.first().and_then(|author| author.address.rsplit_once('@'));
    if let Some((_, domain)) = author {
        to.add(Kind::Sender, organisation(&domain.to_ascii_lowercase()));
    }
    (Features::new([header, relations, grams, tokens, to.take()]), to.words)
}

/// Gathers the features of one view after the other.
struct Collector<'k> {
    key: &'k FeatureKey,
    slots: Vec<u32>,
    words: Words,
}

impl<'k> Collector<'k> {
    fn new(key: &'k FeatureKey) -> Self {
        Collector { key, slots: Vec::with_capacity(SLOTS), words: Words::new() }
    }

    /// Adds a feature by what it says, and returns its hash.
    fn add(&mut self, kind: Kind, feature: impl Display) -> u64 {
        let start = self.words.text.len();
        if write!(self.words.text, "{feature}").is_err() {
            // A string takes everything; only what is written could fail.
            self.words.text.truncate(start);
        }
        let end = self.words.text.floor_char_boundary(start + FEATURE_BYTES);
        self.words.text.truncate(end);
        self.enter(kind, start)
    }

    /// Adds the feature that two others make together.
    fn add_pair(&mut self, first: u64, second: u64) {
        self.push(self.key.pair(first, second));
    }

    /// Adds every run of so many bytes.
    fn add_grams<const SIZE: usize>(&mut self, kind: Kind, text: &[u8]) {
        let key = self.key;
        let room = MAX_SLOTS.saturating_sub(self.slots.len());
        self.slots
            .extend(text.array_windows::<SIZE>().take(room).map(|gram| slot(key.gram(kind as u8, gram))));
    }

    /// Adds the tokens of a text: runs of letters, digits and ``$-'.@!_%`` in lower case, and as spelled where a
    /// capital is in it. Scripts without spaces fall into pairs of characters. Zero-width characters are passed
    /// over, so that they hide nothing.
    fn add_tokens(&mut self, kind: Kind, text: &str, most: usize) {
        let mut rest = text;
        for _ in 0..most {
            // Bytes beyond ASCII are inside, or white space that is left out below.
            let Some(start) = rest.bytes().position(|byte| is_inside(byte) && !EDGES.contains(&byte)) else {
                return;
            };
            let run = rest.get(start..).unwrap_or_default();
            let end = run.bytes().position(|byte| !is_inside(byte)).unwrap_or(run.len());
            let (token, after) = run.split_at_checked(end).unwrap_or((run, ""));
            rest = after;
            let token =
                token.trim_end_matches(|c: char| u8::try_from(c).is_ok_and(|byte| EDGES.contains(&byte)));
            if token.is_ascii() {
                self.add_token(kind, token);
            } else {
                let is_gap = |c: char| !c.is_ascii() && (c.is_whitespace() || c.is_control());
                let tokens = token.split(is_gap).filter(|token| !token.is_empty());
                tokens.for_each(|token| self.add_foreign_token(kind, token));
            }
        }
    }

    fn add_token(&mut self, kind: Kind, token: &str) {
        let start = self.words.text.len();
        if token.len() > TOKEN_BYTES {
            self.add(kind, format_args!("({} characters)", token.len()));
            return;
        }
        let has_capital = if token.is_ascii() {
            token.bytes().any(|byte| byte.is_ascii_uppercase())
        } else {
            token.chars().any(char::is_uppercase)
        };
        if has_capital {
            self.words.text.push_str(token);
            self.enter(kind, start);
        }
        let start = self.words.text.len();
        if token.is_ascii() {
            self.words.text.extend(token.bytes().map(|byte| char::from(byte.to_ascii_lowercase())));
        } else {
            self.words.text.extend(token.chars().flat_map(char::to_lowercase));
        }
        self.enter(kind, start);
    }

    fn add_foreign_token(&mut self, kind: Kind, token: &str) {
        let token: String = token.chars().filter(|c| !is_invisible(*c)).collect();
        if !token.chars().any(is_unspaced) {
            self.add_token(kind, &token);
            return;
        }
        let mut previous = None;
        for c in token.chars().take(FEATURE_BYTES) {
            if let Some(before) = previous.replace(c) {
                let start = self.words.text.len();
                self.words.text.extend([before, c]);
                self.enter(kind, start);
            }
        }
    }

    /// Makes a feature of the text from `start` on.
    fn enter(&mut self, kind: Kind, start: usize) -> u64 {
        let text = self.words.text.as_bytes().get(start..).unwrap_or_default();
        let hash = self.key.word(kind.place(), text);
        self.words.note(slot(hash), kind, start);
        self.push(hash);
        hash
    }

    fn push(&mut self, hash: u64) {
        if self.slots.len() < MAX_SLOTS {
            self.slots.push(slot(hash));
        }
    }

    /// Takes the slots gathered since the last call.
    fn take(&mut self) -> Vec<u32> {
        std::mem::replace(&mut self.slots, Vec::with_capacity(SLOTS))
    }
}

/// What is cut off at the ends of a token.
const EDGES: &[u8] = b".-'_";

/// Whether a byte belongs to a token.
fn is_inside(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"$-'.@!_%".contains(&byte)
}

/// The high bits of a hash are the best mixed.
fn slot(hash: u64) -> u32 {
    u32::try_from(hash >> (u64::BITS - SLOT_BITS)).unwrap_or_default()
}

/// Characters that take no room, with which words are broken up for filters only.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Characters of scripts that put no spaces between words.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c), 0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x4dbf
        | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

/// Writes a value as its kinds of characters: 9 for digits, A and a for letters, u for others beyond ASCII.
fn shape(value: &str, most: usize) -> String {
    let kind = |c: char| match c {
        '0'..='9' => '9',
        'A'..='Z' => 'A',
        'a'..='z' => 'a',
        c if c.is_ascii() => c,
        _ => 'u',
    };
    value.chars().take(most).map(kind).collect()
}

/// Returns at most the first bytes of a text, whole characters only.
fn prefix(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// Returns the organisation's part of a domain.
fn organisation(name: &str) -> &str {
    psl::domain_str(name).unwrap_or(name)
}
