//! Carries a plan out: keeps, relays, and says for each recipient who holds the message now.
//!
//! Whatever a step returns, a recipient ends with one fate: [`Custody`], built from the holder's own proof,
//! or a [`Failure`], which the client hears as a refusal or a request to come back. What the journal is told
//! follows the proofs; it never makes one.

use std::sync::Arc;

use bytes::Bytes;
use time::OffsetDateTime;

use super::Custody;
use super::failure::Failure;
use super::plan::{Speaks, Step};
use crate::journal::{self, Attempt, Cause, Holder};
use crate::mail::{Envelope, Recipient};
use crate::quarantine::{Arrival, Kept, Provisional, Quarantine, Summary};
use crate::relay::{self, Begun, Outcome, Relay};
use crate::scan::Scanned;
use crate::verdict::{Finding, Scan, Symbol};

/// What became of the message for one recipient.
pub(super) type Fate = Result<Custody, Arc<Failure>>;

/// The finding of a message that the next hop took for some recipients and refused for this one, where the
/// client hears one answer.
const REFUSED_LATER: Symbol = Symbol::fixed("NEXT_HOP_REFUSED");

/// A message whose plan is made.
pub(super) struct Delivery<'a> {
    pub(super) relay: &'a Relay,
    pub(super) quarantine: &'a Quarantine,
    pub(super) envelope: &'a Envelope,
    pub(super) body: &'a Bytes,
    pub(super) outgoing: &'a [Bytes],
    pub(super) scanned: &'a Scanned,
    pub(super) speaks: Speaks,
    pub(super) now: OffsetDateTime,
}

