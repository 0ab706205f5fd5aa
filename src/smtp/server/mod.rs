//! A session, seen from the server: bytes in, steps out (RFC 5321, sections 3 and 4.1.4).
//!
//! [`Session::step`] takes bytes off the input and says what to do next. What it cannot decide by itself
//! (is this sender, this recipient, this message wanted?) it asks, and waits for the reply. It knows the
//! order of commands, the limits, and that nothing of a transaction outlives its end of data, however
//! that ended.

mod limits;

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};

use crate::mail::{Client, EnhancedCode, Mail, Protocol, Recipient, Reply, Tls};
use crate::smtp::command::{self, Command, SyntaxError};
use crate::smtp::data::{Decoder, Refusal};

pub use limits::Limits;

/// The first byte of a TLS record that opens a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// SMTP (RFC 5321).
    #[default]
    Smtp,
    /// LMTP (RFC 2033): LHLO, and a reply for each recipient after the end of data.
    Lmtp,
}

/// What the owner of the connection does next.
#[derive(Debug)]
pub enum Step {
    /// Read more input, after all replies are sent.
    Read,
    /// Send a reply.
    Reply(Reply),
    /// Ask whoever decides, and call [`Session::answer`] with what they say.
    Ask(Question),
    /// Tell whoever decides that the open transaction is abandoned.
    Abandon,
    /// Close the connection, after all replies are sent.
    Close,
}

/// What a session cannot decide by itself. The answer is the reply that the client gets, and a positive
/// one advances the session.
#[derive(Debug)]
pub enum Question {
    /// May this sender begin a transaction?
    Mail(Mail),
    /// May this recipient join it?
    Rcpt(Recipient),
    /// The whole message. The transaction is over, whatever the answer.
    Message(Bytes),
}

/// What the way onwards offers, as far as this side may offer it only then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offers {
    /// The largest message that the next hop takes, in bytes (RFC 1870), where it says.
    pub size_bytes: Option<u64>,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// The SASL mechanisms by which this client may sign in now (RFC 4954), the best first.
    pub mechanisms: Vec<Mechanism>,
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN (draft-murchison-sasl-login).
    Login,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
}

/// A step of a sign-in, as the client took it; base64 is taken off.
#[derive(Debug)]
pub enum SignIn {
    /// AUTH, with its initial response where there is one.
    Begin(Mechanism, Option<Vec<u8>>),
    /// The response to the last challenge.
    Response(Vec<u8>),
    /// `*`: the client gives up. The answer is always [`SignInAnswer::Refused`].
    Cancel,
}

/// What comes of a step of a sign-in.
#[derive(Debug)]
pub enum SignInAnswer {
    /// The client must answer this (334).
    Challenge(Vec<u8>),
    /// The client has signed in under this name, and hears this reply.
    Done(String, Reply),
    /// It has not, and hears this reply.
    Refused(Reply),
}

/// The answer to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One for all recipients.
    All(Reply),
    /// One for each accepted RCPT, in order, and one for the message: LMTP sends the former (RFC 2033),
    /// PRDR both, and plain SMTP the latter.
    Each(Vec<Reply>, Reply),
}

#[derive(Debug)]
enum State {
    /// Before HELO or EHLO.
    Start,
    /// Between transactions.
    Ready,
    /// After MAIL; how many recipients were accepted, and whether SMTPUTF8 was declared.
    Envelope { recipients: usize, smtputf8: bool },
    /// After DATA.
    Data(Decoder),
    /// Nothing more is read.
    Closed,
}

/// The question that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Mail { smtputf8: bool },
    Rcpt,
    Message,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    name: String,
    limits: Limits,
    client: Client,
    state: State,
    asked: Option<Asked>,
    /// A reply that is due before anything else is read.
    due: Option<Reply>,
    /// Bytes of the input that are known to have no LF.
    searched: usize,
    errors: usize,
    commands: usize,
    messages: usize,
    is_draining: bool,
}

impl Session {
    /// Begins a session under this server's name; its first step is the greeting.
    pub fn new(name: &str, limits: Limits, peer: SocketAddr) -> Self {
        Session {
            name: name.to_owned(),
            limits,
            client: Client::new(peer),
            state: State::Start,
            asked: None,
            due: Some(Reply::plain(220, [format!("{name} ESMTP")])),
            searched: 0,
            errors: 0,
            commands: 0,
            messages: 0,
            is_draining: false,
        }
    }

    /// Says how the connection is encrypted, before its greeting.
    pub fn secured(&mut self, tls: Tls) {
        self.client.tls = Some(tls);
    }

