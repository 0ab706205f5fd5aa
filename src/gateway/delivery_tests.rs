//! Every mixture of two recipients, next hop and way of answering: who holds what, and who hears what.

use std::sync::Mutex;

use bytes::Bytes;
use time::macros::datetime;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::custody;
use super::delivery::{Delivery, Fate};
use super::plan::{Speaks, plan};
use super::*;
use crate::journal;
use crate::mail::{Address, Client, Envelope, Mail, Recipient, TransactionId};
use crate::privacy::InstallationKey;
use crate::quarantine::{Config, Query, Scope};
use crate::relay::{Begun, NextHop};
use crate::scan::Scanned;
use crate::smtp::server::Answer;
use crate::store::{Bodies, Records};
use crate::verdict::Disposition;

const NOW: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);
const MESSAGE: &str = "Subject: x\r\n\r\nbody\r\n";
const ANN: &str = "ann@example.org";
const BEN: &str = "ben@example.org";

/// How the next hop answers the end of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Yes,
    Later,
    Never,
    Lost,
}

/// A next hop that notes the recipients of each message that it took.
struct Hop {
    port: u16,
    taken: Arc<Mutex<Vec<String>>>,
    ends: Arc<Mutex<Ends>>,
    playing: JoinHandle<()>,
}

impl Hop {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken: Arc<Mutex<Vec<String>>> = Arc::default();
        let ends = Arc::new(Mutex::new(Ends::Yes));
        let (log, answer) = (Arc::clone(&taken), Arc::clone(&ends));
        let playing = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    stream.write_all(b"220 hop ESMTP\r\n").await.unwrap();
                    let (mut recipients, mut in_data, mut line) = (Vec::new(), false, String::new());
                    while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
                        let reply = match line.trim_end() {
                            "." if in_data => {
                                in_data = false;
                                let ends = *answer.lock().unwrap();
                                match ends {
                                    Ends::Yes => {
                                        log.lock().unwrap().append(&mut recipients);
                                        "250 2.0.0 queued\r\n"
                                    }
                                    Ends::Later => "450 4.2.0 later\r\n",
                                    Ends::Never => "550 5.7.1 never\r\n",
                                    Ends::Lost => return,
                                }
                            }
                            _ if in_data => "",
                            "DATA" => {
                                in_data = true;
                                "354 go\r\n"
                            }
                            "RSET" => {
                                recipients.clear();
                                "250 2.0.0 Ok\r\n"
                            }
                            text if text.starts_with("EHLO") => "250 hop\r\n",
                            text => {
                                if let Some(path) = text.strip_prefix("RCPT TO:<") {
                                    recipients.push(path.trim_end_matches('>').to_owned());
                                }
                                "250 2.1.0 Ok\r\n"
                            }
                        };
                        stream.write_all(reply.as_bytes()).await.unwrap();
                        line.clear();
                    }
                });
            }
        });
        Hop { port, taken, ends, playing }
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

/// What one direction of a gateway needs to act on a message.
struct House {
    _folder: tempfile::TempDir,
    quarantine: Quarantine,
    journal: Journal,
    relay: Relay,
    hop: Hop,
    /// Transactions so far.
    count: u8,
}

