//! The doors for clients of other filters: bound at the start, behind them what the configuration says now.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::now;
use super::task::{self, report_panic};
use crate::config::Config;
use crate::door::{self, Current, Service};
use crate::ingress::{Inherited, ListenAddress, Listener};
use crate::scan::Scanner;

/// How long requests may take to end when the gateway stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be taken, for want of descriptors say.
const PAUSE: Duration = Duration::from_millis(100);

/// The doors that are open.
pub(super) struct Doors {
    current: Current,
    /// Where `spamd` is spoken.
    pub(super) spamd: Option<ListenAddress>,
    /// Where Rspamd's HTTP is spoken.
    pub(super) rspamd: Option<SocketAddr>,
    servers: Vec<JoinHandle<()>>,
}

impl Doors {
    /// Binds the doors of a configuration and opens them.
    ///
    /// # Errors
    /// What could not be bound.
    pub(super) async fn open(
        config: &Config,
        scanner: &Scanner,
        inherited: &mut Inherited,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let current = Arc::new(ArcSwap::from_pointee(service(config, scanner)?));
        let mut doors = Doors { current, spamd: None, rspamd: None, servers: Vec::new() };
        if let Some(address) = &config.door.spamd {
            let listener = Listener::open(address, inherited)
                .with_context(|| format!("door.spamd: listening on {address}"))?;
            doors.spamd = Some(listener.address()?);
            let serving = serve_spamd(listener, Arc::clone(&doors.current), stopped.clone());
            doors.servers.push(tokio::spawn(serving));
        }
        if let Some(address) = config.door.rspamd {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("door.rspamd: listening on {address}"))?;
            doors.rspamd = Some(listener.local_addr()?);
            let router = door::router(Arc::clone(&doors.current));
            doors.servers.push(tokio::spawn(task::serve_web(listener, router, stopped.clone())));
        }
        if let Some(address) = &doors.spamd {
            tracing::info!(%address, "speaking spamd's protocol");
        }
        if let Some(address) = doors.rspamd {
            tracing::info!(%address, "speaking Rspamd's HTTP");
        }
        Ok(doors)
    }

    /// Puts what a new configuration says behind the doors; where they are does not change.
    ///
    /// # Errors
    /// Thresholds that are out of order.
    pub(super) fn change(&self, config: &Config, scanner: &Scanner) -> anyhow::Result<()> {
        self.current.store(Arc::new(service(config, scanner)?));
        Ok(())
    }

    /// Waits for the requests that are under way.
    pub(super) async fn close(self) {
        for server in self.servers {
            match tokio::time::timeout(GRACE, server).await {
                Ok(ended) => report_panic(ended),
                Err(_) => tracing::debug!("requests at a door were cut off"),
            }
        }
    }
}

fn service(config: &Config, scanner: &Scanner) -> anyhow::Result<Service> {
    Ok(Service {
        scanner: scanner.clone(),
        policy: config.way(config.door.direction).policy()?,
        direction: config.door.direction,
        may_teach: config.door.may_teach,
        message_bytes: config.smtp.max_message_bytes,
        now,
    })
}

/// Answers connections until told to stop, so many at a time; then ends those that are open.
async fn serve_spamd(listener: Listener, service: Current, mut stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(door::CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        // The semaphore is never closed, so there is always a place in the end.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = task::wait_for_stop(&mut stopped) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let service = Arc::clone(&service);
                open.spawn(async move {
                    let _place = place;
                    if let Err(error) = door::serve(stream, service).await {
                        tracing::debug!(%error, "a connection to the spamd door broke off");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the spamd door cannot take a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    open.join_all().await;
}
