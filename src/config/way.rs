//! One direction of mail: where it comes in, who may bring it, where it goes, what it may be.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::gateway::{Fingerprint, Marking};
use crate::ingress::{ListenAddress, TlsMode};
use crate::mail::{Address, Domain};
use crate::policy::{Exemption, OnDegraded, Policy, Thresholds};
use crate::relay::NextHop;
use crate::relay::tls::TlsPolicy;
use crate::smtp::server::Kind;

/// Maildirs into which people put what is spam and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaildirPair {
    /// Wanted mail.
    pub ham: PathBuf,
    /// Spam.
    pub spam: PathBuf,
    /// Whose they are; nobody's in particular where it is not said.
    pub person: Option<Address>,
}

/// A list of names in a file, and what it means to be on it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListFile {
    /// Its name, as its finding bears it.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// The points.
    pub points: f64,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub listen: ListenAddress,
    /// What it speaks.
    pub protocol: Kind,
    /// Whether it is encrypted.
    pub tls: TlsMode,
    /// Whether the clients in `smtp.proxy_networks` begin with a PROXY header.
    pub proxy_protocol: bool,
}

/// A next hop, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub to: NextHop,
    /// Lower ones are tried first.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// What its connections must be; `None` for what the direction asks.
    pub tls: Option<TlsPolicy>,
    /// A file with the name and the password to sign in with, a line each.
    pub login_file: Option<PathBuf>,
    /// Whether it is told the client's address by XCLIENT, which it must trust us for.
    pub xclient: bool,
}

/// Next hops for some of the mail. It is for mail that fits any of its lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Domains of recipients (inbound).
    pub domains: Vec<Domain>,
    /// Domains of senders (outbound).
    pub sender_domains: Vec<Domain>,
    /// Names under which clients signed in (outbound).
    pub accounts: Vec<String>,
    /// Where its mail goes.
    pub next_hops: Vec<Target>,
}

/// How outbound clients may sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// Against our own accounts.
    Accounts,
    /// At the next hop, which is asked.
    NextHop,
}

/// One direction.
#[derive(Debug, Clone)]
pub struct Way {
    /// Where the default listener listens; `None` where it is switched off.
    pub listen: Option<ListenAddress>,
    /// Whether the default listener is encrypted.
    pub tls: TlsMode,
    /// Further listeners.
    pub listeners: Vec<Listener>,
    /// Our own domains (inbound).
    pub domains: Vec<Domain>,
    /// Our own networks (outbound).
    pub networks: Vec<IpNet>,
    /// How clients may sign in (outbound).
    pub auth: Auth,
    /// The client certificates that may send (outbound).
    pub client_certificates: Vec<Fingerprint>,
    /// Where what passes goes, unless a route says otherwise.
    pub next_hops: Vec<Target>,
    /// What the connections to next hops without a policy of their own must be.
    pub next_hop_tls: TlsPolicy,
    /// Next hops for some of the mail.
    pub routes: Vec<Route>,
    /// Score from which a message is marked.
    pub tag: f64,
    /// Score from which it is kept.
    pub quarantine: f64,
    /// Score from which it is refused.
    pub reject: f64,
    /// Recipients whose mail always passes, marked.
    pub exempt: Vec<Exemption>,
    /// What happens when an analyser fails.
    pub on_degraded: OnDegraded,
    /// What we write into the header.
    pub marking: Marking,
}

impl Way {
    /// Returns the policy of the direction.
    ///
    /// # Errors
    /// [`crate::policy::Unordered`] when the thresholds do not rise; a loaded configuration has been
    /// checked.
    pub fn policy(&self) -> Result<Policy, crate::policy::Unordered> {
        Ok(Policy {
            thresholds: Thresholds::new(self.tag, self.quarantine, self.reject)?,
            on_degraded: self.on_degraded,
            exemptions: self.exempt.clone(),
        })
    }

    /// Returns every listener, the default one first.
    pub fn all_listeners(&self) -> Vec<Listener> {
        let default = self.listen.iter().map(|listen| Listener {
            listen: listen.clone(),
            protocol: Kind::Smtp,
            tls: self.tls,
            proxy_protocol: false,
        });
        default.chain(self.listeners.iter().cloned()).collect()
    }

    /// Returns what the connections to a next hop must be.
    pub fn tls_of<'a>(&'a self, target: &'a Target) -> &'a TlsPolicy {
        target.tls.as_ref().unwrap_or(&self.next_hop_tls)
    }

    /// Returns every next hop.
    pub fn all_targets(&self) -> impl Iterator<Item = &Target> {
        self.all_next_hops().flat_map(|(_, targets)| targets)
    }

    /// Returns the lists of next hops, the default one first, each with the name of its key below the
    /// direction's.
    pub(super) fn all_next_hops(&self) -> impl Iterator<Item = (String, &[Target])> {
        let routes = self.routes.iter().enumerate();
        let routes = routes.map(|(n, route)| (format!("route[{}].next_hops", n + 1), &route.next_hops[..]));
        std::iter::once(("next_hop".to_owned(), &self.next_hops[..])).chain(routes)
    }
}

/// Reads who is exempt: a mailbox, or a local part at any domain.
pub(super) fn exemption(text: String) -> Result<Exemption, String> {
    if text.contains('@') {
        let address = Address::parse(&text).map_err(|error| format!("\"{text}\": {error}"))?;
        Ok(Exemption::Mailbox(address))
    } else {
        Ok(Exemption::LocalPart(text))
    }
}
