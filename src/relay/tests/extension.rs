//! Extensions: used where they are offered, refused where they cannot be kept.

use bytes::Bytes;

use super::{ENVELOPE, Hop, OPEN, failed, mail, message, rcpt, said, send, send_all};
use crate::mail::{BodyType, Client, Mail, Notify, Protocol, Return};
use crate::relay::{Begun, Config, Relay, Target};
use crate::smtp::server::Offers;

#[tokio::test]
async fn what_the_hop_does_not_offer_is_not_asked_of_it() {
    let bare = "S: 220 x\nC: EHLO\nS: 250 x\n";
    let eight_bit = Mail { body: BodyType::EightBitMime, ..mail() };
    let utf8 = Mail { smtputf8: true, ..mail() };
    // It would fit, but not with what is added on the way.
    let large = Mail { size_bytes: Some(2900), ..mail() };
    let high = [Bytes::from_static(b"caf\xe9\r\n")];

    let hop = Hop::start(&[bare]).await;
    let refused = "mail 550 5.6.7 SMTPUTF8 is not supported on the way to the recipient";
    assert_eq!(send(&hop.relay(), &utf8, &message()).await, refused);
    let hop = Hop::start(&[OPEN]).await;
    assert_eq!(send(&hop.relay(), &large, &message()).await, "mail 552 5.3.4 Message too large");
    let plain = format!("{bare}C: MAIL FROM:<a@b.example>\r\n{}", "S: 250 x\nC: RCPT\nS: 250 x\n");
    let hop = Hop::start(&[&format!("{plain}C: RSET\nS: 250 x\n")]).await;
    let refused = "data 554 5.6.3 8BITMIME is not supported on the way to the recipient";
    assert_eq!(send(&hop.relay(), &eight_bit, &high).await, refused);
    let hop = Hop::start(&[&format!("{plain}C: DATA\nS: 354 go\nM\nS: 250 ok\n")]).await;
    assert_eq!(send(&hop.relay(), &eight_bit, &message()).await, "accepted 250 ok");
    let all = Mail { size_bytes: Some(9), smtputf8: true, ..eight_bit };
    let hop = Hop::start(&[&format!(
        "{OPEN}C: MAIL FROM:<a@b.example> SIZE=2057 BODY=8BITMIME SMTPUTF8\nS: 550 x\n"
    )])
    .await;
    assert_eq!(send(&hop.relay(), &all, &message()).await, "mail 550 x");
}

const BARE: &str = "S: 220 x\nC: EHLO\nS: 250 x\n";

#[tokio::test]
async fn what_cannot_be_kept_is_refused_with_its_own_code() {
    let binary = Mail { body: BodyType::Binary, ..mail() };
    let secret = Mail { require_tls: true, ..mail() };
    for (mail, expected) in [
        (&binary, "mail 554 5.6.1 BINARYMIME is not supported on the way to the recipient"),
        (&secret, "mail 550 5.7.30 REQUIRETLS is not supported on the way to the recipient"),
    ] {
        // Without its CHUNKING, BINARYMIME is worth nothing; nor is REQUIRETLS without TLS.
        for script in [BARE, "S: 220 x\nC: EHLO\nS: 250-x\nS: 250-REQUIRETLS\nS: 250 BINARYMIME\n"] {
            let hop = Hop::start(&[script]).await;
            assert_eq!(send(&hop.relay(), mail, &message()).await, expected);
        }
    }
    let hop = Hop::start(&[&format!("{BARE}C: MAIL\nS: 250 ok\nC: RSET\nS: 250 ok\n")]).await;
    let outcomes = send_all(&hop.relay(), None, &mail(), &["j\u{f6}rg@d.example"], &message()).await;
    assert_eq!(outcomes, ["rcpt 553 5.6.7 The address needs SMTPUTF8"]);
}

#[tokio::test]
async fn a_message_that_has_grown_beyond_the_size_is_refused_before_it_is_sent() {
    let script = format!("{OPEN}{ENVELOPE}C: RSET\nS: 250 ok\n");
    let hop = Hop::start(&[&script]).await;
    let large = [Bytes::from(vec![b'x'; 3001])];
    assert_eq!(send(&hop.relay(), &mail(), &large).await, "data 552 5.3.4 Message too large");
    hop.finish().await;
}

