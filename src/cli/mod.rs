//! The command line: one file per command.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 78 a configuration that cannot be used (sysexits'
//! `EX_CONFIG`).

mod accounts;
mod config;
mod demo;
mod evaluate;
mod labelled;
mod learn;
mod ledger;
mod messages;
mod quarantine;
mod rules;
mod scan;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// The exit code for a configuration that cannot be used.
const EX_CONFIG: u8 = 78;

/// A mail gateway that scans, keeps doubtful mail in quarantine, and loses nothing.
#[derive(Debug, Parser)]
#[command(name = "lazaret", version, about)]
struct Arguments {
    /// The configuration file; without one, the embedded default is used.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve,
    /// Show it at work: send some 200 sample messages through a gateway of its own, and stay up.
    Demo(demo::Arguments),
    /// Scan messages: findings, score, disposition, reasons.
    Scan(scan::Arguments),
    /// Teach the filter from files, folders, Maildirs or mbox files.
    Learn(learn::Arguments),
    /// Measure filter and rules over labelled mail.
    Evaluate(evaluate::Arguments),
    /// Look at rules, check them, try them, take over those of SpamAssassin.
    #[command(subcommand)]
    Rules(rules::Command),
    /// Review kept mail.
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// List the messages that may exist twice, because a next hop's answer was lost.
    Ledger(ledger::Arguments),
    /// Manage who may hand in mail under a name and a password.
    #[command(subcommand)]
    Accounts(accounts::Command),
    /// Check or explain the configuration.
    #[command(subcommand)]
    Config(config::Command),
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    end_with_the_reader();
    let path = arguments.config.as_deref();
    let result = match arguments.command {
        Command::Config(command) => return config::run(&command, path),
        Command::Serve => serve::run(path),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Scan(arguments) => load(path).and_then(|config| scan::run(&arguments, &config)),
        Command::Learn(arguments) => load(path).and_then(|config| learn::run(&arguments, &config)),
        Command::Evaluate(arguments) => load(path).and_then(|config| evaluate::run(&arguments, &config)),
        Command::Rules(command) => load(path).and_then(|config| rules::run(&command, &config)),
        Command::Ledger(arguments) => load(path).and_then(|config| ledger::run(&arguments, &config)),
        Command::Quarantine(command) => load(path).and_then(|config| quarantine::run(&command, &config)),
        Command::Accounts(command) => load(path).and_then(|config| accounts::run(&command, &config)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lazaret: {error:#}");
            if error.is::<ConfigError>() { ExitCode::from(EX_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

/// Ends the program quietly, and not with a panic, where nobody reads any more what it prints: `lazaret ... | head`.
fn end_with_the_reader() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(|text| text.starts_with("failed printing to stdout")) {
            std::process::exit(0);
        }
        report(panic);
    }));
}

fn load(path: Option<&Path>) -> anyhow::Result<Config> {
    Ok(Config::load(path)?)
}

/// Starts the runtime of a command that needs one.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
