//! Scripts of whole sessions, without sockets.

mod chunks;
mod client;
mod recipients;
mod session;

use bytes::BytesMut;

use super::*;

const DATA: &str = "S: 354 End data with <CR><LF>.<CR><LF>";
const OK_MAIL: &str = "S: 250 2.1.0 Ok";
const OK_RCPT: &str = "S: 250 2.1.5 Ok";
const OK: &str = "S: 250 2.0.0 Ok";
/// Ends a flight: what follows it is sent when everything before has been answered.
const WAIT: char = '\u{23ce}';

/// Plays the client's lines to a session and decides for it: recipients whose name begins with `no` are
/// refused, `a` with the password `b` may sign in, and a message is answered with `answer`.
struct Player {
    options: Options,
    offers: Offers,
    answer: Answer,
}

impl Default for Player {
    fn default() -> Self {
        Player {
            options: Options::new("mx.example"),
            offers: Offers::default(),
            answer: Answer::All(Reply::new(250, EnhancedCode(2, 0, 0), "Kept")),
        }
    }
}

impl Player {
    /// Checks the log after the greeting, for every way to cut each flight into equal pieces.
    fn check(&self, input: &str, expected: &[&str]) {
        for cut in [1, 2, 3, 5, 11, input.len().max(1)] {
            let log = self.play(input.as_bytes(), cut);
            assert_eq!(log.first().map(String::as_str), Some(self.greeting()));
            assert_eq!(&log[1..], expected, "{input:?} cut at {cut}");
        }
    }

    fn greeting(&self) -> &'static str {
        match self.options.kind {
            Kind::Smtp => "S: 220 mx.example ESMTP",
            Kind::Lmtp => "S: 220 mx.example LMTP",
        }
    }

    /// Returns what happened, one line each.
    fn play(&self, input: &[u8], cut: usize) -> Vec<String> {
        let mut session = Session::new(self.options.clone(), "192.0.2.1:25".parse().unwrap());
        let wait = WAIT.to_string();
        let mut pieces: VecDeque<Vec<u8>> = VecDeque::new();
        let mut rest = input;
        while !rest.is_empty() {
            let end = memchr::memmem::find(rest, wait.as_bytes()).unwrap_or(rest.len());
            pieces.extend(rest[..end].chunks(cut).map(<[u8]>::to_vec));
            rest = rest.get(end + wait.len()..).unwrap_or_default();
        }
        let mut buffer = BytesMut::new();
        let mut log = Vec::new();
        loop {
            match session.step(&mut buffer) {
                Step::Read => match pieces.pop_front() {
                    Some(piece) => buffer.extend_from_slice(&piece),
                    None => return log,
                },
                Step::Reply(reply) => log.push(shown(&reply)),
                Step::Abandon => log.push("abandon".to_owned()),
                Step::Chunk => assert!(session.is_in_data()),
                Step::StartTls(reply) => {
                    log.push(shown(&reply));
                    session.secured(tls());
                }
                Step::Close => {
                    log.extend(
                        session.misconduct().map(|misconduct| format!("cause {}", misconduct.as_str())),
                    );
                    log.push("close".to_owned());
                    return log;
                }
                Step::Ask(question) => self.decide(&mut session, question, &mut log),
            }
        }
    }

    fn decide(&self, session: &mut Session, question: Question, log: &mut Vec<String>) {
        let reply = match question {
            Question::Offers => session.offer(self.offers.clone()),
            Question::SignIn(step) => session.sign_in_answer(match step {
                SignIn::Begin(Mechanism::Login, None) => SignInAnswer::Challenge(b"User Name".to_vec()),
                SignIn::Begin(_, None) => SignInAnswer::Challenge(Vec::new()),
                SignIn::Begin(_, Some(secret)) | SignIn::Response(secret) if secret == b"\0a\0b" => {
                    SignInAnswer::Done("a".to_owned(), Reply::new(235, EnhancedCode(2, 7, 0), "In"))
                }
                _ => SignInAnswer::Refused(Reply::new(535, EnhancedCode(5, 7, 8), "No")),
            }),
            Question::Mail(mail) => {
                let path = mail.reverse_path.map(|path| path.to_path()).unwrap_or_default();
                log.push(format!("mail <{path}>{}", origin(session.client())));
                session.answer(Reply::new(250, EnhancedCode(2, 1, 0), "Ok"))
            }
            Question::Rcpt(to) if to.address.local().starts_with("no") => {
                session.answer(Reply::new(550, EnhancedCode(5, 1, 1), "Unknown"))
            }
            Question::Rcpt(to) => {
                log.push(format!("rcpt <{}>", to.address.to_path()));
                session.answer(Reply::new(250, EnhancedCode(2, 1, 5), "Ok"))
            }
            Question::Message(body) => {
                log.push(format!("message {:?}", String::from_utf8_lossy(&body)));
                let replies = session.answer_message(self.answer.clone());
                log.extend(replies.iter().map(shown));
                return;
            }
        };
        log.push(shown(&reply));
    }
}

fn shown(reply: &Reply) -> String {
    let wire = reply.to_wire();
    format!("S: {}", wire.strip_suffix("\r\n").unwrap().replace("\r\n", "|"))
}

/// What is remarkable about a client.
fn origin(client: &Client) -> String {
    let mut text = String::new();
    if client.peer.to_string() != "192.0.2.1:25" || client.address != client.peer {
        text += &format!(" by {} from {} helo {}", client.peer, client.address, client.helo);
    }
    if let Some(login) = &client.login {
        text += &format!(" as {login}");
    }
    if client.tls.is_some() {
        text += " over TLS";
    }
    text
}

fn tls() -> crate::mail::Tls {
    crate::mail::Tls { version: "TLSv1.3", cipher: "X".to_owned(), client_fingerprint: None }
}

/// The reply to EHLO, with the lines after LIMITS, each after a `|`, and those before it where `extensions`
/// has a `^` after them.
fn ehlo(extensions: &str) -> String {
    let (before, after) = extensions.split_once('^').unwrap_or(("", extensions));
    let lines = format!(
        "mx.example|PIPELINING|SIZE 52428800|8BITMIME|SMTPUTF8|ENHANCEDSTATUSCODES|CHUNKING{before}|PRDR|\
         LIMITS RCPTMAX=500 MAILMAX=1000{after}"
    );
    let (all, last) = lines.rsplit_once('|').unwrap();
    format!("S: 250-{}|250 {last}", all.replace('|', "|250-"))
}
