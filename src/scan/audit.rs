//! Lessons that all others contradict: where somebody likely pressed the wrong button.

use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use super::learned::{BATCH_LINES, Learned, LearnedError};
use crate::learn::{Label, Model};

/// Each lesson is judged by a model of those outside its part.
const PARTS: i64 = 4;

/// A lesson that a model of others contradicts.
#[derive(Debug, Clone, PartialEq)]
pub struct Contradicted {
    /// The number of its line in the log.
    pub sequence: i64,
    /// What was said.
    pub label: Label,
    /// Who said it, as the log writes it.
    pub teacher: String,
    /// When.
    pub learned_at: OffsetDateTime,
    /// By what score, on the scale of the models; never below 0.
    pub by: f64,
}

impl Learned {
    /// Returns the lessons in force that the others contradict most strongly, the strongest first, at most `most`.
    /// The log is folded once for each of four parts and read twice: for 10,000 lessons that takes some seconds.
    ///
    /// # Errors
    /// [`LearnedError`].
    pub async fn audit(&self, most: usize) -> Result<Vec<Contradicted>, LearnedError> {
        let mut found: Vec<Contradicted> = Vec::new();
        for part in 0..PARTS {
            let mut model = Model::new();
            for is_learning in [true, false] {
                let mut sequence = 0;
                loop {
                    let entries = self.log().in_force_after(sequence, BATCH_LINES).await?;
                    let Some(last) = entries.last() else { break };
                    sequence = last.sequence;
                    let work = spawn_blocking(move || {
                        let mut contradicted = Vec::new();
                        for entry in entries {
                            let is_held = entry.sequence % PARTS == part;
                            if is_learning && !is_held {
                                model.learn(&entry.lesson);
                            }
                            let by = if is_learning || !is_held {
                                0.0
                            } else {
                                model.contradiction(&entry.lesson)
                            };
                            if by > 0.0 {
                                let (sequence, label) = (entry.sequence, entry.lesson.label);
                                let (teacher, learned_at) = (entry.teacher, entry.learned_at);
                                contradicted.push(Contradicted { sequence, label, teacher, learned_at, by });
                            }
                        }
                        (model, contradicted)
                    });
                    let (trained, contradicted) = work.await?;
                    model = trained;
                    found.extend(contradicted);
                    found.sort_by(|a, b| b.by.total_cmp(&a.by).then(a.sequence.cmp(&b.sequence)));
                    found.truncate(most);
                }
            }
        }
        Ok(found)
    }
}
