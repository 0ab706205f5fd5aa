//! What the journal remembers in memory: the attempts whose answer the client may not have got.
//!
//! Bounded in age and in the number of recipients, which bounds the attempts too; the oldest fall out first. Every change may be applied twice: a file that
//! was rewritten while it happened holds it both in its first part and as a line of its own.

use std::collections::{BTreeMap, HashMap, HashSet};

use time::Duration;

use super::Holder;
use super::key::{MessageKey, RecipientKey};
use super::record::{Head, Record, Stage};
use crate::metrics::{Counter, Gauge};

/// Where an entry stands in the order of coming.
pub(super) type Place = u64;

/// One attempt.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) head: Head,
    /// Sorted, each once.
    pub(super) recipients: Vec<(RecipientKey, Stage, Holder)>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Live {
    entries: BTreeMap<Place, Entry>,
    by_key: HashMap<MessageKey, Vec<Place>>,
    next: Place,
    /// Of all entries together.
    recipients: usize,
    max_recipients: usize,
    max_age_seconds: i64,
}

impl Entry {
    /// Returns the recipients at a stage with a holder.
    pub(super) fn at(&self, stage: Stage, holder: Holder) -> Vec<RecipientKey> {
        let of = |(key, s, h): &(RecipientKey, Stage, Holder)| (*s == stage && *h == holder).then_some(*key);
        self.recipients.iter().filter_map(of).collect()
    }

    /// Appends the lines that say all of it.
    fn write(&self, out: &mut Vec<u8>) {
        for stage in [Stage::Pending, Stage::Taken] {
            for holder in Holder::ALL {
                let recipients = self.at(stage, holder);
                if !recipients.is_empty() {
                    Record::Noted { head: self.head.clone(), stage, holder, recipients }.write(out);
                }
            }
        }
    }
}

impl Live {
    pub(super) fn new(max_recipients: usize, max_age: Duration) -> Self {
        Live {
            entries: BTreeMap::new(),
            by_key: HashMap::new(),
            next: 0,
            recipients: 0,
            max_recipients,
            max_age_seconds: max_age.whole_seconds(),
        }
    }

    /// Sets the stage of recipients of the entry at `place`, or of a new one. What was taken stays taken.
    /// Returns where the entry stands.
    pub(super) fn note(
        &mut self,
        place: Option<Place>,
        head: &Head,
        stage: Stage,
        holder: Holder,
        recipients: &[RecipientKey],
    ) -> Place {
        let place = place.filter(|place| self.entries.contains_key(place)).unwrap_or_else(|| {
            let place = self.next;
            self.next += 1;
            self.by_key.entry(head.key).or_default().push(place);
            let entry = Entry { head: head.clone(), recipients: Vec::new() };
            self.entries.insert(place, entry);
            place
        });
        if let Some(entry) = self.entries.get_mut(&place) {
            let before = entry.recipients.len();
            let mut changed: Vec<_> = recipients.iter().map(|key| (*key, stage, holder)).collect();
            changed.append(&mut entry.recipients);
            // Stable: of two for one recipient the newer comes first, unless only the older is taken.
            changed.sort_by_key(|(key, stage, _)| (*key, *stage == Stage::Pending));
            changed.dedup_by_key(|(key, ..)| *key);
            self.recipients += changed.len() - before;
            entry.recipients = changed;
        }
        self.measure();
        place
    }

    /// Lets recipients of an entry go, or all of them, and the entry with its last one. Returns whether
    /// there was anything.
    pub(super) fn forget(&mut self, place: Place, recipients: Option<&[RecipientKey]>) -> bool {
        let Some(entry) = self.entries.get_mut(&place) else {
            return false;
        };
        let before = entry.recipients.len();
        match recipients {
            Some(recipients) => {
                let gone: HashSet<&RecipientKey> = recipients.iter().collect();
                entry.recipients.retain(|(key, ..)| !gone.contains(key));
            }
            None => entry.recipients.clear(),
        }
        let gone = before - entry.recipients.len();
        self.recipients -= gone;
        if entry.recipients.is_empty() {
            self.remove(place);
        }
        self.measure();
        gone > 0
    }

    /// Lets the oldest go until age and number are within bounds.
    pub(super) fn prune(&mut self, now: i64) {
        while let Some((&place, entry)) = self.entries.first_key_value() {
            let expired = now.saturating_sub(entry.head.at) >= self.max_age_seconds;
            if !expired && self.recipients <= self.max_recipients {
                break;
            }
            if !expired {
                Counter::JournalEvictions.increment(&[]);
            }
            self.remove(place);
        }
        self.measure();
    }

    /// Returns the entries of a message that are young enough, oldest first.
    pub(super) fn find(&self, key: MessageKey, now: i64) -> impl Iterator<Item = (Place, &Entry)> {
        let places = self.by_key.get(&key).map(Vec::as_slice).unwrap_or_default();
        places
            .iter()
            .filter_map(|place| self.entries.get(place).map(|entry| (*place, entry)))
            .filter(move |(_, entry)| now.saturating_sub(entry.head.at) < self.max_age_seconds)
    }

    /// Returns the entry at a place.
    pub(super) fn get(&self, place: Place) -> Option<&Entry> {
        self.entries.get(&place)
    }

    /// Returns every entry, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = (Place, &Entry)> {
        self.entries.iter().map(|(place, entry)| (*place, entry))
    }

    /// Appends the lines of up to `count` entries from a place on; returns where to go on, if there are more.
    pub(super) fn write_page(&self, from: Place, count: usize, out: &mut Vec<u8>) -> Option<Place> {
        let mut page = self.entries.range(from..);
        for (_, entry) in page.by_ref().take(count) {
            entry.write(out);
        }
        page.next().map(|(place, _)| *place)
    }

    fn remove(&mut self, place: Place) {
        let Some(entry) = self.entries.remove(&place) else {
            return;
        };
        self.recipients -= entry.recipients.len();
        if let Some(places) = self.by_key.get_mut(&entry.head.key) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_key.remove(&entry.head.key);
            }
        }
    }

    fn measure(&self) {
        let count = u32::try_from(self.recipients).unwrap_or(u32::MAX);
        Gauge::JournalEntries.set(f64::from(count));
    }
}
