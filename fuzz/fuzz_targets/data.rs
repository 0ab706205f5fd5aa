//! A message after DATA: any cut gives the same end and the same outcome, what is accepted has no line end
//! but CR LF, and it survives being sent on.
#![no_main]

use bytes::Bytes;
use lazaret_fuzz::smtp::data::{Decoder, Encoder, Refusal, is_crlf_only};
use libfuzzer_sys::fuzz_target;

/// Small, so that the limit is met.
const MAX_BYTES: usize = 600;

fuzz_target!(|input: &[u8]| {
    let Some((script, wire)) = lazaret_fuzz::script::<4>(input) else { return };
    let whole = decode([wire].into_iter());
    let cut = decode(lazaret_fuzz::pieces(script, wire));
    assert_eq!(whole, cut);
    let Some((_, Ok(body))) = whole else { return };
    assert!(lazaret_fuzz::is_crlf_only(&body) && body.len() <= MAX_BYTES);
    assert!(is_crlf_only(&[body.clone()]));
    let at = usize::from(script[0]).min(body.len());
    let parts = [body.slice(..at), body.slice(at..)];
    let encoded: Vec<u8> = Encoder::new(&parts).flatten().copied().collect();
    let ends_its_last_line = body.is_empty() || body.ends_with(b"\r\n");
    match decode([encoded.as_slice()].into_iter()) {
        Some((len, Ok(again))) => {
            assert_eq!(len, encoded.len());
            assert!(again == body || !ends_its_last_line && again.strip_suffix(b"\r\n") == Some(&body[..]));
        }
        // The line end that had to be added may be one too much.
        Some((_, Err(Refusal::TooLarge))) if !ends_its_last_line => {}
        other => panic!("{other:?}"),
    }
});

/// Returns where the message ended and what it is; `None` when it has no end.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<(usize, Result<Bytes, Refusal>)> {
    let mut decoder = Decoder::new(MAX_BYTES);
    let mut len = 0;
    for piece in pieces {
        let progress = decoder.decode(piece);
        len += progress.consumed_bytes;
        if progress.ended {
            return Some((len, decoder.finish()));
        }
        assert_eq!(progress.consumed_bytes, piece.len());
    }
    None
}
