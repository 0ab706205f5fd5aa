//! A next hop that fails at every command in every way, under three loads: each message ends in exactly one
//! known state, and what the gateway took for it comes back.
//!
//! The known states: acknowledged, and then held once by everybody who is to hold it (the next hop with its
//! own 2xx to the end of data, the quarantine, or each of them for recipients that differ); or left with the
//! client, and then not in quarantine, and at the next hop only where that had said 2xx itself or had not
//! said anything that can be told from it.

mod hop;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::parts::{Client, Gateway, eventually, message, printed, run, scratch};
use crate::vitals::{descriptors, memory_kib, metric, sessions};
use hop::{ChaosHop, Copies, Fault, Plan, Point};

/// Kinds of messages; under every plan there is at least one of each, and at least one from each client.
const KINDS: usize = 3;
/// Idle connections to the next hop that the gateway may keep, and other descriptors that may come and go.
const MAX_IDLE: usize = 4;
const SPARE_DESCRIPTORS: usize = 16;
/// What the allocator may keep back when all is over, in KiB.
const SPARE_KIB: u64 = 48 * 1024;
/// Lines of filler in a long message: more than a next hop has read at the first of them.
const LONG: usize = 500;
/// The same, for the client that is alone: more than fits into the sockets on the way.
const LONGEST: usize = 100_000;

/// Who is to hold a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The next hop.
    Plain,
    /// The quarantine.
    Kept,
    /// The quarantine for one recipient, the next hop for the other.
    Divided,
}

impl Kind {
    fn of(number: usize) -> Self {
        [Kind::Plain, Kind::Kept, Kind::Divided][number % KINDS]
    }
}

/// A message, and what its client heard at the end.
struct Sent {
    name: String,
    kind: Kind,
    plan: Plan,
    /// It fits into no socket.
    is_longest: bool,
    reply: String,
}

#[test]
fn one_client_before_a_failing_next_hop_knows_what_became_of_each_message() {
    check(1);
}

#[test]
fn eight_clients_before_a_failing_next_hop_know_what_became_of_each_message() {
    check(8);
}

#[test]
fn thirty_two_clients_before_a_failing_next_hop_know_what_became_of_each_message() {
    check(32);
}

fn check(clients: usize) {
    let folder = scratch();
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("test.cf"), "body KEEP_MARKER /keepmarker/\nscore KEEP_MARKER 15\n").unwrap();
    let hop = ChaosHop::start();
    let keys = format!(
        "inbound.next_hop = \"smtp://{}\"\nscan.rules_dir = \"{}\"\nlog = \"error\"\nrelay.max_idle = {MAX_IDLE}\n\
         relay.connect_timeout = \"500ms\"\nrelay.command_timeout = \"500ms\"\nrelay.data_timeout = \"700ms\"",
        hop.address,
        rules.display(),
    );
    let gateway = Gateway::start(folder.path(), &keys);
    let next = AtomicUsize::new(0);
    let long = if clients == 1 { LONGEST } else { LONG };

    // What a quiet gateway takes after such a load.
    let mut sent = send_all(&gateway, Plan::Serve, clients, &next, 0);
    sent.extend(send_all(&gateway, Plan::Serve, clients, &next, long));
    assert!(sent.iter().all(|sent| sent.reply.starts_with("250")), "a healthy next hop takes everything");
    quiet(&gateway);
    let (memory, open) = (memory_kib(gateway.pid(), "VmRSS:"), descriptors(gateway.pid()));

    for point in Point::ALL {
        for fault in Fault::ALL {
            let plan = Plan::Fail(point, fault);
            hop.follow(plan);
            let filler = if point == Point::Body { long } else { 0 };
            let batch = send_all(&gateway, plan, clients, &next, filler);
            for sent in &batch {
                let is_known = sent.reply.starts_with(['2', '4', '5']) && !sent.reply.starts_with("421");
                assert!(is_known, "{point:?} {fault:?}: {:?}\n{}", sent.reply, gateway.log());
            }
            // QUIT is the gateway's to say or not, and no message depends on it.
            assert!(hop.faults() > 0 || point == Point::Quit, "{point:?} {fault:?} was never met");
            sent.extend(batch);
            hop.follow(Plan::Serve);
            eventually("a healed next hop to be used again", || {
                let good = send_one(
                    &gateway,
                    Plan::Serve,
                    next.fetch_add(KINDS, Ordering::Relaxed).next_multiple_of(KINDS),
                    0,
                );
                let is_good = good.reply.starts_with("250");
                sent.push(good);
                is_good.then_some(())
            });
        }
    }

    quiet(&gateway);
    let (memory_after, open_after) = (memory_kib(gateway.pid(), "VmRSS:"), descriptors(gateway.pid()));
    println!(
        "{clients} clients: {} messages; memory {memory} KiB before, {memory_after} after; descriptors {open} before, {open_after} after",
        sent.len(),
    );
    assert!(open_after <= open + MAX_IDLE + SPARE_DESCRIPTORS, "{open_after} descriptors, {open} before");
    assert!(memory_after <= memory + SPARE_KIB, "{memory_after} KiB, {memory} before");
    assert_eq!(metric(gateway.web, "lazaret_panics_total"), Some(0));
    judge(&sent, &hop.copies(), &kept(folder.path()));
}

