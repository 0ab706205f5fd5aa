use proptest::prelude::*;

use super::*;

/// RFC 7677, section 3: user `user`, password `pencil`.
const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CHALLENGE: &[u8] =
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SIGNATURE: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn keys() -> ScramKeys {
    let salt =
        [0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81];
    ScramKeys::derive("pencil", salt, 4096)
}

/// What an exchange came to after these responses, in words.
fn outcome(mechanism: Mechanism, initial: Option<&[u8]>, responses: &[&[u8]]) -> String {
    let said = |step: Result<Step, Problem>| match step {
        Ok(Step::Challenge(challenge)) => format!("challenge {}", String::from_utf8(challenge).unwrap()),
        Ok(Step::Password(given)) => format!("password {} {}", given.name, *given.password),
        Ok(Step::Keys(name)) => format!("keys {name}"),
        Ok(Step::Proof(_)) => "proof".to_owned(),
        Ok(Step::Done(name)) => format!("done {name}"),
        Err(problem) => format!("{problem:?}"),
    };
    let mut exchange = match Exchange::begin(mechanism, initial) {
        Ok((exchange, step)) if responses.is_empty() => {
            drop(exchange);
            return said(Ok(step));
        }
        Ok((exchange, _)) => exchange,
        Err(problem) => return said(Err(problem)),
    };
    let mut last = String::new();
    for response in responses {
        last = said(exchange.respond(response));
    }
    last
}

#[test]
fn plain_has_three_fields_and_one_identity() {
    let long_name = [b"\0", "n".repeat(NAME_LIMIT_BYTES + 1).as_bytes(), b"\0pw"].concat();
    let long_password = [b"\0kit\0".as_slice(), "p".repeat(PASSWORD_LIMIT_BYTES + 1).as_bytes()].concat();
    for (response, expected) in [
        (&b"\0kit\0secret"[..], "password kit secret"),
        (b"kit\0kit\0secret", "password kit secret"),
        ("\0jörg\0schlüssel".as_bytes(), "password jörg schlüssel"),
        (b"\0kit\0 ", "password kit  "),
        (b"other\0kit\0secret", "ForeignIdentity"),
        (b"", "Malformed"),
        (b"kit", "Malformed"),
        (b"kit\0secret", "Malformed"),
        (b"\0\0\0", "Malformed"),
        (b"\0\0secret", "Malformed"),
        (b"\0kit\0", "Malformed"),
        (b"\0kit\0secret\0", "Malformed"),
        (b"\0kit\0sec\0ret", "Malformed"),
        (b"\0kit\0\xff\xfe", "Malformed"),
        (b"\0\xc0\x80\0secret", "Malformed"),
        (&long_name, "TooLong"),
        (&long_password, "TooLong"),
        (&[b'a'; 1 << 16], "TooLong"),
    ] {
        assert_eq!(outcome(Mechanism::Plain, Some(response), &[]), expected);
        assert_eq!(outcome(Mechanism::Plain, None, &[response]), expected);
    }
    assert_eq!(outcome(Mechanism::Plain, None, &[]), "challenge ");
    assert_eq!(outcome(Mechanism::Plain, Some(b"\0kit\0secret"), &[b"\0kit\0secret"]), "Malformed");
}

#[test]
fn login_asks_for_the_name_and_then_for_the_password() {
    assert_eq!(outcome(Mechanism::Login, None, &[]), "challenge Username:");
    assert_eq!(outcome(Mechanism::Login, Some(b"kit"), &[]), "challenge Password:");
    assert_eq!(outcome(Mechanism::Login, None, &[b"kit", b"secret"]), "password kit secret");
    assert_eq!(outcome(Mechanism::Login, Some(b"kit"), &[b"secret"]), "password kit secret");
    assert_eq!(outcome(Mechanism::Login, None, &[b"ABC\r\n", b"x"]), "password ABC\r\n x");
    assert_eq!(outcome(Mechanism::Login, None, &[b"\0"]), "Malformed");
    assert_eq!(outcome(Mechanism::Login, None, &[b"\xff"]), "Malformed");
    assert_eq!(outcome(Mechanism::Login, None, &[&[b'n'; NAME_LIMIT_BYTES + 1]]), "TooLong");
    assert_eq!(outcome(Mechanism::Login, None, &[b"kit", b"secret", b"more"]), "Malformed");
}

