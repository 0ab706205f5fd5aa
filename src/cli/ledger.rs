//! `lazaret ledger`: the messages that may exist twice.
//!
//! Reads the ledger's files and nothing else, so it works beside a running gateway.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use time::format_description::well_known::Rfc3339;

use super::messages::printable;
use crate::config::Config;
use crate::journal::Ledger;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let folder = config.data_dir.join("journal");
    let lines =
        Ledger::new(&folder).read().with_context(|| format!("reading the ledger in {}", folder.display()))?;
    if arguments.json {
        println!("{}", serde_json::json!({ "lines": lines }));
        return Ok(ExitCode::SUCCESS);
    }
    for line in &lines {
        println!(
            "{}  {}  {:<8}  {:>4}  {}",
            line.time.format(&Rfc3339)?,
            line.id,
            line.direction.as_str(),
            line.recipients,
            printable(&line.cause),
        );
    }
    if lines.is_empty() {
        println!("the ledger is empty: no message is known that may exist twice");
    }
    Ok(ExitCode::SUCCESS)
}
