//! Campaigns: near-identical texts that come many times within hours.
//!
//! A text is known by a sketch of its shingles, which are runs of four words without their digits: the least keyed hash in
//! each of eight parts of all hashes (Broder, "On the resemblance and containment of documents", 1997; one permutation: Li,
//! Owen and Zhang, 2012). Texts that share most words share most of these, whatever name or number is put in.

use super::filter::Counting;
use crate::learn::FeatureKey;
use crate::verdict::{Finding, Symbol};

/// Words of a shingle; words that a text must have; bytes of a text that are looked at.
const SHINGLE: usize = 4;
const LEAST_WORDS: usize = 20;
const MOST_BYTES: usize = 4_000;
/// Parts of a sketch, and how many must have been seen so often.
const PARTS: usize = 8;
const PART_BITS: u32 = 3;
const ALIKE: usize = 5;

/// How long texts are counted: four times two hours.
const PERIOD_SECONDS: i64 = 2 * 3_600;
const GENERATIONS: usize = 4;
/// 2^22 counts of a byte in each: enough for 50 messages a second.
const BITS: u32 = 22;

/// From how many recipients on a text is told, and when it is told with more weight.
const SEVERAL: u32 = 10;
const MANY: u32 = 50;

/// What is known of a text.
pub(super) type Sketch = [u64; PARTS];

pub(super) fn counting() -> Counting {
    Counting::new(BITS, PERIOD_SECONDS, GENERATIONS)
}

/// Returns the sketch of a text; `None` where there is too little of it.
pub(super) fn sketch(text: &str, key: &FeatureKey) -> Option<Sketch> {
    let text = crate::message::text_prefix(text, MOST_BYTES);
    let mut hashes = Vec::new();
    let mut word = String::new();
    for each in text.split(|c: char| !c.is_alphanumeric()) {
        word.clear();
        word.extend(each.chars().filter(|c| !c.is_numeric()).flat_map(char::to_lowercase));
        if !word.is_empty() {
            hashes.push(key.word(0xb0, word.as_bytes()));
        }
    }
    if hashes.len() < LEAST_WORDS {
        return None;
    }
    let mut sketch = [u64::MAX; PARTS];
    for words in hashes.windows(SHINGLE) {
        let hash = words.iter().fold(0, |hash, word| key.pair(hash, *word));
        let part = usize::try_from(hash >> (u64::BITS - PART_BITS)).unwrap_or_default();
        if let Some(least) = sketch.get_mut(part) {
            *least = (*least).min(hash);
        }
    }
    Some(sketch)
}

/// Counts a text for so many recipients, and returns for how many one like it was counted before.
pub(super) fn count(counting: &mut Counting, sketch: &Sketch, recipients: usize, now: i64) -> u32 {
    let times = u8::try_from(recipients.max(1)).unwrap_or(u8::MAX);
    let mut before = sketch.map(|hash| if hash == u64::MAX { 0 } else { counting.add(hash, times, now) });
    before.sort_unstable_by(|a, b| b.cmp(a));
    before.get(ALIKE - 1).copied().unwrap_or_default()
}

/// Returns what it says to have come so often before.
pub(super) fn finding(before: u32) -> Option<Finding> {
    let (symbol, points) = match before {
        MANY.. => ("BULK_MANY", 1.0),
        SEVERAL.. => ("BULK_SEVERAL", 0.5),
        _ => return None,
    };
    let text = format!("Much the same text came for {before} recipients or more within the last hours.");
    Some(Finding::new(Symbol::fixed(symbol), points, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::InstallationKey;

    fn key() -> FeatureKey {
        FeatureKey::new(&InstallationKey::new([1; 32]))
    }

    /// A text of a campaign, to somebody, with a number.
    fn campaign(name: &str, number: u32) -> String {
        format!(
            "Dear {name}, your parcel {number} could not be delivered because the address was incomplete. Please \
             confirm the address and pay the small fee of 1.99 within two days, or we must send the parcel back to \
             the sender. Open the page below and follow the steps that it shows. Reference {number}{number}."
        )
    }

    #[test]
    fn a_text_with_other_names_and_numbers_is_the_same_text() {
        let mut counting = counting();
        let mut told = Vec::new();
        for number in 0..60 {
            let name = ["Ann", "Bob Miller", "customer", "Dr Carla Meyer-Roth"][number as usize % 4];
            let sketch = sketch(&campaign(name, number * 7_919), &key()).unwrap();
            let before = count(&mut counting, &sketch, 1, i64::from(number));
            told.push(finding(before).map(|finding| finding.symbol.to_string()));
        }
        let first = |symbol: &str| told.iter().position(|told| told.as_deref() == Some(symbol)).unwrap();
        assert!((10..=14).contains(&first("BULK_SEVERAL")), "{told:?}");
        assert!((50..=58).contains(&first("BULK_MANY")), "{told:?}");
        // Recipients count, and hours later all is forgotten.
        let of = |number| sketch(&campaign("Eve", number), &key()).unwrap();
        assert!(count(&mut counting, &of(1), 200, 60) >= 50);
        assert!(count(&mut counting, &of(2), 1, 61) >= 200);
        assert_eq!(count(&mut counting, &of(3), 1, 9 * 3_600), 0);
    }

    #[test]
    fn other_texts_and_short_ones_are_not_bulk() {
        let mut counting = counting();
        assert_eq!(sketch("Too short to be known again by what it says.", &key()), None);
        for number in 0..2_000u32 {
            let words: Vec<String> = (0..60).map(|place| format!("w{}", word(number * 60 + place))).collect();
            let sketch = sketch(&words.join(" "), &key()).unwrap();
            assert_eq!(finding(count(&mut counting, &sketch, 1, 0)), None);
        }
    }

    /// A number in letters.
    fn word(number: u32) -> String {
        number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
    }
}