impl House {
    async fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = InstallationKey::new([5; 32]);
        let records = Records::open(&folder.path().join("records.db")).await.unwrap();
        let bodies = Bodies::open(&folder.path().join("bodies")).unwrap();
        let quarantine = Quarantine::open(records, bodies, &key, Config::default()).await.unwrap();
        let clock: Clock = Arc::new(|| NOW);
        let journal =
            Journal::open(&folder.path().join("journal"), &key, journal::Config::default(), clock).unwrap().0;
        let hop = Hop::start().await;
        let next_hop = NextHop::Smtp { host: "127.0.0.1".into(), port: hop.port };
        let relay = Relay::new(crate::relay::Config::new(next_hop, "gw.example"));
        House { _folder: folder, quarantine, journal, relay, hop, count: 0 }
    }

    fn envelope(&mut self, recipients: &[&str], body: &str) -> Envelope {
        self.count += 1;
        let recipients: Vec<Recipient> =
            recipients.iter().map(|text| Address::parse(text).unwrap().into()).collect();
        let mail =
            Mail { reverse_path: Address::parse(&format!("{body}@sender.example")).ok(), ..Mail::default() };
        Envelope {
            id: TransactionId::from_random([self.count; TransactionId::LEN]),
            direction: Direction::Inbound,
            client: Client::new("192.0.2.7:2525".parse().unwrap()),
            mail,
            recipients,
        }
    }

    /// Sends one message as a session does; gives the answer, and settles it if told so.
    async fn send(
        &mut self,
        name: &str,
        recipients: &[&str],
        dispositions: &[Disposition],
        speaks: Speaks,
        client_hears: bool,
    ) -> Vec<u16> {
        let envelope = self.envelope(recipients, name);
        let Ok(Begun::Ready(mut transaction, _)) =
            self.relay.begin(Some(&envelope.client), &envelope.mail).await
        else {
            panic!("the next hop refused MAIL");
        };
        for recipient in &envelope.recipients {
            assert!(transaction.rcpt(recipient).await.unwrap().is_positive());
        }
        let body = Bytes::from_static(MESSAGE.as_bytes());
        let mut attempt = self.journal.attempt(&envelope, &journal::BodyHash::of(&body));
        let mut fates = transaction::known_fates(&attempt, speaks);
        let open: Vec<Disposition> = dispositions
            .iter()
            .zip(&fates)
            .filter(|(_, fate)| fate.is_none())
            .map(|(disposition, _)| *disposition)
            .collect();
        let mut steps = plan(&open, speaks, open.len() < fates.len()).into_iter();
        let steps: Vec<_> =
            fates.iter().map(|fate| if fate.is_none() { steps.next() } else { None }).collect();
        let scanned = Scanned::exempt();
        let delivery = Delivery {
            relay: &self.relay,
            quarantine: &self.quarantine,
            envelope: &envelope,
            body: &body,
            outgoing: std::slice::from_ref(&body),
            scanned: &scanned,
            speaks,
            now: NOW,
        };
        delivery.carry_out(&steps, &mut fates, transaction, &mut attempt).await;
        let fates: Vec<Fate> = fates.into_iter().map(Option::unwrap).collect();
        let accepted: Vec<usize> = (0..recipients.len()).collect();
        let codes = match custody::answer(&fates, &accepted, speaks, &envelope.id) {
            Answer::All(reply) => vec![reply.code()],
            Answer::Each(replies, overall) => {
                let codes: Vec<u16> = replies.iter().map(crate::mail::Reply::code).collect();
                let best = codes.contains(&250);
                assert_eq!(overall.code() == 250, best, "{codes:?}");
                codes
            }
        };
        attempt.answered(codes.contains(&250)).await;
        if client_hears && codes.contains(&250) {
            attempt.settle();
        }
        codes
    }

    /// The recipients whose copy the next hop has, and those whose copy is kept; forgets the former.
    async fn holders(&self) -> (Vec<String>, Vec<String>) {
        let mut taken = std::mem::take(&mut *self.hop.taken.lock().unwrap());
        taken.sort();
        let page = self.quarantine.list(&Scope::All, &Query::default()).await.unwrap();
        let mut kept: Vec<String> =
            page.entries.iter().map(|entry| entry.private.recipient.expose().clone()).collect();
        kept.sort();
        (taken, kept)
    }
}

const DISPOSITIONS: [Disposition; 4] =
    [Disposition::Deliver, Disposition::Quarantine, Disposition::Reject, Disposition::Defer];

