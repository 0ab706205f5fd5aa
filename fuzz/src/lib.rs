//! What the fuzz targets share: the modules under test, and cutting an input into pieces as a network does.
//!
//! The modules are pure and use nothing below them, so they are built here without the rest of the package.

#[path = "../../src/mail/mod.rs"]
pub mod mail;
#[path = "../../src/smtp/mod.rs"]
pub mod smtp;
#[path = "../../src/door/milter/wire.rs"]
#[allow(dead_code, reason = "what is said to an MTA is not under test")]
pub mod wire;

/// Splits an input into a script of `N` bytes and the bytes proper; `None` when it is too short for that.
pub fn script<const N: usize>(input: &[u8]) -> Option<(&[u8; N], &[u8])> {
    input.split_first_chunk::<N>()
}

/// Cuts bytes into pieces whose lengths come from the script, over and over; never an empty one.
pub fn pieces<'a>(script: &'a [u8], mut bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = script.iter().cycle();
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let wanted = usize::from(*lengths.next().unwrap_or(&1)).max(1);
        let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
        bytes = rest;
        Some(piece)
    })
}

/// Whether CR LF is the only line end.
pub fn is_crlf_only(bytes: &[u8]) -> bool {
    let mut previous = 0;
    for byte in bytes {
        if (*byte == b'\n') != (previous == b'\r') {
            return false;
        }
        previous = *byte;
    }
    previous != b'\r'
}
