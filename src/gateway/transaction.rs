//! The way of one message, from MAIL to the reply after the end of data.
//!
//! MAIL and RCPT go through to the next hop as they come, so that its refusals are the client's replies
//! and an unknown user is never bounced. At the end of data the message is scanned, policy decides for
//! each recipient, and the reply is built from [`Custody`] or is no 2xx. Whatever goes wrong here is a
//! 451: the client keeps the message.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::custody::{self, Custody};
use super::delivery::{Delivery, Fate};
use super::failure::Failure;
use super::login::Login;
use super::plan::{Speaks, Step, plan};
use super::{Gateway, trace};
use crate::ingress::Handler;
use crate::journal::{Attempt, BodyHash, Standing};
use crate::mail::{
    Address, Client, Direction, EnhancedCode, Envelope, Mail, Protocol, Recipient, Reply, TransactionId,
};
use crate::metrics::{Counter, Histogram};
use crate::policy;
use crate::relay::{self, Begun, Relay};
use crate::scan::{Busy, Met, Scanned};
use crate::smtp::server::{Answer, Offers, SignIn, SignInAnswer};
use crate::verdict::{Disposition, Finding, Scan, Symbol};

/// Bodies from this size on are hashed off the async threads: about half a millisecond.
const LONG_BODY_BYTES: usize = 512 * 1024;

/// The finding of a message that was sent to a trap as well.
const TRAPPED: Symbol = Symbol::fixed("SPAM_TRAP");
const TRAP_POINTS: f64 = 5.0;

/// The transaction of one session: none open, or one that the next hop has begun.
pub struct Transaction {
    gateway: Gateway,
    login: Login,
    open: Option<Open>,
    /// The last message that was answered 2xx, until the client is known to have that answer.
    unsettled: Option<Attempt>,
}

struct Open {
    envelope: Envelope,
    /// For each RCPT that was accepted, the place of its recipient in the envelope.
    accepted: Vec<usize>,
    /// The way onwards: the gateway's, or that of a client who has signed in with the next hop.
    way: Relay,
    relay: relay::Transaction,
}

/// A message whose data has ended.
struct Arrived<'a> {
    envelope: &'a Envelope,
    way: &'a Relay,
    body: &'a Bytes,
    speaks: Speaks,
}

impl Handler for Transaction {
    async fn offers(&mut self, client: &Client) -> Offers {
        Offers { mechanisms: self.login.mechanisms(client), ..self.gateway.relay.offers().await }
    }

    async fn sign_in(&mut self, client: &Client, step: SignIn) -> SignInAnswer {
        self.login.step(client, step).await
    }

    async fn mail(&mut self, client: &Client, mail: &Mail) -> Reply {
        self.reset().await;
        if let Err(reply) = self.login.check_mail(&self.gateway.access, client, mail).await {
            return reply;
        }
        let mut random = [0u8; TransactionId::LEN];
        if getrandom::fill(&mut random).is_err() {
            return Reply::new(451, EnhancedCode(4, 3, 0), "local trouble, try again");
        }
        let envelope = Envelope {
            id: TransactionId::from_random(random),
            direction: self.gateway.direction,
            client: client.clone(),
            mail: mail.clone(),
            recipients: Vec::new(),
        };
        let relay = self.login.relay(client).unwrap_or(&self.gateway.relay).clone();
        match relay.begin(Some(client), mail).await {
            Ok(Begun::Ready(transaction, reply)) => {
                let open = Open { envelope, accepted: Vec::new(), way: relay, relay: transaction };
                self.open = Some(open);
                reply
            }
            Ok(Begun::Refused(reply)) => reply,
            Err(error) => fail_command(&envelope.id, error),
        }
    }

