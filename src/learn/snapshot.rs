//! A model as bytes. A snapshot only saves the time to fold the log of lessons again, so whatever is wrong with one
//! is answered by folding.

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::bayes::Counts;
use super::budget::{Budget, Budgets, MAX_REMEMBERED};
use super::features::{read_varint, write_varint};
use super::model::Model;
use super::rehearsal::KEPT;

/// First bytes of a snapshot; the last one is its version.
const MAGIC: &[u8; 8] = b"lazmodl\x03";
const CHECKSUM_BYTES: usize = 32;

/// Most bytes of a snapshot: every cell in use, with the largest counts.
pub const MAX_SNAPSHOT_BYTES: usize = 64 * 1024 * 1024;

/// Why a snapshot cannot be read. The remedy is always to fold the log again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidSnapshot {
    /// It was written by another version, or is none.
    #[error("the snapshot has an unknown format")]
    Format,
    /// Its checksum does not fit, or its content is malformed.
    #[error("the snapshot is damaged")]
    Damaged,
}

impl Model {
    /// Writes the model: format, sequence, lessons, who taught what, what is heard again, calibration, then the cells in use of every table,
    /// each led by how many are not, and SHA-256.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 << 20);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        self.learner.lessons.iter().for_each(|count| write_varint(&mut bytes, *count));
        write_varint(&mut bytes, u32::try_from(self.contradicts.len()).unwrap_or(u32::MAX));
        for (number, contradicts) in &self.contradicts {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&contradicts.to_le_bytes());
        }
        let Budgets { persons, senders, all } = &self.budgets;
        for budgets in [persons, senders] {
            write_varint(&mut bytes, u32::try_from(budgets.len()).unwrap_or(u32::MAX));
            for (number, budget) in budgets {
                bytes.extend_from_slice(&number.to_le_bytes());
                write_budget(&mut bytes, budget);
            }
        }
        write_budget(&mut bytes, all);
        bytes.extend_from_slice(&self.rehearsal.row.to_le_bytes());
        for heard in [&self.rehearsal.spam, &self.rehearsal.ham] {
            bytes.extend_from_slice(&heard.kept.to_le_bytes());
            bytes.extend_from_slice(&heard.again.to_le_bytes());
            write_varint(&mut bytes, u32::try_from(heard.lessons.len()).unwrap_or(u32::MAX));
            for lesson in &heard.lessons {
                write_varint(&mut bytes, u32::try_from(lesson.len()).unwrap_or(u32::MAX));
                bytes.extend_from_slice(lesson);
            }
        }
        let calibration = &self.calibration;
        for number in calibration.bins.iter().flatten().chain([&calibration.spam_from, &calibration.ham_to]) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for table in self.learner.linear.iter().flat_map(|linear| [&linear.weights, &linear.squares]) {
            write_table(&mut bytes, table, |bytes, number| bytes.extend_from_slice(&number.to_le_bytes()));
        }
        self.learner.bayes.lessons.iter().for_each(|count| write_varint(&mut bytes, *count));
        for table in &self.learner.bayes.tables {
            write_table(&mut bytes, table, |bytes, counts| {
                counts.iter().for_each(|count| write_varint(bytes, *count));
            });
        }
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads what [`Model::snapshot`] wrote.
    ///
    /// # Errors
    /// [`InvalidSnapshot`]; nothing beyond one model is allocated, whatever the bytes say.
    pub fn restore(bytes: &[u8]) -> Result<Self, InvalidSnapshot> {
        if !bytes.starts_with(MAGIC) {
            return Err(InvalidSnapshot::Format);
        }
        read(bytes).ok_or(InvalidSnapshot::Damaged)
    }
}

fn read(bytes: &[u8]) -> Option<Model> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    if Sha256::digest(content).as_slice() != checksum {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?;
    let rest = &mut rest;
    let mut model = Model::new();
    model.sequence = i64::from_le_bytes(read_array(rest)?);
    for count in &mut model.learner.lessons {
        *count = read_varint(rest).ok()?;
    }
    for _ in 0..read_count(rest, MAX_REMEMBERED + 1)? {
        let number = u32::from_le_bytes(read_array(rest)?);
        model.contradicts.insert(number, read_number(rest)?);
    }
    for budgets in [&mut model.budgets.persons, &mut model.budgets.senders] {
        for _ in 0..read_count(rest, MAX_REMEMBERED + 1)? {
            let number = u32::from_le_bytes(read_array(rest)?);
            budgets.insert(number, read_budget(rest)?);
        }
    }
    model.budgets.all = read_budget(rest)?;
    model.rehearsal.row = i32::from_le_bytes(read_array(rest)?);
    for heard in [&mut model.rehearsal.spam, &mut model.rehearsal.ham] {
        heard.kept = u64::from_le_bytes(read_array(rest)?);
        heard.again = u64::from_le_bytes(read_array(rest)?);
        for _ in 0..read_count(rest, KEPT)? {
            let length = read_varint(rest).ok()? as usize;
            let (lesson, after) = rest.split_at_checked(length)?;
            heard.lessons.push(lesson.to_vec());
            *rest = after;
        }
    }
    for number in model.calibration.bins.iter_mut().flatten() {
        *number = read_number(rest)?;
    }
    model.calibration.spam_from = read_number(rest)?;
    model.calibration.ham_to = read_number(rest)?;
    for table in model.learner.linear.iter_mut().flat_map(|linear| [&mut linear.weights, &mut linear.squares])
    {
        read_table(rest, table, |rest| {
            Some(f32::from_le_bytes(read_array(rest)?)).filter(|number| number.is_finite())
        })?;
    }
    for count in &mut model.learner.bayes.lessons {
        *count = read_varint(rest).ok()?;
    }
    for table in &mut model.learner.bayes.tables {
        read_table(rest, table, |rest| -> Option<Counts> {
            Some([read_varint(rest).ok()?, read_varint(rest).ok()?])
        })?;
    }
    rest.is_empty().then_some(model)
}

