//! The names of submission accounts, and whom they may send as.

use std::fmt;

use thiserror::Error;

use crate::mail::{Address, Domain, InvalidAddress};
use crate::smtp::sasl;

/// Bytes that a name that is no address has at most: those of a local part.
const PLAIN_NAME_LIMIT_BYTES: usize = 64;

/// The name of an account: an address, or a word. Prepared with SASLprep and in lower case, so that two
/// spellings of it are one name. It prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoginName(String);

/// Why a text is no name of an account. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidName {
    /// It is empty, or longer than 64 bytes without being an address.
    #[error("a name has 1 to 64 bytes")]
    Length,
    /// It has a space, a control character, or one that SASLprep does not allow (RFC 4013).
    #[error("the name has a character that names may not have")]
    Character,
    /// It has an `@` and is no address.
    #[error("the name looks like an address")]
    Address(#[source] InvalidAddress),
}

impl LoginName {
    /// Reads a name as somebody typed it.
    ///
    /// # Errors
    /// [`InvalidName`] when it cannot be the name of an account.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > sasl::NAME_LIMIT_BYTES {
            return Err(InvalidName::Length);
        }
        let name = sasl::prepare(text).ok_or(InvalidName::Character)?.to_lowercase();
        if name.contains('@') {
            let address = Address::parse(&name).map_err(InvalidName::Address)?;
            return Ok(LoginName(address.to_normalized()));
        }
        if name.is_empty() || name.len() > PLAIN_NAME_LIMIT_BYTES {
            return Err(InvalidName::Length);
        }
        if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidName::Character);
        }
        Ok(LoginName(name))
    }

    /// Takes the characters of a name that was read before.
    pub(super) fn from_stored(name: String) -> Self {
        LoginName(name)
    }

    /// Returns the characters, for the protocol or for the administrator.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LoginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginName([redacted])")
    }
}

/// Whom an account may send as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedSender {
    /// This address.
    Address(Address),
    /// Every address of this domain, its subdomains left out.
    Domain(Domain),
}

impl AllowedSender {
    /// Reads an address, or a domain after an `@`.
    ///
    /// # Errors
    /// [`InvalidAddress`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        match text.strip_prefix('@') {
            Some(domain) => Domain::parse(domain).map(AllowedSender::Domain),
            None => Address::parse(text).map(AllowedSender::Address),
        }
    }

    /// Whether this covers an address. Two spellings of an address are one.
    pub fn covers(&self, address: &Address) -> bool {
        match self {
            AllowedSender::Address(allowed) => allowed.to_normalized() == address.to_normalized(),
            AllowedSender::Domain(allowed) => address.domain() == Some(allowed),
        }
    }

    /// Writes what [`AllowedSender::parse`] reads.
    pub fn to_text(&self) -> String {
        match self {
            AllowedSender::Address(address) => address.to_path(),
            AllowedSender::Domain(domain) => format!("@{}", domain.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_a_name_are_one() {
        for (text, expected) in [
            ("kit", Ok("kit")),
            ("Kit", Ok("kit")),
            ("Alice@Example.ORG.", Ok("alice@example.org")),
            ("I\u{ad}X", Ok("ix")),
            ("jo\u{308}rg", Ok("j\u{f6}rg")),
            ("a.b_c-d+e=f,g", Ok("a.b_c-d+e=f,g")),
            ("", Err(InvalidName::Length)),
            (&"n".repeat(65), Err(InvalidName::Length)),
            (&"n".repeat(1000), Err(InvalidName::Length)),
            ("\u{ad}", Err(InvalidName::Length)),
            ("two words", Err(InvalidName::Character)),
            ("two\u{a0}words", Err(InvalidName::Character)),
            ("ABC\r\n", Err(InvalidName::Character)),
            ("\u{7f}", Err(InvalidName::Character)),
            ("@example.org", Err(InvalidName::Address(InvalidAddress::LocalPart))),
            ("alice@", Err(InvalidName::Address(InvalidAddress::Domain))),
        ] {
            assert_eq!(
                LoginName::parse(text).as_ref().map(LoginName::as_str),
                expected.as_ref().copied(),
                "{text:?}"
            );
        }
        assert_eq!(format!("{:?}", LoginName::parse("kit")), "Ok(LoginName([redacted]))");
    }

    #[test]
    fn an_allowed_sender_covers_its_addresses_and_no_other() {
        for (allowed, address, expected) in [
            ("alice@example.org", "alice@example.org", true),
            ("alice@example.org", "ALICE@Example.org.", true),
            ("alice@example.org", "alice@sub.example.org", false),
            ("alice@example.org", "alice+tag@example.org", false),
            ("@example.org", "anybody@EXAMPLE.org", true),
            ("@example.org", "\"a@b\"@example.org", true),
            ("@example.org", "\"x@example.org\"@elsewhere.example", false),
            ("@example.org", "x@sub.example.org", false),
            ("@example.org", "x@notexample.org", false),
            ("@example.org", "postmaster", false),
            ("postmaster", "postmaster", true),
        ] {
            let sender = AllowedSender::parse(allowed).unwrap();
            assert_eq!(sender.covers(&Address::parse(address).unwrap()), expected, "{allowed} {address}");
            assert_eq!(AllowedSender::parse(&sender.to_text()), Ok(sender));
        }
        for bad in ["", "@", "example.org", "*@example.org@", "@*.example.org", "@@example.org"] {
            assert!(AllowedSender::parse(bad).is_err(), "{bad}");
        }
    }
}