    async fn rcpt(&mut self, recipient: &Recipient) -> Reply {
        let Some(open) = &mut self.open else {
            return Reply::new(503, EnhancedCode(5, 5, 1), "MAIL first");
        };
        if let Err(reply) = self.gateway.access.check_recipient(&recipient.address) {
            return reply;
        }
        // Named twice, it is one recipient all the same: one copy, one entry, one release.
        let known = open.envelope.recipients.iter().position(|known| known.address == recipient.address);
        if let Some(place) = known {
            open.accepted.push(place);
            return Reply::new(250, EnhancedCode(2, 1, 5), "Ok");
        }
        if self.gateway.is_trap(&recipient.address) {
            // The next hop does not know it.
            open.accepted.push(open.envelope.recipients.len());
            open.envelope.recipients.push(recipient.clone());
            return Reply::new(250, EnhancedCode(2, 1, 5), "Ok");
        }
        match open.relay.rcpt(recipient).await {
            Ok(reply) => {
                if reply.is_positive() {
                    open.accepted.push(open.envelope.recipients.len());
                    open.envelope.recipients.push(recipient.clone());
                }
                reply
            }
            Err(error) => fail_command(&open.envelope.id, error),
        }
    }

    async fn message(&mut self, body: Bytes) -> Answer {
        let started = std::time::Instant::now();
        let Some(Open { envelope, accepted, way, relay }) = self.open.take() else {
            return Answer::All(Reply::new(503, EnhancedCode(5, 5, 1), "MAIL first"));
        };
        let speaks = match envelope.client.protocol {
            Protocol::Lmtp => Speaks::Each,
            Protocol::Smtp | Protocol::Esmtp if envelope.mail.prdr && accepted.len() > 1 => Speaks::Each,
            Protocol::Smtp | Protocol::Esmtp => Speaks::Once,
        };
        let mut attempt = self.gateway.journal.attempt(&envelope, &hash(&body).await);
        if !trace::has_identity(&body) {
            attempt.be_unrecognisable();
        }
        let mut fates = known_fates(&attempt, speaks);
        let scan = if fates.iter().all(Option::is_some) {
            relay.abandon().await;
            Scan::default()
        } else {
            let arrived = Arrived { envelope: &envelope, way: &way, body: &body, speaks };
            self.decide_and_deliver(&arrived, relay, &mut fates, &mut attempt).await
        };
        let fates: Vec<Fate> = fates
            .into_iter()
            .map(|fate| fate.unwrap_or_else(|| Err(Arc::new(Failure::Internal("a recipient has no fate")))))
            .collect();
        for failure in failures(&fates) {
            failure.report(&envelope.id);
        }
        let answer = custody::answer(&fates, &accepted, speaks, &envelope.id);
        if self.gateway.direction == Direction::Outbound {
            self.gateway.remember_correspondents(&envelope, &fates);
        }
        let outcome = outcome(&fates, speaks);
        Histogram::Transaction.record(started.elapsed());
        Counter::Transactions
            .increment(&[("direction", self.gateway.direction.as_str()), ("outcome", outcome)]);
        let (Answer::All(reply) | Answer::Each(_, reply)) = &answer;
        self.gateway.log(&envelope, body.len(), &scan, outcome, reply.code());
        // A client that hears 2xx and says something more has it from us. Where it must come back, or does
        // not get the answer, the journal answers for those that are in custody.
        attempt.answered(reply.is_positive()).await;
        if reply.is_positive() {
            self.unsettled = Some(attempt);
        }
        answer
    }

    async fn settled(&mut self) {
        if let Some(attempt) = self.unsettled.take() {
            attempt.settle();
        }
    }

    async fn reset(&mut self) {
        if let Some(Open { relay, .. }) = self.open.take() {
            relay.abandon().await;
        }
    }
}

impl Transaction {
    /// Makes the handler of a new session.
    pub fn new(gateway: Gateway) -> Self {
        let login = Login::new(gateway.sign_ins.clone());
        Transaction { gateway, login, open: None, unsettled: None }
    }

