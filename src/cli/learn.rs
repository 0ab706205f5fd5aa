//! `lazaret learn`: teach the filter from mail on disk, and look after what it learned.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use bytes::Bytes;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinHandle;

use super::messages;
use crate::app;
use crate::config::Config;
use crate::learn::{Label, MIN_LESSONS, MessageKey};
use crate::mail::Address;
use crate::message;
use crate::scan::{By, Contradicted, LearnedError};
use crate::store::{Appended, Forget, Tally, Teacher};

/// Messages learned in one transaction, and their bytes.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 64 << 20;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    teach: Option<Teach>,
}

#[derive(Debug, Args)]
struct Teach {
    /// The messages are spam.
    #[arg(long, required_unless_present = "ham", conflicts_with = "ham")]
    spam: bool,
    /// The messages are wanted mail.
    #[arg(long)]
    ham: bool,
    /// They are this person's own: others learn from them only where `learn.share` says so.
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    person: Option<Address>,
    /// Files, folders, Maildirs or mbox files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what was learned, by whom, and where spam begins.
    Status,
    /// Forget lessons as if they never had been; a gateway that is running follows.
    Forget(Forgetting),
    /// Show the lessons that all others contradict most strongly, for review.
    Audit {
        /// How many.
        #[arg(long, default_value_t = 10)]
        most: usize,
    },
    /// Fold the log of lessons anew, whatever snapshots there are; the gateway must not be running.
    Rebuild,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Forgetting {
    /// All lessons about these messages: files, folders, Maildirs or mbox files.
    paths: Vec<PathBuf>,
    /// All that this person taught.
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    person: Option<Address>,
    /// The lessons of these lines, as `audit` names them.
    #[arg(long, value_name = "NUMBER")]
    line: Vec<i64>,
}

#[derive(Default)]
struct Totals {
    learned: u64,
    relabelled: u64,
    already_known: u64,
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    match (&arguments.command, &arguments.teach) {
        (Some(Command::Status), _) => status(config),
        (Some(Command::Forget(which)), _) => forget(which, config),
        (Some(Command::Audit { most }), _) => audit(*most, config),
        (Some(Command::Rebuild), _) => rebuild(config),
        (None, Some(arguments)) => teach(arguments, config),
        (None, None) => bail!("say what to learn, or what to do: see --help"),
    }
}

fn status(config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = super::runtime()?;
    let learned = runtime.block_on(app::desk(config))?.review.learned;
    let tally = runtime.block_on(learned.log().tally())?;
    let lines = runtime.block_on(learned.log().count())?;
    let model = runtime.block_on(learned.load())?;
    for Tally { label, teacher, layer, lessons } in &tally {
        let which = match layer.as_str() {
            "shared" => String::new(),
            layer => format!(", in the layer of a{} {layer}", if layer == "organisation" { "n" } else { "" }),
        };
        println!("{:<50} {lessons:>8}", format!("{} lessons, {teacher}{which}", label.as_str()));
    }
    println!("{:<50} {lines:>8}", "lines in the log");
    println!("{:<50} {:>8}", "last line", model.sequence());
    let (ham_to, spam_from) = model.bounds();
    println!("{:<50} {ham_to:>8.2}", "ham up to a score of");
    println!("{:<50} {spam_from:>8.2}", "spam from a score of");
    let (ham, spam) = model.lessons();
    if ham.min(spam) < MIN_LESSONS {
        println!("Nothing is called spam before there are {MIN_LESSONS} lessons of each label.");
    }
    Ok(ExitCode::SUCCESS)
}

fn forget(which: &Forgetting, config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = super::runtime()?;
    let review = runtime.block_on(app::desk(config))?.review;
    let mut which_ones: Vec<Forget> = which.line.iter().map(|line| Forget::Line(*line)).collect();
    which_ones.extend(which.person.iter().map(|person| Forget::Teacher(review.quarantine.teacher(person))));
    for file in messages::find(&which.paths)? {
        messages::read(&file, |raw| {
            let message = message::parse(&raw);
            which_ones.push(Forget::Message(MessageKey::of(&message, review.learned.key())));
            Ok(())
        })?;
    }
    let mut forgotten = 0;
    for which in &which_ones {
        forgotten += runtime.block_on(review.learned.forget(which, app::now()))?;
    }
    println!("lessons forgotten: {forgotten}");
    Ok(ExitCode::SUCCESS)
}

fn audit(most: usize, config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = super::runtime()?;
    let learned = runtime.block_on(app::desk(config))?.review.learned;
    let found = runtime.block_on(learned.audit(most))?;
    println!("{:>10}  {:<20}  {:<5}  {:>8}  taught by", "line", "learned", "as", "against");
    for Contradicted { sequence, label, teacher, learned_at, by } in &found {
        let learned_at = learned_at.format(&Rfc3339)?;
        println!("{sequence:>10}  {learned_at:<20}  {:<5}  {by:>8.2}  {teacher}", label.as_str());
    }
    Ok(ExitCode::SUCCESS)
}

fn rebuild(config: &Config) -> anyhow::Result<ExitCode> {
    let (ham, spam) = super::runtime()?.block_on(app::rebuild_model(config))?;
    println!("folded {ham} ham and {spam} spam lessons");
    Ok(ExitCode::SUCCESS)
}

fn teach(arguments: &Teach, config: &Config) -> anyhow::Result<ExitCode> {
    let label = if arguments.spam { Label::Spam } else { Label::Ham };
    let files = messages::find(&arguments.paths)?;
    let runtime = super::runtime()?;
    let review = runtime.block_on(app::desk(config))?.review;
    let by = match &arguments.person {
        Some(person) => By::Person(person.clone(), review.sharing),
        None => By::All(Teacher::Cli),
    };
    let bar = ProgressBar::new(files.len() as u64)
        .with_style(ProgressStyle::with_template("learning [{bar:40}] {pos}/{len} files  {eta}")?);
    let mut totals = Totals::default();
    let mut batch: Vec<Bytes> = Vec::new();
    let mut batch_bytes = 0;
    // While one batch is written the next is read.
    let mut writing: Option<JoinHandle<Result<Appended, LearnedError>>> = None;
    let mut teach = |batch: &mut Vec<Bytes>, totals: &mut Totals, is_last: bool| -> anyhow::Result<()> {
        let learned = review.learned.clone();
        let lessons = runtime.block_on(learned.read(label, std::mem::take(batch), &by, app::now()))?;
        let next = runtime.spawn(async move { learned.write(&lessons).await });
        let before = writing.replace(next);
        for written in before.into_iter().chain(if is_last { writing.take() } else { None }) {
            let appended = runtime.block_on(written)??;
            totals.learned += appended.learned;
            totals.relabelled += appended.relabelled;
            totals.already_known += appended.already_known;
        }
        Ok(())
    };
    for file in &files {
        messages::read(file, |message| {
            batch_bytes += message.len();
            batch.push(message.into());
            if batch.len() >= BATCH || batch_bytes >= BATCH_BYTES {
                teach(&mut batch, &mut totals, false)?;
                batch_bytes = 0;
            }
            Ok(())
        })?;
        bar.inc(1);
    }
    teach(&mut batch, &mut totals, true)?;
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
