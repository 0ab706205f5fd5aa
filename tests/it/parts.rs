//! Real parts, started privately: the gateway's own binary, Postfix, a recording next hop. Each in a
//! temporary folder, on free loopback ports, stopped by its process id.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How long a part may take for what it does at once on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the long campaigns are wanted: `tests/run --nightly`.
pub(crate) fn is_nightly() -> bool {
    std::env::var("LAZARET_NIGHTLY").as_deref() == Ok("1")
}

/// Waits until `ready` says something.
pub(crate) fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Finds a port that is free now. It is below those that the system gives out, so that no socket of another
/// test has it while its owner is down.
pub(crate) fn free_port() -> u16 {
    loop {
        let mut random = [0u8; 2];
        getrandom::fill(&mut random).unwrap();
        let port = 10_000 + u16::from_be_bytes(random) % 22_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The gateway's binary, with a command line.
pub(crate) fn lazaret(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lazaret"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LAZARET_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command of the gateway to its end.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Output {
    lazaret(folder, arguments).output().unwrap()
}

/// What a command printed, both streams, for a message.
pub(crate) fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A running `lazaret serve`.
pub(crate) struct Gateway {
    child: Child,
    /// The inbound listener.
    pub(crate) inbound: SocketAddr,
    /// The outbound listener.
    pub(crate) outbound: SocketAddr,
    /// The review pages.
    pub(crate) web: SocketAddr,
    /// The one-time link for the administrator, where one was printed.
    pub(crate) link: Option<String>,
    log: Arc<Mutex<String>>,
}

impl Gateway {
    /// Writes a configuration on free ports with the given keys and starts the gateway in `folder`.
    pub(crate) fn start(folder: &Path, keys: &str) -> Self {
        Self::try_start(folder, keys).unwrap_or_else(|log| panic!("the gateway did not start:\n{log}"))
    }

    /// The same, giving what it printed when it does not start.
    pub(crate) fn try_start(folder: &Path, keys: &str) -> Result<Self, String> {
        Self::try_start_as(folder, keys, |command| command)
    }

    /// The same, by another command line: `alter` gets the gateway's own.
    pub(crate) fn try_start_as(
        folder: &Path,
        keys: &str,
        alter: impl FnOnce(Command) -> Command,
    ) -> Result<Self, String> {
        let config = folder.join("lazaret.toml");
        std::fs::write(&config, configuration(folder, keys)).unwrap();
        let mut child = alter(lazaret(folder, &["--config", config.to_str().unwrap(), "serve"]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        let collected = Arc::clone(&log);
        let collector = std::thread::spawn(move || collect(stderr, &collected));
        // Its first lines on standard output say where it listens; "ready" ends them.
        let (sender, receiver) = mpsc::sync_channel(64);
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut facts: BTreeMap<String, String> = BTreeMap::new();
        loop {
            match receiver.recv_timeout(PATIENCE) {
                Ok(line) if line == "ready" => break,
                Ok(line) => {
                    if let Some((name, value)) = line.split_once(": ") {
                        facts.insert(name.to_owned(), value.to_owned());
                    }
                }
                Err(_) => {
                    child.kill().ok();
                    child.wait().ok();
                    // What it said last counts most.
                    collector.join().ok();
                    return Err(log.lock().unwrap().clone());
                }
            }
        }
        let address = |name: &str| facts[name].parse().unwrap();
        Ok(Gateway {
            inbound: address("inbound"),
            outbound: address("outbound"),
            web: address("web"),
            link: facts.get("administrator").cloned(),
            child,
            log,
        })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has logged a text so many times: its log reaches us by a thread of its own.
    pub(crate) fn logged(&self, text: &str, times: usize) {
        eventually(text, || (self.log().matches(text).count() >= times).then_some(()));
    }

    /// Kills it as a power cut would: SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> std::process::ExitStatus {
        terminate(self.child.id());
        eventually("the gateway to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn terminate(pid: u32) {
    Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
}

/// A configuration on free ports; `keys` are dotted TOML lines that come first.
fn configuration(folder: &Path, keys: &str) -> String {
    let mut text = String::from(keys);
    for (key, value) in [
        ("data_dir", folder.join("data").to_str().unwrap()),
        ("inbound.listen", "127.0.0.1:0"),
        ("outbound.listen", "127.0.0.1:0"),
        ("web.listen", "127.0.0.1:0"),
    ] {
        if !keys.contains(&format!("{key} =")) {
            text.push_str(&format!("\n{key} = \"{value}\""));
        }
    }
    text.push('\n');
    text
}

fn collect(mut from: impl Read, into: &Mutex<String>) {
    let mut buffer = [0u8; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

/// A connection with TLS over it.
pub(crate) type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// A client that speaks SMTP by hand.
pub(crate) struct Client<S = TcpStream> {
    stream: BufReader<S>,
}

impl Client {
    /// Connects, reads the greeting and says EHLO.
    pub(crate) fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Client { stream: BufReader::new(stream) };
        client.reply()?;
        client.command("EHLO client.example")?;
        Ok(client)
    }

    /// Begins TLS with STARTTLS, for a name, and says EHLO again; gives the reply to that as well.
    pub(crate) fn encrypt(
        mut self,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> std::io::Result<(Client<Encrypted>, String)> {
        let reply = self.command("STARTTLS")?;
        assert!(reply.starts_with("220"), "{reply}");
        let name = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
        let tls = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
        let stream = StreamOwned::new(tls, self.stream.into_inner());
        let mut client = Client { stream: BufReader::new(stream) };
        let reply = client.command("EHLO client.example")?;
        Ok((client, reply))
    }
}

impl<S: Read + Write> Client<S> {
    /// Sends a line and returns the reply.
    pub(crate) fn command(&mut self, line: &str) -> std::io::Result<String> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Reads one reply, all of its lines.
    pub(crate) fn reply(&mut self) -> std::io::Result<String> {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            if self.stream.read_line(&mut reply)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if reply.as_bytes().get(start + 3) != Some(&b'-') {
                return Ok(reply.trim_end().to_owned());
            }
        }
    }

    /// Runs one transaction; the last reply is the answer to it.
    pub(crate) fn send(&mut self, from: &str, to: &[&str], message: &str) -> std::io::Result<String> {
        let mut lines = String::new();
        for line in message.lines() {
            lines.push_str(line);
            lines.push_str("\r\n");
        }
        self.send_bytes(&format!("MAIL FROM:<{from}>"), to, lines.as_bytes())
    }

    /// Runs one transaction, beginning with this MAIL command. Lines must end with CR LF, the last one too.
    pub(crate) fn send_bytes(&mut self, mail: &str, to: &[&str], message: &[u8]) -> std::io::Result<String> {
        let reply = self.command(mail)?;
        if !reply.starts_with('2') {
            return Ok(reply);
        }
        for recipient in to {
            let reply = self.command(&format!("RCPT TO:<{recipient}>"))?;
            if !reply.starts_with('2') {
                self.command("RSET")?;
                return Ok(reply);
            }
        }
        let reply = self.command("DATA")?;
        if !reply.starts_with('3') {
            return Ok(reply);
        }
        let mut wire = Vec::with_capacity(message.len() + 64);
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        wire.extend_from_slice(b".\r\n");
        self.stream.get_mut().write_all(&wire)?;
        self.reply()
    }
}

/// The files of a Maildir, as text.
pub(crate) fn maildir(folder: &Path) -> Vec<String> {
    let mut messages = Vec::new();
    for sub in ["new", "cur"] {
        let Ok(entries) = std::fs::read_dir(folder.join(sub)) else { continue };
        for entry in entries {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            messages.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    messages
}

/// A private Postfix: a public smtpd that hands mail to a proxy, and a second one that takes it back and
/// delivers it into Maildirs of example.org.
pub(crate) struct Postfix {
    folder: tempfile::TempDir,
    /// The smtpd in front of the gateway.
    pub(crate) front: SocketAddr,
    /// The smtpd behind it.
    pub(crate) behind: SocketAddr,
}

impl Postfix {
    /// Starts Postfix with the gateway's inbound address as `smtpd_proxy_filter`.
    pub(crate) fn start(behind_port: u16, gateway: SocketAddr) -> Self {
        let proxy = format!("-o smtpd_proxy_filter={gateway}\n  -o smtpd_proxy_options=speed_adjust");
        Self::start_with(behind_port, &proxy)
    }

    /// The same with a milter in front, written as Postfix has it, such as `inet:127.0.0.1:8891`.
    pub(crate) fn start_with_milter(behind_port: u16, milter: &str) -> Self {
        Self::start_with(behind_port, &format!("-o smtpd_milters={milter}"))
    }

    /// The same, with these options of the smtpd in front.
    fn start_with(behind_port: u16, options: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("lazaret-postfix-").tempdir().unwrap();
        let front_port = free_port();
        let base = folder.path();
        for name in ["etc", "queue", "data", "mail"] {
            std::fs::create_dir(base.join(name)).unwrap();
        }
        // Postfix's own processes give up root and must still reach their folders.
        set_mode(base, 0o755);
        let base_text = base.to_str().unwrap();
        std::fs::write(
            base.join("etc/main.cf"),
            format!(
                "compatibility_level = 3.6\n\
                 queue_directory = {base_text}/queue\ndata_directory = {base_text}/data\n\
                 maillog_file = {base_text}/log\nmaillog_file_prefixes = {base_text}\n\
                 myhostname = mx.example.org\nmydestination =\nmynetworks = 127.0.0.0/8\n\
                 inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
                 smtputf8_enable = yes\nmessage_size_limit = 60000000\nmailbox_size_limit = 0\nvirtual_mailbox_limit = 0\n\
                 virtual_mailbox_domains = example.org\nvirtual_mailbox_base = {base_text}/mail\n\
                 virtual_mailbox_maps = texthash:{base_text}/etc/mailboxes\n\
                 virtual_alias_maps = texthash:{base_text}/etc/aliases\n\
                 virtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n\
                 default_transport = error:no mail leaves this test\nrelay_transport = error:no mail leaves this test\n\
                 smtpd_recipient_restrictions = reject_unlisted_recipient, permit_mynetworks, reject\n\
                 smtpd_client_connection_count_limit = 0\n"
            ),
        )
        .unwrap();
        std::fs::write(
            base.join("etc/mailboxes"),
            "alice@example.org alice/\nbob@example.org bob/\npostmaster@example.org postmaster/\n",
        )
        .unwrap();
        std::fs::write(base.join("etc/aliases"), "sales@example.org bob@example.org\n").unwrap();
        std::fs::write(
            base.join("etc/master.cf"),
            format!(
                "127.0.0.1:{front_port} inet n - n - - smtpd\n  {options}\n\
                 127.0.0.1:{behind_port} inet n - n - - smtpd\n  -o smtpd_authorized_xforward_hosts=127.0.0.0/8\n  -o smtpd_client_restrictions=\n\
                 pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
                 rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
                 trace unix - - n - 0 bounce\nverify unix - - n - 1 verify\nflush unix n - n 1000? 0 flush\n\
                 proxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\nerror unix - - n - - error\n\
                 retry unix - - n - - error\nvirtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\n\
                 scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\nsmtp unix - - n - - smtp\n"
            ),
        )
        .unwrap();
        for name in ["data", "queue"] {
            chown(&base.join(name), "postfix");
        }
        chown(&base.join("queue"), "root");
        chown(&base.join("mail"), "nobody");
        let postfix = Postfix {
            front: SocketAddr::from(([127, 0, 0, 1], front_port)),
            behind: SocketAddr::from(([127, 0, 0, 1], behind_port)),
            folder,
        };
        let output = postfix.control("start");
        assert!(output.status.success(), "Postfix does not start (it needs root): {}", printed(&output));
        eventually("Postfix to listen", || {
            TcpStream::connect(postfix.front).and_then(|_| TcpStream::connect(postfix.behind)).ok()
        });
        postfix
    }

    fn control(&self, verb: &str) -> Output {
        Command::new("postfix")
            .arg("-c")
            .arg(self.folder.path().join("etc"))
            .arg(verb)
            .stdin(Stdio::null())
            .output()
            .expect("postfix is installed by tests/run")
    }

    /// The messages delivered to a user of example.org.
    pub(crate) fn mailbox(&self, user: &str) -> Vec<String> {
        maildir(&self.folder.path().join("mail").join(user))
    }

    /// What Postfix logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.control("stop");
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn chown(path: &Path, user: &str) {
    let status = Command::new("chown").arg("-R").arg(user).arg(path).status().unwrap();
    assert!(status.success(), "the Postfix tests give folders to the user {user}: run them as root");
}

/// Runs swaks against an address; gives its exit status and its transcript.
pub(crate) fn swaks(server: SocketAddr, arguments: &[&str]) -> Output {
    Command::new("swaks")
        .args(["--server", &server.ip().to_string(), "--port", &server.port().to_string()])
        .args(["--helo", "client.example", "--timeout", "60"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("swaks is installed by tests/run")
}

/// A next hop that records what it takes, in this process.
pub(crate) struct Hop {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Hop {
    /// Starts a well-behaved next hop that accepts everything.
    pub(crate) fn start() -> Self {
        Self::answering("250 2.0.0 queued\r\n")
    }

    /// Starts a next hop that answers every end of data like this; it takes what it answers with a 2xx.
    /// An empty answer closes the connection instead.
    pub(crate) fn answering(end_of_data: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Where thousands of sockets and threads are in use, one more may have to wait.
                let Ok(stream) = stream else {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                let taken = Arc::clone(&shared);
                let serving = std::thread::Builder::new().spawn(move || serve(stream, end_of_data, &taken));
                drop(serving);
            }
        });
        Hop { address, taken }
    }

    /// The messages it has acknowledged, as text.
    pub(crate) fn taken(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        taken.iter().map(|message| String::from_utf8_lossy(message).into_owned()).collect()
    }

    /// The same, byte by byte as they came, and forgets them.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.taken.lock().unwrap())
    }
}

/// Answers one connection; any error ends it.
fn serve(stream: TcpStream, end_of_data: &str, taken: &Mutex<Vec<Vec<u8>>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    writer.write_all(b"220 hop.example ESMTP\r\n").ok()?;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply: &[u8] = match verb.as_str() {
            "EHLO" => b"250-hop.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000\r\n",
            "QUIT" => {
                writer.write_all(b"221 bye\r\n").ok()?;
                return None;
            }
            "DATA" => {
                writer.write_all(b"354 go\r\n").ok()?;
                let mut message = Vec::new();
                loop {
                    let start = message.len();
                    if reader.read_until(b'\n', &mut message).ok()? == 0 {
                        return None;
                    }
                    if &message[start..] == b".\r\n" {
                        message.truncate(start);
                        break;
                    }
                    if message[start] == b'.' {
                        message.remove(start);
                    }
                }
                if end_of_data.starts_with('2') {
                    // What is recorded before the reply leaves is what the hop holds.
                    taken.lock().unwrap().push(message);
                }
                if end_of_data.is_empty() {
                    return None;
                }
                end_of_data.as_bytes()
            }
            _ => b"250 2.0.0 ok\r\n",
        };
        writer.write_all(reply).ok()?;
    }
}

/// A folder for one test.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("lazaret-test-").tempdir().unwrap()
}

/// A message with a marker that a test can find again.
pub(crate) fn message(subject: &str, text: &str) -> String {
    format!(
        "From: Ann Sender <ann@sender.example>\nTo: Alice <alice@example.org>\nSubject: {subject}\n\
         Date: Mon, 02 Nov 2026 10:00:00 +0000\nMessage-ID: <{}@sender.example>\n\
         MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{text}\n",
        subject.replace(' ', ".")
    )
}

/// The project's folder.
pub(crate) fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Finds a file of third-party test data. Where there is none, `tests/run` names the tests that did not run.
pub(crate) fn needs_test_data(file: &str) -> Option<PathBuf> {
    let folder =
        std::env::var_os("LAZARET_TEST_DATA").map_or_else(|| project().join("../shared/data"), PathBuf::from);
    Some(folder.join(file)).filter(|path| path.exists())
}

/// Every file below a folder, in order.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}
