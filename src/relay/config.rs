//! How next hops are used: routes, targets, time limits. Passwords are wiped from memory and never printed.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::mail::Domain;
use crate::relay::NextHop;
use crate::relay::tls::{Connector, TlsPolicy};

/// How next hops are used.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name that we give in EHLO.
    pub helo: String,
    /// What makes TLS connections and looks domains up. Without it there is neither: what must be encrypted
    /// and what is a domain is out of reach.
    pub connector: Option<Connector>,
    /// Where certain mail goes, the first that matches.
    pub routes: Vec<Route>,
    /// Where all other mail goes.
    pub targets: Vec<Target>,
    /// Time to resolve, connect and be greeted; EHLO, TLS and signing in included.
    pub connect_timeout: Duration,
    /// Time for the reply to a command, and for the next hop to take a part of a message. Once as much has
    /// passed since MAIL, no other next hop is tried.
    pub command_timeout: Duration,
    /// Time for the replies to the end of data. Below the ten minutes that clients wait for ours.
    pub data_timeout: Duration,
    /// Connections to each next hop that are kept open between transactions.
    pub max_idle: usize,
    /// How long a connection is kept.
    pub idle_timeout: Duration,
    /// Messages sent over one connection.
    pub max_messages: usize,
    /// How long a next hop is set aside after a failure; twice as long after each further one, up to 32
    /// times.
    pub retry_after: Duration,
}

impl Config {
    /// Returns the defaults for one next hop and a name of our own.
    pub fn new(next_hop: NextHop, helo: impl Into<String>) -> Self {
        Config {
            helo: helo.into(),
            connector: None,
            routes: Vec::new(),
            targets: vec![Target::new(next_hop)],
            connect_timeout: Duration::from_secs(20),
            command_timeout: Duration::from_secs(120),
            data_timeout: Duration::from_secs(300),
            max_idle: 32,
            idle_timeout: Duration::from_secs(30),
            max_messages: 100,
            retry_after: Duration::from_secs(10),
        }
    }
}

/// Where certain mail goes.
#[derive(Debug, Clone)]
pub struct Route {
    /// Which mail.
    pub matches: Match,
    /// Where to.
    pub targets: Vec<Target>,
}

/// Which mail takes a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Mail to these domains, and not to those below them.
    RecipientDomains(Vec<Domain>),
    /// Mail whose reverse-path is in these domains, and not in those below them.
    SenderDomains(Vec<Domain>),
    /// Mail of clients that have signed in under one of these names.
    Accounts(Vec<String>),
}

/// One next hop among those of a route.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it is.
    pub next_hop: NextHop,
    /// Those with a lower number are tried first.
    pub priority: u16,
    /// The share of the mail among those of one priority; zero counts as one.
    pub weight: u16,
    /// What its connections must be.
    pub tls: TlsPolicy,
    /// With what we sign in there, over TLS alone.
    pub auth: Option<Credentials>,
    /// Whether it is told with XCLIENT, where it offers that, to treat us as the client.
    pub xclient: bool,
}

impl Target {
    /// Returns the defaults for a next hop.
    pub fn new(next_hop: NextHop) -> Self {
        Target { next_hop, priority: 10, weight: 1, tls: TlsPolicy::default(), auth: None, xclient: false }
    }
}

/// A name and a password. They are wiped from memory when the last copy goes, and never printed.
#[derive(Clone)]
pub struct Credentials {
    pub(super) login: Zeroizing<String>,
    pub(super) password: Zeroizing<String>,
}

impl Credentials {
    /// Takes a name and a password; `None` if one of them is empty or has a NUL, which SASL cannot carry
    /// (RFC 4616, section 2).
    pub fn new(login: &str, password: &str) -> Option<Self> {
        let is_fit = |text: &str| !text.is_empty() && !text.contains('\0');
        (is_fit(login) && is_fit(password)).then(|| Credentials {
            login: Zeroizing::new(login.to_owned()),
            password: Zeroizing::new(password.to_owned()),
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([redacted])")
    }
}
