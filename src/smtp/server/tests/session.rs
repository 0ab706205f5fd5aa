//! Sessions without extensions: order, limits, ends.

use bytes::BytesMut;
use proptest::prelude::*;

use super::{DATA, Player, ehlo, shown};
use crate::mail::{EnhancedCode, Reply};
use crate::smtp::server::{Answer, Limits, Options, Question, Session, Step};

fn check(input: &str, limits: &Limits, expected: &[&str]) {
    let limits = limits.clone();
    Player { options: Options { limits, ..Options::new("mx.example") }, ..Player::default() }
        .check(input, expected);
}

fn session() -> Session {
    Session::new(Options::new("mx.example"), "192.0.2.1:25".parse().unwrap())
}

#[test]
fn a_whole_session_goes_step_by_step() {
    check(
        "EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<no@d.example>\r\nRCPT TO:<c@d.example>\r\n\
         DATA\r\nHi\r\n..\r\n.\r\nNOOP\r\nQUIT\r\n",
        &Limits::default(),
        &[
            &ehlo(""),
            "mail <a@b.example>",
            "S: 250 2.1.0 Ok",
            "S: 550 5.1.1 Unknown",
            "rcpt <c@d.example>",
            "S: 250 2.1.5 Ok",
            DATA,
            "message \"Hi\\r\\n.\\r\\n\"",
            "S: 250 2.0.0 Kept",
            "S: 250 2.0.0 Ok",
            "S: 221 2.0.0 Bye",
            "close",
        ],
    );
}

#[test]
fn commands_out_of_order_are_refused() {
    let check = |input: &str, expected: &[&str]| check(input, &Limits::default(), expected);
    check("MAIL FROM:<>\r\n", &["S: 503 5.5.1 Send HELO or EHLO first"]);
    check(
        "HELO c\r\nRCPT TO:<a@b.example>\r\n",
        &["S: 250 mx.example", "S: 503 5.5.1 Need MAIL command first"],
    );
    check("HELO c\r\nDATA\r\n", &["S: 250 mx.example", "S: 503 5.5.1 Need MAIL and RCPT commands first"]);
    check(
        "HELO c\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nRCPT TO:<no@b.example>\r\nDATA\r\n",
        &[
            "S: 250 mx.example",
            "mail <>",
            "S: 250 2.1.0 Ok",
            "S: 503 5.5.1 Nested MAIL command",
            "S: 550 5.1.1 Unknown",
            "S: 554 5.5.1 No valid recipients",
        ],
    );
}

#[test]
fn rset_and_a_second_hello_abandon_the_transaction() {
    for (command, reply) in
        [("RSET", "S: 250 2.0.0 Ok"), ("HELO c", "S: 250 mx.example"), ("EHLO c", ehlo("").as_str())]
    {
        check(
            &format!("HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n{command}\r\nDATA\r\n"),
            &Limits::default(),
            &[
                "S: 250 mx.example",
                "mail <>",
                "S: 250 2.1.0 Ok",
                "rcpt <a@b.example>",
                "S: 250 2.1.5 Ok",
                "abandon",
                reply,
                "S: 503 5.5.1 Need MAIL and RCPT commands first",
            ],
        );
    }
}

#[test]
fn a_message_with_a_bare_line_end_is_refused_and_what_follows_is_not_read() {
    for smuggled in
        ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\r\n.\r\n", "\r\n.\0\r\n", "\n.\r", "\r\n.\r\r\n"]
    {
        let input = format!(
            "HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nx{smuggled}MAIL FROM:<evil@b.example>\r\n\
             RCPT TO:<a@b.example>\r\nDATA\r\ny\r\n.\r\n"
        );
        check(
            &input,
            &Limits::default(),
            &[
                "S: 250 mx.example",
                "mail <>",
                "S: 250 2.1.0 Ok",
                "rcpt <a@b.example>",
                "S: 250 2.1.5 Ok",
                DATA,
                "abandon",
                "S: 550 5.6.11 Bare CR or LF in message",
                "close",
            ],
        );
    }
}

