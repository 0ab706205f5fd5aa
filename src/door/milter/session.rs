//! What an MTA has told of its client and of the message that is under way. No socket, no decision.
//!
//! The message is put together again from its pieces, byte by byte as the MTA has it: fields with the white
//! space that they came with where the MTA can tell it, line ends as CR LF. What cannot be read is not
//! guessed: its recipient, or the message, is put off.

use bytes::{Bytes, BytesMut};

use super::wire::{ACTIONS, Command, Response, VERSION, step};
use crate::door::RECIPIENTS;
use crate::gateway::is_ours;
use crate::ingress::{Claim, Memory};
use crate::mail::{Client, EnhancedCode, Mail, Protocol, Recipient, Reply};
use crate::smtp::command::{self, Offered};

/// Oldest version that is understood.
const OLDEST_VERSION: u32 = 2;
/// Forged fields that are taken out of one message; one with more is put off.
const FORGED_FIELDS: usize = 1_000;

/// Every parameter of MAIL and RCPT that means something here. The MTA has offered what it wanted.
const OFFERED: Offered =
    Offered { esmtp: true, binary_mime: true, dsn: true, require_tls: true, prdr: false, auth: true };

/// What comes of a command.
#[derive(Debug)]
pub(super) enum Reaction {
    /// Nothing is said.
    Silence,
    /// This is said.
    Say(Response),
    /// The message is whole.
    Judge(Box<Arrival>),
    /// The connection ends.
    Close,
}

/// A message that is whole, or why it cannot be.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) client: Client,
    pub(super) mail: Mail,
    pub(super) recipients: Vec<Recipient>,
    /// The place of the recipient of each RCPT, and its path as it came.
    pub(super) paths: Vec<(usize, Bytes)>,
    /// The message.
    pub(super) body: Result<Bytes, Reply>,
    /// The fields that only we may write, in order.
    pub(super) forged: Vec<Bytes>,
    /// What it holds of the memory.
    pub(super) claim: Claim,
}

/// A connection of an MTA.
pub(super) struct Session {
    memory: Memory,
    /// The steps that were agreed on; nothing else may come before.
    steps: Option<u32>,
    client: Client,
    open: Option<Open>,
}

/// A message that is under way.
#[derive(Debug, Default)]
struct Open {
    mail: Mail,
    recipients: Vec<Recipient>,
    paths: Vec<(usize, Bytes)>,
    raw: BytesMut,
    is_in_body: bool,
    forged: Vec<Bytes>,
    claim: Claim,
    flaw: Option<Reply>,
}

impl Session {
    /// Begins with a connection; its messages claim their part of the memory.
    pub(super) fn new(memory: Memory) -> Self {
        Session { memory, steps: None, client: nobody(), open: None }
    }

