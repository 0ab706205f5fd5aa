//! Who may hand us mail for whom: what keeps the gateway from being an open relay.
//!
//! Inbound mail is for our own domains; outbound mail is from our own networks. The next hop trusts us, so
//! nothing else reaches it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::mail::{Address, Domain, EnhancedCode, Reply};

/// The rule of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Anybody, for recipients of these domains; with none named, for every recipient, which only a listener
    /// on loopback may offer.
    Domains(Vec<Domain>),
    /// Clients of these networks, for every recipient.
    Networks(Vec<IpNet>),
}

impl Access {
    /// Refuses a client that may not send here at all.
    ///
    /// # Errors
    /// The reply to its MAIL.
    pub fn check_client(&self, client: IpAddr) -> Result<(), Reply> {
        match self {
            Access::Networks(networks)
                if !networks.iter().any(|net| net.contains(&client.to_canonical())) =>
            {
                Err(Reply::new(554, EnhancedCode(5, 7, 1), "your address may not send through here"))
            }
            Access::Networks(_) | Access::Domains(_) => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(access: &Access, client: &str, recipient: &str, expected: bool) {
        let admitted = access.check_client(client.parse().unwrap()).is_ok()
            && access.check_recipient(&Address::parse(recipient).unwrap()).is_ok();
        assert_eq!(admitted, expected, "{client} {recipient}");
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
        let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|net| net.parse().unwrap());
        let access = Access::Networks(networks.to_vec());
        for (client, expected) in [
            ("192.0.2.77", true),
            ("::ffff:192.0.2.77", true),
            ("2001:db8::1", true),
            ("192.0.3.1", false),
            ("127.0.0.1", false),
            ("2001:db9::1", false),
        ] {
            check(&access, client, "friend@anywhere.example", expected);
        }
    }
}
