//! The whole life of the gateway on one page: build, report addresses, run, drain.
//!
//! Everything is opened and bound before anything runs, so a start that fails has changed nothing. The
//! modules get their own typed configuration here and know nothing of the file.

mod desk;
mod folder;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use url::Url;

pub use desk::{Desk, desk, scanner};
pub use folder::{Folder, FolderError, Lock, maildir};

use crate::accounts::{self, Accounts};
use crate::config::Config;
use crate::digest::{self, Notice, Outgoing};
use crate::gateway::{Clock, Gateway, Outbox, Review, Sender};
use crate::ingress;
use crate::learn::FeatureKey;
use crate::mail::{Address, Direction, Mail};
use crate::metrics::{self, Counter};
use crate::privacy::{PseudonymKey, error_chain};
use crate::quarantine::{self, Quarantine};
use crate::relay::{self, NextHop, Relay};
use crate::rules::{RuleSet, Source};
use crate::scan::{self, Learned, Rules, Scanner};
use crate::store::{Sled, State};
use crate::web;

/// How often retention looks for what has expired, and for bodies without a record.
const PURGE_EVERY: Duration = Duration::from_secs(600);
const SWEEP_EVERY: Duration = Duration::from_secs(86_400);
/// How long the release under way may take to end; cut off, it would be sent again by the next start.
const OUTBOX_GRACE: Duration = Duration::from_secs(30);
/// How long the web server may take to end its requests.
const WEB_GRACE: Duration = Duration::from_secs(5);

/// A running gateway.
pub struct App {
    /// Where mail from the world comes in.
    pub inbound: SocketAddr,
    /// Where mail to the world comes in.
    pub outbound: SocketAddr,
    /// Where the review pages are.
    pub web: SocketAddr,
    /// The one-time link for the administrator, until there is a password.
    pub administrator_link: Option<String>,
    learned: Learned,
    quarantine: Quarantine,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    outbox: JoinHandle<()>,
    retention: JoinHandle<()>,
    follower: JoinHandle<()>,
    web_server: JoinHandle<()>,
    _lock: Lock,
}

impl App {
    /// Builds everything, binds every listener, and starts.
    ///
    /// # Errors
    /// What could not be opened or bound, with its cause; nothing runs then.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        // First, so that what opening the stores counts is not lost.
        install_metrics();
        let (folder, lock) = Folder::open_to_serve(&config.data_dir).await?;
        let clock: Clock = Arc::new(now);
        let quarantine = open_quarantine(config, &folder).await?;
        let recovered = quarantine.recover(now()).await?;
        if recovered.withdrawn > 0 {
            let entries = recovered.withdrawn;
            tracing::info!(
                entries,
                "withdrew what an earlier run had not finished; nobody was told that it is kept"
            );
        }
        let state = open_state(folder.state()).await?;
        let learned = Learned::open(&folder.records, state, FeatureKey::new(&folder.key)).await?;
        let scanner = Scanner::new(scan_config(config), rules(config.rules_dir.as_deref())?, learned.clone());
        let accounts = Accounts::new(folder.records.clone(), &folder.key, accounts::Config::default());
        let pseudonyms = PseudonymKey::new(&folder.key);
        let wake = Arc::new(Notify::new());
        let review =
            Review { quarantine: quarantine.clone(), learned: learned.clone(), wake: Arc::clone(&wake) };

        let web_listener = bind(config.web_listen).await?;
        let web = web_listener.local_addr()?;
        let memory = ingress::Memory::new(config.smtp.max_bytes_in_flight);
        let (stop, stopped) = watch::channel(false);
        let mut gateways = Vec::new();
        let mut senders = Vec::new();
        for direction in Direction::ALL {
            let listener = bind(config.route(direction).listen).await?;
            let address = listener.local_addr()?;
            let relay = Relay::new(relay_config(config, direction));
            senders.push(Sender::new(relay.clone()));
            let gateway = Gateway {
                direction,
                hostname: config.hostname.as_str().into(),
                access: config.route(direction).access.clone(),
                relay,
                scanner: scanner.clone(),
                policy: Arc::new(config.route(direction).policy()?),
                marking: config.route(direction).marking,
                quarantine: quarantine.clone(),
                pseudonyms: pseudonyms.clone(),
                clock: Arc::clone(&clock),
            };
            gateways.push((address, listener, gateway));
        }
        let [inbound_sender, outbound_sender] =
            <[Sender; 2]>::try_from(senders).map_err(|_| anyhow::anyhow!("there are two directions"))?;

