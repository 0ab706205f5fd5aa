//! The model as a value: a fold over lessons.
//!
//! At a given sequence number a model is a pure function of the log up to there; a snapshot only saves the
//! time to fold it again. Models that come later stand beside [`Bayes`] in [`Model`] and in the snapshot.

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::bayes::{Bayes, TABLE_BITS};
use super::extract::Extracted;
use super::features::{read_varint, write_varint};
use super::opinion::Opinion;
use super::{Lesson, Step};

/// First bytes of a snapshot; the last one is its version.
const MAGIC: &[u8; 8] = b"lazmodl\x01";
const CHECKSUM_BYTES: usize = 32;

/// Most bytes of a snapshot: every cell in use, with the largest counts.
pub const MAX_SNAPSHOT_BYTES: usize = 64 * 1024 * 1024;

/// Everything learned up to one line of the log. About 32 MiB, whatever was learned.
#[derive(Clone, PartialEq, Eq)]
pub struct Model {
    sequence: i64,
    bayes: Bayes,
}

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
    /// Returns the model that has learned nothing.
    pub fn new() -> Self {
        Model { sequence: 0, bayes: Bayes::new() }
    }

    /// Learns a lesson.
    pub fn learn(&mut self, lesson: &Lesson) {
        self.bayes.learn(lesson);
    }

    /// Takes a lesson back that was learned before; the model is then as if it never had been.
    pub fn unlearn(&mut self, lesson: &Lesson) {
        self.bayes.unlearn(lesson);
    }

    /// Takes the next step of the log. A step that was taken before changes nothing.
    pub fn follow(&mut self, step: &Step) {
        if step.sequence <= self.sequence {
            return;
        }
        if let Some(lesson) = &step.unlearn {
            self.unlearn(lesson);
        }
        if let Some(lesson) = &step.learn {
            self.learn(lesson);
        }
        self.sequence = step.sequence;
    }

    /// Returns the number of lessons in force: ham, spam.
    pub fn lessons(&self) -> (u32, u32) {
        let [spam, ham] = self.bayes.lessons;
        (ham, spam)
    }

    /// Returns the number of the last step taken; 0 before the first.
    pub fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Judges a message; `None` until each label was learned [`super::MIN_LESSONS`] times.
    pub fn judge(&self, extracted: &Extracted) -> Option<Opinion> {
        self.bayes.judge(extracted)
    }

    /// Writes the model: format, sequence, then every cell in use in LEB128 (gap, spam, ham), and SHA-256.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        let [spam, ham] = self.bayes.lessons;
        write_varint(&mut bytes, spam);
        write_varint(&mut bytes, ham);
        let mut gap = 0;
        for [spam, ham] in &self.bayes.table {
            if *spam == 0 && *ham == 0 {
                gap += 1;
                continue;
            }
            for number in [gap, *spam, *ham] {
                write_varint(&mut bytes, number);
            }
            gap = 0;
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
        let damaged = || InvalidSnapshot::Damaged;
        if !bytes.starts_with(MAGIC) {
            return Err(InvalidSnapshot::Format);
        }
        let length = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(damaged)?;
        let (content, checksum) = bytes.split_at_checked(length).ok_or_else(damaged)?;
        if Sha256::digest(content).as_slice() != checksum {
            return Err(InvalidSnapshot::Damaged);
        }
        let (sequence, mut rest) =
            content.strip_prefix(MAGIC).and_then(<[u8]>::split_first_chunk::<8>).ok_or_else(damaged)?;
        let mut model = Model { sequence: i64::from_le_bytes(*sequence), bayes: Bayes::new() };
        let mut next = || read_varint(&mut rest).map_err(|_| InvalidSnapshot::Damaged);
        model.bayes.lessons = [next()?, next()?];
        let mut cell = 0usize;
        while !rest.is_empty() {
            let mut next = || read_varint(&mut rest).map_err(|_| InvalidSnapshot::Damaged);
            cell = cell.saturating_add(next()? as usize);
            let counts = model.bayes.table.get_mut(cell).ok_or_else(damaged)?;
            *counts = [next()?, next()?];
            cell += 1;
        }
        Ok(model)
    }
}

impl Default for Model {
    fn default() -> Self {
        Model::new()
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ham, spam) = self.lessons();
        write!(f, "Model({ham} ham, {spam} spam, at {}, 2^{TABLE_BITS} cells)", self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::learn::{Features, Label};

    fn lesson(label: Label, slots: &[u32]) -> Lesson {
        Lesson { label, features: Features::new(slots.to_vec()) }
    }

    fn taught() -> Model {
        let mut model = Model::new();
        model.learn(&lesson(Label::Spam, &[1, 500, 16_000_000]));
        model.learn(&lesson(Label::Ham, &[500, 70_000]));
        model.sequence = 2;
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
        assert_eq!((restored.lessons(), restored.sequence()), ((1, 1), 2));
    }

    #[test]
    fn foreign_and_damaged_snapshots_are_refused() {
        let good = taught().snapshot();
        check(b"", InvalidSnapshot::Format);
        check(MAGIC, InvalidSnapshot::Damaged);
        check(&good[..good.len() - 1], InvalidSnapshot::Damaged);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            check(&bad, if at < 8 { InvalidSnapshot::Format } else { InvalidSnapshot::Damaged });
        }
        let mut far = MAGIC.to_vec();
        far.extend([0; 10]);
        far.extend([0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1]);
        far.extend(Sha256::digest(far.clone()));
        check(&far, InvalidSnapshot::Damaged);
    }

    #[test]
    fn a_lesson_taken_back_leaves_no_trace() {
        let mut model = taught();
        let extra = lesson(Label::Spam, &[1, 2, 3, 500]);
        model.learn(&extra);
        assert!(model != taught());
        model.unlearn(&extra);
        assert!(model == taught());
    }

    #[test]
    fn a_step_is_taken_once() {
        let mut model = taught();
        let step = Step { sequence: 3, unlearn: None, learn: Some(lesson(Label::Ham, &[9])) };
        model.follow(&step);
        let once = model.clone();
        model.follow(&step);
        assert!(model == once);
        assert_eq!((model.sequence(), model.lessons()), (3, (2, 1)));
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
