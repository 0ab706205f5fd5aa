//! A PROXY header before a session: it is read to its last byte and no further, whatever follows.
#![no_main]

use lazaret_fuzz::smtp::proxy::{Progress, parse};
use libfuzzer_sys::fuzz_target;

/// More than any header has.
const MAX_BYTES: usize = 4096;

fuzz_target!(|wire: &[u8]| {
    let mut len = 0;
    while let Ok(progress) = parse(&wire[..len]) {
        match progress {
            Progress::Done(_) => {
                assert!(
                    wire[..len].starts_with(b"PROXY ") || wire[..len].starts_with(b"\r\n\r\n\0\r\nQUIT\n")
                );
                // Nothing less was a header.
                for shorter in 0..len {
                    assert!(!matches!(parse(&wire[..shorter]), Ok(Progress::Done(_))), "{shorter} of {len}");
                }
                return;
            }
            Progress::More(more) => {
                assert!(more > 0 && len + more <= MAX_BYTES);
                len += more;
                if len > wire.len() {
                    return;
                }
            }
        }
    }
});
