//! `lazaret learn`: teach the filter from mail on disk.

use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::messages;
use crate::app;
use crate::config::Config;
use crate::learn::Label;

/// Messages learned in one transaction, and their bytes.
const BATCH: usize = 200;
const BATCH_BYTES: usize = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The messages are spam.
    #[arg(long, required_unless_present = "ham", conflicts_with = "ham")]
    spam: bool,
    /// The messages are wanted mail.
    #[arg(long)]
    ham: bool,
    /// Files, folders, Maildirs or mbox files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Default)]
struct Totals {
    learned: u64,
    relabelled: u64,
    already_known: u64,
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let label = if arguments.spam { Label::Spam } else { Label::Ham };
    let files = messages::find(&arguments.paths)?;
    let runtime = super::runtime()?;
    let desk = runtime.block_on(app::desk(config))?;
    let bar = ProgressBar::new(files.len() as u64)
        .with_style(ProgressStyle::with_template("learning [{bar:40}] {pos}/{len} files  {eta}")?);
    let mut totals = Totals::default();
    let mut batch: Vec<Bytes> = Vec::new();
    let mut batch_bytes = 0;
    let teach = |batch: &mut Vec<Bytes>, totals: &mut Totals| -> anyhow::Result<()> {
        let appended = runtime.block_on(desk.learn(label, std::mem::take(batch)))?;
        totals.learned += appended.learned;
        totals.relabelled += appended.relabelled;
        totals.already_known += appended.already_known;
        Ok(())
    };
    for file in &files {
        messages::read(file, |message| {
            batch_bytes += message.len();
            batch.push(message.into());
            if batch.len() >= BATCH || batch_bytes >= BATCH_BYTES {
                teach(&mut batch, &mut totals)?;
                batch_bytes = 0;
            }
            Ok(())
        })?;
        bar.inc(1);
    }
    teach(&mut batch, &mut totals)?;
    bar.finish_and_clear();
    println!(
        "{} learned as {}, {} relabelled, {} already known",
        totals.learned,
        if arguments.spam { "spam" } else { "ham" },
        totals.relabelled,
        totals.already_known
    );
    Ok(ExitCode::SUCCESS)
}
