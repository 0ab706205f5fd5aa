//! Who may hand us mail for whom: what keeps the gateway from being an open relay.
//!
//! Inbound mail is for our own domains, whoever brings it. Outbound mail is from our own networks, from
//! clients with a certificate that we know, and from those who have signed in. The next hop trusts us, so
//! nothing else reaches it.

use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use crate::mail::{Address, Client, Domain, EnhancedCode, Reply};

/// The rule of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Anybody, for recipients of these domains; with none named, for every recipient, which only a listener
    /// on loopback may offer. Signing in changes nothing.
    Domains(Vec<Domain>),
    /// These clients, and those who have signed in, for every recipient.
    Clients(Clients),
}

/// Clients that may send to everybody without signing in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clients {
    /// Those with an address in these networks.
    pub networks: Vec<IpNet>,
    /// Those that have shown one of these certificates, and that it is theirs.
    pub certificates: Vec<Fingerprint>,
}

/// The SHA-256 of a certificate, in lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

/// Why a text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a fingerprint is the SHA-256 of a certificate in 64 hexadecimal digits")]
pub struct InvalidFingerprint;

/// How a client stands to signing in on this listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has signed in.
    SignedIn,
    /// It could sign in now.
    MaySignIn,
    /// It could sign in, once the connection is encrypted.
    NeedsTls,
    /// Nobody signs in here.
    Stranger,
}

impl Access {
    /// Refuses a client that may not send here at all.
    ///
    /// # Errors
    /// The reply to its MAIL.
    pub fn check_client(&self, client: &Client, standing: Standing) -> Result<(), Reply> {
        let Access::Clients(clients) = self else { return Ok(()) };
        if clients.include(client) {
            return Ok(());
        }
        match standing {
            Standing::SignedIn => Ok(()),
            Standing::MaySignIn => Err(Reply::new(
                530,
                EnhancedCode(5, 7, 0),
                "sign in first: only then may you send through here",
            )),
            Standing::NeedsTls => Err(Reply::new(
                530,
                EnhancedCode(5, 7, 0),
                "encrypt the connection with STARTTLS and sign in: only then may you send through here",
            )),
            Standing::Stranger => {
                Err(Reply::new(554, EnhancedCode(5, 7, 1), "your address may not send through here"))
            }
        }
    }

    /// Refuses a recipient that is not ours. The bare postmaster always is (RFC 5321, section 4.5.1).
    ///
    /// # Errors
    /// The reply to the RCPT.
    pub fn check_recipient(&self, recipient: &Address) -> Result<(), Reply> {
        let Access::Domains(ours) = self else { return Ok(()) };
        match recipient.domain() {
            Some(domain) if !ours.is_empty() && !ours.contains(domain) => Err(Reply::new(
                550,
                EnhancedCode(5, 7, 1),
                "this is not a domain of ours, and we do not relay",
            )),
            _ => Ok(()),
        }
    }
}

