//! A whole session, seen from the server, with somebody who decides by a script: it always ends or waits,
//! never acknowledges a message that was not, and is the same however its bytes are cut.
#![no_main]

use std::net::SocketAddr;

use bytes::BytesMut;
use lazaret_fuzz::mail::{BodyType, EnhancedCode, Reply, Tls};
use lazaret_fuzz::smtp::server::{
    Answer, Kind, Limits, Mechanism, Offers, Options, Question, Session, SignInAnswer, Step,
};
use libfuzzer_sys::fuzz_target;

const MAX_BYTES: usize = 2_000;
/// Steps that one byte of input may cost, and those that a session costs anyway.
const STEPS_PER_BYTE: usize = 8;
const STEPS: usize = 64;

fuzz_target!(|input: &[u8]| {
    let Some((script, wire)) = lazaret_fuzz::script::<8>(input) else { return };
    let whole = converse(script, [wire].into_iter(), wire.len());
    let cut = converse(script, lazaret_fuzz::pieces(&script[4..], wire), wire.len());
    assert_eq!(whole, cut);
});

/// Returns all that the client hears and all that was asked for it.
fn converse<'a>(script: &[u8; 8], pieces: impl Iterator<Item = &'a [u8]>, len: usize) -> Vec<String> {
    let is_set = |bit: u8| script[0] & (1 << bit) != 0;
    let limits = Limits { message_bytes: MAX_BYTES, errors: 10, commands: 100, ..Limits::default() };
    let options = Options {
        limits,
        kind: if is_set(0) { Kind::Lmtp } else { Kind::Smtp },
        starttls: is_set(1),
        require_tls: is_set(2),
        xclient: is_set(3),
        xforward: is_set(4),
        sign_in_in_clear: is_set(5),
        ..Options::new("gateway.example.org")
    };
    let offers = Offers {
        size_bytes: is_set(6).then_some(1_000),
        binary_mime: is_set(7),
        dsn: true,
        require_tls: true,
        mechanisms: Mechanism::ALL.to_vec(),
    };
    let mut decisions = script[1..4].iter().cycle();
    let mut decide = || match decisions.next().copied().unwrap_or_default() % 8 {
        0 => Reply::new(451, EnhancedCode(4, 3, 0), "later"),
        1 => Reply::new(550, EnhancedCode(5, 7, 1), "never"),
        2 => Reply::new(421, EnhancedCode(4, 3, 2), "closing"),
        _ => Reply::new(250, EnhancedCode(2, 0, 0), "yes"),
    };
    let mut session = Session::new(options, SocketAddr::from(([192, 0, 2, 1], 25)));
    let (mut transcript, mut input, mut steps) = (Vec::new(), BytesMut::new(), 0);
    let (mut is_binary, mut has_prdr, mut recipients) = (false, false, 0);
    let is_lmtp = is_set(0);
    let mut pieces = pieces.fuse();
    loop {
        steps += 1;
        assert!(steps <= STEPS + STEPS_PER_BYTE * len, "it goes round in circles");
        let heard = match session.step(&mut input) {
            Step::Read => {
                assert!(session.body_capacity(1) <= 2 * MAX_BYTES);
                let Some(piece) = pieces.next() else { return transcript };
                input.extend_from_slice(piece);
                continue;
            }
            Step::Chunk => continue,
            Step::Abandon => "abandoned".to_owned(),
            Step::Close => {
                transcript.push("closed".to_owned());
                return transcript;
            }
            Step::Reply(reply) => reply.to_wire(),
            Step::StartTls(reply) => {
                // What came in clear is not for the encrypted session.
                input.clear();
                let tls = Tls { version: "TLSv1.3", cipher: "a suite".to_owned(), client_fingerprint: None };
                session.secured(tls);
                transcript.push(reply.to_wire());
                // Where the switch falls depends on the cut: the comparison ends here.
                return transcript;
            }
            Step::Ask(Question::Offers) => session.offer(offers.clone()).to_wire(),
            Step::Ask(Question::SignIn(_)) => {
                let answer = match decide() {
                    reply if reply.is_positive() => SignInAnswer::Done("kit".to_owned(), reply),
                    reply if reply.is_temporary() => SignInAnswer::Challenge(b"more".to_vec()),
                    reply => SignInAnswer::Refused(reply),
                };
                session.sign_in_answer(answer).to_wire()
            }
            Step::Ask(Question::Mail(mail)) => {
                (is_binary, has_prdr, recipients) = (mail.body == BodyType::Binary, mail.prdr, 0);
                session.answer(decide()).to_wire()
            }
            Step::Ask(Question::Rcpt(_)) => {
                let reply = decide();
                recipients += usize::from(reply.is_positive());
                session.answer(reply).to_wire()
            }
            Step::Ask(Question::Message(body)) => {
                assert!(body.len() <= MAX_BYTES);
                assert!(is_binary || lazaret_fuzz::is_crlf_only(&body));
                let each: Vec<Reply> = (0..recipients).map(|_| decide()).collect();
                let is_whole = each.iter().all(Reply::is_positive);
                let replies = if script[4] & 1 == 0 {
                    let answer = decide();
                    let is_taken = answer.is_positive();
                    let replies = session.answer_message(Answer::All(answer));
                    assert!(replies.iter().all(|reply| reply.is_positive() == is_taken));
                    replies
                } else {
                    session.answer_message(Answer::Each(each.clone(), decide()))
                };
                assert!(!replies.is_empty() && recipients > 0);
                if script[4] & 1 == 1 {
                    if is_lmtp {
                        assert_eq!(replies, each);
                    } else if !(has_prdr && recipients > 1) {
                        assert!(replies.len() == 1 && (is_whole || !replies[0].is_positive()));
                    }
                }
                replies.iter().map(Reply::to_wire).collect()
            }
        };
        transcript.push(heard);
    }
}
