//! Who the client is: STARTTLS (RFC 3207), AUTH (RFC 4954), XCLIENT and XFORWARD; and who is turned away.

use bytes::BytesMut;

use super::{DATA, OK, OK_MAIL, OK_RCPT, Player, ehlo, origin, tls};
use crate::mail::{EnhancedCode, Reply};
use crate::smtp::server::{Mechanism, Misconduct, Offers, Options, Session, Step};

const READY: &str = "S: 220 2.0.0 Ready to start TLS";
const IN: &str = "S: 235 2.7.0 In";
const NO: &str = "S: 535 5.7.8 No";
const CANCELLED: &str = "S: 501 5.7.0 Authentication cancelled";

fn with_tls() -> Player {
    let options = Options { starttls: true, ..Options::new("mx.example") };
    Player { options, ..Player::default() }
}

fn with_sign_in() -> Player {
    let options = Options { sign_in_in_clear: true, ..Options::new("mx.example") };
    let offers = Offers { mechanisms: vec![Mechanism::Plain, Mechanism::Login], ..Offers::default() };
    Player { options, offers, ..Player::default() }
}

fn trusted() -> Player {
    let options = Options { xclient: true, xforward: true, ..Options::new("mx.example") };
    Player { options, ..Player::default() }
}

const TRUSTED: &str = "|XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\
                       |XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE";

#[test]
fn starttls_forgets_all_that_was_said_before() {
    with_tls().check(
        "EHLO c\r\nSTARTTLS\r\n⏎MAIL FROM:<>\r\nEHLO c\r\nSTARTTLS\r\nMAIL FROM:<>\r\n",
        &[
            &ehlo("|STARTTLS"),
            READY,
            "S: 503 5.5.1 Send HELO or EHLO first",
            &ehlo(""),
            "S: 503 5.5.1 TLS is active already",
            "mail <> over TLS",
            OK_MAIL,
        ],
    );
}

#[test]
fn commands_sent_in_clear_after_starttls_are_never_executed() {
    let player = with_tls();
    for injected in ["NOOP\r\n", "M", "\r\n", "EHLO c\r\nMAIL FROM:<evil@b.example>\r\n"] {
        let input = format!("EHLO c\r\nSTARTTLS\r\n{injected}");
        let log = player.play(input.as_bytes(), input.len());
        assert_eq!(
            log[1..],
            [
                &ehlo("|STARTTLS"),
                "S: 503 5.5.0 You sent commands ahead, closing connection",
                "cause pipelining",
                "close"
            ]
        );
    }
}

#[test]
fn starttls_has_its_place() {
    with_tls().check(
        "STARTTLS\r\n⏎EHLO c\r\nSTARTTLS x\r\n⏎MAIL FROM:<>\r\nSTARTTLS\r\n⏎RSET\r\n",
        &[
            "S: 503 5.5.1 Send EHLO first",
            &ehlo("|STARTTLS"),
            "S: 501 5.5.4 Syntax error in arguments",
            "mail <>",
            OK_MAIL,
            "S: 503 5.5.1 STARTTLS within a transaction",
            "abandon",
            OK,
        ],
    );
    Player::default().check("EHLO c\r\nSTARTTLS\r\n", &[&ehlo(""), "S: 502 5.5.1 Command not implemented"]);
}

#[test]
fn where_tls_is_required_nothing_goes_without() {
    let mut player = with_tls();
    player.options.require_tls = true;
    let refused = "S: 530 5.7.0 Must issue a STARTTLS command first";
    player.check(
        "EHLO c\r\nMAIL FROM:<>\r\nRSET\r\nVRFY x\r\nBDAT 6 LAST\r\nNOOP\r\nNOOP\r\nSTARTTLS\r\n⏎EHLO c\r\nMAIL FROM:<>\r\n",
        &[
            &ehlo("|STARTTLS"),
            refused,
            refused,
            refused,
            refused,
            OK,
            READY,
            &ehlo(""),
            "mail <> over TLS",
            OK_MAIL,
        ],
    );
}

#[test]
fn requiretls_is_offered_over_tls_alone() {
    let mut player = with_tls();
    player.offers.require_tls = true;
    player.check(
        "EHLO c\r\nSTARTTLS\r\n⏎EHLO c\r\nMAIL FROM:<> REQUIRETLS\r\n",
        &[&ehlo("|STARTTLS"), READY, &ehlo("|REQUIRETLS^"), "mail <> over TLS", OK_MAIL],
    );
}

