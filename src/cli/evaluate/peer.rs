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

/// How long a filter may take to start, and to answer: Rspamd compiles its patterns first.
const PATIENCE: Duration = Duration::from_secs(180);

/// A filter that can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Name {
    /// `bogofilter`, one process for each judgement and each lesson.
    Bogofilter,
    /// `spamd` with its stock rules and Bayes filter, without the network.
    Spamassassin,
    /// `rspamd` with its stock rules and Bayes filter over `redis-server`, without what asks the network.
    Rspamd,
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
        _spamd: Running,
        port: u16,
        _folder: TempDir,
    },
    Rspamd {
        _rspamd: Running,
        _redis: Running,
        /// Where it scans, and where it learns.
        ports: [u16; 2],
        _folder: TempDir,
    },
}

/// A program that ends when nobody needs it.
pub(super) struct Running(Child);

/// Modules of Rspamd that ask the network.
const NETWORKED: [&str; 10] =
    ["rbl", "spf", "dkim", "arc", "dmarc", "asn", "mx_check", "fuzzy_check", "phishing", "url_redirector"];

impl Peer {
    /// Starts a filter that has learned nothing.
    ///
    /// # Errors
    /// The program is not installed, or does not start.
    pub(super) fn start(name: Name) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        match name {
            Name::Bogofilter => Ok(Peer::Bogofilter { folder, has_learned: false }),
            Name::Spamassassin => Peer::start_spamd(folder),
            Name::Rspamd => Peer::start_rspamd(folder),
        }
    }

    fn start_rspamd(folder: TempDir) -> anyhow::Result<Self> {
        let [scans, learns, stores] = [free_port()?, free_port()?, free_port()?];
        let path = folder.path();
        let local = path.join("local.d");
        std::fs::create_dir(&local)?;
        let write = |name: &str, text: String| std::fs::write(local.join(name), text);
        write("worker-normal.inc", format!("bind_socket = \"127.0.0.1:{scans}\";\ncount = 1;\n"))?;
        let controller = format!("bind_socket = \"127.0.0.1:{learns}\";\nsecure_ip = \"127.0.0.1\";\n");
        write("worker-controller.inc", controller)?;
        for worker in ["proxy", "fuzzy"] {
            write(&format!("worker-{worker}.inc"), "enabled = false;\n".to_owned())?;
        }
        for module in NETWORKED {
            write(&format!("{module}.conf"), "enabled = false;\n".to_owned())?;
        }
        let dns =
            "dns { nameserver = [\"127.0.0.1:1\"]; timeout = 0.05s; retransmits = 1; }\npidfile = false;\n";
        write("options.inc", dns.to_owned())?;
        let log = path.join("log");
        let logging = format!("type = \"file\";\nfilename = \"{}\";\nlevel = \"error\";\n", log.display());
        write("logging.inc", logging)?;
        write("redis.conf", format!("servers = \"127.0.0.1:{stores}\";\n"))?;
        write("classifier-bayes.conf", "backend = \"redis\";\nautolearn = false;\n".to_owned())?;
        let mut redis = Command::new("redis-server");
        redis
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &stores.to_string()])
            .arg("--dir")
            .arg(path);
        let redis = Running::start(redis, "redis-server", stores)?;
        let mut rspamd = Command::new("rspamd");
        rspamd.args(["-f", "-i", "-c", "/etc/rspamd/rspamd.conf"]);
        for name in ["LOCAL_CONFDIR", "DBDIR", "RUNDIR"] {
            rspamd.arg("--var").arg(format!("{name}={}", path.display()));
        }
        let rspamd = Running::start(rspamd, "rspamd", learns)?;
        Ok(Peer::Rspamd { _rspamd: rspamd, _redis: redis, ports: [scans, learns], _folder: folder })
    }

    fn start_spamd(folder: TempDir) -> anyhow::Result<Self> {
        let port = free_port()?;
        let path = folder.path().display();
        let mut spamd = Command::new("spamd");
        spamd
            .args(["--local", "--nouser-config", "--allow-tell", "--max-children=1", "--syslog=null"])
            .args(["--listen=127.0.0.1", "--allowed-ips=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--helper-home-dir={path}"))
            .arg(format!("--cf=bayes_path {path}/bayes"))
            .args(["--cf=use_bayes 1", "--cf=bayes_auto_learn 0", "--cf=bayes_learn_to_journal 0"])
            .env("HOME", folder.path());
        let spamd = Running::start(spamd, "spamd", port)?;
        Ok(Peer::Spamassassin { _spamd: spamd, port, _folder: folder })
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
            Peer::Rspamd { ports: [port, _], .. } => {
                let said: serde_json::Value = serde_json::from_str(&rspamd(*port, "checkv2", raw)?)?;
                let score = said.get("score").and_then(serde_json::Value::as_f64);
                let action = said.get("action").and_then(serde_json::Value::as_str);
                let (score, action) = score.zip(action).context("rspamd gave no score")?;
                let passes = ["no action", "greylist"].contains(&action);
                Ok(Said { score, is_spam: !passes })
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
            Peer::Rspamd { ports: [_, port], .. } => {
                rspamd(*port, if label == Label::Spam { "learnspam" } else { "learnham" }, raw)?;
            }
        }
        Ok(())
    }
}

impl Running {
    /// Starts a program, and waits until it listens.
    fn start(mut command: Command, name: &str, port: u16) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut running = Running(
            child.with_context(|| format!("starting {name}: is Debian's package of that name installed?"))?,
        );
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = running.0.try_wait()? {
                bail!("{name} ended at once: {status}");
            }
            if Instant::now() > deadline {
                bail!("{name} did not begin to listen");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends its own children when it is asked to.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            self.0.kill().ok();
        }
        self.0.wait().ok();
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Asks Rspamd over HTTP. That it knows a message already is no error.
fn rspamd(port: u16, path: &str, raw: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "POST /{path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", raw.len())?;
    stream.write_all(raw)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("rspamd gave no answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !["200", "204", "208", "404"].contains(&status) {
        bail!("rspamd: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
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
