//! A transaction as a session sees it, before a next hop that answers for each recipient.

use std::collections::VecDeque;

use bytes::Bytes;
use time::macros::datetime;

use super::*;
use crate::gateway::fixture;
use crate::gateway::transaction_hop::{Hop, Tongue, YES};
use crate::ingress::Handler as _;
use crate::journal::Ledger;
use crate::mail::{Address, Client, Mail, Protocol, Reply};
use crate::policy::{Exemption, OnDegraded, Thresholds};
use crate::quarantine::{Query, Scope};
use crate::relay::NextHop;
use crate::smtp::server::Answer;

const NOW: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);
const NAMED: &str = "Subject: x\r\nMessage-ID: <1@sender.example>\r\n\r\nbody\r\n";
const NAMELESS: &str = "Subject: x\r\n\r\nbody\r\n";
const ANN: &str = "ann@example.org";
const BEN: &str = "ben@example.org";

const LATER: &str = "450 4.2.0 later";
const NEVER: &str = "550 5.7.1 never";

/// One direction of a gateway before such a hop.
struct House {
    folder: tempfile::TempDir,
    gateway: Gateway,
    hop: Hop,
}

/// How a client wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Once,
    Lmtp,
    Prdr,
}

impl House {
    async fn build(tongue: Tongue) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hop = Hop::start(tongue).await;
        let (host, port) = ("127.0.0.1".into(), hop.port);
        let next_hop = match tongue {
            Tongue::Lmtp => NextHop::Lmtp { host, port },
            Tongue::Prdr => NextHop::Smtp { host, port },
        };
        let gateway = fixture::gateway(folder.path(), next_hop, b"", policy(100.0, &[]), NOW).await;
        let gateway = Gateway { unscanned: Arc::new(["0.0.0.0/0".parse().unwrap()]), ..gateway };
        House { folder, gateway, hop }
    }

    fn connect(&self, asks: Asks) -> Session {
        let protocol = if asks == Asks::Lmtp { Protocol::Lmtp } else { Protocol::Esmtp };
        let client = Client { protocol, ..Client::new("192.0.2.7:2525".parse().unwrap()) };
        Session { transaction: Transaction::new(self.gateway.clone()), client, prdr: asks == Asks::Prdr }
    }

    /// Sends a message over a session of its own, and lets it end as told.
    async fn send(&self, asks: Asks, recipients: &[&str], body: &'static str, ends: Ends) -> Vec<u16> {
        let mut session = self.connect(asks);
        let codes = session.send(recipients, body).await;
        if ends == Ends::Heard && codes.contains(&250) {
            session.transaction.settled().await;
        }
        codes
    }

    /// The recipients whose copy is kept.
    async fn kept(&self) -> Vec<String> {
        let page = self.gateway.quarantine.list(&Scope::All, &Query::default()).await.unwrap();
        let mut kept: Vec<String> =
            page.entries.iter().map(|entry| entry.private.recipient.expose().clone()).collect();
        kept.sort();
        kept
    }

    /// What the ledger says, once everything so far is in it: causes and numbers of recipients.
    async fn doubts(&self) -> Vec<(String, usize)> {
        self.gateway.journal.flush().await.unwrap();
        let lines = Ledger::new(&self.folder.path().join("journal")).read().unwrap();
        lines.into_iter().map(|line| (line.cause, line.recipients)).collect()
    }
}

/// Whether the client is known to have its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Heard,
    Lost,
}

struct Session {
    transaction: Transaction,
    client: Client,
    prdr: bool,
}

impl Session {
    /// Sends a message; returns the codes of its answer, one or one for each RCPT.
    async fn send(&mut self, recipients: &[&str], body: &'static str) -> Vec<u16> {
        let mail = Mail {
            reverse_path: Address::parse("sender@sender.example").ok(),
            prdr: self.prdr,
            ..Mail::default()
        };
        assert!(self.transaction.mail(&self.client, &mail).await.is_positive());
        for name in recipients {
            let recipient = Address::parse(name).unwrap().into();
            assert!(self.transaction.rcpt(&recipient).await.is_positive());
        }
        match self.transaction.message(Bytes::from_static(body.as_bytes())).await {
            Answer::All(reply) => vec![reply.code()],
            Answer::Each(replies, overall) => {
                let codes: Vec<u16> = replies.iter().map(Reply::code).collect();
                assert_eq!(overall.code() == 250, codes.contains(&250), "{codes:?}");
                codes
            }
        }
    }
}

