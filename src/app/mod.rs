//! The whole life of the gateway on one page: build, report addresses, run, change, drain.
//!
//! Everything is opened and bound before anything runs, so a start that fails has changed nothing; the same
//! holds for a new configuration. The modules get their own typed configuration here and know nothing of
//! the file.

mod build;
mod desk;
mod door;
mod folder;
mod journal;
mod listeners;
mod mailbox;
mod rules;
mod task;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use url::Url;

pub use desk::{Desk, desk, rebuild_model, scanner};
pub use folder::{Folder, FolderError, Lock, maildir};
pub use rules::rule_sources;
pub(crate) use rules::{configured_sources, rule_files};

use crate::accounts::{self, Accounts};
use crate::config::Config;
use crate::gateway::{Clock, Review, Sender};
use crate::ingress::{self, Inherited, ListenAddress};
use crate::mail::{Address, Direction};
use crate::privacy::{PseudonymKey, error_chain};
use crate::quarantine::Quarantine;
use crate::reputation::Reputation;
use crate::scan::Learned;
use crate::store::{Sled, State};
use crate::web;

use build::{Built, Stores, open_quarantine};
use door::Doors;
use listeners::Listeners;
use task::{Deliveries, report_panic};

/// How long the web server may take to end its requests.
const WEB_GRACE: Duration = Duration::from_secs(5);

/// A running gateway.
pub struct App {
    /// Where the review pages are.
    pub web: SocketAddr,
    /// The one-time link for the administrator, until there is a password.
    pub administrator_link: Option<String>,
    config: Config,
    stores: Stores,
    quarantine: Quarantine,
    listeners: Listeners,
    doors: Doors,
    deliveries: Deliveries,
    /// Sends what we write ourselves.
    notices: Arc<ArcSwap<Sender>>,
    stop: watch::Sender<bool>,
    retention: JoinHandle<()>,
    remembered: JoinHandle<()>,
    mailboxes: JoinHandle<()>,
    follower: JoinHandle<()>,
    web_server: JoinHandle<()>,
    _lock: Lock,
}

impl App {
    /// Builds everything, binds every listener or takes the socket that was handed over for it, and starts.
    ///
    /// # Errors
    /// What could not be opened or bound, with its cause; nothing runs then.
    pub async fn start(config: &Config, inherited: Inherited) -> anyhow::Result<Self> {
        // First, so that what opening the stores counts is not lost.
        task::install_metrics();
        let (folder, lock) = Folder::open_to_serve(&config.data_dir).await?;
        let quarantine = open_quarantine(config, &folder).await?;
        let recovered = quarantine.recover(now()).await?;
        if recovered.withdrawn > 0 {
            let entries = recovered.withdrawn;
            tracing::info!(
                entries,
                "withdrew what an earlier run had not finished; nobody was told that it is kept"
            );
        }
        let stores = open_stores(config, folder, &quarantine).await?;
        let built = Built::new(config, &stores).await?;
        let quarantine = built.quarantine.clone();

        let web_listener = bind(config.web_listen).await?;
        let web = web_listener.local_addr()?;
        let memory = ingress::Memory::new(config.smtp.max_bytes_in_flight);
        let outbox = built.outbox(&stores);
        let (stop, stopped) = watch::channel(false);
        let mut inherited = inherited;
        let doors = Doors::open(config, &built, &memory, &mut inherited, &stopped).await?;
        let mut listeners = Listeners::new(memory, inherited, built.gateways.clone());
        let change = listeners.prepare(built.listeners)?;
        for name in listeners.unused() {
            tracing::warn!(name, "a socket was handed over that no listener takes: nobody answers there");
        }

        let public_url = match &config.web_public_url {
            Some(url) => url.clone(),
            None => Url::parse(&format!("http://{web}/")).context("the address of the review pages")?,
        };
        let administrator_link = if stores.accounts.has_password().await? {
            None
        } else {
            let token = stores.accounts.printed_link(now()).await?;
            Some(web::link_url(&public_url, &token))
        };
        let notices = Arc::new(ArcSwap::from_pointee(outbox.inbound.clone()));
        let review = Review {
            quarantine: quarantine.clone(),
            learned: stores.learned.clone(),
            sharing: config.learn_share,
            wake: Arc::clone(&stores.wake),
        };
        let router = web::router(web::Parts {
            quarantine: quarantine.clone(),
            accounts: stores.accounts.clone(),
            review: Arc::new(review),
            outgoing: Arc::new(task::notices(Arc::clone(&notices))),
            metrics: Arc::new(task::render_metrics),
            now,
            config: web::Config {
                public_url,
                sender: Address::parse(&config.mail_from).context("mail_from")?,
            },
        });

        let mailboxes = mailbox::Mailboxes {
            list: config.learn_maildirs.clone(),
            state: Arc::clone(&stores.state),
            learned: stores.learned.clone(),
            sharing: config.learn_share,
            most_bytes: config.smtp.max_message_bytes,
        };
        let remembered =
            task::remember(stores.reputation.clone(), Arc::clone(&stores.state), stopped.clone());
        let lessons = task::Lessons {
            learned: stores.learned.clone(),
            retention: config.learn_retention,
            most: u32::try_from(config.learn_max_lessons).unwrap_or(u32::MAX),
        };
        listeners.commit(change, built.gateways);
        listeners.log();
        build::log_next_hops(config);
        Ok(App {
            web,
            administrator_link,
            config: config.clone(),
            deliveries: Deliveries::start(outbox),
            retention: tokio::spawn(task::purge(quarantine.clone(), stores.accounts.clone(), lessons)),
            remembered: tokio::spawn(remembered),
            mailboxes: tokio::spawn(mailbox::watch(mailboxes, stopped.clone())),
            follower: tokio::spawn(task::follow(stores.learned.clone(), stopped.clone())),
            web_server: tokio::spawn(task::serve_web(web_listener, router, stopped)),
            stores,
            quarantine,
            listeners,
            doors,
            notices,
            stop,
            _lock: lock,
        })
    }

