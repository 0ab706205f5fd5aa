//! The configuration: one TOML file, the environment over it, every problem reported at once.
//!
//! Each key is defined in one place, `keys`: its name, default, meaning and effect. The embedded default is
//! read through the same definitions as a file, so it cannot drift from the reference. A file with any
//! problem changes nothing.

mod keys;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use crate::gateway::{Access, Marking};
use crate::mail::Direction;
use crate::policy::{Exemption, OnDegraded, Policy, Thresholds};
use crate::relay::NextHop;

/// One direction: where mail comes in, where it goes, what it may be.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where we listen.
    pub listen: SocketAddr,
    /// Who may hand us mail for whom.
    pub access: Access,
    /// Where what passes goes.
    pub next_hop: NextHop,
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

impl Route {
    /// Returns the policy of the direction.
    ///
    /// # Errors
    /// [`crate::policy::Unordered`] when the thresholds do not rise; a loaded [`Config`] has been checked.
    pub fn policy(&self) -> Result<Policy, crate::policy::Unordered> {
        Ok(Policy {
            thresholds: Thresholds::new(self.tag, self.quarantine, self.reject)?,
            on_degraded: self.on_degraded,
            exemptions: self.exempt.clone(),
        })
    }
}

/// Limits of the SMTP listeners.
#[derive(Debug, Clone)]
pub struct SmtpLimits {
    /// Largest message.
    pub max_message_bytes: usize,
    /// Recipients in one transaction.
    pub max_recipients: usize,
    /// Connections in all, each direction.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_ip: usize,
    /// Message bytes held by all sessions together.
    pub max_bytes_in_flight: usize,
    /// Wrong commands in one session.
    pub max_errors: usize,
    /// Longest silence of a client.
    pub idle_timeout: Duration,
    /// Longest session.
    pub session_timeout: Duration,
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
}

/// Everything that can be configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name we greet with.
    pub hostname: String,
    /// Where records, bodies, state and keys live.
    pub data_dir: PathBuf,
    /// Mail from the world.
    pub inbound: Route,
    /// Mail to the world.
    pub outbound: Route,
    /// Limits of the listeners.
    pub smtp: SmtpLimits,
    /// Limits towards the next hops.
    pub relay: RelayLimits,
    /// Scans at once; 0 for one a core.
    pub scan_concurrency: usize,
    /// Time for one scan.
    pub scan_timeout: Duration,
    /// A folder of further `.cf` rule files.
    pub rules_dir: Option<PathBuf>,
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

    /// Reads a file, or the embedded default where there is none, and the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?,
            None => String::new(),
        };
        Config::read(&text, |name| std::env::var(name).ok()).map_err(|problems| ConfigError::Invalid {
            path: path.map_or_else(|| PathBuf::from("(default)"), Path::to_owned),
            problems,
        })
    }

    /// Reads a TOML text; `environment` answers for variables such as `LAZARET_INBOUND_LISTEN`.
    ///
    /// # Errors
    /// [`Problems`]: every unknown key, wrong type, bad value and contradiction, with its line.
    pub fn read(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        let mut problems = Problems(Vec::new());
        let mut config = keys::blank();
        for key in keys::all() {
            let default = format!("value = {}", key.default);
            let set = DeTable::parse(&default).ok().and_then(|table| {
                table.get_ref().get("value").map(|value| (key.set)(&mut config, value.get_ref()))
            });
            if !matches!(set, Some(Ok(()))) {
                unreachable!("the default of {} is valid", key.name);
            }
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map(|span| line_of(text, span.start));
            problems.0.push(Problem { line, key: String::new(), message: error.message().to_owned() });
        }
        // What follows a mistake of syntax is guesswork; its keys would be reported as problems they are not.
        if problems.0.is_empty() {
            read_table(text, "", table.get_ref(), &mut config, &mut problems);
        }
        for key in keys::all() {
            let variable = variable_of(key.name);
            let Some(value) = environment(&variable) else { continue };
            if let Err(message) = set_from_variable(key, &value, &mut config) {
                problems.0.push(Problem { line: None, key: variable, message });
            }
        }
        config.check(&mut problems);
        problems.0.sort_by_key(|problem| problem.line);
        if problems.0.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Returns the route of one direction.
    pub fn route(&self, direction: Direction) -> &Route {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// Checks what no single key can know.
    fn check(&self, problems: &mut Problems) {
        let mut add = |key: &str, message: &str| {
            problems.0.push(Problem { line: None, key: key.to_owned(), message: message.to_owned() });
        };
        for direction in Direction::ALL {
            if self.route(direction).policy().is_err() {
                add(direction.as_str(), "the thresholds must rise: tag <= quarantine <= reject");
            }
        }
        if self.outbound.access.is_open() {
            add("outbound.networks", "these are the whole world: name the networks of your own servers");
        }
        if self.inbound.access.is_open() && !self.inbound.listen.ip().is_loopback() {
            add(
                "inbound.domains",
                "name your domains: without them, this listener would relay for the world",
            );
        }
        let listeners = [
            ("inbound.listen", self.inbound.listen),
            ("outbound.listen", self.outbound.listen),
            ("web.listen", self.web_listen),
        ];
        for (index, (_, address)) in listeners.iter().enumerate() {
            for (key, other) in listeners.iter().skip(index + 1) {
                if address.port() != 0 && address == other {
                    add(key, "this address is already used by another listener");
                }
            }
        }
        for direction in Direction::ALL {
            if let NextHop::Smtp { host, port } = &self.route(direction).next_hop {
                let is_us = listeners.iter().any(|(_, address)| {
                    address.port() == *port && *port != 0 && address.ip().to_string() == *host
                });
                if is_us {
                    add(&format!("{}.next_hop", direction.as_str()), "the next hop is this gateway itself");
                }
            }
        }
        if self.smtp.max_bytes_in_flight < self.smtp.max_message_bytes {
            add("smtp.max_bytes_in_flight", "must be at least smtp.max_message_bytes");
        }
    }
}

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1, where the problem has one.
    pub line: Option<usize>,
    /// The dotted key or the variable; empty for a mistake of syntax.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// All problems of a configuration, in the order of their lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            if let Some(line) = problem.line {
                write!(f, "line {line}: ")?;
            }
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            write!(f, "{}", problem.message)?;
        }
        Ok(())
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It has problems.
    #[error("the configuration {} is not usable:\n{problems}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them.
        problems: Problems,
    },
}

