//! A milter as an MTA sees it, over in-memory streams, before a real quarantine and journal.

use bytes::{Buf, BufMut};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::*;
use crate::gateway::{Marking, fixture};
use crate::policy::{Exemption, OnDegraded, Policy, Thresholds};
use crate::quarantine::{Query, Scope};
use crate::relay::NextHop;

const NOW: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);
const RULES: &[u8] = b"body KEPT /keep me/\nscore KEPT 7\nbody REFUSED /refuse me/\nscore REFUSED 50\n";
const ALICE: &str = "<alice@example.org>";
const BOB: &str = "<bob@example.org>";
/// Whose mail always passes.
const POSTMASTER: &str = "<postmaster@example.org>";

/// A gateway that keeps from 6 points on and refuses from 20.
struct House {
    folder: tempfile::TempDir,
    service: Current,
    stop: watch::Sender<bool>,
    memory: Memory,
}

impl House {
    async fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policy = Arc::new(Policy {
            thresholds: Thresholds::new(4.0, 6.0, 20.0).unwrap(),
            on_degraded: OnDegraded::Ignore,
            exemptions: vec![Exemption::LocalPart("postmaster".to_owned())],
        });
        let nowhere = NextHop::Smtp { host: "127.0.0.1".into(), port: 1 };
        let gateway = fixture::gateway(folder.path(), nowhere, RULES, policy, NOW).await;
        let gateway = Gateway { marking: Marking::Full, ..gateway };
        let service = Service { gateway, message_bytes: 10_000 };
        let service = Arc::new(ArcSwap::from_pointee(service));
        House { folder, service, stop: watch::channel(false).0, memory: Memory::new(1 << 20) }
    }

    async fn connect(&self) -> Mta {
        let (stream, theirs) = tokio::io::duplex(1 << 20);
        let serving = serve(theirs, Arc::clone(&self.service), self.memory.clone(), self.stop.subscribe());
        let mut mta = Mta { stream, serving: tokio::spawn(serving) };
        mta.tell(b"O", b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff").await;
        assert_eq!(mta.hear().await, b"O\0\0\0\x06\0\0\0\x19\0\x1d\x31\x80", "what is agreed on");
        mta.tell(b"C", b"mx.sender.example\x004\x09\xdd192.0.2.7\0").await;
        mta.tell(b"H", b"mx.sender.example\0").await;
        mta
    }

    /// The recipients for whom something is kept.
    async fn kept(&self) -> Vec<String> {
        let page = self.service.load().gateway.quarantine.list(&Scope::All, &Query::default()).await.unwrap();
        let mut kept: Vec<String> =
            page.entries.iter().map(|entry| entry.private.recipient.expose().clone()).collect();
        kept.sort();
        kept
    }
}

/// The side of the MTA.
struct Mta {
    stream: DuplexStream,
    serving: JoinHandle<io::Result<()>>,
}

impl Mta {
    async fn tell(&mut self, letter: &[u8], data: &[u8]) {
        let mut packet = BytesMut::new();
        packet.put_u32(u32::try_from(data.len() + 1).unwrap());
        packet.extend_from_slice(letter);
        packet.extend_from_slice(data);
        self.stream.write_all(&packet).await.unwrap();
    }

    async fn hear(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.unwrap();
        let mut packet = vec![0; (&length[..]).get_u32() as usize];
        self.stream.read_exact(&mut packet).await.unwrap();
        packet
    }

    async fn ask(&mut self, letter: &[u8], data: &[u8]) -> Vec<u8> {
        self.tell(letter, data).await;
        self.hear().await
    }

