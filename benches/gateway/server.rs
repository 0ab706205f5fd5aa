//! Those who take mail: Postfix's sink, the gateway, a stock Postfix that relays. Each in a folder of its own,
//! on free ports, stopped by its process id.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long one of them may take to start, or to deliver what it has.
const PATIENCE: Duration = Duration::from_secs(120);
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{address} does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) struct Sink {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let address = free_address();
        // Started as root, it wants to know whom to become.
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        let child = Command::new("smtp-sink")
            .args(is_root.then_some(["-u", "nobody"]).into_iter().flatten())
            .args(["-4", &address.to_string(), "1000"])
            .env("PATH", PATH)
            .stdout(Stdio::null())
            .spawn()
            .expect("smtp-sink, of Debian's package postfix");
        wait_for(address);
        Sink { child, address }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Gateway {
    /// Starts it; with scanning off, every client is exempt from it.
    pub(crate) fn start(folder: &Path, sink: SocketAddr, is_scanning: bool) -> Self {
        let program = env!("CARGO_BIN_EXE_lazaret");
        std::fs::create_dir(folder).unwrap();
        let switch = if is_scanning { "" } else { "scan.exempt_networks = [\"127.0.0.0/8\"]\n" };
        let address = free_address();
        let config = folder.join("lazaret.toml");
        // What passes is measured, so everything passes, and waits for its turn.
        std::fs::write(
            &config,
            format!(
                "data_dir = \"{}/data\"\nlog = \"warn\"\ninbound.listen = \"{address}\"\noutbound.listen = \"127.0.0.1:0\"\n\
                 web.listen = \"127.0.0.1:0\"\ninbound.next_hop = \"smtp://{sink}\"\ninbound.tag = 900\n\
                 inbound.quarantine = 900\ninbound.reject = 900\nscan.timeout = \"1m\"\n{switch}",
                folder.display()
            ),
        )
        .unwrap();
        let child = Command::new(program)
            .args(["--config", config.to_str().unwrap(), "serve"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(address);
        Gateway { child, address }
    }

    /// Reads a line such as `VmRSS:` of its process's status, in MiB.
    pub(crate) fn memory_mib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A private Postfix as Debian sets it up, which relays everything to the sink.
pub(crate) struct Postfix {
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
}

impl Postfix {
    pub(crate) fn start(sink: SocketAddr) -> Self {
        let folder = tempfile::Builder::new().prefix("lazaret-bench-postfix-").tempdir().unwrap();
        let (base, address) = (folder.path(), free_address());
        for name in ["etc", "queue", "data"] {
            std::fs::create_dir(base.join(name)).unwrap();
        }
        run("chmod", &["755", base.to_str().unwrap()]);
        let text = base.to_str().unwrap();
        // Its own limits, but for the size of a message.
        std::fs::write(
            base.join("etc/main.cf"),
            format!(
                "compatibility_level = 3.6\nqueue_directory = {text}/queue\ndata_directory = {text}/data\n\
                 maillog_file = {text}/log\nmaillog_file_prefixes = {text}\nmyhostname = relay.example.org\n\
                 mydestination =\nmynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
                 message_size_limit = 60000000\nrelayhost = [127.0.0.1]:{}\n\
                 smtpd_recipient_restrictions = permit_mynetworks, reject\n",
                sink.port()
            ),
        )
        .unwrap();
        std::fs::write(
            base.join("etc/master.cf"),
            format!(
                "127.0.0.1:{} inet n - n - - smtpd\n\
                 pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
                 rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
                 trace unix - - n - 0 bounce\nverify unix - - n - 1 verify\nflush unix n - n 1000? 0 flush\n\
                 proxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\nsmtp unix - - n - - smtp\n\
                 relay unix - - n - - smtp\nerror unix - - n - - error\nretry unix - - n - - error\n\
                 anvil unix - - n - 1 anvil\nscache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n",
                address.port()
            ),
        )
        .unwrap();
        run("chown", &["-R", "postfix", &format!("{text}/data"), &format!("{text}/queue")]);
        run("chown", &["root", &format!("{text}/queue")]);
        let postfix = Postfix { folder, address };
        postfix.control("start");
        wait_for(address);
        postfix
    }

    fn control(&self, verb: &str) {
        let status = Command::new("postfix")
            .arg("-c")
            .arg(self.folder.path().join("etc"))
            .arg(verb)
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("postfix, of Debian's package postfix");
        assert!(status.success(), "postfix {verb} failed: it needs root");
    }

    /// Waits until its queue is empty.
    pub(crate) fn wait_until_delivered(&self) {
        let deadline = Instant::now() + PATIENCE;
        let queue = self.folder.path().join("queue");
        let is_empty = |name: &str| {
            let entries = std::fs::read_dir(queue.join(name)).map_or(0, Iterator::count);
            entries == 0
        };
        // A message moves down this list, so what left one is seen in the next.
        while !["incoming", "active", "incoming", "active"].iter().all(|name| is_empty(name)) {
            assert!(Instant::now() < deadline, "Postfix keeps mail in its queue");
            std::thread::sleep(Duration::from_millis(2));
        }
        let deferred = queue.join("deferred");
        let stuck = std::fs::read_dir(deferred).map_or(0, |entries| {
            entries
                .filter_map(Result::ok)
                .filter_map(|entry| std::fs::read_dir(entry.path()).ok())
                .flatten()
                .count()
        });
        assert_eq!(stuck, 0, "Postfix has deferred mail: its figures would mean nothing");
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.control("stop");
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} failed: the bench needs root");
}