    /// Returns who the client says it is.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether a message is being read.
    pub fn is_in_data(&self) -> bool {
        matches!(self.state, State::Data(_))
    }

    /// Returns the memory in bytes that the message being read will hold after `incoming` more bytes.
    pub fn body_capacity(&self, incoming: usize) -> usize {
        match &self.state {
            State::Data(decoder) => decoder.capacity_for(incoming),
            _ => 0,
        }
    }

    /// Gives the message that is being read up for want of memory: its end is answered 452.
    pub fn refuse_body(&mut self) {
        if let State::Data(decoder) = &mut self.state {
            decoder.refuse(Refusal::NoMemory);
        }
    }

    /// Asks for the end of the session: 421 at the next command boundary.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Takes what it can use from the front of `input` and returns what to do.
    pub fn step(&mut self, input: &mut BytesMut) -> Step {
        if let Some(reply) = self.due.take() {
            return Step::Reply(reply);
        }
        if self.asked.is_some() {
            // The owner went on without an answer: a fault of this program, never to be taken for a yes.
            self.asked = None;
            return self.close(Reply::new(451, EnhancedCode(4, 3, 0), "Internal error, closing connection"));
        }
        match &mut self.state {
            State::Closed => Step::Close,
            State::Data(decoder) => {
                if input.is_empty() {
                    return Step::Read;
                }
                let progress = decoder.decode(input);
                input.advance(progress.consumed_bytes);
                if progress.ended { self.end_of_data() } else { Step::Read }
            }
            _ if self.is_draining => {
                let reply =
                    Reply::new(421, EnhancedCode(4, 3, 2), "Service shutting down, closing connection");
                self.close(reply)
            }
            _ => self.next_line(input),
        }
    }

    /// Takes the answer to the question that was asked last; returns the reply to send.
    pub fn answer(&mut self, reply: Reply) -> Reply {
        match self.asked.take() {
            Some(Asked::Mail { smtputf8 }) if reply.is_positive() => {
                self.state = State::Envelope { recipients: 0, smtputf8 };
            }
            Some(Asked::Rcpt) if reply.is_positive() => {
                if let State::Envelope { recipients, .. } = &mut self.state {
                    *recipients += 1;
                }
            }
            _ => {}
        }
        if reply.code() == 421 {
            self.state = State::Closed;
        }
        reply
    }

    fn end_of_data(&mut self) -> Step {
        self.messages += 1;
        self.commands = 0;
        let State::Data(decoder) = std::mem::replace(&mut self.state, State::Ready) else {
            return Step::Close;
        };
        match decoder.finish() {
            Ok(body) => {
                self.asked = Some(Asked::Message);
                Step::Ask(Question::Message(body))
            }
            Err(refusal) => {
                // After such a message the next bytes may be commands that somebody else's reading of its
                // line ends let through. They are not read.
                if refusal == Refusal::LineEnd {
                    self.state = State::Closed;
                }
                self.due = Some(refusal.reply());
                Step::Abandon
            }
        }
    }