    /// Whether no message is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// Returns how a value of a field begins: with the blank, where the MTA leaves white space to us.
    pub(super) fn blank(&self) -> &'static str {
        if self.keeps_white_space() { " " } else { "" }
    }

    /// Takes a command. `message_bytes` is the limit of a message.
    pub(super) fn take(&mut self, command: Command, message_bytes: usize) -> Reaction {
        if let Command::Negotiate { version, actions, steps } = command {
            return self.negotiate(version, actions, steps);
        }
        let Some(steps) = self.steps else { return Reaction::Close };
        let unless = |step: u32| match steps & step {
            0 => Reaction::Say(Response::Continue),
            _ => Reaction::Silence,
        };
        match command {
            Command::Negotiate { .. } | Command::Quit => Reaction::Close,
            Command::Macros(pairs) => {
                self.learn(&pairs);
                Reaction::Silence
            }
            Command::Connect(name, address) => {
                self.client = client(&name, address);
                self.open = None;
                unless(step::NO_REPLY_CONNECT)
            }
            Command::Helo(name) => {
                self.client.helo = greeting(&name);
                unless(step::NO_REPLY_HELO)
            }
            Command::Mail(words) => self.mail(&words),
            Command::Recipient(words) => self.recipient(&words),
            Command::Data => unless(step::NO_REPLY_DATA),
            Command::Field(name, value) => {
                let keeps_white_space = self.keeps_white_space();
                if let Some(open) = &mut self.open {
                    open.field(&name, &value, keeps_white_space, &self.memory, message_bytes);
                }
                unless(step::NO_REPLY_HEADER)
            }
            Command::EndOfHeader => {
                if let Some(open) = &mut self.open {
                    open.end_header(&self.memory, message_bytes);
                }
                unless(step::NO_REPLY_END_OF_HEADER)
            }
            Command::Body(piece) => {
                if let Some(open) = &mut self.open {
                    open.body(&piece, &self.memory, message_bytes);
                }
                unless(step::NO_REPLY_BODY)
            }
            Command::EndOfMessage(piece) => {
                let Some(mut open) = self.open.take() else {
                    return Reaction::Say(Response::Temporary);
                };
                open.body(&piece, &self.memory, message_bytes);
                Reaction::Judge(Box::new(open.arrive(self.client.clone())))
            }
            // Neither is answered.
            Command::Abort => {
                self.open = None;
                Reaction::Silence
            }
            Command::NextClient => {
                self.open = None;
                self.client = nobody();
                Reaction::Silence
            }
            Command::Unknown => unless(step::NO_UNKNOWN),
        }
    }

    /// An MTA that cannot take recipients away or change fields is of no use: what it has is what it does
    /// with messages when there is no milter.
    fn negotiate(&mut self, version: u32, actions: u32, steps: u32) -> Reaction {
        if version < OLDEST_VERSION || actions & ACTIONS != ACTIONS {
            tracing::warn!(version, actions, "the mail server at the milter door cannot do what is needed");
            return Reaction::Close;
        }
        let steps = steps & step::WANTED;
        *self = Session { steps: Some(steps), ..Session::new(self.memory.clone()) };
        Reaction::Say(Response::Negotiated { version: version.min(VERSION), actions: ACTIONS, steps })
    }

    fn keeps_white_space(&self) -> bool {
        self.steps.is_some_and(|steps| steps & step::LEADING_SPACE != 0)
    }

    fn learn(&mut self, pairs: &[(Bytes, Bytes)]) {
        let login = pairs.iter().find(|(name, _)| matches!(name.as_ref(), b"{auth_authen}"));
        if let Some((_, value)) = login.filter(|(_, value)| !value.is_empty()) {
            self.client.login = std::str::from_utf8(value).ok().map(str::to_owned);
        }
    }

    fn mail(&mut self, words: &[Bytes]) -> Reaction {
        self.open = None;
        match read("MAIL FROM:", words, false) {
            Some(command::Command::Mail(mail)) => {
                self.open = Some(Open { mail, ..Open::default() });
                Reaction::Say(Response::Continue)
            }
            _ => Reaction::Say(Response::Temporary),
        }
    }

    /// One that cannot be read is put off alone.
    fn recipient(&mut self, words: &[Bytes]) -> Reaction {
        let (Some(open), Some(path)) = (&mut self.open, words.first()) else {
            return Reaction::Say(Response::Temporary);
        };
        let Some(command::Command::Rcpt(recipient)) = read("RCPT TO:", words, open.mail.smtputf8) else {
            return Reaction::Say(Response::Temporary);
        };
        if open.paths.len() >= RECIPIENTS {
            return Reaction::Say(Response::Temporary);
        }
        // Named twice, it is one recipient all the same, and is taken away by both its names.
        let known = open.recipients.iter().position(|known| known.address == recipient.address);
        let place = known.unwrap_or(open.recipients.len());
        if known.is_none() {
            open.recipients.push(recipient);
        }
        open.paths.push((place, path.clone()));
        Reaction::Say(Response::Continue)
    }
}

