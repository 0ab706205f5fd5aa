//! A next hop that takes mail for example.net and example.org and writes down what it hears.
//!
//! It is as strict as a server on the Internet is told to be: it relays for nobody, takes no address that
//! routes by itself (`%`, `!`, `@` in the local part), and has no mailbox that looks like a path or a pipe.
//! Where it is told to, it takes BDAT, BINARYMIME (RFC 3030) and DSN (RFC 3461).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The domains whose mail it takes.
const OURS: [&str; 2] = ["example.net", "example.org"];
/// The largest chunk that it takes.
const MAX_CHUNK_BYTES: u64 = 100_000_000;

/// What it offers beside SIZE, 8BITMIME and SMTPUTF8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extensions {
    None,
    /// CHUNKING, BINARYMIME and DSN.
    Chunking,
}

/// A message that it acknowledged; a character for a byte.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    /// Its MAIL command.
    pub(super) mail: String,
    /// The RCPT commands that were accepted.
    pub(super) rcpts: Vec<String>,
    /// Header and body, dots taken off.
    pub(super) content: String,
}

/// What it heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// Command lines without their CR LF, a character for a byte.
    pub(super) commands: Vec<String>,
    /// The messages that it acknowledged.
    pub(super) messages: Vec<Message>,
    /// Lines that did not end with CR LF, or had a CR or LF besides.
    pub(super) offences: Vec<String>,
}

struct Shared {
    record: Mutex<Record>,
    is_trusting: AtomicBool,
    extensions: Extensions,
}

/// The running next hop.
pub(super) struct RecordingHop {
    /// Where it listens.
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

impl RecordingHop {
    pub(super) fn start(extensions: Extensions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { record: Mutex::default(), is_trusting: AtomicBool::default(), extensions });
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
    // The open transaction; its content grows by BDAT.
    let mut open = Message::default();
    loop {
        let line = text(&read_line(&mut reader, shared)?);
        let command = line.trim_end_matches(['\r', '\n']).to_owned();
        shared.record.lock().unwrap().commands.push(command.clone());
        let has_chunks = shared.extensions == Extensions::Chunking;
        let reply: &[u8] = match command.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" if has_chunks => {
                b"250-hop.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-DSN\r\n\
                  250 SIZE 100000000\r\n"
            }
            "EHLO" => b"250-hop.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000\r\n",
            "RCPT" => {
                let is_trusting = shared.is_trusting.load(Ordering::SeqCst);
                let reply = if is_trusting { &b"250 2.1.5 ok\r\n"[..] } else { answer_rcpt(&command) };
                if reply.starts_with(b"2") {
                    open.rcpts.push(command);
                }
                reply
            }
            "MAIL" => {
                open = Message { mail: command, ..Message::default() };
                b"250 2.1.0 ok\r\n"
            }
            "QUIT" => {
                writer.write_all(b"221 2.0.0 bye\r\n").ok()?;
                return None;
            }
            "DATA" if open.rcpts.is_empty() => b"503 5.5.1 no recipients\r\n",
            "DATA" => {
                writer.write_all(b"354 go\r\n").ok()?;
                open.content = text(&read_message(&mut reader, shared)?);
                shared.record.lock().unwrap().messages.push(std::mem::take(&mut open));
                b"250 2.0.0 queued\r\n"
            }
            "BDAT" if has_chunks => {
                let (chunk, is_last) = read_chunk(&command, &mut reader)?;
                open.content.push_str(&text(&chunk));
                if open.rcpts.is_empty() {
                    b"503 5.5.1 no recipients\r\n"
                } else if is_last {
                    note_offences(&open, shared);
                    shared.record.lock().unwrap().messages.push(std::mem::take(&mut open));
                    b"250 2.0.0 queued\r\n"
                } else {
                    b"250 2.0.0 go on\r\n"
                }
            }
            "RSET" => {
                open = Message::default();
                b"250 2.0.0 ok\r\n"
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

/// Reads the bytes of a BDAT command, and whether they are the last.
fn read_chunk(command: &str, reader: &mut impl BufRead) -> Option<(Vec<u8>, bool)> {
    let mut words = command.split(' ').skip(1);
    let len: u64 = words.next()?.parse().ok().filter(|len| *len <= MAX_CHUNK_BYTES)?;
    let is_last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
    let mut chunk = Vec::new();
    let read = reader.take(len).read_to_end(&mut chunk).ok()?;
    (u64::try_from(read).ok()? == len).then_some((chunk, is_last))
}

/// Only a message that was declared as binary may have a CR or LF that stands alone.
fn note_offences(message: &Message, shared: &Shared) {
    if message.mail.to_ascii_uppercase().contains("BODY=BINARYMIME") {
        return;
    }
    if message.content.replace("\r\n", "").contains(['\r', '\n']) {
        shared.record.lock().unwrap().offences.push(format!("in a chunk: {:?}", message.content));
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