    fn next_line(&mut self, input: &mut BytesMut) -> Step {
        if input.first() == Some(&TLS_HANDSHAKE) {
            // It would wait for an answer and perhaps never send an LF.
            return self.close(SyntaxError::Foreign.reply());
        }
        let unsearched = input.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', unsearched).map(|at| self.searched + at + 1) else {
            self.searched = input.len();
            let can_grow = input.len() < self.limits.path_command_bytes;
            return if can_grow { Step::Read } else { self.close(overlong()) };
        };
        self.searched = 0;
        let line = input.split_to(end);
        self.commands += 1;
        if self.commands > self.limits.commands {
            return self.close(Reply::new(
                421,
                EnhancedCode(4, 7, 0),
                "Too many commands, closing connection",
            ));
        }
        if line.len() > self.limits.path_command_bytes {
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
        let has_path = ["MAIL", "RCPT"]
            .iter()
            .any(|verb| text.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(verb.as_bytes())));
        if !has_path && line.len() > self.limits.command_bytes {
            return self.error(overlong());
        }
        let smtputf8 = matches!(self.state, State::Envelope { smtputf8: true, .. });
        match command::parse(text, smtputf8) {
            Ok(command) => self.execute(command),
            Err(error) => self.error(error.reply()),
        }
    }

    fn execute(&mut self, command: Command) -> Step {
        match command {
            Command::Helo(name) => {
                self.client.helo = name;
                self.client.protocol = Protocol::Smtp;
                let reply = Reply::plain(250, [self.name.clone()]);
                self.restart(reply)
            }
            Command::Ehlo(name) => {
                self.client.helo = name;
                self.client.protocol = Protocol::Esmtp;
                let reply = self.capabilities();
                self.restart(reply)
            }
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(recipient) => self.rcpt(recipient),
            Command::Data => self.data(),
            Command::Rset => match self.state {
                State::Start => Step::Reply(ok()),
                _ => self.restart(ok()),
            },
            Command::Noop => Step::Reply(ok()),
            Command::Vrfy => {
                let text = "Cannot VRFY user, but will accept message and attempt delivery";
                Step::Reply(Reply::new(252, EnhancedCode(2, 5, 0), text))
            }
            Command::Help => {
                let text = "EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT";
                Step::Reply(Reply::new(214, EnhancedCode(2, 0, 0), text))
            }
            Command::Quit => self.close(Reply::new(221, EnhancedCode(2, 0, 0), "Bye")),
        }
    }

    fn capabilities(&self) -> Reply {
        Reply::plain(
            250,
            [
                self.name.clone(),
                "PIPELINING".to_owned(),
                format!("SIZE {}", self.limits.message_bytes),
                "8BITMIME".to_owned(),
                "SMTPUTF8".to_owned(),
                "ENHANCEDSTATUSCODES".to_owned(),
            ],
        )
    }

    fn mail(&mut self, mail: Mail) -> Step {
        match self.state {
            State::Ready => {}
            State::Start => return self.error(out_of_order("Send HELO or EHLO first")),
            _ => return self.error(out_of_order("Nested MAIL command")),
        }
        if self.messages >= self.limits.messages {
            return self.close(Reply::new(
                421,
                EnhancedCode(4, 7, 0),
                "Too many messages, closing connection",
            ));
        }
        let limit = u64::try_from(self.limits.message_bytes).unwrap_or(u64::MAX);
        if mail.size_bytes.is_some_and(|size| size > limit) {
            return Step::Reply(Refusal::TooLarge.reply());
        }
        self.asked = Some(Asked::Mail { smtputf8: mail.smtputf8 });
        Step::Ask(Question::Mail(mail))
    }

    fn rcpt(&mut self, recipient: Recipient) -> Step {
        let State::Envelope { recipients, .. } = self.state else {
            return self.error(out_of_order("Need MAIL command first"));
        };
        if recipients >= self.limits.recipients {
            return Step::Reply(Reply::new(452, EnhancedCode(4, 5, 3), "Too many recipients"));
        }
        self.asked = Some(Asked::Rcpt);
        Step::Ask(Question::Rcpt(recipient))
    }

    fn data(&mut self) -> Step {
        match self.state {
            State::Envelope { recipients: 1.., .. } => {
                self.state = State::Data(Decoder::new(self.limits.message_bytes));
                Step::Reply(Reply::plain(354, ["End data with <CR><LF>.<CR><LF>"]))
            }
            State::Envelope { .. } => {
                self.error(Reply::new(554, EnhancedCode(5, 5, 1), "No valid recipients"))
            }
            _ => self.error(out_of_order("Need MAIL and RCPT commands first")),
        }
    }

    fn is_in_transaction(&self) -> bool {
        matches!(self.state, State::Envelope { .. } | State::Data(_))
    }

    /// Ends an open transaction, then sends the reply; the session is ready for the next one.
    fn restart(&mut self, reply: Reply) -> Step {
        let was_open = self.is_in_transaction();
        self.state = State::Ready;
        self.abandon_if(was_open, reply)
    }

    /// Ends an open transaction, sends the reply and closes.
    fn close(&mut self, reply: Reply) -> Step {
        let was_open = self.is_in_transaction();
        self.state = State::Closed;
        self.abandon_if(was_open, reply)
    }

    fn abandon_if(&mut self, was_open: bool, reply: Reply) -> Step {
        if was_open {
            self.due = Some(reply);
            Step::Abandon
        } else {
            Step::Reply(reply)
        }
    }

    fn error(&mut self, reply: Reply) -> Step {
        self.errors += 1;
        if reply.code() == 421 {
            self.close(reply)
        } else if self.errors >= self.limits.errors {
            self.close(Reply::new(421, EnhancedCode(4, 7, 0), "Too many errors, closing connection"))
        } else {
            Step::Reply(reply)
        }
    }
}

fn ok() -> Reply {
    Reply::new(250, EnhancedCode(2, 0, 0), "Ok")
}

fn out_of_order(text: &str) -> Reply {
    Reply::new(503, EnhancedCode(5, 5, 1), text)
}

fn overlong() -> Reply {
    Reply::new(500, EnhancedCode(5, 5, 2), "Line too long")
}

#[cfg(test)]
mod tests;
