//! Changes to the header that are applied once, on the way out.

use bytes::Bytes;
use thiserror::Error;

use super::field::{Line, Lines};

/// Header changes that are applied once on the way out: the body bytes never change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    fields: Vec<u8>,
}

/// Why a header field cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidField {
    /// The name is empty, too long (76 bytes) or has a character other than printable ASCII without colon.
    #[error("the field name is malformed")]
    Name,
    /// The value has a control character: a line break would begin another field.
    #[error("the field value has a control character")]
    Control,
    /// A word of the value is too long for a line (RFC 5322, section 2.1.1).
    #[error("the field value has a word that fits in no line")]
    LongWord,
}

/// Where lines are folded, if there is a blank (RFC 5322, section 2.1.1).
const FOLD_AT: usize = 78;
/// Longest word of a value, so that a line stays under 998 bytes.
const WORD_BYTES: usize = 900;

impl HeaderEdits {
    /// Starts with no change.
    pub fn new() -> Self {
        HeaderEdits::default()
    }

    /// Adds a field on top of the header, below those that were added before it. Long values are folded at
    /// blanks.
    ///
    /// # Errors
    /// An [`InvalidField`] when the name or the value cannot stand in a header; nothing is added then.
    pub fn prepend(&mut self, name: &str, value: &str) -> Result<(), InvalidField> {
        if name.is_empty()
            || name.len() > 76
            || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
        {
            return Err(InvalidField::Name);
        }
        if value.chars().any(char::is_control) {
            return Err(InvalidField::Control);
        }
        if value.split(' ').any(|word| word.len() > WORD_BYTES) {
            return Err(InvalidField::LongWord);
        }
        let mut line_len = name.len() + 1;
        self.fields.extend_from_slice(name.as_bytes());
        self.fields.push(b':');
        for (index, word) in value.split(' ').filter(|word| !word.is_empty()).enumerate() {
            if index > 0 && line_len + 1 + word.len() > FOLD_AT {
                self.fields.extend_from_slice(b"\r\n");
                line_len = 0;
            }
            self.fields.push(b' ');
            self.fields.extend_from_slice(word.as_bytes());
            line_len += 1 + word.len();
        }
        self.fields.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Returns the message with the fields added on top, and without the header fields whose name satisfies
    /// `forged`, as slices of `raw` in order. The name is passed without white space; bytes that are not
    /// UTF-8 are replaced. The body, from the empty line on, is one untouched slice at the end.
    ///
    /// A message that begins with its text, without header or empty line, gets the empty line that keeps
    /// it text.
    pub fn apply(&self, raw: &Bytes, forged: impl Fn(&str) -> bool) -> Vec<Bytes> {
        let mut slices = Vec::new();
        let mut lines = Lines::new(raw);
        let mut kept_from = 0;
        let (mut fields, mut strays) = (0_usize, 0_usize);
        let mut added = (!self.fields.is_empty()).then(|| Bytes::copy_from_slice(&self.fields));
        let mut line = lines.next();
        if let Some(Line::Mailbox(range)) = &line {
            // It stays the first line: below other fields it would end the header for some readers.
            slices.push(raw.slice(range.clone()));
            kept_from = range.end;
            line = lines.next();
        }
        slices.extend(added.take());
        let header_from = kept_from;
        while let Some(current) = line {
            match current {
                Line::Field { all, name, .. } => {
                    fields += 1;
                    if forged(&String::from_utf8_lossy(raw.get(name).unwrap_or_default())) {
                        push(&mut slices, raw, kept_from, all.start);
                        kept_from = all.end;
                    }
                }
                Line::Stray(_) | Line::Mailbox(_) => strays += 1,
            }
            line = lines.next();
        }
        if fields == 0 && strays > 0 && !self.fields.is_empty() && header_from == kept_from {
            slices.push(Bytes::from_static(b"\r\n"));
        }
        push(&mut slices, raw, kept_from, raw.len());
        slices
    }
}

fn push(slices: &mut Vec<Bytes>, raw: &Bytes, from: usize, to: usize) {
    if from < to {
        slices.push(raw.slice(from..to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expected: &str) {
        let mut edits = HeaderEdits::new();
        edits.prepend("X-Ours", "1").unwrap();
        let raw = Bytes::copy_from_slice(raw.as_bytes());
        let slices = edits.apply(&raw, |name| name.to_ascii_lowercase().starts_with("x-forged"));
        assert_eq!(String::from_utf8_lossy(&slices.concat()), expected, "{raw:?}");
    }

    #[test]
    fn forged_fields_leave_with_their_continuation_lines() {
        check("A: 1\r\nX-Forged: 2\r\n\tmore\r\nB: 3\r\n\r\nbody", "X-Ours: 1\r\nA: 1\r\nB: 3\r\n\r\nbody");
        check("X-FORGED-1: 2\r\n x\r\nB: 3\r\n\r\nbody", "X-Ours: 1\r\nB: 3\r\n\r\nbody");
        check("B: 3\r\nx-forged : 2\r\n\r\nbody", "X-Ours: 1\r\nB: 3\r\n\r\nbody");
        check("X-Forged: 1\r\nX-Forged: 2", "X-Ours: 1\r\n");
        check("A: 1\nX-Forged: 2\n\nX-Forged: 3\n", "X-Ours: 1\r\nA: 1\n\nX-Forged: 3\n");
    }

    #[test]
    fn the_body_is_never_touched() {
        check("\r\nX-Forged: 1\r\n", "X-Ours: 1\r\n\r\nX-Forged: 1\r\n");
        check("", "X-Ours: 1\r\n");
        check("A: 1\r\n", "X-Ours: 1\r\nA: 1\r\n");
        check("just text\r\nmore", "X-Ours: 1\r\n\r\njust text\r\nmore");
        check("A: 1\r\nno colon\r\n\r\nbody", "X-Ours: 1\r\nA: 1\r\nno colon\r\n\r\nbody");
        check("From me\r\nX-Forged: 1\r\n\r\nb", "From me\r\nX-Ours: 1\r\n\r\nb");
        check("A: 1\r\rX-Forged: 2\r\n\r\nb", "X-Ours: 1\r\nA: 1\r\rX-Forged: 2\r\n\r\nb");
    }

    #[test]
    fn slices_share_the_bytes_of_the_message() {
        let raw = Bytes::from_static(b"A: 1\r\nX-Forged: 2\r\n\r\nbody");
        let slices = HeaderEdits::new().apply(&raw, |name| name == "X-Forged");
        assert_eq!(slices.len(), 2);
        assert_eq!(slices[1].as_ptr(), raw[19..].as_ptr());
    }

    #[test]
    fn long_values_are_folded_and_bad_ones_refused() {
        let mut edits = HeaderEdits::new();
        edits.prepend("X-Symbols", &["SYMBOL_NAME,"; 12].join(" ")).unwrap();
        let text = String::from_utf8(edits.fields.clone()).unwrap();
        assert!(text.lines().count() > 1 && text.lines().skip(1).all(|line| line.starts_with(' ')));
        assert!(text.lines().all(|line| line.len() <= 78));
        for (name, value, expected) in [
            ("X", "a\r\nBcc: b", InvalidField::Control),
            ("X", "a\0", InvalidField::Control),
            ("X:", "a", InvalidField::Name),
            ("X Y", "a", InvalidField::Name),
            ("", "a", InvalidField::Name),
            ("X", &"a".repeat(1_000), InvalidField::LongWord),
        ] {
            assert_eq!(edits.prepend(name, value), Err(expected));
        }
        assert_eq!(String::from_utf8(edits.fields).unwrap(), text);
    }
}
