//! Features: what a lesson keeps of a message.
//!
//! Slots only, no text. They are stored by named view, so that a program that does not know a view passes over
//! it.

use thiserror::Error;

/// Bits of a slot. With 2^20 the measured collections are learned no better.
pub(super) const SLOT_BITS: u32 = 18;

/// Most slots that a view may hold.
pub const MAX_SLOTS: usize = 8_192;

/// Most bytes of encoded features.
pub const MAX_ENCODED_BYTES: usize = 128 * 1024;

const VERSION: u8 = 3;
const MAX_VIEWS: usize = 16;

/// A side from which a message is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// How the header is written.
    Header,
    /// How what the message says of itself fits together.
    Relations,
    /// What it says, by runs of bytes.
    Grams,
    /// What it says, by words.
    Tokens,
    /// Whose it is: one slot, which no model looks at.
    Sender,
}

impl View {
    /// All views, in the order of their numbers.
    pub const ALL: [View; 5] = [View::Header, View::Relations, View::Grams, View::Tokens, View::Sender];

    fn name(self) -> &'static [u8] {
        match self {
            View::Header => b"header",
            View::Relations => b"relations",
            View::Grams => b"grams",
            View::Tokens => b"tokens",
            View::Sender => b"sender",
        }
    }
}

/// The slots of one message by view, each sorted and without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Features {
    views: [Vec<u32>; 5],
}

/// Why stored features cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidFeatures {
    /// They were written by a later version.
    #[error("the features have an unknown version")]
    Version,
    /// They end too early, do not ascend, or are larger than a limit.
    #[error("the features are malformed")]
    Malformed,
}

impl Features {
    /// Takes the slots of each view in the order of [`View::ALL`], in any order themselves; those over
    /// [`MAX_SLOTS`] are left out.
    pub fn new(mut views: [Vec<u32>; 5]) -> Self {
        for slots in &mut views {
            slots.retain(|slot| slot >> SLOT_BITS == 0);
            sort(slots);
            slots.dedup();
            slots.truncate(MAX_SLOTS);
        }
        Features { views }
    }

    /// Returns the slots of a view, ascending, each below 2^18.
    pub fn view(&self, view: View) -> &[u32] {
        self.views.get(view as usize).map_or(&[], Vec::as_slice)
    }

    /// Returns the share of words of the shorter of two messages that are in the other too; 0 where one has none.
    pub(super) fn shared_words(&self, other: &Features) -> f64 {
        let (mut shorter, mut longer) = (self.view(View::Tokens), other.view(View::Tokens));
        if shorter.len() > longer.len() {
            (shorter, longer) = (longer, shorter);
        }
        let shared = shorter.iter().filter(|slot| longer.binary_search(slot).is_ok()).count();
        shared as f64 / shorter.len().max(1) as f64
    }

    /// Returns whose message it is: the slot of the author's organisation.
    pub(super) fn sender(&self) -> Option<u32> {
        self.view(View::Sender).first().copied()
    }

    /// Writes the features: a version byte, the number of views, then for each view its name and its slots,
    /// both led by their length in bytes. Slots are differences in LEB128.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8_192);
        bytes.push(VERSION);
        write_varint(&mut bytes, u32::try_from(View::ALL.len()).unwrap_or(u32::MAX));
        let mut slots = Vec::with_capacity(4_096);
        for view in View::ALL {
            slots.clear();
            let mut previous = 0;
            for slot in self.view(view) {
                write_varint(&mut slots, slot.wrapping_sub(previous));
                previous = *slot;
            }
            for field in [view.name(), &slots] {
                write_varint(&mut bytes, u32::try_from(field.len()).unwrap_or(u32::MAX));
                bytes.extend_from_slice(field);
            }
        }
        bytes
    }

    /// Reads what [`Features::encode`] wrote. Views of unknown name are passed over.
    ///
    /// # Errors
    /// [`InvalidFeatures`]; nothing is allocated beyond the limits, whatever the bytes say.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidFeatures> {
        if bytes.len() > MAX_ENCODED_BYTES {
            return Err(InvalidFeatures::Malformed);
        }
        let (version, mut rest) = bytes.split_first().ok_or(InvalidFeatures::Malformed)?;
        if *version != VERSION {
            return Err(InvalidFeatures::Version);
        }
        let count = read_varint(&mut rest)?;
        if count as usize > MAX_VIEWS {
            return Err(InvalidFeatures::Malformed);
        }
        let mut features = Features::default();
        for _ in 0..count {
            let name = read_field(&mut rest)?;
            let slots = read_field(&mut rest)?;
            let view = View::ALL.into_iter().find(|view| view.name() == name);
            if let Some(view) = view.and_then(|view| features.views.get_mut(view as usize)) {
                *view = read_slots(slots)?;
            }
        }
        if rest.is_empty() { Ok(features) } else { Err(InvalidFeatures::Malformed) }
    }
}

