//! What no single key can know: contradictions, open relays, loops, files that are not there.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::problem::{Problem, Problems};
use super::read::Places;
use super::way::{Auth, Listener, Target};
use super::{Config, Way, place};
use crate::ingress::tls::{Acceptor, Certificates, ClientCertificates};
use crate::ingress::{ListenAddress, TlsMode};
use crate::mail::Direction;
use crate::privacy::error_chain;
use crate::relay::NextHop;
use crate::relay::tls::{Roots, TlsPolicy};

/// The checks of one configuration.
struct Checks<'a> {
    config: &'a Config,
    places: &'a Places,
    problems: &'a mut Problems,
    /// Every listener with the name of its table.
    listeners: Vec<(Direction, String, Listener)>,
}

/// Checks what keys say together.
pub(super) fn contradictions(config: &Config, places: &Places, problems: &mut Problems) {
    let mut checks = Checks { config, places, problems, listeners: Vec::new() };
    for direction in Direction::ALL {
        checks.collect_listeners(direction);
    }
    checks.limits();
    checks.addresses();
    checks.certificates();
    checks.inbound_relaying();
    checks.doors();
    checks.outbound_relaying();
    checks.next_hops();
}

/// Checks that the files that a configuration names can be read, and that private ones are private.
pub(super) fn files(config: &Config, places: &Places, problems: &mut Problems) {
    let mut checks = Checks { config, places, problems, listeners: Vec::new() };
    for (index, certificate) in config.tls.certificates.iter().enumerate() {
        let key = format!("tls.certificates[{}]", index + 1);
        checks.readable(&format!("{key}.chain"), &certificate.chain);
        checks.private(&format!("{key}.key"), &certificate.key);
    }
    if checks.problems.0.is_empty() && !config.tls.certificates.is_empty() {
        let clients =
            config.tls.client_ca.clone().map_or_else(Default::default, ClientCertificates::SignedBy);
        if let Err(error) = Acceptor::new(Certificates { own: config.tls.certificates.clone(), clients }) {
            checks.add("tls.certificates", error_chain(&error));
        }
    }
    for (key, path) in [("tls.client_ca", &config.tls.client_ca), ("tls.roots", &config.tls.roots)] {
        if let Some(path) = path {
            checks.readable(key, path);
        }
    }
    if let Some(path) = &config.tls.roots
        && path.is_file()
        && let Err(error) = Roots::from_file(path)
    {
        checks.add("tls.roots", error_chain(&error));
    }
    if let Some(folder) = &config.rules_dir
        && let Err(error) = std::fs::read_dir(folder)
    {
        checks.add("scan.rules_dir", format!("{}: {error}", folder.display()));
    }
    for direction in Direction::ALL {
        for (key, targets) in config.way(direction).all_next_hops() {
            for (index, target) in targets.iter().enumerate() {
                if let Some(path) = &target.login_file {
                    let key = format!("{}.{key}[{}].login_file", direction.as_str(), index + 1);
                    checks.private(&key, path);
                }
            }
        }
    }
}

