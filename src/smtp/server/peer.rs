//! Who the client is: STARTTLS, AUTH, and what a trusted peer says of the client behind it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

use crate::mail::{Client, EnhancedCode, Reply, Tls};
use crate::smtp::command::{self, Offered, SyntaxError};
use crate::smtp::forward::Report;
use crate::smtp::server::{
    Asked, Misconduct, Offers, Question, Session, SignIn, SignInAnswer, State, Step, not_offered, ok,
    out_of_order,
};

/// Sign-ins that may be refused before the session ends.
const MAX_REFUSED_SIGN_INS: usize = 3;

impl Session {
    /// STARTTLS (RFC 3207). What came with the command was sent in clear, by whomever: it is never read.
    pub(super) fn start_tls(&mut self, input: &mut BytesMut) -> Step {
        if self.client.tls.is_some() {
            return self.error(out_of_order("TLS is active already"));
        }
        if !self.options.starttls {
            return self.error(not_offered());
        }
        if !self.offered.esmtp {
            return self.error(out_of_order("Send EHLO first"));
        }
        if self.is_in_transaction() {
            return self.error(out_of_order("STARTTLS within a transaction"));
        }
        if !input.is_empty() {
            input.clear();
            return self.turn_away(Misconduct::Pipelining);
        }
        Step::StartTls(Reply::new(220, EnhancedCode(2, 0, 0), "Ready to start TLS"))
    }

    /// The connection is encrypted from here on. Everything that was said before is forgotten: greeting,
    /// offers, sign-in, what a trusted peer told (RFC 3207, section 4.2).
    pub fn secured(&mut self, tls: Tls) {
        self.client = Client::new(self.peer);
        self.client.tls = Some(tls);
        self.forget();
        self.reported = Report::default();
        self.state = State::Start;
    }

    /// AUTH (RFC 4954).
    pub(super) fn auth(&mut self, begin: SignIn) -> Step {
        if self.is_in_transaction() {
            return self.error(out_of_order("AUTH within a transaction"));
        }
        if !self.offered.esmtp {
            return self.error(out_of_order("Send EHLO first"));
        }
        if self.client.login.is_some() {
            return self.error(out_of_order("Already signed in"));
        }
        if !self.offered.auth {
            let reply = if self.offers.mechanisms.is_empty() {
                not_offered()
            } else {
                Reply::new(538, EnhancedCode(5, 7, 11), "Encryption required, use STARTTLS")
            };
            return self.error(reply);
        }
        if !matches!(begin, SignIn::Begin(mechanism, _) if self.offers.mechanisms.contains(&mechanism)) {
            return self.error(SyntaxError::Mechanism.reply());
        }
        self.ask_sign_in(begin)
    }

    /// A line of a client that is signing in.
    pub(super) fn response(&mut self, line: &[u8]) -> Step {
        self.state = State::Ready;
        match command::parse_base64(line) {
            Ok(response) => self.ask_sign_in(SignIn::Response(response)),
            // `*` and what is no base64 alike: whoever decides must know that it is over.
            Err(_) => self.ask_sign_in(SignIn::Cancel),
        }
    }

    fn ask_sign_in(&mut self, step: SignIn) -> Step {
        self.asked = Some(Asked::SignIn { is_cancelled: matches!(step, SignIn::Cancel) });
        Step::Ask(Question::SignIn(step))
    }

    /// Takes the answer to [`Question::SignIn`]; returns the reply to send.
    pub fn sign_in_answer(&mut self, answer: SignInAnswer) -> Reply {
        let Some(Asked::SignIn { is_cancelled }) = self.asked.take() else { return self.fault() };
        if is_cancelled {
            let reply = Reply::new(501, EnhancedCode(5, 7, 0), "Authentication cancelled");
            self.refuse_sign_in();
            return reply;
        }
        match answer {
            SignInAnswer::Challenge(challenge) => {
                self.state = State::SigningIn;
                Reply::plain(334, [STANDARD.encode(challenge)])
            }
            SignInAnswer::Done(login, reply) if reply.is_positive() => {
                self.client.login = Some(login);
                self.find_origin();
                reply
            }
            SignInAnswer::Done(_, reply) | SignInAnswer::Refused(reply) => {
                if reply.code() == 421 {
                    self.state = State::Closed;
                } else {
                    self.refuse_sign_in();
                }
                reply
            }
        }
    }

    fn refuse_sign_in(&mut self) {
        self.errors += 1;
        self.refused_sign_ins += 1;
        if self.refused_sign_ins >= MAX_REFUSED_SIGN_INS {
            let last = self.turn_away(Misconduct::SignIn);
            self.due.push_back(last);
        }
    }

    /// XCLIENT from a trusted peer: the session begins anew, as the other client's.
    pub(super) fn xclient(&mut self, report: Report) -> Step {
        // It may be repeated: the values do not fit into one line.
        let is_offered = self.offered.esmtp || self.reported != Report::default();
        if let Some(refusal) = self.refuse_report(self.options.xclient, is_offered) {
            return refusal;
        }
        self.reported.merge(report);
        let tls = self.client.tls.take();
        self.client = Client::new(self.peer);
        self.client.tls = tls;
        self.reported.impersonate(&mut self.client);
        self.forget();
        self.state = State::Start;
        Step::Reply(self.greeting())
    }

    /// XFORWARD from a trusted peer: the next transaction's mail comes from elsewhere.
    pub(super) fn xforward(&mut self, report: Report) -> Step {
        if let Some(refusal) = self.refuse_report(self.options.xforward, self.offered.esmtp) {
            return refusal;
        }
        self.forwarded.merge(report);
        self.find_origin();
        Step::Reply(ok())
    }

    fn find_origin(&mut self) {
        if self.forwarded != Report::default() {
            let mut origin = self.client.clone();
            self.forwarded.forward(&mut origin);
            self.origin = Some(origin);
        }
    }

    fn refuse_report(&mut self, is_trusted: bool, is_offered: bool) -> Option<Step> {
        if !is_trusted {
            Some(self.error(not_offered()))
        } else if !is_offered {
            Some(self.error(out_of_order("Send EHLO first")))
        } else if self.is_in_transaction() {
            Some(self.error(out_of_order("Not within a transaction")))
        } else {
            None
        }
    }

    /// Forgets what the client was offered and what was said of the next transaction.
    fn forget(&mut self) {
        self.offers = Offers::default();
        self.offered = Offered::default();
        self.forget_origin();
    }

    /// XFORWARD holds for one transaction.
    pub(super) fn forget_origin(&mut self) {
        self.origin = None;
        self.forwarded = Report::default();
    }
}