/// Returns the reference: every key with its default and meaning, as a commented TOML file.
pub fn reference() -> String {
    let mut text = String::from(
        "# Every key of Lazaret's configuration, with its default.\n\
         # A key is also read from the environment, as LAZARET_ and its name in capitals with _ for the dot:\n\
         # LAZARET_INBOUND_LISTEN=0.0.0.0:25\n",
    );
    let mut section = "";
    for key in keys::all() {
        let (table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if table != section {
            text.push_str(&format!("\n[{table}]\n"));
            section = table;
        }
        text.push('\n');
        for line in key.meaning.lines() {
            text.push_str(&format!("# {}\n", line.trim()));
        }
        text.push_str(&format!("{name} = {}\n", key.default));
    }
    text
}

fn variable_of(name: &str) -> String {
    format!("LAZARET_{}", name.replace('.', "_").to_uppercase())
}

fn set_from_variable(key: &keys::Key, text: &str, config: &mut Config) -> Result<(), String> {
    // A variable may hold a TOML value or a bare text: 25, ["a", "b"], 127.0.0.1:25.
    let document = format!("value = {text}");
    match DeTable::parse(&document)
        .ok()
        .and_then(|table| table.get_ref().get("value").map(|value| (key.set)(config, value.get_ref())))
    {
        Some(Ok(())) => Ok(()),
        _ => (key.set)(config, &DeValue::String(text.into())),
    }
}

fn read_table(text: &str, prefix: &str, table: &DeTable<'_>, config: &mut Config, problems: &mut Problems) {
    for (name, value) in table {
        let dotted = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        let line = Some(line_of(text, name.span().start));
        let is_section = keys::all().any(|key| key.name.starts_with(&format!("{dotted}.")));
        match (value.get_ref(), keys::all().find(|key| key.name == dotted)) {
            (DeValue::Table(inner), None) if is_section => read_table(text, &dotted, inner, config, problems),
            (_, None) if is_section => {
                problems.0.push(Problem { line, key: dotted, message: "this is a table of keys".to_owned() });
            }
            (_, None) => {
                let message = unknown_key_message(&dotted);
                problems.0.push(Problem { line, key: dotted, message });
            }
            (inner, Some(key)) => {
                if let Err(message) = (key.set)(config, inner) {
                    let line = Some(line_of(text, Spanned::span(value).start));
                    problems.0.push(Problem { line, key: dotted, message });
                }
            }
        }
    }
}

fn unknown_key_message(name: &str) -> String {
    let nearest = keys::all()
        .map(|key| (strsim::jaro_winkler(name, key.name), key.name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, nearest)) if likeness > 0.8 => format!("no such key; did you mean {nearest}?"),
        _ => "no such key; `lazaret config reference` lists them all".to_owned(),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(Option<usize>, &str)]) {
        let problems = match Config::read(text, |_| None) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.0,
        };
        let found: Vec<(Option<usize>, &str)> =
            problems.iter().map(|problem| (problem.line, problem.key.as_str())).collect();
        assert_eq!(found, expected, "{problems:?}");
    }

    #[test]
    fn the_embedded_default_is_the_documented_one() {
        let config = Config::embedded();
        assert_eq!(config.inbound.listen, "127.0.0.1:2525".parse().unwrap());
        assert_eq!(config.outbound.listen, "127.0.0.1:2526".parse().unwrap());
        assert_eq!(config.web_listen, "127.0.0.1:8025".parse().unwrap());
        assert_eq!(config.data_dir, Path::new("./lazaret-data"));
    }

    #[test]
    fn every_problem_is_reported_with_its_key_and_line() {
        check(
            "hostnam = \"x\"\n[inbound]\nlisten = 25\nnext_hop = \"ftp://x\"\n[outbound]\ntag = 9.0\n[nonsense]\nx = 1\n",
            &[
                (None, "outbound"),
                (Some(1), "hostnam"),
                (Some(3), "inbound.listen"),
                (Some(4), "inbound.next_hop"),
                (Some(7), "nonsense"),
            ],
        );
        check("[inbound\nlisten = \"127.0.0.1:1\"\n", &[(Some(1), "")]);
        check("inbound = 3\n", &[(Some(1), "inbound")]);
    }

    #[test]
    fn what_could_not_work_is_no_value() {
        check("mail_from = \"postmaster\"\n", &[(Some(1), "mail_from")]);
        check("data_dir = \"\"\n", &[(Some(1), "data_dir")]);
    }

    #[test]
    fn contradictions_between_keys_are_found() {
        check("[web]\nlisten = \"127.0.0.1:2525\"\n", &[(None, "web.listen")]);
        check("[inbound]\nnext_hop = \"smtp://127.0.0.1:2526\"\n", &[(None, "inbound.next_hop")]);
        check("[inbound]\nlisten = \"0.0.0.0:25\"\n", &[(None, "inbound.domains")]);
        check("[inbound]\nlisten = \"0.0.0.0:25\"\ndomains = [\"example.org\"]\n", &[]);
        check("[outbound]\nnetworks = [\"0.0.0.0/0\"]\n", &[(Some(2), "outbound.networks")]);
        check("[outbound]\nnetworks = [\"10.0.0.0/8\", \"x\"]\n", &[(Some(2), "outbound.networks")]);
        check("[smtp]\nmax_bytes_in_flight = \"1 MiB\"\n", &[(None, "smtp.max_bytes_in_flight")]);
    }

    #[test]
    fn a_misspelt_key_names_the_right_one() {
        let problems = Config::read("[inbound]\nnexthop = \"maildir:\"\n", |_| None).unwrap_err();
        assert!(problems.to_string().contains("did you mean inbound.next_hop?"), "{problems}");
    }

    #[test]
    fn the_environment_stands_over_the_file() {
        let config = Config::read("[inbound]\ntag = 3.0\n", |name| match name {
            "LAZARET_INBOUND_LISTEN" => Some("127.0.0.1:99".to_owned()),
            "LAZARET_INBOUND_TAG" => Some("2.5".to_owned()),
            _ => None,
        })
        .unwrap();
        assert_eq!(config.inbound.listen.port(), 99);
        assert!((config.inbound.tag - 2.5).abs() < f64::EPSILON);
        let problems =
            Config::read("", |name| (name == "LAZARET_WEB_LISTEN").then(|| "x".to_owned())).unwrap_err();
        assert!(problems.to_string().starts_with("LAZARET_WEB_LISTEN: "), "{problems}");
    }

    #[test]
    fn the_reference_reads_back_as_the_default_and_documents_every_key() {
        let text = reference();
        assert!(Config::read(&text, |_| None).is_ok());
        for key in keys::all() {
            assert!(key.meaning.len() > 10, "{} is not documented", key.name);
            let name = key.name.rsplit('.').next().unwrap();
            assert!(text.contains(&format!("\n{name} = ")), "{}", key.name);
        }
    }
}
