//! What the reply to EHLO and LHLO offers.

use crate::mail::{Protocol, Reply};
use crate::smtp::command::Offered;
use crate::smtp::forward::{XCLIENT_ATTRIBUTES, XFORWARD_ATTRIBUTES};
use crate::smtp::server::{Asked, Kind, Offers, Question, Session, State, Step};

/// The largest number that LIMITS has digits for (RFC 9422, section 4).
const MAX_LIMIT: usize = 999_999;

impl Session {
    /// HELO: no extension, no question.
    pub(super) fn hello(&mut self, name: String) -> Step {
        self.introduce(name, Protocol::Smtp);
        let reply = Reply::plain(250, [self.options.name.clone()]);
        self.restart(Step::Reply(reply))
    }

    /// EHLO and LHLO: what is offered depends on the way onwards.
    pub(super) fn extended_hello(&mut self, name: String) -> Step {
        let protocol = match self.options.kind {
            Kind::Smtp => Protocol::Esmtp,
            Kind::Lmtp => Protocol::Lmtp,
        };
        self.introduce(name, protocol);
        self.restart(Step::Ask(Question::Offers))
    }

    fn introduce(&mut self, name: String, protocol: Protocol) {
        self.offers = Offers::default();
        self.offered = Offered::default();
        self.client.helo = name;
        self.client.protocol = protocol;
        self.reported.introduce(&mut self.client);
    }

    /// Takes the answer to [`Question::Offers`]; returns the reply to EHLO.
    pub fn offer(&mut self, offers: Offers) -> Reply {
        if self.asked.take() != Some(Asked::Offers) {
            return self.fault();
        }
        let is_secure = self.client.tls.is_some();
        self.offered = Offered {
            esmtp: true,
            binary_mime: offers.binary_mime,
            dsn: offers.dsn,
            require_tls: offers.require_tls && is_secure,
            prdr: self.options.kind == Kind::Smtp,
            auth: !offers.mechanisms.is_empty() && (is_secure || self.options.sign_in_in_clear),
        };
        self.offers = offers;
        self.state = State::Ready;
        Reply::plain(250, self.capabilities())
    }

    fn capabilities(&self) -> Vec<String> {
        let Session { options, offered, .. } = self;
        let mut lines = vec![options.name.clone()];
        let mut add = |is_offered: bool, line: &str| {
            if is_offered {
                lines.push(line.to_owned());
            }
        };
        add(true, "PIPELINING");
        add(true, &format!("SIZE {}", self.max_message_bytes()));
        add(true, "8BITMIME");
        add(true, "SMTPUTF8");
        add(true, "ENHANCEDSTATUSCODES");
        add(true, "CHUNKING");
        add(offered.binary_mime, "BINARYMIME");
        add(offered.dsn, "DSN");
        add(offered.require_tls, "REQUIRETLS");
        add(offered.prdr, "PRDR");
        let limits: String = [("RCPTMAX", options.limits.recipients), ("MAILMAX", options.limits.messages)]
            .iter()
            .filter(|(_, limit)| (1..=MAX_LIMIT).contains(limit))
            .map(|(name, limit)| format!(" {name}={limit}"))
            .collect();
        add(!limits.is_empty(), &format!("LIMITS{limits}"));
        add(self.offers_tls(), "STARTTLS");
        let mechanisms: String =
            self.offers.mechanisms.iter().map(|mechanism| format!(" {}", mechanism.as_str())).collect();
        add(offered.auth, &format!("AUTH{mechanisms}"));
        add(options.xclient, &format!("XCLIENT {XCLIENT_ATTRIBUTES}"));
        add(options.xforward, &format!("XFORWARD {XFORWARD_ATTRIBUTES}"));
        lines
    }

    /// The smaller one of our limit and the next hop's, where that has one (RFC 1870: zero is none).
    pub(super) fn max_message_bytes(&self) -> usize {
        let theirs = self.offers.size_bytes.filter(|&size| size > 0);
        let theirs = theirs.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
        self.options.limits.message_bytes.min(theirs)
    }

    pub(super) fn offers_tls(&self) -> bool {
        self.options.starttls && self.client.tls.is_none()
    }
}
