//! Messages per second through the whole gateway, beside the same load straight into the sink.
//!
//! Postfix's `smtp-source` sends, its `smtp-sink` takes. `cargo bench --bench gateway` prints a table with
//! the ratio of each pair; the pairs are run in turn, so that a machine that changes its speed changes both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a bench that cannot set itself up fails"
)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Messages of one run, rounds of each pair.
const MESSAGES: usize = 2_000;
const ROUNDS: usize = 5;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let gateway = Gateway::start(folder.path(), sink.address);
    println!("{:<34} {:>12} {:>12} {:>22}", "load", "sink, msg/s", "through, msg/s", "ratio (min..max)");
    for (sessions, bytes) in [(1, 4_096), (20, 4_096), (20, 102_400)] {
        let mut straight = Vec::new();
        let mut through = Vec::new();
        // The first pair warms up.
        for round in 0..=ROUNDS {
            let a = send(sink.address, sessions, bytes);
            let b = send(gateway.address, sessions, bytes);
            if round > 0 {
                straight.push(a);
                through.push(b);
            }
        }
        let mut ratios: Vec<f64> = through.iter().zip(&straight).map(|(b, a)| b / a).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{:<34} {:>12.0} {:>12.0} {:>8.2} ({:.2}..{:.2})",
            format!("{sessions} sessions, {} KiB", bytes / 1024),
            median(&mut straight),
            median(&mut through),
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1],
        );
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Sends a run of messages; gives messages per second.
fn send(to: SocketAddr, sessions: usize, bytes: usize) -> f64 {
    let messages = match (sessions, bytes) {
        // A session ends after a thousand messages, which smtp-source does not expect.
        (1, _) => 900,
        (_, 10_001..) => MESSAGES / 4,
        _ => MESSAGES,
    };
    let started = Instant::now();
    let status = Command::new("smtp-source")
        .args(["-d", "-4", "-s", &sessions.to_string(), "-m", &messages.to_string()])
        .args(["-l", &bytes.to_string(), "-f", "ann@sender.example", "-t", "alice@example.org"])
        .arg(to.to_string())
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdout(Stdio::null())
        .status()
        .expect("smtp-source, of Debian's package postfix");
    assert!(status.success(), "smtp-source failed");
    messages as f64 / started.elapsed().as_secs_f64()
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{address} does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Sink {
    child: Child,
    address: SocketAddr,
}

impl Sink {
    fn start() -> Self {
        let address = free_address();
        // Started as root, it wants to know whom to become.
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        let child = Command::new("smtp-sink")
            .args(is_root.then_some(["-u", "nobody"]).into_iter().flatten())
            .args(["-4", &address.to_string(), "1000"])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdout(Stdio::null())
            .spawn()
            .expect("smtp-sink, of Debian's package postfix");
        wait_for(address);
        Sink { child, address }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Gateway {
    child: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(folder: &Path, sink: SocketAddr) -> Self {
        let address = free_address();
        let config = folder.join("lazaret.toml");
        std::fs::write(
            &config,
            format!(
                "data_dir = \"{}/data\"\nlog = \"warn\"\ninbound.listen = \"{address}\"\noutbound.listen = \"127.0.0.1:0\"\n\
                 web.listen = \"127.0.0.1:0\"\ninbound.next_hop = \"smtp://{sink}\"\n",
                folder.display()
            ),
        )
        .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_lazaret"))
            .args(["--config", config.to_str().unwrap(), "serve"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(address);
        Gateway { child, address }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
