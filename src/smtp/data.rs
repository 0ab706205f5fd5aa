//! Framing of the message after DATA (RFC 5321, sections 4.1.1.4 and 4.5.2).
//!
//! The message ends at CR LF `.` CR LF and nowhere else. A CR without its LF, an LF without its CR, and a
//! NUL beside the dot that opens a line are what SMTP smuggling is made of: servers disagree whether they
//! end a line. A message with one of them is read to its true end and refused as a whole. What is accepted
//! has no line end but CR LF, so it can be sent on as it is.

use bytes::Bytes;
use memchr::memmem;

use crate::smtp::body::Body;

pub use crate::smtp::body::Refusal;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the first character of a line.
    LineStart,
    /// After NULs that open a line.
    LineStartNul,
    /// After the dot that opens a line.
    Dot,
    /// After the dot that opens a line, and a CR.
    DotCr,
    /// Within a line.
    Text,
    /// Within a line, after a CR.
    Cr,
}

/// Takes the dots off and finds the end, from pieces of any length.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    body: Body,
}

/// How far a piece of input was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Number of bytes used; less than were given only when `ended`.
    pub consumed_bytes: usize,
    /// Whether the end of the message was found.
    pub ended: bool,
}

/// What one look at the state calls for.
enum Action {
    /// The byte belongs to the message.
    Keep,
    /// The byte belongs to the framing.
    Skip,
    /// The byte ends the message.
    End,
}

impl Decoder {
    /// Expects a message of at most `max_bytes`, counted without the dots that framing added.
    pub fn new(max_bytes: usize) -> Self {
        Decoder { state: State::LineStart, body: Body::new(max_bytes) }
    }

    /// Returns why the message will be refused, as far as is known.
    pub fn refusal(&self) -> Option<Refusal> {
        self.body.refusal()
    }

    /// Gives the message up: what comes is read to the end and not kept. The first reason stands, unless
    /// a later one is [`Refusal::LineEnd`]: that one says that the end itself is doubtful.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.body.refuse(refusal);
    }

    /// Returns the number of bytes that the buffer holds memory for.
    pub fn capacity_bytes(&self) -> usize {
        self.body.capacity_bytes()
    }

    /// Returns the number of bytes that the buffer needs before it can take `incoming` more.
    pub fn capacity_for(&self, incoming: usize) -> usize {
        self.body.capacity_for(incoming)
    }

    /// Takes the next piece of input. After `ended`, the rest of the input belongs to the next command.
    pub fn decode(&mut self, input: &[u8]) -> Progress {
        self.body.reserve(input.len());
        // Bytes from `kept` on are part of the message and not yet copied: one copy for many lines.
        let mut kept = 0;
        let mut at = 0;
        while let Some(rest) = input.get(at..) {
            if self.state == State::Text {
                let Some(found) = memchr::memchr2(b'\r', b'\n', rest) else { break };
                at += found;
            }
            let Some(&byte) = input.get(at) else { break };
            match self.step(byte) {
                Action::Keep => at += 1,
                Action::Skip => {
                    self.body.keep(input.get(kept..at).unwrap_or_default());
                    at += 1;
                    kept = at;
                }
                Action::End => {
                    self.body.keep(input.get(kept..at).unwrap_or_default());
                    return Progress { consumed_bytes: at + 1, ended: true };
                }
            }
        }
        self.body.keep(input.get(kept..).unwrap_or_default());
        Progress { consumed_bytes: input.len(), ended: false }
    }

    /// Returns the message after its end, the CR LF before the last dot included.
    ///
    /// # Errors
    /// The [`Refusal`] that was earned on the way.
    pub fn finish(self) -> Result<Bytes, Refusal> {
        self.body.finish()
    }

    fn step(&mut self, byte: u8) -> Action {
        let (state, action, is_bad) = match (self.state, byte) {
            (State::LineStart, b'.') => (State::Dot, Action::Skip, false),
            (State::LineStartNul, b'.') => (State::Text, Action::Keep, true),
            (State::LineStart | State::LineStartNul, 0) => (State::LineStartNul, Action::Keep, false),
            (State::Dot, b'\r') => (State::DotCr, Action::Skip, false),
            (State::Dot, 0) => (State::Text, Action::Keep, true),
            (State::DotCr, b'\n') => (State::LineStart, Action::End, false),
            (State::DotCr, b'\r') => (State::Cr, Action::Keep, true),
            (State::DotCr, _) => (State::Text, Action::Keep, true),
            (State::Cr, b'\n') => (State::LineStart, Action::Keep, false),
            (State::Cr, b'\r') => (State::Cr, Action::Keep, true),
            (State::Cr, _) => (State::Text, Action::Keep, true),
            (_, b'\n') => (State::Text, Action::Keep, true),
            (_, b'\r') => (State::Cr, Action::Keep, false),
            (_, _) => (State::Text, Action::Keep, false),
        };
        self.state = state;
        if is_bad {
            self.refuse(Refusal::LineEnd);
        }
        action
    }
}