#[tokio::test]
async fn a_binary_message_goes_with_bdat_byte_by_byte() {
    let open = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250-CHUNKING\nS: 250 BINARYMIME\n";
    let envelope = "C: MAIL FROM:<a@b.example> BODY=BINARYMIME\nS: 250 ok\nC: RCPT\nS: 250 ok\n";
    let script = format!(
        "{open}{envelope}C: BDAT 9 LAST\nB 9\nS: 250 2.0.0 ok\n{envelope}C: BDAT 0 LAST\nS: 250 ok\n\
         {envelope}C: BDAT 9 LAST\nB 9\nS: 554 no\n"
    );
    let hop = Hop::start(&[&script]).await;
    let relay = hop.relay();
    let binary = Mail { body: BodyType::Binary, ..mail() };
    let parts = [Bytes::from_static(b"\r.\n\0"), Bytes::new(), Bytes::from_static(b"\r\n.\r\n")];
    assert_eq!(send(&relay, &binary, &parts).await, "accepted 250 2.0.0 ok");
    assert_eq!(send(&relay, &binary, &[]).await, "accepted 250 ok");
    assert_eq!(send(&relay, &binary, &parts).await, "data 554 no");
    assert_eq!(hop.finish().await, ["\r.\n\0\r\n.\r\n", "\r.\n\0\r\n.\r\n"]);
}

#[tokio::test]
async fn what_is_asked_of_notifications_is_passed_on_where_it_is_offered() {
    let notified = Mail { ret: Some(Return::Headers), envelope_id: Some("QQ+3D1".to_owned()), ..mail() };
    let mut to = rcpt();
    to.original = Some("rfc822;c@d.example".to_owned());
    let check = async |script: &str, notify: Notify, to: &crate::mail::Recipient| {
        let hop = Hop::start(&[&format!("S: 220 x\nC: EHLO\n{script}")]).await;
        let begun = hop.relay().begin(None, &notified).await;
        let Ok(Begun::Ready(mut transaction, _)) = begun else { panic!("{begun:?}") };
        let to = crate::mail::Recipient { notify: Some(notify), ..to.clone() };
        assert!(transaction.rcpt(&to).await.unwrap().is_positive());
        hop.finish().await;
    };
    let offered = "S: 250-x\nS: 250 DSN\nC: MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ+3D1\nS: 250 ok\n";
    let some = Notify { success: true, failure: false, delay: true };
    let first = "C: RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@d.example\r\n";
    check(&format!("{offered}{}\nS: 250 ok\n", first.trim()), some, &to).await;
    check(
        &format!("{offered}C: RCPT TO:<c@d.example> NOTIFY=NEVER ORCPT=rfc822;c@d.example\nS: 250 ok\n"),
        Notify::default(),
        &to,
    )
    .await;
    check(
        "S: 250 x\nC= MAIL FROM:<a@b.example>\nS: 250 ok\nC= RCPT TO:<c@d.example>\nS: 250 ok\n",
        some,
        &to,
    )
    .await;
    // A value that would end its line is not sent at all.
    to.original = Some("rfc822;c\r\nDATA".to_owned());
    check(&format!("{offered}C= RCPT TO:<c@d.example> NOTIFY=NEVER\nS: 250 ok\n"), Notify::default(), &to)
        .await;
}

fn client() -> Client {
    Client {
        helo: "h.example".to_owned(),
        protocol: Protocol::Esmtp,
        ..Client::new("192.0.2.7:99".parse().unwrap())
    }
}