#[test]
fn scram_speaks_the_example_of_its_rfc() {
    let (mut exchange, step) = Exchange::begin(Mechanism::ScramSha256, Some(FIRST)).unwrap();
    assert!(matches!(step, Step::Keys(name) if name == "user"));
    assert_eq!(exchange.challenge(keys(), SERVER_NONCE).unwrap(), CHALLENGE);
    let Ok(Step::Proof(proof)) = exchange.respond(FINAL) else { panic!() };
    assert_eq!(proof.name(), "user");
    assert_eq!(exchange.confirm(proof.verify().unwrap()).unwrap(), SIGNATURE);
    assert!(matches!(exchange.respond(b""), Ok(Step::Done(name)) if name == "user"));
    assert!(exchange.respond(b"").is_err());
}

#[test]
fn a_scram_exchange_goes_on_in_its_order_only() {
    let begun = || Exchange::begin(Mechanism::ScramSha256, Some(FIRST)).unwrap().0;
    assert!(begun().respond(FINAL).is_err(), "no keys yet");
    for nonce in ["", "a,b", "a b", "\n", "ä"] {
        assert!(begun().challenge(keys(), nonce).is_err(), "{nonce:?}");
    }
    let mut exchange = begun();
    exchange.challenge(keys(), SERVER_NONCE).unwrap();
    assert!(exchange.challenge(keys(), SERVER_NONCE).is_err());
    let mut exchange = begun();
    exchange.challenge(keys(), SERVER_NONCE).unwrap();
    let Ok(Step::Proof(proof)) = exchange.respond(FINAL) else { panic!() };
    assert!(exchange.respond(b"").is_err(), "not verified yet");
    assert!(exchange.confirm(proof.verify().unwrap()).is_err(), "over after a problem");
    let mut exchange = begun();
    exchange.challenge(keys(), SERVER_NONCE).unwrap();
    let Ok(Step::Proof(proof)) = exchange.respond(FINAL) else { panic!() };
    exchange.confirm(proof.verify().unwrap()).unwrap();
    assert!(exchange.respond(b"more").is_err());
}

#[test]
fn the_first_message_of_scram_is_read_strictly() {
    let long = format!("n,,n={},r=x", "n".repeat(NAME_LIMIT_BYTES + 1));
    for (message, expected) in [
        ("n,,n=user,r=abc", "keys user"),
        ("y,,n=user,r=abc", "keys user"),
        ("n,a=user,n=user,r=abc", "keys user"),
        ("n,,n=a=2Cb=3Dc,r=abc", "keys a,b=c"),
        ("n,,n=user,r=abc,x=anything", "keys user"),
        ("n,,n=jörg,r=abc", "keys jörg"),
        ("p=tls-exporter,,n=user,r=abc", "NotOffered"),
        ("n,,m=ext,n=user,r=abc", "NotOffered"),
        ("n,a=other,n=user,r=abc", "ForeignIdentity"),
        ("n,other,n=user,r=abc", "Malformed"),
        ("", "Malformed"),
        ("n", "Malformed"),
        ("n,,", "Malformed"),
        ("n,,n=user", "Malformed"),
        ("n,,n=,r=abc", "Malformed"),
        ("n,,n=user,r=", "Malformed"),
        ("n,,n=user,r=a\u{1}c", "Malformed"),
        ("n,,n=user,r=aäc", "Malformed"),
        ("n,,n=us=er,r=abc", "Malformed"),
        ("n,,n=us=2cer,r=abc", "Malformed"),
        ("n,,n=us\0er,r=abc", "Malformed"),
        ("n,,r=abc,n=user", "Malformed"),
        ("n,,n=user,r=abc,", "Malformed"),
        ("n,,n=user,r=abc,xx", "Malformed"),
        ("q,,n=user,r=abc", "Malformed"),
        (&long, "TooLong"),
    ] {
        assert_eq!(outcome(Mechanism::ScramSha256, Some(message.as_bytes()), &[]), expected, "{message:?}");
    }
    assert_eq!(outcome(Mechanism::ScramSha256, Some(b"n,,n=\xff,r=abc"), &[]), "Malformed");
}

