//! Whole messages, well formed and not.

use proptest::prelude::*;

use super::*;

const HEAD: &str = "From: Jane <jane@example.org>\r\nDate: Mon, 1 Jan 2024 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n";

fn check(rest: &str, text: &str, problems: &[Problem]) -> Message {
    let message = parse(format!("{HEAD}{rest}").replace('\n', "\r\n").replace("\r\r", "\r").as_bytes());
    assert_eq!((message.text.as_str(), message.problems.as_slice()), (text, problems), "{rest}");
    message
}

#[test]
fn a_simple_message_is_read() {
    let message = check(
        "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nTo: a@example.org\nCc: B <b@example.org>\n\nHello\n",
        "Hello",
        &[],
    );
    assert_eq!(message.subject, "Grüße");
    assert_eq!(message.from, [Mailbox { name: "Jane".into(), address: "jane@example.org".into() }]);
    assert_eq!(
        message.to.iter().map(|to| to.address.as_str()).collect::<Vec<_>>(),
        ["a@example.org", "b@example.org"]
    );
    assert_eq!(message.header("message-id").map(|id| id.value.as_str()), Some("<1@example.org>"));
}

#[test]
fn all_texts_of_a_tree_are_read() {
    let tree = "Content-Type: multipart/mixed; boundary=a\n\npreamble\n--a\nContent-Type: multipart/alternative; boundary=\"a b\"\n\n\
        --a b\n\nplain http://a.example/1\n--a b\nContent-Type: text/html; charset=utf-8\n\
        Content-Transfer-Encoding: quoted-printable\n\n<p>html <a href=3D\"http://b.example\">li=\nnk</a>\n--a b--\n\
        --a\nContent-Type: message/rfc822\n\nSubject: Inner\n\ninner\n--a\n\
        Content-Type: application/pdf; name*0*=utf-8''%E2%82%AC; name*1*=.pdf\nContent-Transfer-Encoding: base64\n\nJVBERi0xLjc=\n--a--\n";
    let message = check(tree, "plain http://a.example/1\n\nhtml link\n\nInner\n\ninner", &[]);
    let targets: Vec<_> =
        message.links.iter().map(|link| (link.text.as_str(), link.target.as_str())).collect();
    assert_eq!(targets, [("http://a.example/1", "http://a.example/1"), ("link", "http://b.example")]);
    let types: Vec<_> = message.parts.iter().map(|part| part.media_type.as_str()).collect();
    assert_eq!(types, ["text/plain", "text/html", "text/plain", "application/pdf"]);
    let attachment = &message.attachments[0];
    assert_eq!(
        (attachment.name.as_deref(), attachment.detected_type),
        (Some("€.pdf"), Some("application/pdf"))
    );
    assert_eq!(attachment.size_bytes, 8);
}

#[test]
fn malformed_trees_are_read_in_every_plausible_way() {
    let multipart = "Content-Type: multipart/mixed; boundary=a\n\n";
    check(&format!("{multipart}no parts\n"), "no parts", &[Problem::BoundaryMissing]);
    check("Content-Type: multipart/mixed\n\n--a\n\nx\n", "--a\n\nx", &[Problem::BoundaryMissing]);
    check(&format!("{multipart}--a\n\none\n--a\n\ntwo"), "one\n\ntwo", &[Problem::BoundaryUnclosed]);
    check(
        &format!("{multipart}--a\n\none\n--a--\n--a\n\ntwo\n--a--\n"),
        "one\n\ntwo",
        &[Problem::PartsAfterEnd],
    );
    check(
        &format!("{multipart}--ab\n\none\n--ab\n\ntwo\n--a--\n"),
        "one\n\ntwo",
        &[Problem::BoundaryInexact],
    );
    check(&format!("{multipart}--a\n\none --a\n--a--\n"), "one --a", &[]);
    check(&format!("{multipart}--a\nno header\n--a--\n"), "no header", &[Problem::MalformedField]);
    check("Content-Transfer-Encoding: x-other\n\ntext\n", "text", &[Problem::UnknownEncoding]);
    check("Content-Transfer-Encoding: base64\n\naGVs!bG8=\n", "hello", &[Problem::BadBase64]);
    check("Content-Type: text/plain; charset=nobody\n\ntext\n", "text", &[Problem::UnknownCharset]);
    check(
        "Content-Type: text/plain\nContent-Type: text/html\n\n<b>x",
        "x",
        &[Problem::AmbiguousPart, Problem::DuplicateField],
    );
    check("Broken\n\ntext\n", "text\n\nBroken", &[Problem::MalformedField]);
    check("Subject: a\nSubject: b\n\ntext\n", "text", &[Problem::DuplicateField]);
    check(&format!("\n{}\n", "x".repeat(999)), &"x".repeat(999), &[Problem::LongLine]);
    check("\na\0b\n", "ab", &[Problem::NulByte]);
    check("Subject: only a header", "", &[]);
}

