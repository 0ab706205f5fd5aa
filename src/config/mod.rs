//! The configuration: one TOML file, the environment over it, every problem reported at once.
//!
//! Each key is defined in one place, `keys`: its name, default, meaning and effect. The embedded default is
//! read through the same definitions as a file, so it cannot drift from the reference. A file with any
//! problem changes nothing.

mod check;
mod keys;
mod place;
mod problem;
mod read;
mod record;
mod reference;
#[cfg(test)]
mod tests;
mod value;
mod way;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::ingress::ListenAddress;
use crate::ingress::tls::CertificateFiles;
use crate::mail::{Address, Direction};
use crate::message::Mailbox;
use crate::reputation;
use crate::scan::Sharing;

pub use problem::{ConfigError, Problem, Problems};
pub use reference::reference;
pub use way::{Auth, ListFile, Listener, MaildirPair, Route, Target, Way};

/// The files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificates.
    pub certificates: Vec<CertificateFiles>,
    /// What clients' certificates are verified by.
    pub client_ca: Option<PathBuf>,
    /// What next hops' certificates are verified by; `None` for the system's.
    pub roots: Option<PathBuf>,
}

/// How names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameLookup {
    /// The resolvers to ask; none for those of the system.
    pub servers: Vec<SocketAddr>,
    /// Whether answers are validated by DNSSEC.
    pub dnssec: bool,
    /// Time for one answer of one resolver.
    pub timeout: Duration,
}

/// Limits of the SMTP listeners, and whose word counts there.
#[derive(Debug, Clone)]
pub struct SmtpLimits {
    /// Largest message.
    pub max_message_bytes: usize,
    /// Recipients in one transaction.
    pub max_recipients: usize,
    /// Connections in all, each listener.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_ip: usize,
    /// Connections from one IPv4 /24 or one IPv6 /48.
    pub max_connections_per_network: usize,
    /// Message bytes held by all sessions together.
    pub max_bytes_in_flight: usize,
    /// Wrong commands in one session.
    pub max_errors: usize,
    /// Commands between two messages.
    pub max_commands: usize,
    /// Messages of one session.
    pub max_messages: usize,
    /// Longest silence of a client.
    pub idle_timeout: Duration,
    /// Longest session.
    pub session_timeout: Duration,
    /// Bytes a second at which a message earns more time.
    pub min_data_rate: u32,
    /// The wait for the greeting.
    pub greeting_delay: Duration,
    /// The pause before a reply that refuses.
    pub tarpit: Duration,
    /// Time that sessions have to end when the gateway stops.
    pub shutdown_grace: Duration,
    /// Clients that get no transaction without TLS.
    pub require_tls_networks: Vec<IpNet>,
    /// Peers whose PROXY header counts.
    pub proxy_networks: Vec<IpNet>,
    /// Clients whose XCLIENT counts.
    pub xclient_networks: Vec<IpNet>,
    /// Clients whose XFORWARD counts.
    pub xforward_networks: Vec<IpNet>,
}

/// Limits towards the next hop.
#[derive(Debug, Clone)]
pub struct RelayLimits {
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for the answer to a command.
    pub command_timeout: Duration,
    /// Time for the answer to the end of data.
    pub data_timeout: Duration,
    /// Idle connections kept for reuse.
    pub max_idle: usize,
    /// How long a next hop that failed is passed over.
    pub back_off: Duration,
}

/// Doors for clients that know another filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doors {
    /// Where `spamd` is spoken.
    pub spamd: Option<ListenAddress>,
    /// Where Rspamd's HTTP is spoken.
    pub rspamd: Option<SocketAddr>,
    /// Where MTAs find a milter.
    pub milter: Option<ListenAddress>,
    /// Whether addresses that others reach may be listened on.
    pub allow_remote: bool,
    /// Whether clients may teach.
    pub may_teach: bool,
    /// Which way the mail travels that they ask about.
    pub direction: Direction,
}