impl Delivery<'_> {
    /// Does what the plan says. `steps` has a step for each recipient of the envelope that is not `held`
    /// already, `fates` their places; every fate is filled in when this returns.
    pub(super) async fn carry_out(
        &self,
        steps: &[Option<Step>],
        fates: &mut [Option<Fate>],
        transaction: relay::Transaction,
        attempt: &mut Attempt,
    ) {
        let (relayed, kept) = (places(steps, Step::Relay), places(steps, Step::Keep));
        settle(fates, &places(steps, Step::Refuse), || Failure::Rejected);
        settle(fates, &places(steps, Step::Defer), || Failure::Deferred);
        self.announce(&relayed, &kept, attempt).await;
        if relayed.is_empty() {
            transaction.abandon().await;
            self.keep(&kept, &[], fates, attempt).await;
            return;
        }
        let whole = relayed.len() == steps.len();
        let transaction = if whole {
            Some(transaction)
        } else {
            transaction.abandon().await;
            None
        };
        // What is kept comes first. Where each recipient has an answer, it stands by itself; where one
        // answers for all, it stays invisible until the next hop has decided (invariant 4).
        let mut provisional = None;
        if !kept.is_empty() && self.speaks == Speaks::Each {
            self.keep(&kept, &[], fates, attempt).await;
        } else if !kept.is_empty() {
            let recipients = self.recipients(&kept);
            match self.put_provisional(&recipients, &self.own(&kept)).await {
                Ok(put) => provisional = Some(put),
                Err(failure) => {
                    let all: Vec<usize> = kept.iter().chain(&relayed).copied().collect();
                    self.give_up(&all, failure, fates, attempt);
                    return;
                }
            }
        }
        let transaction = match transaction {
            Some(transaction) => Ok(Some((transaction, relayed.clone()))),
            None => self.begin_again(&relayed, fates, attempt).await,
        };
        match transaction {
            Ok(Some((transaction, offered))) => {
                let outcomes = transaction.data(self.outgoing).await;
                self.take(&offered, outcomes, fates, attempt).await;
            }
            Ok(None) => {}
            Err(failure) => self.give_up(&relayed, failure, fates, attempt),
        }
        if self.speaks == Speaks::Once {
            self.agree(&relayed, &kept, provisional, fates, attempt).await;
        }
    }

    /// Does what is ours of a plan whose other part is the client's, which passes the message on by itself:
    /// those recipients have no fate here.
    pub(super) async fn keep_what_is_ours(
        &self,
        steps: &[Option<Step>],
        fates: &mut [Option<Fate>],
        attempt: &mut Attempt,
    ) {
        let kept = places(steps, Step::Keep);
        settle(fates, &places(steps, Step::Refuse), || Failure::Rejected);
        settle(fates, &places(steps, Step::Defer), || Failure::Deferred);
        self.announce(&[], &kept, attempt).await;
        self.keep(&kept, &[], fates, attempt).await;
    }

    /// Writes the next hop's outcomes into the fates, and into the journal first.
    async fn take(
        &self,
        places: &[usize],
        outcomes: Vec<Outcome>,
        fates: &mut [Option<Fate>],
        attempt: &mut Attempt,
    ) {
        let mut outcomes = outcomes.into_iter();
        let (mut taken, mut doubtful, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for at in places {
            let fate = match outcomes.next() {
                Some(Outcome::Accepted(accepted)) => {
                    taken.push(*at);
                    Ok(Custody::relayed(&self.envelope.id, &accepted))
                }
                Some(Outcome::Refused(reply)) => {
                    refused.push(*at);
                    Err(Arc::new(Failure::Refused(reply)))
                }
                Some(Outcome::Failed(error)) => {
                    let list = if error.is_ambiguous() { &mut doubtful } else { &mut refused };
                    list.push(*at);
                    Err(Arc::new(Failure::NextHop(error)))
                }
                None => {
                    doubtful.push(*at);
                    Err(Arc::new(Failure::Internal("the next hop has no outcome for a recipient")))
                }
            };
            set(fates, *at, fate);
        }
        attempt.refused(&self.recipients(&refused));
        attempt.doubtful(&self.recipients(&doubtful), Cause::ReplyLost).await;
        attempt.taken(&self.recipients(&taken), Holder::NextHop).await.unwrap_or_else(keeps_its_proof);
    }

    /// Brings the fates to one answer: all are in custody, or the client tries again or hears a refusal.
    ///
    /// What the next hop has taken for some stays taken: the journal answers for them when the client comes
    /// back for the others. Those whom it refuses for good when somebody has the message, from now or from an
    /// earlier attempt, are kept, since nobody would hear of the refusal.
    async fn agree(
        &self,
        relayed: &[usize],
        kept: &[usize],
        provisional: Option<Provisional>,
        fates: &mut [Option<Fate>],
        attempt: &mut Attempt,
    ) {
        let failed: Vec<usize> = relayed.iter().copied().filter(|at| failure(fates, *at).is_some()).collect();
        let is_held = fates.iter().any(|fate| matches!(fate, Some(Ok(_))));
        let failures = || failed.iter().filter_map(|at| failure(fates, *at));
        let open = failures().find(|failure| !failure.is_final());
        let verdict = if is_held { open } else { open.or_else(|| failures().next()) };
        if let Some(failure) = verdict {
            if let Some(provisional) = provisional {
                self.withdraw(provisional).await;
            }
            attempt.refused(&self.recipients(kept));
            share(fates, kept.iter(), &failure);
            return;
        }
        match provisional {
            Some(provisional) if failed.is_empty() => match provisional.commit().await {
                Ok(proof) => self.proven(kept, &proof, fates, attempt).await,
                Err(error) => self.give_up(kept, Failure::Quarantine(error), fates, attempt),
            },
            provisional => {
                if let Some(provisional) = provisional {
                    self.withdraw(provisional).await;
                }
                self.announce(&[], &failed, attempt).await;
                let places: Vec<usize> = kept.iter().chain(&failed).copied().collect();
                self.keep(&places, &failed, fates, attempt).await;
            }
        }
    }

    /// Keeps the message for the recipients at these places; the next hop has refused it for some of them.
    async fn keep(
        &self,
        places: &[usize],
        refused: &[usize],
        fates: &mut [Option<Fate>],
        attempt: &mut Attempt,
    ) {
        if places.is_empty() {
            return;
        }
        let mut scan = self.scanned.scan.clone();
        if let Some(Failure::Refused(reply)) = refused.iter().find_map(|at| failure(fates, *at)).as_deref() {
            let text = format!(
                "The next mail server took this message for other recipients and refused it here: {} {}",
                reply.code(),
                reply.lines().join(" ")
            );
            scan.findings.push(Finding::new(REFUSED_LATER, 0.0, text));
        }
        let recipients = self.recipients(places);
        let summary = Summary::of(&self.scanned.message);
        let own = self.own(places);
        match self.quarantine.put(self.arrival(&recipients, &summary, &scan, &own)).await {
            Ok(proof) => self.proven(places, &proof, fates, attempt).await,
            Err(error) => self.give_up(places, Failure::Quarantine(error), fates, attempt),
        }
    }

    async fn put_provisional(
        &self,
        recipients: &[Recipient],
        own: &[Vec<Finding>],
    ) -> Result<Provisional, Failure> {
        let summary = Summary::of(&self.scanned.message);
        let arrival = self.arrival(recipients, &summary, &self.scanned.scan, own);
        Ok(self.quarantine.put_provisional(arrival).await?)
    }

    async fn proven(
        &self,
        places: &[usize],
        proof: &Kept,
        fates: &mut [Option<Fate>],
        attempt: &mut Attempt,
    ) {
        for at in places {
            set(fates, *at, Ok(Custody::kept(&self.envelope.id, proof)));
        }
        let noted = attempt.taken(&self.recipients(places), Holder::Quarantine).await;
        noted.unwrap_or_else(keeps_its_proof);
    }

    /// Notes what is about to happen, so that a death in the middle is known at the next start.
    async fn announce(&self, relayed: &[usize], kept: &[usize], attempt: &mut Attempt) {
        for (places, holder) in [(relayed, Holder::NextHop), (kept, Holder::Quarantine)] {
            attempt.begin(&self.recipients(places), holder).await;
        }
    }

    /// Nobody took the message for these.
    fn give_up(&self, places: &[usize], failure: Failure, fates: &mut [Option<Fate>], attempt: &mut Attempt) {
        attempt.refused(&self.recipients(places));
        share(fates, places.iter(), &Arc::new(failure));
    }

    /// What is left of provisional entries is withdrawn later, and nobody was told that they are kept.
    async fn withdraw(&self, provisional: Provisional) {
        if let Err(error) = provisional.withdraw().await {
            Failure::Quarantine(error).report(&self.envelope.id);
        }
    }

    /// Opens a transaction for only those who get the message now. They were all accepted a moment ago; one
    /// that no longer is fails alone where each has an answer, and all with it where one answers for all.
    /// Returns nothing where nobody is left.
    async fn begin_again(
        &self,
        places: &[usize],
        fates: &mut [Option<Fate>],
        attempt: &mut Attempt,
    ) -> Result<Option<(relay::Transaction, Vec<usize>)>, Failure> {
        let (client, mail) = (&self.envelope.client, &self.envelope.mail);
        let mut transaction = match self.relay.begin(Some(client), mail).await? {
            Begun::Ready(transaction, _) => transaction,
            Begun::Refused(reply) => return Err(Failure::changed_its_mind(reply)),
        };
        let mut offered = Vec::with_capacity(places.len());
        for at in places {
            let Some(recipient) = self.envelope.recipients.get(*at) else { continue };
            let reply = match transaction.rcpt(recipient).await {
                Ok(reply) if reply.is_positive() => {
                    offered.push(*at);
                    continue;
                }
                Ok(reply) => Failure::changed_its_mind(reply),
                Err(error) => Failure::from(error),
            };
            if self.speaks == Speaks::Once {
                transaction.abandon().await;
                return Err(reply);
            }
            self.give_up(&[*at], reply, fates, attempt);
        }
        if offered.is_empty() {
            transaction.abandon().await;
            return Ok(None);
        }
        Ok(Some((transaction, offered)))
    }

    fn arrival<'b>(
        &'b self,
        recipients: &'b [Recipient],
        summary: &'b Summary,
        scan: &'b Scan,
        own: &'b [Vec<Finding>],
    ) -> Arrival<'b> {
        let Delivery { envelope, body, now, .. } = *self;
        Arrival { envelope, recipients, body, summary, scan, own, received_at: now }
    }

    /// Returns what was found for each recipient alone.
    fn own(&self, places: &[usize]) -> Vec<Vec<Finding>> {
        places.iter().map(|at| self.scanned.own_of(*at).cloned().collect()).collect()
    }

    fn recipients(&self, places: &[usize]) -> Vec<Recipient> {
        places.iter().filter_map(|at| self.envelope.recipients.get(*at)).cloned().collect()
    }
}

