//! Rule files on disk, and the rule sets made of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::config::Config;
use crate::mail::Direction;
use crate::rules::{Organisation, Role, RuleSet, Severity, Source};
use crate::scan::Rules;

/// Most files that are read, included ones among them.
const FILES: usize = 1_000;
/// Largest file.
const FILE_BYTES: u64 = 32 << 20;

/// Reads the rule files of a folder in the order of their names, or one file, and the files and lists that they
/// name. Only files below the folder are read, whatever links and names say.
///
/// # Errors
/// What could not be read.
pub fn rule_sources(path: &Path) -> anyhow::Result<Vec<Source>> {
    let reading = || format!("reading the rules in {}", path.display());
    let mut paths = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(reading)? {
            paths.push(entry.with_context(reading)?.path());
        }
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "cf"));
        paths.sort();
    } else {
        paths.push(path.to_owned());
    }
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().with_context(reading)?;
    let is_below = |name: &str| {
        let real = Path::new(name).canonicalize();
        real.is_ok_and(|real| real.starts_with(&folder) && real.is_file())
    };
    let mut sources: Vec<Source> = paths.iter().map(|path| read(path)).collect::<anyhow::Result<_>>()?;
    let mut seen: HashSet<String> = sources.iter().map(|source| source.name.clone()).collect();
    let mut next = 0;
    while let Some(source) = sources.get(next) {
        next += 1;
        let (includes, feeds) = match source.role {
            Role::Feed(_) => continue,
            Role::Rules | Role::Included => (source.includes(), source.feeds()),
        };
        for name in includes {
            // What is not there is a problem only where the line applies.
            if seen.insert(name.clone()) && is_below(&name) {
                sources.push(Source { role: Role::Included, ..read(Path::new(&name))? });
            }
        }
        for (role, name) in feeds {
            if seen.insert(name.clone()) && is_below(&name) {
                sources.push(Source { role, ..read(Path::new(&name))? });
            }
        }
        if sources.len() > FILES {
            bail!("{} has more than {FILES} rule files", path.display());
        }
    }
    Ok(sources)
}

fn read(path: &Path) -> anyhow::Result<Source> {
    let reading = || format!("reading {}", path.display());
    let length = std::fs::metadata(path).with_context(reading)?.len();
    if length > FILE_BYTES {
        bail!("{} is larger than {FILE_BYTES} bytes", path.display());
    }
    Ok(Source::new(path.display().to_string(), &std::fs::read(path).with_context(reading)?))
}

/// Returns the sources of the rules of a direction: our own, then the administrator's.
pub(crate) fn configured_sources(config: &Config, direction: Direction) -> anyhow::Result<Vec<Source>> {
    let mut sources = RuleSet::built_in_sources(direction);
    if let Some(folder) = &config.rules_dir {
        sources.extend(rule_sources(folder)?);
    }
    Ok(sources)
}

/// Makes the rule sets of both directions.
///
/// # Errors
/// Every line that is wrong: a set with errors is never put in service. What is not supported is logged.
pub(super) fn rules(config: &Config) -> anyhow::Result<Rules> {
    let compile = |direction: Direction| {
        let (rules, problems) = RuleSet::compile(&configured_sources(config, direction)?);
        let errors: Vec<String> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        if !errors.is_empty() {
            bail!("the rules have errors:\n  {}", errors.join("\n  "));
        }
        let warnings = problems.len();
        let unsupported = rules.unsupported().len();
        if warnings + unsupported > 0 {
            let direction = direction.as_str();
            tracing::warn!(
                direction,
                warnings,
                unsupported,
                "some rules cannot be used: see `lazaret rules check`"
            );
        }
        Ok(rules)
    };
    let domains = config.inbound.domains.iter().map(|domain| domain.as_str().to_ascii_lowercase());
    let organisation = Organisation {
        domains: domains.collect(),
        people: config.people.clone(),
        authserv_ids: config.authserv_ids.clone(),
    };
    Ok(Rules { inbound: compile(Direction::Inbound)?, outbound: compile(Direction::Outbound)?, organisation })
}

/// Returns the rule files of a folder, for copying.
pub(crate) fn rule_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(rule_sources(folder)?.iter().map(|source| PathBuf::from(&source.name)).collect())
}
