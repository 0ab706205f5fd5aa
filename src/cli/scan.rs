//! `lazaret scan FILE|-`: what the gateway would find in a message, and do with it.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::app;
use crate::config::Config;
use crate::mail::{Address, Client, Direction, Envelope, Mail, TransactionId};
use crate::message::Message;
use crate::policy;
use crate::verdict::Scan;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The message, or - for standard input.
    file: PathBuf,
    /// Scan it as outbound mail.
    #[arg(long)]
    outbound: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let mut body = Vec::new();
    if arguments.file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut body).context("reading standard input")?;
    } else {
        body = std::fs::read(&arguments.file)
            .with_context(|| format!("reading {}", arguments.file.display()))?;
    }
    let direction = if arguments.outbound { Direction::Outbound } else { Direction::Inbound };
    let scanner = super::runtime()?.block_on(app::scanner(config))?;
    let envelope = envelope_of(&body, direction);
    let scanned = scanner.scan_here(&body, &envelope);
    let policy = config.route(direction).policy()?;
    let recipient = envelope.recipients.first().context("an envelope has a recipient")?;
    let disposition = policy::decide(&scanned.scan, &policy, recipient);
    if arguments.json {
        println!("{}", as_json(&scanned.scan, disposition.as_str())?);
    } else {
        print_for_people(&scanned.scan, disposition.as_str(), direction);
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes up the envelope of a message on disk: its own Return-Path, a client on this machine.
pub(super) fn envelope_of(body: &[u8], direction: Direction) -> Envelope {
    let message: Message = crate::message::parse(body);
    let reverse_path = message
        .header("Return-Path")
        .map(|header| header.value.trim().trim_start_matches('<').trim_end_matches('>').to_owned())
        .and_then(|path| Address::parse(&path).ok())
        .or_else(|| message.from.first().and_then(|from| Address::parse(&from.address).ok()));
    let recipients = match Address::parse("someone@localhost") {
        Ok(address) => vec![address],
        Err(_) => Vec::new(),
    };
    Envelope {
        id: TransactionId::from_random([0; TransactionId::LEN]),
        direction,
        client: Client { address: SocketAddr::from(([127, 0, 0, 1], 0)), helo: String::new(), esmtp: true },
        mail: Mail { reverse_path, ..Mail::default() },
        recipients,
    }
}

fn as_json(scan: &Scan, disposition: &str) -> anyhow::Result<String> {
    let degraded: Vec<String> =
        scan.degraded.iter().map(|part| format!("{}: {}", part.analyser, part.reason)).collect();
    let value = serde_json::json!({
        "score": scan.score(),
        "disposition": disposition,
        "findings": scan.findings,
        "degraded": degraded,
        "microseconds": u64::try_from(scan.elapsed.as_micros())?,
    });
    Ok(serde_json::to_string_pretty(&value)?)
}

fn print_for_people(scan: &Scan, disposition: &str, direction: Direction) {
    println!("{disposition} ({}), score {}, {:?}", direction.as_str(), scan.score(), scan.elapsed);
    for part in &scan.degraded {
        println!("  not done: {} ({})", part.analyser, part.reason);
    }
    let width = scan.findings.iter().map(|finding| finding.symbol.as_str().len()).max().unwrap_or_default();
    for finding in &scan.findings {
        println!(
            "{:>7}  {:width$}  {}",
            finding.score.to_string(),
            finding.symbol.as_str(),
            finding.explanation.expose()
        );
    }
}
