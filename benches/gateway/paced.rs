//! A sender that keeps a pace, whether the last message is answered or not: what a message waits for is
//! counted from the moment when it was due.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Connections over which the messages are due in turn.
const CONNECTIONS: usize = 20;

/// How long messages took, in milliseconds, in order.
pub(crate) struct Times(Vec<f64>);

impl Times {
    /// The time below which so many of a hundred are.
    pub(crate) fn at(&self, percent: usize) -> f64 {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }
}

/// Sends messages at a pace per second over open connections.
pub(crate) fn send(to: SocketAddr, message: &[u8], pace: f64, messages: usize) -> Times {
    let wire = framed(message);
    let times = Mutex::new(Vec::with_capacity(messages));
    let begin = Instant::now() + Duration::from_millis(200);
    std::thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (wire, times) = (&wire, &times);
            scope.spawn(move || {
                let mut connection = Connection::open(to);
                for index in (number..messages).step_by(CONNECTIONS) {
                    let due = begin + Duration::from_secs_f64(index as f64 / pace);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    connection.send(wire);
                    times.lock().unwrap().push(due.elapsed().as_secs_f64() * 1_000.0);
                }
            });
        }
    });
    let mut times = times.into_inner().unwrap();
    times.sort_by(f64::total_cmp);
    Times(times)
}

/// A message with CR LF, dots doubled, and its end.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + message.len() / 32);
    for line in message.split(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Connection(BufReader::new(stream));
        connection.expect("220");
        connection.say(b"EHLO client.example\r\n", "250");
        connection
    }

    fn send(&mut self, wire: &[u8]) {
        self.say(b"MAIL FROM:<ann@sender.example>\r\n", "250");
        self.say(b"RCPT TO:<alice@example.org>\r\n", "250");
        self.say(b"DATA\r\n", "354");
        self.say(wire, "250");
    }

    fn say(&mut self, bytes: &[u8], code: &str) {
        self.0.get_mut().write_all(bytes).unwrap();
        self.expect(code);
    }

    fn expect(&mut self, code: &str) {
        let mut line = String::new();
        while {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            line.get(3..4) == Some("-")
        } {}
        assert!(line.starts_with(code), "{line}");
    }
}