/// What must come of two recipients: the replies, who is at the next hop, who is kept.
fn expected(
    dispositions: [Disposition; 2],
    ends: Ends,
    speaks: Speaks,
) -> (Vec<u16>, Vec<String>, Vec<String>) {
    let by_hop = match ends {
        Ends::Yes => 250,
        Ends::Later => 450,
        Ends::Never => 550,
        Ends::Lost => 451,
    };
    let names = [ANN, BEN];
    let whose = |wanted: &dyn Fn(Disposition) -> bool| -> Vec<String> {
        names
            .iter()
            .zip(dispositions)
            .filter(|(_, disposition)| wanted(*disposition))
            .map(|(name, _)| (*name).to_owned())
            .collect()
    };
    if speaks == Speaks::Each {
        let codes = dispositions.map(|disposition| match disposition {
            Disposition::Deliver | Disposition::Tag => by_hop,
            Disposition::Quarantine => 250,
            Disposition::Reject => 554,
            Disposition::Defer => 451,
        });
        let at_hop = whose(&|disposition| disposition == Disposition::Deliver && ends == Ends::Yes);
        return (codes.to_vec(), at_hop, whose(&|disposition| disposition == Disposition::Quarantine));
    }
    if dispositions.contains(&Disposition::Defer) {
        return (vec![451], Vec::new(), Vec::new());
    }
    if dispositions == [Disposition::Reject; 2] {
        return (vec![554], Vec::new(), Vec::new());
    }
    let relays = dispositions.contains(&Disposition::Deliver);
    if relays && ends != Ends::Yes {
        return (vec![by_hop], Vec::new(), Vec::new());
    }
    (
        vec![250],
        whose(&|disposition| disposition == Disposition::Deliver),
        whose(&|disposition| disposition != Disposition::Deliver),
    )
}

#[tokio::test]
async fn recipients_that_differ_each_have_one_holder_or_none() {
    for speaks in [Speaks::Once, Speaks::Each] {
        for ends in [Ends::Yes, Ends::Later, Ends::Never, Ends::Lost] {
            for first in DISPOSITIONS {
                for second in DISPOSITIONS {
                    let mut house = House::build().await;
                    *house.hop.ends.lock().unwrap() = ends;
                    let codes = house.send("m", &[ANN, BEN], &[first, second], speaks, true).await;
                    let (taken, kept) = house.holders().await;
                    let found = (codes, taken, kept);
                    let wanted = expected([first, second], ends, speaks);
                    assert_eq!(found, wanted, "{first:?} {second:?} {ends:?} {speaks:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_is_answered_and_not_sent_again() {
    let mut house = House::build().await;
    let (relay, keep) = (Disposition::Deliver, Disposition::Quarantine);
    for speaks in [Speaks::Once, Speaks::Each] {
        let name = format!("{speaks:?}");
        let first = house.send(&name, &[ANN, BEN], &[relay, keep], speaks, false).await;
        assert!(first.iter().all(|code| *code == 250));
        let before = house.holders().await;
        assert_eq!(before.0, [ANN]);
        let again = house.send(&name, &[ANN, BEN], &[relay, keep], speaks, true).await;
        assert_eq!(again, first);
        assert_eq!(house.holders().await, (Vec::new(), before.1), "{speaks:?}");
    }
}

#[tokio::test]
async fn the_same_message_sent_again_on_purpose_is_delivered_again() {
    let mut house = House::build().await;
    for _ in 0..2 {
        assert_eq!(house.send("m", &[ANN], &[Disposition::Deliver], Speaks::Once, true).await, [250]);
        assert_eq!(house.holders().await.0, [ANN]);
    }
}

#[tokio::test]
async fn a_retry_after_a_lost_reply_of_the_next_hop_is_sent_again() {
    let mut house = House::build().await;
    *house.hop.ends.lock().unwrap() = Ends::Lost;
    assert_eq!(house.send("m", &[ANN], &[Disposition::Deliver], Speaks::Once, true).await, [451]);
    *house.hop.ends.lock().unwrap() = Ends::Yes;
    assert_eq!(house.send("m", &[ANN], &[Disposition::Deliver], Speaks::Once, true).await, [250]);
    assert_eq!(house.holders().await.0, [ANN]);
}