/// Returns where a step stands in a plan.
fn places(steps: &[Option<Step>], wanted: Step) -> Vec<usize> {
    steps.iter().enumerate().filter(|(_, step)| **step == Some(wanted)).map(|(at, _)| at).collect()
}

/// The journal has logged that it failed. The proof stands without it: what suffers is the answer to a retry.
fn keeps_its_proof(_: journal::Error) {}

fn set(fates: &mut [Option<Fate>], at: usize, fate: Fate) {
    if let Some(place) = fates.get_mut(at) {
        *place = Some(fate);
    }
}

fn settle(fates: &mut [Option<Fate>], places: &[usize], failure: fn() -> Failure) {
    share(fates, places.iter(), &Arc::new(failure()));
}

fn share<'a>(fates: &mut [Option<Fate>], places: impl Iterator<Item = &'a usize>, failure: &Arc<Failure>) {
    for at in places {
        // What is in custody stays so.
        if !matches!(fates.get(*at), Some(Some(Ok(_)))) {
            set(fates, *at, Err(Arc::clone(failure)));
        }
    }
}

fn failure(fates: &[Option<Fate>], at: usize) -> Option<Arc<Failure>> {
    match fates.get(at) {
        Some(Some(Err(failure))) => Some(Arc::clone(failure)),
        _ => None,
    }
}
