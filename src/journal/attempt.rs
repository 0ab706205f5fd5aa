//! One attempt to hand a message on, from its end of data until the client surely has the answer.
//!
//! A recipient is in one attempt at a time: it is claimed when the attempt begins and let go when the answer
//! is known. A message that a retry cannot be told by is the exception: it is sent whenever it comes, and
//! what is in the file of it is pending until the client has the answer, so that whatever cuts that short
//! ends as a line in the ledger.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use super::key::RecipientKey;
use super::ledger::{Cause, Line};
use super::live::Place;
use super::queue::Wish;
use super::record::{Head, Record, Stage};
use super::writer::Doubt;
use super::{BodyHash, Error, Holder, Journal};
use crate::mail::{Envelope, Recipient, TransactionId};
use crate::metrics::Counter;
use crate::privacy::error_chain;

/// Proof that somebody took the message for a recipient in an earlier attempt whose answer the client may
/// not have got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    holder: Holder,
    id: TransactionId,
}

impl Held {
    /// Returns who took it.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Returns the transaction in which it was taken.
    pub fn id(&self) -> &TransactionId {
        &self.id
    }
}

/// What an earlier attempt means for a recipient of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: there was none, or nobody took the message.
    New,
    /// Another session's attempt has no answer yet. Who sends again now may send twice.
    Deciding(TransactionId),
    /// Somebody has it. The recipient is answered from this, and nothing is sent.
    Held(Held),
}

/// An attempt. Dropped without [`Attempt::settle`], what was taken answers a retry, and what has no verdict
/// is in doubt.
#[derive(Debug)]
pub struct Attempt {
    journal: Journal,
    head: Head,
    standings: Vec<Standing>,
    /// Where the held recipients stand.
    earlier: Vec<(Place, RecipientKey)>,
    /// The recipients that are in this attempt and in no other.
    claimed: Vec<RecipientKey>,
    /// Whether a retry can be told from an equal message that is sent on purpose.
    is_recognisable: bool,
    place: Option<Place>,
    /// Without a verdict, as far as the file knows.
    pending: Vec<RecipientKey>,
    taken: Vec<(RecipientKey, Holder)>,
    /// Whether the ledger has been told of any.
    is_in_ledger: bool,
}

impl Journal {
    /// Begins the attempt of a transaction whose data has ended: looks up earlier ones of the same message.
    /// Nothing is written yet.
    pub fn attempt(&self, envelope: &Envelope, body: &BodyHash) -> Attempt {
        let key = self.hasher().message(envelope, body);
        let at = self.now().unix_timestamp();
        let keys: Vec<RecipientKey> = envelope
            .recipients
            .iter()
            .map(|recipient| self.hasher().recipient(key, &recipient.address))
            .collect();
        let mut known: HashMap<RecipientKey, Standing> = HashMap::new();
        let mut places = Vec::new();
        let claimed = self.shared().change(|state| {
            for (place, entry) in state.live.find(key, at) {
                for (recipient, stage, holder) in &entry.recipients {
                    if *stage == Stage::Taken {
                        let held = Held { holder: *holder, id: entry.head.id.clone() };
                        places.push((place, *recipient));
                        known.insert(*recipient, Standing::Held(held));
                    }
                }
            }
            let mut claimed = Vec::new();
            for recipient in &keys {
                if !known.contains_key(recipient) {
                    match state.claims.entry((key, *recipient)) {
                        Entry::Vacant(vacant) => {
                            vacant.insert(envelope.id.clone());
                            claimed.push(*recipient);
                        }
                        Entry::Occupied(other) => {
                            // One that is in the envelope twice is claimed by this very attempt.
                            if !claimed.contains(recipient) {
                                known.insert(*recipient, Standing::Deciding(other.get().clone()));
                            }
                        }
                    }
                }
            }
            claimed
        });
        let asked: HashSet<RecipientKey> = keys.iter().copied().collect();
        places.retain(|(_, recipient)| asked.contains(recipient));
        if !places.is_empty() {
            Counter::JournalAnswers.increment(&[("direction", envelope.direction.as_str())]);
        }
        let standings = keys.iter().map(|key| known.get(key).cloned().unwrap_or(Standing::New)).collect();
        Attempt {
            journal: self.clone(),
            head: Head { at, direction: envelope.direction, key, id: envelope.id.clone() },
            standings,
            earlier: places,
            claimed,
            is_recognisable: true,
            place: None,
            pending: Vec::new(),
            taken: Vec::new(),
            is_in_ledger: false,
        }
    }
}