impl Open {
    fn field(&mut self, name: &[u8], value: &[u8], keeps_white_space: bool, memory: &Memory, limit: usize) {
        // Some MTAs tell a blank before the colon as part of the name.
        let is_forged = std::str::from_utf8(name.trim_ascii()).is_ok_and(is_ours);
        if is_forged && self.forged.len() < FORGED_FIELDS {
            self.forged.push(Bytes::copy_from_slice(name));
        } else if is_forged {
            self.flaw.get_or_insert_with(trouble);
        }
        let blank: &[u8] = if keeps_white_space { b":" } else { b": " };
        self.push(name, memory, limit);
        self.push(blank, memory, limit);
        for (index, line) in value.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                self.push(b"\r\n", memory, limit);
            }
            self.push(line.strip_suffix(b"\r").unwrap_or(line), memory, limit);
        }
        self.push(b"\r\n", memory, limit);
    }

    fn end_header(&mut self, memory: &Memory, limit: usize) {
        if !self.is_in_body {
            self.is_in_body = true;
            self.push(b"\r\n", memory, limit);
        }
    }

    fn body(&mut self, piece: &[u8], memory: &Memory, limit: usize) {
        if !piece.is_empty() {
            self.end_header(memory, limit);
            self.push(piece, memory, limit);
        }
    }

    /// Holds a piece of the message, unless it has become too much: then nothing of it is held.
    fn push(&mut self, piece: &[u8], memory: &Memory, limit: usize) {
        if self.flaw.is_some() {
            return;
        }
        if self.raw.len() + piece.len() > limit {
            self.flaw = Some(Reply::new(552, EnhancedCode(5, 3, 4), "the message is too large"));
        } else {
            self.raw.extend_from_slice(piece);
            if !memory.enlarge(&mut self.claim, self.raw.capacity()) {
                self.flaw =
                    Some(Reply::new(452, EnhancedCode(4, 3, 1), "no room for the message, try again"));
            }
        }
        if self.flaw.is_some() {
            self.raw = BytesMut::new();
            self.claim = Claim::default();
        }
    }

    fn arrive(self, client: Client) -> Arrival {
        let body = match self.flaw {
            Some(flaw) => Err(flaw),
            None if self.recipients.is_empty() => Err(trouble()),
            None => Ok(self.raw.freeze()),
        };
        Arrival {
            client,
            mail: self.mail,
            recipients: self.recipients,
            paths: self.paths,
            body,
            forged: self.forged,
            claim: self.claim,
        }
    }
}

/// What a client hears of a message that the protocol has no place for.
pub(super) fn trouble() -> Reply {
    Reply::new(451, EnhancedCode(4, 3, 0), "local trouble, try again")
}

/// Reads the words of a MAIL or RCPT as the session of a listener does. Parameters that are not known here
/// are between the MTA and its client.
fn read(verb: &str, words: &[Bytes], smtputf8: bool) -> Option<command::Command> {
    let line = |words: &[Bytes]| {
        let mut line = verb.as_bytes().to_vec();
        line.extend_from_slice(&words.join(&b' '));
        command::parse(&line, &OFFERED, smtputf8).ok()
    };
    line(words).or_else(|| line(words.get(..1)?))
}

/// Reads the name that a client gives itself; nothing where it is none.
fn greeting(name: &[u8]) -> String {
    match read("EHLO ", &[Bytes::copy_from_slice(name)], false) {
        Some(command::Command::Ehlo(name)) => name,
        _ => String::new(),
    }
}

/// A client of which nothing is known is on this machine, as that of a Unix socket.
fn nobody() -> Client {
    Client { protocol: Protocol::Esmtp, ..Client::new(([127, 0, 0, 1], 0).into()) }
}

fn client(name: &[u8], address: Option<std::net::SocketAddr>) -> Client {
    let peer = address.unwrap_or_else(|| nobody().peer);
    // An MTA that knows no name says the address in brackets, or `unknown`.
    let name = greeting(name);
    let is_name = !name.is_empty() && !name.starts_with('[') && name != "unknown";
    Client { name: is_name.then_some(name), protocol: Protocol::Esmtp, ..Client::new(peer) }
}
