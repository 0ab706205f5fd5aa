//! The doors for clients of other filters: bound at the start, behind them what the configuration says now.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::either::Either;

use super::build::Built;
use super::now;
use super::task::{self, report_panic};
use crate::config::Config;
use crate::door::{self, Current, Service, milter};
use crate::ingress::{Inherited, ListenAddress, Listener, Memory};
use crate::mail::Direction;
use crate::scan::Scanner;

/// How long requests may take to end when the gateway stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be taken, for want of descriptors say.
const PAUSE: Duration = Duration::from_millis(100);

/// The doors that are open.
pub(super) struct Doors {
    current: Current,
    milter_current: milter::Current,
    /// Where `spamd` is spoken.
    pub(super) spamd: Option<ListenAddress>,
    /// Where Rspamd's HTTP is spoken.
    pub(super) rspamd: Option<SocketAddr>,
    /// Where MTAs find a milter.
    pub(super) milter: Option<ListenAddress>,
    servers: Vec<JoinHandle<()>>,
}

impl Doors {
    /// Binds the doors of a configuration and opens them.
    ///
    /// # Errors
    /// What could not be bound.
    pub(super) async fn open(
        config: &Config,
        built: &Built,
        memory: &Memory,
        inherited: &mut Inherited,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let mut doors = Doors {
            current: Arc::new(ArcSwap::from_pointee(service(config, &built.scanner)?)),
            milter_current: Arc::new(ArcSwap::from_pointee(milter_service(config, built))),
            spamd: None,
            rspamd: None,
            milter: None,
            servers: Vec::new(),
        };
        if let Some(address) = &config.door.spamd {
            let listener = Listener::open(address, inherited)
                .with_context(|| format!("door.spamd: listening on {address}"))?;
            doors.spamd = Some(listener.address()?);
            let current = Arc::clone(&doors.current);
            let answer = move |stream| door::serve(stream, Arc::clone(&current));
            doors.servers.push(tokio::spawn(serve(listener, "spamd", answer, stopped.clone())));
        }
        if let Some(address) = config.door.rspamd {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("door.rspamd: listening on {address}"))?;
            doors.rspamd = Some(listener.local_addr()?);
            let router = door::router(Arc::clone(&doors.current));
            doors.servers.push(tokio::spawn(task::serve_web(listener, router, stopped.clone())));
        }
        if let Some(address) = &config.door.milter {
            let listener = Listener::open(address, inherited)
                .with_context(|| format!("door.milter: listening on {address}"))?;
            doors.milter = Some(listener.address()?);
            let (current, memory, stop) =
                (Arc::clone(&doors.milter_current), memory.clone(), stopped.clone());
            let answer =
                move |stream| milter::serve(stream, Arc::clone(&current), memory.clone(), stop.clone());
            doors.servers.push(tokio::spawn(serve(listener, "milter", answer, stopped.clone())));
        }
        if let Some(address) = &doors.spamd {
            tracing::info!(%address, "speaking spamd's protocol");
        }
        if let Some(address) = doors.rspamd {
            tracing::info!(%address, "speaking Rspamd's HTTP");
        }
        if let Some(address) = &doors.milter {
            tracing::info!(%address, "speaking the milter protocol");
        }
        Ok(doors)
    }

    /// Puts what a new configuration says behind the doors; where they are does not change.
    ///
    /// # Errors
    /// Thresholds that are out of order.
    pub(super) fn change(&self, config: &Config, built: &Built) -> anyhow::Result<()> {
        self.current.store(Arc::new(service(config, &built.scanner)?));
        self.milter_current.store(Arc::new(milter_service(config, built)));
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
        sharing: config.learn_share,
        message_bytes: config.smtp.max_message_bytes,
        now,
    })
}

fn milter_service(config: &Config, built: &Built) -> milter::Service {
    let gateway = match config.door.direction {
        Direction::Inbound => &built.gateways.inbound,
        Direction::Outbound => &built.gateways.outbound,
    };
    milter::Service { gateway: gateway.clone(), message_bytes: config.smtp.max_message_bytes }
}

/// Answers connections until told to stop, so many at a time; then ends those that are open.
async fn serve<F>(
    listener: Listener,
    name: &'static str,
    answer: impl Fn(Either<TcpStream, UnixStream>) -> F,
    mut stopped: watch::Receiver<bool>,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(door::CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        while let Some(ended) = open.try_join_next() {
            report_panic(ended);
        }
        // The semaphore is never closed, so there is always a place in the end.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.ok(),
            () = task::wait_for_stop(&mut stopped) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = task::wait_for_stop(&mut stopped) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let answering = answer(stream);
                open.spawn(async move {
                    let _place = place;
                    if let Err(error) = answering.await {
                        tracing::debug!(door = name, %error, "a connection to a door broke off");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(door = name, %error, "a door cannot take a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    while let Some(ended) = open.join_next().await {
        report_panic(ended);
    }
}
