//! A transaction with a mail server, over SMTP or LMTP, after MAIL.
//!
//! What the client asked for and the server does not offer is refused, never dropped in silence: SMTPUTF8,
//! BINARYMIME, REQUIRETLS, and 8BITMIME unless the message turns out to be ASCII. DSN is the exception: it
//! is offered to a client only where every next hop offers it, so that its parameters meet a server without
//! it only after a change, and mail is worth more than a notice.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::mail::{Address, BodyType, EnhancedCode, Mail, Notify, Recipient, Reply, Return};
use crate::relay::connection::Connection;
use crate::relay::server::Server;
use crate::relay::{Accepted, Error, MAX_ADDED_BYTES, Outcome};
use crate::smtp::data::{self, Encoder};

/// What became of MAIL.
#[derive(Debug)]
pub(super) enum Started {
    Ready(Box<Transaction>, Reply),
    /// A refusal of 4xx or 5xx; 421 as the server sent it.
    Refused(Reply),
}

/// A transaction on a connection of its own, after a positive reply to MAIL.
#[derive(Debug)]
pub(super) struct Transaction {
    server: Arc<Server>,
    /// `None` once the connection can no longer be trusted.
    connection: Option<Connection>,
    framing: Framing,
    has_smtputf8: bool,
    has_prdr: bool,
    /// Accepted recipients.
    recipients: usize,
}

/// How the message goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// With DATA.
    Lines,
    /// With DATA, and only if it is ASCII: 8BITMIME was declared and cannot be passed on.
    SevenBitLines,
    /// With BDAT (RFC 3030), whatever its line ends.
    Binary,
}

/// How far a message got before its replies.
enum Sent {
    /// To its end.
    Whole,
    /// It was refused before its end, for all recipients; and whether the connection is still in order.
    Refused(Reply, bool),
}

/// Returns the refusal of what the server could not take.
pub(super) fn refusal_ahead(connection: &Connection, mail: &Mail) -> Option<Reply> {
    let offered = connection.capabilities;
    let unsupported = |code, enhanced, what: &str| {
        Some(Reply::new(code, enhanced, format!("{what} is not supported on the way to the recipient")))
    };
    let path_is_international = mail.reverse_path.as_ref().is_some_and(Address::is_internationalized);
    if exceeds(offered.size, mail.size_bytes.map_or(0, with_added)) {
        return Some(too_large());
    }
    if (mail.smtputf8 || path_is_international) && !offered.smtputf8 {
        return unsupported(550, EnhancedCode(5, 6, 7), "SMTPUTF8");
    }
    if mail.body == BodyType::Binary && !(offered.binary_mime && offered.chunking) {
        return unsupported(554, EnhancedCode(5, 6, 1), "BINARYMIME");
    }
    if mail.require_tls && !(offered.require_tls && connection.is_encrypted() && connection.is_verified) {
        return unsupported(550, EnhancedCode(5, 7, 30), "REQUIRETLS");
    }
    None
}

