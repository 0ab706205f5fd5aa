//! `lazaret config`: check a file, print the reference.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::EX_CONFIG;
use crate::config::{self, Config, ConfigError};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Report every problem of a file at once; exit 78 if there is one.
    Check {
        /// The file; without one, that of --config, or the embedded default.
        file: Option<PathBuf>,
    },
    /// Print every key with its default and meaning.
    Reference,
}

pub(super) fn run(command: &Command, path: Option<&Path>) -> ExitCode {
    match command {
        Command::Reference => {
            print!("{}", config::reference());
            ExitCode::SUCCESS
        }
        Command::Check { file } => {
            let path = file.as_deref().or(path);
            let name =
                path.map_or_else(|| "the embedded default".to_owned(), |path| path.display().to_string());
            match Config::load(path) {
                Ok(_) => {
                    println!("{name}: good");
                    ExitCode::SUCCESS
                }
                Err(ConfigError::Invalid { problems, .. }) => {
                    for problem in &problems.0 {
                        let line = problem.line.map_or_else(String::new, |line| format!("{line}: "));
                        let key =
                            if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
                        eprintln!("{name}:{line}{key}{}", problem.message);
                    }
                    ExitCode::from(EX_CONFIG)
                }
                Err(error @ ConfigError::Unreadable { .. }) => {
                    eprintln!("lazaret: {:#}", anyhow::Error::new(error));
                    ExitCode::from(EX_CONFIG)
                }
            }
        }
    }
}
