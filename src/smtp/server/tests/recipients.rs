//! A reply for each recipient: LMTP (RFC 2033) and PRDR (draft-hall-prdr); and what RCPT and MAIL may carry.

use super::{DATA, OK, OK_MAIL, OK_RCPT, Player, ehlo};
use crate::mail::{EnhancedCode, Reply};
use crate::smtp::server::{Answer, Kind, Limits, Offers, Options};

fn reply(code: u16, text: &str) -> Reply {
    Reply::new(code, EnhancedCode(if code < 300 { 2 } else { 5 }, 0, 0), text)
}

fn each() -> Answer {
    Answer::Each(vec![reply(250, "one"), reply(550, "two")], reply(250, "all"))
}

fn lmtp(answer: Answer) -> Player {
    let options = Options { kind: Kind::Lmtp, ..Options::new("mx.example") };
    Player { options, answer, ..Player::default() }
}

fn lhlo() -> String {
    ehlo("").replace("250-PRDR|", "")
}

const TWO: &str = "RCPT TO:<a@b.example>\r\nRCPT TO:<no@b.example>\r\nRCPT TO:<b@b.example>\r\n";
const TWO_REPLIES: [&str; 5] =
    ["rcpt <a@b.example>", OK_RCPT, "S: 550 5.1.1 Unknown", "rcpt <b@b.example>", OK_RCPT];

/// Checks what follows the end of data of a message to two recipients.
fn check_end(player: &Player, mail: &str, end: &[&str]) {
    let (hello, verb) = match player.options.kind {
        Kind::Smtp => (ehlo(""), "EHLO"),
        Kind::Lmtp => (lhlo(), "LHLO"),
    };
    for (data, start) in [("DATA\r\nx\r\n.\r\n", &[DATA][..]), ("BDAT 3 LAST\r\nx\r\n", &[])] {
        let expected = [
            &[hello.as_str(), "mail <>", OK_MAIL],
            TWO_REPLIES.as_slice(),
            start,
            &["message \"x\\r\\n\""],
            end,
            &[OK],
        ]
        .concat();
        player.check(&format!("{verb} c\r\nMAIL FROM:<>{mail}\r\n{TWO}{data}NOOP\r\n"), &expected);
    }
}

#[test]
fn lmtp_answers_each_accepted_recipient() {
    check_end(&lmtp(each()), "", &["S: 250 2.0.0 one", "S: 550 5.0.0 two"]);
    check_end(&lmtp(Answer::All(reply(250, "all"))), "", &["S: 250 2.0.0 all", "S: 250 2.0.0 all"]);
}

#[test]
fn a_recipient_that_nobody_speaks_for_does_not_have_the_message() {
    let answer = Answer::Each(vec![reply(250, "one")], reply(250, "all"));
    check_end(&lmtp(answer), "", &["S: 250 2.0.0 one", "S: 451 4.3.0 Internal error, try again later"]);
}

#[test]
fn lmtp_repeats_a_refusal_of_the_framing_for_each_recipient() {
    let mut player = lmtp(each());
    player.options.limits = Limits { message_bytes: 5, ..Limits::default() };
    let hello = lhlo().replace("SIZE 52428800", "SIZE 5");
    let too_large = "S: 552 5.3.4 Message too large";
    for (data, end) in [
        ("DATA\r\nxxxxx\r\n.\r\n", &[DATA, "abandon", too_large, too_large][..]),
        ("BDAT 6 LAST\r\nxxxxxx", &["abandon", too_large, too_large]),
        ("BDAT 6\r\nxxxxxx", &["abandon", too_large]),
    ] {
        let expected = [&[hello.as_str(), "mail <>", OK_MAIL], TWO_REPLIES.as_slice(), end, &[OK]].concat();
        player.check(&format!("LHLO c\r\nMAIL FROM:<>\r\n{TWO}{data}NOOP\r\n"), &expected);
    }
}