fn write_table<T: Default + PartialEq>(bytes: &mut Vec<u8>, table: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    let nothing = T::default();
    let used = table.iter().filter(|cell| **cell != nothing).count();
    write_varint(bytes, u32::try_from(used).unwrap_or(u32::MAX));
    let mut gap = 0;
    for cell in table {
        if *cell == nothing {
            gap += 1;
            continue;
        }
        write_varint(bytes, gap);
        write(bytes, cell);
        gap = 0;
    }
}

fn read_table<T>(bytes: &mut &[u8], table: &mut [T], read: impl Fn(&mut &[u8]) -> Option<T>) -> Option<()> {
    let mut place = 0usize;
    for _ in 0..read_varint(bytes).ok()? {
        place = place.checked_add(read_varint(bytes).ok()? as usize)?;
        *table.get_mut(place)? = read(bytes)?;
        place += 1;
    }
    Some(())
}

fn write_budget(bytes: &mut Vec<u8>, budget: &Budget) {
    bytes.extend_from_slice(&budget.hour.to_le_bytes());
    bytes.extend_from_slice(&budget.lessons.to_le_bytes());
    bytes.extend_from_slice(&budget.against.to_le_bytes());
}

fn read_budget(bytes: &mut &[u8]) -> Option<Budget> {
    let hour = i64::from_le_bytes(read_array(bytes)?);
    let lessons = u32::from_le_bytes(read_array(bytes)?);
    let against = u32::from_le_bytes(read_array(bytes)?);
    Some(Budget { hour, lessons, against })
}

fn read_count(bytes: &mut &[u8], most: usize) -> Option<u32> {
    read_varint(bytes).ok().filter(|count| *count as usize <= most)
}

fn read_number(bytes: &mut &[u8]) -> Option<f64> {
    Some(f64::from_le_bytes(read_array(bytes)?)).filter(|number| number.is_finite())
}

fn read_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*array)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::learn::{Features, Label, Lesson, Weight};

    fn taught() -> Model {
        let mut model = Model::new();
        let slots = |first: u32| vec![first, first + 7, 250_000];
        for sequence in 1..=130 {
            let label = if sequence % 2 == 0 { Label::Ham } else { Label::Spam };
            let first = if label == Label::Ham { 3 } else { 125_000 };
            let features =
                Features::new([slots(first), slots(first), slots(first), slots(first), vec![first]]);
            let lesson = Lesson { label, features, weight: Weight::Whole, teacher: 7, hour: sequence };
            model.follow(sequence, Some(&lesson));
        }
        model
    }

    fn check(bytes: &[u8], expected: InvalidSnapshot) {
        assert_eq!(Model::restore(bytes), Err(expected));
    }

    #[test]
    fn a_snapshot_restores_the_model() {
        let model = taught();
        let restored = Model::restore(&model.snapshot()).unwrap();
        assert!(restored == model);
        assert_eq!((restored.lessons(), restored.sequence()), ((65, 65), 130));
        assert!(Model::restore(&Model::new().snapshot()).unwrap() == Model::new());
    }

    #[test]
    fn foreign_and_damaged_snapshots_are_refused() {
        let good = taught().snapshot();
        check(b"", InvalidSnapshot::Format);
        check(b"lazmodl\x02", InvalidSnapshot::Format);
        check(MAGIC, InvalidSnapshot::Damaged);
        check(&good[..good.len() - 1], InvalidSnapshot::Damaged);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            check(&bad, if at < 8 { InvalidSnapshot::Format } else { InvalidSnapshot::Damaged });
        }
    }

    #[test]
    fn sealed_nonsense_is_refused_without_harm() {
        let mut far = MAGIC.to_vec();
        far.extend([0; 10]);
        far.extend([0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1]);
        far.extend(Sha256::digest(far.clone()));
        check(&far, InvalidSnapshot::Damaged);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn garbage_never_panics(content in prop::collection::vec(any::<u8>(), 0..100), sealed: bool) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(content);
            if sealed {
                bytes.extend(Sha256::digest(bytes.clone()));
            }
            if let Ok(model) = Model::restore(&bytes) {
                prop_assert!(Model::restore(&model.snapshot()).unwrap() == model);
            }
        }
    }
}