#[test]
fn a_client_signs_in_with_and_without_an_initial_response() {
    for (lines, replies) in [
        ("AUTH PLAIN AGEAYg==\r\n", &[IN][..]),
        ("AUTH PLAIN\r\nAGEAYg==\r\n", &["S: 334 ", IN]),
        ("auth login\r\nAGEAYg==\r\n", &["S: 334 VXNlciBOYW1l", IN]),
    ] {
        let hello = ehlo("|AUTH PLAIN LOGIN");
        let expected = [
            &[hello.as_str()],
            replies,
            &["S: 503 5.5.1 Already signed in", "mail <> as a", OK_MAIL, "abandon", &hello],
        ]
        .concat();
        let input = format!("EHLO c\r\n{lines}AUTH PLAIN AGEAYg==\r\nMAIL FROM:<> AUTH=<>\r\nEHLO c\r\n");
        with_sign_in().check(&input, &expected);
    }
}

#[test]
fn a_sign_in_is_refused_where_it_has_no_place() {
    let player = with_sign_in();
    player.check("AUTH PLAIN AGEAYg==\r\n", &["S: 503 5.5.1 Send EHLO first"]);
    player.check(
        "EHLO c\r\nMAIL FROM:<>\r\nAUTH PLAIN AGEAYg==\r\nRSET\r\nAUTH SCRAM-SHA-256\r\nAUTH PLAIN AA\r\n",
        &[
            &ehlo("|AUTH PLAIN LOGIN"),
            "mail <>",
            OK_MAIL,
            "S: 503 5.5.1 AUTH within a transaction",
            "abandon",
            OK,
            "S: 504 5.5.4 Mechanism not offered",
            "S: 501 5.5.2 Bad base64",
        ],
    );
    Player::default()
        .check("EHLO c\r\nAUTH PLAIN AGEAYg==\r\n", &[&ehlo(""), "S: 502 5.5.1 Command not implemented"]);
}

#[test]
fn no_password_is_asked_for_in_clear() {
    let mut player = with_sign_in();
    player.options.sign_in_in_clear = false;
    player.options.starttls = true;
    player.check(
        "EHLO c\r\nAUTH PLAIN AGEAYg==\r\nSTARTTLS\r\n⏎EHLO c\r\nAUTH PLAIN AGEAYg==\r\nMAIL FROM:<>\r\n",
        &[
            &ehlo("|STARTTLS"),
            "S: 538 5.7.11 Encryption required, use STARTTLS",
            READY,
            &ehlo("|AUTH PLAIN LOGIN"),
            IN,
            "mail <> as a over TLS",
            OK_MAIL,
        ],
    );
}

#[test]
fn responses_that_are_no_base64_cancel_the_sign_in() {
    for line in ["*", "!!!!", "AGEAYg", "NOOP x", "AG EAYg==", "A\rGEAYg=="] {
        with_sign_in().check(
            &format!("EHLO c\r\nAUTH PLAIN\r\n{line}\r\nNOOP\r\n"),
            &[&ehlo("|AUTH PLAIN LOGIN"), "S: 334 ", CANCELLED, OK],
        );
    }
}

#[test]
fn lines_of_a_sign_in_may_be_long_but_not_endless() {
    let player = with_sign_in();
    let hello = ehlo("|AUTH PLAIN LOGIN");
    let long = "A".repeat(12_284);
    player.check(&format!("EHLO c\r\nAUTH PLAIN\r\n{long}\r\n"), &[&hello, "S: 334 ", NO]);
    player.check(
        &format!("EHLO c\r\nAUTH PLAIN\r\n{long}AAAA\r\n"),
        &[&hello, "S: 334 ", "S: 500 5.5.2 Line too long", "close"],
    );
    player
        .check(&format!("EHLO c\r\nAUTH PLAIN {long}\r\n"), &[&hello, "S: 500 5.5.2 Line too long", "close"]);
}

#[test]
fn three_refused_sign_ins_end_the_session() {
    with_sign_in().check(
        &format!("EHLO c\r\n{}NOOP\r\n", "AUTH PLAIN AGEAYw==\r\n".repeat(50)),
        &[
            &ehlo("|AUTH PLAIN LOGIN"),
            NO,
            NO,
            NO,
            "S: 421 4.7.0 Too many failed sign-ins, closing connection",
            "cause sign-in",
            "close",
        ],
    );
}

#[test]
fn xclient_begins_the_session_anew_as_another_client() {
    trusted().check(
        "EHLO proxy\r\nXCLIENT ADDR=198.51.100.7 NAME=c.example LOGIN=bob\r\nXCLIENT PORT=99 HELO=me\r\n\
         MAIL FROM:<>\r\nEHLO proxy\r\nMAIL FROM:<>\r\nXCLIENT ADDR=192.0.2.9\r\n",
        &[
            &ehlo(TRUSTED),
            "S: 220 mx.example ESMTP",
            "S: 220 mx.example ESMTP",
            "S: 503 5.5.1 Send HELO or EHLO first",
            &ehlo(TRUSTED),
            "mail <> by 198.51.100.7:99 from 198.51.100.7:99 helo me as bob",
            OK_MAIL,
            "S: 503 5.5.1 Not within a transaction",
        ],
    );
}

