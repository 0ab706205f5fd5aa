//! CHUNKING and BINARYMIME (RFC 3030): octets are never commands.

use super::{DATA, OK, OK_MAIL, OK_RCPT, Player, ehlo};
use crate::smtp::server::{Limits, Offers, Options};

const ENVELOPE: &str = "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n";

/// Checks what comes after the envelope.
fn check(player: &Player, input: &str, expected: &[&str]) {
    let size = format!("SIZE {}", player.options.limits.message_bytes);
    let hello = ehlo("").replace("SIZE 52428800", &size);
    let expected = [&[hello.as_str(), "mail <>", OK_MAIL, "rcpt <a@b.example>", OK_RCPT], expected].concat();
    player.check(&format!("{ENVELOPE}{input}"), &expected);
}

fn limited(limits: Limits) -> Player {
    Player { options: Options { limits, ..Options::new("mx.example") }, ..Player::default() }
}

#[test]
fn chunks_are_put_together_and_hold_anything_that_looks_like_an_end() {
    check(
        &Player::default(),
        "BDAT 6\r\na\r\n.\r\nBDAT 1\r\n\rBDAT 7 LAST\r\n\nQUIT\r\nNOOP\r\n",
        &[OK, OK, "message \"a\\r\\n.\\r\\n\\r\\nQUIT\\r\\n\"", "S: 250 2.0.0 Kept", OK],
    );
    check(&Player::default(), "BDAT 0 LAST\r\nNOOP\r\n", &["message \"\"", "S: 250 2.0.0 Kept", OK]);
    check(
        &Player::default(),
        "BDAT 3\r\nabc\r\nBDAT 0 LAST\r\n",
        &[OK, "S: 500 5.5.2 Command not recognized", "message \"abc\"", "S: 250 2.0.0 Kept"],
    );
}

#[test]
fn octets_of_a_refused_chunk_are_never_executed() {
    let player = Player::default();
    let smuggled = "MAIL FROM:<evil@b.example>\r\n";
    let size = smuggled.len();
    player.check(&format!("BDAT {size} LAST\r\n{smuggled}"), &["S: 503 5.5.1 Send EHLO first"]);
    player.check(
        &format!("HELO c\r\nBDAT {size} LAST\r\n{smuggled}"),
        &["S: 250 mx.example", "S: 503 5.5.1 Send EHLO first"],
    );
    player.check(
        &format!("EHLO c\r\nBDAT {size} LAST\r\n{smuggled}NOOP\r\n"),
        &[&ehlo(""), "S: 503 5.5.1 Need MAIL and RCPT commands first", OK],
    );
    player.check(
        &format!("EHLO c\r\nMAIL FROM:<>\r\nBDAT {size} LAST\r\n{smuggled}RCPT TO:<a@b.example>\r\n"),
        &[&ehlo(""), "mail <>", OK_MAIL, "S: 554 5.5.1 No valid recipients", "rcpt <a@b.example>", OK_RCPT],
    );
    check(
        &player,
        "DATA\r\nx\r\n.\r\nBDAT 1 LAST\r\nx",
        &[DATA, "message \"x\\r\\n\"", "S: 250 2.0.0 Kept", "S: 503 5.5.1 Need MAIL and RCPT commands first"],
    );
}

#[test]
fn after_a_failed_chunk_the_pipeline_is_thrown_away_and_nothing_is_left_for_data() {
    let player = limited(Limits { message_bytes: 10, ..Limits::default() });
    check(
        &player,
        "BDAT 11\r\nRSET\r\nRSET\nBDAT 6 LAST\r\nNOOP\r\nDATA\r\nRCPT TO:<a@b.example>\r\nMAIL FROM:<>\r\n",
        &[
            "abandon",
            "S: 552 5.3.4 Message too large",
            "S: 503 5.5.1 Need MAIL and RCPT commands first",
            "S: 503 5.5.1 Need MAIL and RCPT commands first",
            "S: 503 5.5.1 Need MAIL command first",
            "mail <>",
            OK_MAIL,
        ],
    );
    check(
        &player,
        "BDAT 6\r\nabcdefBDAT 5 LAST\r\nghijkNOOP\r\n",
        &[OK, "abandon", "S: 552 5.3.4 Message too large", OK],
    );
}

