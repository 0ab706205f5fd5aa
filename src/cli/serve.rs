//! `lazaret serve`: run the gateway until it is told to stop. SIGHUP reads the configuration again, SIGTERM
//! and SIGINT drain, a second one of these ends at once. systemd hears of each.

use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::config::{Config, ConfigError};
use crate::ingress::Inherited;
use crate::mail::Direction;
use crate::metrics::Counter;

pub(super) fn run(path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    log_to_stderr(&config.log)?;
    std::panic::set_hook(Box::new(log_panic));
    // Before the runtime has threads: it takes the variables out of the environment.
    let inherited = Inherited::take();
    let runtime = super::runtime()?;
    let is_drained = runtime.block_on(serve(&config, path, inherited))?;
    if is_drained {
        return Ok(ExitCode::SUCCESS);
    }
    // What still runs is not waited for.
    runtime.shutdown_background();
    Ok(ExitCode::FAILURE)
}

/// Serves to the end; whether everything was drained.
async fn serve(config: &Config, path: Option<&Path>, inherited: Inherited) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut app = App::start(config, inherited).await?;
    // What a person or a script wants to know first, on standard output; the log goes elsewhere.
    for direction in Direction::ALL {
        let name = direction.as_str();
        for (index, address) in app.addresses(direction).iter().enumerate() {
            let further = if index > 0 { ".listener" } else { "" };
            println!("{name}{further}: {address}");
        }
    }
    println!("web: {}", app.web);
    if let Some(link) = &app.administrator_link {
        println!("administrator: {link}");
    }
    println!("ready");
    tell_systemd(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            () = either(&mut terminate, &mut interrupt) => break,
            _ = hang_up.recv() => reload(&mut app, path).await,
        }
    }
    tracing::info!("draining");
    tell_systemd(&[NotifyState::Stopping]);
    tokio::select! {
        () = app.drain() => {
            tracing::info!("ended");
            Ok(true)
        }
        () = either(&mut terminate, &mut interrupt) => {
            tracing::warn!("told twice to stop: ending at once");
            Ok(false)
        }
    }
}

/// Waits for one of two signals.
async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Reads the configuration again. With any problem the old one stays, and each is logged.
async fn reload(app: &mut App, path: Option<&Path>) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell_systemd(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "telling systemd"),
    }
    let result = if change(app, path).await { "done" } else { "refused" };
    Counter::Reloads.increment(&[("result", result)]);
    tell_systemd(&[NotifyState::Ready]);
}

/// Takes what the file says now; whether it was taken.
async fn change(app: &mut App, path: Option<&Path>) -> bool {
    match Config::load(path) {
        Ok(config) => match app.reload(config).await {
            Ok(kept) => {
                for key in kept {
                    tracing::warn!(key, "changed in the configuration, and takes effect after a restart");
                }
                tracing::info!("the configuration was reloaded");
                return true;
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the configuration was not reloaded");
            }
        },
        Err(ConfigError::Invalid { problems, .. }) => {
            for problem in problems.0 {
                let (line, key) = (problem.line, problem.key);
                tracing::error!(line, key, problem = problem.message, "a problem of the configuration");
            }
            tracing::error!("the configuration was not reloaded");
        }
        Err(error) => {
            let error = anyhow::Error::new(error);
            tracing::error!(error = format!("{error:#}"), "the configuration was not reloaded");
        }
    }
    false
}

/// Tells systemd how we are, if it wants to know (sd_notify(3)).
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "telling systemd");
    }
}

/// Logs where a panic was, and not what it says: a parser's message can quote what it parses.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "a panic");
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_without_what_it_says() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            std::panic::set_hook(Box::new(log_panic));
            assert!(std::panic::catch_unwind(|| panic!("in the middle of Secretname")).is_err());
            drop(std::panic::take_hook());
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("serve.rs") && !text.contains("Secretname"), "{text}");
    }
}