#[test]
fn xforward_holds_for_one_transaction() {
    trusted().check(
        "EHLO proxy\r\nXFORWARD ADDR=IPV6:2001:db8::1 NAME=c.example\r\nXFORWARD HELO=me PORT=99\r\n\
         MAIL FROM:<>\r\nXFORWARD HELO=x\r\nRCPT TO:<a@b.example>\r\nDATA\r\n.\r\nMAIL FROM:<>\r\n",
        &[
            &ehlo(TRUSTED),
            OK,
            OK,
            "mail <> by 192.0.2.1:25 from [2001:db8::1]:99 helo me",
            OK_MAIL,
            "S: 503 5.5.1 Not within a transaction",
            "rcpt <a@b.example>",
            OK_RCPT,
            DATA,
            "message \"\"",
            "S: 250 2.0.0 Kept",
            "mail <>",
            OK_MAIL,
        ],
    );
}

#[test]
fn nobody_else_speaks_for_others() {
    let refused = "S: 502 5.5.1 Command not implemented";
    Player::default().check(
        "EHLO c\r\nXCLIENT ADDR=127.0.0.1\r\nXFORWARD ADDR=127.0.0.1\r\nMAIL FROM:<>\r\n",
        &[&ehlo(""), refused, refused, "mail <>", OK_MAIL],
    );
}

#[test]
fn what_a_proxy_said_in_clear_does_not_survive_the_handshake() {
    let mut player = trusted();
    player.options.starttls = true;
    let offered = TRUSTED.replacen('|', "|STARTTLS|", 1);
    player.check(
        "EHLO c\r\nXCLIENT ADDR=127.0.0.1 LOGIN=root\r\nEHLO c\r\nXFORWARD ADDR=127.0.0.2\r\nSTARTTLS\r\n⏎EHLO c\r\nMAIL FROM:<>\r\n",
        &[
            &ehlo(&offered),
            "S: 220 mx.example ESMTP",
            &ehlo(&offered),
            OK,
            READY,
            &ehlo(TRUSTED),
            "mail <> over TLS",
            OK_MAIL,
        ],
    );
}

#[test]
fn other_protocols_are_turned_away_at_once() {
    let reply = "S: 421 4.7.0 This is an SMTP server, closing connection";
    for (input, cause) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n", "cause http"),
        ("CONNECT x:25 HTTP/1.0\r\n", "cause http"),
        ("PRI * HTTP/2.0\r\n\r\n", "cause http"),
        ("\u{16}\u{3}\u{1}\0\u{1}", "cause tls"),
    ] {
        Player::default().check(input, &[reply, cause, "close"]);
    }
}

#[test]
fn a_client_must_wait_until_it_is_told_that_it_need_not() {
    let mut session = Session::new(Options::new("mx.example"), "192.0.2.1:25".parse().unwrap());
    let mut input = BytesMut::from("HELO c\r\nMAIL FROM:<>\r\n");
    assert!(matches!(session.step(&mut input), Step::Reply(_)));
    assert!(!session.must_wait());
    assert!(matches!(session.step(&mut input), Step::Reply(_)));
    assert!(session.must_wait());
    let step = session.turn_away(Misconduct::Pipelining);
    assert!(matches!(step, Step::Reply(reply) if reply.code() == 503));
    assert!(matches!(session.step(&mut input), Step::Close));
    let mut session = Session::new(Options::new("mx.example"), "192.0.2.1:25".parse().unwrap());
    let mut input = BytesMut::from("EHLO c\r\nMAIL FROM:<>\r\n");
    while !matches!(session.step(&mut input), Step::Ask(_)) {}
    assert!(session.must_wait());
    session.offer(Offers::default());
    assert!(matches!(session.step(&mut input), Step::Ask(_)));
    assert!(!session.must_wait());
}

#[test]
fn a_client_is_turned_away_from_an_open_transaction_only_after_it_is_abandoned() {
    let mut session = Session::new(Options::new("mx.example"), "192.0.2.1:25".parse().unwrap());
    let mut input = BytesMut::from("HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n");
    while !matches!(session.step(&mut input), Step::Ask(_)) {}
    session.answer(Reply::new(250, EnhancedCode(2, 1, 0), "Ok"));
    assert!(matches!(session.step(&mut input), Step::Ask(_)));
    assert!(matches!(session.turn_away(Misconduct::Pipelining), Step::Abandon));
    assert!(matches!(session.step(&mut input), Step::Reply(reply) if reply.code() == 503));
    assert!(matches!(session.step(&mut input), Step::Close));
}

#[test]
fn a_session_secured_before_its_greeting_still_greets() {
    let mut session = Session::new(Options::new("mx.example"), "192.0.2.1:25".parse().unwrap());
    session.secured(tls());
    let mut input = BytesMut::new();
    assert!(matches!(session.step(&mut input), Step::Reply(reply) if reply.code() == 220));
    assert_eq!(origin(session.client()), " over TLS");
}
