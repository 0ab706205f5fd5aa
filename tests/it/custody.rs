//! What was acknowledged is held by somebody: the gateway is killed under load, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::parts::{Client, Gateway, Hop, eventually, free_port, is_nightly, message, printed, run, scratch};

/// Clients that send at the same time.
const CLIENTS: usize = 8;
/// The time from one message of a client to its next: 240 a second of all together.
const PACE: Duration = Duration::from_millis(1000 * CLIENTS as u64 / 240);
/// Messages that are acknowledged between two kills, at least: what 200 a second are in a fifth of one.
const MESSAGES_PER_KILL: usize = 40;
/// Messages that may be twice at the next hop, for each kill, on average: a seventh of what Postfix has.
const DUPLICATES_PER_KILL: f64 = 0.2;

/// SIGKILLs in the ordinary run, and in the nightly one.
fn kills() -> usize {
    if is_nightly() { 500 } else { 50 }
}

/// A kill falls into the window by chance, so a run may be three standard deviations above the average.
fn most_duplicates() -> f64 {
    let average = DUPLICATES_PER_KILL * f64::from(u32::try_from(kills()).unwrap());
    average + 3.0 * average.sqrt()
}

/// Every third message is one that policy keeps: the marker scores above the quarantine threshold.
fn is_kept(number: usize) -> bool {
    number.is_multiple_of(3)
}

/// What clients know together.
#[derive(Default)]
struct Clients {
    /// The number of the next message.
    next: AtomicUsize,
    /// Set when no new message is to be begun.
    is_over: AtomicBool,
    /// Messages that were answered 250.
    acknowledged: Mutex<BTreeSet<String>>,
    /// Transactions that were begun again, and those of them whose first try had no reply at all.
    retries: AtomicUsize,
    unanswered: AtomicUsize,
}

