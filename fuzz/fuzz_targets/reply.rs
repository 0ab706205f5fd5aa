//! What a next hop answers: any cut gives the same replies or the same error, and the input is bounded.
#![no_main]

use bytes::BytesMut;
use lazaret_fuzz::mail::Reply;
use lazaret_fuzz::smtp::client::{Capabilities, MAX_LINE_BYTES, ReplyError, ReplyParser};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((script, wire)) = lazaret_fuzz::script::<4>(input) else { return };
    let cut = parse(lazaret_fuzz::pieces(script, wire));
    assert_eq!(parse([wire].into_iter()), cut);
    for reply in &cut.0 {
        assert!((200..600).contains(&reply.code()));
        // It is passed on to clients: what we write is one reply again.
        let (again, error) = parse([reply.to_wire().as_bytes()].into_iter());
        assert!(
            error.is_none() && again.len() == 1 && again[0].code() == reply.code(),
            "{reply:?}: {again:?}"
        );
        Capabilities::read(reply);
    }
});

fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Reply>, Option<ReplyError>) {
    let (mut parser, mut input, mut replies) = (ReplyParser::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match parser.parse(&mut input) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
        assert!(input.len() <= MAX_LINE_BYTES);
    }
    (replies, None)
}
