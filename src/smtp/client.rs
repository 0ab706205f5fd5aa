//! What a server answers, read with suspicion (RFC 5321, section 4.2).
//!
//! A next hop may be broken or hostile: a reply is bounded in every direction, its lines must agree on one
//! code, and whatever is not a reply is an error, never a guess.

use bytes::BytesMut;
use thiserror::Error;

use crate::mail::{EnhancedCode, Reply};

/// The longest line of a reply, in bytes with its CR LF (the RFC's limit is 512).
pub const MAX_LINE_BYTES: usize = 2048;
/// The largest number of lines in a reply.
pub const MAX_LINES: usize = 128;

/// Why bytes are no reply. Never repeats them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// A line is longer than [`MAX_LINE_BYTES`].
    #[error("a line of the reply is too long")]
    LineTooLong,
    /// There are more than [`MAX_LINES`] lines.
    #[error("the reply has too many lines")]
    TooManyLines,
    /// A line does not begin with a code of 200 to 599 and a separator, or does not end with CR LF.
    #[error("a line of the reply is malformed")]
    Malformed,
    /// The lines do not have one code.
    #[error("the lines of the reply have different codes")]
    CodesDiffer,
}

/// A reply in the making.
#[derive(Debug, Default)]
pub struct ReplyParser {
    code: Option<u16>,
    lines: Vec<(Option<EnhancedCode>, String)>,
    /// Bytes at the front of the input that are known to have no LF.
    searched: usize,
}