#[test]
fn what_cannot_be_read_is_looked_at_raw() {
    let missing = [Problem::MissingFrom, Problem::MissingDate, Problem::MissingMessageId];
    for (raw, text, problem) in [
        (&b"just some text\nand more"[..], "just some text\nand more", Some(Problem::NoHeader)),
        (b"", "", None),
        (b"\r\n\r\n", "\n\n", None),
    ] {
        let message = parse(raw);
        assert_eq!(message.text, text);
        assert!(message.problems.contains(&Problem::Unreadable), "{:?}", message.problems);
        assert!(missing.iter().chain(&problem).all(|problem| message.problems.contains(problem)));
    }
}

#[test]
fn ten_thousand_nested_parts_neither_overflow_nor_hide() {
    let mut multipart = HEAD.to_owned();
    for level in 0..10_000 {
        multipart
            .push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"));
    }
    multipart.push_str("\r\ninnermost");
    let rfc822 = format!("{HEAD}{}innermost", "Content-Type: message/rfc822\r\n\r\n".repeat(10_000));
    let mut digest = HEAD.to_owned();
    for level in 0..10_000 {
        digest.push_str(&format!(
            "Content-Type: multipart/digest; boundary=b{level}\r\n\r\n--b{level}\r\n\r\n"
        ));
    }
    digest.push_str("\r\ninnermost");
    for raw in [multipart, rfc822, digest] {
        let message = parse(raw.as_bytes());
        assert!(message.problems.contains(&Problem::TooDeep));
        assert!(message.text.contains("innermost"));
    }
}

#[test]
fn a_large_attachment_hides_no_later_one() {
    let limits = Limits { attachment_bytes: 10, ..Limits::DEFAULT };
    let part = |content: &str| format!("--a\nContent-Type: application/x\n\n{content}\n");
    let rest = format!(
        "{HEAD}Content-Type: multipart/mixed; boundary=a\n\n{}{}--a--",
        part(&"x".repeat(100)),
        part("MZ\u{1}\u{0}")
    );
    let message = parse_within(rest.as_bytes(), &limits);
    assert_eq!(message.attachments[1].detected_type, Some("application/vnd.microsoft.portable-executable"));
}

#[test]
fn every_limit_is_noted() {
    let limits = Limits {
        header_fields: 5,
        parts: 2,
        text_bytes: 40,
        html_bytes: 60,
        links: 2,
        link_bytes: 30,
        ..Limits::DEFAULT
    };
    let check = |rest: &str, problem: Problem| {
        let message = parse_within(format!("{HEAD}{rest}").as_bytes(), &limits);
        assert!(message.problems.contains(&problem), "{problem:?} in {:?}", message.problems);
    };
    check("A: 1\nB: 2\nC: 3\n\ntext", Problem::HeaderTooLong);
    check(
        "Content-Type: multipart/mixed; boundary=a\n\n--a\n\n1\n--a\n\n2\n--a\n\n3\n--a--",
        Problem::TooManyParts,
    );
    check(&format!("\n{}", "x".repeat(50)), Problem::TooMuchText);
    check(&format!("Content-Type: text/html\n\n{}", "<b>x</b>".repeat(10)), Problem::TooMuchText);
    check("\nhttp://a.example http://b.example http://c.example", Problem::TooManyLinks);
    check("\nhttp://a.example/xxxxxxxxxxxxxxxxxxxxxx", Problem::TooManyLinks);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed(raw in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let message = parse(&raw);
        prop_assert!(message.body_offset <= raw.len());
    }

    #[test]
    fn mutated_mail_is_parsed(
        pieces in proptest::collection::vec(0_usize..24, 1..60),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
        at in any::<prop::sample::Index>(),
    ) {
        const PIECES: [&str; 24] = [
            "From: ", "a <b@c.example>", "\r\n", "\n", " ", "\t", "Content-Type: ", "multipart/mixed; boundary=x",
            "text/html; charset=utf-8", "message/rfc822", "--x", "--x--", "\r\n\r\n", "=?utf-8?q?=41", "?=",
            "Content-Transfer-Encoding: base64\r\n", "<a href='http://x.example'>", "<div style='display:none'>",
            "\"", "(", "name*0*=utf-8''%41;", "Subject: x\r\n", "http://ü.example/ü", "From x\n",
        ];
        let mut raw: Vec<u8> = pieces.iter().flat_map(|piece| PIECES[*piece].bytes()).collect();
        let position = at.index(raw.len() + 1);
        raw.splice(position..position, noise);
        parse(&raw);
        let raw = bytes::Bytes::from(raw);
        prop_assert_eq!(HeaderEdits::new().apply(&raw, |_| false).concat(), raw);
    }
}
