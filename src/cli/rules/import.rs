//! `lazaret rules import DIR`: a folder of rules is checked, and copied as a whole or not at all.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::{Selection, check};
use crate::app;
use crate::config::Config;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The folder with the rules.
    folder: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Replace a set that was imported before.
    #[arg(long)]
    replace: bool,
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let Some(to) = &config.rules_dir else {
        bail!("scan.rules_dir is not configured: there is no folder to import to");
    };
    let selection = Selection { rules: vec![arguments.folder.clone()], outbound: false };
    let (set, problems) = selection.compile(config)?;
    check::print(&set, &problems);
    if check::has_errors(&problems) {
        bail!("nothing was imported: mend the errors first");
    }
    if !arguments.folder.is_dir() {
        bail!("{} is no folder", arguments.folder.display());
    }
    let files = app::rule_files(&arguments.folder)?;
    if files.is_empty() {
        bail!("{} holds no rule files", arguments.folder.display());
    }
    let holds_rules = to.is_dir() && !app::rule_files(to)?.is_empty();
    if holds_rules && !arguments.replace {
        bail!("{} holds rules already: say --replace to put these in their place", to.display());
    }
    if arguments.dry_run {
        println!("{} files would be copied to {}", files.len(), to.display());
        return Ok(ExitCode::SUCCESS);
    }
    // Beside the target, so that it can be renamed into its place.
    let parent =
        to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let fresh = tempfile::Builder::new().prefix(".import-").tempdir_in(parent).context("making a folder")?;
    for file in &files {
        let relative = file.strip_prefix(&arguments.folder).unwrap_or(file);
        // Where it stood, since `include` speaks of that.
        let copy = fresh.path().join(relative);
        if let Some(parent) = copy.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        std::fs::copy(file, &copy).with_context(|| format!("copying {}", file.display()))?;
    }
    let fresh = fresh.keep();
    if to.is_dir() {
        let old = parent.join(format!(".replaced-{}", std::process::id()));
        std::fs::rename(to, &old).with_context(|| format!("moving {} aside", to.display()))?;
        if let Err(error) = std::fs::rename(&fresh, to) {
            std::fs::rename(&old, to).context("moving the old rules back")?;
            return Err(error).context("putting the new rules in their place");
        }
        std::fs::remove_dir_all(&old).with_context(|| format!("removing {}", old.display()))?;
    } else {
        std::fs::rename(&fresh, to).context("putting the new rules in their place")?;
    }
    println!("{} files are in {}; a reload puts them in service", files.len(), to.display());
    Ok(ExitCode::SUCCESS)
}