#[tokio::test]
async fn the_client_is_named_with_xforward_in_every_transaction() {
    let ends = "C: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nM\nS: 250 ok\n";
    let named = "C= XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7\n";
    let unnamed = "C= XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE]\n";
    // One after the other; a refusal is none of the mail's; the last transaction is nobody's.
    let script = format!(
        "S: 220 x\nC: EHLO\nS: 250-x\nS: 250 XFORWARD NAME ADDR\n{named}S: 250 ok\nC: MAIL\nS: 250 ok\n{ends}\
         {named}S: 501 no\nC: MAIL\nS: 250 ok\n{ends}{unnamed}S: 250 ok\nC: MAIL\nS: 250 ok\n{ends}\
         C: MAIL\nS: 250 ok\n{ends}"
    );
    let piped = format!(
        "S: 220 x\nC: EHLO\nS: 250-x\nS: 250-PIPELINING\nS: 250 XFORWARD NAME ADDR\n\
         {named}C: MAIL\nS|250 ok\\r\\n250 ok\\r\\n\n{ends}{named}C: MAIL\nS: 501 no\nS: 250 ok\n{ends}\
         {unnamed}C: MAIL\nS: 250 ok\nS: 250 ok\n{ends}C: MAIL\nS: 250 ok\n{ends}"
    );
    for script in [script, piped] {
        let hop = Hop::start(&[&script]).await;
        let relay = hop.relay();
        for client in [Some(client()), Some(client()), None, None] {
            let outcomes = send_all(&relay, client.as_ref(), &mail(), &["c@d.example"], &message()).await;
            assert_eq!(outcomes, ["accepted 250 ok"]);
        }
        assert_eq!(hop.finish().await.len(), 4);
    }
}

#[tokio::test]
async fn a_connection_that_was_told_of_a_client_with_xclient_serves_nobody_else() {
    let greeting = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250 XCLIENT ADDR LOGIN\n";
    let told = |client: &str, answer: &str, end: &str| {
        format!("{greeting}C= XCLIENT {client}\n{answer}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 250 ok\n{end}")
    };
    let anew = "S: 220 again\nC: EHLO\nS: 250 x\n";
    let scripts = [
        told("ADDR=192.0.2.7 LOGIN=[UNAVAILABLE]", anew, "H"),
        told("ADDR=192.0.2.7 LOGIN=alice", "S: 550 no\n", "H"),
        format!("{greeting}{ENVELOPE}C: DATA\nS: 354 go\nM\nS: 250 ok\nC: MAIL\nS: 550 kept\n"),
    ];
    let hop = Hop::start(&[&scripts[0], &scripts[1], &scripts[2]]).await;
    let mut config = hop.config();
    config.targets[0].xclient = true;
    let relay = Relay::new(config);
    let signed_in = Client { login: Some("alice".to_owned()), ..client() };
    for client in [Some(client()), Some(signed_in), None] {
        let outcomes = send_all(&relay, client.as_ref(), &mail(), &["c@d.example"], &message()).await;
        assert_eq!(outcomes, ["accepted 250 ok"]);
    }
    assert_eq!(send(&relay, &mail(), &message()).await, "mail 550 kept");
    hop.finish().await;
}

#[tokio::test]
async fn what_every_hop_offers_is_offered_and_the_connection_that_learned_it_is_used() {
    let script = format!(
        "S: 220 x\nC: EHLO\nS: 250-x\nS: 250-SIZE 2948\nS: 250-CHUNKING\nS: 250-BINARYMIME\nS: 250 DSN\n\
         {ENVELOPE}C: DATA\nS: 354 go\nM\nS: 250 ok\n"
    );
    let hop = Hop::start(&[&script]).await;
    let folder = tempfile::tempdir().unwrap();
    let maildir = Target::new(crate::relay::NextHop::Maildir { path: folder.path().to_owned() });
    let relay = hop.relay();
    let offers = Offers { size_bytes: Some(900), binary_mime: true, dsn: true, ..Offers::default() };
    for _ in 0..3 {
        assert_eq!(relay.offers().await, offers);
    }
    assert_eq!(send(&relay, &mail(), &message()).await, "accepted 250 ok");
    assert_eq!(hop.finish().await.len(), 1);
    let hop = Hop::start(&[&script]).await;
    let targets = vec![hop.config().targets.remove(0), maildir];
    let relay = Relay::new(Config { targets, ..hop.config() });
    assert_eq!(relay.offers().await, Offers { dsn: false, ..offers });
    let hop = Hop::start(&["S: 421 no\n"]).await;
    let relay = hop.relay();
    for _ in 0..2 {
        assert_eq!(relay.offers().await, Offers::default(), "a hop set aside is not asked");
    }
    let refused = relay.begin(None, &mail()).await;
    assert!(
        refused.is_err(),
        "{}",
        refused.map_or_else(|e| failed("mail", &e), |_| said("mail", &crate::mail::Reply::plain(250, [""])))
    );
}