#[test]
fn nothing_of_a_transaction_outlives_its_end_of_data() {
    let limits = Limits { message_bytes: 10, ..Limits::default() };
    for (body, outcome) in [
        ("short\r\n", &["message \"short\\r\\n\"", "S: 250 2.0.0 Kept"]),
        ("much too long\r\n", &["abandon", "S: 552 5.3.4 Message too large"]),
    ] {
        let input = format!(
            "HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n{body}.\r\nRCPT TO:<a@b.example>\r\nDATA\r\n"
        );
        let mut expected = vec![
            "S: 250 mx.example",
            "mail <>",
            "S: 250 2.1.0 Ok",
            "rcpt <a@b.example>",
            "S: 250 2.1.5 Ok",
            DATA,
        ];
        expected.extend(outcome);
        expected.extend([
            "S: 503 5.5.1 Need MAIL command first",
            "S: 503 5.5.1 Need MAIL and RCPT commands first",
        ]);
        check(&input, &limits, &expected);
    }
}

#[test]
fn a_declared_size_over_the_limit_is_refused_ahead() {
    for size in ["52428801", "99999999999999999999999"] {
        check(
            &format!("EHLO c\r\nMAIL FROM:<> SIZE={size}\r\n"),
            &Limits::default(),
            &[&ehlo(""), "S: 552 5.3.4 Message too large"],
        );
    }
}

#[test]
fn every_limit_has_its_reply() {
    let start = "S: 250 mx.example";
    let limits = Limits { recipients: 1, ..Limits::default() };
    check(
        "HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<b@b.example>\r\n",
        &limits,
        &[
            start,
            "mail <>",
            "S: 250 2.1.0 Ok",
            "rcpt <a@b.example>",
            "S: 250 2.1.5 Ok",
            "S: 452 4.5.3 Too many recipients",
        ],
    );
    let limits = Limits { errors: 2, ..Limits::default() };
    check(
        "XYZZY\r\nXYZZY\r\nNOOP\r\n",
        &limits,
        &[
            "S: 500 5.5.2 Command not recognized",
            "S: 421 4.7.0 Too many errors, closing connection",
            "cause junk",
            "close",
        ],
    );
    let limits = Limits { commands: 1, ..Limits::default() };
    check(
        "NOOP\r\nNOOP\r\n",
        &limits,
        &["S: 250 2.0.0 Ok", "S: 421 4.7.0 Too many commands, closing connection", "cause junk", "close"],
    );
    let limits = Limits { messages: 0, ..Limits::default() };
    check(
        "HELO c\r\nMAIL FROM:<>\r\n",
        &limits,
        &[start, "S: 421 4.7.0 Too many messages, closing connection", "close"],
    );
    let limits = Limits::default();
    check(
        &format!("EHLO {}\r\nNOOP\r\n", "a".repeat(513)),
        &limits,
        &["S: 500 5.5.2 Line too long", "S: 250 2.0.0 Ok"],
    );
    for line in [format!("NOOP {}", "a".repeat(2048)), format!("NOOP {}\r\nNOOP\r\n", "a".repeat(2048))] {
        check(&line, &limits, &["S: 500 5.5.2 Line too long", "close"]);
    }
}

#[test]
fn a_bare_line_end_in_a_command_is_refused() {
    let limits = Limits::default();
    check("NOOP\nNOOP\r\n", &limits, &["S: 500 5.5.2 Bare LF in command, closing connection", "close"]);
    check("NOOP\rNOOP\r\nNOOP\r\n", &limits, &["S: 500 5.5.2 Bare CR or NUL in command", "S: 250 2.0.0 Ok"]);
}

#[test]
fn a_draining_session_ends_at_the_next_command_boundary() {
    let mut session = session();
    let mut input = BytesMut::from("HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nHi\r\n");
    loop {
        match session.step(&mut input) {
            Step::Ask(_) => drop(session.answer(Reply::plain(250, ["Ok"]))),
            Step::Read => break,
            _ => {}
        }
    }
    session.drain();
    assert!(session.is_in_data());
    assert!(matches!(session.step(&mut input), Step::Read));
    input.extend_from_slice(b".\r\nNOOP\r\n");
    assert!(matches!(session.step(&mut input), Step::Ask(Question::Message(_))));
    let answer = Answer::All(Reply::new(250, EnhancedCode(2, 0, 0), "Ok"));
    assert_eq!(session.answer_message(answer).len(), 1);
    assert!(matches!(session.step(&mut input), Step::Reply(reply) if reply.code() == 421));
    assert!(matches!(session.step(&mut input), Step::Close));
}

