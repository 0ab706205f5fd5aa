//! MAIL, RCPT and the message: DATA and BDAT, their end, and what is answered to it.

use bytes::{Buf, BytesMut};

use crate::mail::{BodyType, EnhancedCode, Mail, Recipient, Reply};
use crate::smtp::chunk::Collector;
use crate::smtp::data::{Decoder, Refusal};
use crate::smtp::server::{Answer, Asked, Kind, Question, Session, State, Step, ok, out_of_order};

/// The most that is read of a message or a chunk only to be thrown away. A client that sends more does not
/// mean mail.
const MAX_DISCARDED_OCTETS: u64 = 1 << 30;
/// Chunks from this size on are paid for by their bytes; smaller ones count as commands.
const LARGE_CHUNK_OCTETS: u64 = 256;

/// What a session remembers of its open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transaction {
    /// RCPT commands that were accepted.
    pub(super) recipients: usize,
    pub(super) smtputf8: bool,
    prdr: bool,
    body: BodyType,
}

/// The octets of a BDAT command that is refused: they are thrown away before it is answered, so that none of
/// them is taken for a command.
#[derive(Debug)]
pub(super) struct RefusedChunk {
    left: u64,
    reply: Reply,
}

impl Session {
    pub(super) fn mail(&mut self, mail: Mail) -> Step {
        match self.state {
            State::Ready => {}
            State::Start => return self.error(out_of_order("Send HELO or EHLO first")),
            _ => return self.error(out_of_order("Nested MAIL command")),
        }
        if self.messages >= self.options.limits.messages {
            return self.close(Reply::new(
                421,
                EnhancedCode(4, 7, 0),
                "Too many messages, closing connection",
            ));
        }
        let limit = u64::try_from(self.max_message_bytes()).unwrap_or(u64::MAX);
        if mail.size_bytes.is_some_and(|size| size > limit) {
            return Step::Reply(Refusal::TooLarge.reply());
        }
        let Mail { smtputf8, prdr, body, .. } = mail;
        self.asked = Some(Asked::Mail(Transaction { recipients: 0, smtputf8, prdr, body }));
        Step::Ask(Question::Mail(mail))
    }

    pub(super) fn rcpt(&mut self, recipient: Recipient) -> Step {
        let State::Envelope(Transaction { recipients, .. }) = self.state else {
            let text = match self.state {
                State::Chunks(..) => "RCPT after BDAT",
                _ => "Need MAIL command first",
            };
            return self.error(out_of_order(text));
        };
        if recipients >= self.options.limits.recipients {
            return Step::Reply(Reply::new(452, EnhancedCode(4, 5, 3), "Too many recipients"));
        }
        self.asked = Some(Asked::Rcpt);
        Step::Ask(Question::Rcpt(recipient))
    }

    pub(super) fn data(&mut self) -> Step {
        match self.state {
            State::Envelope(Transaction { recipients: 0, .. }) => {
                let reply = self.no_recipients();
                self.error(reply)
            }
            State::Envelope(Transaction { body: BodyType::Binary, .. }) => {
                self.error(out_of_order("BINARYMIME needs BDAT"))
            }
            State::Envelope(transaction) => {
                self.state = State::Data(transaction, Decoder::new(self.max_message_bytes()));
                self.discarded = 0;
                Step::Reply(Reply::plain(354, ["End data with <CR><LF>.<CR><LF>"]))
            }
            State::Chunks(..) => self.error(out_of_order("DATA after BDAT")),
            _ => self.error(out_of_order("Need MAIL and RCPT commands first")),
        }
    }

    pub(super) fn bdat(&mut self, octets: u64, is_last: bool) -> Step {
        let limit = self.max_message_bytes();
        if octets > MAX_DISCARDED_OCTETS.max(u64::try_from(limit).unwrap_or(u64::MAX)) {
            return self.close(Refusal::TooLarge.reply());
        }
        let refusal = match self.state {
            _ if self.needs_tls() => needs_tls(),
            _ if !self.offered.esmtp => out_of_order("Send EHLO first"),
            State::Envelope(Transaction { recipients: 0, .. }) => self.no_recipients(),
            State::Envelope(transaction) => {
                let is_binary = transaction.body == BodyType::Binary;
                let collector = Box::new(Collector::new(limit, is_binary));
                self.state = State::Chunks(transaction, collector);
                return self.begin_chunk(octets, is_last);
            }
            State::Chunks(..) => return self.begin_chunk(octets, is_last),
            _ => out_of_order("Need MAIL and RCPT commands first"),
        };
        self.refused_chunk = Some(RefusedChunk { left: octets, reply: refusal });
        Step::Chunk
    }

    fn begin_chunk(&mut self, octets: u64, is_last: bool) -> Step {
        if octets >= LARGE_CHUNK_OCTETS {
            self.commands = self.commands.saturating_sub(1);
        }
        if let State::Chunks(_, collector) = &mut self.state {
            collector.begin(octets, is_last);
        }
        Step::Chunk
    }

    /// Throws the octets of a refused chunk away, then answers it.
    pub(super) fn discard(&mut self, input: &mut BytesMut) -> Option<Step> {
        let refused = self.refused_chunk.as_mut()?;
        let share = usize::try_from(refused.left).map_or(input.len(), |left| left.min(input.len()));
        input.advance(share);
        refused.left = refused.left.saturating_sub(u64::try_from(share).unwrap_or(u64::MAX));
        if refused.left > 0 {
            return Some(Step::Read);
        }
        let refused = self.refused_chunk.take()?;
        Some(self.error(refused.reply))
    }