#[test]
fn lmtp_and_smtp_keep_to_their_own_greeting() {
    let wrong = "S: 500 5.5.1 This is an LMTP server, send LHLO";
    lmtp(each()).check(
        "EHLO c\r\nHELO c\r\nLHLO c\r\nMAIL FROM:<>\r\nDATA\r\n",
        &[wrong, wrong, &lhlo(), "mail <>", OK_MAIL, "S: 503 5.5.1 No valid recipients"],
    );
    Player::default().check("LHLO c\r\n", &["S: 502 5.5.1 Command not implemented"]);
}

#[test]
fn prdr_answers_each_recipient_and_then_the_message() {
    let player = Player { answer: each(), ..Player::default() };
    let first = "S: 353 One reply for each recipient follows";
    check_end(&player, " PRDR", &[first, "S: 250 2.0.0 one", "S: 550 5.0.0 two", "S: 250 2.0.0 all"]);
    check_end(&player, "", &["S: 451 4.3.0 Internal error, try again later"]);
    let player = Player::default();
    check_end(&player, " PRDR", &["S: 250 2.0.0 Kept"]);
}

#[test]
fn prdr_says_nothing_extra_for_one_recipient() {
    let answer = Answer::Each(vec![reply(250, "one")], reply(250, "all"));
    Player { answer, ..Player::default() }.check(
        "EHLO c\r\nMAIL FROM:<> PRDR\r\nRCPT TO:<a@b.example>\r\nDATA\r\n.\r\n",
        &[
            &ehlo(""),
            "mail <>",
            OK_MAIL,
            "rcpt <a@b.example>",
            OK_RCPT,
            DATA,
            "message \"\"",
            "S: 250 2.0.0 all",
        ],
    );
}

#[test]
fn an_extension_is_there_exactly_when_it_is_offered() {
    let lines = "MAIL FROM:<> RET=FULL\r\nMAIL FROM:<> REQUIRETLS\r\nMAIL FROM:<> AUTH=<>\r\nMAIL FROM:<> SIZE=2000\r\n";
    let refused = "S: 555 5.5.4 Parameter not implemented";
    Player::default()
        .check(&format!("EHLO c\r\n{lines}"), &[&ehlo(""), refused, refused, refused, "mail <>", OK_MAIL]);
    let offers = Offers { dsn: true, require_tls: true, size_bytes: Some(1000), ..Offers::default() };
    let player = Player { offers, ..Player::default() };
    player.check(
        "EHLO c\r\nMAIL FROM:<> REQUIRETLS\r\nMAIL FROM:<> SIZE=1001\r\nMAIL FROM:<> RET=HDRS\r\n\
         RCPT TO:<a@b.example> NOTIFY=NEVER\r\n",
        &[
            &ehlo("|DSN^").replace("SIZE 52428800", "SIZE 1000"),
            refused,
            "S: 552 5.3.4 Message too large",
            "mail <>",
            OK_MAIL,
            "rcpt <a@b.example>",
            OK_RCPT,
        ],
    );
    player.check(
        "EHLO c\r\nHELO c\r\nMAIL FROM:<> SIZE=1\r\n",
        &[&ehlo("|DSN^").replace("SIZE 52428800", "SIZE 1000"), "S: 250 mx.example", refused],
    );
}

#[test]
fn vrfy_of_a_name_beyond_ascii_leaves_the_transaction_as_it_is() {
    Player::default().check(
        "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nVRFY jörg\r\nEXPN jörg\r\n\
         RCPT TO:<é@b.example>\r\nDATA\r\nx\r\n.\r\n",
        &[
            &ehlo(""),
            "mail <>",
            OK_MAIL,
            "rcpt <a@b.example>",
            OK_RCPT,
            "S: 252 2.5.0 Cannot VRFY user, but will accept message and attempt delivery",
            "S: 502 5.5.1 Command not implemented",
            "S: 553 5.6.7 Address requires SMTPUTF8",
            DATA,
            "message \"x\\r\\n\"",
            "S: 250 2.0.0 Kept",
        ],
    );
}
