//! Which header fields count, and the hops they tell of.
//!
//! A message is scored in the session and learned later, from the quarantine or from a mailbox. What was
//! added on the way there must not count, and the session's client must look just as our own Received
//! field tells of it. Ours is known by its comment: `from HELO ([IP]) by HOST (Lazaret) with ...`.

use std::net::IpAddr;

use crate::mail::Client;
use crate::message::Header;

/// Most header fields that are looked at.
const MAX_FIELDS: usize = 200;
/// Most hops that are looked at, newest first.
const MAX_HOPS: usize = 12;
/// Most bytes of a Received field that are read.
const MAX_RECEIVED_BYTES: usize = 1_000;
const OUR_COMMENT: &str = " (Lazaret) with ";

/// Fields that gateways, filters and mailboxes add, in lower case.
const ADDED: [&str; 27] = [
    "authentication-results",
    "content-length",
    "delivered-to",
    "delivery-date",
    "dkim-filter",
    "envelope-to",
    "lines",
    "received-spf",
    "return-path",
    "status",
    "x-antivirus",
    "x-antivirus-status",
    "x-apparently-to",
    "x-bogosity",
    "x-delivered-to",
    "x-google-smtp-source",
    "x-imap",
    "x-imapbase",
    "x-keywords",
    "x-original-to",
    "x-received",
    "x-status",
    "x-uid",
    "x-uidl",
    "x-virus-scanned",
    "x-virus-status",
    "x-ymailisg",
];

/// Beginnings of names of such fields.
const ADDED_FAMILIES: [&str; 14] = [
    "arc-",
    "x-amavis-",
    "x-dspam-",
    "x-evolution-",
    "x-forefront-",
    "x-gm-",
    "x-gmail-",
    "x-lazaret-",
    "x-microsoft-antispam",
    "x-mozilla-",
    "x-ms-exchange-",
    "x-proofpoint-",
    "x-rspamd-",
    "x-spam-",
];

/// One step of a message's way, as the host that took it tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hop {
    /// The name that the client gave, in lower case; empty where there is none.
    pub(super) helo: String,
    /// The name that its address has, in lower case; empty where there is none.
    pub(super) name: String,
    /// Its address.
    pub(super) ip: Option<IpAddr>,
}

/// The part of a header that says the same in every copy of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trail<'a> {
    /// The fields that count, in order.
    pub(super) fields: Vec<&'a Header>,
    /// The hops, newest first.
    pub(super) hops: Vec<Hop>,
    /// The hop of our own session, where it is known; it is also the first of the hops.
    pub(super) session: Option<Hop>,
}

impl<'a> Trail<'a> {
    /// Reads a header. `client` is the session's peer, for a message that bears no field of that session
    /// yet; without it the newest Received field of ours stands for it, and what is above is passed over.
    pub(super) fn read(headers: &'a [Header], client: Option<&Client>) -> Self {
        let is_received = |header: &Header| header.name.eq_ignore_ascii_case("Received");
        let is_ours = |header: &Header| is_received(header) && header.value.contains(OUR_COMMENT);
        let mut session = None;
        let mut below = headers;
        match client {
            Some(client) => session = Some(Hop::of_client(client)),
            None => {
                let ours = headers.iter().take(MAX_FIELDS).position(is_ours);
                if let Some((received, rest)) = ours.and_then(|at| headers.get(at..)?.split_first()) {
                    session = Some(Hop::read(&received.value));
                    below = rest;
                }
            }
        }
        let fields: Vec<&Header> =
            below.iter().filter(|header| !is_added(&header.name)).take(MAX_FIELDS).collect();
        let older = fields.iter().filter(|header| is_received(header)).map(|header| Hop::read(&header.value));
        let hops = session.clone().into_iter().chain(older).take(MAX_HOPS).collect();
        Trail { fields, hops, session }
    }
}

impl Hop {
    /// Describes the peer as our own Received field does.
    fn of_client(client: &Client) -> Self {
        let helo = client.helo.split(ends_a_name).next().unwrap_or_default();
        Hop { helo: host(helo), name: String::new(), ip: Some(client.address.ip().to_canonical()) }
    }

    /// Reads the `from` clause of a Received field (RFC 5321, section 4.4), in the forms that are usual.
    fn read(value: &str) -> Self {
        let value = value.get(..value.floor_char_boundary(MAX_RECEIVED_BYTES)).unwrap_or(value);
        let clause = value.split(" by ").next().unwrap_or(value).trim_start();
        let rest = match clause.split_at_checked(5) {
            Some((from, rest)) if from.eq_ignore_ascii_case("from ") => rest.trim_start(),
            _ => return Hop { helo: String::new(), name: String::new(), ip: None },
        };
        let helo = rest.split(ends_a_name).next().unwrap_or_default();
        let comment = rest.split_once('(').map_or("", |(_, comment)| comment);
        let mut words = comment.split(|c: char| ends_a_name(c) || matches!(c, '[' | ']'));
        let is_name =
            |word: &&str| word.contains('.') && !word.contains(['@', '=']) && parse_ip(word).is_none();
        let name = words.clone().find(is_name).unwrap_or_default();
        let ip = words.find_map(parse_ip).or_else(|| parse_ip(helo.trim_matches(['[', ']'])));
        Hop { helo: host(helo), name: host(name), ip: ip.map(|ip| ip.to_canonical()) }
    }
}

