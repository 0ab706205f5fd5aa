//! From the configuration to what each module wants: built whole, before anything of it is used.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::folder::{Folder, maildir};
use super::listeners::{Gateways, Wanted};
use crate::accounts::Accounts;
use crate::config::{Auth, Config, ListFile, Target};
use crate::dns;
use crate::gateway::{Access, Authority, Clients, Clock, Gateway, Outbox, Sender, SignIns};
use crate::ingress::tls::{Acceptor, Certificates, ClientCertificates};
use crate::ingress::{self, TlsMode};
use crate::journal::Journal;
use crate::mail::{Address, Direction};
use crate::privacy::{PseudonymKey, error_chain};
use crate::quarantine::{self, Quarantine};
use crate::relay::tls::{Connector, Roots, TlsPolicy};
use crate::relay::{self, Credentials, Match, NextHop, Relay};
use crate::reputation::{List, Named, Reputation};
use crate::scan::{self, Learned, Scanner};
use crate::store::State;
use crate::verdict::Symbol;

/// What is opened once and outlives every change of the configuration.
pub(super) struct Stores {
    pub(super) folder: Folder,
    pub(super) learned: Learned,
    pub(super) accounts: Accounts,
    pub(super) reputation: Reputation,
    pub(super) state: Arc<dyn State>,
    pub(super) journal: Journal,
    pub(super) pseudonyms: PseudonymKey,
    pub(super) clock: Clock,
    /// Wakes the worker that delivers releases.
    pub(super) wake: Arc<Notify>,
}

/// What a configuration comes to.
pub(super) struct Built {
    pub(super) gateways: Gateways,
    pub(super) listeners: Vec<Wanted>,
    pub(super) quarantine: Quarantine,
    pub(super) scanner: Scanner,
}

impl Built {
    /// Builds everything; nothing is bound and nothing runs.
    ///
    /// # Errors
    /// What cannot be used, with its cause.
    pub(super) async fn new(config: &Config, stores: &Stores) -> anyhow::Result<Self> {
        let quarantine = open_quarantine(config, &stores.folder).await?;
        let rules = super::rules::rules(config)?;
        let reputation = stores.reputation.with_lists(lists(config, stores.reputation.key()).await?);
        let scanner = Scanner::new(scan_config(config), rules, stores.learned.clone(), reputation)
            .context("starting the threads that scan")?;
        if !config.scan_exempt_networks.is_empty() {
            let networks: Vec<String> = config.scan_exempt_networks.iter().map(ToString::to_string).collect();
            tracing::warn!(networks = networks.join(", "), "mail of these clients is not scanned");
        }
        let connector = connector(config)?;
        let gateway = |direction| {
            let relay = Relay::new(relay_config(config, direction, connector.clone())?);
            gateway(config, stores, direction, relay, &quarantine, &scanner)
        };
        let gateways =
            Gateways { inbound: gateway(Direction::Inbound)?, outbound: gateway(Direction::Outbound)? };
        let mut listeners = Vec::new();
        for direction in Direction::ALL {
            let acceptor = acceptor(config, direction)?;
            for listener in config.way(direction).all_listeners() {
                let mut ingress = ingress_config(config, direction);
                ingress.kind = listener.protocol;
                ingress.tls_mode = listener.tls;
                if listener.tls != TlsMode::None {
                    ingress.tls.clone_from(&acceptor);
                }
                if !listener.proxy_protocol {
                    ingress.proxy_networks.clear();
                }
                listeners.push(Wanted { listen: listener.listen, config: ingress });
            }
        }
        Ok(Built { gateways, listeners, quarantine, scanner })
    }

    /// Makes the worker that delivers releases.
    pub(super) fn outbox(&self, stores: &Stores) -> Outbox {
        Outbox {
            quarantine: self.quarantine.clone(),
            inbound: Sender::new(self.gateways.inbound.relay.clone()),
            outbound: Sender::new(self.gateways.outbound.relay.clone()),
            clock: Arc::clone(&stores.clock),
            wake: Arc::clone(&stores.wake),
        }
    }
}

fn gateway(
    config: &Config,
    stores: &Stores,
    direction: Direction,
    relay: Relay,
    quarantine: &Quarantine,
    scanner: &Scanner,
) -> anyhow::Result<Gateway> {
    let way = config.way(direction);
    Ok(Gateway {
        direction,
        hostname: config.hostname.as_str().into(),
        access: access(config, direction),
        sign_ins: sign_ins(config, stores, direction, &relay),
        relay,
        scanner: scanner.clone(),
        policy: Arc::new(way.policy()?),
        marking: way.marking,
        quarantine: quarantine.clone(),
        journal: stores.journal.clone(),
        unscanned: config.scan_exempt_networks.clone().into(),
        implies: config.learn_implied,
        learns_by_itself: config.learn_automatic,
        traps: traps(config, direction),
        pseudonyms: stores.pseudonyms.clone(),
        clock: Arc::clone(&stores.clock),
    })
}

