//! Both doors over in-memory streams.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use super::*;
use crate::policy::OnDegraded;
use crate::rules::{Organisation, RuleSet, Source};
use crate::scan::{self, Rules, Sharing};
use crate::store::Records;

const MAIL: &str = "From: a@example.org\r\nX-Spam-Flag: NO\r\nSubject: Hi\r\n\r\nBuy spam here\r\n";

async fn service(may_teach: bool) -> Current {
    let rules = || {
        RuleSet::compile(&[Source::new(
            "t.cf",
            b"body EATS /spam/\nscore EATS 7.1\ndescribe EATS It speaks of meat",
        )])
        .0
    };
    let records = Records::in_memory().await.unwrap();
    let rules = Rules { inbound: rules(), outbound: rules(), organisation: Organisation::default() };
    let config = scan::Config { concurrency: 2, timeout: Duration::from_secs(10) };
    Arc::new(ArcSwap::from_pointee(Service {
        scanner: Scanner::of_test(&records, config, rules).await,
        policy: Policy {
            thresholds: Thresholds::new(4.0, 6.0, 20.0).unwrap(),
            on_degraded: OnDegraded::Ignore,
            exemptions: Vec::new(),
        },
        direction: Direction::Inbound,
        may_teach,
        sharing: Sharing::Person,
        message_bytes: 10_000,
        now: || OffsetDateTime::UNIX_EPOCH,
    }))
}

/// Sends a request to the spamd door and returns the answer.
async fn spamc(request: &[u8], may_teach: bool) -> String {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn(serve(server, service(may_teach).await));
    client.write_all(request).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    serving.await.unwrap().unwrap();
    answer
}

fn with_message(method: &str, fields: &str) -> Vec<u8> {
    format!("{method} SPAMC/1.5\r\nContent-length: {}\r\n{fields}\r\n{MAIL}", MAIL.len()).into_bytes()
}

#[tokio::test]
async fn spamc_is_answered_as_by_spamd() {
    assert_eq!(spamc(b"PING SPAMC/1.2\r\n\r\n", false).await, "SPAMD/1.5 0 PONG\r\n");
    let check = spamc(&with_message("CHECK", ""), false).await;
    assert_eq!(check, "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 7.1 / 6.0\r\n\r\n");
    let symbols = spamc(&with_message("SYMBOLS", "User: x@example.net\r\n"), false).await;
    assert!(symbols.ends_with("\r\nContent-length: 4\r\nSpam: True ; 7.1 / 6.0\r\n\r\nEATS"), "{symbols}");
    let report = spamc(&with_message("REPORT", ""), false).await;
    assert!(report.contains(" 7.1 EATS                   It speaks of meat"), "{report}");
    let processed = spamc(&with_message("PROCESS", ""), false).await;
    assert!(
        processed.contains("X-Spam-Flag: YES\r\n") && !processed.contains("X-Spam-Flag: NO"),
        "{processed}"
    );
    assert!(
        processed.contains("X-Spam-Status: Yes, score=7.1 required=6.0 tests=EATS autolearn=no\r\n"),
        "{processed}"
    );
    assert!(processed.ends_with("\r\n\r\nBuy spam here\r\n"), "{processed}");
    let headers = spamc(&with_message("HEADERS", ""), false).await;
    assert!(headers.ends_with("Subject: Hi\r\n\r\n"), "{headers}");
}

#[tokio::test]
async fn a_compressed_message_is_read_within_its_limit() {
    let request = |bytes: &[u8]| {
        let packed = miniz_oxide::deflate::compress_to_vec_zlib(bytes, 6);
        let head = format!("CHECK SPAMC/1.5\r\nContent-length: {}\r\nCompress: zlib\r\n\r\n", packed.len());
        [head.into_bytes(), packed].concat()
    };
    assert!(spamc(&request(MAIL.as_bytes()), false).await.contains("Spam: True"));
    let bomb = spamc(&request(&vec![b'a'; 1 << 20]), false).await;
    assert_eq!(bomb, "SPAMD/1.0 76 EX_PROTOCOL: the message cannot be decompressed\r\n");
}