    /// Sends a message and returns what is heard at its end, packet by packet.
    async fn send(&mut self, recipients: &[&str], fields: &[(&str, &str)], body: &str) -> Vec<String> {
        assert_eq!(self.ask(b"M", b"<ann@sender.example>\0SIZE=100\0BODY=8BITMIME\0XVERP=x\0").await, b"c");
        for recipient in recipients {
            assert_eq!(self.ask(b"R", format!("{recipient}\0").as_bytes()).await, b"c", "{recipient}");
        }
        self.tell(b"T", b"").await;
        for (name, value) in fields {
            self.tell(b"L", format!("{name}\0{value}\0").as_bytes()).await;
        }
        self.tell(b"N", b"").await;
        for piece in body.as_bytes().chunks(7) {
            self.tell(b"B", piece).await;
        }
        self.tell(b"E", b"").await;
        let mut heard = Vec::new();
        loop {
            let packet = self.hear().await;
            heard.push(String::from_utf8(packet).unwrap());
            if heard.last().unwrap().starts_with(['c', 'd', 't', 'y']) {
                return heard;
            }
        }
    }

    async fn ends(self) -> io::Result<()> {
        drop(self.stream);
        self.serving.await.unwrap()
    }
}

const FIELDS: &[(&str, &str)] = &[("Subject", " x"), ("Message-ID", " <1@sender.example>")];

/// What is heard of a message, without the id in it.
fn summary(heard: &[String]) -> String {
    let summary: Vec<String> = heard
        .iter()
        .filter(|packet| !packet.starts_with('i'))
        .map(|packet| match packet.strip_prefix('y') {
            Some(reply) => reply.chars().take(9).collect(),
            None => packet.trim_end_matches('\0').to_owned(),
        })
        .collect();
    summary.join(" ")
}

#[tokio::test]
async fn each_recipient_has_one_holder_and_a_refusal_is_everybodys() {
    for (recipients, body, heard, kept) in [
        (&[ALICE, BOB][..], "hello", "c", &[][..]),
        (&[ALICE, BOB], "keep me", "d", &["alice@example.org", "bob@example.org"]),
        (&[ALICE, POSTMASTER], "keep me", "-<alice@example.org> c", &["alice@example.org"]),
        (&[ALICE, POSTMASTER], "refuse me", "-<alice@example.org> c", &["alice@example.org"]),
        (&[ALICE, BOB], "refuse me", "554 5.7.1", &[]),
        (
            &[ALICE, POSTMASTER, "<Alice@Example.org>"],
            "keep me",
            "-<alice@example.org> -<Alice@Example.org> c",
            &["Alice@example.org", "alice@example.org"],
        ),
        (
            &[ALICE, POSTMASTER, ALICE],
            "keep me",
            "-<alice@example.org> -<alice@example.org> c",
            &["alice@example.org"],
        ),
    ] {
        let house = House::build().await;
        let mut mta = house.connect().await;
        let found = mta.send(recipients, FIELDS, body).await;
        assert_eq!(summary(&found), heard, "{recipients:?} {body}");
        let mut wanted: Vec<&str> = kept.to_vec();
        wanted.sort_unstable();
        assert_eq!(house.kept().await, wanted, "{recipients:?} {body}");
    }
}

#[tokio::test]
async fn a_quarantine_that_fails_keeps_the_message_with_the_mta() {
    let house = House::build().await;
    let mut mta = house.connect().await;
    let bodies = house.folder.path().join("bodies");
    std::fs::remove_dir_all(&bodies).unwrap();
    std::fs::write(&bodies, "in the way").unwrap();
    let heard = mta.send(&[ALICE, POSTMASTER], FIELDS, "keep me").await;
    assert_eq!(summary(&heard), "451 4.3.0");
    assert!(house.kept().await.is_empty());
}

#[tokio::test]
async fn a_retry_is_kept_once_and_an_equal_message_without_an_identity_twice() {
    let house = House::build().await;
    let mut mta = house.connect().await;
    for _ in 0..2 {
        assert_eq!(summary(&mta.send(&[ALICE], FIELDS, "keep me").await), "d");
        assert_eq!(house.kept().await, ["alice@example.org"]);
    }
    assert_eq!(summary(&mta.send(&[ALICE, BOB], FIELDS, "keep me").await), "d");
    assert_eq!(house.kept().await, ["alice@example.org", "bob@example.org"]);
    for _ in 0..2 {
        assert_eq!(summary(&mta.send(&[ALICE], &[("Subject", " x")], "keep me").await), "d");
    }
    assert_eq!(house.kept().await.len(), 4);
}

