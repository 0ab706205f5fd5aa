//! What runs beside the listeners: releases, retention, the follower of lessons, the web server, metrics.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::now;
use crate::accounts::Accounts;
use crate::digest::{self, Notice, Outgoing};
use crate::gateway::{Outbox, Sender};
use crate::mail::Mail;
use crate::metrics::{self, Counter};
use crate::privacy::error_chain;
use crate::quarantine::Quarantine;
use crate::reputation::Reputation;
use crate::scan::{self, Learned, LearnedError};
use crate::store::{Bound, State};
use crate::web;

/// How often retention looks for what has expired, and for bodies without a record.
const PURGE_EVERY: Duration = Duration::from_secs(600);
const STORE_EVERY: Duration = Duration::from_secs(600);
const SWEEP_EVERY: Duration = Duration::from_secs(86_400);

/// The worker that delivers releases, and those before it that are finishing theirs. A release is leased by
/// the worker that has it in hand, so several do not disturb each other.
pub(super) struct Deliveries {
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
}

impl Deliveries {
    /// Starts the worker.
    pub(super) fn start(outbox: Outbox) -> Self {
        let (stop, stopped) = watch::channel(false);
        Deliveries { stop, workers: vec![tokio::spawn(outbox.run(stopped))] }
    }

    /// Starts another worker; the one before it ends after the release that it has in hand.
    pub(super) fn replace(&mut self, outbox: Outbox) {
        let Deliveries { stop, mut workers } = Deliveries::start(outbox);
        std::mem::replace(&mut self.stop, stop).send_replace(true);
        self.workers.retain(|worker| !worker.is_finished());
        self.workers.append(&mut workers);
    }

    /// Waits until nothing is in hand. A release that is cut off would be sent again by the next start.
    pub(super) async fn drain(self, deadline: Instant) {
        self.stop.send_replace(true);
        for worker in self.workers {
            let cut_off = worker.abort_handle();
            match tokio::time::timeout_at(deadline, worker).await {
                Ok(ended) => report_panic(ended),
                Err(_) => cut_off.abort(),
            }
        }
    }
}

/// Follows the lessons that commands teach.
pub(super) async fn follow(learned: Learned, mut stopped: watch::Receiver<bool>) {
    learned.follow(wait_for_stop(&mut stopped)).await;
}

/// Returns when the gateway is told to stop, or nobody is left who could tell.
pub(super) async fn wait_for_stop(stopped: &mut watch::Receiver<bool>) {
    while !*stopped.borrow_and_update() && stopped.changed().await.is_ok() {}
}

/// Sends the mail that we write ourselves, from the null reverse-path, to the next hop as it is now.
pub(super) fn notices(sender: Arc<ArcSwap<Sender>>) -> impl Outgoing {
    move |notice: Notice| -> BoxFuture<'static, Result<(), digest::SendError>> {
        let sender = sender.load_full();
        Box::pin(async move {
            sender
                .send(&Mail::default(), &notice.recipient.into(), &[Bytes::from(notice.bytes)])
                .await
                .map_err(Into::into)
        })
    }
}

/// Serves the review pages until the gateway stops.
pub(super) async fn serve_web(
    listener: TcpListener,
    router: axum::Router,
    mut stopped: watch::Receiver<bool>,
) {
    let service = router.into_make_service_with_connect_info::<web::Peer>();
    let server = axum::serve(web::Bounded::new(listener), service)
        .with_graceful_shutdown(async move { wait_for_stop(&mut stopped).await });
    if let Err(error) = server.await {
        tracing::error!(%error, "the web server ended");
    }
}

/// Removes what has expired, now and then.
pub(super) async fn purge(quarantine: Quarantine, accounts: Accounts, lessons: Lessons) {
    let mut swept: Option<Instant> = None;
    loop {
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY) {
            swept = Some(Instant::now());
            match quarantine.remove_orphans(now()).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "removed bodies that no record names"),
                Err(error) => tracing::error!(error = error_chain(&error), "looking for old bodies failed"),
            }
            match lessons.bound().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "lines have left the log of lessons"),
                Err(error) => {
                    tracing::error!(error = error_chain(&error), "the log of lessons was not bounded")
                }
            }
        }
        match quarantine.purge(now()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "retention removed entries"),
            Err(error) => tracing::error!(error = error_chain(&error), "retention failed"),
        }
        if let Err(error) = accounts.purge(now()).await {
            tracing::error!(error = error_chain(&error), "removing old sessions failed");
        }
        tokio::time::sleep(PURGE_EVERY).await;
    }
}

/// Stores from time to time, and at the end, what is remembered of correspondents.
pub(super) async fn remember(
    reputation: Reputation,
    state: Arc<dyn State>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let is_last = tokio::select! {
            () = wait_for_stop(&mut stopped) => true,
            () = tokio::time::sleep(STORE_EVERY) => false,
        };
        let (remembered, into) = (reputation.clone(), Arc::clone(&state));
        let stored = tokio::task::spawn_blocking(move || remembered.store(into.as_ref())).await;
        if let Ok(Err(error)) = stored {
            tracing::warn!(
                error = error_chain(&error),
                "what is remembered of correspondents was not stored"
            );
        }
        if is_last {
            return;
        }
    }
}

/// The log of lessons, and how much of it stays.
pub(super) struct Lessons {
    pub(super) learned: Learned,
    pub(super) retention: Duration,
    pub(super) most: u32,
}

impl Lessons {
    async fn bound(&self) -> Result<u64, LearnedError> {
        let oldest = now() - self.retention;
        let bound = Bound { oldest, shared: self.most, others: scan::LAYER_LESSONS };
        self.learned.bound(&bound).await
    }
}

/// Counts and logs a task that panicked.
pub(super) fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        Counter::Panics.increment(&[("where", "task")]);
        tracing::error!("a task panicked");
    }
}

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once a process.
pub(super) fn install_metrics() {
    if METRICS.get().is_some() {
        return;
    }
    match PrometheusBuilder::new().install_recorder() {
        Ok(handle) => {
            METRICS.get_or_init(|| handle);
            metrics::describe();
        }
        Err(error) => tracing::warn!(%error, "metrics are not recorded"),
    }
}

/// Returns the metrics as Prometheus text.
pub(super) fn render_metrics() -> String {
    METRICS.get().map(PrometheusHandle::render).unwrap_or_default()
}