    /// Scans, decides for each recipient without a fate, and acts. Returns what was found.
    async fn decide_and_deliver(
        &self,
        arrived: &Arrived<'_>,
        relay: relay::Transaction,
        fates: &mut [Option<Fate>],
        attempt: &mut Attempt,
    ) -> Scan {
        let Arrived { envelope, way, body, speaks } = *arrived;
        let failed = match self.gateway.scan(body, envelope).await {
            Ok(scanned) if trace::is_loop(&scanned, body) => (Failure::Loop, scanned.scan),
            Ok(scanned) => {
                let (steps, flagged) = self.gateway.plan(envelope, &scanned, speaks, fates);
                let now = (self.gateway.clock)();
                let shown = shown(&scanned, &steps);
                match trace::outgoing(&self.gateway, envelope, body, &shown, flagged, now) {
                    Ok(outgoing) => {
                        let delivery = Delivery {
                            relay: way,
                            quarantine: &self.gateway.quarantine,
                            envelope,
                            body,
                            outgoing: &outgoing,
                            scanned: &scanned,
                            speaks,
                            now,
                        };
                        delivery.carry_out(&steps, fates, relay, attempt).await;
                        return shown.into_owned();
                    }
                    Err(failure) => (failure, shown.into_owned()),
                }
            }
            Err(Busy) => (Failure::Busy, Scan::default()),
        };
        relay.abandon().await;
        let (failure, scan) = failed;
        let failure = Arc::new(failure);
        for fate in fates.iter_mut().filter(|fate| fate.is_none()) {
            *fate = Some(Err(Arc::clone(&failure)));
        }
        scan
    }
}

impl Gateway {
    /// Scans a message, unless a written exemption says that those of its client are not.
    pub(super) async fn scan(&self, body: &Bytes, envelope: &Envelope) -> Result<Scanned, Busy> {
        let peer = envelope.client.peer.ip().to_canonical();
        if self.unscanned.iter().any(|network| network.contains(&peer)) {
            return Ok(Scanned::exempt());
        }
        let mut scanned = self.scanner.scan(body.clone(), envelope, Met::InSession, (self.clock)()).await?;
        if envelope.recipients.iter().any(|recipient| self.is_trap(&recipient.address)) {
            let text = "It was also sent to an address that nobody uses, and that is there to catch spam.";
            scanned.scan.findings.push(Finding::new(TRAPPED, TRAP_POINTS, text));
        }
        Ok(scanned)
    }

    /// Remembers to whom one of our people wrote.
    fn remember_correspondents(&self, envelope: &Envelope, fates: &[Fate]) {
        let Some(person) = &envelope.mail.reverse_path else { return };
        let relayed = envelope
            .recipients
            .iter()
            .zip(fates)
            .filter(|(_, fate)| fate.as_ref().is_ok_and(|custody| custody.holder() == Custody::RELAYED));
        let addresses = relayed.map(|(recipient, _)| &recipient.address);
        self.scanner.reputation().wrote(person, addresses, (self.clock)().unix_timestamp());
    }

    /// Whether nobody uses an address, and what is sent there is spam.
    fn is_trap(&self, address: &Address) -> bool {
        !self.traps.is_empty() && self.traps.contains(&address.to_normalized())
    }

    /// Applies policy to every recipient that has no fate; says also whether the message is marked as spam.
    pub(super) fn plan(
        &self,
        envelope: &Envelope,
        scanned: &Scanned,
        speaks: Speaks,
        fates: &[Option<Fate>],
    ) -> (Vec<Option<Step>>, bool) {
        let (mut dispositions, mut is_trapped) = (Vec::new(), false);
        for (place, recipient) in envelope.recipients.iter().enumerate() {
            if fates.get(place).is_none_or(Option::is_some) {
                continue;
            }
            let is_trap = self.is_trap(&recipient.address);
            is_trapped |= is_trap;
            // Nobody else would hold it.
            let disposition = match policy::decide(&scanned.scan_for(place), &self.policy, &recipient.address)
            {
                Disposition::Deliver | Disposition::Tag if is_trap => Disposition::Quarantine,
                disposition => disposition,
            };
            Counter::Dispositions.increment(&[
                ("direction", envelope.direction.as_str()),
                ("disposition", disposition.as_str()),
            ]);
            dispositions.push(disposition);
        }
        let flagged = dispositions.contains(&Disposition::Tag);
        let is_kept = dispositions.contains(&Disposition::Quarantine);
        let is_settled = is_kept || dispositions.iter().all(|disposition| disposition.is_relayed());
        if self.implies && is_settled && envelope.direction == Direction::Inbound {
            self.scanner.learned().remember(scanned, is_kept, (self.clock)());
        }
        if is_settled && envelope.direction == Direction::Inbound && (is_trapped || self.learns_by_itself) {
            self.scanner.learned().teach_itself(scanned, is_trapped, (self.clock)());
        }
        let mut steps = plan(&dispositions, speaks, dispositions.len() < fates.len()).into_iter();
        (fates.iter().map(|fate| if fate.is_none() { steps.next() } else { None }).collect(), flagged)
    }

