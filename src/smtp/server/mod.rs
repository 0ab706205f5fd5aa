//! A session, seen from the server: bytes in, steps out (RFC 5321, sections 3 and 4.1.4; RFC 2033).
//!
//! [`Session::step`] takes bytes off the input and says what to do next. What it cannot decide by itself
//! (is this sender, this recipient, this message wanted?) it asks, and waits for the answer. It knows the
//! order of commands, the limits, that an extension is there exactly when it was offered, and that nothing
//! of a transaction outlives its end of data, however that ended.

mod limits;
mod offer;
mod options;
mod peer;
mod question;
mod transaction;

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};

use crate::mail::{Client, EnhancedCode, Reply};
use crate::smtp::chunk::Collector;
use crate::smtp::command::{self, Command, Offered, SyntaxError};
use crate::smtp::data::{Decoder, Refusal};
use crate::smtp::forward::Report;
use transaction::{RefusedChunk, Transaction, needs_tls};

pub use limits::Limits;
pub use options::{Kind, Options};
pub use question::{Answer, Mechanism, Misconduct, Offers, Question, SignIn, SignInAnswer, Step};

/// The first byte of a TLS record that opens a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Longest line of a client that signs in, in bytes, with CR LF (RFC 4954, section 4).
const MAX_SIGN_IN_LINE: usize = 12_288;

#[derive(Debug)]
enum State {
    /// Before HELO or EHLO.
    Start,
    /// Between transactions.
    Ready,
    /// After a challenge: the next line is the response.
    SigningIn,
    /// After MAIL.
    Envelope(Transaction),
    /// After DATA.
    Data(Transaction, Decoder),
    /// After the first BDAT.
    Chunks(Transaction, Box<Collector>),
    /// Nothing more is read.
    Closed,
}

/// The question that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Offers,
    SignIn { is_cancelled: bool },
    Mail(Transaction),
    Rcpt,
    Message(Transaction),
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    options: Options,
    /// The connection's other end.
    peer: SocketAddr,
    client: Client,
    /// What XCLIENT said of the client.
    reported: Report,
    /// What XFORWARD said of the next transaction, and the client that this makes.
    forwarded: Report,
    origin: Option<Client>,
    offers: Offers,
    offered: Offered,
    state: State,
    asked: Option<Asked>,
    /// What is due before anything else is read: replies, and a question that waits for an abandonment.
    due: VecDeque<Step>,
    refused_chunk: Option<RefusedChunk>,
    /// Octets that were read of a message after DATA once it was refused.
    discarded: u64,
    /// Bytes of the input that are known to have no LF.
    searched: usize,
    errors: usize,
    commands: usize,
    messages: usize,
    refused_sign_ins: usize,
    /// Whether the client that gets the next reply must have waited for it.
    must_wait: bool,
    /// Whether the next reply is to a message, and not to a command.
    answers_message: bool,
    is_draining: bool,
    misconduct: Option<Misconduct>,
}

impl Session {
    /// Begins a session with a client; its first step is the greeting.
    pub fn new(options: Options, peer: SocketAddr) -> Self {
        let mut session = Session {
            options,
            peer,
            client: Client::new(peer),
            reported: Report::default(),
            forwarded: Report::default(),
            origin: None,
            offers: Offers::default(),
            offered: Offered::default(),
            state: State::Start,
            asked: None,
            due: VecDeque::new(),
            refused_chunk: None,
            discarded: 0,
            searched: 0,
            errors: 0,
            commands: 0,
            messages: 0,
            refused_sign_ins: 0,
            must_wait: false,
            answers_message: false,
            is_draining: false,
            misconduct: None,
        };
        session.due.push_back(Step::Reply(session.greeting()));
        session
    }

    /// Returns who the client is, by its own account and by that of peers that are trusted.
    pub fn client(&self) -> &Client {
        self.origin.as_ref().unwrap_or(&self.client)
    }

    /// Whether bytes of a message, or of a chunk, are being read.
    pub fn is_in_data(&self) -> bool {
        match &self.state {
            State::Data(..) => true,
            State::Chunks(_, collector) => collector.is_in_chunk(),
            _ => self.refused_chunk.is_some(),
        }
    }

    /// Returns the memory in bytes that the message being read will hold after `incoming` more bytes.
    pub fn body_capacity(&self, incoming: usize) -> usize {
        match &self.state {
            State::Data(_, decoder) => decoder.capacity_for(incoming),
            State::Chunks(_, collector) => collector.capacity_for(incoming),
            _ => 0,
        }
    }

    /// Gives the message that is being read up for want of memory: its end is answered 452.
    pub fn refuse_body(&mut self) {
        match &mut self.state {
            State::Data(_, decoder) => decoder.refuse(Refusal::NoMemory),
            State::Chunks(_, collector) => collector.refuse(Refusal::NoMemory),
            _ => {}
        }
    }