    /// Returns where a direction is listened on, in the order of the configuration; at least one place.
    pub fn addresses(&self, direction: Direction) -> Vec<ListenAddress> {
        self.listeners.addresses(direction).cloned().collect()
    }

    /// Returns the first TCP address on which a direction is listened on.
    pub fn address(&self, direction: Direction) -> Option<SocketAddr> {
        self.listeners.addresses(direction).find_map(|address| match address {
            ListenAddress::Tcp(address) => Some(*address),
            _ => None,
        })
    }

    /// Returns where spamd's protocol is spoken.
    pub fn spamd_address(&self) -> Option<&ListenAddress> {
        self.doors.spamd.as_ref()
    }

    /// Returns where Rspamd's HTTP is spoken.
    pub fn rspamd_address(&self) -> Option<SocketAddr> {
        self.doors.rspamd
    }

    /// Returns where MTAs find a milter.
    pub fn milter_address(&self) -> Option<&ListenAddress> {
        self.doors.milter.as_ref()
    }

    /// Returns what has been learned.
    pub fn learned(&self) -> &Learned {
        &self.stores.learned
    }

    /// Returns the quarantine.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Takes a new configuration, in one step: connections that come afterwards are treated by it, those
    /// that are open end with what they began with. Certificates and rules are read again. Listeners that
    /// it adds are opened, those that it has no longer are closed. Returns the keys that cannot change
    /// while the gateway runs, and that keep their old values until it is restarted.
    ///
    /// # Errors
    /// What cannot be used, with its cause; nothing has changed then.
    pub async fn reload(&mut self, mut config: Config) -> anyhow::Result<Vec<&'static str>> {
        let kept = keep_what_cannot_change(&self.config, &mut config);
        if config.smtp.max_message_bytes > config.smtp.max_bytes_in_flight {
            anyhow::bail!(
                "smtp.max_message_size is more than smtp.max_bytes_in_flight, which takes a restart"
            );
        }
        let mut built = Built::new(&config, &self.stores).await?;
        let outbox = built.outbox(&self.stores);
        let change = self.listeners.prepare(std::mem::take(&mut built.listeners))?;
        self.doors.change(&config, &built)?;
        self.listeners.commit(change, built.gateways);
        self.listeners.log();
        build::log_next_hops(&config);
        self.notices.store(Arc::new(outbox.inbound.clone()));
        self.deliveries.replace(outbox);
        self.config = config;
        Ok(kept)
    }

    /// Stops: listeners close, sessions end at their next command boundary, open data phases are answered,
    /// a release that is under way is finished, and the learned state is written down. Sessions and releases
    /// have `smtp.shutdown_grace` for that.
    pub async fn drain(self) {
        let deadline = Instant::now() + self.config.smtp.shutdown_grace;
        self.stop.send_replace(true);
        self.listeners.drain().await;
        self.doors.close().await;
        self.retention.abort();
        self.deliveries.drain(deadline).await;
        if let Err(error) = self.stores.journal.flush().await {
            tracing::error!(error = error_chain(&error), "the journal could not be written to its end");
        }
        report_panic(self.remembered.await);
        report_panic(self.mailboxes.await);
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

/// Puts the old values of what is opened once into a new configuration, and returns the keys.
fn keep_what_cannot_change(old: &Config, new: &mut Config) -> Vec<&'static str> {
    fn keep<T: PartialEq + Clone>(old: &T, new: &mut T) -> bool {
        let differs = old != new;
        new.clone_from(old);
        differs
    }
    let kept = [
        ("data_dir", keep(&old.data_dir, &mut new.data_dir)),
        ("mail_from", keep(&old.mail_from, &mut new.mail_from)),
        ("reputation", keep(&old.reputation, &mut new.reputation)),
        ("learn.share", keep(&old.learn_share, &mut new.learn_share)),
        ("learn.maildir", keep(&old.learn_maildirs, &mut new.learn_maildirs)),
        ("learn.retention", keep(&old.learn_retention, &mut new.learn_retention)),
        ("learn.max_lessons", keep(&old.learn_max_lessons, &mut new.learn_max_lessons)),
        ("log", keep(&old.log, &mut new.log)),
        ("smtp.max_bytes_in_flight", keep(&old.smtp.max_bytes_in_flight, &mut new.smtp.max_bytes_in_flight)),
        ("door.spamd", keep(&old.door.spamd, &mut new.door.spamd)),
        ("door.milter", keep(&old.door.milter, &mut new.door.milter)),
        ("door.rspamd", keep(&old.door.rspamd, &mut new.door.rspamd)),
        ("web.listen", keep(&old.web_listen, &mut new.web_listen)),
        ("web.public_url", keep(&old.web_public_url, &mut new.web_public_url)),
    ];
    kept.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

async fn open_stores(config: &Config, folder: Folder, quarantine: &Quarantine) -> anyhow::Result<Stores> {
    let state = open_state(folder.state()).await?;
    let clock: Clock = Arc::new(now);
    Ok(Stores {
        learned: Learned::open(&folder.records, Arc::clone(&state), &folder.key).await?,
        reputation: restore_reputation(config, &folder, Arc::clone(&state)).await?,
        state,
        accounts: Accounts::new(folder.records.clone(), &folder.key, accounts::Config::default()),
        pseudonyms: PseudonymKey::new(&folder.key),
        journal: journal::open_journal(&folder, quarantine, Arc::clone(&clock)).await?,
        clock,
        wake: Arc::new(Notify::new()),
        folder,
    })
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

async fn restore_reputation(
    config: &Config,
    folder: &Folder,
    state: Arc<dyn State>,
) -> anyhow::Result<Reputation> {
    let (config, key) = (config.reputation, folder.key.clone());
    let restored = tokio::task::spawn_blocking(move || Reputation::restore(config, &key, state.as_ref()));
    restored.await.context("reading what is remembered of correspondents")
}

/// Opens the state store off the async threads: a damaged one is set aside, and that takes its time.
async fn open_state(path: PathBuf) -> anyhow::Result<Arc<dyn State>> {
    let opened = tokio::task::spawn_blocking(move || Sled::open(&path, now())).await;
    let (state, _set_aside) = opened.context("opening the state store")??;
    Ok(Arc::new(state))
}
