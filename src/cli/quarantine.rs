//! `lazaret quarantine`: review kept mail from the command line.
//!
//! Works beside a running gateway, which delivers what is released here.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use time::format_description::well_known::Rfc3339;

use super::messages::printable;
use crate::app;
use crate::config::Config;
use crate::quarantine::{Action, Entry, EntryId, Outcome, Query, Review as _, Scope, State};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List kept mail, newest first.
    List(ListArguments),
    /// Show one entry: what was found, why, and the beginning of its text.
    Show {
        /// The id of the entry.
        id: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Deliver the message, and learn it as wanted mail.
    Release(Ids),
    /// Learn it as spam.
    Confirm(Ids),
    /// Put it aside without learning.
    Drop(Ids),
    /// Take the last decision back, and its lesson.
    Undo(Ids),
    /// Compare records and bodies; exit 1 if a recorded body is missing.
    Verify,
}

#[derive(Debug, Args)]
pub(super) struct Ids {
    /// The ids of the entries.
    #[arg(required = true)]
    ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// An address, a domain, a symbol, the beginning of an id, or words of the subject.
    text: Option<String>,
    /// Only entries in this state: kept, releasing, released, failed, confirmed, dropped.
    #[arg(long)]
    state: Option<String>,
    /// Every page, not the first alone.
    #[arg(long)]
    all: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, config: &Config) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(async {
        let desk = app::desk(config).await?;
        match command {
            Command::List(arguments) => list(&desk, arguments).await,
            Command::Show { id, json } => show(&desk, id, *json).await,
            Command::Release(ids) => act(&desk, &ids.ids, Action::Release).await,
            Command::Confirm(ids) => act(&desk, &ids.ids, Action::Confirm).await,
            Command::Drop(ids) => act(&desk, &ids.ids, Action::Drop).await,
            Command::Undo(ids) => act(&desk, &ids.ids, Action::Undo).await,
            Command::Verify => verify(&desk).await,
        }
    })
}

async fn list(desk: &app::Desk, arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let states = match &arguments.state {
        Some(name) => vec![State::from_name(name).with_context(|| format!("there is no state {name}"))?],
        None => Vec::new(),
    };
    let mut query = Query { text: arguments.text.clone().unwrap_or_default(), states, ..Query::default() };
    let mut entries = Vec::new();
    let more = loop {
        let page = desk.review.quarantine.list(&Scope::All, &query).await?;
        entries.extend(page.entries);
        match page.next {
            Some(next) if arguments.all => query.after = Some(next),
            next => break next.is_some(),
        }
    };
    if arguments.json {
        let entries: Vec<serde_json::Value> = entries.iter().map(as_json).collect();
        println!("{}", serde_json::json!({ "entries": entries, "more": more }));
        return Ok(ExitCode::SUCCESS);
    }
    for entry in &entries {
        println!(
            "{}  {}  {:<9}  {:>6}  {} -> {}  {}",
            entry.id,
            entry.received_at.format(&Rfc3339)?,
            entry.state.as_str(),
            entry.score.to_string(),
            printable(entry.private.from_address.expose()),
            printable(entry.private.recipient.expose()),
            printable(entry.private.subject.expose()),
        );
    }
    if entries.is_empty() {
        println!("nothing is kept");
    }
    if more {
        println!("... and more; --all lists them");
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(desk: &app::Desk, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let id = EntryId::parse(id).with_context(|| format!("{id} is no id of an entry"))?;
    let Some(entry) = desk.review.quarantine.find(&Scope::All, &id).await? else {
        bail!("there is no entry {id}");
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&as_json(&entry))?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("id         {}", entry.id);
    println!("received   {}, {}", entry.received_at.format(&Rfc3339)?, entry.direction.as_str());
    println!("state      {}", entry.state.as_str());
    println!("from       {}", printable(entry.private.from_address.expose()));
    println!("to         {}", printable(entry.private.recipient.expose()));
    println!("subject    {}", printable(entry.private.subject.expose()));
    println!("size       {} bytes", entry.size_bytes);
    println!("score      {}", entry.score);
    for finding in &entry.private.findings {
        println!(
            "{:>9}  {}  {}",
            finding.score.to_string(),
            finding.symbol,
            printable(finding.explanation.expose())
        );
    }
    println!();
    for line in entry.private.preview.expose().lines() {
        println!("| {}", printable(line));
    }
    Ok(ExitCode::SUCCESS)
}

async fn act(desk: &app::Desk, ids: &[String], action: Action) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    for text in ids {
        let id = EntryId::parse(text).with_context(|| format!("{text} is no id of an entry"))?;
        let outcome = desk.review.act(&Scope::All, &id, action, app::now()).await?;
        let message = match outcome {
            Outcome::Done(State::Releasing) => "will be delivered by the running gateway".to_owned(),
            Outcome::Done(state) => format!("is {} now", state.as_str()),
            Outcome::AlreadyDone(state) => format!("is {} already", state.as_str()),
            Outcome::LessonTakenBack(state) => {
                format!("stays {}, but its lesson was taken back", state.as_str())
            }
            Outcome::NotAllowed(state) => {
                failed = true;
                format!("is {}: undo that first", state.as_str())
            }
            Outcome::NotFound => {
                failed = true;
                "is not in the quarantine".to_owned()
            }
        };
        println!("{id} {message}");
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn verify(desk: &app::Desk) -> anyhow::Result<ExitCode> {
    let verification = desk.review.quarantine.verify().await?;
    println!("{} bodies", verification.bodies);
    for id in &verification.orphans {
        println!("{id} has no record: on its way just now, or left by a kill; retention removes it");
    }
    for id in &verification.missing {
        println!("{id} is recorded and MISSING: restore bodies/ from a backup");
    }
    Ok(if verification.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "id": entry.id.as_str(),
        "transaction": entry.transaction.as_str(),
        "received_at": entry.received_at.format(&Rfc3339).unwrap_or_default(),
        "direction": entry.direction,
        "state": entry.state,
        "score": entry.score,
        "size_bytes": entry.size_bytes,
        "from": entry.private.from_address.expose(),
        "recipient": entry.private.recipient.expose(),
        "subject": entry.private.subject.expose(),
        "findings": entry.private.findings,
    })
}
