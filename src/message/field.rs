//! Header fields: where they begin and end in the bytes, and what they say.
//!
//! One splitter serves reading and rewriting, so that what is removed is exactly what was read. A field is
//! a line with a name and a colon and the lines after it that begin with a blank or a tab (RFC 5322,
//! section 2.2). Lines end with LF, with or without CR; a lone CR ends nothing.

use std::ops::Range;

use mail_parser::parsers::MessageStream;
use mail_parser::{Address, HeaderValue};
use memchr::memchr;

use super::{Header, Mailbox};

/// A line, with its continuation lines, of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A field. The ranges are offsets into the message: all of it with its line break, the name, the
    /// value without the line break.
    Field { all: Range<usize>, name: Range<usize>, value: Range<usize> },
    /// Neither a field nor the continuation of one.
    Stray(Range<usize>),
    /// A mailbox file's `From ` line, the first of all.
    Mailbox(Range<usize>),
}

/// Walks over the header of a message or a part.
pub(super) struct Lines<'a> {
    raw: &'a [u8],
    at: usize,
    is_done: bool,
}

impl<'a> Lines<'a> {
    /// Starts at the first byte.
    pub(super) fn new(raw: &'a [u8]) -> Self {
        Lines { raw, at: 0, is_done: false }
    }

    /// Returns where the walk stands. After the last line: where the body begins, behind the empty line.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    fn line_end(&self, from: usize) -> usize {
        match self.raw.get(from..).and_then(|rest| memchr(b'\n', rest)) {
            Some(position) => from + position + 1,
            None => self.raw.len(),
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        if self.is_done || self.at >= self.raw.len() {
            return None;
        }
        let start = self.at;
        let first_end = self.line_end(start);
        let first = self.raw.get(start..first_end).unwrap_or_default();
        // `mail-parser` and others take CR CR LF for an empty line, too.
        if first.strip_suffix(b"\n").is_some_and(|line| line.iter().all(|byte| *byte == b'\r')) {
            self.is_done = true;
            self.at = first_end;
            return None;
        }
        let mut end = first_end;
        while matches!(self.raw.get(end), Some(b' ' | b'\t')) {
            end = self.line_end(end);
        }
        self.at = end;
        if start == 0 && (first.starts_with(b"From ") || first.starts_with(b">From ")) {
            self.at = first_end;
            return Some(Line::Mailbox(start..first_end));
        }
        let starts_blank = matches!(first.first(), Some(b' ' | b'\t'));
        let Some(colon) = memchr(b':', first).filter(|_| !starts_blank) else {
            return Some(Line::Stray(start..end));
        };
        let name = first.get(..colon).unwrap_or_default().trim_ascii_end();
        if name.is_empty() || name.iter().any(|byte| byte.is_ascii_control() || *byte == b' ') {
            return Some(Line::Stray(start..end));
        }
        let whole = self.raw.get(start..end).unwrap_or_default();
        let mut value_end = end;
        if whole.ends_with(b"\n") {
            value_end -= if whole.ends_with(b"\r\n") { 2 } else { 1 };
        }
        Some(Line::Field {
            all: start..end,
            name: start..start + name.len(),
            value: start + colon + 1..value_end.max(start + colon + 1),
        })
    }
}

/// Reads one field. `name` and `value` are the bytes; the value is without its line break.
pub(super) fn read(name: &[u8], value: &[u8]) -> Header {
    let raw = String::from_utf8_lossy(value).into_owned();
    let value = if memchr(b'\n', value).is_none() && memchr::memmem::find(value, b"=?").is_none() {
        clean(raw.trim())
    } else {
        match MessageStream::new(&closed(value)).parse_unstructured() {
            HeaderValue::Text(text) => clean(text.trim()),
            _ => String::new(),
        }
    };
    Header { name: String::from_utf8_lossy(name).into_owned(), raw, value }
}

/// Reads the addresses of From, Reply-To, To or Cc, at most `limit` of them.
pub(super) fn mailboxes(raw_value: &str, limit: usize) -> Vec<Mailbox> {
    let mut found = Vec::new();
    let bytes = closed(raw_value.as_bytes());
    if let HeaderValue::Address(addresses) = MessageStream::new(&bytes).parse_address() {
        let mut take = |list: Vec<mail_parser::Addr<'_>>| {
            for address in list {
                if found.len() < limit {
                    found.push(Mailbox {
                        name: clean(address.name.as_deref().unwrap_or_default().trim()),
                        address: clean(address.address.as_deref().unwrap_or_default().trim()),
                    });
                }
            }
        };
        match addresses {
            Address::List(list) => take(list),
            Address::Group(groups) => groups.into_iter().for_each(|group| take(group.addresses)),
        }
    }
    found
}

