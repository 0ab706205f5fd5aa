//! `lazaret accounts`: who may hand in mail under a name and a password.
//!
//! Works beside a running gateway, which sees a change at the next sign-in or MAIL. A password is asked for
//! at the terminal, or read from a file or standard input; it is never an argument, which every user of the
//! machine could read.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Subcommand};
use console::Term;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::messages::printable;
use crate::accounts::{
    self, Accounts, Added, AllowedSender, LoginName, PASSWORD_LIMIT_BYTES, PASSWORD_MINIMUM_CHARS, Submitter,
};
use crate::app::{self, Folder};
use crate::config::Config;
use crate::mail::Address;
use crate::privacy::error_chain;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add an account. Its password is asked for at the terminal, or read from standard input.
    Add(AddArguments),
    /// List the accounts.
    List {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Remove accounts; who is signed in with one sends no further message.
    Remove(Names),
    /// Keep accounts, but let nobody send with them for now.
    Disable(Names),
    /// Let disabled accounts send again.
    Enable(Names),
}

#[derive(Debug, Args)]
pub(super) struct AddArguments {
    /// The name to sign in under: an address, or a word without spaces. Case does not matter.
    #[arg(value_parser = name)]
    name: LoginName,
    /// An address that the account may send as, or a whole domain as `@example.org` (its subdomains are not
    /// in it); may be repeated. A name that is an address may send as itself where nothing else is given.
    #[arg(long = "sender", value_name = "SENDER", value_parser = sender)]
    senders: Vec<AllowedSender>,
    /// Read the password from this file; a line end at its end is no part of it.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Names {
    /// The names of the accounts.
    #[arg(required = true, value_name = "NAME", value_parser = name)]
    names: Vec<LoginName>,
}

pub(super) fn run(command: &Command, config: &Config) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(async {
        match command {
            Command::Add(arguments) => add(config, arguments).await,
            Command::List { json } => list(&open(config).await?, *json).await,
            Command::Remove(names) => {
                let accounts = open(config).await?;
                each(names, "is removed", async |name| accounts.remove_submitter(name).await).await
            }
            Command::Disable(names) => {
                let accounts = open(config).await?;
                each(names, "is disabled", async |name| accounts.disable_submitter(name, true).await).await
            }
            Command::Enable(names) => {
                let accounts = open(config).await?;
                each(names, "may send again", async |name| accounts.disable_submitter(name, false).await)
                    .await
            }
        }
    })
}

async fn open(config: &Config) -> anyhow::Result<Accounts> {
    let folder = Folder::open(&config.data_dir).await?;
    Ok(Accounts::new(folder.records, &folder.key, accounts::Config::default()))
}

async fn add(config: &Config, arguments: &AddArguments) -> anyhow::Result<ExitCode> {
    let mut senders = arguments.senders.clone();
    if senders.is_empty() {
        let Ok(own) = Address::parse(arguments.name.as_str()) else {
            super::Arguments::command()
                .error(
                    ErrorKind::MissingRequiredArgument,
                    "say whom the account may send as: --sender ADDRESS or --sender @DOMAIN",
                )
                .exit();
        };
        senders.push(AllowedSender::Address(own));
    }
    let accounts = open(config).await?;
    if accounts.submitter(&arguments.name).await?.is_some() {
        bail!("{}", taken(&arguments.name));
    }
    let password = match &arguments.password_file {
        Some(path) => read_file(path)?,
        None if io::stdin().is_terminal() => ask()?,
        None => one_line(io::stdin().lock()).context("reading the password from standard input")?,
    };
    match accounts.add_submitter(&arguments.name, &password, &senders, app::now()).await? {
        Added::Added => {
            println!("{} is added and may send as {}", shown(&arguments.name), senders_text(&senders));
            Ok(ExitCode::SUCCESS)
        }
        Added::NameTaken => bail!("{}", taken(&arguments.name)),
        Added::UnsuitablePassword => bail!(
            "this password cannot be used: it needs at least {PASSWORD_MINIMUM_CHARS} characters and at most \
             {PASSWORD_LIMIT_BYTES} bytes, no control characters, and must not be the name"
        ),
    }
}