/// Sorts slots by their digits, which for thousands of them is several times as fast as comparing them.
fn sort(slots: &mut Vec<u32>) {
    const DIGIT_BITS: u32 = SLOT_BITS / 2;
    const DIGITS: usize = 1 << DIGIT_BITS;
    if slots.len() < DIGITS / 8 {
        slots.sort_unstable();
        return;
    }
    let mut other = vec![0; slots.len()];
    for shift in [0, DIGIT_BITS] {
        let digit = |slot: u32| (slot >> shift) as usize % DIGITS;
        let mut places = [0usize; DIGITS];
        for slot in slots.iter() {
            if let Some(count) = places.get_mut(digit(*slot)) {
                *count += 1;
            }
        }
        let mut next = 0;
        for place in &mut places {
            next += std::mem::replace(place, next);
        }
        for slot in slots.iter() {
            if let Some(place) = places.get_mut(digit(*slot))
                && let Some(cell) = other.get_mut(*place)
            {
                *cell = *slot;
                *place += 1;
            }
        }
        std::mem::swap(slots, &mut other);
    }
}

fn read_slots(mut bytes: &[u8]) -> Result<Vec<u32>, InvalidFeatures> {
    let mut slots: Vec<u32> = Vec::with_capacity(bytes.len().min(MAX_SLOTS));
    while !bytes.is_empty() {
        let difference = read_varint(&mut bytes)?;
        let slot = match slots.last() {
            Some(_) if difference == 0 => return Err(InvalidFeatures::Malformed),
            Some(previous) => previous.checked_add(difference).ok_or(InvalidFeatures::Malformed)?,
            None => difference,
        };
        if slot >> SLOT_BITS != 0 || slots.len() == MAX_SLOTS {
            return Err(InvalidFeatures::Malformed);
        }
        slots.push(slot);
    }
    Ok(slots)
}

fn read_field<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], InvalidFeatures> {
    let length = read_varint(bytes)? as usize;
    let (field, rest) = bytes.split_at_checked(length).ok_or(InvalidFeatures::Malformed)?;
    *bytes = rest;
    Ok(field)
}

/// Writes a number in LEB128.
pub(super) fn write_varint(bytes: &mut Vec<u8>, mut value: u32) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Reads a number in LEB128 of at most 32 bits.
pub(super) fn read_varint(bytes: &mut &[u8]) -> Result<u32, InvalidFeatures> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(InvalidFeatures::Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| InvalidFeatures::Malformed);
        }
    }
    Err(InvalidFeatures::Malformed)
}

#[cfg(test)]
impl Features {
    /// Makes features of one view.
    pub(super) fn of(view: View, slots: &[u32]) -> Self {
        Features::new(View::ALL.map(|other| if other == view { slots.to_vec() } else { Vec::new() }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], expected: Result<&[u32], InvalidFeatures>) {
        let expected = expected.map(|tokens| Features::of(View::Tokens, tokens));
        assert_eq!(Features::decode(bytes), expected, "{bytes:?}");
    }

    #[test]
    fn stored_features_are_read_by_view() {
        check(b"\x03\x00", Ok(&[]));
        check(b"\x03\x01\x06tokens\x03\x05\x01\x7f", Ok(&[5, 6, 133]));
        check(b"\x03\x02\x06colour\x02\x00\x00\x06tokens\x01\x00", Ok(&[0]));
    }

    #[test]
    fn malformed_features_are_refused() {
        check(b"", Err(InvalidFeatures::Malformed));
        check(b"\x02\x00", Err(InvalidFeatures::Version));
        check(b"\x03\x11", Err(InvalidFeatures::Malformed));
        check(b"\x03\x01\x06tokens\x02\x05\x00", Err(InvalidFeatures::Malformed));
        check(b"\x03\x01\x06tokens\x05\xff\xff\xff\xff\x0f", Err(InvalidFeatures::Malformed));
        check(b"\x03\x01\x06tokens\x05\xff\xff\xff\xff\xff", Err(InvalidFeatures::Malformed));
        check(b"\x03\x01\x06tokens\xff\xff\xff\xff\x0f\x01", Err(InvalidFeatures::Malformed));
        check(b"\x03\x01\x06tokens\x01\x05\x00", Err(InvalidFeatures::Malformed));
        check(&vec![2; MAX_ENCODED_BYTES + 1], Err(InvalidFeatures::Malformed));
    }

    #[test]
    fn the_fullest_message_stays_inside_the_limit() {
        let step = (1 << SLOT_BITS) / u32::try_from(MAX_SLOTS).unwrap();
        let slots: Vec<u32> = (0..).step_by(step as usize).take(2 * MAX_SLOTS).collect();
        let features = Features::new([const { Vec::new() }; 5].map(|_: Vec<u32>| slots.clone()));
        assert_eq!(features.view(View::Grams).len(), MAX_SLOTS);
        assert!(features.encode().len() <= MAX_ENCODED_BYTES);
    }

    fn is_ordered(features: &Features) -> bool {
        View::ALL.into_iter().all(|view| features.view(view).is_sorted_by(|a, b| a < b))
    }

    proptest! {
        #[test]
        fn features_survive_a_round_trip(
            views in prop::array::uniform5(prop::collection::vec(0u32..1 << SLOT_BITS, 0..300))
        ) {
            let features = Features::new(views);
            prop_assert_eq!(Features::decode(&features.encode()), Ok(features));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(features) = Features::decode(&bytes) {
                prop_assert!(is_ordered(&features));
            }
        }

        #[test]
        fn damage_never_panics(slots in prop::collection::vec(0u32..1 << SLOT_BITS, 1..50), at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = Features::of(View::Header, &slots).encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(features) = Features::decode(&bytes) {
                prop_assert!(is_ordered(&features));
            }
        }
    }
}
