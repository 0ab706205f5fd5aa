//! `lazaret serve`: run the gateway until it is told to stop.

use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::config::Config;

pub(super) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    log_to_stderr(&config.log)?;
    super::runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let app = App::start(config).await?;
        // What a person or a script wants to know first, on standard output; the log goes elsewhere.
        println!("inbound: {}", app.inbound);
        println!("outbound: {}", app.outbound);
        println!("web: {}", app.web);
        if let Some(link) = &app.administrator_link {
            println!("administrator: {link}");
        }
        println!("ready");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
        app.drain().await;
        tracing::info!("ended");
        Ok(ExitCode::SUCCESS)
    })
}

fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).context("the log filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init()
        .map_err(|error| anyhow::anyhow!("starting the log: {error}"))
}
