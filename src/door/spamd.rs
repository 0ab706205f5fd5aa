//! SpamAssassin's `spamd` protocol, SPAMC/1.5: what `spamc` and the plugins of many mail servers speak.
//!
//! A request is a line `METHOD SPAMC/VERSION`, header lines, an empty line and the message. What `PROCESS`
//! and `HEADERS` add to a message: `X-Spam-Checker-Version`, `X-Spam-Level`, `X-Spam-Status`, and
//! `X-Spam-Flag: YES` where it is spam; fields of these names that it came with are removed. The threshold
//! that is shown is the one from which on mail is kept.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::{Answer, Current, HEAD_BYTES, IDLE, Question, Service};
use crate::learn::Label;
use crate::mail::Address;
use crate::message::{self, HeaderEdits};

/// How a request failed, as sysexits has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Usage(&'static str),
    Protocol(&'static str),
    TooLarge,
    Temporary,
    Refused,
}

impl Failure {
    fn line(self) -> String {
        let (code, name, words) = match self {
            Failure::Usage(words) => (64, "EX_USAGE", words),
            Failure::Protocol(words) => (76, "EX_PROTOCOL", words),
            Failure::TooLarge => (98, "EX_TOOBIG", "the message is too large"),
            Failure::Temporary => (75, "EX_TEMPFAIL", "try again later"),
            Failure::Refused => (77, "EX_NOPERM", "teaching is not allowed here"),
        };
        format!("SPAMD/1.0 {code} {name}: {words}\r\n")
    }
}

/// The head of a request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    method: String,
    length: Option<usize>,
    user: Option<String>,
    is_compressed: bool,
    class: Option<Label>,
    sets: bool,
    removes: bool,
}

/// Answers one connection: one request.
///
/// # Errors
/// What the stream says.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, service: Current) -> io::Result<()> {
    let service = service.load_full();
    let answer = match read(&mut stream, &service).await? {
        Ok((head, raw)) => match respond(&head, raw, &service).await {
            Ok(answer) => answer,
            Err(failure) => failure.line().into_bytes(),
        },
        Err(failure) => failure.line().into_bytes(),
    };
    timeout(IDLE, stream.write_all(&answer)).await??;
    timeout(IDLE, stream.shutdown()).await?
}

type Request = Result<(Head, Bytes), Failure>;

/// Reads a request whole.
async fn read<S: AsyncRead + Unpin>(stream: &mut S, service: &Service) -> io::Result<Request> {
    let mut buffer = BytesMut::with_capacity(8 << 10);
    let (head_len, head) = loop {
        if let Some(end) = head_end(&buffer) {
            match parse(buffer.get(..end).unwrap_or_default()) {
                Ok(head) => break (end, head),
                Err(failure) => return Ok(Err(failure)),
            }
        }
        if buffer.len() > HEAD_BYTES {
            return Ok(Err(Failure::Protocol("the head is too long")));
        }
        if timeout(IDLE, stream.read_buf(&mut buffer)).await?? == 0 {
            // A client that sends nothing but a method leaves the empty line out.
            match parse(&buffer) {
                Ok(head) => break (buffer.len(), head),
                Err(failure) => return Ok(Err(failure)),
            }
        }
    };
    let mut body = buffer.split_off(head_len);
    if matches!(head.method.as_str(), "PING" | "SKIP") {
        return Ok(Ok((head, Bytes::new())));
    }
    if head.length.is_some_and(|length| length > service.message_bytes) {
        return Ok(Err(Failure::TooLarge));
    }
    while head.length.is_none_or(|length| body.len() < length) {
        if timeout(IDLE, stream.read_buf(&mut body)).await?? == 0 {
            break;
        }
        if body.len() > service.message_bytes {
            return Ok(Err(Failure::TooLarge));
        }
    }
    match head.length {
        Some(length) if body.len() < length => {
            return Ok(Err(Failure::Protocol("the message ended before its length")));
        }
        Some(length) => body.truncate(length),
        None => {}
    }
    let raw = if head.is_compressed {
        match message::inflate_zlib(&body, service.message_bytes) {
            Some(raw) => raw.into(),
            None => return Ok(Err(Failure::Protocol("the message cannot be decompressed"))),
        }
    } else {
        body.freeze()
    };
    Ok(Ok((head, raw)))
}

/// Returns where the head ends, behind the empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let crlf = memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4);
    let lf = memchr::memmem::find(bytes, b"\n\n").map(|at| at + 2);
    [crlf, lf].into_iter().flatten().min()
}

fn parse(bytes: &[u8]) -> Result<Head, Failure> {
    let text = std::str::from_utf8(bytes).map_err(|_| Failure::Protocol("the head is not text"))?;
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let (method, version) = first.split_once(' ').ok_or(Failure::Protocol("bad request line"))?;
    if !version.trim().starts_with("SPAMC/") {
        return Err(Failure::Protocol("bad request line"));
    }
    let mut head = Head { method: method.to_ascii_uppercase(), ..Head::default() };
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(Failure::Protocol("bad header line"))?;
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "content-length" => {
                let length = value.parse().map_err(|_| Failure::Protocol("bad content length"))?;
                head.length = Some(length);
            }
            "user" => head.user = Some(value.to_owned()),
            "compress" if value.eq_ignore_ascii_case("zlib") => head.is_compressed = true,
            "compress" => return Err(Failure::Protocol("this compression is not known")),
            "message-class" => {
                head.class = Some(match value.to_ascii_lowercase().as_str() {
                    "spam" => Label::Spam,
                    "ham" => Label::Ham,
                    _ => return Err(Failure::Usage("a class is spam or ham")),
                });
            }
            "set" => head.sets = value.split(',').any(|what| what.trim().eq_ignore_ascii_case("local")),
            "remove" => head.removes = value.split(',').any(|what| what.trim().eq_ignore_ascii_case("local")),
            _ => {}
        }
    }
    Ok(head)
}