    /// Asks for the end of the session: 421 at the next command boundary, but not between the chunks of a
    /// message.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether the client is a peer that speaks for others.
    pub fn is_trusted(&self) -> bool {
        self.options.is_trusted()
    }

    /// Whether the step that was returned last answers a command of a client that has not been told that it
    /// may send commands ahead (RFC 2920), and is not trusted. Input that is there already is misconduct.
    pub fn must_wait(&self) -> bool {
        self.must_wait && !self.is_trusted() && !matches!(self.state, State::Closed)
    }

    /// Whether the reply that was returned last is to the end of a message.
    pub fn answers_message(&self) -> bool {
        self.answers_message
    }

    /// Ends the session for cause; returns the step in the place of the one that was to be taken.
    pub fn turn_away(&mut self, misconduct: Misconduct) -> Step {
        self.misconduct = Some(misconduct);
        self.asked = None;
        self.due.clear();
        self.close(misconduct.reply())
    }

    /// Returns for what cause the session ended, where there was one.
    pub fn misconduct(&self) -> Option<Misconduct> {
        self.misconduct
    }

    /// Takes what it can use from the front of `input` and returns what to do.
    pub fn step(&mut self, input: &mut BytesMut) -> Step {
        if self.asked.is_some() {
            // The owner went on without an answer: a fault of this program, never to be taken for a yes.
            self.asked = None;
            return self.close(internal_error());
        }
        if let Some(step) = self.due.pop_front() {
            return self.issue(step);
        }
        if let Some(step) = self.discard(input) {
            return step;
        }
        match &mut self.state {
            State::Closed => Step::Close,
            State::Data(..) => self.read_data(input),
            State::Chunks(_, collector) if collector.is_in_chunk() => {
                let progress = collector.collect(input);
                input.advance(progress.consumed_bytes);
                if progress.ended { self.end_of_chunk() } else { Step::Read }
            }
            State::Chunks(..) => self.next_line(input),
            _ if self.is_draining => {
                let reply =
                    Reply::new(421, EnhancedCode(4, 3, 2), "Service shutting down, closing connection");
                self.close(reply)
            }
            _ => self.next_line(input),
        }
    }

    /// Takes the answer to [`Question::Mail`] and [`Question::Rcpt`]; returns the reply to send.
    pub fn answer(&mut self, reply: Reply) -> Reply {
        match self.asked.take() {
            Some(Asked::Mail(transaction)) if reply.is_positive() => {
                self.state = State::Envelope(transaction);
            }
            Some(Asked::Rcpt) if reply.is_positive() => {
                if let State::Envelope(transaction) = &mut self.state {
                    transaction.recipients += 1;
                    // They have a limit of their own, which may be the larger one.
                    self.commands = self.commands.saturating_sub(1);
                }
            }
            Some(Asked::Mail(_) | Asked::Rcpt) => {}
            _ => return self.fault(),
        }
        if reply.code() == 421 {
            self.state = State::Closed;
        }
        reply
    }

    fn greeting(&self) -> Reply {
        let protocol = match self.options.kind {
            Kind::Smtp => "ESMTP",
            Kind::Lmtp => "LMTP",
        };
        Reply::plain(220, [format!("{} {protocol}", self.options.name)])
    }