impl ReplyParser {
    /// Takes lines from the front of `input` until a reply is whole; `None` when more input is needed.
    ///
    /// The parser is then ready for the next reply. At most [`MAX_LINE_BYTES`] stay in the input.
    ///
    /// # Errors
    /// A [`ReplyError`], after which nothing of the connection can be trusted.
    pub fn parse(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
        loop {
            let unsearched = input.get(self.searched..).unwrap_or_default();
            let Some(end) = memchr::memchr(b'\n', unsearched).map(|at| self.searched + at + 1) else {
                self.searched = input.len();
                return if input.len() < MAX_LINE_BYTES { Ok(None) } else { Err(ReplyError::LineTooLong) };
            };
            self.searched = 0;
            if end > MAX_LINE_BYTES {
                return Err(ReplyError::LineTooLong);
            }
            let line = input.split_to(end);
            let is_last = self.take_line(&line)?;
            if is_last {
                let code = self.code.take().ok_or(ReplyError::Malformed)?;
                return Ok(Some(assemble(code, std::mem::take(&mut self.lines))));
            }
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<bool, ReplyError> {
        let line = line.strip_suffix(b"\r\n").ok_or(ReplyError::Malformed)?;
        if memchr::memchr2(b'\r', 0, line).is_some() {
            return Err(ReplyError::Malformed);
        }
        let (code, is_last, text) = match line {
            [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] => {
                let digit = |byte: &u8| u16::from(byte - b'0');
                let code = digit(a) * 100 + digit(b) * 10 + digit(c);
                match rest {
                    [] => (code, true, rest),
                    [b' ', text @ ..] => (code, true, text),
                    [b'-', text @ ..] => (code, false, text),
                    _ => return Err(ReplyError::Malformed),
                }
            }
            _ => return Err(ReplyError::Malformed),
        };
        if *self.code.get_or_insert(code) != code {
            return Err(ReplyError::CodesDiffer);
        }
        if self.lines.len() == MAX_LINES {
            return Err(ReplyError::TooManyLines);
        }
        self.lines.push(split_enhanced(code, &String::from_utf8_lossy(text)));
        Ok(is_last)
    }
}

/// Splits the enhanced code off a text; its class must be the reply's (RFC 2034, section 4).
fn split_enhanced(code: u16, text: &str) -> (Option<EnhancedCode>, String) {
    let read = || {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut numbers = word.split('.').map(|number| {
            let well_formed =
                (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
            well_formed.then(|| number.parse::<u16>().ok()).flatten()
        });
        let class = u8::try_from(numbers.next()??).ok()?;
        let (subject, detail) = (numbers.next()??, numbers.next()??);
        let agrees = numbers.next().is_none() && matches!(class, 2 | 4 | 5) && u16::from(class) == code / 100;
        agrees.then(|| (EnhancedCode(class, subject, detail), rest.to_owned()))
    };
    match read() {
        Some((enhanced, rest)) => (Some(enhanced), rest),
        None => (None, text.to_owned()),
    }
}

/// Makes one reply of lines: the enhanced code counts where all lines have the same, else it stays text.
fn assemble(code: u16, lines: Vec<(Option<EnhancedCode>, String)>) -> Reply {
    let first = lines.first().and_then(|line| line.0);
    let common = first.filter(|_| lines.iter().all(|line| line.0 == first));
    let texts = lines.into_iter().map(|(enhanced, text)| match enhanced {
        Some(enhanced) if common.is_none() => format!("{enhanced} {text}"),
        _ => text,
    });
    Reply::plain(code, texts).with_enhanced(common)
}

/// What a server offers in its reply to EHLO, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// SIZE with its limit in bytes; a limit of zero means that none is declared (RFC 1870).
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub start_tls: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// PRDR (draft-hall-prdr).
    pub prdr: bool,
    /// AUTH PLAIN (RFC 4954, RFC 4616).
    pub auth_plain: bool,
    /// AUTH LOGIN (draft-murchison-sasl-login).
    pub auth_login: bool,
    /// XFORWARD, with the attributes that it takes (Postfix, XFORWARD_README).
    pub xforward: Attributes,
    /// XCLIENT, with the attributes that it takes (Postfix, XCLIENT_README).
    pub xclient: Attributes,
}

/// The attributes of a client that XFORWARD or XCLIENT takes. None at all: it is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// NAME, the host name.
    pub name: bool,
    /// ADDR, the IP address.
    pub address: bool,
    /// PORT, the TCP port.
    pub port: bool,
    /// PROTO, the protocol.
    pub protocol: bool,
    /// HELO, the argument of the greeting.
    pub helo: bool,
    /// IDENT, the message's name in the log of who forwards it.
    pub ident: bool,
    /// SOURCE, whether the message comes from the forwarding host itself.
    pub source: bool,
    /// LOGIN, the name under which the client has signed in.
    pub login: bool,
}

impl Capabilities {
    /// Reads the lines after the first of a positive reply to EHLO. What is unknown or malformed is not
    /// offered.
    pub fn read(reply: &Reply) -> Self {
        let mut capabilities = Capabilities::default();
        for line in reply.lines().iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "SIZE" => {
                    capabilities.size = Some(words.next().and_then(|limit| limit.parse().ok()).unwrap_or(0));
                }
                "8BITMIME" => capabilities.eight_bit_mime = true,
                "SMTPUTF8" => capabilities.smtputf8 = true,
                "PIPELINING" => capabilities.pipelining = true,
                "CHUNKING" => capabilities.chunking = true,
                "BINARYMIME" => capabilities.binary_mime = true,
                "DSN" => capabilities.dsn = true,
                "STARTTLS" => capabilities.start_tls = true,
                "REQUIRETLS" => capabilities.require_tls = true,
                "PRDR" => capabilities.prdr = true,
                "AUTH" => {
                    for mechanism in words {
                        capabilities.auth_plain |= mechanism.eq_ignore_ascii_case("PLAIN");
                        capabilities.auth_login |= mechanism.eq_ignore_ascii_case("LOGIN");
                    }
                }
                "XFORWARD" => capabilities.xforward = Attributes::read(words),
                "XCLIENT" => capabilities.xclient = Attributes::read(words),
                _ => {}
            }
        }
        capabilities
    }
}

impl Attributes {
    fn read<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut attributes = Attributes::default();
        for name in names {
            match name.to_ascii_uppercase().as_str() {
                "NAME" => attributes.name = true,
                "ADDR" => attributes.address = true,
                "PORT" => attributes.port = true,
                "PROTO" => attributes.protocol = true,
                "HELO" => attributes.helo = true,
                "IDENT" => attributes.ident = true,
                "SOURCE" => attributes.source = true,
                "LOGIN" => attributes.login = true,
                _ => {}
            }
        }
        attributes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(wire: &[u8], cut: usize) -> Result<Vec<String>, ReplyError> {
        let mut parser = ReplyParser::default();
        let mut input = BytesMut::new();
        let mut replies = Vec::new();
        for piece in wire.chunks(cut) {
            input.extend_from_slice(piece);
            while let Some(reply) = parser.parse(&mut input)? {
                replies.push(reply.to_wire());
            }
        }
        Ok(replies)
    }