/// The clients send at the same time; all of them hear an end.
fn send_all(gateway: &Gateway, plan: Plan, clients: usize, next: &AtomicUsize, filler: usize) -> Vec<Sent> {
    let sent = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                for _ in 0..KINDS.div_ceil(clients) {
                    let one = send_one(gateway, plan, next.fetch_add(1, Ordering::Relaxed), filler);
                    sent.lock().unwrap().push(one);
                }
            });
        }
    });
    sent.into_inner().unwrap()
}

fn send_one(gateway: &Gateway, plan: Plan, number: usize, filler: usize) -> Sent {
    let (name, kind) = (format!("chaos.{number}.end"), Kind::of(number));
    let text = if kind == Kind::Plain { "nothing special" } else { "the keepmarker is here" };
    let text = format!("{text}\n{}", ".a line that fills a long message\n".repeat(filler));
    let to: &[&str] = match kind {
        Kind::Plain | Kind::Kept => &["alice@example.org"],
        // Mail for postmaster passes whatever it scores.
        Kind::Divided => &["alice@example.org", "postmaster@example.org"],
    };
    let reply = Client::connect(gateway.inbound)
        .and_then(|mut client| client.send("ann@sender.example", to, &message(&name, &text)))
        .unwrap_or_else(|error| {
            panic!("the gateway left its client without a reply: {error}\n{}", gateway.log())
        });
    Sent { name, kind, plan, is_longest: filler == LONGEST, reply }
}

/// Waits until no session is open.
fn quiet(gateway: &Gateway) {
    eventually("the sessions to end", || (sessions(gateway.web)? == 0).then_some(()));
}

/// Looks at the ends of all messages: each must be one that is known.
fn judge(sent: &[Sent], at_hop: &BTreeMap<String, Copies>, kept: &BTreeMap<String, usize>) {
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    let mut unknown = Vec::new();
    for Sent { name, kind, plan, is_longest, reply } in sent {
        let Copies { taken, early, unclear } = at_hop.get(name).copied().unwrap_or_default();
        // A 2xx ahead of the end of data may meet that end on its way, and is then taken for the answer to it.
        // It is none where the end cannot have been sent.
        let taken = if reply.starts_with('2') && !is_longest { taken + early } else { taken };
        let kept = kept.get(name).copied().unwrap_or(0);
        let is_known = if reply.starts_with('2') {
            match kind {
                Kind::Plain => (taken, unclear, kept) == (1, 0, 0),
                Kind::Kept => (taken, unclear, kept) == (0, 0, 1),
                Kind::Divided => (taken, unclear, kept) == (1, 0, 1),
            }
        } else {
            kept == 0 && taken + unclear <= usize::from(*kind != Kind::Kept)
        };
        let state = format!(
            "{kind:?}, answered {}xx, {taken} taken by the next hop, {unclear} unclear there, {kept} kept",
            &reply[..1]
        );
        if !is_known {
            unknown.push(format!("{plan:?}: {name}: {state}: {reply}"));
        }
        *states.entry(state).or_default() += 1;
    }
    for (state, number) in states {
        println!("{number:>6} {state}");
    }
    assert!(unknown.is_empty(), "in no known state:\n{}", unknown.join("\n"));
}

/// The entries in quarantine by subject.
fn kept(folder: &std::path::Path) -> BTreeMap<String, usize> {
    let config = folder.join("lazaret.toml");
    let output =
        run(folder, &["--config", config.to_str().unwrap(), "quarantine", "list", "--all", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", printed(&output)));
    let mut kept = BTreeMap::new();
    for entry in list["entries"].as_array().unwrap() {
        *kept.entry(entry["subject"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    kept
}
