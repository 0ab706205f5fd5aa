//! Stories over whole messages: the same message gives the same features, and lessons change opinions.

use super::*;
use crate::mail::Client;
use crate::message::parse;

const ORIGINAL: &str = "Received: from origin.example (origin.example [198.51.100.7])\n\
    \tby relay.example (Postfix) with ESMTPS id 4F2; Mon, 1 Jun 2026 10:00:00 +0000\n\
    From: \"Carla Sender\" <carla@shop.example>\n\
    To: Bob <bob@example.org>\n\
    Subject: Your invoice is overdue\n\
    Date: Mon, 1 Jun 2026 10:00:00 +0000\n\
    Message-ID: <abc.123@shop.example>\n\
    X-Mailer: ShopMail 3.1\n\
    MIME-Version: 1.0\n\
    Content-Type: text/plain; charset=utf-8\n\
    \n\
    Dear Bob,\n\
    From now on the invoice is overdue. Pay at https://pay.shop.example/now today.\n";

fn key() -> FeatureKey {
    FeatureKey::from_bytes([5; 32])
}

fn client(address: &str, helo: &str) -> Client {
    Client { helo: helo.to_owned(), ..Client::new(address.parse().unwrap()) }
}

fn wire(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// Compares a copy of the original, met without a session, with the original in its session.
fn check(session: &Client, copy: &[u8]) {
    let original = parse(&wire(ORIGINAL));
    let scored = extract(&original, Some(session), &key());
    let learned = parse(copy);
    let copied = extract(&learned, None, &key());
    let features = |of: &Extracted, other: &Extracted| -> Vec<String> {
        let view = |origin: &super::words::Origin| other.features.view(origin.kind.view());
        let missing = of.words.origins.iter().filter(|origin| !view(origin).contains(&origin.slot));
        missing.map(|origin| of.words.describe(origin)).collect()
    };
    assert_eq!((features(&scored, &copied), features(&copied, &scored)), (Vec::new(), Vec::new()));
    assert!(scored.features == copied.features);
    assert_eq!(MessageKey::of(&original, &key()), MessageKey::of(&learned, &key()));
}

#[test]
fn a_delivered_copy_has_the_features_of_the_session() {
    for (session, hop) in [
        (client("192.0.2.9:4000", "mx.sender.example"), "mx.sender.example ([192.0.2.9])"),
        (
            client("[2001:db8:1:2::3]:4000", "[IPv6:2001:db8:1:2::3]"),
            "[IPv6:2001:db8:1:2::3] ([IPv6:2001:db8:1:2::3])",
        ),
    ] {
        let ours = format!(
            "Received: from {hop}\n by gw.example (Lazaret) with ESMTP id 0zz3456789abcdef;\n Mon, 1 Jun 2026 10:00:01 +0000\n\
             X-Lazaret-Score: 1.0\nX-Lazaret-Symbols: BAYES_UNSURE\nX-Spam-Flag: NO\nX-Lazaret-Id: 0zz3456789abcdef\n"
        );
        check(&session, &wire(&format!("{ours}{ORIGINAL}")));
        let above = "Return-Path: <carla@shop.example>\nDelivered-To: bob@example.org\n\
             Received: from gw.example (localhost [127.0.0.1])\n\tby mail.example.org (Postfix) with ESMTP id 9; Mon, 1 Jun 2026 10:00:02 +0000\n\
             X-Whatever: added by the next hop\n";
        check(&session, &wire(&format!("{above}{ours}{ORIGINAL}")));
        let mbox = format!(
            "From carla@shop.example Mon Jun  1 10:00:02 2026\n{above}X-Spam-Status: No, score=1.0\n\
             Authentication-Results: mail.example.org; spf=pass\n{ours}{}\n\n",
            ORIGINAL.replace("\nFrom now", "\n>From now").replace(
                "\nMIME-Version",
                "\nStatus: RO\nX-Status: A\nX-UID: 77\nContent-Length: 100\nLines: 3\nMIME-Version"
            )
        );
        check(&session, mbox.as_bytes());
    }
}

#[test]
fn a_released_copy_has_the_features_of_the_session() {
    let session = client("192.0.2.9:4000", "mx.sender.example");
    let scored = extract(&parse(&wire(ORIGINAL)), Some(&session), &key());
    let released = extract(&parse(ORIGINAL.as_bytes()), Some(&session), &key());
    assert_eq!(scored.features, released.features);
}

#[test]
fn an_mbox_copy_from_elsewhere_has_the_features_of_the_original() {
    let original = extract(&parse(&wire(ORIGINAL)), None, &key());
    let copy = format!(
        "From carla@shop.example Mon Jun  1 10:00:02 2026\nX-Spam-Level: **\nAuthentication-Results: x\nReturn-Path: <>\n{ORIGINAL}\n"
    );
    assert_eq!(original.features, extract(&parse(copy.as_bytes()), None, &key()).features);
}

#[test]
fn features_depend_on_the_key_and_the_hop() {
    let message = parse(&wire(ORIGINAL));
    let here = extract(&message, Some(&client("192.0.2.9:1", "a.example")), &key());
    let elsewhere = extract(&message, Some(&client("203.0.113.9:1", "a.example")), &key());
    let other_key = extract(&message, None, &FeatureKey::from_bytes([6; 32]));
    assert_ne!(here.features, elsewhere.features);
    let shared = |slot: &&u32| here.features.view(View::Header).contains(slot);
    assert!(other_key.features.view(View::Header).iter().filter(shared).count() < 20);
    assert!(!format!("{here:?}").contains("invoice"));
}

fn mail(subject: &str, text: &str) -> Extracted {
    extract(&parse(&wire(&format!("From: a@example.org\nSubject: {subject}\n\n{text}\n"))), None, &key())
}

fn lessons(count: usize) -> Model {
    let mut model = Model::new();
    for n in 0..count {
        let spam = mail("Claim your prize", &format!("You won lottery money number {n}, send bank details"));
        let ham =
            mail("Minutes of the meeting", &format!("We talked about item {n} of the agenda on Tuesday"));
        for (label, features) in [(Label::Spam, spam.features), (Label::Ham, ham.features)] {
            model.learn(&Lesson { label, features, weight: Weight::Whole, teacher: 0, hour: 0 });
        }
    }
    model
}

#[test]
fn there_is_no_opinion_before_anything_was_learned() {
    let message = mail("Claim your prize", "lottery money");
    assert_eq!(Model::new().judge(&message), None);
    assert_eq!(lessons(1).judge(&message).unwrap().state, State::Unsure);
}

#[test]
fn the_first_lessons_call_nothing_spam() {
    let message = mail("Claim your prize", "You won lottery money, send bank details");
    for (count, state) in [(1, State::Unsure), (2, State::Unsure), (3, State::Spam)] {
        let opinion = lessons(count).judge(&message).unwrap();
        assert_eq!(opinion.state, state, "{count}");
        assert_eq!(opinion.points() > 2.5, state == State::Spam, "{count}: {}", opinion.points());
    }
}

#[test]
fn opinions_follow_the_lessons_and_name_their_words() {
    let model = lessons(100);
    let spam = model.judge(&mail("Claim your prize", "You won lottery money, send bank details")).unwrap();
    assert_eq!(spam.state, State::Spam);
    assert!(spam.for_spam.iter().all(|evidence| evidence.spam == 100 && evidence.ham == 0), "{spam:?}");
    let finding = spam.finding();
    assert!(finding.score.points() > 5.0);
    assert!(finding.explanation.expose().contains("(100 spam, 0 ham)"), "{}", finding.explanation.expose());
    // What of the header weighs most is told as well, with the side that it is on.
    let weighs = |opinion: &Opinion, words: &str, sign: f64| {
        opinion.traits.iter().any(|each| each.words.expose().contains(words) && each.adds * sign > 0.0)
    };
    assert!(weighs(&spam, "in the subject", 1.0), "{:?}", spam.traits.len());
    assert!(finding.explanation.expose().contains("How its header is written weighs too: "));
    let ham = model.judge(&mail("Minutes of the meeting", "We talked about the agenda on Tuesday")).unwrap();
    assert!(weighs(&ham, "in the subject", -1.0) && ham.traits.len() <= 3);
    assert_eq!(ham.state, State::Ham);
    assert!(ham.finding().score.points() < 0.0);
    let neither = model.judge(&mail("Zzz", "qqq")).unwrap();
    assert!(neither.points().abs() < 2.0, "{neither:?}");
}

#[test]
fn a_hostile_message_stays_inside_the_limits() {
    let huge = "x y z wörter 無料 ".repeat(100_000);
    let message = crate::message::Message {
        subject: huge.clone(),
        text: huge.clone(),
        headers: (0..1_000)
            .map(|n| crate::message::Header {
                name: format!("X-{n}"),
                raw: huge.clone(),
                value: huge.clone(),
            })
            .collect(),
        ..Default::default()
    };
    let features = extract(&message, None, &key()).features;
    assert!(View::ALL.into_iter().all(|view| features.view(view).len() <= MAX_SLOTS));
    assert!(features.encode().len() <= MAX_ENCODED_BYTES);
}
