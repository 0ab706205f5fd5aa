//! One attempt to hand a message on, from its end of data until the client surely has the answer.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use super::key::RecipientKey;
use super::ledger::{Cause, Line};
use super::live::Place;
use super::record::{Head, Record, Stage};
use super::writer::{Doubt, Wish};
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
    /// Another session's attempt has not ended yet. Who sends again now may send twice.
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
    place: Option<Place>,
    /// Without a verdict.
    pending: Vec<RecipientKey>,
    taken: Vec<RecipientKey>,
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
        self.shared().change(|state| {
            for (place, entry) in state.live.find(key, at) {
                for (recipient, stage, holder) in &entry.recipients {
                    let id = entry.head.id.clone();
                    match stage {
                        Stage::Taken => {
                            places.push((place, *recipient));
                            known.insert(*recipient, Standing::Held(Held { holder: *holder, id }));
                        }
                        Stage::Pending if entry.running => {
                            known.entry(*recipient).or_insert(Standing::Deciding(id));
                        }
                        Stage::Pending => {}
                    }
                }
            }
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
            place: None,
            pending: Vec::new(),
            taken: Vec::new(),
        }
    }
}

impl Attempt {
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
        self.drop_pending(&keys);
        self.taken.extend(&keys);
        let noted = self.note(Stage::Taken, holder, keys, Wish::Durable);
        let result = self.journal.wait(noted).await;
        if let Err(error) = &result {
            self.report("verdict", error);
        }
        result
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

    /// Ends the attempt: the client surely has the answer, so that no retry will come. Never waits.
    pub fn settle(self) {
        self.journal.shared().change(|state| {
            for (place, recipient) in &self.earlier {
                state.forget(*place, Some(&[*recipient]));
            }
            if let Some(place) = self.place {
                let taken = (!self.pending.is_empty()).then_some(self.taken.as_slice());
                state.forget(place, taken);
            }
        });
    }

    fn keys(&self, recipients: &[Recipient]) -> Vec<RecipientKey> {
        let hasher = self.journal.hasher();
        recipients.iter().map(|recipient| hasher.recipient(self.head.key, &recipient.address)).collect()
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
        let place = self.journal.shared().change(|state| {
            let place = state.live.note(self.place, &self.head, stage, holder, &recipients, true);
            state.live.prune(now);
            state.push(&Record::Noted { head: self.head.clone(), stage, holder, recipients }, wish(waiter));
            place
        });
        self.place = Some(place);
        noted
    }

    fn doubt(&self, recipients: Vec<RecipientKey>, cause: Cause, waiter: Option<oneshot::Sender<()>>) {
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
        if let Some(place) = self.place {
            self.journal.shared().change(|state| state.live.stop(place));
        }
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.doubt(pending, Cause::SessionEnded, None);
        }
    }
}