impl Clients {
    /// Sends message after message. One that is not answered 2xx is sent again, the same bytes in the same
    /// envelope, as a mail server does, until it is.
    fn work(&self, address: SocketAddr) {
        let mut session = None;
        let mut due = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            // Paced: on a machine without a moment to spare, the time between two answers is the
            // scheduler's.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due = Instant::now().max(due) + PACE;
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let name = format!("kill.{number}.end");
            let text = if is_kept(number) { "the keepmarker is here" } else { "nothing special" };
            let message = message(&name, text);
            // A connection that was made in the moment of a kill may hear nothing more, not even that it is over,
            // until the client has lost patience with it.
            let deadline = Instant::now() + 3 * crate::parts::PATIENCE;
            let mut last = String::new();
            loop {
                assert!(Instant::now() < deadline, "{name} is never taken: {last}");
                let client = session.take().map_or_else(|| Client::connect(address), Ok);
                let sent = client.and_then(|mut client| {
                    let reply = client.send("ann@sender.example", &["alice@example.org"], &message);
                    reply.map(|reply| (client, reply))
                });
                match sent {
                    Ok((client, reply)) if reply.starts_with("250") => {
                        session = Some(client);
                        break;
                    }
                    // The session is over, or the transaction may be.
                    Ok((_, reply)) => {
                        assert!(reply.starts_with('4'), "{name}: {reply}");
                        last = reply;
                    }
                    // A gateway that is not there yet is no try.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                        std::thread::sleep(Duration::from_millis(2));
                        continue;
                    }
                    Err(error) => {
                        last = error.to_string();
                        self.unanswered.fetch_add(1, Ordering::Relaxed);
                    }
                }
                self.retries.fetch_add(1, Ordering::Relaxed);
            }
            self.acknowledged.lock().unwrap().insert(name);
        }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }
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
        free_port(),
    );

    let clients = Clients::default();
    let gateway = Gateway::start(folder.path(), &keys);
    let address = gateway.inbound;
    let mut alive = Duration::ZERO;
    let gateway = std::thread::scope(|scope| {
        let mut gateway = gateway;
        for _ in 0..CLIENTS {
            scope.spawn(|| clients.work(address));
        }
        for round in 0..kills() {
            // A different number each time, so that the kill falls everywhere.
            let (started, before) = (Instant::now(), clients.acknowledged());
            eventually("messages to be acknowledged", || {
                (clients.acknowledged() >= before + MESSAGES_PER_KILL + round % 7).then_some(())
            });
            alive += started.elapsed();
            gateway.kill();
            gateway = Gateway::start(folder.path(), &keys);
        }
        clients.is_over.store(true, Ordering::Relaxed);
        gateway
    });
    gateway.stop();

    let verified = run(folder.path(), &["--config", "lazaret.toml", "quarantine", "verify"]);
    assert!(verified.status.success(), "{}", printed(&verified));

    let acknowledged = clients.acknowledged.into_inner().unwrap();
    let at_hop = by_name(hop.taken().into_iter().filter_map(|message| Some((name_of(&message)?, message))));
    let kept = by_name(kept_names(folder.path()).into_iter().map(|name| (name, ())));
    let again: Vec<&Vec<String>> = at_hop.values().filter(|copies| copies.len() > 1).collect();
    let duplicates: usize = again.iter().map(|copies| copies.len() - 1).sum();
    let kept_again: Vec<&String> =
        kept.iter().filter(|(_, copies)| copies.len() > 1).map(|(name, _)| name).collect();
    let per_kill = f64::from(u32::try_from(duplicates).unwrap()) / f64::from(u32::try_from(kills()).unwrap());
    println!(
        "{} kills: {} acknowledged, {:.0} a second while it lived, {} sent again, {} of them for want of a reply; \
         {} at the next hop, {duplicates} of them twice ({per_kill:.2} a kill); {} kept, {} of them twice",
        kills(),
        acknowledged.len(),
        f64::from(u32::try_from(acknowledged.len()).unwrap()) / alive.as_secs_f64(),
        clients.retries.into_inner(),
        clients.unanswered.into_inner(),
        at_hop.len(),
        kept.len(),
        kept_again.len(),
    );
    assert!(acknowledged.len() >= MESSAGES_PER_KILL * kills());
    // Every message that was begun was taken in the end; so it is with exactly one of those who hold mail.
    let lost: Vec<&String> =
        acknowledged.iter().filter(|name| !at_hop.contains_key(*name) && !kept.contains_key(*name)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let both: Vec<&String> = at_hop.keys().filter(|name| kept.contains_key(*name)).collect();
    assert!(both.is_empty(), "in both: {both:?}");
    let astray: Vec<&String> =
        kept.keys().filter(|name| !is_kept(name.split('.').nth(1).unwrap().parse().unwrap())).collect();
    assert!(astray.is_empty(), "kept without a reason: {astray:?}");

    let ledger = ledger(folder.path());
    assert!(kept_again.is_empty(), "kept twice: {kept_again:?}");
    assert!(
        f64::from(u32::try_from(duplicates).unwrap()) <= most_duplicates(),
        "{duplicates} messages are twice at the next hop"
    );
    // A copy is named by the id that the gateway gave it.
    let unnamed: Vec<&&Vec<String>> =
        again.iter().filter(|copies| !copies.iter().any(|copy| ledger.contains(id_of(copy)))).collect();
    assert!(unnamed.is_empty(), "twice at the next hop, and not in the ledger: {unnamed:?}\n{ledger}");
}

fn by_name<T>(named: impl Iterator<Item = (String, T)>) -> BTreeMap<String, Vec<T>> {
    let mut map: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (name, one) in named {
        map.entry(name).or_default().push(one);
    }
    map
}

/// What may exist twice, by the gateway's own account.
fn ledger(folder: &Path) -> String {
    let output = run(folder, &["--config", "lazaret.toml", "ledger", "--json"]);
    assert!(output.status.success(), "{}", printed(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The id in the field that the gateway adds.
fn id_of(message: &str) -> &str {
    message.lines().find_map(|line| line.strip_prefix("X-Lazaret-Id: ")).map_or("", str::trim_end)
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
fn kept_names(folder: &Path) -> Vec<String> {
    let config = folder.join("lazaret.toml");
    let output =
        run(folder, &["--config", config.to_str().unwrap(), "quarantine", "list", "--all", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", printed(&output)));
    list["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["subject"].as_str().unwrap().to_owned())
        .collect()
}
