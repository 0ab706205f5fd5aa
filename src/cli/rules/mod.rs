//! `lazaret rules`: look at the rules, check them, try them, take over those of SpamAssassin.

mod check;
mod fit;
mod import;
mod show;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::app;
use crate::config::Config;
use crate::mail::{Client, Direction, Envelope, Mail, TransactionId};
use crate::rules::{Problem, RuleSet, Source};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say what is wrong with rules, and what of them cannot be used.
    Check(check::Arguments),
    /// List the rules.
    List(show::List),
    /// Explain a rule.
    Explain(show::Explain),
    /// Say which rules hit a message, and on what; without a message, run the rules' own examples.
    Test(show::Test),
    /// Fit the points of rules to labelled mail.
    Fit(fit::Arguments),
    /// Check a folder of rules, SpamAssassin's for one, and copy it to the configured folder of rules.
    Import(import::Arguments),
}

/// Which rules are meant.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// Rule files or folders of them, in place of the built-in and the configured ones.
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// The rules for outbound mail.
    #[arg(long)]
    outbound: bool,
}

impl Selection {
    fn direction(&self) -> Direction {
        if self.outbound { Direction::Outbound } else { Direction::Inbound }
    }

    /// Makes up the envelope of a message on disk, of which only the direction is known.
    fn envelope(&self) -> Envelope {
        Envelope {
            id: TransactionId::from_random([0; TransactionId::LEN]),
            direction: self.direction(),
            client: Client::new(SocketAddr::from(([127, 0, 0, 1], 0))),
            mail: Mail::default(),
            recipients: Vec::new(),
        }
    }

    fn sources(&self, config: &Config) -> anyhow::Result<Vec<Source>> {
        if self.rules.is_empty() {
            return app::configured_sources(config, self.direction());
        }
        let mut sources = Vec::new();
        for path in &self.rules {
            sources.extend(app::rule_sources(path)?);
        }
        Ok(sources)
    }

    fn compile(&self, config: &Config) -> anyhow::Result<(RuleSet, Vec<Problem>)> {
        Ok(RuleSet::compile(&self.sources(config)?))
    }
}

pub(super) fn run(command: &Command, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(arguments) => check::run(arguments, config),
        Command::List(arguments) => show::list(arguments, config),
        Command::Explain(arguments) => show::explain(arguments, config),
        Command::Test(arguments) => show::test(arguments, config),
        Command::Fit(arguments) => fit::run(arguments, config),
        Command::Import(arguments) => import::run(arguments, config),
    }
}
