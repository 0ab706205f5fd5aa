//! Keyed hashing of words into slots.
//!
//! Slots are stored with the lessons, so they must tell nothing to somebody without the key: single words
//! are hashed with SipHash-2-4 (Aumasson and Bernstein, 2012). Pairs and short runs of bytes, of which there are
//! thousands, are mixed with the key by multiplication; what is kept of them is 20 bits.

use crate::privacy::{InstallationKey, Purpose};

/// The key under which an installation hashes the words of its mail.
#[derive(Clone)]
pub struct FeatureKey {
    bytes: [u8; 32],
    words: (u64, u64),
    pairs: (u64, u64),
}

impl FeatureKey {
    /// Derives the key of an installation.
    pub fn new(root: &InstallationKey) -> Self {
        FeatureKey::from_bytes(root.derive(Purpose::Features))
    }

    /// Takes the 32 bytes of a key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0u64; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = little_endian(chunk);
        }
        let [a, b, c, d] = words;
        // The pair multiplier must be odd to lose nothing.
        FeatureKey { bytes, words: (a, b), pairs: (c, d | 1) }
    }

    /// Returns the bytes, for the keyed hash of whole messages.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Returns the hash of one word in one place.
    pub fn word(&self, place: u8, word: &[u8]) -> u64 {
        siphash(self.words.0 ^ u64::from(place), self.words.1, word)
    }

    /// Returns the hash of what two features make together.
    pub fn pair(&self, first: u64, second: u64) -> u64 {
        let mixed = first.rotate_left(17) ^ self.pairs.0;
        finalise(mixed.wrapping_mul(self.pairs.1).wrapping_add(second))
    }

    /// Returns the hash of up to eight bytes in one place.
    pub(super) fn gram(&self, place: u8, gram: &[u8]) -> u64 {
        let packed = gram.iter().fold(u64::from(place), |packed, byte| packed << 8 | u64::from(*byte));
        finalise((packed ^ self.pairs.0).wrapping_mul(self.pairs.1))
    }
}

impl std::fmt::Debug for FeatureKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FeatureKey([redacted])")
    }
}

/// Spreads a 64-bit value over all its bits (the finaliser of MurmurHash3).
pub(super) fn finalise(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn siphash(k0: u64, k1: u64, input: &[u8]) -> u64 {
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut chunks = input.chunks_exact(8);
    for chunk in &mut chunks {
        absorb(&mut state, little_endian(chunk));
    }
    // The last block holds the length modulo 256 in its top byte.
    absorb(&mut state, (input.len() as u64) << 56 | little_endian(chunks.remainder()));
    state[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut state);
    }
    state.iter().fold(0, |hash, word| hash ^ word)
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32);
    c = c.wrapping_add(b);
    a = a.wrapping_add(d);
    b = b.rotate_left(17) ^ c;
    d = d.rotate_left(21) ^ a;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(length: u8, expected: u64) {
        let key: Vec<u8> = (0..16).collect();
        let input: Vec<u8> = (0..length).collect();
        assert_eq!(siphash(little_endian(&key[..8]), little_endian(&key[8..]), &input), expected, "{length}");
    }

    #[test]
    fn the_vectors_of_the_siphash_paper_come_out() {
        check(0, 0x726f_db47_dd0e_0e31);
        check(1, 0x74f8_39c5_93dc_67fd);
        check(15, 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn hashes_depend_on_key_place_and_order() {
        let key = FeatureKey::new(&InstallationKey::new([1; 32]));
        let other = FeatureKey::new(&InstallationKey::new([2; 32]));
        let (a, b) = (key.word(1, b"invoice"), key.word(1, b"overdue"));
        assert_ne!(a, other.word(1, b"invoice"));
        assert_ne!(a, key.word(2, b"invoice"));
        assert_ne!(key.pair(a, b), key.pair(b, a));
        assert_ne!(key.pair(a, b), other.pair(a, b));
        assert_ne!(key.gram(1, b"invo"), key.gram(2, b"invo"));
        assert_ne!(key.gram(1, b"invo"), other.gram(1, b"invo"));
        assert!(!format!("{key:?}").contains('1'));
    }
}
