//! Words: how a text falls into tokens, and what of them stays readable for explanations.
//!
//! A token is a run of letters, digits and ``$-'.@!_%``, in lower case. Scripts that are written without
//! spaces fall into pairs of characters. Zero-width characters are passed over, so that they hide nothing.
//! Neighbours up to four words apart are features too (orthogonal sparse bigrams: Siefkes and others,
//! "Combining Winnow and Orthogonal Sparse Bigrams", 2004).

use super::features::{Features, MAX_SLOTS, SLOT_BITS};
use super::hash::FeatureKey;

/// Longest token in bytes; of a longer one only the length counts.
const MAX_TOKEN_BYTES: usize = 40;
/// Greatest distance of two words that make a pair: a window of five words.
const MAX_DISTANCE: usize = 4;
/// Most tokens of a message, over all places.
const MAX_TOKENS: usize = 4_000;

/// Where a word stands. The numbers enter the hash: they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Place {
    Text = 1,
    Subject = 2,
    FromName = 4,
    FromAddress = 5,
    ReplyTo = 6,
    Link = 7,
    AttachmentName = 8,
    AttachmentType = 9,
    HeaderName = 10,
    Mailer = 11,
    Structure = 12,
    Hop = 13,
    Client = 14,
    Recipient = 15,
    HeaderValue = 16,
    HeaderOrder = 17,
}

#[derive(Clone, Copy)]
struct Token {
    place: Place,
    start: u32,
    end: u32,
}

/// The readable side of a message's features, for explanations. It is never stored.
#[derive(Clone, Default)]
pub(super) struct Words {
    text: String,
    tokens: Vec<Token>,
    /// First token, second token and their distance (0: a single word) for each slot.
    origins: Vec<(u16, u16, u8)>,
}

impl Words {
    /// Returns what stands behind the `index`-th slot, in words that a person understands.
    pub(super) fn describe(&self, index: usize) -> Option<String> {
        let (first, second, distance) = *self.origins.get(index)?;
        let (place, first) = self.token(first)?;
        let phrase = match distance {
            0 => first.to_owned(),
            1 => format!("{first} {}", self.token(second)?.1),
            _ => format!("{first} … {}", self.token(second)?.1),
        };
        Some(match place {
            Place::Text => format!("\"{phrase}\""),
            Place::Subject => format!("\"{phrase}\" in the subject"),
            Place::FromName => format!("\"{phrase}\" in the sender's name"),
            Place::FromAddress => format!("the sender's address {phrase}"),
            Place::ReplyTo => format!("replies to {phrase}"),
            Place::Link => format!("links to {phrase}"),
            Place::AttachmentName => format!("an attachment named {phrase}"),
            Place::AttachmentType => format!("an attachment of type {phrase}"),
            Place::HeaderName | Place::HeaderValue => format!("the header field {phrase}"),
            Place::HeaderOrder => format!("the header fields {phrase}"),
            Place::Mailer => format!("the mail program {phrase}"),
            Place::Structure => format!("the structure {phrase}"),
            Place::Hop => format!("the way over {phrase}"),
            Place::Client => format!("handed over by {phrase}"),
            Place::Recipient => format!("the recipients {phrase}"),
        })
    }

    /// Whether a pair of words stands behind the `index`-th slot.
    pub(super) fn is_pair(&self, index: usize) -> bool {
        self.origins.get(index).is_some_and(|(_, _, distance)| *distance > 0)
    }

    /// Whether the reader of the message sees what stands behind the `index`-th slot.
    pub(super) fn is_visible(&self, index: usize) -> bool {
        let origin = self.origins.get(index);
        origin.and_then(|(first, ..)| self.tokens.get(usize::from(*first))).is_some_and(|token| {
            use Place::{AttachmentName, FromAddress, FromName, Link, Subject, Text};
            matches!(token.place, Text | Subject | FromName | FromAddress | Link | AttachmentName)
        })
    }

    fn token(&self, index: u16) -> Option<(Place, &str)> {
        let token = self.tokens.get(usize::from(index))?;
        Some((token.place, self.text.get(token.start as usize..token.end as usize)?))
    }
}

