//! The client's side of a case: sends what the steps say, as raw bytes, and collects the replies.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::case::{Count, OneOrMany, Quiet, Step};
use super::hop::text;
use super::is_match;
use super::line::{Line, Trust};

/// How long a reply may take.
const WITHIN: Duration = Duration::from_secs(15);
/// The silence after which `"quiet"` has heard everything.
const QUIET: Duration = Duration::from_millis(400);
/// The pause between pieces.
const PAUSE: Duration = Duration::from_millis(30);

/// One connection to the gateway.
pub(super) struct Dialogue {
    /// `None` after the client's own close.
    stream: Option<Line>,
    input: Vec<u8>,
    is_closed: bool,
    /// The time-out that the gateway is configured with, and a margin.
    timeout: Duration,
    trust: Trust,
    /// Every reply so far, `CLOSED` among them.
    pub(super) replies: Vec<String>,
    /// Ends of data that were answered 2xx.
    pub(super) acknowledged: usize,
}

impl Dialogue {
    pub(super) fn connect(address: SocketAddr, timeout: Duration, trust: Trust) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Dialogue {
            stream: Some(Line::new(stream)),
            input: Vec::new(),
            is_closed: false,
            timeout,
            trust,
            replies: Vec::new(),
            acknowledged: 0,
        })
    }

    /// Reads the greeting.
    pub(super) fn greet(&mut self) -> Result<(), String> {
        let greeting = self.next_reply(WITHIN);
        if greeting.starts_with("220") { Ok(()) } else { Err(format!("greeted with {greeting:?}")) }
    }

    /// Takes a step; `false` when the dialogue ends here.
    pub(super) fn take(&mut self, step: &Step) -> Result<bool, String> {
        if let Some(tls) = &step.tls {
            self.pump();
            if !self.input.is_empty() {
                return Err(format!("in clear, before the handshake: {:?}", text(&self.input)));
            }
            let Some(stream) = &mut self.stream else { return Ok(false) };
            match stream.shake_hands(&self.trust, tls.sni.as_deref(), Instant::now() + WITHIN) {
                Ok(()) => {}
                Err(_) if tls.fail => return Ok(false),
                Err(why) => return Err(format!("the handshake fails: {why}")),
            }
        }
        if let Some(seconds) = step.sleep {
            std::thread::sleep(Duration::from_secs_f64(seconds));
        }
        self.send_pieces(step);
        if step.shut > 0
            && let Some(stream) = &self.stream
        {
            stream.socket().shutdown(Shutdown::Write).ok();
        }
        if step.close > 0 {
            self.stream = None;
        }
        if step.reset > 0
            && let Some(stream) = self.stream.take()
        {
            // The only way of the standard library's stable part to an RST goes through here.
            tokio::net::TcpSocket::from_std_stream(stream.into_socket()).set_zero_linger().unwrap();
        }
        let replies = self.collect(step);
        let outcome = self.judge(step, &replies);
        let is_positive = replies.iter().all(|reply| reply.starts_with(['2', '3']));
        self.replies.extend(replies);
        outcome?;
        if let Some(limit) = &step.closed
            && !self.closes_within(limit.duration(self.timeout))
        {
            return Err("the connection stays open".to_owned());
        }
        Ok(is_positive || !step.gate)
    }

    /// Whether the gateway closes; replies on the way are collected.
    pub(super) fn closes_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let reply = self.next_reply(deadline.saturating_duration_since(Instant::now()));
            if reply == "TIMEOUT" {
                return false;
            }
            let is_closed = reply == "CLOSED";
            self.replies.push(reply);
            if is_closed {
                return true;
            }
        }
    }

    /// Sends RSET and returns the reply to it.
    pub(super) fn rset(&mut self) -> String {
        self.pump();
        self.input.clear();
        self.send(b"RSET\r\n", false, Instant::now() + WITHIN);
        self.next_reply(WITHIN)
    }

    fn send_pieces(&mut self, step: &Step) {
        let mut wire = Vec::new();
        for piece in step.send.iter().flat_map(|pieces| pieces.as_slice()) {
            piece.append_to(&mut wire);
        }
        let deadline = Instant::now() + step.send_s.map_or(WITHIN * 4, Duration::from_secs_f64);
        for (number, piece) in pieces(&wire, step.split.as_ref()).into_iter().enumerate() {
            if number > 0 {
                std::thread::sleep(step.pause.map_or(PAUSE, Duration::from_secs_f64));
            }
            if !self.send(piece, step.noread, deadline) {
                break;
            }
        }
    }

    /// Sends bytes, reading meanwhile unless told not to; `false` when the gateway takes no more.
    fn send(&mut self, mut wire: &[u8], noread: bool, deadline: Instant) -> bool {
        while !wire.is_empty() {
            if Instant::now() > deadline {
                return false;
            }
            let has_read = !noread && self.pump();
            let Some(stream) = &mut self.stream else { return false };
            match stream.write(wire) {
                Ok(len) => wire = &wire[len..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !has_read {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads what has come; `false` when that is nothing.
    fn pump(&mut self) -> bool {
        let mut buffer = [0u8; 65536];
        match self.stream.as_mut().map(|stream| stream.read(&mut buffer)) {
            Some(Ok(len @ 1..)) => {
                self.input.extend_from_slice(&buffer[..len]);
                true
            }
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => false,
            None | Some(Ok(_) | Err(_)) => {
                self.is_closed = true;
                false
            }
        }
    }

    /// Returns the next reply, all of its lines, or `CLOSED`, or `TIMEOUT`.
    fn next_reply(&mut self, within: Duration) -> String {
        let deadline = Instant::now() + within;
        loop {
            if let Some(len) = reply_len(&self.input) {
                let reply: Vec<u8> = self.input.drain(..len).collect();
                return text(&reply).trim_end().to_owned();
            }
            if self.is_closed {
                return "CLOSED".to_owned();
            }
            if !self.pump() && !self.is_closed {
                if Instant::now() >= deadline {
                    return "TIMEOUT".to_owned();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn collect(&mut self, step: &Step) -> Vec<String> {
        let within = step.within.as_ref().map_or(WITHIN, |limit| limit.duration(self.timeout));
        let deadline = Instant::now() + within;
        let wanted = match &step.n {
            Some(Count::Exactly(number)) => *number,
            Some(Count::UntilQuiet(Quiet::Quiet)) => usize::MAX,
            None => usize::from(step.send.is_some()),
        };
        let quiet = step.quiet.map_or(QUIET, Duration::from_secs_f64);
        let mut replies: Vec<String> = Vec::new();
        while replies.len() < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_open_ended = wanted == usize::MAX && !replies.is_empty();
            let reply = self.next_reply(if is_open_ended { left.min(quiet) } else { left });
            if reply == "TIMEOUT" && is_open_ended {
                break;
            }
            let is_last = reply == "TIMEOUT" || reply == "CLOSED";
            replies.push(reply);
            if is_last {
                break;
            }
        }
        replies
    }

    fn judge(&mut self, step: &Step, replies: &[String]) -> Result<(), String> {
        if step.eod {
            // The first reply answers the end of data that was sent; after a 354 among them, the next one
            // answers another.
            let previous = std::iter::once("354").chain(replies.iter().map(String::as_str));
            self.acknowledged += previous
                .zip(replies)
                .filter(|(previous, reply)| previous.starts_with("354") && reply.starts_with('2'))
                .count();
        }
        let Some(expect) = &step.expect else { return Ok(()) };
        let patterns = expect.as_slice();
        for (number, reply) in replies.iter().enumerate() {
            let pattern = &patterns[number.min(patterns.len() - 1)];
            if !is_match(pattern, reply) {
                return Err(format!("{pattern:?} was expected, and {reply:?} came"));
            }
        }
        Ok(())
    }
}

/// Cuts what is sent: into pieces of one length, or of several and a rest.
fn pieces<'w>(wire: &'w [u8], split: Option<&OneOrMany<usize>>) -> Vec<&'w [u8]> {
    match split {
        None => vec![wire],
        Some(OneOrMany::One(len)) => wire.chunks((*len).max(1)).collect(),
        Some(OneOrMany::Many(lengths)) => {
            let mut rest = wire;
            let mut pieces = Vec::new();
            for len in lengths {
                let (piece, after) = rest.split_at((*len).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            pieces.retain(|piece| !piece.is_empty());
            pieces
        }
    }
}

/// Returns the length of the reply at the front, when it is whole.
fn reply_len(input: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        let line = &input[end..];
        let len = line.iter().position(|byte| *byte == b'\n')? + 1;
        end += len;
        if line[..len].get(3) != Some(&b'-') {
            return Some(end);
        }
    }
}