impl Attempt {
    /// Says that a retry of this message cannot be told from an equal one that is sent on purpose. It is sent
    /// whatever earlier attempts are about, except for those that were taken when the client was told to come
    /// back: an equal message that is answered 2xx later is the one they have. If the client may not get the
    /// answer, the ledger does.
    pub fn be_unrecognisable(&mut self) {
        self.is_recognisable = false;
        for standing in &mut self.standings {
            if matches!(standing, Standing::Deciding(_)) {
                *standing = Standing::New;
            }
        }
    }

    /// Returns what earlier attempts mean for each recipient, in the order of the envelope.
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }

    /// Notes that these recipients are about to be handed to a holder. When it returns, the note survives
    /// the death of this process, but not that of the machine. A disk that fails is logged and counted and
    /// no reason to refuse the message.
    pub async fn begin(&mut self, recipients: &[Recipient], holder: Holder) {
        let keys = self.keys(recipients);
        if keys.is_empty() {
            return;
        }
        // Nobody will be answered by what the quarantine holds of it, so a death is a line in the ledger.
        let holder = if self.is_recognisable { holder } else { Holder::NextHop };
        self.pending.extend(&keys);
        let noted = self.note(Stage::Pending, holder, keys, Wish::Written);
        if let Err(error) = self.journal.wait(noted).await {
            self.report("intent", &error);
        }
    }

    /// Notes that a holder has taken the message for these recipients: the next hop has said so, or the
    /// quarantine has committed. When it returns, the note is durable.
    ///
    /// # Errors
    /// What the disk said; it is logged and counted. The holder has the message all the same, and this
    /// process remembers it; if it dies now, a retry is sent again.
    pub async fn taken(&mut self, recipients: &[Recipient], holder: Holder) -> Result<(), Error> {
        let keys = self.keys(recipients);
        if keys.is_empty() {
            return Ok(());
        }
        self.taken.extend(keys.iter().map(|key| (*key, holder)));
        if !self.is_recognisable {
            return Ok(());
        }
        self.note_taken(keys, holder).await
    }

    /// Notes that nobody knows whether these recipients were taken. They get a line in the ledger, which is
    /// there when this returns, unless the disk fails; a retry is sent again.
    pub async fn doubtful(&mut self, recipients: &[Recipient], cause: Cause) {
        let keys = self.keys(recipients);
        if keys.is_empty() {
            return;
        }
        self.drop_pending(&keys);
        let (waiter, written) = oneshot::channel();
        self.doubt(keys, cause, Some(waiter));
        // The ledger logs its own failures; a disk that hangs is not waited for.
        let _written = tokio::time::timeout(self.journal.patience(), written).await;
    }

    /// Notes that nobody took these recipients. Never waits.
    pub fn refused(&mut self, recipients: &[Recipient]) {
        let keys = self.keys(recipients);
        self.drop_pending(&keys);
        if let Some(place) = self.place {
            self.journal.shared().change(|state| state.forget(place, Some(&keys)));
        }
    }

    /// Notes that the answer is known, which the client is now given: a 2xx for somebody, or none. Another
    /// attempt may begin; recipients that are still without a verdict are in doubt.
    pub async fn answered(&mut self, is_positive: bool) {
        self.release();
        let taken: HashSet<RecipientKey> = self.taken.iter().map(|(key, _)| *key).collect();
        let forgotten: Vec<RecipientKey> =
            self.pending.iter().copied().filter(|key| !taken.contains(key)).collect();
        if !forgotten.is_empty() {
            self.drop_pending(&forgotten);
            self.doubt(forgotten, Cause::ReplyLost, None);
        }
        if self.is_recognisable {
            return;
        }
        if is_positive {
            // From now on an equal message may be another one, so these too are pending until it is sure that
            // the client has the answer.
            let keys: Vec<RecipientKey> = self.earlier.iter().map(|(_, key)| *key).collect();
            self.forget_earlier();
            if !keys.is_empty() {
                self.pending.extend(&keys);
                self.taken.extend(keys.iter().map(|key| (*key, Holder::NextHop)));
                let noted = self.note(Stage::Pending, Holder::NextHop, keys, Wish::Written);
                if let Err(error) = self.journal.wait(noted).await {
                    self.report("intent", &error);
                }
            }
            return;
        }
        for holder in Holder::ALL {
            let of_holder = |(key, of): &(RecipientKey, Holder)| (*of == holder).then_some(*key);
            let keys: Vec<RecipientKey> = self.taken.iter().filter_map(of_holder).collect();
            if !keys.is_empty() {
                // It is logged where it fails; a retry is then sent again.
                let _noted = self.note_taken(keys, holder).await;
            }
        }
    }

    /// Ends the attempt: the client surely has the answer, so that no retry will come. Never waits.
    pub fn settle(mut self) {
        let taken: Vec<RecipientKey> = self.taken.iter().map(|(key, _)| *key).collect();
        self.drop_pending(&taken);
        self.forget_earlier();
        if let Some(place) = self.place {
            // Those that the ledger is to hear of stay until it has.
            let some = !self.pending.is_empty() || self.is_in_ledger;
            self.journal.shared().change(|state| state.forget(place, some.then_some(taken.as_slice())));
        }
    }

    fn keys(&self, recipients: &[Recipient]) -> Vec<RecipientKey> {
        let hasher = self.journal.hasher();
        recipients.iter().map(|recipient| hasher.recipient(self.head.key, &recipient.address)).collect()
    }

    async fn note_taken(&mut self, keys: Vec<RecipientKey>, holder: Holder) -> Result<(), Error> {
        self.drop_pending(&keys);
        let noted = self.note(Stage::Taken, holder, keys, Wish::Durable);
        let result = self.journal.wait(noted).await;
        if let Err(error) = &result {
            self.report("verdict", error);
        }
        result
    }

    /// Lets other attempts begin.
    fn release(&mut self) {
        let claimed = std::mem::take(&mut self.claimed);
        if !claimed.is_empty() {
            self.journal.shared().change(|state| {
                for recipient in claimed {
                    state.claims.remove(&(self.head.key, recipient));
                }
            });
        }
    }

    fn forget_earlier(&mut self) {
        let earlier = std::mem::take(&mut self.earlier);
        self.journal.shared().change(|state| {
            for (place, recipient) in earlier {
                state.forget(place, Some(&[recipient]));
            }
        });
    }

    fn drop_pending(&mut self, keys: &[RecipientKey]) {
        let keys: HashSet<&RecipientKey> = keys.iter().collect();
        self.pending.retain(|key| !keys.contains(key));
    }

    /// Changes the memory at once, so that it is right even if nobody waits for the file.
    fn note(
        &mut self,
        stage: Stage,
        holder: Holder,
        recipients: Vec<RecipientKey>,
        wish: fn(oneshot::Sender<Result<(), Error>>) -> Wish,
    ) -> oneshot::Receiver<Result<(), Error>> {
        let (waiter, noted) = oneshot::channel();
        let now = self.journal.now().unix_timestamp();
        let place = self.journal.shared().change_and_write(|state| {
            let place = state.live.note(self.place, &self.head, stage, holder, &recipients);
            state.live.prune(now);
            state.push(&Record::Noted { head: self.head.clone(), stage, holder, recipients }, wish(waiter));
            place
        });
        self.place = Some(place);
        noted
    }

    fn doubt(&mut self, recipients: Vec<RecipientKey>, cause: Cause, waiter: Option<oneshot::Sender<()>>) {
        self.is_in_ledger = true;
        Counter::JournalDoubts.increment(&[("cause", cause.as_label())]);
        let line = Line::new(self.journal.now(), &self.head.id, self.head.direction, recipients.len(), cause);
        self.journal.shared().doubt(Doubt { line, place: self.place, recipients, waiter });
    }

    fn report(&self, step: &'static str, error: &Error) {
        Counter::JournalFailures.increment(&[("step", step)]);
        tracing::error!(id = %self.head.id, step, error = error_chain(error), "the journal failed");
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.release();
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        let is_taken = self.taken.iter().any(|(key, _)| pending.contains(key));
        let cause = if is_taken { Cause::AnswerLost } else { Cause::SessionEnded };
        self.doubt(pending, cause, None);
    }
}
