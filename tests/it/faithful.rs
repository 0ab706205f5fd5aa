//! The accepted bytes never change: every message of other parsers' tests goes through, byte by byte.

use std::collections::BTreeMap;
use std::process::Command;

use crate::parts::{Client, Gateway, Hop, files_below, needs_test_data, scratch};

/// Fields that the gateway adds on top, by their beginning.
const ADDED: [&[u8]; 3] = [b"Received: from client.example ", b"X-Lazaret-", b"X-Spam-Flag: "];

#[test]
fn every_message_arrives_as_it_was_sent_below_our_own_fields() {
    let Some(archive) = needs_test_data("messages.tar.xz") else { return };
    let folder = scratch();
    let mail = folder.path().join("mail");
    std::fs::create_dir(&mail).unwrap();
    let unpacked = Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(&mail).status().unwrap();
    assert!(unpacked.success());
    let hop = Hop::start();
    // All of it passes: what it scores is no matter here.
    let keys = format!(
        "inbound.next_hop = \"smtp://{}\"\nlog = \"error\"\ninbound.tag = 9000\ninbound.quarantine = 9000\n\
         inbound.reject = 9000\ninbound.on_degraded = \"ignore\"\nsmtp.max_errors = 10000",
        hop.address
    );
    let gateway = Gateway::start(folder.path(), &keys);

    let mut client = Client::connect(gateway.inbound).unwrap();
    let (mut same, mut refused, mut forged) = (0, BTreeMap::<String, Vec<String>>::new(), Vec::new());
    let files = files_below(&mail);
    for file in &files {
        let name = file.strip_prefix(&mail).unwrap().display().to_string();
        let sent = as_a_client_would(&std::fs::read(file).unwrap());
        let send = |client: &mut Client| {
            client.send_bytes("MAIL FROM:<ann@sender.example> BODY=8BITMIME", &["alice@example.org"], &sent)
        };
        let reply = match send(&mut client) {
            // A session takes so many messages and no more, and closes after a doubtful end.
            Ok(reply) if !reply.starts_with("421") => reply,
            Ok(_) | Err(_) => {
                client = Client::connect(gateway.inbound).unwrap();
                send(&mut client).unwrap()
            }
        };
        let taken = hop.take();
        if !reply.starts_with('2') {
            assert!(reply.starts_with('5') && taken.is_empty(), "{name}: {reply}");
            let words: Vec<&str> = reply.split(' ').take(2).collect();
            refused.entry(words.join(" ")).or_default().push(name);
            continue;
        }
        assert_eq!(taken.len(), 1, "{name}");
        if differs(&taken[0], &sent) {
            // A message that already has fields of our own names loses them: they would be forged.
            assert!(has_forged_fields(&sent), "{name} does not arrive as it was sent");
            forged.push(name);
        } else {
            same += 1;
        }
    }
    println!("{} messages: {same} arrived as they were sent", files.len());
    println!("{} lost forged fields: {forged:?}", forged.len());
    for (reply, names) in &refused {
        println!("{} refused with {reply}: {names:?}", names.len());
    }
    let framing = ["550 5.6.11", "554 5.4.6"];
    let astray: Vec<&String> = refused.keys().filter(|reply| !framing.contains(&reply.as_str())).collect();
    assert!(astray.is_empty(), "refused for neither their framing nor their hops: {astray:?}");
    assert!(files.len() >= 1_000 && same >= files.len() * 9 / 10, "{same} of {}", files.len());
}

/// Gives every line the one line end that mail has, the last one too.
fn as_a_client_would(file: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(file.len() + file.len() / 32 + 2);
    let mut rest = file;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        wire.extend_from_slice(&rest[..at]);
        wire.extend_from_slice(b"\r\n");
        rest = &rest[at..];
        rest = rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]);
    }
    wire.extend_from_slice(rest);
    if !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

/// Whether something else arrived than our own fields on top of what was sent.
fn differs(arrived: &[u8], sent: &[u8]) -> bool {
    // A mailbox's separator stays the first line, where it was.
    let separator = if sent.starts_with(b"From ") { line_len(sent) } else { 0 };
    let Some(mut arrived) = arrived.strip_prefix(&sent[..separator]) else { return true };
    let sent = &sent[separator..];
    while arrived != sent && ADDED.iter().any(|field| arrived.starts_with(field)) {
        arrived = &arrived[line_len(arrived)..];
        while arrived.starts_with(b" ") && arrived != sent {
            arrived = &arrived[line_len(arrived)..];
        }
    }
    // A message without a header gets the empty line that keeps its text a text.
    arrived != sent && arrived.strip_prefix(b"\r\n") != Some(sent)
}

fn line_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

fn has_forged_fields(sent: &[u8]) -> bool {
    let text = String::from_utf8_lossy(sent).to_ascii_lowercase();
    text.lines().any(|line| line.starts_with("x-lazaret-") || line.starts_with("x-spam-flag"))
}

#[test]
fn a_byte_more_or_less_is_a_difference() {
    let added = b"Received: from client.example (x)\r\n by y\r\nX-Spam-Flag: NO\r\n";
    let message = b"Subject: a\r\n\r\nb\r\n";
    let arrived = |rest: &[u8]| [&added[..], rest].concat();
    assert!(!differs(&arrived(message), message));
    assert!(!differs(&arrived(b"\r\nno header\r\n"), b"no header\r\n"));
    assert!(differs(&arrived(b"Subject: a\r\n\r\nb"), message));
    assert!(differs(&arrived(b"Subject: a\r\n\r\nb\r\n\r\n"), message));
    assert!(differs(&arrived(b"X-Other: 1\r\nSubject: a\r\n\r\nb\r\n"), message));
    assert_eq!(as_a_client_would(b"a\nb\rc\r\nd\r\r\ne"), b"a\r\nb\r\nc\r\nd\r\n\r\ne\r\n");
}