/// Returns the addresses that catch spam, of which there are none for outbound mail.
fn traps(config: &Config, direction: Direction) -> Arc<HashSet<String>> {
    match direction {
        Direction::Inbound => Arc::new(config.learn_traps.iter().map(Address::to_normalized).collect()),
        Direction::Outbound => Arc::default(),
    }
}

/// Returns who knows the passwords of a direction. Nobody signs in to hand in mail from the world.
fn sign_ins(config: &Config, stores: &Stores, direction: Direction, relay: &Relay) -> SignIns {
    let authority = match (direction, config.outbound.auth) {
        (Direction::Inbound, _) | (_, Auth::None) => Authority::Nobody,
        (Direction::Outbound, Auth::Accounts) => Authority::Accounts(stores.accounts.clone()),
        (Direction::Outbound, Auth::NextHop) => {
            Authority::NextHop(Arc::new(relay.clone()), stores.accounts.clone())
        }
    };
    SignIns {
        authority,
        // Without certificates the configuration admits listeners on loopback alone.
        needs_tls: !config.tls.certificates.is_empty(),
        pseudonyms: stores.pseudonyms.clone(),
        clock: Arc::clone(&stores.clock),
    }
}

fn access(config: &Config, direction: Direction) -> Access {
    match direction {
        Direction::Inbound => Access::Domains(config.inbound.domains.clone()),
        Direction::Outbound => Access::Clients(Clients {
            networks: config.outbound.networks.clone(),
            certificates: config.outbound.client_certificates.clone(),
        }),
    }
}

/// Makes what connects to next hops over TLS and looks domains up. Where the machine's resolvers cannot be
/// known, there is none, and only next hops that need neither can be used.
fn connector(config: &Config) -> anyhow::Result<Option<Connector>> {
    let roots = match &config.tls.roots {
        Some(file) => Roots::from_file(file).context("tls.roots")?,
        None => Roots::system().unwrap_or_else(|error| {
            tracing::warn!(error = error_chain(&error), "no next hop can be verified by a CA");
            Roots::none()
        }),
    };
    let names = dns::Config {
        servers: config.dns.servers.clone(),
        dnssec: config.dns.dnssec,
        timeout: config.dns.timeout,
        ..dns::Config::default()
    };
    match dns::System::new(&names) {
        Ok(resolver) => Ok(Some(Connector::new(roots, Arc::new(resolver))?)),
        Err(error) if needs_connector(config) => Err(error).context("looking up next hops"),
        Err(error) => {
            tracing::warn!(error = error_chain(&error), "names cannot be looked up, next hops get no TLS");
            Ok(None)
        }
    }
}

fn needs_connector(config: &Config) -> bool {
    Direction::ALL.into_iter().any(|direction| {
        let way = config.way(direction);
        way.all_targets().any(|target| {
            matches!(target.to, NextHop::Mx { .. } | NextHop::Smtps { .. })
                || !matches!(way.tls_of(target), TlsPolicy::None | TlsPolicy::Opportunistic)
        })
    })
}

fn relay_config(
    config: &Config,
    direction: Direction,
    connector: Option<Connector>,
) -> anyhow::Result<relay::Config> {
    let way = config.way(direction);
    let targets = |targets: &[Target]| -> anyhow::Result<Vec<relay::Target>> {
        targets.iter().map(|from| target(config, direction, from)).collect()
    };
    let mut routes = Vec::new();
    for route in &way.routes {
        let matches = [
            (!route.domains.is_empty()).then(|| Match::RecipientDomains(route.domains.clone())),
            (!route.sender_domains.is_empty()).then(|| Match::SenderDomains(route.sender_domains.clone())),
            (!route.accounts.is_empty()).then(|| Match::Accounts(route.accounts.clone())),
        ];
        for matches in matches.into_iter().flatten() {
            routes.push(relay::Route { matches, targets: targets(&route.next_hops)? });
        }
    }
    let home = NextHop::Maildir { path: maildir(&config.data_dir, direction) };
    let mut relay = relay::Config::new(home, config.hostname.clone());
    relay.connector = connector;
    relay.routes = routes;
    relay.targets = targets(&way.next_hops)?;
    relay.connect_timeout = config.relay.connect_timeout;
    relay.command_timeout = config.relay.command_timeout;
    relay.data_timeout = config.relay.data_timeout;
    relay.max_idle = config.relay.max_idle;
    relay.retry_after = config.relay.back_off;
    Ok(relay)
}

/// Returns a next hop as `relay` wants it; a Maildir without a folder is the data folder's own.
fn target(config: &Config, direction: Direction, from: &Target) -> anyhow::Result<relay::Target> {
    let next_hop = match &from.to {
        NextHop::Maildir { path } if path.as_os_str().is_empty() => {
            NextHop::Maildir { path: maildir(&config.data_dir, direction) }
        }
        other => other.clone(),
    };
    let mut target = relay::Target::new(next_hop);
    target.priority = from.priority;
    target.weight = from.weight;
    target.tls = config.way(direction).tls_of(from).clone();
    target.xclient = from.xclient;
    if let Some(file) = &from.login_file {
        target.auth = Some(credentials(file)?);
    }
    Ok(target)
}

