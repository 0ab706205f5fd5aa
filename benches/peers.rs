//! Lazaret beside the filters that it stands in for, over the same messages, in one run on one machine.
//!
//! `LAZARET_BENCH_FOLDER=DIR cargo bench --bench peers [stock|own]`. Needs Debian's `spamassassin`, `spamd` and `rspamd`.
//! Part one: SpamAssassin's stock rules, here and in `spamd -L`, with as many workers as there are cores.
//! Part two: our own rules and filter against Rspamd's stock configuration without its network modules,
//! through the same eight connections of `/checkv2`. Everything runs on loopback, in a temporary folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot set itself up fails"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lazaret::mail::{Client, Direction, Envelope, Mail, TransactionId};
use lazaret::message;
use lazaret::rules::{RuleSet, Source, Subject};

const CONNECTIONS: usize = 8;
const TIME: Duration = Duration::from_secs(10);
const STOCK: &str = "/usr/share/spamassassin";

/// A program that is stopped when it goes out of scope.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        Command::new("kill").arg(self.0.id().to_string()).status().ok();
        self.0.wait().ok();
    }
}

fn main() {
    let folder = std::env::var_os("LAZARET_BENCH_FOLDER")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"), PathBuf::from);
    let mut messages = Vec::new();
    read(&folder, &mut messages);
    let bytes: usize = messages.iter().map(Vec::len).sum();
    println!("{} messages, {} bytes on average", messages.len(), bytes / messages.len().max(1));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    // `cargo bench` adds arguments of its own.
    let only: Vec<String> = std::env::args().filter(|word| word == "stock" || word == "own").collect();
    if only.is_empty() || only.contains(&"stock".to_owned()) {
        stock_rules(&messages, workers);
    }
    if only.is_empty() || only.contains(&"own".to_owned()) {
        own_rules(&messages);
    }
}

fn read(folder: &Path, messages: &mut Vec<Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, messages);
        } else if path.extension().is_some_and(|ending| ending == "eml") {
            messages.push(std::fs::read(&path).unwrap());
        }
    }
}

/// Runs `work` on every message in turn, on so many threads, for a time. Returns messages a second and the
/// median and 99th percentile of one.
fn load<'w>(
    threads: usize,
    messages: &[Vec<u8>],
    work: impl Fn(usize) -> Box<dyn FnMut(&[u8]) + Send + 'w> + Sync,
) -> (f64, f64, f64) {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (next, work) = (&next, &work);
                scope.spawn(move || {
                    let mut work = work(thread);
                    let mut times = Vec::new();
                    while started.elapsed() < TIME {
                        let message = &messages[next.fetch_add(1, Ordering::Relaxed) % messages.len()];
                        let began = Instant::now();
                        work(message);
                        times.push(began.elapsed().as_secs_f64() * 1e3);
                    }
                    times
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let elapsed = started.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    (times.len() as f64 / elapsed, times[times.len() / 2], times[times.len() * 99 / 100])
}

fn print(name: &str, (rate, median, p99): (f64, f64, f64)) {
    println!("{name:<44} {rate:>9.1} messages/s   median {median:>8.3} ms   p99 {p99:>8.3} ms");
}

fn stock_rules(messages: &[Vec<u8>], workers: usize) {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(STOCK).expect("install spamassassin").map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "cf"));
    paths.sort();
    let sources: Vec<Source> = paths
        .iter()
        .map(|path| Source::new(path.display().to_string(), &std::fs::read(path).unwrap()))
        .collect();
    let (set, _) = RuleSet::compile(&sources);
    let envelope = Envelope {
        id: TransactionId::from_random([0; TransactionId::LEN]),
        direction: Direction::Inbound,
        client: Client::new(SocketAddr::from(([127, 0, 0, 1], 0))),
        mail: Mail::default(),
        recipients: Vec::new(),
    };
    let (set, envelope) = (&set, &envelope);
    let ours = load(workers, messages, |_| {
        Box::new(move |raw| {
            let parsed = message::parse(raw);
            std::hint::black_box(set.evaluate(&Subject::new(&parsed, raw, envelope)));
        })
    });
    print("stock rules, Lazaret", ours);
    let port = free_port();
    let spamd = Command::new("spamd")
        .args([
            "-L",
            "-x",
            "-A",
            "127.0.0.1",
            "-i",
            "127.0.0.1",
            "--cf=use_bayes 0",
            "-p",
            &port.to_string(),
            "-m",
            &workers.to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("install spamd");
    let _spamd = Running(spamd);
    wait_for(port);
    let theirs = load(workers, messages, |_| {
        Box::new(move |raw| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            write!(stream, "CHECK SPAMC/1.5\r\nContent-length: {}\r\n\r\n", raw.len()).unwrap();
            stream.write_all(raw).unwrap();
            // As `spamc` does: spamd waits for the end of the last line.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("EX_OK"), "{answer}");
        })
    });
    print("stock rules, spamd -L", theirs);
    println!("Lazaret : spamd = {:.0}\n", ours.0 / theirs.0);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16) {
    let until = Instant::now() + Duration::from_secs(90);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sends messages over one kept connection each.
fn checkv2(port: u16, messages: &[Vec<u8>]) -> (f64, f64, f64) {
    load(CONNECTIONS, messages, |_| {
        let connect = move || {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_nodelay(true).unwrap();
            BufReader::new(stream)
        };
        let mut stream = connect();
        Box::new(move |raw| {
            let head = format!(
                "POST /checkv2 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nIP: 192.0.2.1\r\nFrom: a@example.org\r\nRcpt: b@example.net\r\n\r\n",
                raw.len()
            );
            stream.get_mut().write_all(&[head.as_bytes(), raw].concat()).unwrap();
            let (mut length, mut closes) = (0, false);
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let line = line.trim_end().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                closes |= line == "connection: close";
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            assert!(body.starts_with(b"{"));
            if closes {
                stream = connect();
            }
        })
    })
}

/// Answers every question with "no such name", so that nobody waits for a network that is not there.
fn no_names() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut question = [0; 1_500];
        while let Ok((length, peer)) = socket.recv_from(&mut question) {
            if length >= 12 {
                question[2] |= 0x80;
                question[3] = 0x83;
                socket.send_to(&question[..length], peer).ok();
            }
        }
    });
    port
}

