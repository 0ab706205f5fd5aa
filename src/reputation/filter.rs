//! Filters that remember much in little: whether something was there (Bloom, "Space/Time Trade-offs in Hash Coding with
//! Allowable Errors", 1970), and about how often (Fan and others, "Summary Cache", 1998).
//!
//! Both are keyed, so that nobody without the key can tell what is in them or aim at a false positive; and both
//! rotate: they are several generations, of which the oldest is dropped when a period ends, or when the newest is full.
//! Nothing can be read out of them, and nothing that was put in is missed before it is too old.

use std::collections::VecDeque;

use bloomfilter::Bloom;

/// How much a filter holds, how sure it is, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Items in each generation.
    pub items: usize,
    /// How often something is found that was never put in, between 0 and 1, with all generations full.
    pub false_positives: f64,
    /// Seconds that a generation takes in.
    pub period: i64,
    /// Generations that are kept.
    pub generations: usize,
}

impl Shape {
    /// The rate of each generation, from which the whole comes to its own.
    fn rate(&self) -> f64 {
        (self.false_positives / self.generations.max(1) as f64).clamp(1e-9, 0.5)
    }
}

/// Whether something was there.
pub struct Rotating {
    shape: Shape,
    seed: [u8; 32],
    /// The oldest first.
    generations: VecDeque<Generation>,
}

struct Generation {
    /// The number of its period.
    period: i64,
    filter: Bloom<[u8]>,
    items: usize,
}

impl Rotating {
    /// Makes a filter that holds nothing, under a key.
    pub fn new(shape: Shape, key: [u8; 32]) -> Self {
        Rotating { shape, seed: key, generations: VecDeque::new() }
    }

    /// Puts an item in, at a second of any clock.
    pub fn insert(&mut self, item: &[u8], now: i64) {
        let period = now.div_euclid(self.shape.period.max(1));
        let is_current = self
            .generations
            .back()
            .is_some_and(|newest| newest.period >= period && newest.items < self.shape.items);
        if !is_current && let Some(filter) = self.empty() {
            self.generations.push_back(Generation { period, filter, items: 0 });
            while self.generations.len() > self.shape.generations.max(1) {
                self.generations.pop_front();
            }
        }
        if let Some(newest) = self.generations.back_mut() {
            newest.items += usize::from(!newest.filter.check_and_set(item));
        }
    }

    /// Whether an item was put in lately.
    pub fn contains(&self, item: &[u8], now: i64) -> bool {
        let oldest = now.div_euclid(self.shape.period.max(1)) - self.kept_periods();
        self.generations.iter().rev().any(|each| each.period > oldest && each.filter.check(item))
    }

    /// Returns how often something is found now that was never put in.
    pub fn false_positive_rate(&self) -> f64 {
        let missed = self.generations.iter().map(|each| {
            let hashes = f64::from(each.filter.number_of_hash_functions());
            let set = 1.0 - (-hashes * each.items as f64 / each.filter.len() as f64).exp();
            1.0 - set.powf(hashes)
        });
        1.0 - missed.product::<f64>()
    }

    /// Returns the items in it; what is in two generations counts twice.
    pub fn len(&self) -> usize {
        self.generations.iter().map(|each| each.items).sum()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes it: for each generation its period, its items, its length in bytes, all of 8 bytes, and its bits.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for each in &self.generations {
            let bits = each.filter.as_slice();
            bytes.extend_from_slice(&each.period.to_le_bytes());
            bytes.extend_from_slice(&(each.items as u64).to_le_bytes());
            bytes.extend_from_slice(&(bits.len() as u64).to_le_bytes());
            bytes.extend_from_slice(bits);
        }
        bytes
    }

