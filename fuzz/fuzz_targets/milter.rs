//! The packets of an MTA: read alike in any pieces, and never more than was sent.
#![no_main]

use bytes::BytesMut;
use lazaret_fuzz::wire::{Command, Malformed, take};
use lazaret_fuzz::{pieces, script};
use libfuzzer_sys::fuzz_target;

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Result<Command, Malformed>> {
    let (mut input, mut commands) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let before = input.len();
            match take(&mut input) {
                Ok(Some(command)) => {
                    assert!(before - input.len() > 4);
                    commands.push(Ok(command));
                }
                Ok(None) => {
                    assert_eq!(input.len(), before);
                    break;
                }
                Err(error) => {
                    commands.push(Err(error));
                    return commands;
                }
            }
        }
    }
    commands
}

fuzz_target!(|input: &[u8]| {
    let Some((lengths, wire)) = script::<4>(input) else { return };
    assert_eq!(read(pieces(lengths, wire)), read(std::iter::once(wire)));
});