#[tokio::test]
async fn what_is_wrong_is_told_and_never_taken() {
    let large = format!("CHECK SPAMC/1.5\r\nContent-length: 20000\r\n\r\n{}", "a".repeat(20_000));
    assert!(spamc(large.as_bytes(), false).await.starts_with("SPAMD/1.0 98 "));
    assert!(spamc(&[b'a'; 20_000], false).await.starts_with("SPAMD/1.0 76 "));
    assert!(
        spamc(b"CHECK SPAMC/1.5\r\nContent-length: 100\r\n\r\nshort", false)
            .await
            .starts_with("SPAMD/1.0 76 ")
    );
    assert!(spamc(&with_message("DANCE", ""), false).await.starts_with("SPAMD/1.0 76 "));
}

#[tokio::test]
async fn teaching_is_refused_unless_it_is_allowed() {
    let tell = with_message("TELL", "Message-class: spam\r\nSet: local\r\n");
    assert!(spamc(&tell, false).await.starts_with("SPAMD/1.0 77 "));
    assert!(spamc(&tell, true).await.contains("DidSet: local\r\n"));
    let remove = with_message("TELL", "Remove: local\r\n");
    assert!(spamc(&remove, true).await.starts_with("SPAMD/1.0 64 "));
}

#[tokio::test]
async fn what_is_said_of_the_mail_of_a_person_teaches_that_person() {
    let current = service(true).await;
    let request = with_message("TELL", "Message-class: spam\r\nSet: local\r\nUser: ann@example.org\r\n");
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn(serve(server, Arc::clone(&current)));
    client.write_all(&request).await.unwrap();
    client.shutdown().await.unwrap();
    serving.await.unwrap().unwrap();
    let request =
        Request::post("/learnspam").header("Deliver-To", "<bob@example.org>").body(Body::from(MAIL));
    let response = router(Arc::clone(&current)).oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let service = current.load_full();
    let learned = service.scanner.learned();
    assert_eq!(learned.load().await.unwrap().lessons(), (0, 0), "it is nobody else's");
    for (person, layers) in [("ann", 1), ("bob", 1), ("carl", 0)] {
        let recipient = Address::parse(&format!("{person}@example.org")).unwrap().into();
        assert_eq!(learned.layers_of(&[recipient]).await.unwrap().len(), layers, "{person}");
    }
}

#[tokio::test]
async fn rspamc_is_answered_as_by_rspamd() {
    let current = service(true).await;
    let ask = async |path: &str, body: Vec<u8>| {
        let request = Request::post(path)
            .header("From", "<b@example.org>")
            .header("Rcpt", "x@example.net")
            .header("IP", "192.0.2.1");
        let response =
            router(Arc::clone(&current)).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice::<serde_json::Value>(&bytes).unwrap())
    };
    let (status, answer) = ask("/checkv2", MAIL.as_bytes().to_vec()).await;
    assert_eq!(
        (status, &answer["action"], &answer["score"]),
        (StatusCode::OK, &"add header".into(), &7.1.into())
    );
    assert_eq!(answer["symbols"]["EATS"]["description"], "It speaks of meat: “spam”.");
    assert_eq!(answer["milter"]["add_headers"]["X-Spam-Flag"]["value"], "YES");
    assert_eq!(answer["milter"]["remove_headers"]["X-Spam-Level"], 0);
    assert_eq!(ask("/checkv2", vec![b'a'; 20_000]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(ask("/learnspam", MAIL.as_bytes().to_vec()).await.0, StatusCode::OK);
    assert_eq!(ask("/learnspam", MAIL.as_bytes().to_vec()).await.0, StatusCode::ALREADY_REPORTED);
}
