//! The failing next hop: every second time that a dialogue comes to the point of its plan, the fault happens.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a slow reply takes.
const SLOW: Duration = Duration::from_millis(200);

/// Where it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// After the first lines of the message.
    Body,
    /// After the final dot.
    Dot,
    Rset,
    Quit,
}

impl Point {
    pub(super) const ALL: [Point; 9] = [
        Point::Greeting,
        Point::Ehlo,
        Point::Mail,
        Point::Rcpt,
        Point::Data,
        Point::Body,
        Point::Dot,
        Point::Rset,
        Point::Quit,
    ];

    /// What a healthy next hop says there.
    fn reply(self) -> &'static str {
        match self {
            Point::Greeting => "220 hop.example ESMTP\r\n",
            Point::Ehlo => "250-hop.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000\r\n",
            Point::Mail | Point::Rcpt | Point::Rset => "250 2.0.0 ok\r\n",
            Point::Data => "354 go\r\n",
            Point::Body => "",
            Point::Dot => "250 2.0.0 queued\r\n",
            Point::Quit => "221 2.0.0 bye\r\n",
        }
    }
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A 4xx.
    Temporary,
    /// A 5xx.
    Permanent,
    /// A 421, and it closes.
    Leaving,
    /// It closes without a word.
    Close,
    /// It says nothing and reads nothing more.
    Hang,
    /// It says what is no reply there.
    Garbage,
    /// It says half of a reply and closes.
    HalfReply,
    /// It says the right thing byte by byte.
    Slow,
    /// It says the right thing, and in the same breath a 250 to nothing.
    Doubled,
}

impl Fault {
    pub(super) const ALL: [Fault; 9] = [
        Fault::Temporary,
        Fault::Permanent,
        Fault::Leaving,
        Fault::Close,
        Fault::Hang,
        Fault::Garbage,
        Fault::HalfReply,
        Fault::Slow,
        Fault::Doubled,
    ];
}

/// What it does until it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Serve,
    Fail(Point, Fault),
}

/// How often it has seen a message to its end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copies {
    /// It said 2xx to the end of data, whole.
    pub(super) taken: usize,
    /// It said 2xx ahead of the end of data.
    pub(super) early: usize,
    /// It said neither a whole 2xx nor a whole refusal.
    pub(super) unclear: usize,
}

/// What one look at the plan calls for; garbage is numbered, to be different each time.
type Due = Option<(Fault, usize)>;

struct State {
    plan: Plan,
    /// How often the point of the plan was come to, and how often it failed there.
    visits: usize,
    faults: usize,
    /// Counts the plans: who hangs under an older one ends.
    generation: usize,
    copies: BTreeMap<String, Copies>,
    /// The connections of this plan, to be closed with it.
    connections: Vec<TcpStream>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The running next hop.
pub(super) struct ChaosHop {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

impl ChaosHop {
    /// Starts it; it serves until it is told otherwise.
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            plan: Plan::Serve,
            visits: 0,
            faults: 0,
            generation: 0,
            copies: BTreeMap::new(),
            connections: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let hop = ChaosHop { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || Dialogue::begin(stream, shared).and_then(Dialogue::run));
            }
        });
        hop
    }

    /// Follows another plan on new connections; the old ones are closed.
    pub(super) fn follow(&self, plan: Plan) {
        let mut state = self.shared.state.lock().unwrap();
        state.plan = plan;
        (state.visits, state.faults) = (0, 0);
        state.generation += 1;
        for connection in state.connections.drain(..) {
            // One that the gateway has closed already is as good.
            connection.shutdown(Shutdown::Both).ok();
        }
        self.shared.changed.notify_all();
    }

    /// How often it has failed under this plan.
    pub(super) fn faults(&self) -> usize {
        self.shared.state.lock().unwrap().faults
    }

    /// What it has seen to the end, by the subject of the message.
    pub(super) fn copies(&self) -> BTreeMap<String, Copies> {
        self.shared.state.lock().unwrap().copies.clone()
    }
}

/// One connection; `None` anywhere ends it.
struct Dialogue {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    shared: Arc<Shared>,
    generation: usize,
}

/// What becomes of a connection at a point.
enum Went {
    /// The healthy reply was said, whole.
    Well,
    /// A whole refusal was said.
    Refused,
    /// Something else was said, and the dialogue goes on.
    Astray,
}

impl Dialogue {
    fn begin(stream: TcpStream, shared: Arc<Shared>) -> Option<Self> {
        stream.set_nodelay(true).ok()?;
        let writer = stream.try_clone().ok()?;
        let mut state = shared.state.lock().unwrap();
        state.connections.push(stream.try_clone().ok()?);
        let generation = state.generation;
        drop(state);
        Some(Dialogue { reader: BufReader::new(stream), writer, shared, generation })
    }

