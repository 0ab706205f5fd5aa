//! The layers of organisations and persons: folded from the log when somebody's mail comes, and kept for the next.
//!
//! Which layers there are is in memory, so that most mail is judged without a look at the log. A layer that was taught
//! something is folded anew at its next use, from its last lessons: that takes some milliseconds.

use std::collections::HashSet;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::task::spawn_blocking;

use super::{Learned, LearnedError};
use crate::learn::{Above, Features, Layer};
use crate::mail::{Address, Recipient};
use crate::privacy::PseudonymKey;
use crate::store::{FORGOTTEN_LAYER, LayerName, LessonError, LessonLog, Taught, Teacher};

/// Lessons from which a layer is folded: the last ones.
pub const LAYER_LESSONS: u32 = 1_000;
/// Layers that are kept in memory, of about 2.5 MiB; and recipients of a message that are judged by theirs.
pub const LAYERS: usize = 64;

/// Who is taught by what a person says of their own mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// The person alone.
    #[default]
    Person,
    /// Their organisation as well.
    Organisation,
    /// Everybody as well.
    Everyone,
}

impl Sharing {
    /// All of them, by the names that the configuration knows.
    pub const ALL: [(&'static str, Sharing); 3] = [
        ("person", Sharing::Person),
        ("organisation", Sharing::Organisation),
        ("everyone", Sharing::Everyone),
    ];
}

/// The layers of one recipient, the widest first.
#[derive(Debug, Clone)]
pub struct Apart {
    /// The place of the recipient in the envelope.
    pub place: usize,
    /// The layers.
    pub layers: Vec<Arc<Layer>>,
}

/// The layers in service.
pub(super) struct Layers {
    pseudonyms: PseudonymKey,
    state: Mutex<State>,
}

struct State {
    /// The names of all that were taught something.
    known: HashSet<String>,
    cache: LruCache<String, Arc<Layer>>,
    /// The last line that was looked at.
    seen: i64,
    /// Counts the times that something was thrown away: what was folded before is not kept.
    turn: u64,
}

impl Layers {
    pub(super) async fn open(log: &LessonLog, pseudonyms: PseudonymKey) -> Result<Self, LessonError> {
        let seen = log.last_sequence().await?;
        let known = log.layers_after(0).await?.into_iter().collect();
        let cache = LruCache::new(NonZero::new(LAYERS).unwrap_or(NonZero::<usize>::MIN));
        Ok(Layers { pseudonyms, state: Mutex::new(State { known, cache, seen, turn: 0 }) })
    }

    /// Notices what was taught up to a line.
    pub(super) async fn follow(&self, log: &LessonLog, end: i64) -> Result<(), LessonError> {
        let seen = self.state().seen;
        if seen == end {
            return Ok(());
        }
        let changed = log.layers_after(seen).await?;
        let mut state = self.state();
        for name in changed {
            if name == FORGOTTEN_LAYER {
                // Nobody can tell whose it was.
                state.cache.clear();
            } else {
                state.cache.pop(&name);
                state.known.insert(name);
            }
            state.turn += 1;
        }
        state.seen = end;
        Ok(())
    }

    /// Has all layers folded anew at their next use.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.cache.clear();
        state.turn += 1;
    }

    /// Returns the layers in which somebody's mail is judged, the widest first, whether they exist or not.
    fn names(&self, address: &Address) -> Vec<LayerName> {
        let organisation = address.domain().map(|domain| {
            let domain = domain.as_str().to_ascii_lowercase();
            LayerName::Organisation(self.pseudonyms.pseudonym("domain", &domain))
        });
        let person = self.pseudonyms.pseudonym("address", &address.to_normalized());
        organisation.into_iter().chain([LayerName::Person(person)]).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Learned {
    /// Returns the layers of those recipients who have any, at most [`LAYERS`] recipients.
    ///
    /// # Errors
    /// [`LearnedError`] when the log of lessons does not answer.
    pub async fn layers_of(&self, recipients: &[Recipient]) -> Result<Vec<Apart>, LearnedError> {
        let mut apart = Vec::new();
        for (place, recipient) in recipients.iter().enumerate() {
            if apart.len() == LAYERS || self.inner.layers.state().known.is_empty() {
                break;
            }
            let mut layers = Vec::new();
            for name in self.inner.layers.names(&recipient.address) {
                layers.extend(self.layer(&name, &layers).await?);
            }
            if !layers.is_empty() {
                apart.push(Apart { place, layers });
            }
        }
        Ok(apart)
    }

    /// Returns the layers that a person's word about a message teaches, the narrowest first, with what is said above each.
    ///
    /// # Errors
    /// [`LearnedError`] when the log of lessons does not answer.
    pub async fn taught_by(
        &self,
        person: &Address,
        sharing: Sharing,
        features: &Features,
    ) -> Result<Vec<Taught>, LearnedError> {
        // What is said above must be all of it, not what a command or a start has folded so far.
        let model = if self.has_followed() { self.model() } else { self.load().await? };
        let (mut taught, mut layers) = (vec![Taught::SHARED], Vec::new());
        for layer in self.inner.layers.names(person) {
            let own = self.layer(&layer, &layers).await?;
            taught.push(Taught { layer, base: Above { model: &model, layers: &layers }.base(features) });
            layers.extend(own);
        }
        taught.retain(|taught| match taught.layer {
            LayerName::Person(_) => true,
            LayerName::Organisation(_) => sharing != Sharing::Person,
            LayerName::Shared => sharing == Sharing::Everyone,
        });
        taught.reverse();
        Ok(taught)
    }

    /// Returns how the log names a person who teaches.
    pub fn teacher(&self, person: &Address) -> Teacher {
        Teacher::Person(self.inner.layers.pseudonyms.pseudonym("address", &person.to_normalized()))
    }

    /// Returns a layer, folded anew where it is not in memory; `wider` are those between it and the shared model.
    async fn layer(
        &self,
        name: &LayerName,
        wider: &[Arc<Layer>],
    ) -> Result<Option<Arc<Layer>>, LearnedError> {
        let column = name.to_column();
        let turn = {
            let mut state = self.inner.layers.state();
            if !state.known.contains(&column) {
                return Ok(None);
            }
            if let Some(layer) = state.cache.get(&column) {
                return Ok(Some(Arc::clone(layer)));
            }
            state.turn
        };
        let lessons = self.inner.log.last_in_force(name, LAYER_LESSONS).await?;
        let (model, wider) = (self.model(), wider.to_vec());
        let fold = move || {
            let (mut layer, above) = (Layer::new(), Above { model: &model, layers: &wider });
            lessons.iter().for_each(|entry| layer.learn(&entry.lesson, &entry.base, &above));
            Arc::new(layer)
        };
        let layer = spawn_blocking(fold).await?;
        let mut state = self.inner.layers.state();
        if state.turn == turn {
            state.cache.put(column, Arc::clone(&layer));
        }
        Ok(Some(layer))
    }
}
