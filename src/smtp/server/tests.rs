//! Scripts of whole sessions, without sockets.

use proptest::prelude::*;

use super::*;

/// Runs input through a session in pieces of `cut` bytes. Recipients whose name begins with `no` are
/// refused. Returns what happened, one line each.
fn run(input: &[u8], cut: usize, limits: Limits) -> Vec<String> {
    let mut session = Session::new("mx.example", limits, "192.0.2.1:25".parse().unwrap());
    let mut buffer = BytesMut::new();
    let mut pieces = input.chunks(cut);
    let mut log = Vec::new();
    loop {
        let answer = match session.step(&mut buffer) {
            Step::Read => match pieces.next() {
                Some(piece) => {
                    buffer.extend_from_slice(piece);
                    continue;
                }
                None => return log,
            },
            Step::Reply(reply) => {
                log.push(format!("S: {}", reply.to_wire().trim_end().replace("\r\n", "|")));
                continue;
            }
            Step::Abandon => {
                log.push("abandon".to_owned());
                continue;
            }
            Step::Close => {
                log.push("close".to_owned());
                return log;
            }
            Step::Ask(Question::Mail(mail)) => {
                let path = mail.reverse_path.map(|path| path.to_path()).unwrap_or_default();
                log.push(format!("mail <{path}>"));
                Reply::new(250, EnhancedCode(2, 1, 0), "Ok")
            }
            Step::Ask(Question::Rcpt(to)) if to.address.local().starts_with("no") => {
                Reply::new(550, EnhancedCode(5, 1, 1), "Unknown")
            }
            Step::Ask(Question::Rcpt(to)) => {
                log.push(format!("rcpt <{}>", to.address.to_path()));
                Reply::new(250, EnhancedCode(2, 1, 5), "Ok")
            }
            Step::Ask(Question::Message(body)) => {
                log.push(format!("message {:?}", String::from_utf8_lossy(&body)));
                Reply::new(250, EnhancedCode(2, 0, 0), "Kept")
            }
        };
        let reply = session.answer(answer);
        log.push(format!("S: {}", reply.to_wire().trim_end()));
    }
}

/// Checks the log after the greeting, for every way to cut the input into equal pieces.
fn check(input: &str, limits: &Limits, expected: &[&str]) {
    for cut in [1, 2, 3, 5, 11, input.len()] {
        let log = run(input.as_bytes(), cut, limits.clone());
        assert_eq!(log[0], "S: 220 mx.example ESMTP");
        assert_eq!(&log[1..], expected, "{input:?} cut at {cut}");
    }
}

const EHLO: &str =
    "S: 250-mx.example|250-PIPELINING|250-SIZE 52428800|250-8BITMIME|250-SMTPUTF8|250 ENHANCEDSTATUSCODES";
const DATA: &str = "S: 354 End data with <CR><LF>.<CR><LF>";

#[test]
fn a_whole_session_goes_step_by_step() {
    check(
        "EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<no@d.example>\r\nRCPT TO:<c@d.example>\r\n\
         DATA\r\nHi\r\n..\r\n.\r\nNOOP\r\nQUIT\r\n",
        &Limits::default(),
        &[
            EHLO,
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
    for (command, reply) in [("RSET", "S: 250 2.0.0 Ok"), ("HELO c", "S: 250 mx.example"), ("EHLO c", EHLO)] {
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
            &[EHLO, "S: 552 5.3.4 Message too large"],
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
        &["S: 500 5.5.2 Command not recognized", "S: 421 4.7.0 Too many errors, closing connection", "close"],
    );
    let limits = Limits { commands: 1, ..Limits::default() };
    check(
        "NOOP\r\nNOOP\r\n",
        &limits,
        &["S: 250 2.0.0 Ok", "S: 421 4.7.0 Too many commands, closing connection", "close"],
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
fn other_protocols_are_turned_away_at_once() {
    let reply = "S: 421 4.7.0 This is an SMTP server, closing connection";
    for input in ["GET / HTTP/1.1\r\nHost: x\r\n", "CONNECT x:25 HTTP/1.0\r\n", "\u{16}\u{3}\u{1}\0\u{1}"] {
        check(input, &Limits::default(), &[reply, "close"]);
    }
}

#[test]
fn a_draining_session_ends_at_the_next_command_boundary() {
    let mut session = Session::new("mx.example", Limits::default(), "192.0.2.1:25".parse().unwrap());
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
    assert_eq!(session.answer(Reply::plain(250, ["Ok"])).code(), 250);
    assert!(matches!(session.step(&mut input), Step::Reply(reply) if reply.code() == 421));
    assert!(matches!(session.step(&mut input), Step::Close));
}

#[test]
fn a_question_left_without_an_answer_is_never_a_yes() {
    let mut session = Session::new("mx.example", Limits::default(), "192.0.2.1:25".parse().unwrap());
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
        ], 0..20),
        cut in 1usize..20,
    ) {
        let input = format!("HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n{}", lines.concat());
        let whole = run(input.as_bytes(), input.len(), Limits::default());
        prop_assert_eq!(run(input.as_bytes(), cut, Limits::default()), whole);
    }

    #[test]
    fn no_bytes_panic(input in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
        let _log = run(&input, cut, Limits::default());
    }
}