/// Says in the log where mail goes on to, and how. A password is said to be there, and no more.
pub(super) fn log_next_hops(config: &Config) {
    for direction in Direction::ALL {
        let way = config.way(direction);
        for target in way.all_targets() {
            let (direction, tls) = (direction.as_str(), way.tls_of(target));
            let signs_in = target.login_file.is_some();
            let priority = target.priority;
            tracing::info!(direction, to = %target.to, %tls, priority, signs_in, "next hop");
        }
    }
}

/// Reads a name and a password, a line each. What was read is wiped.
fn credentials(file: &Path) -> anyhow::Result<Credentials> {
    let reading = || format!("reading the login file {}", file.display());
    let text = Zeroizing::new(std::fs::read_to_string(file).with_context(reading)?);
    let mut lines = text.lines();
    let (login, password) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    Credentials::new(login, password)
        .with_context(|| format!("{} must hold a name and a password, a line each", file.display()))
}

fn ingress_config(config: &Config, direction: Direction) -> ingress::Config {
    let mut ingress = ingress::Config::new(direction, config.hostname.clone());
    ingress.limits.message_bytes = config.smtp.max_message_bytes;
    ingress.limits.recipients = config.smtp.max_recipients;
    ingress.limits.errors = config.smtp.max_errors;
    ingress.limits.commands = config.smtp.max_commands;
    ingress.limits.messages = config.smtp.max_messages;
    ingress.max_sessions = config.smtp.max_connections;
    ingress.max_sessions_per_source = config.smtp.max_connections_per_ip;
    ingress.max_sessions_per_network = config.smtp.max_connections_per_network;
    ingress.command_timeout = config.smtp.idle_timeout;
    ingress.data_timeout = config.smtp.idle_timeout;
    ingress.tls_timeout = ingress.tls_timeout.min(config.smtp.idle_timeout);
    ingress.session_timeout = config.smtp.session_timeout;
    ingress.min_data_rate = config.smtp.min_data_rate;
    ingress.greeting_delay = config.smtp.greeting_delay;
    ingress.tarpit = config.smtp.tarpit;
    ingress.shutdown_grace = config.smtp.shutdown_grace;
    ingress.sign_in_in_clear = config.tls.certificates.is_empty();
    ingress.require_tls_networks.clone_from(&config.smtp.require_tls_networks);
    ingress.proxy_networks.clone_from(&config.smtp.proxy_networks);
    ingress.xclient_networks.clone_from(&config.smtp.xclient_networks);
    ingress.xforward_networks.clone_from(&config.smtp.xforward_networks);
    ingress
}

/// Reads the certificates; `None` where there are none.
fn acceptor(config: &Config, direction: Direction) -> anyhow::Result<Option<Acceptor>> {
    if config.tls.certificates.is_empty() {
        return Ok(None);
    }
    let by_fingerprint = direction == Direction::Outbound && !config.outbound.client_certificates.is_empty();
    let clients = match &config.tls.client_ca {
        Some(file) => ClientCertificates::SignedBy(file.clone()),
        None if by_fingerprint => ClientCertificates::Any,
        None => ClientCertificates::Ignored,
    };
    let files = Certificates { own: config.tls.certificates.clone(), clients };
    Acceptor::new(files).map(Some).context("tls.certificates")
}

/// Reads the lists of a configuration, each with a filter under `key`: off the async threads, for millions of lines take
/// seconds.
pub(super) async fn lists(config: &Config, key: [u8; 32]) -> anyhow::Result<Vec<Named>> {
    let files = config.lists.clone();
    let read = move |list: &ListFile| {
        let opened = List::open(&list.file, key)
            .with_context(|| format!("the list {} in {}", list.name, list.file.display()))?;
        Ok(Named { symbol: Symbol::new(format!("LIST_{}", list.name)), points: list.points, list: opened })
    };
    tokio::task::spawn_blocking(move || files.iter().map(read).collect())
        .await
        .context("reading the lists")?
}

/// Returns how scans run.
pub(super) fn scan_config(config: &Config) -> scan::Config {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let concurrency = if config.scan_concurrency == 0 { cores } else { config.scan_concurrency };
    scan::Config { concurrency, timeout: config.scan_timeout }
}

/// Opens the quarantine without touching what a gateway may be in the middle of.
pub(super) async fn open_quarantine(config: &Config, folder: &Folder) -> anyhow::Result<Quarantine> {
    let settings =
        quarantine::Config { retention: config.retention.try_into().context("quarantine.retention")? };
    Ok(Quarantine::open(folder.records.clone(), folder.bodies.clone(), &folder.key, settings).await?)
}
