//! A message in chunks, after BDAT (RFC 3030).
//!
//! Lengths frame it, so nothing in it can end it. But unless it was declared BINARYMIME it may be sent on
//! after DATA, where a bare CR or LF, or a NUL beside the dot that opens a line, is what SMTP smuggling is
//! made of: such a message is refused as it is after DATA. A chunk costs the memory of its bytes and no
//! more, however small it is.

use bytes::Bytes;

use crate::smtp::body::{Body, Refusal};
use crate::smtp::data::Progress;

/// Where in a line the message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// At its first character.
    Start,
    /// After NULs that open it.
    StartNul,
    /// After the dot that opens it.
    Dot,
    /// Within it.
    Text,
    /// Within it, after a CR.
    Cr,
}

/// The chunk that is being read.
#[derive(Debug)]
struct Chunk {
    left: u64,
    is_last: bool,
}

/// Puts chunks together, from pieces of any length.
#[derive(Debug)]
pub struct Collector {
    body: Body,
    line: Line,
    is_binary: bool,
    chunk: Option<Chunk>,
}

impl Collector {
    /// Expects a message of at most `max_bytes`; a binary one may hold anything (BINARYMIME).
    pub fn new(max_bytes: usize, is_binary: bool) -> Self {
        Collector { body: Body::new(max_bytes), line: Line::Start, is_binary, chunk: None }
    }

    /// Begins a chunk of so many octets. One that makes the message too large is read and not kept.
    pub fn begin(&mut self, octets: u64, is_last: bool) {
        let room = self.body.max_bytes().saturating_sub(self.body.len());
        if u64::try_from(room).is_ok_and(|room| octets > room) {
            self.body.refuse(Refusal::TooLarge);
        }
        self.chunk = Some(Chunk { left: octets, is_last });
    }

    /// Whether a chunk has begun and not ended.
    pub fn is_in_chunk(&self) -> bool {
        self.chunk.is_some()
    }

    /// Returns why the message is refused, as far as is known.
    pub fn refusal(&self) -> Option<Refusal> {
        self.body.refusal()
    }