fn ends_a_name(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '(' | ')' | ';' | ',')
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let tagged = text.split_at_checked(5).filter(|(tag, _)| tag.eq_ignore_ascii_case("ipv6:"));
    tagged.map_or(text, |(_, rest)| rest).parse().ok()
}

/// Brings the name of a host to one form; a missing one is written `unknown` by some.
fn host(name: &str) -> String {
    let name = name.trim_end_matches('.');
    if name.eq_ignore_ascii_case("unknown") { String::new() } else { name.to_ascii_lowercase() }
}

/// Whether a field of this name says more of the copy than of the message. The "From " line of an mbox is
/// one with a space in its name.
fn is_added(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.is_empty()
        || name.contains(char::is_whitespace)
        || ADDED.contains(&lower.as_str())
        || ADDED_FAMILIES.iter().any(|family| lower.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(received: &str, expected: (&str, &str, &str)) {
        let hop = Hop::read(received);
        let ip = hop.ip.map(|ip| ip.to_string()).unwrap_or_default();
        assert_eq!((hop.helo.as_str(), hop.name.as_str(), ip.as_str()), expected, "{received}");
    }

    #[test]
    fn hops_are_read_in_the_usual_forms() {
        check(
            "from mx.example ([192.0.2.1]) by gw (Lazaret) with ESMTP id 1; x",
            ("mx.example", "", "192.0.2.1"),
        );
        check("from a ([IPv6:2001:db8::1]) by gw (Lazaret) with ESMTP id 1", ("a", "", "2001:db8::1"));
        check("from a ([::ffff:192.0.2.1]) by gw", ("a", "", "192.0.2.1"));
        check("from  ([192.0.2.1]) by gw", ("", "", "192.0.2.1"));
        check("from A.Example (rev.example [192.0.2.1]) by b", ("a.example", "rev.example", "192.0.2.1"));
        check("from unknown (HELO me) (192.0.2.7) by b", ("", "", "192.0.2.7"));
        check("from [192.0.2.7] by b with HTTP", ("[192.0.2.7]", "", "192.0.2.7"));
        check("by b with local", ("", "", ""));
        check("", ("", "", ""));
        check("from é", ("é", "", ""));
    }

    #[test]
    fn a_session_and_its_received_field_tell_the_same_hop() {
        for (address, helo, received) in [
            (
                "192.0.2.1:25",
                "mx.example",
                "from mx.example ([192.0.2.1]) by gw (Lazaret) with ESMTP id 1; x",
            ),
            (
                "[2001:db8::1]:25",
                "[IPv6:2001:db8::1]",
                "from [IPv6:2001:db8::1] ([IPv6:2001:db8::1]) by gw (Lazaret) with ESMTP id 1",
            ),
            ("[::ffff:192.0.2.1]:25", "", "from unknown ([192.0.2.1]) by gw (Lazaret) with SMTP id 1"),
        ] {
            let client = Client { helo: helo.to_owned(), ..Client::new(address.parse().unwrap()) };
            assert_eq!(Hop::of_client(&client), Hop::read(received), "{received}");
        }
    }

    #[test]
    fn fields_that_copies_get_do_not_count() {
        for name in [
            "From bob@example.org Thu Aug 22 12",
            "X-Spam-Status",
            "X-LAZARET-Score",
            "Status",
            "ARC-Seal",
            "",
        ] {
            assert!(is_added(name), "{name}");
        }
        for name in ["From", "Subject", "X-Mailer", "Received", "List-Unsubscribe"] {
            assert!(!is_added(name), "{name}");
        }
        assert!(ADDED.is_sorted() && ADDED_FAMILIES.is_sorted());
    }

    #[test]
    fn what_is_above_our_received_field_does_not_count_unless_the_session_is_known() {
        let header = |name: &str, value: &str| Header {
            name: name.to_owned(),
            raw: value.to_owned(),
            value: value.to_owned(),
        };
        let headers = [
            header("X-Above", "1"),
            header("Received", "from b ([192.0.2.2]) by gw (Lazaret) with ESMTP id 2; x"),
            header("Subject", "s"),
            header("Received", "from c ([192.0.2.3]) by gw (Lazaret) with ESMTP id 3; x"),
        ];
        let names =
            |trail: &Trail<'_>| trail.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
        let helos = |trail: &Trail<'_>| trail.hops.iter().map(|hop| hop.helo.clone()).collect::<Vec<_>>();
        let trail = Trail::read(&headers, None);
        assert_eq!(
            (names(&trail), helos(&trail)),
            (vec!["Subject".into(), "Received".into()], vec!["b".into(), "c".into()])
        );
        let client = Client { helo: "z".to_owned(), ..Client::new("192.0.2.9:1".parse().unwrap()) };
        let trail = Trail::read(&headers, Some(&client));
        assert_eq!(helos(&trail), ["z", "b", "c"]);
        assert_eq!(names(&trail).len(), 4);
    }
}
