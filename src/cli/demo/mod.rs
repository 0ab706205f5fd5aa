//! `lazaret demo`: the gateway at work, on a machine that has nothing else.
//!
//! Starts a gateway of its own on free loopback ports with a temporary data folder, teaches it the
//! training part of the sample mail, sends the other part through real SMTP, and says what happened to
//! every message: it asks the Maildir and the quarantine where each is, and believes no counter.

mod sample;
mod table;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

use crate::app::{self, App, maildir};
use crate::config::Config;
use crate::gateway::Marking;
use crate::ingress::{Inherited, ListenAddress};
use crate::learn::Label;
use crate::mail::{Direction, Mail};
use crate::quarantine::{Query, Scope};
use crate::relay::{self, Begun, NextHop, Relay};

use sample::Sample;
use table::{Fate, Outcome};

/// Messages in flight at the same time.
const CLIENTS: usize = 8;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// End after the table; exit 0 only if every message is accounted for.
    #[arg(long)]
    once: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("lazaret-demo-").tempdir().context("making a folder")?;
    let config = config(folder.path())?;
    super::runtime()?.block_on(async {
        let samples = sample::all();
        let (train, demo): (Vec<Sample>, Vec<Sample>) = samples.into_iter().partition(|s| s.is_training);
        println!("A gateway of its own, with its data in {}.\n", folder.path().display());
        let taught = teach(&config, &train).await?;
        let app = App::start(&config, Inherited::default()).await?;
        app.learned().load().await?;
        println!("Learned {} sample messages in {:.1} s.", train.len(), taught.as_secs_f64());

        let bar = ProgressBar::new(demo.len() as u64).with_style(ProgressStyle::with_template(
            "Sending other samples through SMTP  [{bar:40}] {pos}/{len}",
        )?);
        let started = Instant::now();
        let outcomes = send_all(&app, demo, &bar).await?;
        let elapsed = started.elapsed();
        bar.finish_and_clear();
        let outcomes = find_all(&app, &config, outcomes).await?;
        let accounted = table::print(&outcomes, elapsed);

        if arguments.once {
            app.drain().await;
            return Ok(if accounted { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        println!("\nThe gateway stays up:");
        println!("  mail from the world   smtp://{}", address(&app, Direction::Inbound)?);
        println!("  mail to the world     smtp://{}", address(&app, Direction::Outbound)?);
        if let Some(link) = &app.administrator_link {
            println!("  review what was kept  {link}");
        }
        println!("Ctrl-C ends it and removes its data.");
        tokio::signal::ctrl_c().await?;
        app.drain().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The embedded default on free ports, with everything in one temporary folder.
fn config(folder: &Path) -> anyhow::Result<Config> {
    let mut config = Config::embedded();
    config.data_dir = folder.to_owned();
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.inbound.listen = Some(ListenAddress::Tcp(any_port));
    config.outbound.listen = Some(ListenAddress::Tcp(any_port));
    config.web_listen.set_port(0);
    // Shown in the table for both directions.
    config.outbound.marking = Marking::Full;
    Ok(config)
}

/// Returns where a direction is listened on.
fn address(app: &App, direction: Direction) -> anyhow::Result<SocketAddr> {
    app.address(direction).context("the demonstration listens on TCP")
}

async fn teach(config: &Config, samples: &[Sample]) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let desk = app::desk(config).await?;
    for label in [Label::Ham, Label::Spam] {
        let messages = samples.iter().filter(|sample| sample.label == label);
        desk.learn(label, messages.map(|sample| sample.message.clone().into()).collect()).await?;
    }
    Ok(started.elapsed())
}

/// Sends every sample through the listener of its direction, several at a time.
async fn send_all(app: &App, samples: Vec<Sample>, bar: &ProgressBar) -> anyhow::Result<Vec<Outcome>> {
    let client = |direction: Direction| -> anyhow::Result<Relay> {
        let address = address(app, direction)?;
        let next_hop = NextHop::Smtp { host: address.ip().to_string(), port: address.port() };
        Ok(Relay::new(relay::Config::new(next_hop, "client.example")))
    };
    let inbound = client(Direction::Inbound)?;
    let outbound = client(Direction::Outbound)?;
    let outcomes = stream::iter(samples)
        .map(|sample| {
            let relay = match sample.direction {
                Direction::Inbound => inbound.clone(),
                Direction::Outbound => outbound.clone(),
            };
            async move {
                let started = Instant::now();
                let answer = send(&relay, &sample).await;
                bar.inc(1);
                Outcome { sample, answer, latency: started.elapsed(), fate: Fate::Unknown }
            }
        })
        .buffer_unordered(CLIENTS)
        .collect()
        .await;
    Ok(outcomes)
}

/// Sends one message; gives the id under which it was accepted, or the code of the refusal.
async fn send(relay: &Relay, sample: &Sample) -> Result<String, u16> {
    let mail = Mail {
        reverse_path: sample.sender.clone(),
        body: crate::mail::BodyType::EightBitMime,
        ..Mail::default()
    };
    let lost = |_: relay::Error| 0u16;
    let mut transaction = match relay.begin(None, &mail).await.map_err(lost)? {
        Begun::Ready(transaction, _) => transaction,
        Begun::Refused(reply) => return Err(reply.code()),
    };
    let reply = transaction.rcpt(&sample.recipient.clone().into()).await.map_err(lost)?;
    if !reply.is_positive() {
        return Err(reply.code());
    }
    match transaction.data(&[sample.message.clone().into()]).await.into_iter().next() {
        Some(relay::Outcome::Accepted(accepted)) => {
            let text = accepted.reply().lines().join(" ");
            Ok(text.rsplit(' ').next().unwrap_or_default().to_owned())
        }
        Some(relay::Outcome::Refused(reply)) => Err(reply.code()),
        Some(relay::Outcome::Failed(_)) | None => Err(0),
    }
}

/// Looks for every message where it must be: in a Maildir, in the quarantine, or refused.
async fn find_all(app: &App, config: &Config, mut outcomes: Vec<Outcome>) -> anyhow::Result<Vec<Outcome>> {
    let mut delivered: BTreeMap<String, bool> = BTreeMap::new();
    for direction in Direction::ALL {
        let folder = maildir(&config.data_dir, direction).join("new");
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let message = crate::message::parse(&std::fs::read(entry?.path())?);
            let is_marked = message.header("X-Spam-Flag").is_some_and(|flag| flag.value.trim() == "YES");
            if let Some(id) = message.header("X-Lazaret-Id") {
                delivered.insert(id.value.trim().to_owned(), is_marked);
            }
        }
    }
    let mut kept = BTreeMap::new();
    let mut query = Query::default();
    loop {
        let page = app.quarantine().list(&Scope::All, &query).await?;
        for entry in page.entries {
            kept.insert(entry.transaction.as_str().to_owned(), ());
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    for outcome in &mut outcomes {
        outcome.fate = match &outcome.answer {
            Ok(id) => match (delivered.remove(id), kept.remove(id)) {
                (Some(false), None) => Fate::Delivered,
                (Some(true), None) => Fate::Marked,
                (None, Some(())) => Fate::Kept,
                (Some(_), Some(())) => bail!("{id} was both delivered and kept"),
                (None, None) => Fate::Unknown,
            },
            Err(500..=599) => Fate::Refused,
            Err(_) => Fate::Unknown,
        };
    }
    if !delivered.is_empty() || !kept.is_empty() {
        bail!("{} messages arrived that nobody was told of", delivered.len() + kept.len());
    }
    Ok(outcomes)
}