    /// Gives the message up: the rest of the chunk is read and not kept.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.body.refuse(refusal);
    }

    /// Returns the number of bytes that the buffer needs before it can take what `incoming` bytes of input
    /// have of the chunk.
    pub fn capacity_for(&self, incoming: usize) -> usize {
        self.body.capacity_for(self.share(incoming))
    }

    /// Takes the next piece of input. After `ended`, the rest of the input belongs to the next command.
    /// Without a chunk nothing is taken.
    pub fn collect(&mut self, input: &[u8]) -> Progress {
        let share = self.share(input.len());
        let bytes = input.get(..share).unwrap_or_default();
        self.body.reserve(share);
        if !self.is_binary && self.body.refusal().is_none() {
            self.check(bytes);
        }
        self.body.keep(bytes);
        let Some(chunk) = &mut self.chunk else { return Progress { consumed_bytes: 0, ended: false } };
        chunk.left = chunk.left.saturating_sub(u64::try_from(share).unwrap_or(u64::MAX));
        Progress { consumed_bytes: share, ended: chunk.left == 0 }
    }

    /// Ends the chunk; returns whether it was the last one.
    pub fn end_chunk(&mut self) -> bool {
        let is_last = self.chunk.take().is_some_and(|chunk| chunk.is_last);
        if is_last && self.line == Line::Cr && !self.is_binary && self.body.refusal().is_none() {
            self.body.refuse(Refusal::LineEnd);
        }
        is_last
    }

    /// Returns the message after its last chunk.
    ///
    /// # Errors
    /// The [`Refusal`] that was earned on the way.
    pub fn finish(self) -> Result<Bytes, Refusal> {
        self.body.finish()
    }

    /// How many of so many bytes of input belong to the chunk.
    fn share(&self, incoming: usize) -> usize {
        let left = self.chunk.as_ref().map_or(0, |chunk| chunk.left);
        usize::try_from(left).map_or(incoming, |left| left.min(incoming))
    }

    /// Follows the lines; refuses what could not be sent on after DATA.
    fn check(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            if self.line == Line::Text {
                let Some(found) = memchr::memchr2(b'\r', b'\n', rest) else { return };
                rest = rest.get(found..).unwrap_or_default();
            }
            let Some((&byte, tail)) = rest.split_first() else { return };
            rest = tail;
            self.line = match (self.line, byte) {
                (Line::Cr, b'\n') => Line::Start,
                (Line::Cr, _) | (_, b'\n') | (Line::StartNul, b'.') | (Line::Dot, 0) => {
                    self.body.refuse(Refusal::LineEnd);
                    return;
                }
                (_, b'\r') => Line::Cr,
                (Line::Start, b'.') => Line::Dot,
                (Line::Start | Line::StartNul, 0) => Line::StartNul,
                _ => Line::Text,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Collects chunks, each given in pieces of `cut` bytes.
    fn collect(chunks: &[&[u8]], max_bytes: usize, is_binary: bool, cut: usize) -> Result<Bytes, Refusal> {
        let mut collector = Collector::new(max_bytes, is_binary);
        for (index, chunk) in chunks.iter().enumerate() {
            collector.begin(chunk.len() as u64, index + 1 == chunks.len());
            let mut wire = [*chunk, b"NOOP\r\n"].concat();
            loop {
                let progress = collector.collect(&wire[..cut.min(wire.len())]);
                wire.drain(..progress.consumed_bytes);
                if progress.ended {
                    break;
                }
            }
            assert_eq!(wire, b"NOOP\r\n");
            assert_eq!(collector.end_chunk(), index + 1 == chunks.len());
        }
        collector.finish()
    }

    fn check(chunks: &[&[u8]], expected: Result<&[u8], Refusal>) {
        for cut in 1..10 {
            let outcome = collect(chunks, 100, false, cut);
            assert_eq!(outcome.as_deref(), expected.as_ref().copied(), "{chunks:?} cut at {cut}");
        }
    }

    #[test]
    fn chunks_make_one_message_whatever_they_hold() {
        check(&[b"a\r\n", b".\r\n", b"b\r\n"], Ok(b"a\r\n.\r\nb\r\n"));
        check(&[b"\r\n.\r", b"\n"], Ok(b"\r\n.\r\n"));
        check(&[b"a", b""], Ok(b"a"));
        check(&[b""], Ok(b""));
        check(&[b"a\0b.\0\r\n"], Ok(b"a\0b.\0\r\n"));
    }

    #[test]
    fn what_could_smuggle_after_data_is_refused_over_any_seam_of_chunks() {
        let refused = Err(Refusal::LineEnd);
        let bodies: [&[u8]; 7] =
            [b"a\nb", b"a\rb", b"a\r", b"\r\r\n", b"\r\n.\0\r\n", b"\r\n\0.\r\n", b"a\n.\nb\r.\rc"];
        for body in bodies {
            for cut in 0..body.len() {
                let (head, tail) = body.split_at(cut);
                check(&[head, tail], refused);
            }
            assert_eq!(collect(&[body], 100, true, 3).as_deref(), Ok(body));
        }
    }

    #[test]
    fn a_chunk_beyond_the_limit_is_read_and_not_held() {
        check(&[&[b'x'; 60], &[b'y'; 41]], Err(Refusal::TooLarge));
        check(&[&[b'x'; 60], &[b'y'; 40]], Ok(&[[b'x'; 60].as_slice(), &[b'y'; 40]].concat()));
        let mut collector = Collector::new(100, false);
        collector.begin(u64::MAX, true);
        assert_eq!((collector.refusal(), collector.capacity_for(1000)), (Some(Refusal::TooLarge), 0));
    }

    #[test]
    fn a_million_chunks_of_one_byte_cost_their_bytes() {
        let mut collector = Collector::new(2_000_000, false);
        for _ in 0..1_000_000 {
            collector.begin(1, false);
            assert!(collector.collect(b"x").ended);
            collector.end_chunk();
        }
        assert!(collector.capacity_for(0) <= 1_500_000);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(
            pieces in proptest::collection::vec(prop_oneof![
                Just(b"\r\n".to_vec()), Just(b".".to_vec()), Just(b"\r".to_vec()), Just(b"\n".to_vec()),
                Just(b"\0".to_vec()), proptest::collection::vec(any::<u8>(), 0..5),
            ], 1..12),
            cut in 1usize..9,
            is_binary: bool,
        ) {
            let chunks: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let whole = pieces.concat();
            prop_assert_eq!(collect(&chunks, 100, is_binary, cut), collect(&[&whole], 100, is_binary, 1000));
        }
    }
}
