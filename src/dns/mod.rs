//! The domain name system: where mail for a domain goes, and what a host publishes of itself.
//!
//! [`Resolver`] is the seam. [`System`] asks the resolvers of this machine; tests set the answers of a fake
//! by hand. Answers come from strangers: each list is cut at a limit, and what is too long is left out, so
//! that nobody above has to count. An answer that fails DNSSEC validation is [`Error::Bogus`] and is never
//! handed out; one that is not covered by it says so (`secure`), and whoever needs proof looks at that.
//! Errors name no host.

#[cfg(test)]
pub mod fake;
mod system;

use std::collections::HashSet;
use std::net::IpAddr;

use async_trait::async_trait;
use thiserror::Error;

pub use system::{Config, System};

/// Addresses of one host; what follows is left out.
pub const MAX_ADDRESSES: usize = 16;
/// Hosts that take a domain's mail, the most preferred ones.
pub const MAX_EXCHANGES: usize = 32;
/// TLSA records of one service.
pub const MAX_TLSA: usize = 32;
/// Bytes of certificate data in one TLSA record: room for any real certificate.
pub const MAX_TLSA_BYTES: usize = 8 * 1024;
/// Texts at one name.
pub const MAX_TEXTS: usize = 64;
/// Bytes of one text, its pieces joined.
pub const MAX_TEXT_BYTES: usize = 8 * 1024;

/// Looks names up.
///
/// A name is given in its usual text form, with or without the final dot, and is never completed with a
/// search list: what a stranger's domain is called must not depend on where we are.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// Returns the addresses of a host, at least one and at most [`MAX_ADDRESSES`]; an address stands for itself.
    ///
    /// # Errors
    /// [`enum@Error`] when there are none.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Error>;

    /// Returns the hosts that take mail for a domain.
    ///
    /// # Errors
    /// [`enum@Error`] when they cannot be known. [`Error::NoSuchName`] is permanent. A domain without MX
    /// records is no error: it is its own exchange (RFC 5321, section 5.1).
    async fn mx(&self, domain: &str) -> Result<Mx, Error>;

    /// Returns the TLSA records of a TCP service (RFC 6698, section 3), none where there are none.
    ///
    /// Records that are not asked for because the host's addresses are not secure count as none (RFC 7672,
    /// section 2.2: name servers of unsigned zones often fail to answer for TLSA).
    ///
    /// # Errors
    /// [`Error::Temporary`] and [`Error::Bogus`]: there may be records, and mail must wait (RFC 7672, section 2.1.1).
    async fn tlsa(&self, host: &str, port: u16) -> Result<Tlsa, Error>;

    /// Returns the texts at a name, the pieces of each joined; at most [`MAX_TEXTS`].
    ///
    /// # Errors
    /// [`enum@Error`] when there are none.
    async fn txt(&self, name: &str) -> Result<Vec<String>, Error>;
}

/// Where a domain's mail goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mx {
    /// The domain takes no mail (RFC 7505): refuse with 556 5.1.10.
    Null,
    /// The hosts that take it.
    Hosts {
        /// The hosts, most preferred first; at least one, at most [`MAX_EXCHANGES`]. Among equals the order means nothing.
        exchanges: Vec<Exchange>,
        /// Whether DNSSEC proves that these, or the absence of MX records, are what the domain publishes.
        secure: bool,
    },
}

/// One host that takes a domain's mail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exchange {
    /// The smaller, the more preferred.
    pub preference: u16,
    /// The host's name, in lower case, without a final dot.
    pub host: String,
}

impl Mx {
    /// Sorts the records of an answer; `None` where no record names a host.
    ///
    /// An exchange with an empty name is the null MX if it stands alone, and means nothing among others
    /// (RFC 7505, section 3).
    fn new(mut exchanges: Vec<Exchange>, secure: bool) -> Option<Self> {
        let had_records = !exchanges.is_empty();
        exchanges.retain(|exchange| !exchange.host.is_empty());
        if exchanges.is_empty() {
            return had_records.then_some(Mx::Null);
        }
        exchanges.sort();
        let mut seen = HashSet::new();
        exchanges.retain(|exchange| seen.insert(exchange.host.clone()));
        exchanges.truncate(MAX_EXCHANGES);
        Some(Mx::Hosts { exchanges, secure })
    }

    /// The domain as its own exchange, where it has no MX records (RFC 5321, section 5.1).
    fn implicit(domain: &str, secure: bool) -> Self {
        let host = domain.trim_end_matches('.').to_lowercase();
        Mx::Hosts { exchanges: vec![Exchange { preference: 0, host }], secure }
    }
}

/// The TLSA records of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tlsa {
    /// Whether DNSSEC proves them. Others say nothing (RFC 6698, section 4).
    pub secure: bool,
    /// The records, at most [`MAX_TLSA`].
    pub records: Vec<TlsaRecord>,
}

/// One TLSA record as it was published (RFC 6698, section 2.1), known values or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsaRecord {
    /// Certificate usage: 0 PKIX-TA, 1 PKIX-EE, 2 DANE-TA, 3 DANE-EE.
    pub usage: u8,
    /// Selector: 0 the whole certificate, 1 its public key.
    pub selector: u8,
    /// Matching type: 0 the bytes themselves, 1 SHA-256, 2 SHA-512.
    pub matching: u8,
    /// Certificate association data.
    pub data: Vec<u8>,
}

/// Why a name has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The text is no domain name.
    #[error("the text is no domain name")]
    InvalidName,
    /// There is no such name.
    #[error("there is no such name")]
    NoSuchName,
    /// The name exists and has nothing of that kind.
    #[error("the name has no such record")]
    NoData,
    /// There may be an answer; ask again later.
    #[error("the name cannot be looked up now ({0})")]
    Temporary(&'static str),
    /// The answer fails DNSSEC validation: forged, or the zone is broken.
    #[error("the answer fails DNSSEC validation")]
    Bogus,
    /// The resolvers cannot be set up.
    #[error("setting up the resolver ({0})")]
    Setup(&'static str),
}

impl Error {
    /// Whether it is known that there is no such record.
    pub fn is_absence(&self) -> bool {
        matches!(self, Error::NoSuchName | Error::NoData)
    }
}

#[cfg(test)]
mod system_tests;
#[cfg(test)]
mod tests;