async fn list(accounts: &Accounts, json: bool) -> anyhow::Result<ExitCode> {
    let submitters = accounts.submitters().await?;
    if json {
        let submitters = submitters.iter().map(as_json).collect::<Result<Vec<_>, _>>()?;
        println!("{}", serde_json::json!({ "accounts": submitters }));
        return Ok(ExitCode::SUCCESS);
    }
    for account in &submitters {
        println!(
            "{}  {:<8}  {}  sends as {}",
            account.created_at.format(&Rfc3339)?,
            if account.is_disabled { "disabled" } else { "enabled" },
            shown(&account.name),
            senders_text(&account.senders),
        );
    }
    if submitters.is_empty() {
        println!("there are no accounts; `lazaret accounts add` makes one");
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something to every account that is named, and says for each what came of it.
async fn each(
    names: &Names,
    done: &str,
    change: impl AsyncFn(&LoginName) -> Result<bool, accounts::Error>,
) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    for name in &names.names {
        if change(name).await? {
            println!("{} {done}", shown(name));
        } else {
            failed = true;
            eprintln!("lazaret: there is no account {}", shown(name));
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Asks twice: what is typed is not seen.
fn ask() -> anyhow::Result<Zeroizing<String>> {
    let term = Term::stderr();
    let prompt = |text: &str| -> anyhow::Result<Zeroizing<String>> {
        term.write_str(text)?;
        Ok(Zeroizing::new(term.read_secure_line().context("reading the password")?))
    };
    let password = prompt("Password: ")?;
    if *prompt("The same again: ")? != *password {
        bail!("the two passwords differ; nothing was added");
    }
    Ok(password)
}

fn read_file(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let reading = || format!("reading the password from {}", path.display());
    one_line(File::open(path).with_context(reading)?).with_context(reading)
}

/// Reads a password that stands alone on a line.
fn one_line(from: impl Read) -> anyhow::Result<Zeroizing<String>> {
    // Room for a password that is too long, so that it is refused and not cut.
    let limit = u64::try_from(PASSWORD_LIMIT_BYTES + 3)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_LIMIT_BYTES + 3));
    from.take(limit).read_to_end(&mut bytes)?;
    let Ok(text) = std::str::from_utf8(&bytes) else { bail!("the password is not UTF-8") };
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        bail!("there is no password");
    }
    if line.contains(['\n', '\r']) {
        bail!("a password is one line, and there are more");
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn name(text: &str) -> Result<LoginName, String> {
    LoginName::parse(text).map_err(|error| error_chain(&error))
}

fn sender(text: &str) -> Result<AllowedSender, String> {
    AllowedSender::parse(text)
        .map_err(|error| format!("{error}; expected alice@example.org, or @example.org for a whole domain"))
}

fn taken(name: &LoginName) -> String {
    format!("there is an account {} already; remove it first to make it anew", shown(name))
}

fn shown(name: &LoginName) -> String {
    printable(name.as_str())
}

fn senders_text(senders: &[AllowedSender]) -> String {
    let texts: Vec<String> = senders.iter().map(|sender| printable(&sender.to_text())).collect();
    texts.join(", ")
}

fn as_json(account: &Submitter) -> anyhow::Result<serde_json::Value> {
    let senders: Vec<String> = account.senders.iter().map(AllowedSender::to_text).collect();
    Ok(serde_json::json!({
        "name": account.name.as_str(),
        "senders": senders,
        "disabled": account.is_disabled,
        "created_at": account.created_at.format(&Rfc3339)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_and_its_end_is_no_part_of_it() {
        let read = |bytes: &[u8]| one_line(bytes).ok().map(|line| line.to_string());
        for (bytes, expected) in [
            (&b"secret"[..], Some("secret")),
            (b"secret\n", Some("secret")),
            (b"secret\r\n", Some("secret")),
            (b" secret \n", Some(" secret ")),
            (b"", None),
            (b"\n", None),
            (b"secret\n\n", None),
            (b"secret\nmore", None),
            (b"\xff\xfe", None),
        ] {
            assert_eq!(read(bytes).as_deref(), expected, "{bytes:?}");
        }
        assert_eq!(read(&[b'x'; 5000]).map(|line| line.len()), Some(PASSWORD_LIMIT_BYTES + 3));
    }
}
