//! Releases as the next hop gets them, over a loopback port.

use std::sync::Mutex;
use std::time::Duration;

use time::macros::datetime;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::mail::{Address, BodyType, Client, Envelope, Mail, TransactionId};
use crate::privacy::InstallationKey;
use crate::quarantine::{Action, Arrival, Config, EntryId, Failure, Outcome, Scope, State, Summary};
use crate::relay::NextHop;
use crate::store::{Bodies, Records};
use crate::verdict::Scan;

const NOW: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);
const MESSAGE: &str = "Subject: x\r\n\r\n.dot\r\n\r\nlast\r\n";

/// Writes down every line it gets; answers `end` to the end of data, after a word on `held` where there is
/// one.
struct Hop {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    playing: JoinHandle<()>,
}

impl Hop {
    async fn start(end: &'static str, held: Option<Arc<Notify>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&lines);
        let playing = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                stream.write_all(b"220 hop ESMTP\r\n").await.unwrap();
                let mut in_data = false;
                let mut line = String::new();
                while stream.read_line(&mut line).await.unwrap() > 0 {
                    let reply = match line.as_str() {
                        ".\r\n" => {
                            in_data = false;
                            if let Some(held) = &held {
                                held.notified().await;
                            }
                            end
                        }
                        _ if in_data => "",
                        "DATA\r\n" => {
                            in_data = true;
                            "354 go\r\n"
                        }
                        _ if line.starts_with("EHLO") => "250-hop\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n",
                        _ => "250 Ok\r\n",
                    };
                    log.lock().unwrap().push(std::mem::take(&mut line));
                    stream.write_all(reply.as_bytes()).await.unwrap();
                }
            }
        });
        Hop { port, lines, playing }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

/// A quarantine with one message, released for each of its recipients, and the worker that delivers it to a hop.
struct House {
    folder: tempfile::TempDir,
    quarantine: Quarantine,
    entry: EntryId,
    others: Vec<EntryId>,
    stop: watch::Sender<bool>,
    worker: JoinHandle<()>,
}