#[test]
fn a_question_left_without_an_answer_is_never_a_yes() {
    let mut session = session();
    let mut input = BytesMut::from("HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n");
    while !matches!(session.step(&mut input), Step::Ask(_)) {}
    assert!(matches!(session.step(&mut input), Step::Reply(reply) if reply.code() == 451));
    assert!(matches!(session.step(&mut input), Step::Close));
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_session(
        lines in proptest::collection::vec(prop_oneof![
            Just("HELO c\r\n"), Just("MAIL FROM:<>\r\n"), Just("RCPT TO:<a@b.example>\r\n"), Just("DATA\r\n"),
            Just("x\r\n"), Just(".\r\n"), Just("RSET\r\n"), Just("\n"), Just("\r"), Just("\0"), Just("QUIT\r\n"),
            Just("EHLO c\r\n"), Just("BDAT 3\r\n"), Just("BDAT 7 LAST\r\n"), Just("BDAT 0 LAST\r\n"),
            Just("AUTH PLAIN\r\n"), Just("AGEAYg==\r\n"), Just("*\r\n"),
        ], 0..20),
        cut in 1usize..20,
    ) {
        let input = format!("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n{}", lines.concat());
        let player = Player::default();
        let whole = player.play(input.as_bytes(), input.len());
        prop_assert_eq!(player.play(input.as_bytes(), cut), whole);
    }

    #[test]
    fn no_bytes_panic(input in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
        let _log = Player::default().play(&input, cut);
    }
}

#[test]
fn recipients_have_their_own_limit_and_are_no_commands_too_many() {
    let mut player = Player::default();
    player.options.limits = Limits { commands: 5, recipients: 20, ..Limits::default() };
    let log = player.play(
        format!("EHLO c\r\nMAIL FROM:<>\r\n{}DATA\r\n.\r\n", "RCPT TO:<a@b.example>\r\n".repeat(20))
            .as_bytes(),
        7,
    );
    assert_eq!(log.last().unwrap(), "S: 250 2.0.0 Kept");
    let refused = "RCPT TO:<no@b.example>\r\n".repeat(20);
    let log = player.play(format!("EHLO c\r\nMAIL FROM:<>\r\n{refused}").as_bytes(), 7);
    assert!(log.contains(&"S: 421 4.7.0 Too many commands, closing connection".to_owned()), "{log:?}");
}

#[test]
fn a_message_that_is_refused_is_not_read_for_ever() {
    let mut player = Player::default();
    player.options.limits.message_bytes = 10;
    let mut session = Session::new(player.options.clone(), "192.0.2.1:25".parse().unwrap());
    let mut input = BytesMut::from("HELO c\r\n");
    let mut log = Vec::new();
    let mut lines = ["MAIL FROM:<>\r\n", "RCPT TO:<a@b.example>\r\n", "DATA\r\n"].into_iter();
    let piece = vec![b'x'; 16 << 20];
    let mut pieces = 0;
    loop {
        match session.step(&mut input) {
            Step::Read => match lines.next() {
                Some(line) => input.extend_from_slice(line.as_bytes()),
                None => {
                    pieces += 1;
                    assert!(pieces <= 65, "it is still read");
                    input.extend_from_slice(&piece);
                }
            },
            Step::Reply(reply) => log.push(shown(&reply)),
            Step::Abandon => log.push("abandon".to_owned()),
            Step::Ask(question) => player.decide(&mut session, question, &mut log),
            Step::Close => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(log[log.len() - 2..], ["abandon", "S: 552 5.3.4 Message too large"]);
    assert_eq!(pieces, 65);
}
