//! What no single key can know: contradictions, open relays, loops, files that are not there.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::problem::{Problem, Problems};
use super::read::Places;
use super::way::{Auth, Listener};
use super::{Config, Way, place};
use crate::ingress::{ListenAddress, TlsMode};
use crate::mail::Direction;
use crate::relay::NextHop;

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
    checks.outbound_relaying();
    checks.loops();
}

/// Checks that the files that a configuration names can be read, and that private ones are private.
pub(super) fn files(config: &Config, places: &Places, problems: &mut Problems) {
    let mut checks = Checks { config, places, problems, listeners: Vec::new() };
    for (index, certificate) in config.tls.certificates.iter().enumerate() {
        let key = format!("tls.certificates[{}]", index + 1);
        checks.readable(&format!("{key}.chain"), &certificate.chain);
        checks.private(&format!("{key}.key"), &certificate.key);
    }
    for (key, path) in [("tls.client_ca", &config.tls.client_ca), ("tls.roots", &config.tls.roots)] {
        if let Some(path) = path {
            checks.readable(key, path);
        }
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
        // A next hop or a certificate has no line of its own; its list has.
        let line = self.places.line(key).or_else(|| self.places.line(key.split('[').next().unwrap_or(key)));
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
            if listener.tls != TlsMode::None || place::is_local(&listener.listen) {
                continue;
            }
            if direction == Direction::Outbound && config.outbound.auth != Auth::None {
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

    /// No next hop is this gateway itself.
    fn loops(&mut self) {
        let config = self.config;
        for direction in Direction::ALL {
            for (key, targets) in config.way(direction).all_next_hops() {
                for target in targets {
                    let NextHop::Smtp { host, port } = &target.to else { continue };
                    let is_us = self
                        .listeners
                        .iter()
                        .any(|(_, _, listener)| place::answers(&listener.listen, host, *port))
                        || place::answers(&ListenAddress::Tcp(config.web_listen), host, *port);
                    if is_us {
                        let key = format!("{}.{key}", direction.as_str());
                        self.add(&key, format!("the next hop {} is this gateway itself", target.to));
                    }
                }
            }
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
