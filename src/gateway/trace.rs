//! The header fields of what passes: ours added, forged ones of our names removed, the rest untouched.

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::Gateway;
use super::failure::Failure;
use crate::mail::{Client, Envelope, Protocol};
use crate::message::HeaderEdits;
use crate::scan::Scanned;
use crate::verdict::Scan;

/// Received fields after which a message is taken to be in a loop (RFC 5321, section 6.3, asks for a
/// limit of at least 100).
const MAX_HOPS: usize = 100;
/// Symbols named in a header field.
const MAX_SYMBOLS_IN_HEADER: usize = 40;

/// How much of what we found goes into the header of a message that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marking {
    /// The id, the score, the symbols and the flag.
    Full,
    /// The id alone.
    Id,
}

/// Returns the message as it leaves.
pub(super) fn outgoing(
    gateway: &Gateway,
    envelope: &Envelope,
    body: &Bytes,
    scan: &Scan,
    flagged: bool,
    now: OffsetDateTime,
) -> Result<Vec<Bytes>, Failure> {
    let date = now.format(&Rfc2822).map_err(|_| Failure::Internal("the clock is outside of RFC 2822"))?;
    let hop = ("Received", received(envelope, &gateway.hostname, &date));
    let mut edits = HeaderEdits::new();
    for (name, value) in std::iter::once(hop).chain(marks(gateway, envelope, scan, flagged)) {
        edits.prepend(name, &value).map_err(|_| Failure::Internal("a header field of ours is malformed"))?;
    }
    Ok(edits.apply(body, is_ours))
}

/// Returns the fields that say what was found, in order: names and values.
pub(super) fn marks(
    gateway: &Gateway,
    envelope: &Envelope,
    scan: &Scan,
    flagged: bool,
) -> Vec<(&'static str, String)> {
    let mut fields = vec![("X-Lazaret-Id", envelope.id.to_string())];
    if gateway.marking == Marking::Full {
        let symbols: Vec<&str> =
            scan.findings.iter().map(|finding| finding.symbol.as_str()).take(MAX_SYMBOLS_IN_HEADER).collect();
        fields.push(("X-Spam-Flag", if flagged { "YES" } else { "NO" }.to_owned()));
        fields.push(("X-Lazaret-Score", scan.score().to_string()));
        let symbols = if symbols.is_empty() { "none".to_owned() } else { symbols.join(", ") };
        fields.push(("X-Lazaret-Symbols", symbols));
    }
    fields
}

/// Whether a field name is one that only we may write.
pub fn is_ours(name: &str) -> bool {
    name.get(..10).is_some_and(|prefix| prefix.eq_ignore_ascii_case("X-Lazaret-"))
        || name.eq_ignore_ascii_case("X-Spam-Flag")
}

/// Whether the message has a Message-ID, by which a retry can be told from an equal message that is sent on
/// purpose: a script may send the same few lines every day.
pub(super) fn has_identity(body: &[u8]) -> bool {
    body.split(|byte| *byte == b'\n')
        .take_while(|line| !line.trim_ascii().is_empty())
        .any(|line| line.get(..11).is_some_and(|name| name.eq_ignore_ascii_case(b"Message-ID:")))
}

/// Whether the message has passed here too often.
pub(super) fn is_loop(scanned: &Scanned, body: &Bytes) -> bool {
    hops(scanned, body) > MAX_HOPS
}

/// Returns the value of our Received field (RFC 5321, section 4.4). `learn` reads the newest hop from it.
fn received(envelope: &Envelope, hostname: &str, date: &str) -> String {
    let client = &envelope.client;
    let literal = match client.address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => format!("[{ip}]"),
        std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    let name = client.name.as_ref().map_or_else(String::new, |name| format!("{name} "));
    format!(
        "from {} ({name}{literal}) by {hostname} (Lazaret) with {} id {}; {date}",
        client.helo,
        protocol_name(client, envelope.mail.smtputf8),
        envelope.id
    )
}

/// Returns the "with" of a Received field (RFC 3848; RFC 6531, section 4.3).
fn protocol_name(client: &Client, smtputf8: bool) -> String {
    let base = match (client.protocol, smtputf8) {
        (Protocol::Lmtp, true) => "UTF8LMTP",
        (Protocol::Lmtp, false) => "LMTP",
        (Protocol::Smtp | Protocol::Esmtp, true) => "UTF8SMTP",
        (Protocol::Esmtp, false) => "ESMTP",
        (Protocol::Smtp, false) => return "SMTP".to_owned(),
    };
    let secure = if client.tls.is_some() { "S" } else { "" };
    let signed_in = if client.login.is_some() { "A" } else { "" };
    format!("{base}{secure}{signed_in}")
}

fn hops(scanned: &Scanned, body: &Bytes) -> usize {
    if !scanned.message.headers.is_empty() {
        return scanned.message.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("Received")).count();
    }
    // The parser saw no header: count in the bytes, so that a loop ends all the same.
    body.split(|byte| *byte == b'\n')
        .take_while(|line| !line.is_empty() && *line != b"\r")
        .filter(|line| line.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"Received:")))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Tls;

    #[test]
    fn only_our_own_field_names_are_ours() {
        for (name, expected) in [
            ("X-Lazaret-Score", true),
            ("x-lazaret-anything", true),
            ("X-Spam-Flag", true),
            ("X-Spam-Status", false),
            ("X-Lazare", false),
            ("Subject", false),
            ("äöüäöüäöü", false),
        ] {
            assert_eq!(is_ours(name), expected, "{name}");
        }
    }

    #[test]
    fn a_message_is_known_again_by_its_message_id_alone() {
        for (body, expected) in [
            ("Subject: x\r\nMESSAGE-ID: <1@x>\r\n\r\nbody\r\n", true),
            ("Message-ID: <1@x>\r\n", true),
            ("Subject: x\r\n\r\nMessage-ID: <1@x>\r\n", false),
            ("Subject: x\r\n Message-ID: <1@x>\r\n\r\n", false),
            ("", false),
        ] {
            assert_eq!(has_identity(body.as_bytes()), expected, "{body:?}");
        }
    }

    #[test]
    fn the_protocol_names_are_the_registered_ones() {
        let mut client = Client::new("192.0.2.1:25".parse().unwrap());
        let name = |client: &Client, smtputf8| protocol_name(client, smtputf8);
        assert_eq!((name(&client, false), name(&client, true)), ("SMTP".to_owned(), "UTF8SMTP".to_owned()));
        client.protocol = Protocol::Esmtp;
        assert_eq!(name(&client, false), "ESMTP");
        client.tls = Some(Tls {
            version: "TLSv1.3",
            cipher: "TLS13_AES_256_GCM_SHA384".into(),
            client_fingerprint: None,
        });
        assert_eq!(
            (name(&client, false), name(&client, true)),
            ("ESMTPS".to_owned(), "UTF8SMTPS".to_owned())
        );
        client.login = Some("ann".to_owned());
        assert_eq!(name(&client, false), "ESMTPSA");
        client.protocol = Protocol::Lmtp;
        assert_eq!(
            (name(&client, false), name(&client, true)),
            ("LMTPSA".to_owned(), "UTF8LMTPSA".to_owned())
        );
    }
}