    fn check(wire: &str, expected: Result<&[&str], ReplyError>) {
        for cut in [1, 2, 3, 7, wire.len().max(1)] {
            let expected = expected.map(|replies| replies.iter().map(|reply| (*reply).to_owned()).collect());
            assert_eq!(parse(wire.as_bytes(), cut), expected, "{wire:?} cut at {cut}");
        }
    }

    #[test]
    fn replies_pass_through_unchanged() {
        check("250 2.1.5 Ok\r\n", Ok(&["250 2.1.5 Ok\r\n"]));
        check("250 Ok\r\n354 go\r\n", Ok(&["250 Ok\r\n", "354 go\r\n"]));
        check("550-5.7.509 no\r\n550 5.7.509 way\r\n", Ok(&["550-5.7.509 no\r\n550 5.7.509 way\r\n"]));
        check("550-5.1.1 no\r\n550 way\r\n", Ok(&["550-5.1.1 no\r\n550 way\r\n"]));
        check("250 2.0.0\r\n", Ok(&["250 2.0.0 \r\n"]));
        check("250\r\n", Ok(&["250 \r\n"]));
        check("250 5.1.1 odd\r\n", Ok(&["250 5.1.1 odd\r\n"]));
        check("250-a\r\n", Ok(&[]));
    }

    #[test]
    fn nonsense_is_an_error() {
        for wire in
            ["hello\r\n", "99 x\r\n", "650 x\r\n", "2500 x\r\n", "250 x\n", "250 a\rb\r\n", "\r\n", "+OK\r\n"]
        {
            check(wire, Err(ReplyError::Malformed));
        }
        check("250-a\r\n550 b\r\n", Err(ReplyError::CodesDiffer));
        check(&"250-a\r\n".repeat(MAX_LINES + 1), Err(ReplyError::TooManyLines));
        check(&format!("250 {}", "x".repeat(MAX_LINE_BYTES)), Err(ReplyError::LineTooLong));
        check(&format!("250 {}\r\n", "x".repeat(MAX_LINE_BYTES)), Err(ReplyError::LineTooLong));
    }

    #[test]
    fn capabilities_are_read_from_all_lines_but_the_first() {
        let reply = Reply::plain(250, ["SMTPUTF8", "size 1000", "8BITMIME", "auth=PLAIN", "PIPELINING"]);
        let expected = Capabilities {
            size: Some(1000),
            eight_bit_mime: true,
            pipelining: true,
            ..Capabilities::default()
        };
        assert_eq!(Capabilities::read(&reply), expected);
        let lines =
            ["DSN", "CHUNKING", "BINARYMIME", "DSN", "STARTTLS", "REQUIRETLS", "PRDR", "AUTH LOGIN plain"];
        let xforward = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE COLOUR";
        let reply = Reply::plain(250, lines.into_iter().chain([xforward, "XCLIENT addr LOGIN"]));
        let expected = Capabilities {
            chunking: true,
            binary_mime: true,
            dsn: true,
            start_tls: true,
            require_tls: true,
            prdr: true,
            auth_plain: true,
            auth_login: true,
            xforward: Attributes {
                name: true,
                address: true,
                port: true,
                protocol: true,
                helo: true,
                ident: true,
                source: true,
                login: false,
            },
            xclient: Attributes { address: true, login: true, ..Attributes::default() },
            ..Capabilities::default()
        };
        assert_eq!(Capabilities::read(&reply), expected);
        assert_eq!(Capabilities::read(&Reply::plain(250, ["a", "SIZE"])).size, Some(0));
        assert_eq!(Capabilities::read(&Reply::plain(250, ["a", "SIZE 99999999999999999999"])).size, Some(0));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_any_chunking_gives_the_same(
            lines in proptest::collection::vec("(250|550|4)?[- x]?[25.]{0,6} ?[ -~\r]{0,9}(\r\n|\n)?", 0..8),
            cut in 1usize..12,
        ) {
            let wire = lines.concat();
            prop_assert_eq!(parse(wire.as_bytes(), cut), parse(wire.as_bytes(), usize::MAX));
        }

        #[test]
        fn no_bytes_panic(wire in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _outcome = parse(&wire, 64);
        }
    }
}