    /// Reads on in the message that DATA announced.
    pub(super) fn read_data(&mut self, input: &mut BytesMut) -> Step {
        let State::Data(_, decoder) = &mut self.state else { return Step::Close };
        if input.is_empty() {
            return Step::Read;
        }
        let progress = decoder.decode(input);
        input.advance(progress.consumed_bytes);
        if progress.ended {
            return self.end_of_data();
        }
        if let Some(refusal) = decoder.refusal() {
            self.discarded += u64::try_from(progress.consumed_bytes).unwrap_or(u64::MAX);
            if self.discarded > MAX_DISCARDED_OCTETS {
                return self.close(refusal.reply());
            }
        }
        Step::Read
    }

    /// The message that DATA announced is over.
    fn end_of_data(&mut self) -> Step {
        let State::Data(transaction, decoder) = std::mem::replace(&mut self.state, State::Ready) else {
            return Step::Close;
        };
        match decoder.finish() {
            Ok(body) => self.ask_message(transaction, body),
            Err(refusal) => {
                // After such a message the next bytes may be commands that somebody else's reading of its
                // line ends let through. They are not read.
                if refusal == Refusal::LineEnd {
                    self.state = State::Closed;
                }
                self.fail(transaction, &refusal.reply(), true)
            }
        }
    }

    /// A chunk is over. A transaction with a chunk that was refused is over, too: what comes of it is out of
    /// order, and its octets are thrown away (RFC 3030, section 2).
    pub(super) fn end_of_chunk(&mut self) -> Step {
        self.must_wait = false;
        let State::Chunks(transaction, mut collector) = std::mem::replace(&mut self.state, State::Ready)
        else {
            return Step::Close;
        };
        let is_last = collector.end_chunk();
        if let Some(refusal) = collector.refusal() {
            return self.fail(transaction, &refusal.reply(), is_last);
        }
        if !is_last {
            self.state = State::Chunks(transaction, collector);
            return Step::Reply(ok());
        }
        match collector.finish() {
            Ok(body) => self.ask_message(transaction, body),
            Err(refusal) => self.fail(transaction, &refusal.reply(), true),
        }
    }

    fn ask_message(&mut self, transaction: Transaction, body: bytes::Bytes) -> Step {
        self.end_transaction();
        self.asked = Some(Asked::Message(transaction));
        Step::Ask(Question::Message(body))
    }

    /// Ends a transaction whose message is refused before anybody sees it.
    fn fail(&mut self, transaction: Transaction, reply: &Reply, is_at_the_end: bool) -> Step {
        self.end_transaction();
        let replies = if is_at_the_end { self.replies_to_all(transaction, reply) } else { 1 };
        self.due.extend((0..replies).map(|_| Step::Reply(reply.clone())));
        Step::Abandon
    }

    fn end_transaction(&mut self) {
        self.messages += 1;
        self.commands = 0;
        self.must_wait = false;
        self.answers_message = true;
        self.forget_origin();
    }

    /// Returns how often a reply for all recipients is sent: LMTP has one for each (RFC 2033, section 4.2).
    fn replies_to_all(&self, transaction: Transaction, reply: &Reply) -> usize {
        match self.options.kind {
            Kind::Lmtp if reply.code() != 421 => transaction.recipients,
            _ => 1,
        }
    }

    /// Takes the answer to [`Question::Message`]; returns the replies to send, one at least.
    pub fn answer_message(&mut self, answer: Answer) -> Vec<Reply> {
        let Some(Asked::Message(transaction)) = self.asked.take() else { return vec![self.fault()] };
        let replies = match (answer, self.options.kind) {
            (Answer::All(reply), _) => vec![reply.clone(); self.replies_to_all(transaction, &reply)],
            (Answer::Each(mut each, _), Kind::Lmtp) => {
                // A recipient that nobody speaks for must not be taken for one that has the message.
                each.resize(transaction.recipients, unanswered());
                each
            }
            (Answer::Each(mut each, reply), Kind::Smtp) => {
                let is_wanted = transaction.prdr && transaction.recipients > 1;
                if is_wanted && each.len() == transaction.recipients {
                    each.insert(0, Reply::plain(353, ["One reply for each recipient follows"]));
                    each.push(reply);
                    each
                } else if reply.is_positive() && !each.iter().all(Reply::is_positive) {
                    // One 2xx would be taken for everybody's.
                    vec![unanswered()]
                } else {
                    vec![reply]
                }
            }
        };
        if replies.iter().any(|reply| reply.code() == 421) {
            self.state = State::Closed;
        }
        replies
    }

    fn no_recipients(&self) -> Reply {
        match self.options.kind {
            Kind::Smtp => Reply::new(554, EnhancedCode(5, 5, 1), "No valid recipients"),
            // RFC 2033, section 4.2: there are no replies to come.
            Kind::Lmtp => out_of_order("No valid recipients"),
        }
    }

    /// Whether the client must encrypt before it may do anything.
    pub(super) fn needs_tls(&self) -> bool {
        self.options.require_tls && self.client.tls.is_none()
    }
}

/// Returns the reply to what needs TLS (RFC 3207, section 4).
pub(super) fn needs_tls() -> Reply {
    Reply::new(530, EnhancedCode(5, 7, 0), "Must issue a STARTTLS command first")
}

fn unanswered() -> Reply {
    Reply::new(451, EnhancedCode(4, 3, 0), "Internal error, try again later")
}
