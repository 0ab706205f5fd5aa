//! Mailboxes and domains as they stand in an envelope (RFC 5321, section 4.1.2; RFC 6531).

use std::fmt;

use thiserror::Error;

/// The domain of an address: lower-cased, without a trailing dot, or an address literal in brackets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

/// A mailbox, `local@domain`; or the bare `postmaster` (RFC 5321, section 4.1.1.3).
///
/// The local part is kept as it came, quotes and case included: only its host knows what it means.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: String,
    domain: Option<Domain>,
}

/// Why a text is no address. It does not repeat the text, which may be personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidAddress {
    /// There is no `@`, and the text is not `postmaster`.
    #[error("the address has no domain")]
    NoDomain,
    /// The local part is empty, too long (64 bytes) or has a character it may not have.
    #[error("the local part is malformed")]
    LocalPart,
    /// The domain is empty, too long (255 bytes) or has a character it may not have.
    #[error("the domain is malformed")]
    Domain,
}

impl Domain {
    /// Reads a domain or an address literal.
    ///
    /// # Errors
    /// [`InvalidAddress::Domain`] unless it is labels of letters, digits, `-`, `_` and non-ASCII letters,
    /// or a literal in brackets; at most 255 bytes, labels at most 63.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        if text.is_empty() || text.len() > 255 {
            return Err(InvalidAddress::Domain);
        }
        if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-');
            return if !literal.is_empty() && literal.chars().all(allowed) {
                Ok(Domain(text.to_ascii_lowercase()))
            } else {
                Err(InvalidAddress::Domain)
            };
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let label_is_valid = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && label.chars().all(|c| {
                    c.is_ascii_alphanumeric()
                        || matches!(c, '-' | '_')
                        || (!c.is_ascii() && c.is_alphanumeric())
                })
        };
        if text.split('.').all(label_is_valid) {
            Ok(Domain(text.to_lowercase()))
        } else {
            Err(InvalidAddress::Domain)
        }
    }

    /// Returns the domain in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.0)
    }
}

impl Address {
    /// Reads `local@domain` or `postmaster`, without angle brackets.
    ///
    /// # Errors
    /// An [`InvalidAddress`] that names the part at fault. Control characters are refused in every part.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let Some((local, domain)) = text.rsplit_once('@') else {
            return if text.eq_ignore_ascii_case("postmaster") {
                Ok(Address { local: text.to_owned(), domain: None })
            } else {
                Err(InvalidAddress::NoDomain)
            };
        };
        if !local_part_is_valid(local) {
            return Err(InvalidAddress::LocalPart);
        }
        Ok(Address { local: local.to_owned(), domain: Some(Domain::parse(domain)?) })
    }

    /// Returns the local part as it came.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// Returns the domain; `None` for the bare `postmaster`.
    pub fn domain(&self) -> Option<&Domain> {
        self.domain.as_ref()
    }

    /// Returns the text between the angle brackets of a path, for the protocol.
    pub fn to_path(&self) -> String {
        match &self.domain {
            Some(domain) => format!("{}@{}", self.local, domain.as_str()),
            None => self.local.clone(),
        }
    }

    /// Returns the form under which two spellings of a mailbox compare equal: all in lower case.
    pub fn to_normalized(&self) -> String {
        self.to_path().to_lowercase()
    }

    /// Whether the address needs SMTPUTF8 (RFC 6531).
    pub fn is_internationalized(&self) -> bool {
        !self.local.is_ascii() || self.domain.as_ref().is_some_and(|domain| !domain.0.is_ascii())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address([redacted])")
    }
}

fn local_part_is_valid(local: &str) -> bool {
    if local.is_empty() || local.len() > 64 || local.chars().any(char::is_control) {
        return false;
    }
    if let Some(quoted) = local.strip_prefix('"') {
        let Some(quoted) = quoted.strip_suffix('"') else { return false };
        let mut escaped = false;
        for c in quoted.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return false,
                _ => {}
            }
        }
        return !escaped;
    }
    local.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, InvalidAddress>) {
        assert_eq!(
            Address::parse(text).map(|address| address.to_path()),
            expected.map(str::to_owned),
            "{text:?}"
        );
    }

    #[test]
    fn addresses_are_read_as_the_rfc_writes_them() {
        check("alice@Example.ORG", Ok("alice@example.org"));
        check("Alice.B+tag@example.org.", Ok("Alice.B+tag@example.org"));
        check("\"a b\\\"@c\"@example.org", Ok("\"a b\\\"@c\"@example.org"));
        check("bob@[192.0.2.1]", Ok("bob@[192.0.2.1]"));
        check("bob@[IPv6:2001:db8::1]", Ok("bob@[ipv6:2001:db8::1]"));
        check("jörg@bücher.example", Ok("jörg@bücher.example"));
        check("Postmaster", Ok("Postmaster"));
    }

    #[test]
    fn malformed_addresses_are_refused_by_part() {
        check("alice", Err(InvalidAddress::NoDomain));
        check("@example.org", Err(InvalidAddress::LocalPart));
        check("a\rb@example.org", Err(InvalidAddress::LocalPart));
        check("a b@example.org", Err(InvalidAddress::LocalPart));
        check("\"a\"b\"@example.org", Err(InvalidAddress::LocalPart));
        check("alice@", Err(InvalidAddress::Domain));
        check("alice@exa mple.org", Err(InvalidAddress::Domain));
        check("alice@-example.org", Err(InvalidAddress::Domain));
        check("alice@a..b", Err(InvalidAddress::Domain));
        check(&format!("{}@example.org", "x".repeat(65)), Err(InvalidAddress::LocalPart));
    }

    #[test]
    fn an_address_does_not_print_itself() {
        assert_eq!(format!("{:?}", Address::parse("alice@example.org")), "Ok(Address([redacted]))");
    }
}
