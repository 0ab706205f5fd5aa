//! What was acknowledged is held by somebody: the gateway is killed under load, again and again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::parts::{Client, Gateway, Hop, message, run, scratch};

/// Clients that send at the same time.
const CLIENTS: usize = 4;

/// SIGKILLs in the ordinary run, and in the nightly one.
fn kills() -> usize {
    if std::env::var("LAZARET_NIGHTLY").as_deref() == Ok("1") { 500 } else { 50 }
}

/// Every third message is one that policy keeps: the marker scores above the quarantine threshold.
fn is_kept(number: usize) -> bool {
    number.is_multiple_of(3)
}

#[test]
fn sigkill_under_load_loses_nothing_that_was_acknowledged() {
    let folder = scratch();
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(
        rules.join("test.cf"),
        "body KEEP_MARKER /keepmarker/\nscore KEEP_MARKER 15\ndescribe KEEP_MARKER A marker of this test\n",
    )
    .unwrap();
    let hop = Hop::start();
    let keys = format!(
        "inbound.next_hop = \"smtp://{}\"\nscan.rules_dir = \"{}\"\nlog = \"warn\"\ninbound.listen = \"127.0.0.1:{}\"",
        hop.address,
        rules.display(),
        crate::parts::free_port(),
    );

    let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let next = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let mut gateway = Gateway::start(folder.path(), &keys);
    let address = gateway.inbound;
    let senders: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (acknowledged, next, done) = (acknowledged.clone(), next.clone(), done.clone());
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let Ok(mut client) = Client::connect(address) else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    while !done.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let name = format!("kill.{number}.end");
                        let text = if is_kept(number) { "the keepmarker is here" } else { "nothing special" };
                        let sent =
                            client.send("ann@sender.example", &["alice@example.org"], &message(&name, text));
                        match sent {
                            Ok(reply) if reply.starts_with("250") => {
                                acknowledged.lock().unwrap().insert(name);
                            }
                            Ok(_) => {}
                            Err(_) => break,
                        }
                    }
                }
            })
        })
        .collect();

    for round in 0..kills() {
        // Let some messages through, a different number each time, so that the kill falls everywhere.
        let before = acknowledged.lock().unwrap().len();
        crate::parts::eventually("messages to be acknowledged", || {
            (acknowledged.lock().unwrap().len() >= before + 3 + round % 7).then_some(())
        });
        gateway.kill();
        gateway = Gateway::start(folder.path(), &keys);
    }
    done.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().unwrap();
    }
    gateway.stop();

    let verified = run(folder.path(), &["--config", "lazaret.toml", "quarantine", "verify"]);
    assert!(verified.status.success(), "{}", crate::parts::printed(&verified));

    let relayed: Vec<String> = hop.taken().iter().filter_map(|message| name_of(message)).collect();
    let kept = kept_names(folder.path());
    let in_hop: BTreeSet<&String> = relayed.iter().collect();
    let in_quarantine: BTreeSet<&String> = kept.iter().collect();
    let acknowledged = acknowledged.lock().unwrap();
    let lost: Vec<&String> =
        acknowledged.iter().filter(|name| !in_hop.contains(name) && !in_quarantine.contains(name)).collect();
    let both: Vec<&&String> = in_hop.intersection(&in_quarantine).collect();
    println!(
        "{} kills: {} acknowledged, {} at the next hop, {} kept, {} kept unacknowledged, {} relayed unacknowledged",
        kills(),
        acknowledged.len(),
        relayed.len(),
        kept.len(),
        kept.iter().filter(|name| !acknowledged.contains(*name)).count(),
        relayed.iter().filter(|name| !acknowledged.contains(*name)).count(),
    );
    assert!(acknowledged.len() >= 3 * kills());
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(both.is_empty(), "in both: {both:?}");
    assert_eq!(in_quarantine.len(), kept.len(), "kept twice");
    let astray: Vec<&String> =
        kept.iter().filter(|name| !is_kept(name.split('.').nth(1).unwrap().parse().unwrap())).collect();
    assert!(astray.is_empty(), "kept without a reason: {astray:?}");
}

/// One recipient's copy is kept, the other's is relayed; the next hop's answer settles both.
fn check_divided(hop_answers: &'static str, expected: &str, kept: usize, relayed: usize) {
    let folder = scratch();
    let hop = Hop::answering(hop_answers);
    let keys = format!(
        "inbound.next_hop = \"smtp://{}\"\ninbound.tag = -50.0\ninbound.quarantine = -50.0",
        hop.address
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let mut client = Client::connect(gateway.inbound).unwrap();
    // Alice is named twice, and is one recipient.
    let recipients = ["alice@example.org", "postmaster@example.org", "alice@example.org"];
    let reply = client.send("ann@sender.example", &recipients, &message("divided", "text")).unwrap();
    assert!(reply.starts_with(expected), "{reply}\n{}", gateway.log());
    assert_eq!(kept_names(folder.path()).len(), kept, "{hop_answers}");
    assert_eq!(hop.taken().len(), relayed, "{hop_answers}");
    // Nothing of the transaction is left behind.
    assert!(client.command("DATA").unwrap().starts_with('5'));
}

#[test]
fn recipients_that_differ_are_all_taken_or_all_left_with_the_client() {
    check_divided("250 2.0.0 queued\r\n", "250", 1, 1);
    check_divided("450 4.2.1 later\r\n", "450 4.2.1", 0, 0);
    check_divided("550 5.7.1 no\r\n", "550 5.7.1", 0, 0);
    check_divided("", "451", 0, 0);
}

fn name_of(text: &str) -> Option<String> {
    let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "))?;
    Some(subject.trim_end().to_owned())
}

/// The subjects of everything in the quarantine.
fn kept_names(folder: &std::path::Path) -> Vec<String> {
    let config = folder.join("lazaret.toml");
    let output =
        run(folder, &["--config", config.to_str().unwrap(), "quarantine", "list", "--all", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", crate::parts::printed(&output)));
    list["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["subject"].as_str().unwrap().to_owned())
        .collect()
}