    fn run(mut self) -> Option<()> {
        self.act(Point::Greeting)?;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
                "EHLO" => self.act(Point::Ehlo)?,
                "MAIL" => self.act(Point::Mail)?,
                "RCPT" => self.act(Point::Rcpt)?,
                "RSET" => self.act(Point::Rset)?,
                "DATA" => match self.act(Point::Data)? {
                    Went::Well => {
                        self.message()?;
                        Went::Well
                    }
                    other => other,
                },
                "QUIT" => {
                    self.act(Point::Quit)?;
                    return None;
                }
                _ => self.say(Point::Mail.reply())?,
            };
        }
    }

    /// Reads a message and answers it, and writes down what that makes of it.
    fn message(&mut self) -> Option<()> {
        let mut name = None;
        loop {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line).ok()? == 0 {
                return None;
            }
            if line == b".\r\n" {
                break;
            }
            let Some(subject) = line.strip_prefix(b"Subject: ").filter(|_| name.is_none()) else { continue };
            let subject = String::from_utf8_lossy(subject).trim_end().to_owned();
            name = Some(subject.clone());
            let due = self.due(Point::Body);
            if matches!(due, Some((Fault::Doubled, _))) {
                self.shared.state.lock().unwrap().copies.entry(subject).or_default().early += 1;
            }
            if !matches!(self.fail_or_serve(Point::Body, due)?, Went::Well) {
                // It has answered ahead of the end, and reads on to be polite.
                self.drain();
                return None;
            }
        }
        let name = name.unwrap_or_default();
        // What is about to be said counts as said: the gateway may hear it before this is written down.
        let due = self.due(Point::Dot);
        let count = |copies: &mut Copies| match due {
            None | Some((Fault::Slow | Fault::Doubled, _)) => copies.taken += 1,
            Some((Fault::Temporary | Fault::Permanent | Fault::Leaving, _)) => {}
            Some((Fault::Close | Fault::Hang | Fault::Garbage | Fault::HalfReply, _)) => copies.unclear += 1,
        };
        count(self.shared.state.lock().unwrap().copies.entry(name).or_default());
        self.fail_or_serve(Point::Dot, due)?;
        Some(())
    }

    fn act(&mut self, point: Point) -> Option<Went> {
        let due = self.due(point);
        self.fail_or_serve(point, due)
    }

    /// Whether the plan wants a fault here and now.
    fn due(&self, point: Point) -> Due {
        let mut state = self.shared.state.lock().unwrap();
        match state.plan {
            Plan::Fail(at, fault) if at == point => {
                state.visits += 1;
                let is_due = state.visits % 2 == 1;
                state.faults += usize::from(is_due);
                is_due.then_some((fault, state.faults))
            }
            Plan::Serve | Plan::Fail(..) => None,
        }
    }

    fn fail_or_serve(&mut self, point: Point, due: Due) -> Option<Went> {
        let Some((fault, number)) = due else { return self.say(point.reply()) };
        match fault {
            Fault::Temporary => self.say("451 4.3.0 not now\r\n").map(|_| Went::Refused),
            Fault::Permanent => self.say("550 5.7.1 never\r\n").map(|_| Went::Refused),
            Fault::Leaving => {
                self.say("421 4.3.2 leaving\r\n")?;
                None
            }
            Fault::Close => None,
            Fault::Hang => {
                self.hang();
                None
            }
            Fault::Garbage => {
                self.writer.write_all(&garbage(point, number)).ok()?;
                Some(Went::Astray)
            }
            Fault::HalfReply => {
                let reply = if point == Point::Body { "250 2.0.0 qu" } else { point.reply() };
                self.say(&reply[..reply.len() / 2])?;
                None
            }
            Fault::Slow => {
                // The pace of a bad line; a reply is there in less time than the gateway waits for one.
                let reply = point.reply().as_bytes();
                let pause = SLOW / u32::try_from(reply.len().max(1)).unwrap();
                if reply.is_empty() {
                    self.pause(SLOW);
                }
                for byte in reply {
                    self.writer.write_all(&[*byte]).ok()?;
                    self.pause(pause);
                }
                Some(Went::Well)
            }
            Fault::Doubled if point == Point::Body => {
                self.say("250 2.0.0 queued\r\n")?;
                Some(Went::Astray)
            }
            Fault::Doubled => self.say(&format!("{}250 2.0.0 queued\r\n", point.reply())).map(|_| {
                // After 354 the second reply is one to a message that has not come.
                if point == Point::Data { Went::Astray } else { Went::Well }
            }),
        }
    }

    fn say(&mut self, reply: &str) -> Option<Went> {
        self.writer.write_all(reply.as_bytes()).ok()?;
        Some(Went::Well)
    }

    /// Waits for the end of the plan.
    fn hang(&self) {
        let state = self.shared.state.lock().unwrap();
        drop(self.shared.changed.wait_while(state, |state| state.generation == self.generation).unwrap());
    }

    fn pause(&self, pause: Duration) {
        let state = self.shared.state.lock().unwrap();
        let is_old = |state: &mut State| state.generation == self.generation;
        drop(self.shared.changed.wait_timeout_while(state, pause, is_old).unwrap());
    }

    /// Reads whatever comes, to its end.
    fn drain(&mut self) {
        let mut buffer = [0u8; 4096];
        while matches!(self.reader.read(&mut buffer), Ok(1..)) {}
    }
}

/// What is no reply, or none that fits: a different piece each time.
fn garbage(point: Point, number: usize) -> Vec<u8> {
    let wrong = match point {
        Point::Data => "250 2.0.0 queued\r\n",
        _ => "354 go\r\n",
    };
    let pieces: [&[u8]; 9] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"250-one\r\n550 two\r\n",
        b"999 what\r\n",
        b"250 a bare line feed\n",
        b"2x0 \xff\xfe\0\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n",
        b"\r\n",
        wrong.as_bytes(),
        b"250\rqueued\r\n",
    ];
    match number % (pieces.len() + 2) {
        0 => b"250-and so on\r\n".repeat(5_000),
        1 => [&b"250 "[..], &b"long ".repeat(20_000), b"\r\n"].concat(),
        other => pieces[other - 2].to_vec(),
    }
}