/// Gathers the features of one message.
pub(super) struct Collector<'k> {
    key: &'k FeatureKey,
    words: Words,
    /// Slot, first token, second token, distance, from the high bits to the low: sorting them sorts slots.
    entries: Vec<u64>,
}

impl<'k> Collector<'k> {
    pub(super) fn new(key: &'k FeatureKey) -> Self {
        let words = Words {
            text: String::with_capacity(8_192),
            tokens: Vec::with_capacity(1_024),
            origins: Vec::new(),
        };
        Collector { key, words, entries: Vec::with_capacity(4_096) }
    }

    /// Adds one word as it is, cut at [`MAX_TOKEN_BYTES`] twice over.
    pub(super) fn add(&mut self, place: Place, word: &str) {
        let word = word.get(..word.floor_char_boundary(2 * MAX_TOKEN_BYTES)).unwrap_or(word);
        let start = self.words.text.len();
        self.words.text.push_str(word);
        self.push(place, start);
    }

    /// Adds the words of a text, without pairs.
    pub(super) fn add_words(&mut self, place: Place, text: &str, max: usize) {
        for word in words(text).take(max) {
            self.push_word(place, word);
        }
    }

    /// Adds the words of a text and their pairs.
    pub(super) fn add_text(&mut self, place: Place, text: &str, max: usize) {
        let mut window: [Option<(u64, u16)>; MAX_DISTANCE] = [None; MAX_DISTANCE];
        let mut room = max;
        for word in words(text) {
            if is_unspaced(word) {
                room = self.add_characters(place, word, room);
                window = [None; MAX_DISTANCE];
            } else {
                let Some((hash, index)) = self.push_word(place, word) else { return };
                for (earlier, distance) in window.iter().zip(1u8..) {
                    if let Some((other, first)) = earlier {
                        let pair = self.key.pair(*other, hash, distance);
                        self.enter(pair, *first, index, distance);
                    }
                }
                window.rotate_right(1);
                window[0] = Some((hash, index));
                room = room.saturating_sub(1);
            }
            if room == 0 {
                return;
            }
        }
    }

    /// Sorts what was gathered.
    pub(super) fn finish(mut self) -> (Features, Words) {
        self.entries.sort_unstable();
        self.entries.dedup_by_key(|entry| *entry >> 40);
        self.entries.truncate(MAX_SLOTS);
        let mut slots = Vec::with_capacity(self.entries.len());
        let mut origins = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let [distance, b0, b1, a0, a1, s0, s1, s2] = entry.to_le_bytes();
            slots.push(u32::from_le_bytes([s0, s1, s2, 0]));
            origins.push((u16::from_le_bytes([a0, a1]), u16::from_le_bytes([b0, b1]), distance));
        }
        self.words.origins = origins;
        (Features::new(slots), self.words)
    }

    fn add_characters(&mut self, place: Place, word: &str, mut room: usize) -> usize {
        let mut previous = None;
        for c in word.chars() {
            if let Some(before) = previous.replace(c) {
                let start = self.words.text.len();
                self.words.text.extend([before, c]);
                self.push(place, start);
                room = room.saturating_sub(1);
                if room == 0 {
                    break;
                }
            }
        }
        room
    }

    /// Adds a word in lower case.
    fn push_word(&mut self, place: Place, word: &str) -> Option<(u64, u16)> {
        let text = &mut self.words.text;
        let start = text.len();
        if word.len() > MAX_TOKEN_BYTES {
            // Lengths in steps of 20 bytes: exact ones would not be seen again.
            text.push_str(&format!("({}+ characters)", word.len().min(400) / 20 * 20));
        } else if word.is_ascii() {
            text.extend(word.bytes().map(|byte| char::from(byte.to_ascii_lowercase())));
        } else {
            text.extend(word.chars().filter(|c| !is_invisible(*c)).flat_map(char::to_lowercase));
        }
        self.push(place, start)
    }

    /// Makes a token of the text from `start` on.
    fn push(&mut self, place: Place, start: usize) -> Option<(u64, u16)> {
        let index = u16::try_from(self.words.tokens.len()).ok()?;
        if usize::from(index) >= MAX_TOKENS {
            return None;
        }
        let hash = self.key.word(place as u8, self.words.text.as_bytes().get(start..)?);
        let (start, end) = (u32::try_from(start).ok()?, u32::try_from(self.words.text.len()).ok()?);
        self.words.tokens.push(Token { place, start, end });
        self.enter(hash, index, index, 0);
        Some((hash, index))
    }

    fn enter(&mut self, hash: u64, first: u16, second: u16, distance: u8) {
        let slot = hash >> (64 - SLOT_BITS);
        self.entries.push(slot << 40 | u64::from(first) << 24 | u64::from(second) << 8 | u64::from(distance));
    }
}