#[test]
fn a_last_message_of_another_exchange_or_password_is_no_proof() {
    let answer = |message: &[u8], keys: ScramKeys| {
        let (mut exchange, _) = Exchange::begin(Mechanism::ScramSha256, Some(FIRST)).unwrap();
        exchange.challenge(keys, SERVER_NONCE).unwrap();
        match exchange.respond(message) {
            Ok(Step::Proof(proof)) => Ok(proof.verify().is_some()),
            Ok(_) => panic!("no other step is due"),
            Err(problem) => Err(problem),
        }
    };
    assert_eq!(answer(FINAL, keys()), Ok(true));
    assert_eq!(answer(FINAL, ScramKeys::derive("pencils", keys().salt, 4096)), Ok(false));
    assert_eq!(answer(FINAL, ScramKeys::of_nobody(&[7; 32], "user", 4096)), Ok(false));
    let text = std::str::from_utf8(FINAL).unwrap();
    assert_eq!(answer(text.replace("p=dHzb", "p=dHzc").as_bytes(), keys()), Ok(false));
    for changed in [
        text.replace("c=biws", "c=eSws"),
        text.replace("c=biws", "c=!"),
        text.replace("%hvY", "%hvZ"),
        text.replace("r=rOpr", "r=rOpq"),
        text.replace("AndVQ=", "And"),
        text.replace("p=", "p=AAAA"),
        text.replace(",p=", ",q="),
        text.replace(",p=", ",,p="),
        String::new(),
    ] {
        assert_eq!(answer(changed.as_bytes(), keys()), Err(Problem::Malformed), "{changed}");
    }
    // An extension is part of what is signed: this proof was made without it.
    assert_eq!(answer(text.replace(",p=", ",x=1,p=").as_bytes(), keys()), Ok(false));
}

#[test]
fn nobody_has_the_same_keys_every_time() {
    let keys = ScramKeys::of_nobody(&[1; 32], "nobody", 20_000);
    assert_eq!(keys, ScramKeys::of_nobody(&[1; 32], "nobody", 20_000));
    assert_ne!(keys.salt, ScramKeys::of_nobody(&[2; 32], "nobody", 20_000).salt);
    assert_ne!(keys.salt, ScramKeys::of_nobody(&[1; 32], "somebody", 20_000).salt);
    assert_eq!(ScramKeys::derive("x", [0; 16], 1).iterations, SCRAM_ITERATIONS_MINIMUM);
}

#[test]
fn one_text_typed_in_two_ways_is_one_text() {
    let prepared = |text: &str| prepare(text).map(|text| text.to_string());
    for (text, expected) in [
        ("secret", Some("secret")),
        ("I\u{ad}X", Some("IX")),
        ("\u{aa}", Some("a")),
        ("\u{2168}", Some("IX")),
        ("schlu\u{308}ssel", Some("schl\u{fc}ssel")),
        ("a\u{a0}b", Some("a b")),
        ("\u{7}", None),
        ("\u{627}1", None),
    ] {
        assert_eq!(prepared(text).as_deref(), expected, "{text:?}");
    }
}

#[test]
fn secrets_do_not_print_themselves() {
    let given = Credentials { name: "kit".into(), password: Zeroizing::new("secret".into()) };
    assert_eq!(format!("{given:?} {:?}", keys()), "Credentials([redacted]) ScramKeys([redacted])");
}

fn mechanism() -> impl Strategy<Value = Mechanism> {
    prop_oneof![Just(Mechanism::Plain), Just(Mechanism::Login), Just(Mechanism::ScramSha256)]
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        "[nyp]?,?(a=[a=2C]{0,4})?,n=[a-z=23CD\u{0}é]{0,8},r=[ -~]{0,20}(,[a-z]=.{0,3})?".prop_map(Vec::from),
        "c=[biwseS]{0,6},r=[ -~]{0,20}(,[a-z]=.{0,3})?,p=[A-Za-z0-9+/]{40,46}=?".prop_map(Vec::from),
    ]
}

proptest! {
    #[test]
    fn hostile_responses_never_panic_and_never_sign_in(
        mechanism in mechanism(),
        initial in proptest::option::of(response()),
        responses in proptest::collection::vec(response(), 0..6),
    ) {
        let Ok((mut exchange, mut step)) = Exchange::begin(mechanism, initial.as_deref()) else {
            return Ok(());
        };
        for response in responses {
            let next = match step {
                Step::Keys(_) => exchange.challenge(ScramKeys::of_nobody(&[1; 32], "x", 4096), "abc").map(Step::Challenge),
                Step::Proof(proof) => {
                    prop_assert!(proof.verify().is_none());
                    return Ok(());
                }
                Step::Done(_) => return Err(TestCaseError::fail("signed in")),
                Step::Challenge(_) | Step::Password(_) => exchange.respond(&response),
            };
            match next {
                Ok(next) => step = next,
                Err(_) => {
                    prop_assert!(exchange.respond(b"").is_err());
                    return Ok(());
                }
            }
        }
    }

    #[test]
    fn what_plain_takes_is_what_was_sent(name in "[^\u{0}]{1,20}", password in "[^\u{0}]{1,20}") {
        let message = format!("\0{name}\0{password}");
        let Ok((_, Step::Password(given))) = Exchange::begin(Mechanism::Plain, Some(message.as_bytes())) else {
            return Err(TestCaseError::fail("refused"));
        };
        prop_assert_eq!(given.name, name);
        prop_assert_eq!(given.password.as_str(), password);
    }
}