    fn next_line(&mut self, input: &mut BytesMut) -> Step {
        if input.first() == Some(&TLS_HANDSHAKE) {
            // It would wait for an answer and perhaps never send an LF.
            return self.turn_away(Misconduct::Tls);
        }
        let unsearched = input.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', unsearched).map(|at| self.searched + at + 1) else {
            self.searched = input.len();
            let can_grow = input.len() < self.max_line(input);
            return if can_grow { Step::Read } else { self.close(overlong()) };
        };
        self.searched = 0;
        let line = input.split_to(end);
        self.commands += 1;
        if self.commands > self.options.limits.commands {
            self.misconduct = Some(Misconduct::Junk);
            return self.close(Reply::new(
                421,
                EnhancedCode(4, 7, 0),
                "Too many commands, closing connection",
            ));
        }
        if line.len() > self.max_line(&line) {
            return self.close(overlong());
        }
        let Some(text) = line.strip_suffix(b"\r\n") else {
            // Where such a line ends is a matter of opinion, so what follows it is not read.
            return self.close(Reply::new(
                500,
                EnhancedCode(5, 5, 2),
                "Bare LF in command, closing connection",
            ));
        };
        self.must_wait = !self.offered.esmtp;
        self.answers_message = false;
        if matches!(self.state, State::SigningIn) {
            return self.response(text);
        }
        let is = |name: &str| command::verb(text).eq_ignore_ascii_case(name.as_bytes());
        let is_chunk = is("BDAT");
        if line.len() > self.options.limits.command_bytes
            && !["MAIL", "RCPT", "AUTH", "XCLIENT", "XFORWARD"].into_iter().any(is)
        {
            return if is_chunk { self.close(overlong()) } else { self.error(overlong()) };
        }
        let smtputf8 = matches!(self.state, State::Envelope(Transaction { smtputf8: true, .. }));
        match command::parse(text, &self.offered, smtputf8) {
            Ok(command) => self.execute(command, input),
            Err(SyntaxError::Foreign) => self.turn_away(Misconduct::Http),
            // How many octets follow it is unknown, and none of them may be taken for a command.
            Err(error) if is_chunk => self.close(error.reply()),
            Err(error) => self.error(error.reply()),
        }
    }

    /// Returns how long a line that begins like this may be, in bytes. A longer one closes the session.
    fn max_line(&self, line: &[u8]) -> usize {
        let signs_in =
            matches!(self.state, State::SigningIn) || command::verb(line).eq_ignore_ascii_case(b"AUTH");
        let limit = self.options.limits.path_command_bytes;
        if signs_in { limit.max(MAX_SIGN_IN_LINE) } else { limit }
    }

    fn execute(&mut self, command: Command, input: &mut BytesMut) -> Step {
        let is_free = matches!(
            command,
            Command::Helo(_)
                | Command::Ehlo(_)
                | Command::Lhlo(_)
                | Command::Noop
                | Command::Quit
                | Command::StartTls
                | Command::Help
                // Its octets come all the same.
                | Command::Bdat { .. }
        );
        if !is_free && self.needs_tls() {
            return self.error(needs_tls());
        }
        let kind = self.options.kind;
        match command {
            Command::Helo(_) | Command::Ehlo(_) if kind == Kind::Lmtp => {
                self.error(Reply::new(500, EnhancedCode(5, 5, 1), "This is an LMTP server, send LHLO"))
            }
            Command::Lhlo(_) if kind == Kind::Smtp => self.error(not_offered()),
            Command::Helo(name) => self.hello(name),
            Command::Ehlo(name) | Command::Lhlo(name) => self.extended_hello(name),
            Command::StartTls => self.start_tls(input),
            Command::Auth(begin) => self.auth(begin),
            Command::Xclient(report) => self.xclient(report),
            Command::Xforward(report) => self.xforward(report),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(recipient) => self.rcpt(recipient),
            Command::Data => self.data(),
            Command::Bdat { octets, is_last } => self.bdat(octets, is_last),
            Command::Rset => match self.state {
                State::Start => Step::Reply(ok()),
                _ => self.restart(Step::Reply(ok())),
            },
            Command::Noop => Step::Reply(ok()),
            Command::Vrfy => {
                let text = "Cannot VRFY user, but will accept message and attempt delivery";
                Step::Reply(Reply::new(252, EnhancedCode(2, 5, 0), text))
            }
            Command::Help => {
                let text = "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT";
                Step::Reply(Reply::new(214, EnhancedCode(2, 0, 0), text))
            }
            Command::Quit => self.close(Reply::new(221, EnhancedCode(2, 0, 0), "Bye")),
        }
    }

    fn is_in_transaction(&self) -> bool {
        matches!(self.state, State::Envelope(_) | State::Data(..) | State::Chunks(..))
    }

    /// Ends an open transaction, then takes the step; the session is ready for the next one.
    fn restart(&mut self, step: Step) -> Step {
        let was_open = self.is_in_transaction();
        self.state = State::Ready;
        self.forget_origin();
        self.abandon_if(was_open, step)
    }

    /// Ends an open transaction, sends the reply and closes.
    fn close(&mut self, reply: Reply) -> Step {
        let was_open = self.is_in_transaction();
        self.state = State::Closed;
        self.refused_chunk = None;
        self.abandon_if(was_open, Step::Reply(reply))
    }

    fn abandon_if(&mut self, was_open: bool, step: Step) -> Step {
        if was_open {
            self.due.push_back(step);
            Step::Abandon
        } else {
            self.issue(step)
        }
    }

    fn issue(&mut self, step: Step) -> Step {
        if matches!(step, Step::Ask(Question::Offers)) {
            self.asked = Some(Asked::Offers);
        }
        step
    }

    fn error(&mut self, reply: Reply) -> Step {
        self.errors += 1;
        if self.errors >= self.options.limits.errors {
            self.turn_away(Misconduct::Junk)
        } else {
            Step::Reply(reply)
        }
    }

    /// An answer without its question is a fault of this program; the session ends.
    fn fault(&mut self) -> Reply {
        self.state = State::Closed;
        internal_error()
    }
}

fn ok() -> Reply {
    Reply::new(250, EnhancedCode(2, 0, 0), "Ok")
}

fn out_of_order(text: &str) -> Reply {
    Reply::new(503, EnhancedCode(5, 5, 1), text)
}

fn not_offered() -> Reply {
    SyntaxError::NotOffered.reply()
}

fn overlong() -> Reply {
    Reply::new(500, EnhancedCode(5, 5, 2), "Line too long")
}

fn internal_error() -> Reply {
    Reply::new(451, EnhancedCode(4, 3, 0), "Internal error, closing connection")
}

#[cfg(test)]
mod tests;