impl Clients {
    fn include(&self, client: &Client) -> bool {
        let ip = client.peer.ip().to_canonical();
        let shown = client.tls.as_ref().and_then(|tls| tls.client_fingerprint.as_deref());
        self.networks.iter().any(|net| net.contains(&ip))
            || shown.is_some_and(|shown| self.certificates.iter().any(|known| known.0 == shown))
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// Reads hexadecimal digits of either case, with or without colons between the bytes.
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Fingerprint(digits.to_ascii_lowercase()))
        } else {
            Err(InvalidFingerprint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Tls;

    const SHOWN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn client(ip: &str, fingerprint: Option<&str>) -> Client {
        let mut client = Client::new(std::net::SocketAddr::new(ip.parse().unwrap(), 25));
        client.tls = fingerprint.map(|fingerprint| Tls {
            version: "TLSv1.3",
            cipher: String::new(),
            client_fingerprint: Some(fingerprint.to_owned()),
        });
        client
    }

    fn check(access: &Access, ip: &str, recipient: &str, expected: bool) {
        let admitted = access.check_client(&client(ip, None), Standing::Stranger).is_ok()
            && access.check_recipient(&Address::parse(recipient).unwrap()).is_ok();
        assert_eq!(admitted, expected, "{ip} {recipient}");
    }

    fn our_clients() -> Access {
        let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|net| net.parse().unwrap());
        let shown = SHOWN.to_uppercase().parse().unwrap();
        Access::Clients(Clients { networks: networks.to_vec(), certificates: vec![shown] })
    }

    #[test]
    fn inbound_mail_is_for_our_own_domains() {
        let ours = ["example.org", "sub.example.net"].map(|name| Domain::parse(name).unwrap());
        let access = Access::Domains(ours.to_vec());
        for (recipient, expected) in [
            ("alice@example.org", true),
            ("alice@EXAMPLE.org.", true),
            ("alice@sub.example.net", true),
            ("postmaster", true),
            ("alice@example.net", false),
            ("alice@x.example.org", false),
            ("alice@notexample.org", false),
            ("alice%elsewhere.example@example.org", true),
            ("\"alice@example.org\"@elsewhere.example", false),
            ("alice@[192.0.2.1]", false),
        ] {
            check(&access, "203.0.113.9", recipient, expected);
        }
        check(&Access::Domains(Vec::new()), "127.0.0.1", "alice@anywhere.example", true);
    }

    #[test]
    fn outbound_mail_is_from_our_own_networks() {
        for (ip, expected) in [
            ("192.0.2.77", true),
            ("::ffff:192.0.2.77", true),
            ("2001:db8::1", true),
            ("192.0.3.1", false),
            ("127.0.0.1", false),
            ("2001:db9::1", false),
        ] {
            check(&our_clients(), ip, "friend@anywhere.example", expected);
        }
    }

    #[test]
    fn a_client_that_is_not_ours_signs_in_or_shows_a_certificate() {
        let other = SHOWN.replace('0', "1");
        for (ip, fingerprint, standing, expected) in [
            ("192.0.2.1", None, Standing::Stranger, 0),
            ("192.0.2.1", None, Standing::MaySignIn, 0),
            ("203.0.113.9", None, Standing::SignedIn, 0),
            ("203.0.113.9", None, Standing::MaySignIn, 530),
            ("203.0.113.9", None, Standing::NeedsTls, 530),
            ("203.0.113.9", None, Standing::Stranger, 554),
            ("203.0.113.9", Some(SHOWN), Standing::Stranger, 0),
            ("203.0.113.9", Some(SHOWN), Standing::MaySignIn, 0),
            ("203.0.113.9", Some(&other), Standing::Stranger, 554),
            ("203.0.113.9", Some(""), Standing::Stranger, 554),
        ] {
            let outcome = our_clients().check_client(&client(ip, fingerprint), standing);
            assert_eq!(outcome.err().map_or(0, |reply| reply.code()), expected, "{ip} {standing:?}");
        }
    }

    #[test]
    fn signing_in_opens_no_foreign_domain_to_inbound_mail() {
        let access = Access::Domains(vec![Domain::parse("example.org").unwrap()]);
        assert!(access.check_client(&client("203.0.113.9", Some(SHOWN)), Standing::SignedIn).is_ok());
        assert!(access.check_recipient(&Address::parse("friend@elsewhere.example").unwrap()).is_err());
    }

    #[test]
    fn with_nothing_named_nobody_gets_through() {
        let access = Access::Clients(Clients::default());
        check(&access, "127.0.0.1", "friend@anywhere.example", false);
    }

    #[test]
    fn a_fingerprint_is_read_in_every_common_form() {
        let colons: Vec<String> =
            SHOWN.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
        assert_eq!(colons.join(":").parse(), Ok(Fingerprint(SHOWN.to_owned())));
        for bad in ["", SHOWN.strip_prefix('0').unwrap(), &format!("{SHOWN}0"), &SHOWN.replace('0', "g")] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(InvalidFingerprint), "{bad}");
        }
    }
}