impl Checks<'_> {
    fn add(&mut self, key: &str, message: impl Into<String>) {
        let line = self.places.line(key);
        self.problems.0.push(Problem { line, key: key.to_owned(), message: message.into() });
    }

    fn collect_listeners(&mut self, direction: Direction) {
        let way = self.config.way(direction);
        let name = direction.as_str();
        let all = way.all_listeners();
        if all.is_empty() {
            let message = format!("no listener is left: give an address, or add an [[{name}.listener]]");
            self.add(&format!("{name}.listen"), message);
        }
        let first_further = usize::from(way.listen.is_some());
        for (index, listener) in all.into_iter().enumerate() {
            let table = match (index + 1).checked_sub(first_further) {
                None | Some(0) => name.to_owned(),
                Some(number) => format!("{name}.listener[{number}]"),
            };
            self.listeners.push((direction, table, listener));
        }
    }

    fn limits(&mut self) {
        let config = self.config;
        for direction in Direction::ALL {
            if config.way(direction).policy().is_err() {
                self.add(direction.as_str(), "the thresholds must rise: tag <= quarantine <= reject");
            }
        }
        if config.smtp.max_bytes_in_flight < config.smtp.max_message_bytes {
            self.add("smtp.max_bytes_in_flight", "must be at least smtp.max_message_size");
        }
    }

    /// No address is listened on twice.
    fn addresses(&mut self) {
        let mut places: Vec<(String, ListenAddress)> = self
            .listeners
            .iter()
            .map(|(_, table, listener)| (format!("{table}.listen"), listener.listen.clone()))
            .collect();
        places.push(("web.listen".to_owned(), ListenAddress::Tcp(self.config.web_listen)));
        for (index, (key, listen)) in places.iter().enumerate() {
            if let Some((other, _)) =
                places.iter().take(index).find(|(_, other)| place::collide(other, listen))
            {
                self.add(key, format!("this address is already used by {other}"));
            }
        }
    }

    /// Encryption has certificates, and what needs encryption has it.
    fn certificates(&mut self) {
        let config = self.config;
        for (direction, table, listener) in self.listeners.clone() {
            let key = format!("{table}.tls");
            if listener.tls != TlsMode::None && config.tls.certificates.is_empty() {
                self.add(&key, "TLS needs a certificate: set tls.certificates");
            }
            if listener.proxy_protocol && config.smtp.proxy_networks.is_empty() {
                self.add(&format!("{table}.proxy_protocol"), "nobody may: set smtp.proxy_networks");
            }
            // A proxy on this machine brings clients of the world.
            let is_local = place::is_local(&listener.listen) && !listener.proxy_protocol;
            let signs_in = direction == Direction::Outbound && config.outbound.auth != Auth::None;
            if signs_in && listener.tls == TlsMode::None && !is_local {
                self.add(
                    &key,
                    "passwords would travel in clear: set \"required\", \"implicit\" or \"offered\"",
                );
            }
        }
        let is_encrypted = |listener: &(Direction, String, Listener)| listener.2.tls != TlsMode::None;
        if !config.smtp.require_tls_networks.is_empty() && !self.listeners.iter().any(is_encrypted) {
            self.add("smtp.require_tls_networks", "no listener offers TLS");
        }
        if !config.outbound.client_certificates.is_empty() {
            let outbound = |listener: &&(Direction, String, Listener)| listener.0 == Direction::Outbound;
            if !self.listeners.iter().filter(outbound).any(is_encrypted) {
                self.add("outbound.client_certificates", "no outbound listener offers TLS");
            }
        }
    }

    /// A listener that the world reaches takes mail for our domains alone.
    fn inbound_relaying(&mut self) {
        let reaches = |listener: &&(Direction, String, Listener)| {
            listener.0 == Direction::Inbound && !place::is_local(&listener.2.listen)
        };
        if !self.config.inbound.domains.is_empty() {
            let config = self.config;
            for (index, route) in config.inbound.routes.iter().enumerate() {
                let foreign = route.domains.iter().find(|domain| !config.inbound.domains.contains(domain));
                if let Some(domain) = foreign {
                    let key = format!("inbound.route[{}].domains", index + 1);
                    self.add(
                        &key,
                        format!("{} is not in inbound.domains, so no mail for it is taken", domain.as_str()),
                    );
                }
            }
        } else if let Some((_, table, _)) = self.listeners.iter().find(reaches) {
            let message =
                format!("name your domains: without them, {table}.listen would relay for the world");
            self.add("inbound.domains", message);
        }
    }

    /// A door at which nobody signs in is not open to others by mistake.
    fn doors(&mut self) {
        let door = &self.config.door;
        if door.allow_remote {
            return;
        }
        let rspamd = door.rspamd.map(ListenAddress::Tcp);
        for (key, address) in
            [("door.spamd", &door.spamd), ("door.rspamd", &rspamd), ("door.milter", &door.milter)]
        {
            if address.as_ref().is_some_and(|address| !place::is_local(address)) {
                self.add(key, "others reach this address: say door.allow_remote = true if that is meant");
            }
        }
    }

    /// A listener that others reach has somebody who may use it.
    fn outbound_relaying(&mut self) {
        let outbound: &Way = &self.config.outbound;
        let somebody = outbound.auth != Auth::None
            || !outbound.client_certificates.is_empty()
            || outbound.networks.iter().any(|net| !net.addr().is_loopback());
        let reaches = |listener: &&(Direction, String, Listener)| {
            listener.0 == Direction::Outbound && !place::is_local(&listener.2.listen)
        };
        if !somebody && let Some((_, table, _)) = self.listeners.iter().find(reaches) {
            let message = format!(
                "say who may send through {table}.listen: outbound.networks, outbound.auth or \
                 outbound.client_certificates"
            );
            self.add("outbound.networks", message);
        }
        for (index, route) in outbound.routes.iter().enumerate() {
            let table = format!("outbound.route[{}]", index + 1);
            if route.sender_domains.is_empty() && route.accounts.is_empty() {
                self.add(&table, "no mail takes this route: set sender_domains or accounts");
            }
            if !route.accounts.is_empty() && outbound.auth == Auth::None {
                self.add(&format!("{table}.accounts"), "nobody signs in: set outbound.auth");
            }
        }
    }

    /// No next hop is this gateway itself, and none gets a password in clear.
    fn next_hops(&mut self) {
        let config = self.config;
        for direction in Direction::ALL {
            let way = config.way(direction);
            for (number, (list, targets)) in way.all_next_hops().enumerate() {
                // Clients sign in with the next hops of their account's route, or with the default ones.
                let route = number.checked_sub(1).and_then(|index| way.routes.get(index));
                let passes_on = direction == Direction::Outbound
                    && way.auth == Auth::NextHop
                    && route.is_none_or(|route| !route.accounts.is_empty());
                for (index, target) in targets.iter().enumerate() {
                    let key = format!("{}.{list}", direction.as_str());
                    if self.comes_back(&target.to) {
                        self.add(&key, format!("the next hop {} is this gateway itself", target.to));
                    }
                    let key = format!("{key}[{}]", index + 1);
                    if takes_passwords(way, target) {
                        continue;
                    }
                    if target.login_file.is_some() {
                        let message = "a password is sent over TLS alone: set tls to \"required\", \"verified\" or \
                                       \"sha256:HEX\"";
                        self.add(&format!("{key}.login_file"), message);
                    }
                    if passes_on {
                        let message = "outbound.auth = \"next_hop\" passes passwords on: this must be an SMTP server \
                                       with tls \"required\", \"verified\" or \"sha256:HEX\"";
                        self.add(&key, message);
                    }
                }
            }
        }
    }

    fn comes_back(&self, next_hop: &NextHop) -> bool {
        match next_hop {
            NextHop::Smtp { host, port } | NextHop::Smtps { host, port } | NextHop::Lmtp { host, port } => {
                let web = ListenAddress::Tcp(self.config.web_listen);
                let mut places = self.listeners.iter().map(|(_, _, listener)| &listener.listen);
                places.any(|place| place::answers(place, host, *port)) || place::answers(&web, host, *port)
            }
            NextHop::LmtpSocket { path } => {
                let socket = ListenAddress::Unix(path.clone());
                self.listeners.iter().any(|(_, _, listener)| listener.listen == socket)
            }
            NextHop::Mx { .. } | NextHop::Maildir { .. } => false,
        }
    }

    fn readable(&mut self, key: &str, path: &Path) -> Option<File> {
        let opened = File::open(path).and_then(|file| {
            if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("this is no file")) }
        });
        match opened {
            Ok(file) => Some(file),
            Err(error) => {
                self.add(key, format!("{}: {error}", path.display()));
                None
            }
        }
    }

    fn private(&mut self, key: &str, path: &Path) {
        let Some(file) = self.readable(key, path) else { return };
        if let Ok(metadata) = file.metadata()
            && metadata.permissions().mode() & 0o007 != 0
        {
            let message = format!("{} is open to every user: chmod o= {}", path.display(), path.display());
            self.add(key, message);
        }
    }
}

/// Whether a password may go to a next hop: where nothing but TLS will do, or nobody stands between. The
/// password goes over TLS there as well.
fn takes_passwords(way: &Way, target: &Target) -> bool {
    let host = match &target.to {
        NextHop::Smtps { .. } => return true,
        NextHop::Smtp { host, .. } | NextHop::Lmtp { host, .. } => Some(host),
        NextHop::Mx { .. } => None,
        NextHop::LmtpSocket { .. } | NextHop::Maildir { .. } => return false,
    };
    match way.tls_of(target) {
        TlsPolicy::Required | TlsPolicy::Verified { .. } | TlsPolicy::Fingerprint(_) => true,
        TlsPolicy::Opportunistic | TlsPolicy::Published => {
            let ip = host.and_then(|host| host.parse::<IpAddr>().ok());
            ip.is_some_and(|ip| ip.to_canonical().is_loopback())
        }
        TlsPolicy::None => false,
    }
}