#[tokio::test]
async fn our_fields_are_added_and_forged_ones_taken_out_last_first() {
    let house = House::build().await;
    let mut mta = house.connect().await;
    let forged =
        [("X-Spam-Flag", " NO"), ("Subject", " x"), ("x-spam-flag", " NO"), ("X-Lazaret-Score", " -9")];
    let heard = mta.send(&[POSTMASTER], &forged, "keep me").await;
    assert_eq!(
        heard[..3],
        ["m\0\0\0\u{1}X-Lazaret-Score\0\0", "m\0\0\0\u{2}x-spam-flag\0\0", "m\0\0\0\u{1}X-Spam-Flag\0\0"]
    );
    assert_eq!(heard[3], "i\0\0\0\u{1}X-Lazaret-Symbols\0 KEPT\0");
    assert_eq!(heard[5], "i\0\0\0\u{1}X-Spam-Flag\0 YES\0");
    assert!(heard[6].starts_with("i\0\0\0\u{1}X-Lazaret-Id\0 "), "{heard:?}");
    assert_eq!(heard[7..], ["c"]);
}

#[tokio::test]
async fn what_is_kept_is_the_message_byte_by_byte() {
    let house = House::build().await;
    let mut mta = house.connect().await;
    let fields = [("Subject", "  folded\n\tline"), ("X-Bare", ""), ("Message-ID", " <1@x>")];
    assert_eq!(summary(&mta.send(&[ALICE], &fields, "keep me\r\n\r\n.\r\nend").await), "d");
    let quarantine = house.service.load().gateway.quarantine.clone();
    let page = quarantine.list(&Scope::All, &Query::default()).await.unwrap();
    let kept = quarantine.body(&Scope::All, &page.entries[0].id).await.unwrap().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&kept),
        "Subject:  folded\r\n\tline\r\nX-Bare:\r\nMessage-ID: <1@x>\r\n\r\nkeep me\r\n\r\n.\r\nend"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_put_off_alone() {
    let house = House::build().await;
    let mut mta = house.connect().await;
    assert_eq!(mta.ask(b"R", b"<alice@example.org>\0").await, b"t", "RCPT before MAIL");
    assert_eq!(mta.ask(b"E", b"").await, b"t", "the end of no message");
    assert_eq!(mta.ask(b"M", b"nonsense\0").await, b"t");
    assert_eq!(mta.ask(b"M", b"<>\0").await, b"c");
    assert_eq!(mta.ask(b"R", b"<nobody>\0").await, b"t");
    assert!(mta.ask(b"E", b"x").await.starts_with(b"y451 4.3.0 "), "a message for nobody");
    assert_eq!(summary(&mta.send(&[ALICE], FIELDS, &"a".repeat(20_000)).await), "552 5.3.4");
    assert_eq!(summary(&mta.send(&[ALICE], FIELDS, "keep me").await), "d", "the next one is its own");
}

#[tokio::test]
async fn a_message_that_is_given_up_leaves_nothing() {
    let house = House::build().await;
    let mut mta = house.connect().await;
    mta.ask(b"M", b"<ann@sender.example>\0").await;
    mta.ask(b"R", b"<bob@example.org>\0").await;
    mta.tell(b"B", b"keep me").await;
    mta.tell(b"A", b"").await;
    assert_eq!(summary(&mta.send(&[ALICE], FIELDS, "keep me").await), "d");
    assert_eq!(house.kept().await, ["alice@example.org"]);
    mta.ask(b"M", b"<ann@sender.example>\0").await;
    mta.tell(b"B", b"keep me").await;
    assert!(mta.ends().await.is_ok(), "an MTA may go at any time");
    assert_eq!(house.kept().await, ["alice@example.org"]);
    assert_eq!(house.memory.available_bytes(), 1 << 20, "the memory is given back");
}

