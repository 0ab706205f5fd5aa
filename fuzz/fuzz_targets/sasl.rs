//! A sign-in, seen from the server: nobody gets in without a password that is checked elsewhere, and what is
//! handed out to be checked is a bounded text.
#![no_main]

use lazaret_fuzz::smtp::sasl::{Exchange, NAME_LIMIT_BYTES, PASSWORD_LIMIT_BYTES, ScramKeys, Step};
use lazaret_fuzz::smtp::server::Mechanism;
use libfuzzer_sys::fuzz_target;

/// Parts the client's responses.
const END: u8 = b'\n';
const NONCE: &str = "3rfcNHYJY1ZVvWVs7j";

fuzz_target!(|input: &[u8]| {
    let Some((script, wire)) = lazaret_fuzz::script::<1>(input) else { return };
    let mechanism = Mechanism::ALL[usize::from(script[0] >> 1) % Mechanism::ALL.len()];
    let mut responses = wire.split(|byte| *byte == END);
    let initial = if script[0] & 1 == 1 { responses.next() } else { None };
    let Ok((mut exchange, mut step)) = Exchange::begin(mechanism, initial) else { return };
    loop {
        match step {
            Step::Challenge(_) => {}
            Step::Password(credentials) => {
                assert!(mechanism != Mechanism::ScramSha256);
                assert!(credentials.name.len() <= NAME_LIMIT_BYTES && !credentials.name.contains('\0'));
                assert!(credentials.password.len() <= PASSWORD_LIMIT_BYTES);
                assert!(!credentials.password.contains('\0'));
                assert!(exchange.respond(b"").is_err(), "it goes on after its end");
                return;
            }
            Step::Keys(name) => {
                assert!(!name.is_empty() && name.len() <= NAME_LIMIT_BYTES && !name.contains('\0'));
                let keys = ScramKeys::of_nobody(&[7; 32], &name, 4_096);
                assert!(exchange.challenge(keys, NONCE).is_ok());
            }
            Step::Proof(proof) => {
                assert!(proof.verify().is_none(), "nobody has signed in");
                assert!(exchange.respond(b"").is_err(), "it goes on without a verified proof");
                return;
            }
            Step::Done(_) => panic!("nobody has signed in"),
        }
        let Some(response) = responses.next() else { return };
        match exchange.respond(response) {
            Ok(next) => step = next,
            Err(_) => return,
        }
    }
});