    /// One line per transaction: ids and symbols, no address.
    pub(super) fn log(&self, envelope: &Envelope, size_bytes: usize, scan: &Scan, outcome: &str, reply: u16) {
        let sender = envelope.mail.reverse_path.as_ref().map_or_else(String::new, |address| {
            self.pseudonyms.pseudonym("address", &address.to_normalized()).to_string()
        });
        let symbols: Vec<&str> = scan.findings.iter().map(|finding| finding.symbol.as_str()).collect();
        tracing::info!(
            id = %envelope.id,
            direction = envelope.direction.as_str(),
            client = %envelope.client.address.ip(),
            sender,
            recipients = envelope.recipients.len(),
            size_bytes,
            score = %scan.score(),
            symbols = symbols.join(","),
            outcome,
            reply,
            scan_us = u64::try_from(scan.elapsed.as_micros()).unwrap_or(u64::MAX),
            "transaction"
        );
    }
}

/// Returns what the header of a message that goes on says of it, and the log: what was found for the one recipient who
/// gets it, or the one there is, and for all where there are several.
pub(super) fn shown<'s>(scanned: &'s Scanned, steps: &[Option<Step>]) -> Cow<'s, Scan> {
    let one = |is_meant: fn(Step) -> bool| {
        let mut places =
            (0..).zip(steps).filter(|(_, step)| step.is_some_and(is_meant)).map(|(place, _)| place);
        places.next().filter(|_| places.next().is_none())
    };
    let is_relayed = steps.contains(&Some(Step::Relay));
    let place = if is_relayed { one(|step| step == Step::Relay) } else { one(|_| true) };
    place.map_or(Cow::Borrowed(&scanned.scan), |place| scanned.scan_for(place))
}

/// Returns the fates that earlier attempts have settled: the journal has the proof, or another session of the
/// same client is about to get it. Where one answer is for all and somebody must wait, all wait.
pub(super) fn known_fates(attempt: &Attempt, speaks: Speaks) -> Vec<Option<Fate>> {
    let standings = attempt.standings();
    let waits = speaks == Speaks::Once && standings.iter().any(|s| matches!(s, Standing::Deciding(_)));
    let to_fate = |standing: &Standing| match standing {
        Standing::Held(held) => Some(Ok(Custody::earlier(held))),
        Standing::New if !waits => None,
        Standing::New | Standing::Deciding(_) => Some(Err(Arc::new(Failure::Undecided))),
    };
    standings.iter().map(to_fate).collect()
}

/// Hashes a body; a long one off the async threads.
pub(super) async fn hash(body: &Bytes) -> BodyHash {
    if body.len() < LONG_BODY_BYTES {
        return BodyHash::of(body);
    }
    let copy = body.clone();
    match tokio::task::spawn_blocking(move || BodyHash::of(&copy)).await {
        Ok(hash) => hash,
        Err(_) => BodyHash::of(body),
    }
}

fn fail_command(id: &TransactionId, error: relay::Error) -> Reply {
    let failure = Failure::from(error);
    failure.report(id);
    failure.to_reply(id)
}

/// Returns each failure once, however many recipients share it.
pub(super) fn failures(fates: &[Fate]) -> Vec<&Arc<Failure>> {
    let mut found: Vec<&Arc<Failure>> = Vec::new();
    for failure in fates.iter().filter_map(|fate| fate.as_ref().err()) {
        if !found.iter().any(|known| Arc::ptr_eq(known, failure)) {
            found.push(failure);
        }
    }
    found
}

/// Returns the label of the log and the metrics.
fn outcome(fates: &[Fate], speaks: Speaks) -> &'static str {
    let is_taken = fates.iter().any(Result::is_ok);
    match custody::worst(fates) {
        Some(failure) if speaks == Speaks::Once || !is_taken => return failure.outcome(),
        Some(_) => return "in part",
        None => {}
    }
    let mut holders = fates.iter().flatten().map(Custody::holder);
    match holders.next() {
        Some(first) if holders.all(|holder| holder == first) => first,
        _ => "divided",
    }
}
