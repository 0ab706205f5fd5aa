//! Every key: its name, default, meaning and effect, in one place; a file for each subject.

mod dns;
mod general;
mod learn;
mod listener;
mod reputation;
mod route;
mod smtp;
mod tls;
mod way;

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::problem::Faults;
use super::record::{self, Field};
use super::{Auth, Config, Doors, NameLookup, RelayLimits, SmtpLimits, TlsFiles, Way};
use crate::gateway::Marking;
use crate::ingress::TlsMode;
use crate::mail::Direction;
use crate::policy::OnDegraded;
use crate::relay::tls::TlsPolicy;
use crate::scan::Sharing;

/// A key of the file.
pub(super) type Key = record::Key<Config>;

/// A table that may stand in the file any number of times: `[[name]]`.
pub(super) struct Tables {
    /// The dotted name.
    pub(super) name: &'static str,
    /// What each one is, for the reference.
    pub(super) meaning: &'static str,
    /// Reads one and adds it.
    pub(super) add: fn(&mut Config, &DeTable<'_>) -> Result<(), Faults>,
    /// Returns its keys.
    pub(super) fields: fn() -> Vec<Field>,
}

/// A table in line, in the list of a key.
pub(super) struct Inline {
    /// In which lists it stands, for the reference.
    pub(super) place: &'static str,
    /// Returns its keys.
    pub(super) fields: fn() -> Vec<Field>,
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const MIB: usize = 1 << 20;

/// Returns every key, grouped by table.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    [
        &general::FIRST[..],
        &way::INBOUND,
        &way::OUTBOUND,
        &tls::TLS,
        &dns::DNS,
        &smtp::SMTP,
        &smtp::RELAY,
        &learn::LEARN,
        &reputation::REPUTATION,
        &general::LAST,
    ]
    .into_iter()
    .flatten()
}

/// Returns every table that may be repeated.
pub(super) fn tables() -> impl Iterator<Item = &'static Tables> {
    [&listener::TABLES[..], &route::TABLES, &learn::TABLES, &reputation::TABLES].into_iter().flatten()
}

/// Returns every kind of table in line.
pub(super) fn inline() -> [Inline; 2] {
    [
        Inline { place: "a list of next hops", fields: || route::TARGET.fields() },
        Inline { place: "tls.certificates", fields: || tls::CERTIFICATE.fields() },
    ]
}

/// Returns a configuration that every key is about to overwrite with its default.
pub(super) fn blank() -> Config {
    let way = Way {
        listen: None,
        tls: TlsMode::None,
        listeners: Vec::new(),
        domains: Vec::new(),
        networks: Vec::new(),
        auth: Auth::None,
        client_certificates: Vec::new(),
        next_hops: Vec::new(),
        next_hop_tls: TlsPolicy::None,
        routes: Vec::new(),
        tag: 0.0,
        quarantine: 0.0,
        reject: 0.0,
        exempt: Vec::new(),
        on_degraded: OnDegraded::Quarantine,
        marking: Marking::Id,
    };
    Config {
        hostname: String::new(),
        data_dir: PathBuf::new(),
        inbound: way.clone(),
        outbound: way,
        tls: TlsFiles { certificates: Vec::new(), client_ca: None, roots: None },
        dns: NameLookup { servers: Vec::new(), dnssec: false, timeout: Duration::ZERO },
        smtp: SmtpLimits {
            max_message_bytes: 0,
            max_recipients: 0,
            max_connections: 0,
            max_connections_per_ip: 0,
            max_connections_per_network: 0,
            max_bytes_in_flight: 0,
            max_errors: 0,
            max_commands: 0,
            max_messages: 0,
            idle_timeout: Duration::ZERO,
            session_timeout: Duration::ZERO,
            min_data_rate: 0,
            greeting_delay: Duration::ZERO,
            tarpit: Duration::ZERO,
            shutdown_grace: Duration::ZERO,
            require_tls_networks: Vec::new(),
            proxy_networks: Vec::new(),
            xclient_networks: Vec::new(),
            xforward_networks: Vec::new(),
        },
        relay: RelayLimits {
            connect_timeout: Duration::ZERO,
            command_timeout: Duration::ZERO,
            data_timeout: Duration::ZERO,
            max_idle: 0,
            back_off: Duration::ZERO,
        },
        scan_concurrency: 0,
        scan_exempt_networks: Vec::new(),
        scan_timeout: Duration::ZERO,
        reputation: crate::reputation::Config::default(),
        lists: Vec::new(),
        learn_implied: false,
        learn_automatic: false,
        learn_traps: Vec::new(),
        learn_maildirs: Vec::new(),
        learn_share: Sharing::Person,
        learn_retention: Duration::ZERO,
        learn_max_lessons: 0,
        authserv_ids: Vec::new(),
        rules_dir: None,
        people: Vec::new(),
        door: Doors {
            spamd: None,
            rspamd: None,
            milter: None,
            allow_remote: false,
            may_teach: false,
            direction: Direction::Inbound,
        },
        web_listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        web_public_url: None,
        mail_from: String::new(),
        retention: Duration::ZERO,
        log: String::new(),
    }
}