/// Returns the resident memory of processes in MiB: of each what it has alone, and what it shares once.
fn memory(parent: u32) -> f64 {
    let children = Command::new("pgrep").args(["-P", &parent.to_string()]).output().unwrap();
    let ids = String::from_utf8_lossy(&children.stdout).lines().map(str::to_owned).collect::<Vec<_>>();
    let pss = |id: &str| {
        let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default().to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0)
    };
    ids.iter().map(|id| pss(id)).sum::<f64>() / 1024.0 + pss(&parent.to_string()) / 1024.0
}

fn own_rules(messages: &[Vec<u8>]) {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!(
        "data_dir = \"{0}/data\"\n[inbound]\nlisten = \"127.0.0.1:0\"\n[outbound]\nlisten = \"127.0.0.1:0\"\n[web]\nlisten = \"127.0.0.1:0\"\n[door]\nrspamd = \"127.0.0.1:{port}\"\n",
        folder.path().display()
    );
    std::fs::write(folder.path().join("lazaret.toml"), config).unwrap();
    let program = env!("CARGO_BIN_EXE_lazaret");
    let file = folder.path().join("lazaret.toml");
    // Lessons, so that the filter speaks too.
    for (label, half) in [("--ham", 0), ("--spam", 1)] {
        let lessons = folder.path().join(label);
        std::fs::create_dir(&lessons).unwrap();
        for (index, raw) in messages.iter().enumerate().filter(|(index, _)| index % 2 == half) {
            std::fs::write(lessons.join(format!("{index}.eml")), raw).unwrap();
        }
        let learned = Command::new(program)
            .arg("-c")
            .arg(&file)
            .args(["learn", label])
            .arg(&lessons)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(learned.unwrap().success());
    }
    let lazaret = Command::new(program)
        .arg("-c")
        .arg(&file)
        .arg("serve")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lazaret = Running(lazaret);
    wait_for(port);
    let ours = checkv2(port, messages);
    let our_memory = memory(lazaret.0.id());
    drop(lazaret);
    print("own rules and filter, Lazaret, 8 connections", ours);

    let port = free_port();
    let local = folder.path().join("conf/local.d");
    std::fs::create_dir_all(&local).unwrap();
    for module in [
        "rbl",
        "asn",
        "fuzzy_check",
        "spf",
        "dkim",
        "dmarc",
        "arc",
        "dkim_signing",
        "greylist",
        "ratelimit",
        "replies",
        "neural",
        "history_redis",
        "url_redirector",
        "mx_check",
        "p0f",
        "reputation",
        "external_services",
        "antivirus",
    ] {
        std::fs::write(local.join(format!("{module}.conf")), "enabled = false;\n").unwrap();
    }
    for worker in ["controller", "proxy", "fuzzy"] {
        std::fs::write(local.join(format!("worker-{worker}.inc")), "enabled = false;\n").unwrap();
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::fs::write(
        local.join("worker-normal.inc"),
        format!("bind_socket = \"127.0.0.1:{port}\"; count = {workers};\n"),
    )
    .unwrap();
    std::fs::write(
        local.join("options.inc"),
        format!("dns {{ timeout = 0.1s; retransmits = 1; nameserver = [\"127.0.0.1:{}\"]; }}\n", no_names()),
    )
    .unwrap();
    std::fs::write(local.join("logging.inc"), "type = \"console\"; level = \"error\";\n").unwrap();
    Command::new("chmod").args(["-R", "a+rwX"]).arg(folder.path()).status().unwrap();
    let rspamd = Command::new("rspamd")
        .args(["-f", "-u", "_rspamd", "-g", "_rspamd", "-c", "/etc/rspamd/rspamd.conf"])
        .arg(format!("--var=LOCAL_CONFDIR={}/conf", folder.path().display()))
        .args(["DBDIR", "RUNDIR", "LOGDIR"].map(|name| format!("--var={name}={}", folder.path().display())))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("install rspamd");
    let rspamd = Running(rspamd);
    wait_for(port);
    // Its patterns are compiled beside the first messages.
    std::thread::sleep(Duration::from_secs(20));
    let theirs = checkv2(port, messages);
    let their_memory = memory(rspamd.0.id());
    print("stock configuration, rspamd, 8 connections", theirs);
    println!("Lazaret : rspamd = {:.2}; memory {our_memory:.0} and {their_memory:.0} MiB", ours.0 / theirs.0);
}