        let public_url = match &config.web_public_url {
            Some(url) => url.clone(),
            None => Url::parse(&format!("http://{web}/")).context("the address of the review pages")?,
        };
        let administrator_link = if accounts.has_password().await? {
            None
        } else {
            let token = accounts.printed_link(now()).await?;
            Some(web::link_url(&public_url, &token))
        };
        let router = web::router(web::Parts {
            quarantine: quarantine.clone(),
            accounts: accounts.clone(),
            review: Arc::new(review),
            outgoing: Arc::new(notices(inbound_sender.clone())),
            metrics: Arc::new(render_metrics),
            now,
            config: web::Config {
                public_url,
                sender: Address::parse(&config.mail_from).context("mail_from")?,
            },
        });

        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for (address, listener, gateway) in gateways {
            addresses.push(address);
            let (_, ingress) = watch::channel(Arc::new(ingress_config(config, gateway.direction)));
            listeners.push(tokio::spawn(ingress::serve(
                listener,
                ingress,
                memory.clone(),
                Arc::new(gateway),
                stopped.clone(),
            )));
        }
        let outbox = Outbox {
            quarantine: quarantine.clone(),
            inbound: inbound_sender,
            outbound: outbound_sender,
            clock,
            wake,
        };
        let outbox = tokio::spawn(outbox.run(stopped.clone()));
        let retention = tokio::spawn(purge(quarantine.clone(), accounts));
        let follower = tokio::spawn(follow(learned.clone(), stopped.clone()));
        let web_server = tokio::spawn(serve_web(web_listener, router, stopped));
        let address = |index: usize| addresses.get(index).copied().context("there are two directions");
        Ok(App {
            inbound: address(0)?,
            outbound: address(1)?,
            web,
            administrator_link,
            learned,
            quarantine,
            stop,
            listeners,
            outbox,
            retention,
            follower,
            web_server,
            _lock: lock,
        })
    }

    /// Returns what has been learned.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Returns the quarantine.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Stops: listeners close, sessions end at their next command boundary, open data phases are answered,
    /// a release that is under way is finished, and the learned state is written down.
    pub async fn drain(self) {
        if self.stop.send(true).is_err() {
            tracing::debug!("everything had stopped already");
        }
        let outbox_ends = tokio::time::Instant::now() + OUTBOX_GRACE;
        for listener in self.listeners {
            report_panic(listener.await);
        }
        self.retention.abort();
        let cut_off = self.outbox.abort_handle();
        match tokio::time::timeout_at(outbox_ends, self.outbox).await {
            Ok(ended) => report_panic(ended),
            Err(_) => cut_off.abort(),
        }
        report_panic(self.follower.await);
        match tokio::time::timeout(WEB_GRACE, self.web_server).await {
            Ok(ended) => report_panic(ended),
            Err(_) => tracing::debug!("requests were cut off"),
        }
    }
}

/// Returns the current time; the one clock of the program, handed to whoever needs it.
#[allow(clippy::disallowed_methods, reason = "the edge at which time enters")]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Returns the next hop of a direction, with the data folder's own Maildir where none is named.
fn next_hop(config: &Config, direction: Direction) -> NextHop {
    match &config.route(direction).next_hop {
        NextHop::Maildir { path } if path.as_os_str().is_empty() => {
            NextHop::Maildir { path: maildir(&config.data_dir, direction) }
        }
        other => other.clone(),
    }
}

fn relay_config(config: &Config, direction: Direction) -> relay::Config {
    let mut relay = relay::Config::new(next_hop(config, direction), config.hostname.clone());
    relay.connect_timeout = config.relay.connect_timeout;
    relay.command_timeout = config.relay.command_timeout;
    relay.data_timeout = config.relay.data_timeout;
    relay.max_idle = config.relay.max_idle;
    relay
}