impl House {
    async fn released(hop: &Hop, recipients: &str, spoil: impl FnOnce(&std::path::Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bodies = folder.path().join("bodies");
        let quarantine = Quarantine::open(
            Records::open(&folder.path().join("records.db")).await.unwrap(),
            Bodies::open(&bodies).unwrap(),
            &InstallationKey::new([5; 32]),
            Config::default(),
        )
        .await
        .unwrap();
        let recipients: Vec<_> =
            recipients.split(' ').map(|recipient| Address::parse(recipient).unwrap().into()).collect();
        let envelope = Envelope {
            id: TransactionId::from_random([1; TransactionId::LEN]),
            direction: Direction::Inbound,
            client: Client { helo: "c".into(), ..Client::new("192.0.2.7:2525".parse().unwrap()) },
            mail: Mail { smtputf8: true, body: BodyType::EightBitMime, ..Mail::default() },
            recipients: recipients.clone(),
        };
        let kept = quarantine
            .put(Arrival {
                envelope: &envelope,
                recipients: &recipients,
                body: &MESSAGE.into(),
                summary: &Summary::default(),
                scan: &Scan::default(),
                own: &[],
                received_at: NOW,
            })
            .await
            .unwrap();
        for entry in kept.entries() {
            quarantine.act(&Scope::All, entry, Action::Release, None, NOW).await.unwrap();
        }
        let mut others = kept.entries().to_vec();
        let entry = others.remove(0);
        let shard: String = envelope.id.as_str().chars().take(1).collect();
        spoil(&bodies.join(shard).join(envelope.id.as_str()));
        let next_hop = NextHop::Smtp { host: "127.0.0.1".into(), port: hop.port };
        let sender = Sender::new(Relay::new(crate::relay::Config::new(next_hop, "gw.example")));
        let outbox = Outbox {
            quarantine: quarantine.clone(),
            inbound: sender.clone(),
            outbound: sender,
            clock: Arc::new(|| NOW),
            wake: Arc::default(),
        };
        let (stop, stopped) = watch::channel(false);
        let worker = tokio::spawn(outbox.run(stopped));
        House { folder, quarantine, entry, others, stop, worker }
    }

    async fn state(&self) -> (State, Option<Failure>) {
        let entry = self.quarantine.find(&Scope::All, &self.entry).await.unwrap().unwrap();
        (entry.state, entry.failure)
    }

    /// Waits until the release has ended.
    async fn settled(&self) -> (State, Option<Failure>) {
        while matches!(self.state().await, (State::Releasing, _)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.state().await
    }
}

#[tokio::test]
async fn a_release_arrives_as_it_was_accepted_under_its_own_envelope() {
    let hop = Hop::start("250 Ok\r\n", None).await;
    let house = House::released(&hop, "postmaster", |_| ()).await;
    assert_eq!(house.settled().await, (State::Released, None));
    let wire = hop.lines().concat();
    let (commands, message) = wire.split_once("DATA\r\n").unwrap();
    let (fields, message) = message.split_once("Subject").unwrap();
    assert!(commands.contains("MAIL FROM:<> BODY=8BITMIME SMTPUTF8\r\n"), "{commands}");
    assert!(commands.contains("RCPT TO:<postmaster>\r\n"), "{commands}");
    assert_eq!(fields.lines().count(), 1, "{fields}");
    assert_eq!(message, ": x\r\n\r\n..dot\r\n\r\nlast\r\n.\r\n");
}

#[tokio::test]
async fn only_a_2xx_says_that_a_release_was_taken() {
    for (end, expected) in [
        ("550 5.1.1 No\r\n", (State::Failed, Some(Failure::Permanent(550)))),
        ("250 Ok\r\n", (State::Released, None)),
    ] {
        let hop = Hop::start(end, None).await;
        let house = House::released(&hop, "alice@example.org", |_| ()).await;
        assert_eq!(house.settled().await, expected, "{end}");
    }
    let hop = Hop::start("354 Go on\r\n", None).await;
    let house = House::released(&hop, "alice@example.org", |_| ()).await;
    let delivery = loop {
        let entry = house.quarantine.find(&Scope::All, &house.entry).await.unwrap().unwrap();
        match entry.delivery {
            Some(delivery) if delivery.attempts > 0 => break delivery,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(delivery.last_failure, Some(Failure::Unreachable));
}

#[tokio::test]
async fn stopping_finishes_the_release_that_is_under_way() {
    let held = Arc::new(Notify::new());
    let hop = Hop::start("250 Ok\r\n", Some(Arc::clone(&held))).await;
    let house = House::released(&hop, "alice@example.org", |_| ()).await;
    while hop.lines().last().is_none_or(|line| line != "last\r\n") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    house.stop.send(true).unwrap();
    held.notify_one();
    let quarantine = house.quarantine.clone();
    house.worker.await.unwrap();
    let entry = quarantine.find(&Scope::All, &house.entry).await.unwrap().unwrap();
    assert_eq!(entry.state, State::Released);
    drop(house.folder);
}

#[tokio::test]
async fn a_body_that_does_not_open_fails_for_good_and_a_store_that_fails_does_not() {
    let hop = Hop::start("250 Ok\r\n", None).await;
    let house = House::released(&hop, "a@b.example", |body| std::fs::write(body, "x").unwrap()).await;
    assert_eq!(house.settled().await, (State::Failed, Some(Failure::Unreadable)));
    let house = House::released(&hop, "a@b.example", |body| {
        std::fs::remove_file(body).unwrap();
        std::os::unix::fs::symlink(body, body).unwrap();
    })
    .await;
    // Leased and left at that: whoever takes it when the lease has ended tries again.
    while house.quarantine.next_due().await.unwrap() == Some(NOW) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    house.stop.send(true).unwrap();
    let quarantine = house.quarantine.clone();
    house.worker.await.unwrap();
    let entry = quarantine.find(&Scope::All, &house.entry).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.delivery.unwrap().attempts), (State::Releasing, 0));
    assert!(hop.lines().is_empty());
}

#[tokio::test]
async fn a_release_waits_without_a_lease_while_another_is_under_way() {
    let held = Arc::new(Notify::new());
    let hop = Hop::start("250 Ok\r\n", Some(Arc::clone(&held))).await;
    let house = House::released(&hop, "alice@example.org bob@example.org", |_| ()).await;
    while hop.lines().last().is_none_or(|line| line != "last\r\n") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut outcomes = Vec::new();
    for id in house.others.iter().chain([&house.entry]) {
        outcomes.push(house.quarantine.act(&Scope::All, id, Action::Undo, None, NOW).await.unwrap());
    }
    // The one that is under way cannot be stopped; the one that waits can, and is then not sent.
    assert!(outcomes.contains(&Outcome::LessonTakenBack(State::Releasing)), "{outcomes:?}");
    assert!(outcomes.contains(&Outcome::Done(State::Kept)), "{outcomes:?}");
    held.notify_one();
    while house.quarantine.next_due().await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(hop.lines().iter().filter(|line| line.starts_with("MAIL")).count(), 1);
}