#[test]
fn data_and_recipients_come_too_late_after_a_chunk() {
    check(
        &Player::default(),
        "BDAT 5\r\nhelloDATA\r\nRCPT TO:<b@b.example>\r\nMAIL FROM:<>\r\nBDAT 1 LAST\r\n!",
        &[
            OK,
            "S: 503 5.5.1 DATA after BDAT",
            "S: 503 5.5.1 RCPT after BDAT",
            "S: 503 5.5.1 Nested MAIL command",
            "message \"hello!\"",
            "S: 250 2.0.0 Kept",
        ],
    );
}

#[test]
fn rset_and_hello_and_quit_in_the_middle_abandon_the_message() {
    check(
        &Player::default(),
        "BDAT 5\r\nhelloRSET\r\nBDAT 5 LAST\r\nQUIT\n",
        &[OK, "abandon", OK, "S: 503 5.5.1 Need MAIL and RCPT commands first"],
    );
    check(&Player::default(), "BDAT 1\r\nxEHLO c\r\n", &[OK, "abandon", &ehlo("")]);
    check(&Player::default(), "BDAT 1\r\nxQUIT\r\n", &[OK, "abandon", "S: 221 2.0.0 Bye", "close"]);
}

#[test]
fn a_chunk_of_unknown_or_absurd_size_closes_the_session() {
    for (command, reply) in [
        ("BDAT -1", "S: 501 5.5.4 Bad chunk size, closing connection"),
        ("BDAT 5 LAST x", "S: 501 5.5.4 Bad chunk size, closing connection"),
        ("BDAT\t5 LAST\u{0}", "S: 500 5.5.2 Bare CR or NUL in command"),
        ("BDAT 5\r LAST", "S: 500 5.5.2 Bare CR or NUL in command"),
        (" bdat x", "S: 501 5.5.4 Bad chunk size, closing connection"),
        ("BDAT 99999999999999999999", "S: 552 5.3.4 Message too large"),
        ("BDAT 18446744073709551615 LAST", "S: 552 5.3.4 Message too large"),
        (&format!("BDAT {:0600}", 5), "S: 500 5.5.2 Line too long"),
    ] {
        let input = format!("{command}\r\nMAIL FROM:<evil@b.example>\r\n");
        check(&Player::default(), &input, &["abandon", reply, "close"]);
    }
}

#[test]
fn a_chunk_that_could_smuggle_after_data_is_refused_and_the_session_goes_on() {
    for body in ["a\n.\nb\r.\rc", "\r\n.\0\r\n", "x\r", "\r\r\n"] {
        check(
            &Player::default(),
            &format!("BDAT {} LAST\r\n{body}NOOP\r\n", body.len()),
            &["abandon", "S: 550 5.6.11 Bare CR or LF in message", OK],
        );
    }
}

#[test]
fn binarymime_is_there_when_it_is_offered_and_only_with_chunks() {
    let envelope = "EHLO c\r\nMAIL FROM:<> BODY=BINARYMIME\r\n";
    Player::default().check(envelope, &[&ehlo(""), "S: 555 5.5.4 Parameter not implemented"]);
    let offers = Offers { binary_mime: true, ..Offers::default() };
    Player { offers, ..Player::default() }.check(
        &format!("{envelope}RCPT TO:<a@b.example>\r\nDATA\r\nBDAT 5 LAST\r\n\n\r.\0\n"),
        &[
            &ehlo("|BINARYMIME^"),
            "mail <>",
            OK_MAIL,
            "rcpt <a@b.example>",
            OK_RCPT,
            "S: 503 5.5.1 BINARYMIME needs BDAT",
            "message \"\\n\\r.\\0\\n\"",
            "S: 250 2.0.0 Kept",
        ],
    );
}

#[test]
fn many_large_chunks_are_one_message_and_many_small_ones_are_junk() {
    let player = limited(Limits { commands: 10, ..Limits::default() });
    let large = format!("BDAT 256\r\n{}", "x".repeat(256)).repeat(50);
    let expected: Vec<&str> = std::iter::repeat_n(OK, 50).chain([OK]).collect();
    check(&player, &format!("{large}NOOP\r\n"), &expected);
    let small = "BDAT 1\r\nx".repeat(50);
    let mut expected = vec![OK; 8];
    expected.extend(["abandon", "S: 421 4.7.0 Too many commands, closing connection", "cause junk", "close"]);
    check(&player, &small, &expected);
}