/// Whether every CR in a message stands before an LF and every LF after a CR, over the seams of its parts.
pub fn is_crlf_only(parts: &[Bytes]) -> bool {
    let mut after_cr = false;
    for part in parts {
        let mut rest: &[u8] = part;
        if after_cr && !rest.is_empty() {
            let Some(tail) = rest.strip_prefix(b"\n") else { return false };
            rest = tail;
            after_cr = false;
        }
        while let Some(found) = memchr::memchr2(b'\r', b'\n', rest) {
            match rest.get(found..).unwrap_or_default() {
                [b'\r', b'\n', tail @ ..] => rest = tail,
                [b'\r'] => {
                    after_cr = true;
                    rest = &[];
                }
                _ => return false,
            }
        }
    }
    !after_cr
}

/// The wire form of a message, in slices of the message itself: a dot before each dot that opens a line, a
/// CR LF where the last line has none, and the final dot.
///
/// The message must be [`is_crlf_only`].
#[derive(Debug)]
pub struct Encoder<'a> {
    parts: std::slice::Iter<'a, Bytes>,
    /// The unsent rest of the current part.
    rest: &'a [u8],
    /// The last two bytes sent of the message, as CR LF is judged by them.
    tail: [u8; 2],
    /// Whether the dot at the front of `rest` has had its second dot.
    dotted: bool,
    ended: bool,
}

impl<'a> Encoder<'a> {
    /// Starts at the first byte of a message in parts.
    pub fn new(parts: &'a [Bytes]) -> Self {
        Encoder { parts: parts.iter(), rest: &[], tail: *b"\r\n", dotted: false, ended: false }
    }
}

