//! `lazaret scan PATH...|-`: what the gateway would find in messages, and do with them.
//!
//! One message is explained in full; of several, each gets a line, and the end says how many there were of
//! each disposition and how fast it went.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::messages;
use crate::app;
use crate::config::Config;
use crate::mail::{Address, Client, Direction, Envelope, Mail, TransactionId};
use crate::policy::{self, Policy};
use crate::scan::Scanner;
use crate::verdict::{Disposition, Scan};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The message, or - for standard input; or several files, folders, Maildirs, mbox files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Scan it as outbound mail.
    #[arg(long)]
    outbound: bool,
    /// Print one JSON object for each message.
    #[arg(long)]
    json: bool,
}

/// What would happen to one message.
struct Judged {
    scan: Scan,
    disposition: Disposition,
}

struct Judge {
    scanner: Scanner,
    policy: Policy,
    envelope: Envelope,
    recipient: Address,
}

impl Judge {
    fn judge(&self, body: &[u8]) -> Judged {
        let scan = self.scanner.scan_here(body, &self.envelope).scan;
        let disposition = policy::decide(&scan, &self.policy, &self.recipient);
        Judged { scan, disposition }
    }
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let direction = if arguments.outbound { Direction::Outbound } else { Direction::Inbound };
    let recipient = Address::parse("someone@localhost")?;
    let judge = Judge {
        scanner: super::runtime()?.block_on(app::scanner(config))?,
        policy: config.way(direction).policy()?,
        envelope: envelope(direction, &recipient),
        recipient,
    };
    if let [path] = arguments.paths.as_slice()
        && !path.is_dir()
    {
        let judged = judge.judge(&read_one(path)?);
        if arguments.json {
            println!("{:#}", as_json(&judged, None));
        } else {
            explain(&judged, direction);
        }
    } else {
        scan_many(&judge, &arguments.paths, arguments.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_one(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut body).context("reading standard input")?;
    } else {
        body = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    }
    Ok(body)
}

/// Scans files on all cores; the lines come in the order of the files.
fn scan_many(judge: &Judge, paths: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let files = messages::find(paths)?;
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, anyhow::Result<Vec<Judged>>>> = Mutex::default();
    let started = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(index) else { break };
                    let mut judged = Vec::new();
                    let read = messages::read(file, |body| {
                        judged.push(judge.judge(&body));
                        Ok(())
                    });
                    let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    results.insert(index, read.map(|()| judged));
                }
            });
        }
    });
    let elapsed = started.elapsed();
    let mut totals: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut count = 0usize;
    let mut working = Duration::ZERO;
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (file, result) in files.iter().zip(results.into_values()) {
        for judged in result? {
            *totals.entry(judged.disposition.as_str()).or_default() += 1;
            count += 1;
            working += judged.scan.elapsed;
            if json {
                println!("{}", as_json(&judged, Some(file)));
            } else {
                println!(
                    "{:<10} {:>7}  {}",
                    judged.disposition.as_str(),
                    judged.scan.score().to_string(),
                    file.display()
                );
            }
        }
    }
    if count == 0 {
        bail!("there is no message in these paths");
    }
    let totals: Vec<String> = totals.iter().map(|(name, count)| format!("{count} {name}")).collect();
    eprintln!(
        "{count} messages: {}; {:.0} messages/s on {workers} cores, {:.2} ms each",
        totals.join(", "),
        count as f64 / elapsed.as_secs_f64(),
        working.as_secs_f64() * 1e3 / count as f64
    );
    Ok(())
}

/// Makes up the envelope of a message on disk: a client on this machine, the reverse-path that its header
/// tells.
fn envelope(direction: Direction, recipient: &Address) -> Envelope {
    Envelope {
        id: TransactionId::from_random([0; TransactionId::LEN]),
        direction,
        client: Client::new(SocketAddr::from(([127, 0, 0, 1], 0))),
        mail: Mail::default(),
        recipients: vec![recipient.clone().into()],
    }
}

fn as_json(judged: &Judged, file: Option<&Path>) -> serde_json::Value {
    let scan = &judged.scan;
    let degraded: Vec<String> =
        scan.degraded.iter().map(|part| format!("{}: {}", part.analyser, part.reason)).collect();
    let mut value = serde_json::json!({
        "score": scan.score(),
        "disposition": judged.disposition,
        "findings": scan.findings,
        "degraded": degraded,
        "microseconds": u64::try_from(scan.elapsed.as_micros()).unwrap_or(u64::MAX),
    });
    if let (Some(file), Some(object)) = (file, value.as_object_mut()) {
        object.insert("file".to_owned(), file.display().to_string().into());
    }
    value
}

fn explain(judged: &Judged, direction: Direction) {
    let scan = &judged.scan;
    println!(
        "{} ({}), score {}, {:.2} ms",
        judged.disposition.as_str(),
        direction.as_str(),
        scan.score(),
        scan.elapsed.as_secs_f64() * 1e3
    );
    for part in &scan.degraded {
        println!("  not done: {} ({})", part.analyser, part.reason);
    }
    let width = scan.findings.iter().map(|finding| finding.symbol.as_str().len()).max().unwrap_or_default();
    for finding in &scan.findings {
        println!(
            "{:>7}  {:width$}  {}",
            finding.score.to_string(),
            finding.symbol.as_str(),
            messages::printable(finding.explanation.expose())
        );
    }
}