/// Returns MAIL with the parameters that the server offers.
pub(super) fn mail_line(connection: &Connection, mail: &Mail) -> String {
    let offered = connection.capabilities;
    let mut line =
        format!("MAIL FROM:<{}>", mail.reverse_path.as_ref().map(Address::to_path).unwrap_or_default());
    if let (Some(_), Some(size)) = (offered.size, mail.size_bytes) {
        line.push_str(&format!(" SIZE={}", with_added(size)));
    }
    match mail.body {
        BodyType::EightBitMime if offered.eight_bit_mime => line.push_str(" BODY=8BITMIME"),
        BodyType::Binary => line.push_str(" BODY=BINARYMIME"),
        BodyType::EightBitMime | BodyType::SevenBit => {}
    }
    if mail.smtputf8 {
        line.push_str(" SMTPUTF8");
    }
    if offered.dsn {
        match mail.ret {
            Some(Return::Full) => line.push_str(" RET=FULL"),
            Some(Return::Headers) => line.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(id) = mail.envelope_id.as_deref().filter(|id| is_parameter(id)) {
            line.push_str(&format!(" ENVID={id}"));
        }
    }
    if mail.require_tls {
        line.push_str(" REQUIRETLS");
    }
    if mail.prdr && offered.prdr {
        line.push_str(" PRDR");
    }
    line
}

impl Transaction {
    pub(super) fn new(server: Arc<Server>, connection: Connection, mail: &Mail) -> Self {
        let offered = connection.capabilities;
        let framing = match mail.body {
            BodyType::Binary => Framing::Binary,
            BodyType::EightBitMime if !offered.eight_bit_mime => Framing::SevenBitLines,
            BodyType::EightBitMime | BodyType::SevenBit => Framing::Lines,
        };
        Transaction {
            server,
            connection: Some(connection),
            framing,
            has_smtputf8: mail.smtputf8,
            has_prdr: mail.prdr && offered.prdr,
            recipients: 0,
        }
    }

    pub(super) async fn rcpt(&mut self, to: &Recipient) -> Result<Reply, Error> {
        let mut connection = self.connection.take().ok_or(Error::Failed)?;
        if to.address.is_internationalized() && !self.has_smtputf8 {
            self.connection = Some(connection);
            return Ok(Reply::new(553, EnhancedCode(5, 6, 7), "The address needs SMTPUTF8"));
        }
        let mut line = format!("RCPT TO:<{}>", to.address.to_path());
        if connection.capabilities.dsn {
            if let Some(notify) = to.notify {
                line.push_str(&format!(" NOTIFY={}", notify_list(notify)));
            }
            if let Some(original) = to.original.as_deref().filter(|original| is_parameter(original)) {
                line.push_str(&format!(" ORCPT={original}"));
            }
        }
        let reply = connection.command(&line, self.server.config.command_timeout).await?;
        match reply.code() {
            // The next hop has closed: the transaction is gone with it.
            421 => {}
            200..300 => {
                self.recipients += 1;
                self.connection = Some(connection);
            }
            400..600 => self.connection = Some(connection),
            _ => return Err(connection.nonsense(&reply)),
        }
        Ok(temporary(reply))
    }

    /// Sends the message; returns an outcome for each accepted recipient, in order.
    pub(super) async fn data(mut self, message: &[Bytes]) -> Vec<Outcome> {
        let Some(mut connection) = self.connection.take() else {
            return vec![Outcome::Failed(Arc::new(Error::Failed)); self.recipients];
        };
        match self.transfer(&mut connection, message).await {
            Ok(Sent::Whole) => self.settle(connection).await,
            Ok(Sent::Refused(reply, is_in_order)) => {
                if is_in_order && reply.code() != 421 {
                    self.server.reset(connection).await;
                }
                vec![Outcome::Refused(temporary(reply)); self.recipients]
            }
            Err(error) => vec![Outcome::Failed(Arc::new(error)); self.recipients],
        }
    }

    /// Sends the message up to its end.
    async fn transfer(&self, connection: &mut Connection, message: &[Bytes]) -> Result<Sent, Error> {
        let patience = self.server.config.command_timeout;
        let size_bytes = message.iter().map(Bytes::len).sum::<usize>();
        if exceeds(connection.capabilities.size, u64::try_from(size_bytes).unwrap_or(u64::MAX)) {
            return Ok(Sent::Refused(too_large(), true));
        }
        if self.framing == Framing::Binary {
            let command = format!("BDAT {size_bytes} LAST\r\n");
            let mut wire = vec![command.as_bytes()];
            wire.extend(message.iter().map(Bytes::as_ref).filter(|part| !part.is_empty()));
            return Ok(match connection.send(wire.into_iter(), patience).await? {
                Some(early) => Sent::Refused(early, false),
                None => Sent::Whole,
            });
        }
        if !data::is_crlf_only(message) {
            return Err(Error::LineEnd);
        }
        if self.framing == Framing::SevenBitLines && !message.iter().all(|part| part.is_ascii()) {
            let text = "8BITMIME is not supported on the way to the recipient";
            return Ok(Sent::Refused(Reply::new(554, EnhancedCode(5, 6, 3), text), true));
        }
        let reply = connection.command("DATA", patience).await?;
        match reply.code() {
            354 => {}
            400..600 => return Ok(Sent::Refused(reply, true)),
            _ => return Err(connection.nonsense(&reply)),
        }
        Ok(match connection.send(Encoder::new(message), patience).await? {
            Some(early) => Sent::Refused(early, false),
            None => Sent::Whole,
        })
    }

    /// Reads the replies to the end of data; the connection is kept if they are all there and in order.
    async fn settle(&self, mut connection: Connection) -> Vec<Outcome> {
        let replies = Replies {
            connection: &mut connection,
            deadline: Instant::now() + self.server.config.data_timeout,
            is_closing: false,
        };
        let (outcomes, is_in_order) = if self.server.target.next_hop.is_lmtp() {
            replies.each(self.recipients).await
        } else {
            replies.one_or_prdr(self.recipients, self.has_prdr).await
        };
        if is_in_order {
            connection.end_message();
            self.server.pool.keep(connection);
        }
        outcomes
    }

    pub(super) async fn abandon(mut self) {
        if let Some(connection) = self.connection.take() {
            self.server.reset(connection).await;
        }
    }
}

/// The replies to the end of data, all within one time limit. Each way to read them returns an outcome for
/// each recipient, and whether the connection can be used again.
struct Replies<'a> {
    connection: &'a mut Connection,
    deadline: Instant,
    is_closing: bool,
}

