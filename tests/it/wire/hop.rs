//! A next hop that takes mail for example.net and example.org and writes down what it hears.
//!
//! It is as strict as a server on the Internet is told to be: it relays for nobody, takes no address that
//! routes by itself (`%`, `!`, `@` in the local part), and has no mailbox that looks like a path or a pipe.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The domains whose mail it takes.
const OURS: [&str; 2] = ["example.net", "example.org"];

/// What it heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// Command lines without their CR LF, a character for a byte.
    pub(super) commands: Vec<String>,
    /// The messages that it acknowledged, dots taken off.
    pub(super) messages: Vec<Vec<u8>>,
    /// Lines that did not end with CR LF, or had a CR or LF besides.
    pub(super) offences: Vec<String>,
}

#[derive(Default)]
struct Shared {
    record: Mutex<Record>,
    is_trusting: AtomicBool,
}

/// The running next hop.
pub(super) struct RecordingHop {
    /// Where it listens.
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

impl RecordingHop {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let hop = RecordingHop { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        hop
    }

    /// Forgets everything; a trusting hop takes every recipient from now on.
    pub(super) fn restart(&self, is_trusting: bool) {
        self.shared.is_trusting.store(is_trusting, Ordering::SeqCst);
        *self.shared.record.lock().unwrap() = Record::default();
    }

    pub(super) fn record(&self) -> Record {
        self.shared.record.lock().unwrap().clone()
    }
}

/// Answers one connection; any error ends it.
fn serve(stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    writer.write_all(b"220 hop.example ESMTP\r\n").ok()?;
    loop {
        let line = text(&read_line(&mut reader, shared)?);
        let command = line.trim_end_matches(['\r', '\n']).to_owned();
        shared.record.lock().unwrap().commands.push(command.clone());
        let reply: &[u8] = match command.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => b"250-hop.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000\r\n",
            "RCPT" if shared.is_trusting.load(Ordering::SeqCst) => b"250 2.1.5 ok\r\n",
            "RCPT" => answer_rcpt(&command),
            "MAIL" => b"250 2.1.0 ok\r\n",
            "QUIT" => {
                writer.write_all(b"221 2.0.0 bye\r\n").ok()?;
                return None;
            }
            "DATA" => {
                writer.write_all(b"354 go\r\n").ok()?;
                let message = read_message(&mut reader, shared)?;
                shared.record.lock().unwrap().messages.push(message);
                b"250 2.0.0 queued\r\n"
            }
            _ => b"250 2.0.0 ok\r\n",
        };
        writer.write_all(reply).ok()?;
    }
}

fn answer_rcpt(command: &str) -> &'static [u8] {
    let path =
        command.split_once('<').and_then(|(_, rest)| rest.rsplit_once('>')).map_or("", |(path, _)| path);
    let (local, domain) = path.rsplit_once('@').unwrap_or((path, ""));
    if !OURS.contains(&domain.to_ascii_lowercase().as_str()) || local.contains(['%', '!', '@']) {
        b"550 5.7.1 relaying denied\r\n"
    } else if local.contains(['|', '/']) {
        b"550 5.1.1 no such user\r\n"
    } else {
        b"250 2.1.5 ok\r\n"
    }
}

fn read_message(reader: &mut impl BufRead, shared: &Shared) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let line = read_line(reader, shared)?;
        if line == b".\r\n" {
            return Some(message);
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

/// Reads up to an LF and notes every CR and LF that stands alone.
fn read_line(reader: &mut impl BufRead, shared: &Shared) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line).ok()? == 0 {
        return None;
    }
    let is_whole = line.strip_suffix(b"\r\n").is_some_and(|rest| !rest.contains(&b'\r'));
    if !is_whole {
        shared.record.lock().unwrap().offences.push(format!("{:?}", text(&line)));
    }
    Some(line)
}

/// A character for a byte.
pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