#[tokio::test]
async fn memory_that_is_not_there_puts_the_message_off() {
    let mut house = House::build().await;
    house.memory = Memory::new(1_024);
    let mut mta = house.connect().await;
    assert_eq!(summary(&mta.send(&[ALICE], FIELDS, &"a".repeat(5_000)).await), "452 4.3.1");
    assert_eq!(house.memory.available_bytes(), 1_024);
}

#[tokio::test]
async fn an_mta_that_cannot_do_what_is_needed_is_left() {
    let house = House::build().await;
    for first in [
        &b"\0\0\0\x0dO\0\0\0\x06\0\0\0\x01\0\0\0\0"[..],
        b"\0\0\0\x0dO\0\0\0\x01\0\0\x01\xff\0\0\0\0",
        b"\0\0\0\x03H\0\0",
        b"\0\0\0\x01Z",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let (mut stream, theirs) = tokio::io::duplex(1 << 10);
        let serving = serve(theirs, Arc::clone(&house.service), house.memory.clone(), house.stop.subscribe());
        let serving = tokio::spawn(serving);
        stream.write_all(first).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"", "{first:?}");
        drop(serving.await.unwrap());
    }
}

#[tokio::test]
async fn an_old_mta_is_answered_step_by_step() {
    let house = House::build().await;
    let (stream, theirs) = tokio::io::duplex(1 << 20);
    let serving = serve(theirs, Arc::clone(&house.service), house.memory.clone(), house.stop.subscribe());
    let mut mta = Mta { stream, serving: tokio::spawn(serving) };
    assert_eq!(
        mta.ask(b"O", b"\0\0\0\x02\0\0\0\x3f\0\0\0\x7f").await,
        b"O\0\0\0\x02\0\0\0\x19\0\0\0\0",
        "no step is left out that the MTA does not know"
    );
    for (letter, data) in [
        (b"C", &b"localhost\0L\0\0/run/x\0"[..]),
        (b"H", b"x\0"),
        (b"M", b"<a@x.example>\0"),
        (b"R", b"<postmaster@example.org>\0"),
        (b"L", b"X-Spam-Flag\0NO\0"),
        (b"N", b""),
        (b"B", b"keep me"),
    ] {
        assert_eq!(mta.ask(letter, data).await, b"c", "{letter:?}");
    }
    let first = mta.ask(b"E", b"").await;
    assert_eq!(first, b"m\0\0\0\x01X-Spam-Flag\0\0");
    let second = mta.hear().await;
    assert!(second.starts_with(b"i\0\0\0\x01X-Lazaret-Symbols\0KEPT"), "no blank that the MTA adds too");
}

#[tokio::test]
async fn a_gateway_that_stops_finishes_the_message_in_hand() {
    let house = House::build().await;
    let mut idle = house.connect().await;
    idle.ask(b"M", b"<a@x.example>\0").await;
    idle.tell(b"A", b"").await;
    let mut busy = house.connect().await;
    busy.ask(b"M", b"<a@x.example>\0").await;
    house.stop.send_replace(true);
    idle.serving.await.unwrap().unwrap();
    assert_eq!(busy.ask(b"R", b"<alice@example.org>\0").await, b"c");
    assert_eq!(busy.ask(b"E", b"keep me").await, b"d");
    busy.serving.await.unwrap().unwrap();
    assert_eq!(house.kept().await, ["alice@example.org"]);
}

#[test]
fn values_are_folded_at_blanks() {
    let symbols = ["SOME_SYMBOL_NAME,"; 10].join(" ");
    let folded = fold("X-Lazaret-Symbols", &symbols);
    assert_eq!(folded.replace("\n ", " "), symbols);
    assert!(folded.lines().enumerate().all(|(line, text)| text.len() + if line == 0 { 19 } else { 0 } <= 78));
    assert_eq!(fold("X", &"a".repeat(200)), "a".repeat(200));
}
