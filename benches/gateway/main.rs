//! The whole gateway under load: messages a second, and what a message waits for.
//!
//! Postfix's `smtp-source` sends and its `smtp-sink` takes, in turn: straight, through Lazaret without and
//! with scanning, through a stock Postfix that relays. Each round is one run of each, so that a machine that
//! changes its speed changes all of them; ratios are taken within a round. What a message waits for is
//! measured by a sender of our own at half the pace that the gateway can keep.
//!
//! `cargo bench --bench gateway` prints Markdown tables; `-- --quick` runs a twentieth of it, to see that it
//! works. Starting Postfix takes root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench that cannot set itself up fails, and its figures are no balance sheet"
)]

mod message;
mod paced;
mod server;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use server::{Gateway, Postfix, Sink};

/// Rounds of each load.
const ROUNDS: usize = 3;
/// Messages that `smtp-source` may send over one connection: a session of the gateway ends after a thousand.
const PER_CONNECTION: usize = 900;
/// The share of the messages that Postfix gets: it writes each to the disk, and takes its time.
const POSTFIX_SHARE: usize = 4;

/// One way to send.
#[derive(Clone, Copy)]
struct Load {
    sessions: usize,
    bytes: usize,
    /// Many messages over one connection, or one.
    is_kept_open: bool,
    messages: usize,
}

impl Load {
    fn all(is_quick: bool) -> Vec<Load> {
        let mut loads = Vec::new();
        for (bytes, alone, together) in [(4_000, 800, 4_000), (100_000, 200, 400), (10_000_000, 6, 20)] {
            for (sessions, messages) in [(1, alone), (20, together)] {
                for is_kept_open in [true, false] {
                    let messages = if is_quick { (messages / 20).max(sessions) } else { messages };
                    loads.push(Load { sessions, bytes, is_kept_open, messages });
                }
            }
        }
        loads
    }

    fn name(self) -> String {
        let size = match self.bytes {
            1_000_000.. => format!("{} MB", self.bytes / 1_000_000),
            _ => format!("{} KB", self.bytes / 1_000),
        };
        let sessions = if self.sessions == 1 { "session" } else { "sessions" };
        let connections = if self.is_kept_open { "many" } else { "one" };
        format!("{} {sessions}, {size}, {connections} a connection", self.sessions)
    }
}

/// Messages a second of one way, round by round.
#[derive(Default)]
struct Way(Vec<f64>);

impl Way {
    fn median(&self) -> f64 {
        median(&self.0)
    }

    /// Its ratio to another way, within each round: median, least, most.
    fn ratio_to(&self, other: &Way) -> String {
        let ratios: Vec<f64> = self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        format!("{:.2} ({least:.2}..{most:.2})", median(&ratios))
    }
}

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let scanning = Gateway::start(&folder.path().join("on"), sink.address, true);
    let relaying = Gateway::start(&folder.path().join("off"), sink.address, false);
    let postfix = Postfix::start(sink.address);
    let resident = scanning.memory_mib("VmRSS:");

    println!(
        "| load | straight, msg/s | scanning off | scanning on | Postfix takes | Postfix delivers | off : straight | on : straight | on : Postfix |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    let rounds = if is_quick { 1 } else { ROUNDS };
    let mut half_loads = Vec::new();
    for load in Load::all(is_quick) {
        let file = folder.path().join(format!("{}.eml", load.bytes));
        if !file.exists() {
            std::fs::write(&file, message::of_size(load.bytes)).unwrap();
        }
        let (mut straight, mut off, mut on) = (Way::default(), Way::default(), Way::default());
        let (mut taken, mut delivered) = (Way::default(), Way::default());
        for _ in 0..rounds {
            straight.0.push(send(sink.address, load, &file));
            off.0.push(send(relaying.address, load, &file));
            on.0.push(send(scanning.address, load, &file));
            let part = Load { messages: (load.messages / POSTFIX_SHARE).max(load.sessions), ..load };
            let started = Instant::now();
            taken.0.push(send(postfix.address, part, &file));
            postfix.wait_until_delivered();
            delivered.0.push(part.messages as f64 / started.elapsed().as_secs_f64());
        }
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {} | {} |",
            load.name(),
            straight.median(),
            off.median(),
            on.median(),
            taken.median(),
            delivered.median(),
            off.ratio_to(&straight),
            on.ratio_to(&straight),
            on.ratio_to(&delivered),
        );
        if load.is_kept_open && load.sessions > 1 {
            half_loads.push((load, file, off.median(), on.median()));
        }
    }

    println!(
        "\n| at half load | pace, msg/s | straight p50, ms | p99 | through p50 | p99 | added p50 | added p99 |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for (load, file, off, on) in half_loads {
        let wire = std::fs::read(file).unwrap();
        let ways = [("off", &relaying, off), ("on", &scanning, on)];
        for (scanning, gateway, full) in ways {
            let pace = full / 2.0;
            let messages = load.messages.min((pace * 10.0) as usize).max(20);
            let straight = paced::send(sink.address, &wire, pace, messages);
            let through = paced::send(gateway.address, &wire, pace, messages);
            println!(
                "| {}, scanning {scanning} | {pace:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
                load.name(),
                straight.at(50),
                straight.at(99),
                through.at(50),
                through.at(99),
                through.at(50) - straight.at(50),
                through.at(99) - straight.at(99),
            );
        }
    }
    println!(
        "\nResident memory of the scanning gateway: {resident} MiB before, {} MiB after, {} MiB at the most.",
        scanning.memory_mib("VmRSS:"),
        scanning.memory_mib("VmHWM:"),
    );
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Sends a run of messages; gives messages per second.
fn send(to: SocketAddr, load: Load, file: &Path) -> f64 {
    let Load { sessions, is_kept_open, messages, .. } = load;
    assert!(messages <= sessions * PER_CONNECTION, "more messages than the sessions carry");
    let started = Instant::now();
    let status = Command::new("smtp-source")
        .args(is_kept_open.then_some("-d"))
        .args(["-4", "-s", &sessions.to_string(), "-m", &messages.to_string(), "-F"])
        .arg(file)
        .args(["-f", "ann@sender.example", "-t", "alice@example.org", &to.to_string()])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdout(Stdio::null())
        .status()
        .expect("smtp-source, of Debian's package postfix");
    assert!(status.success(), "smtp-source failed");
    messages as f64 / started.elapsed().as_secs_f64()
}