impl Replies<'_> {
    /// Reads a reply for each recipient (RFC 2033, section 4.2). Those without one may have the message.
    async fn each(mut self, recipients: usize) -> (Vec<Outcome>, bool) {
        let mut outcomes = Vec::with_capacity(recipients);
        while outcomes.len() < recipients {
            match self.next().await {
                Ok(reply) => outcomes.push(outcome(reply)),
                Err(error) => {
                    outcomes.resize(recipients, Outcome::Failed(Arc::new(error)));
                    return (outcomes, false);
                }
            }
        }
        (outcomes, !self.is_closing)
    }

    /// Reads one reply for all, or those of PRDR where the server announces them with 353: one for each
    /// recipient, and one for the message, without which none of them counts.
    async fn one_or_prdr(mut self, recipients: usize, has_prdr: bool) -> (Vec<Outcome>, bool) {
        let all = |outcome: Outcome| vec![outcome; recipients];
        let failed = |error: Error| Outcome::Failed(Arc::new(error));
        let first = match self.read().await {
            Ok(first) => first,
            Err(error) => return (all(failed(error)), false),
        };
        if !(has_prdr && first.code() == 353) {
            return match self.checked(first) {
                Ok(reply) => (all(outcome(reply)), !self.is_closing),
                Err(error) => (all(failed(error)), false),
            };
        }
        let mut outcomes = Vec::with_capacity(recipients);
        let ended = loop {
            match self.next().await {
                Ok(reply) if outcomes.len() == recipients => break Ok(reply),
                Ok(reply) => outcomes.push(outcome(reply)),
                Err(error) => break Err(error),
            }
        };
        match ended {
            Ok(reply) if reply.is_positive() => (outcomes, !self.is_closing),
            Ok(reply) => (all(outcome(reply)), !self.is_closing),
            Err(error) => {
                // A recipient that was refused is refused; no other word counts without the last one.
                let unknown = failed(error);
                for outcome in &mut outcomes {
                    if matches!(outcome, Outcome::Accepted(_)) {
                        *outcome = unknown.clone();
                    }
                }
                outcomes.resize(recipients, unknown);
                (outcomes, false)
            }
        }
    }

    async fn next(&mut self) -> Result<Reply, Error> {
        let reply = self.read().await?;
        self.checked(reply)
    }

    async fn read(&mut self) -> Result<Reply, Error> {
        let patience = self.deadline.saturating_duration_since(Instant::now());
        self.connection.read_reply(patience).await
    }

    fn checked(&mut self, reply: Reply) -> Result<Reply, Error> {
        match reply.code() {
            200..300 | 400..600 => {
                self.is_closing |= reply.code() == 421;
                Ok(reply)
            }
            _ => Err(self.connection.nonsense(&reply)),
        }
    }
}

/// The one place where the word of a server becomes proof: its own reply to the end of data.
fn outcome(reply: Reply) -> Outcome {
    if reply.is_positive() {
        Outcome::Accepted(Accepted { reply })
    } else {
        Outcome::Refused(temporary(reply))
    }
}

/// The next hop's 421 says that it closes its connection with us. Ours with the client stands, so there
/// the reply is a 451 (RFC 5321, section 3.8: only who closes says 421).
pub(super) fn temporary(reply: Reply) -> Reply {
    if reply.code() == 421 {
        Reply::plain(451, reply.lines().to_vec()).with_enhanced(reply.enhanced())
    } else {
        reply
    }
}

/// Returns the size of a message as the next hop gets it, from the one that the client declared (RFC 1870,
/// section 6.1: an estimate, in which what is added on the way counts).
fn with_added(size_bytes: u64) -> u64 {
    size_bytes.saturating_add(MAX_ADDED_BYTES)
}

/// Whether a size is above what SIZE declares; zero declares nothing (RFC 1870, section 4).
fn exceeds(declared: Option<u64>, size_bytes: u64) -> bool {
    matches!(declared, Some(limit @ 1..) if size_bytes > limit)
}

fn too_large() -> Reply {
    Reply::new(552, EnhancedCode(5, 3, 4), "Message too large")
}

fn notify_list(notify: Notify) -> String {
    let wanted = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let names: Vec<&str> =
        wanted.into_iter().filter_map(|(is_wanted, name)| is_wanted.then_some(name)).collect();
    if names.is_empty() { "NEVER".to_owned() } else { names.join(",") }
}

/// Whether a text can stand as the value of a parameter: it ends neither that nor the line.
fn is_parameter(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}