impl Head {
    /// Returns the person whose mail it is, where the client names one by an address: `spamc -u`.
    fn person(&self) -> Option<Address> {
        self.user.as_deref().and_then(|user| Address::parse(user).ok())
    }
}

async fn respond(head: &Head, raw: Bytes, service: &Service) -> Result<Vec<u8>, Failure> {
    match head.method.as_str() {
        "PING" => return Ok(b"SPAMD/1.5 0 PONG\r\n".to_vec()),
        "SKIP" => return Ok(Vec::new()),
        "TELL" => return tell(head, raw, service).await,
        "CHECK" | "SYMBOLS" | "REPORT" | "REPORT_IFSPAM" | "PROCESS" | "HEADERS" => {}
        _ => return Err(Failure::Protocol("this method is not known")),
    }
    let question = Question { recipients: head.person().into_iter().collect(), ..Question::default() };
    let answer = service.ask(raw.clone(), question).await.map_err(|_| Failure::Temporary)?;
    let body = match head.method.as_str() {
        "SYMBOLS" => answer.symbols(",").into_bytes(),
        "REPORT" => report(&answer).into_bytes(),
        "REPORT_IFSPAM" if answer.is_spam() => report(&answer).into_bytes(),
        "PROCESS" => marked(&answer, &raw, true),
        "HEADERS" => marked(&answer, &raw, false),
        _ => Vec::new(),
    };
    let verdict = if answer.is_spam() { "True" } else { "False" };
    let mut out = b"SPAMD/1.1 0 EX_OK\r\n".to_vec();
    if head.method != "CHECK" {
        out.extend_from_slice(format!("Content-length: {}\r\n", body.len()).as_bytes());
    }
    let spam = format!("Spam: {verdict} ; {:.1} / {:.1}\r\n\r\n", answer.score(), answer.required());
    out.extend_from_slice(spam.as_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

/// Learns. A lesson cannot be taken back here; the other class corrects it.
async fn tell(head: &Head, raw: Bytes, service: &Service) -> Result<Vec<u8>, Failure> {
    if !service.may_teach {
        return Err(Failure::Refused);
    }
    let label = match (head.sets, head.class, head.removes) {
        (true, Some(label), _) => label,
        (true, None, _) => return Err(Failure::Usage("what is set needs a class")),
        (false, _, true) => {
            return Err(Failure::Usage("lessons are corrected by the other class, not removed"));
        }
        (false, _, false) => return Err(Failure::Usage("nothing is set")),
    };
    let is_new = service.teach(raw, label, head.person()).await.map_err(|_| Failure::Temporary)?;
    let did = if is_new { "DidSet: local\r\n" } else { "" };
    Ok(format!("SPAMD/1.1 0 EX_OK\r\n{did}Content-length: 2\r\n\r\n\r\n").into_bytes())
}

/// Writes the table of what was found, for people.
fn report(answer: &Answer) -> String {
    let mut out = format!(
        "Content analysis details:   ({:.1} points, {:.1} required)\n\n pts rule name              description\n\
         ---- ---------------------- --------------------------------------------------\n",
        answer.score(),
        answer.required()
    );
    for finding in answer.findings() {
        let points = finding.score.points();
        out.push_str(&format!(
            "{points:4.1} {:<22} {}\n",
            finding.symbol.as_str(),
            plain(finding.explanation.expose())
        ));
    }
    out
}

/// Leaves out what moves a terminal or ends a line.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns the message, or its header alone, with our fields on top.
fn marked(answer: &Answer, raw: &Bytes, with_body: bool) -> Vec<u8> {
    let mut edits = HeaderEdits::new();
    for (name, value) in answer.marks() {
        if edits.prepend(name, &value).is_err() {
            // Our own names and numbers always fit; symbols are letters, digits and `_`.
            tracing::error!(name, "a field could not be added");
        }
    }
    let forged = |name: &str| name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("x-spam-"));
    let mut message = edits.apply(raw, forged).concat();
    if let Some(end) = head_end(&message).filter(|_| !with_body) {
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_or_refused() {
        let check = |text: &str, expected: Result<Head, Failure>| {
            assert_eq!(parse(text.as_bytes()), expected, "{text}")
        };
        check("PING SPAMC/1.2\r\n", Ok(Head { method: "PING".to_owned(), ..Head::default() }));
        check(
            "CHECK SPAMC/1.5\r\nContent-length: 12\r\nUser: a@example.org\r\nCompress: zlib\r\n\r\n",
            Ok(Head {
                method: "CHECK".to_owned(),
                length: Some(12),
                user: Some("a@example.org".to_owned()),
                is_compressed: true,
                ..Head::default()
            }),
        );
        check(
            "TELL SPAMC/1.5\r\nMessage-class: spam\r\nSet: local, remote\r\n\r\n",
            Ok(Head { method: "TELL".to_owned(), class: Some(Label::Spam), sets: true, ..Head::default() }),
        );
        check("GET / HTTP/1.1\r\n\r\n", Err(Failure::Protocol("bad request line")));
        check(
            "CHECK SPAMC/1.5\r\nContent-length: many\r\n\r\n",
            Err(Failure::Protocol("bad content length")),
        );
        check("CHECK SPAMC/1.5\r\nnonsense\r\n\r\n", Err(Failure::Protocol("bad header line")));
        check(
            "CHECK SPAMC/1.5\r\nCompress: lzma\r\n\r\n",
            Err(Failure::Protocol("this compression is not known")),
        );
    }

    proptest::proptest! {
        #[test]
        fn any_head_is_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            drop(parse(&bytes));
        }
    }
}