    /// Reads what [`Rotating::encode`] wrote under the same key and with the same shape; `None` for anything else.
    pub fn decode(shape: Shape, key: [u8; 32], mut bytes: &[u8]) -> Option<Self> {
        let mut rotating = Rotating::new(shape, key);
        let expected = rotating.empty()?;
        while !bytes.is_empty() {
            let [period, items, length] = [read(&mut bytes)?, read(&mut bytes)?, read(&mut bytes)?];
            let (bits, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            bytes = rest;
            // Another length or another key makes another head.
            if bits.len() != expected.as_slice().len() {
                return None;
            }
            let filter = Bloom::from_slice(bits).ok()?;
            let is_ours = filter.len() == expected.len()
                && filter.number_of_hash_functions() == expected.number_of_hash_functions()
                && filter.seed() == expected.seed();
            if !is_ours || rotating.generations.len() == shape.generations.max(1) {
                return None;
            }
            let (period, items) = (period.cast_signed(), usize::try_from(items).ok()?);
            rotating.generations.push_back(Generation { period, filter, items });
        }
        Some(rotating)
    }

    fn empty(&self) -> Option<Bloom<[u8]>> {
        Bloom::new_for_fp_rate_with_seed(self.shape.items.max(1), self.shape.rate(), &self.seed).ok()
    }

    fn kept_periods(&self) -> i64 {
        i64::try_from(self.shape.generations).unwrap_or(i64::MAX)
    }
}

fn read(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

/// About how often something was there. What it says is never too little while nothing is too old.
pub struct Counting {
    cells: usize,
    period: i64,
    generations: usize,
    kept: VecDeque<(i64, Vec<u8>)>,
}

/// Cells in which an item is counted.
const PROBES: u64 = 4;

impl Counting {
    /// Makes one of 2^`bits` cells a generation.
    pub fn new(bits: u32, period: i64, generations: usize) -> Self {
        Counting { cells: 1 << bits, period: period.max(1), generations, kept: VecDeque::new() }
    }

    /// Counts an item, named by a keyed hash, `times` over, and returns how often it was counted before, at most 255 times
    /// in each generation.
    pub fn add(&mut self, item: u64, times: u8, now: i64) -> u32 {
        let period = now.div_euclid(self.period);
        if self.kept.back().is_none_or(|(newest, _)| *newest < period) {
            self.kept.push_back((period, vec![0; self.cells]));
            while self.kept.len() > self.generations {
                self.kept.pop_front();
            }
        }
        let oldest = period - i64::try_from(self.generations).unwrap_or(i64::MAX);
        let cells = self.cells;
        let place = |probe: u64| {
            let mixed = item.rotate_left(32).wrapping_mul(2 * probe + 1).wrapping_add(item);
            usize::try_from(mixed >> 32).unwrap_or_default() % cells
        };
        let mut before = 0;
        for (began, counts) in &self.kept {
            let least = (0..PROBES).filter_map(|probe| counts.get(place(probe))).min();
            before += if *began > oldest { u32::from(least.copied().unwrap_or_default()) } else { 0 };
        }
        if let Some((_, counts)) = self.kept.back_mut() {
            // Only what is lower than it must be is raised, which keeps what others share with it low (Estan and Varghese, 2002).
            let least = (0..PROBES).filter_map(|probe| counts.get(place(probe))).min().copied();
            let now = least.unwrap_or_default().saturating_add(times);
            for probe in 0..PROBES {
                if let Some(count) = counts.get_mut(place(probe)) {
                    *count = (*count).max(now);
                }
            }
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { items: 5_000, false_positives: 0.01, period: 100, generations: 4 };

    /// A key whose halves, which hash apart, differ; as those of derived keys do.
    fn key(number: u8) -> [u8; 32] {
        std::array::from_fn(|place| number.wrapping_add(u8::try_from(place).unwrap()))
    }

    fn item(number: u32) -> [u8; 4] {
        number.to_le_bytes()
    }

    #[test]
    fn nothing_is_missed_and_what_was_never_there_is_found_as_rarely_as_was_asked_for() {
        let mut filter = Rotating::new(SHAPE, key(7));
        for number in 0..20_000 {
            filter.insert(&item(number), i64::from(number) / 50);
        }
        assert!((0..20_000).all(|number| filter.contains(&item(number), 399)));
        let others = 100_000;
        let found =
            (1_000_000..1_000_000 + others).filter(|number| filter.contains(&item(*number), 399)).count();
        let (measured, told) = (found as f64 / f64::from(others), filter.false_positive_rate());
        assert!(measured < 0.012 && measured > 0.006, "{measured}");
        assert!((told - measured).abs() < 0.002, "{told} {measured}");
    }

    #[test]
    fn what_is_old_or_too_much_is_dropped() {
        let mut filter = Rotating::new(SHAPE, key(7));
        filter.insert(b"old", 0);
        filter.insert(b"new", 250);
        assert!(filter.contains(b"old", 399) && !filter.contains(b"old", 400));
        assert!(filter.contains(b"new", 500));
        // A flood rotates before its time, and the rate stays what it is.
        for number in 0..60_000 {
            filter.insert(&item(number), 250);
        }
        assert!(filter.false_positive_rate() < 0.012 && filter.len() <= 4 * SHAPE.items);
        assert!(!filter.contains(b"new", 250) && filter.contains(&item(59_999), 250));
    }

    #[test]
    fn it_is_read_as_it_was_written_and_under_its_own_key_and_shape_alone() {
        let mut filter = Rotating::new(SHAPE, key(7));
        (0..300).for_each(|number| filter.insert(&item(number), i64::from(number)));
        let bytes = filter.encode();
        let read = Rotating::decode(SHAPE, key(7), &bytes).unwrap();
        assert!((0..300).all(|number| read.contains(&item(number), 300)) && read.len() == 300);
        assert!(Rotating::decode(SHAPE, key(8), &bytes).is_none());
        assert!(Rotating::decode(Shape { items: 6_000, ..SHAPE }, key(7), &bytes).is_none());
        for cut in [1, 8, 23, 60, bytes.len() - 1] {
            assert!(Rotating::decode(SHAPE, key(7), &bytes[..cut]).is_none(), "{cut}");
        }
        assert!(Rotating::decode(SHAPE, key(7), &[]).unwrap().is_empty());
    }

    #[test]
    fn counts_are_never_too_little_and_leave_with_their_time() {
        let mut counting = Counting::new(16, 100, 4);
        let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut wrong = 0;
        for number in 0..5_000u64 {
            for before in 0..3 {
                let found = counting.add(hash(number), 1, 0);
                assert!(found >= before);
                wrong += u32::from(found != before);
            }
        }
        assert!(wrong < 150, "{wrong}");
        assert_eq!(counting.add(hash(1), 40, 350), 3);
        assert_eq!(counting.add(hash(1), 1, 350), 43);
        assert_eq!(counting.add(hash(1), 1, 450), 41);
    }
}