/// Everything that can be configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name we greet with.
    pub hostname: String,
    /// Where records, bodies, state and keys live.
    pub data_dir: PathBuf,
    /// Mail from the world.
    pub inbound: Way,
    /// Mail to the world.
    pub outbound: Way,
    /// Certificates.
    pub tls: TlsFiles,
    /// Name servers.
    pub dns: NameLookup,
    /// Limits of the listeners.
    pub smtp: SmtpLimits,
    /// Limits towards the next hops.
    pub relay: RelayLimits,
    /// Scans at once; 0 for one a core.
    pub scan_concurrency: usize,
    /// Clients whose mail is not scanned.
    pub scan_exempt_networks: Vec<IpNet>,
    /// Time for one scan.
    pub scan_timeout: Duration,
    /// Whether reports teach messages of which nobody spoke.
    pub learn_implied: bool,
    /// How much is remembered of correspondents.
    pub reputation: reputation::Config,
    /// Lists of names.
    pub lists: Vec<ListFile>,
    /// Whether messages on which all agree teach.
    pub learn_automatic: bool,
    /// Addresses that nobody uses.
    pub learn_traps: Vec<Address>,
    /// Maildirs that are learned from.
    pub learn_maildirs: Vec<MaildirPair>,
    /// Who is taught by what a person says of their own mail.
    pub learn_share: Sharing,
    /// How long lessons stay in the log, and how many.
    pub learn_retention: Duration,
    /// Lessons that stay in the log.
    pub learn_max_lessons: usize,
    /// Names of hosts whose `Authentication-Results` are believed.
    pub authserv_ids: Vec<String>,
    /// A folder of further `.cf` rule files.
    pub rules_dir: Option<PathBuf>,
    /// People whose names are worth imitating.
    pub people: Vec<Mailbox>,
    /// Doors for clients that know another filter.
    pub door: Doors,
    /// Where the review pages are.
    pub web_listen: SocketAddr,
    /// How people reach them.
    pub web_public_url: Option<Url>,
    /// From address of mail that we write.
    pub mail_from: String,
    /// How long kept mail is kept.
    pub retention: Duration,
    /// What is logged.
    pub log: String,
}

impl Config {
    /// Returns the embedded default.
    pub fn embedded() -> Self {
        match Config::read("", |_| None) {
            Ok(config) => config,
            Err(problems) => unreachable!("the embedded default is valid: {problems}"),
        }
    }

    /// Reads a file, or the embedded default where there is none, and the environment over it. The files
    /// that it names must be there.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?,
            None => String::new(),
        };
        let (config, places, mut problems) = Config::interpret(&text, |name| std::env::var(name).ok());
        check::files(&config, &places, &mut problems);
        finish(config, problems).map_err(|problems| ConfigError::Invalid {
            path: path.map_or_else(|| PathBuf::from("(default)"), Path::to_owned),
            problems,
        })
    }

    /// Reads a TOML text; `environment` answers for variables such as `LAZARET_INBOUND_LISTEN`. No file that
    /// it names is looked at.
    ///
    /// # Errors
    /// [`Problems`]: every unknown key, wrong type, bad value and contradiction, with its line.
    pub fn read(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        let (config, _, problems) = Config::interpret(text, environment);
        finish(config, problems)
    }

    /// Returns one direction.
    pub fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    fn interpret(text: &str, environment: impl Fn(&str) -> Option<String>) -> (Self, read::Places, Problems) {
        let mut problems = Problems::default();
        let mut config = keys::blank();
        for key in keys::all() {
            key.set_default(&mut config);
        }
        let places = read::file(text, &mut config, &mut problems);
        read::environment(environment, &mut config, &mut problems);
        check::contradictions(&config, &places, &mut problems);
        (config, places, problems)
    }
}

fn finish(config: Config, mut problems: Problems) -> Result<Config, Problems> {
    problems.0.sort_by_key(|problem| problem.line);
    if problems.0.is_empty() { Ok(config) } else { Err(problems) }
}