impl<'a> Iterator for Encoder<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.ended {
            return None;
        }
        while self.rest.is_empty() {
            match self.parts.next() {
                Some(part) => self.rest = part,
                None => {
                    self.ended = true;
                    return Some(if self.tail == *b"\r\n" { b".\r\n" } else { b"\r\n.\r\n" });
                }
            }
        }
        let at_line_start = self.tail.last() == Some(&b'\n');
        if at_line_start && self.rest.starts_with(b".") && !self.dotted {
            self.dotted = true;
            return Some(b".");
        }
        self.dotted = false;
        let len = memmem::find(self.rest, b"\n.").map_or(self.rest.len(), |found| found + 1);
        let (slice, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        self.tail = match *slice {
            [.., a, b] => [a, b],
            [b] => [self.tail[1], b],
            [] => self.tail,
        };
        Some(slice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes in pieces cut at the given lengths; returns the outcome and what was left of the input.
    fn decode(input: &[u8], max_bytes: usize, cuts: &[usize]) -> (Option<Result<Bytes, Refusal>>, Vec<u8>) {
        let mut decoder = Decoder::new(max_bytes);
        let mut at = 0;
        let mut cuts = cuts.iter().cycle();
        while at < input.len() {
            let len = (*cuts.next().unwrap()).clamp(1, input.len() - at);
            let progress = decoder.decode(&input[at..at + len]);
            at += progress.consumed_bytes;
            if progress.ended {
                return (Some(decoder.finish()), input[at..].to_vec());
            }
            assert_eq!(progress.consumed_bytes, len);
        }
        (None, Vec::new())
    }

    fn check(input: &str, expected: Option<Result<&str, Refusal>>, left: &str) {
        for cut in 1..=input.len() {
            let (outcome, rest) = decode(input.as_bytes(), 1000, &[cut]);
            let outcome = outcome.map(|result| result.map(|body| String::from_utf8(body.to_vec()).unwrap()));
            assert_eq!(outcome, expected.map(|result| result.map(str::to_owned)), "{input:?} cut at {cut}");
            assert_eq!(String::from_utf8(rest).unwrap(), left, "{input:?} cut at {cut}");
        }
    }

    #[test]
    fn a_message_ends_at_its_lone_dot_and_loses_the_added_ones() {
        check("a\r\n.\r\nQUIT\r\n", Some(Ok("a\r\n")), "QUIT\r\n");
        check(".\r\n", Some(Ok("")), "");
        check("..\r\n.a\r\n..b\r\n\r\n.\r\n", Some(Ok(".\r\na\r\n.b\r\n\r\n")), "");
        check("a\r\n.", None, "");
        check("a\r\n.\r", None, "");
        check("a\0b\r\n.\r\n", Some(Ok("a\0b\r\n")), "");
    }

    #[test]
    fn no_other_mixture_around_a_dot_ends_the_message_or_passes() {
        let ends = ["\n", "\r", "\r\n", "\n\r", "\r\r\n", "\r\n\0", "\0\r\n"];
        for before in ends {
            for after in ["\n", "\r", "\r\n", "\n\r", "\r\r\n", "\0\r\n"] {
                if before.ends_with("\r\n") && after == "\r\n" {
                    continue;
                }
                let input = format!("a{before}.{after}b\r\n.\r\nQUIT\r\n");
                check(&input, Some(Err(Refusal::LineEnd)), "QUIT\r\n");
            }
        }
        check("a\r\r\n.\r\nQUIT\r\n", Some(Err(Refusal::LineEnd)), "QUIT\r\n");
    }

    #[test]
    fn blanks_beside_the_dot_are_text() {
        check("a\r\n. \r\n.\t\r\n.\r\n", Some(Ok("a\r\n \r\n\t\r\n")), "");
        check("a\r\n .\r\n.\r\n", Some(Ok("a\r\n .\r\n")), "");
    }

    #[test]
    fn a_message_over_the_limit_is_read_to_its_end_without_being_held() {
        let input = format!("{}\r\n.\r\nNOOP\r\n", "x".repeat(5000));
        let (outcome, rest) = decode(input.as_bytes(), 1000, &[64]);
        assert_eq!((outcome, rest), (Some(Err(Refusal::TooLarge)), b"NOOP\r\n".to_vec()));
        let mut decoder = Decoder::new(1000);
        decoder.decode(&[b'x'; 5000]);
        assert_eq!((decoder.refusal(), decoder.capacity_bytes()), (Some(Refusal::TooLarge), 0));
        let exact = format!("{}\r\n..\r\n.\r\n", "x".repeat(95));
        assert!(decode(exact.as_bytes(), 100, &[7]).0.unwrap().is_ok());
        assert!(decode(exact.as_bytes(), 99, &[7]).0.unwrap().is_err());
    }

    #[test]
    fn the_buffer_never_asks_for_more_than_a_message_may_have() {
        for chunk in [1, 100, 700, 64 * 1024] {
            let input = "x".repeat(9_998) + "\r\n";
            let mut decoder = Decoder::new(10_000);
            for piece in input.as_bytes().chunks(chunk) {
                assert!(decoder.capacity_for(piece.len()) <= 10_000, "{chunk}");
                decoder.decode(piece);
                assert!(decoder.capacity_bytes() <= 10_000, "{chunk}");
            }
            decoder.decode(b".\r\n");
            assert_eq!(decoder.finish().unwrap().len(), 10_000);
        }
    }

    #[test]
    fn a_bare_line_end_counts_in_a_message_that_is_too_large_already() {
        let input = format!("{}\r\r\n.\r\n", "x".repeat(2000));
        for cut in [1, 64, 3000] {
            assert_eq!(decode(input.as_bytes(), 1000, &[cut]).0, Some(Err(Refusal::LineEnd)));
        }
    }

    fn encode(parts: &[Bytes]) -> Vec<u8> {
        Encoder::new(parts).collect::<Vec<_>>().concat()
    }

    #[test]
    fn dots_are_doubled_at_line_starts_alone_over_any_seam() {
        let parts =
            |texts: &[&'static str]| texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
        for (texts, wire) in [
            (&[".a\r\n", ".", "b.c\r\n"][..], "..a\r\n..b.c\r\n.\r\n"),
            (&["a\r", "\n", ".", ".\r\n"][..], "a\r\n...\r\n.\r\n"),
            (&["a"][..], "a\r\n.\r\n"),
            (&[][..], ".\r\n"),
            (&["", "\r\n", ""][..], "\r\n.\r\n"),
        ] {
            let parts: Vec<Bytes> = parts(texts);
            assert_eq!(String::from_utf8(encode(&parts)).unwrap(), wire, "{texts:?}");
        }
    }

    #[test]
    fn bare_line_ends_are_found_over_any_seam() {
        for (parts, clean) in [
            (&["a\r\n"][..], true),
            (&["a\r", "\nb"], true),
            (&["a\r", "", "\n"], true),
            (&["a\r", "b"], false),
            (&["a\r"], false),
            (&["a", "\n"], false),
            (&["\r\r\n"], false),
            (&[], true),
        ] {
            let parts: Vec<Bytes> = parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect();
            assert_eq!(is_crlf_only(&parts), clean, "{parts:?}");
        }
    }

    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\r\n".to_vec()),
            Just(b".".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\0".to_vec()),
            Just(b"\r\n.\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..5),
        ];
        proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(input in soup(), cuts in proptest::collection::vec(1usize..9, 1..6)) {
            prop_assert_eq!(decode(&input, 40, &cuts), decode(&input, 40, &[usize::MAX]));
        }

        #[test]
        fn what_is_accepted_has_no_other_line_end_than_crlf(input in soup()) {
            if let (Some(Ok(body)), _) = decode(&input, 1000, &[usize::MAX]) {
                prop_assert!(is_crlf_only(&[body]));
            }
        }

        #[test]
        fn decoding_gives_back_what_was_encoded(
            lines in proptest::collection::vec("[.a\u{e9}]{0,4}", 0..8),
            cut in 1usize..5,
            pieces in 1usize..7,
        ) {
            let message = Bytes::from(lines.iter().map(|line| format!("{line}\r\n")).collect::<String>());
            let parts: Vec<Bytes> = (0..message.len())
                .step_by(pieces)
                .map(|at| message.slice(at..message.len().min(at + pieces)))
                .collect();
            let mut wire = encode(&parts);
            wire.extend_from_slice(b"QUIT");
            prop_assert_eq!(decode(&wire, 1000, &[cut]), (Some(Ok(message)), b"QUIT".to_vec()));
        }
    }
}
