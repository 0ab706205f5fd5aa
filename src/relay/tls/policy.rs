//! What the configuration asks of the connection to a target, and how it is written.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use tokio_rustls::rustls::pki_types::DnsName;

/// Fingerprints in one policy: certificates that take turns.
const MAX_FINGERPRINTS: usize = 16;

/// What is asked of the connection to a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TlsPolicy {
    /// Never TLS. Written `none`.
    None,
    /// TLS where it is offered, with any certificate; else in clear. Written `opportunistic`.
    #[default]
    Opportunistic,
    /// TLS, with any certificate: safe from those who listen, not from those who interfere. Written `required`.
    Required,
    /// TLS, with a certificate that a known CA has issued. Written `verified` or `verified:NAME`.
    Verified {
        /// The name that the certificate must have; the target's host where it is `None`.
        name: Option<String>,
    },
    /// TLS, with one of these certificates, given as the SHA-256 of its DER form. Written `sha256:HEX`, several
    /// with commas between them; colons inside the digits are skipped.
    Fingerprint(Vec<[u8; 32]>),
    /// What the target publishes of itself: DANE (RFC 7672), else MTA-STS (RFC 8461), else as `opportunistic`.
    /// Written `published`.
    Published,
}

/// A text that is no TLS policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidTlsPolicy {
    /// The word is not known.
    #[error(
        "a TLS policy is one of none, opportunistic, required, verified, verified:NAME, sha256:HEX[,HEX] and published"
    )]
    Word,
    /// `verified:` is followed by what no certificate can be issued for.
    #[error("verified: must be followed by the name of a host")]
    Name,
    /// `sha256:` is not followed by SHA-256 values.
    #[error("sha256: must be followed by 1 to 16 values of 64 hexadecimal digits, with commas between them")]
    Fingerprint,
}

impl FromStr for TlsPolicy {
    type Err = InvalidTlsPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidTlsPolicy> {
        Ok(match text {
            "none" => TlsPolicy::None,
            "opportunistic" => TlsPolicy::Opportunistic,
            "required" => TlsPolicy::Required,
            "verified" => TlsPolicy::Verified { name: None },
            "published" => TlsPolicy::Published,
            _ => {
                if let Some(name) = text.strip_prefix("verified:") {
                    let name = name.to_ascii_lowercase();
                    DnsName::try_from(name.as_str()).map_err(|_| InvalidTlsPolicy::Name)?;
                    TlsPolicy::Verified { name: Some(name) }
                } else if let Some(values) = text.strip_prefix("sha256:") {
                    let values: Option<Vec<_>> = values.split(',').map(read_fingerprint).collect();
                    let values = values.ok_or(InvalidTlsPolicy::Fingerprint)?;
                    if values.len() > MAX_FINGERPRINTS {
                        return Err(InvalidTlsPolicy::Fingerprint);
                    }
                    TlsPolicy::Fingerprint(values)
                } else {
                    return Err(InvalidTlsPolicy::Word);
                }
            }
        })
    }
}

impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsPolicy::None => f.write_str("none"),
            TlsPolicy::Opportunistic => f.write_str("opportunistic"),
            TlsPolicy::Required => f.write_str("required"),
            TlsPolicy::Verified { name: None } => f.write_str("verified"),
            TlsPolicy::Verified { name: Some(name) } => write!(f, "verified:{name}"),
            TlsPolicy::Published => f.write_str("published"),
            TlsPolicy::Fingerprint(values) => {
                f.write_str("sha256:")?;
                for (place, value) in values.iter().enumerate() {
                    if place > 0 {
                        f.write_str(",")?;
                    }
                    for byte in value {
                        write!(f, "{byte:02x}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn read_fingerprint(text: &str) -> Option<[u8; 32]> {
    let mut value = [0u8; 32];
    let mut digits = text.trim().chars().filter(|c| *c != ':').map(|c| c.to_digit(16));
    for byte in &mut value {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    digits.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<TlsPolicy, InvalidTlsPolicy>) {
        assert_eq!(text.parse(), expected, "{text:?}");
    }

    #[test]
    fn policies_are_read_as_they_are_written() {
        check("none", Ok(TlsPolicy::None));
        check("opportunistic", Ok(TlsPolicy::Opportunistic));
        check("required", Ok(TlsPolicy::Required));
        check("verified", Ok(TlsPolicy::Verified { name: None }));
        check("verified:MX.example.org", Ok(TlsPolicy::Verified { name: Some("mx.example.org".to_owned()) }));
        check("published", Ok(TlsPolicy::Published));
        let (a, b) = ("00".repeat(32), "FF:".repeat(31) + "ff");
        check(&format!("sha256:{a}"), Ok(TlsPolicy::Fingerprint(vec![[0; 32]])));
        check(&format!("sha256:{a}, {b}"), Ok(TlsPolicy::Fingerprint(vec![[0; 32], [255; 32]])));
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_part_at_fault() {
        check("", Err(InvalidTlsPolicy::Word));
        check("tls", Err(InvalidTlsPolicy::Word));
        check("verified:", Err(InvalidTlsPolicy::Name));
        check("verified:a b", Err(InvalidTlsPolicy::Name));
        check("verified:192.0.2.1", Err(InvalidTlsPolicy::Name));
        check("sha256:", Err(InvalidTlsPolicy::Fingerprint));
        check(&format!("sha256:{}", "0".repeat(63)), Err(InvalidTlsPolicy::Fingerprint));
        check(&format!("sha256:{}", "0".repeat(65)), Err(InvalidTlsPolicy::Fingerprint));
        check(&format!("sha256:{}", "g".repeat(64)), Err(InvalidTlsPolicy::Fingerprint));
        check(&format!("sha256:{},", "0".repeat(64)), Err(InvalidTlsPolicy::Fingerprint));
        let many = vec!["0".repeat(64); MAX_FINGERPRINTS + 1].join(",");
        check(&format!("sha256:{many}"), Err(InvalidTlsPolicy::Fingerprint));
    }

    #[test]
    fn a_policy_that_is_printed_reads_the_same() {
        for text in ["none", "opportunistic", "required", "verified", "verified:mx.example.org", "published"]
        {
            assert_eq!(text.parse::<TlsPolicy>().map(|policy| policy.to_string()), Ok(text.to_owned()));
        }
        let text = format!("sha256:{},{}", "0a".repeat(32), "f0".repeat(32));
        assert_eq!(text.parse::<TlsPolicy>().map(|policy| policy.to_string()), Ok(text));
    }
}