/// A Content-Type or Content-Disposition: the first word in lower case and the parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parameterized {
    /// `type/subtype`, or the disposition, in lower case.
    pub(super) word: String,
    /// Names in lower case, values decoded (RFC 2231, and RFC 2047 where it should not be).
    pub(super) parameters: Vec<(String, String)>,
}

impl Parameterized {
    /// Reads the value of a field.
    pub(super) fn read(value: &[u8]) -> Self {
        match MessageStream::new(&closed(value)).parse_content_type() {
            HeaderValue::ContentType(parsed) => {
                let mut word = parsed.ctype().to_ascii_lowercase();
                if let Some(subtype) = parsed.subtype() {
                    word.push('/');
                    word.push_str(&subtype.to_ascii_lowercase());
                }
                let parameters = parsed
                    .attributes()
                    .unwrap_or_default()
                    .iter()
                    .map(|attribute| (attribute.name.to_ascii_lowercase(), attribute.value.to_string()))
                    .collect();
                Parameterized { word: clean(&word), parameters }
            }
            _ => Parameterized::default(),
        }
    }

    /// Returns the first parameter of a name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Returns the value with the line break that `mail-parser` needs to see the end.
fn closed(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 2);
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Replaces control characters, which encoded words can carry, by blanks.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)], body: &str) {
        let raw = text.as_bytes();
        let shown = |range: Range<usize>| std::str::from_utf8(&raw[range]).unwrap();
        let mut lines = Lines::new(raw);
        let mut found = Vec::new();
        for line in &mut lines {
            match line {
                Line::Field { name, value, .. } => found.push((shown(name), shown(value))),
                Line::Stray(all) => found.push(("?", shown(all))),
                Line::Mailbox(all) => found.push(("mbox", shown(all))),
            }
        }
        assert_eq!((found.as_slice(), shown(lines.offset()..raw.len())), (expected, body), "{text:?}");
    }

    #[test]
    fn fields_are_cut_at_line_breaks_that_no_blank_follows() {
        check("A: 1\r\nB:2\r\n\r\nbody", &[("A", " 1"), ("B", "2")], "body");
        check("A: 1\n 2\n\t3\nB:\n\nbody", &[("A", " 1\n 2\n\t3"), ("B", "")], "body");
        check("A : 1\nB", &[("A", " 1"), ("?", "B")], "");
        check("\r\nbody", &[], "body");
        check("", &[], "");
        check("From x\nA:1\n\n", &[("mbox", "From x\n"), ("A", "1")], "");
        check(" x\n: y\nhello there: z\n\n", &[("?", " x\n"), ("?", ": y\n"), ("?", "hello there: z\n")], "");
        check("A:1", &[("A", "1")], "");
        check("A: 1\r\n\r\r\nbody", &[("A", " 1")], "body");
        check("A:\r\n \r\nB:2\r\n", &[("A", "\r\n "), ("B", "2")], "");
    }

    #[test]
    fn values_are_unfolded_and_decoded_without_control_characters() {
        for (raw, expected) in [
            (" plain ", "plain"),
            (" one\r\n two", "one two"),
            (" =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?q?_aus?=", "Grüße aus"),
            (" =?utf-8?q?a=0D=0ABcc:_x?=", "a  Bcc: x"),
            (" =?unknown?q?a?=", "a"),
            (" =?utf-8?x?a?=", "=?utf-8?x?a?="),
            ("", ""),
        ] {
            assert_eq!(read(b"Subject", raw.as_bytes()).value, expected, "{raw:?}");
        }
    }

    #[test]
    fn mailboxes_are_read_with_their_names() {
        let names = |raw: &str| -> Vec<(String, String)> {
            mailboxes(raw, 3).into_iter().map(|mailbox| (mailbox.name, mailbox.address)).collect()
        };
        let pair = |name: &str, address: &str| (name.to_owned(), address.to_owned());
        assert_eq!(names(" \"Doe, Jane\" <jane@example.org>"), [pair("Doe, Jane", "jane@example.org")]);
        assert_eq!(
            names("a@example.org, B <b@example.org>"),
            [pair("", "a@example.org"), pair("B", "b@example.org")]
        );
        assert_eq!(names("=?utf-8?q?J=C3=B6?= <j@example.org>"), [pair("Jö", "j@example.org")]);
        assert_eq!(names("undisclosed-recipients:;"), []);
        assert_eq!(names("a@x, b@x, c@x, d@x").len(), 3);
    }
}
