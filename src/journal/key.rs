//! What a message and its recipients are called in the journal: keyed hashes, so that the file names nobody.
//!
//! A recipient's hash is bound to the message: the same mailbox looks different in every entry.

use std::fmt;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::mail::{Address, Envelope};
use crate::privacy::{InstallationKey, Purpose};

/// The SHA-256 of a message as it was accepted, but for its topmost Received field: a proxy between the client
/// and us, such as Postfix with `smtpd_proxy_filter`, writes it anew at every attempt of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyHash([u8; 32]);

impl BodyHash {
    /// Hashes the accepted bytes. A large message takes milliseconds: not for an async thread.
    pub fn of(body: &[u8]) -> Self {
        let (before, after) = around_topmost_hop(body);
        BodyHash(Sha256::new().chain_update(before).chain_update(after).finalize().into())
    }
}

/// Returns what stands before the topmost Received field and after it.
fn around_topmost_hop(body: &[u8]) -> (&[u8], &[u8]) {
    let (mut at, mut start) = (0, None);
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let is_continued = matches!(line.first(), Some(b' ' | b'\t'));
        let is_hop = line.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"Received:"));
        match start {
            Some(start) if !is_continued => {
                return (body.get(..start).unwrap_or(body), body.get(at..).unwrap_or(b""));
            }
            None if line.trim_ascii().is_empty() => break,
            None if is_hop => start = Some(at),
            Some(_) | None => {}
        }
        at += line.len();
    }
    match start {
        Some(start) => (body.get(..start).unwrap_or(body), b""),
        None => (body, b""),
    }
}

/// The name of a message from one sender out of one network: what a retry has in common with the attempt
/// before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MessageKey(pub(super) u128);

/// The name of a recipient within one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RecipientKey(pub(super) u64);

/// Makes the names.
#[derive(Clone)]
pub(super) struct Hasher(Hmac<Sha256>);

impl Hasher {
    pub(super) fn new(root: &InstallationKey) -> Self {
        let Ok(mac) = Hmac::new_from_slice(&root.derive(Purpose::Journal)) else {
            unreachable!("HMAC takes a key of any length");
        };
        Hasher(mac)
    }

    /// Returns the name of a message: direction, network of the client, reverse-path, body. The network and
    /// not the address, because a pool of senders retries from any of its hosts.
    pub(super) fn message(&self, envelope: &Envelope, body: &BodyHash) -> MessageKey {
        let mut mac = self.0.clone();
        mac.update(b"message\0");
        mac.update(envelope.direction.as_str().as_bytes());
        match envelope.client.address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                mac.update(&[4, a, b, c]);
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                mac.update(&[6]);
                for segment in [a, b, c, d] {
                    mac.update(&segment.to_be_bytes());
                }
            }
        }
        mac.update(&body.0);
        // Last, because it alone is of any length. The null reverse-path is no address.
        if let Some(sender) = &envelope.mail.reverse_path {
            mac.update(b"<");
            mac.update(sender.to_normalized().as_bytes());
        }
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        MessageKey(hash.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }

    /// Returns the name of a recipient of that message. Case matters in its local part, as it may to its host:
    /// of two mailboxes that differ in nothing else one may have the message and the other not.
    pub(super) fn recipient(&self, message: MessageKey, address: &Address) -> RecipientKey {
        let mut mac = self.0.clone();
        mac.update(b"recipient\0");
        mac.update(&message.0.to_be_bytes());
        mac.update(address.to_path().as_bytes());
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        RecipientKey(hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::envelope;
    use crate::mail::Direction;

    fn key(change: impl FnOnce(&mut Envelope)) -> MessageKey {
        let mut envelope = envelope(1, &["a@example.org"]);
        change(&mut envelope);
        Hasher::new(&InstallationKey::new([3; 32])).message(&envelope, &BodyHash::of(b"body"))
    }

    fn from(address: &str) -> MessageKey {
        key(|envelope| envelope.client.address = format!("{address}:1").parse().unwrap())
    }

    #[test]
    fn a_retry_has_the_key_of_the_attempt_whichever_host_of_the_network_sends_it() {
        assert_eq!(from("192.0.2.1"), from("192.0.2.200"));
        assert_eq!(from("192.0.2.1"), from("[::ffff:192.0.2.9]"));
        assert_ne!(from("192.0.2.1"), from("192.0.3.1"));
        assert_eq!(from("[2001:db8:1:2::1]"), from("[2001:db8:1:2:ffff::9]"));
        assert_ne!(from("[2001:db8:1:2::1]"), from("[2001:db8:1:3::1]"));
    }

    #[test]
    fn the_topmost_received_field_is_no_part_of_the_message() {
        let check = |one: &str, other: &str, expected: bool| {
            let (one, other) = (BodyHash::of(one.as_bytes()), BodyHash::of(other.as_bytes()));
            assert_eq!(one == other, expected, "{one:?} {other:?}");
        };
        let message = |hop: &str| format!("X: 1\r\n{hop}Received: c\r\nTo: x\r\n\r\nbody\r\n");
        let first = message("Received: a\r\n\tat noon\r\n");
        check(&first, &message("RECEIVED: b\r\n at one\r\n by us\r\n"), true);
        check(&first, &message("Received: a\r\n\tat noon\r\nFrom: z\r\n"), false);
        check(&first, &first.replace("Received: c", "Received: d"), false);
        check("Received: a\r\n", "Received: b", true);
        check("X: 1\r\n\r\nReceived: a\r\n", "X: 1\r\n\r\nReceived: b\r\n", false);
        check("", "X: 1\r\n", false);
    }

    #[test]
    fn another_sender_direction_body_or_installation_is_another_message() {
        let same = key(|_| {});
        assert_eq!(same, key(|_| {}));
        assert_ne!(same, key(|envelope| envelope.direction = Direction::Outbound));
        assert_ne!(same, key(|envelope| envelope.mail.reverse_path = None));
        assert_ne!(same, key(|envelope| envelope.mail.reverse_path = Address::parse("z@example.net").ok()));
        let envelope = envelope(1, &["a@example.org"]);
        let hasher = Hasher::new(&InstallationKey::new([3; 32]));
        assert_ne!(same, hasher.message(&envelope, &BodyHash::of(b"bodY")));
        let other = Hasher::new(&InstallationKey::new([4; 32]));
        assert_ne!(same, other.message(&envelope, &BodyHash::of(b"body")));
    }

    #[test]
    fn a_recipient_is_named_as_its_host_may_know_it_and_anew_in_every_message() {
        let hasher = Hasher::new(&InstallationKey::new([3; 32]));
        let of = |message, address| hasher.recipient(MessageKey(message), &Address::parse(address).unwrap());
        assert_eq!(of(1, "a@example.org"), of(1, "a@EXAMPLE.org"));
        assert_ne!(of(1, "a@example.org"), of(1, "A@example.org"));
        assert_ne!(of(1, "a@example.org"), of(1, "b@example.org"));
        assert_ne!(of(1, "a@example.org"), of(2, "a@example.org"));
    }
}
