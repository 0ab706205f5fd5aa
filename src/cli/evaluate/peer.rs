//! Other filters over the same list: each judges a message before it learns it, from an empty store of its own in a
//! temporary folder.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use tempfile::TempDir;

use crate::learn::Label;

/// How long spamd may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A filter that can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Name {
    /// `bogofilter`, one process for each judgement and each lesson.
    Bogofilter,
    /// `spamd` with its stock rules and Bayes filter, without the network.
    Spamassassin,
}

/// What another filter says of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Said {
    /// Higher is more likely spam.
    pub(super) score: f64,
    /// Whether it calls it spam.
    pub(super) is_spam: bool,
}

/// Another filter, running.
pub(super) enum Peer {
    /// The folder of its word list, which there is from the first lesson on.
    Bogofilter {
        folder: TempDir,
        has_learned: bool,
    },
    Spamassassin {
        child: Child,
        port: u16,
        _folder: TempDir,
    },
}

impl Peer {
    /// Starts a filter that has learned nothing.
    ///
    /// # Errors
    /// The program is not installed, or does not start.
    pub(super) fn start(name: Name) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        if name == Name::Bogofilter {
            return Ok(Peer::Bogofilter { folder, has_learned: false });
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let path = folder.path().display();
        let child = Command::new("spamd")
            .args(["--local", "--nouser-config", "--allow-tell", "--max-children=1", "--syslog=null"])
            .args(["--listen=127.0.0.1", "--allowed-ips=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--helper-home-dir={path}"))
            .arg(format!("--cf=bayes_path {path}/bayes"))
            .args(["--cf=use_bayes 1", "--cf=bayes_auto_learn 0", "--cf=bayes_learn_to_journal 0"])
            .env("HOME", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting spamd: is Debian's package of that name installed?")?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > deadline {
                bail!("spamd did not begin to listen");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Peer::Spamassassin { child, port, _folder: folder })
    }

    /// Asks what it thinks of a message.
    ///
    /// # Errors
    /// It does not answer, or not as it is known to.
    pub(super) fn judge(&self, raw: &[u8]) -> anyhow::Result<Said> {
        match self {
            Peer::Bogofilter { has_learned: false, .. } => Ok(Said { score: 0.5, is_spam: false }),
            Peer::Bogofilter { folder, .. } => {
                let answer = bogofilter(folder, &["-T"], raw)?;
                let (kind, score) =
                    answer.trim().split_once(' ').with_context(|| format!("bogofilter: {answer}"))?;
                Ok(Said { score: score.trim().parse()?, is_spam: kind == "S" })
            }
            Peer::Spamassassin { port, .. } => {
                let answer = spamd(*port, "CHECK", "", raw)?;
                let line = answer.lines().find_map(|line| line.strip_prefix("Spam: "));
                let (kind, score) =
                    line.and_then(|line| line.split_once(';')).context("spamd gave no score")?;
                let score = score.split('/').next().unwrap_or_default().trim().parse()?;
                Ok(Said { score, is_spam: kind.trim() == "True" })
            }
        }
    }

    /// Teaches it a message.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn learn(&mut self, raw: &[u8], label: Label) -> anyhow::Result<()> {
        match self {
            Peer::Bogofilter { folder, has_learned } => {
                *has_learned = true;
                bogofilter(folder, &[if label == Label::Spam { "-s" } else { "-n" }], raw)?;
            }
            Peer::Spamassassin { port, .. } => {
                let head = format!("Message-class: {}\r\nSet: local\r\n", label.as_str());
                spamd(*port, "TELL", &head, raw)?;
            }
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Peer::Spamassassin { child, .. } = self {
            // It ends its own children when it is asked to.
            let asked = Command::new("kill").arg(child.id().to_string()).status();
            if !asked.is_ok_and(|status| status.success()) {
                child.kill().ok();
            }
            child.wait().ok();
        }
    }
}

/// Runs bogofilter over a message: 0 says spam, 1 ham, 2 unsure, 3 and more that it failed.
fn bogofilter(folder: &TempDir, arguments: &[&str], raw: &[u8]) -> anyhow::Result<String> {
    let mut child = Command::new("bogofilter")
        .args(["-C", "-d"])
        .arg(folder.path())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting bogofilter: is Debian's package of that name installed?")?;
    let mut stdin = child.stdin.take().context("bogofilter takes no input")?;
    // Its answer is one line: it is written when all was read.
    stdin.write_all(raw)?;
    drop(stdin);
    let output = child.wait_with_output()?;
    match output.status.code() {
        Some(0..=2) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        code => bail!("bogofilter failed: {code:?}"),
    }
}

/// Asks spamd in its protocol.
fn spamd(port: u16, command: &str, head: &str, raw: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{command} SPAMC/1.5\r\n{head}Content-length: {}\r\n\r\n", raw.len())?;
    stream.write_all(raw)?;
    // It waits for the end of the last line.
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.contains("EX_OK") {
        bail!("spamd: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(answer)
}