/// Keeps all mail from so many points on, but for the exempted local parts.
fn policy(quarantine: f64, exempted: &[&str]) -> Arc<Policy> {
    Arc::new(Policy {
        thresholds: Thresholds::new(quarantine, quarantine, 100.0).unwrap(),
        on_degraded: OnDegraded::Ignore,
        exemptions: exempted.iter().map(|local| Exemption::LocalPart((*local).to_owned())).collect(),
    })
}

fn code(reply: &str) -> u16 {
    reply.split_once(' ').unwrap().0.parse().unwrap()
}

/// Those of Ann and Ben whose reply is this one.
fn whose(replies: [&str; 2], wanted: &str) -> Vec<String> {
    let names = [ANN, BEN].into_iter().zip(replies);
    names.filter(|(_, reply)| *reply == wanted).map(|(name, _)| name.to_owned()).collect()
}

const REPLIES: [&str; 3] = [YES, LATER, NEVER];

#[tokio::test]
async fn with_an_answer_for_each_the_next_hops_answers_are_the_clients() {
    for (tongue, asks) in [(Tongue::Lmtp, Asks::Lmtp), (Tongue::Lmtp, Asks::Prdr), (Tongue::Prdr, Asks::Prdr)]
    {
        for first in REPLIES {
            for second in REPLIES {
                let case = format!("{tongue:?} {asks:?} {first} {second}");
                let house = House::build(tongue).await;
                house.hop.answer(&[(ANN, first), (BEN, second)]);
                let codes = house.send(asks, &[ANN, BEN], NAMED, Ends::Lost).await;
                assert_eq!(codes, [code(first), code(second)], "{case}");
                assert_eq!(house.hop.taken(), whose([first, second], YES), "{case}");
                // The answers were lost: those who are held are answered, the others are sent again.
                house.hop.answer(&[]);
                let codes = house.send(asks, &[ANN, BEN], NAMED, Ends::Heard).await;
                assert_eq!(codes, [250, 250], "{case}");
                let open = [LATER, NEVER].map(|reply| whose([first, second], reply)).concat();
                let mut taken = house.hop.taken();
                taken.sort_by_key(|name| open.iter().position(|other| other == name));
                assert_eq!(taken, open, "{case}");
                assert_eq!(house.kept().await, [""; 0], "{case}");
                assert_eq!(house.doubts().await, [], "{case}");
            }
        }
    }
}

/// What one answer must be, and who is kept, when the next hop answers so for each; `held` says that somebody
/// has the message for other recipients already.
fn one_answer(replies: &[&str], held: bool) -> (u16, usize) {
    let refused = replies.iter().filter(|reply| **reply == NEVER).count();
    if replies.contains(&LATER) {
        (450, 0)
    } else if refused == replies.len() && !held {
        (550, 0)
    } else {
        (250, refused)
    }
}

