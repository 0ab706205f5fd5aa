//! A message in chunks: any cut gives the same outcome, no byte beyond a chunk is taken, and only a binary
//! message may have a line end other than CR LF.
#![no_main]

use bytes::Bytes;
use lazaret_fuzz::smtp::chunk::Collector;
use lazaret_fuzz::smtp::data::Refusal;
use libfuzzer_sys::fuzz_target;

const MAX_BYTES: usize = 600;

fuzz_target!(|input: &[u8]| {
    let Some((script, wire)) = lazaret_fuzz::script::<8>(input) else { return };
    let (sizes, cuts) = script.split_at(4);
    let is_binary = sizes[0] & 1 == 1;
    let whole = collect(sizes, &[255], wire, is_binary);
    assert_eq!(whole, collect(sizes, cuts, wire, is_binary));
    if let Some(Ok(body)) = whole {
        assert!(body.len() <= MAX_BYTES);
        assert!(is_binary || lazaret_fuzz::is_crlf_only(&body));
        let sent: usize = sizes.iter().map(|size| usize::from(*size)).sum();
        assert_eq!(body, &wire[..sent]);
    }
});

/// Returns the message of chunks of these sizes; `None` when the bytes do not last.
fn collect(sizes: &[u8], cuts: &[u8], mut wire: &[u8], is_binary: bool) -> Option<Result<Bytes, Refusal>> {
    let mut collector = Collector::new(MAX_BYTES, is_binary);
    for (number, size) in sizes.iter().enumerate() {
        collector.begin(u64::from(*size), number + 1 == sizes.len());
        let mut left = usize::from(*size);
        if left == 0 {
            assert!(collector.collect(wire).ended);
        }
        while left > 0 {
            let piece = lazaret_fuzz::pieces(cuts, wire).next()?;
            let progress = collector.collect(piece);
            assert_eq!(progress.consumed_bytes, piece.len().min(left));
            left -= progress.consumed_bytes;
            wire = &wire[progress.consumed_bytes..];
            assert_eq!(progress.ended, left == 0);
        }
        collector.end_chunk();
    }
    Some(collector.finish())
}