fn ingress_config(config: &Config, direction: Direction) -> ingress::Config {
    let mut ingress = ingress::Config::new(direction, config.hostname.clone());
    ingress.limits.message_bytes = config.smtp.max_message_bytes;
    ingress.limits.recipients = config.smtp.max_recipients;
    ingress.limits.errors = config.smtp.max_errors;
    ingress.max_sessions = config.smtp.max_connections;
    ingress.max_sessions_per_source = config.smtp.max_connections_per_ip;
    ingress.command_timeout = config.smtp.idle_timeout;
    ingress.data_timeout = config.smtp.idle_timeout;
    ingress.session_timeout = config.smtp.session_timeout;
    ingress
}

fn scan_config(config: &Config) -> scan::Config {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let concurrency = if config.scan_concurrency == 0 { cores } else { config.scan_concurrency };
    scan::Config { concurrency, timeout: config.scan_timeout }
}

/// Opens the quarantine without touching what a gateway may be in the middle of.
async fn open_quarantine(config: &Config, folder: &Folder) -> anyhow::Result<Quarantine> {
    let settings =
        quarantine::Config { retention: config.retention.try_into().context("quarantine.retention")? };
    Ok(Quarantine::open(folder.records.clone(), folder.bodies.clone(), &folder.key, settings).await?)
}

/// Compiles the built-in rules and those of a folder. A line that is not understood is reported, and the
/// others stand.
fn rules(folder: Option<&Path>) -> anyhow::Result<Rules> {
    let mut own = Vec::new();
    if let Some(folder) = folder {
        let listing = || format!("reading the rules in {}", folder.display());
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).with_context(listing)? {
            paths.push(entry.with_context(listing)?.path());
        }
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "cf")) {
            let text = std::fs::read_to_string(path).with_context(listing)?;
            own.push(Source { name: path.display().to_string(), text });
        }
    }
    let compile = |direction: Direction| {
        let mut sources = RuleSet::built_in_sources(direction);
        sources.extend(own.iter().cloned());
        let (rules, problems) = RuleSet::compile(&sources);
        for problem in problems {
            tracing::warn!(%problem, "a rule was left out");
        }
        rules
    };
    Ok(Rules { inbound: compile(Direction::Inbound), outbound: compile(Direction::Outbound) })
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

/// Opens the state store off the async threads: a damaged one is set aside, and that takes its time.
async fn open_state(path: PathBuf) -> anyhow::Result<Arc<dyn State>> {
    let opened = tokio::task::spawn_blocking(move || Sled::open(&path, now())).await;
    let (state, _set_aside) = opened.context("opening the state store")??;
    Ok(Arc::new(state))
}

async fn follow(learned: Learned, mut stopped: watch::Receiver<bool>) {
    learned.follow(wait_for_stop(&mut stopped)).await;
}

/// Returns when the gateway is told to stop, or nobody is left who could tell.
async fn wait_for_stop(stopped: &mut watch::Receiver<bool>) {
    while !*stopped.borrow_and_update() && stopped.changed().await.is_ok() {}
}

/// Sends the mail that we write ourselves, from the null reverse-path.
fn notices(sender: Sender) -> impl Outgoing {
    move |notice: Notice| -> BoxFuture<'static, Result<(), digest::SendError>> {
        let sender = sender.clone();
        Box::pin(async move {
            sender
                .send(&Mail::default(), &notice.recipient.into(), &[Bytes::from(notice.bytes)])
                .await
                .map_err(Into::into)
        })
    }
}

async fn serve_web(listener: TcpListener, router: axum::Router, mut stopped: watch::Receiver<bool>) {
    let service = router.into_make_service_with_connect_info::<web::Peer>();
    let server = axum::serve(web::Bounded::new(listener), service)
        .with_graceful_shutdown(async move { wait_for_stop(&mut stopped).await });
    if let Err(error) = server.await {
        tracing::error!(%error, "the web server ended");
    }
}

/// Removes what has expired, now and then.
async fn purge(quarantine: Quarantine, accounts: Accounts) {
    let mut swept: Option<tokio::time::Instant> = None;
    loop {
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY) {
            swept = Some(tokio::time::Instant::now());
            match quarantine.remove_orphans(now()).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "removed bodies that no record names"),
                Err(error) => tracing::error!(error = error_chain(&error), "looking for old bodies failed"),
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

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        Counter::Panics.increment(&[("where", "task")]);
        tracing::error!("a task panicked");
    }
}

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once a process.
fn install_metrics() {
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

fn render_metrics() -> String {
    METRICS.get().map(PrometheusHandle::render).unwrap_or_default()
}