#[tokio::test]
async fn with_one_answer_only_those_who_are_open_are_sent_again() {
    for body in [NAMED, NAMELESS] {
        for first in REPLIES {
            for second in REPLIES {
                for again in REPLIES {
                    let case = format!("{first} {second}, then {again}: {}", body.len());
                    let house = House::build(Tongue::Lmtp).await;
                    house.hop.answer(&[(ANN, first), (BEN, second)]);
                    let codes = house.send(Asks::Once, &[ANN, BEN], body, Ends::Heard).await;
                    let (expected, kept) = one_answer(&[first, second], false);
                    assert_eq!(codes, [expected], "{case}");
                    let taken = whose([first, second], YES);
                    assert_eq!(house.hop.taken(), taken, "{case}");
                    assert_eq!(house.kept().await.len(), kept, "{case}");
                    if expected != 450 {
                        continue;
                    }
                    let open = 2 - taken.len();
                    house.hop.answer(&[(ANN, again), (BEN, again)]);
                    let codes = house.send(Asks::Once, &[ANN, BEN], body, Ends::Heard).await;
                    let (expected, kept) = one_answer(&vec![again; open], open < 2);
                    assert_eq!(codes, [expected], "{case}");
                    assert_eq!(house.hop.taken().len(), if again == YES { open } else { 0 }, "{case}");
                    assert_eq!(house.kept().await.len(), kept, "{case}");
                    assert_eq!(house.doubts().await, [], "{case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_recipient_named_twice_is_one_recipient_with_two_answers() {
    for (tongue, asks) in [(Tongue::Lmtp, Asks::Lmtp), (Tongue::Lmtp, Asks::Prdr), (Tongue::Prdr, Asks::Prdr)]
    {
        let house = House::build(tongue).await;
        house.hop.answer(&[(BEN, LATER)]);
        let named = [ANN, BEN, ANN, BEN];
        for taken in [&[ANN][..], &[]] {
            let codes = house.send(asks, &named, NAMED, Ends::Lost).await;
            assert_eq!(codes, [250, 450, 250, 450], "{tongue:?} {asks:?}");
            assert_eq!(house.hop.taken(), taken, "{tongue:?} {asks:?}");
        }
        // Alone, and named twice.
        let codes = house.send(asks, &[ANN, ANN], "Message-ID: <2@x>\r\n\r\n", Ends::Heard).await;
        assert_eq!((codes, house.hop.taken()), (vec![250, 250], vec![ANN.to_owned()]), "{tongue:?} {asks:?}");
    }
}

#[tokio::test]
async fn a_message_without_a_message_id_is_sent_again_and_named_where_the_answer_was_lost() {
    let house = House::build(Tongue::Lmtp).await;
    let lost = ("the client may not have the answer, and its retry is not to be known".to_owned(), 2);
    for (ends, doubts) in [(Ends::Heard, vec![]), (Ends::Lost, vec![lost.clone()]), (Ends::Heard, vec![lost])]
    {
        let codes = house.send(Asks::Once, &[ANN, BEN], NAMELESS, ends).await;
        assert_eq!((codes, house.hop.taken().len()), (vec![250], 2), "{ends:?}");
        // The ledger takes its lines in order, so what was dropped is there when this is.
        house.hop.answer(&[(ANN, LATER)]);
        assert_eq!(house.send(Asks::Once, &[ANN], "x: y\r\n\r\n", Ends::Lost).await, [450]);
        house.hop.answer(&[]);
        eventually_doubts(&house, &doubts).await;
    }
}

/// A line that nobody waits for is written some time.
async fn eventually_doubts(house: &House, expected: &[(String, usize)]) {
    let written = async {
        while house.doubts().await != expected {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(30), written).await;
    assert!(in_time.is_ok(), "{:?}", house.doubts().await);
}

#[tokio::test]
async fn after_its_retry_a_message_without_a_message_id_is_a_new_one() {
    let house = House::build(Tongue::Lmtp).await;
    house.hop.answer(&[(BEN, LATER)]);
    assert_eq!(house.send(Asks::Once, &[ANN, BEN], NAMELESS, Ends::Heard).await, [450]);
    assert_eq!(house.hop.taken(), [ANN]);
    house.hop.answer(&[]);
    assert_eq!(house.send(Asks::Once, &[ANN, BEN], NAMELESS, Ends::Lost).await, [250]);
    assert_eq!(house.hop.taken(), [BEN]);
    assert_eq!(house.send(Asks::Once, &[ANN, BEN], NAMELESS, Ends::Heard).await, [250]);
    assert_eq!(house.hop.taken(), [ANN, BEN]);
    let cause = "the client may not have the answer, and its retry is not to be known";
    eventually_doubts(&house, &[(cause.to_owned(), 2)]).await;
}

#[tokio::test]
async fn a_retry_waits_for_the_attempt_before_it_and_never_longer() {
    let house = House::build(Tongue::Lmtp).await;
    house.hop.script.turns.forget_permits(1000);
    let mut first = house.connect(Asks::Once);
    let mut second = house.connect(Asks::Once);
    let meanwhile = async {
        house.hop.script.ended.acquire().await.unwrap().forget();
        // Carl is new, and one answer is for all.
        assert_eq!(second.send(&[ANN, "carl@example.org"], NAMED).await, [451]);
        assert_eq!(house.send(Asks::Lmtp, &[ANN], NAMED, Ends::Lost).await, [451]);
        house.hop.script.turns.add_permits(1000);
    };
    let (codes, ()) = futures_util::join!(first.send(&[ANN], NAMED), meanwhile);
    assert_eq!(codes, [250]);
    // The first session still stands, and nobody knows whether its client has the answer.
    assert_eq!(second.send(&[ANN, "carl@example.org"], NAMED).await, [250]);
    assert_eq!(house.hop.taken(), [ANN, "carl@example.org"]);
    drop(first);
    assert_eq!(house.doubts().await, []);
}

#[tokio::test]
async fn two_equal_messages_that_come_at_once_are_one() {
    let house = House::build(Tongue::Lmtp).await;
    let (mut first, mut second) = (house.connect(Asks::Once), house.connect(Asks::Once));
    let (one, other) = futures_util::join!(first.send(&[ANN], NAMED), second.send(&[ANN], NAMED));
    // The later one waits, or comes so late that it is answered.
    assert!([one, other].iter().all(|codes| *codes == [250] || *codes == [451]));
    assert_eq!(house.hop.taken(), [ANN]);
}

#[tokio::test]
async fn an_attempt_that_is_given_up_stands_in_nobodys_way() {
    let house = House::build(Tongue::Lmtp).await;
    house.hop.script.turns.forget_permits(1000);
    let mut first = house.connect(Asks::Once);
    {
        let mut sending = Box::pin(first.send(&[ANN], NAMED));
        let ended = house.hop.script.ended.acquire();
        tokio::select! {
            _ = &mut sending => panic!("nobody has answered"),
            turn = ended => turn.unwrap().forget(),
        }
    }
    house.hop.script.turns.add_permits(1000);
    assert_eq!(house.send(Asks::Once, &[ANN], NAMED, Ends::Heard).await, [250]);
    let cause = "the session ended while the next hop was deciding";
    eventually_doubts(&house, &[(cause.to_owned(), 1)]).await;
}

#[tokio::test]
async fn a_recipient_that_is_refused_at_the_second_rcpt_is_nobodys() {
    let (carl, all) = ("carl@example.org", [ANN, BEN, "carl@example.org"]);
    for (refused, codes, taken) in
        [(&[carl][..], [250, 250, 451], &[ANN][..]), (&[ANN, carl], [451, 250, 451], &[])]
    {
        let mut house = House::build(Tongue::Lmtp).await;
        // Ben's copy is kept, so the others are named to the next hop a second time.
        house.gateway.policy = policy(0.0, &["ann", "carl"]);
        for name in refused {
            let script = VecDeque::from(["250 2.1.5 Ok", "550 5.1.1 gone"]);
            house.hop.script.rcpts.lock().unwrap().insert((*name).to_owned(), script);
        }
        let mut session = house.connect(Asks::Lmtp);
        assert_eq!(session.send(&all, NAMED).await, codes);
        assert_eq!(house.hop.taken(), taken);
        // The session has not ended, and the retry is not told to wait for it.
        assert_eq!(house.send(Asks::Lmtp, &all, NAMED, Ends::Heard).await, [250; 3]);
        assert_eq!(house.hop.taken(), refused);
        assert_eq!(house.kept().await, [BEN]);
        session.transaction.settled().await;
        drop(session);
        assert_eq!(house.doubts().await, []);
    }
}