/// Returns the tokens of a text, as spelled.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c))
        .map(|run| run.trim_matches(['.', '-', '\'', '_']))
        .filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    match c {
        '\0'..='\x7f' => {
            c.is_ascii_alphanumeric() || matches!(c, '$' | '-' | '\'' | '.' | '@' | '!' | '_' | '%')
        }
        _ if is_invisible(c) => true,
        // Spaces, quotation marks and dashes of Latin-1, general and ideographic punctuation.
        '\u{80}'..='\u{a2}' | '\u{a6}'..='\u{a8}' | '\u{ab}' | '\u{b7}' | '\u{bb}' => false,
        '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff0f}' | '\u{fffd}' => false,
        _ => !c.is_whitespace(),
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Whether a word is of a script without spaces between words: Thai, kana, ideographs.
fn is_unspaced(word: &str) -> bool {
    !word.is_ascii()
        && word.chars().any(|c| matches!(c, '\u{e00}'..='\u{e7f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let key = FeatureKey::from_bytes([3; 32]);
        let mut collector = Collector::new(&key);
        collector.add_text(Place::Text, text, 100);
        let (features, words) = collector.finish();
        let mut found: Vec<String> = (0..features.words().len())
            .map(|index| words.describe(index).unwrap().replace('"', ""))
            .collect();
        found.sort();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn texts_fall_into_words_and_pairs() {
        check("", &[]);
        check("'pay-now!' -- $5.00.", &["$5.00", "pay-now!", "pay-now! $5.00"]);
        check("a b c", &["a", "a b", "a … c", "b", "b c", "c"]);
        check("a b a b", &["a", "a b", "a … a", "a … b", "b", "b a", "b … b"]);
        check("Über", &["über"]);
        check("fr\u{200b}ee\u{a0}«x»", &["free", "free x", "x"]);
        check("無料です", &["です", "料で", "無料"]);
        check(&"x".repeat(77), &["(60+ characters)"]);
    }

    #[test]
    fn a_pair_reaches_over_a_window_of_five_words() {
        let key = FeatureKey::from_bytes([3; 32]);
        let mut collector = Collector::new(&key);
        collector.add_text(Place::Text, "a b c d e f", 100);
        assert_eq!(collector.finish().0.words().len(), 6 + 4 + 4 + 3 + 2 + 1);
    }

    #[test]
    fn the_number_of_words_is_bounded() {
        let key = FeatureKey::from_bytes([3; 32]);
        let text: String = (0..20_000).map(|n| format!("w{n} ")).collect();
        let mut collector = Collector::new(&key);
        collector.add_text(Place::Text, &text, usize::MAX);
        let (features, words) = collector.finish();
        assert_eq!(words.tokens.len(), MAX_TOKENS);
        assert_eq!(features.words().len(), MAX_SLOTS);
    }

    #[test]
    fn the_place_of_a_word_is_part_of_it() {
        let key = FeatureKey::from_bytes([3; 32]);
        let of = |place| {
            let mut collector = Collector::new(&key);
            collector.add(place, "free");
            collector.finish().0
        };
        assert_ne!(of(Place::Text), of(Place::Subject));
    }
}
