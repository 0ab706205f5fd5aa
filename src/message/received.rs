//! Received fields: who handed the message to whom (RFC 5321, section 4.4), in the forms that mail servers
//! write.

use std::net::IpAddr;

/// Longest field that is read.
const FIELD_BYTES: usize = 2_000;

/// One hop, as the host that took the message tells it. Empty where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The address of who handed it over.
    pub ip: IpAddr,
    /// The name that this address has.
    pub name: String,
    /// The name that it gave.
    pub helo: String,
    /// Who took it.
    pub by: String,
    /// Its user, where the field says one (RFC 1413).
    pub ident: String,
    /// The reverse-path, where the field says it.
    pub reverse_path: String,
    /// The id that the taker gave it.
    pub id: String,
    /// How the sender signed in; empty where it did not.
    pub auth: String,
}

/// Reads a Received field. `None` for a hop within a host, or one that names no address.
pub fn relay(value: &str) -> Option<Relay> {
    let value = super::text_prefix(value, FIELD_BYTES);
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    let value = value
        .strip_prefix("from ")
        .or_else(|| value.strip_prefix("(from "))
        .or_else(|| value.split_once(" from ").map(|(_, rest)| rest))?;
    if is_fetched(value) {
        return None;
    }
    let by_at = value.find(" by ").unwrap_or(value.len());
    let (from, rest) = value.split_at_checked(by_at)?;
    let (first, comment) = from.split_once(' ').unwrap_or((from, ""));
    let ip = addresses(from).next()?;
    // A bare address stands alone only where a web page took the message.
    if comment.is_empty()
        && first.parse::<IpAddr>().is_ok()
        && !rest.contains(&format!("{} with ", after(rest, " by ")))
    {
        return None;
    }
    let first_host = first.trim_matches(['[', ']', '(', ')']);
    let mut relay = Relay {
        ip,
        name: String::new(),
        helo: String::new(),
        by: after(rest, " by "),
        ident: String::new(),
        reverse_path: after(value, "envelope-from ").trim_matches(['<', '>', '(', ')']).to_owned(),
        id: after(rest, " id "),
        auth: String::new(),
    };
    let said = ["helo=", "HELO ", "EHLO ", "HELO=", "ehlo="].iter().find_map(|sign| comment.split_once(sign));
    let name_in_comment = host_before_address(comment);
    match said {
        // Exim and qmail: the name of the address first, what was said in the comment.
        Some((_, said)) => {
            relay.helo = word(said);
            let is_address = first_host.parse::<IpAddr>().is_ok();
            relay.name = if first.starts_with('[') || is_address || first == "unknown" {
                String::new()
            } else {
                first_host.to_owned()
            };
        }
        // Postfix and sendmail: what was said first, the name of the address in the comment.
        None => {
            relay.helo = if first.starts_with('[') { first.to_owned() } else { first_host.to_owned() };
            // Exim leaves out what was said where that is the name of the address.
            let is_exim = value.contains("(Exim ") && !first.starts_with('[');
            let is_same = is_exim && name_in_comment.0.is_empty() && first_host.contains('.');
            relay.name = if is_same { first_host.to_owned() } else { name_in_comment.0 };
            relay.ident = name_in_comment.1;
        }
    }
    if let Some((_, ident)) = comment.split_once("ident=") {
        relay.ident = word(ident);
    }
    if relay.name == "unknown" {
        relay.name.clear();
    }
    let protocol = after(rest, " with ").to_ascii_uppercase();
    if matches!(protocol.as_str(), "ESMTPA" | "ESMTPSA" | "ASMTP" | "LMTPA" | "LMTPSA") {
        relay.auth = protocol;
    } else if value.contains("(Authenticated sender") || value.contains("(authenticated") {
        relay.auth = "Authenticated".to_owned();
    }
    Some(relay)
}

/// Whether a field tells that a program fetched the message from a mailbox, which is no hop.
pub fn is_fetched(value: &str) -> bool {
    ["with POP3", "with IMAP", "(fetchmail-", "(getmail"].iter().any(|sign| value.contains(sign))
}

/// Returns the word behind a mark; empty where there is none.
fn after(text: &str, mark: &str) -> String {
    text.split_once(mark).map(|(_, rest)| word(rest)).unwrap_or_default()
}

fn word(text: &str) -> String {
    text.trim_start().split([' ', ';', ')', '(', ',']).next().unwrap_or_default().to_owned()
}

/// Returns the addresses in a text, those in brackets first.
fn addresses(text: &str) -> impl Iterator<Item = IpAddr> {
    let read = |text: &str| {
        let text = text.trim().trim_start_matches("IPv6:").trim_start_matches("ipv6:");
        text.parse::<IpAddr>().ok()
    };
    let in_brackets = text.split('[').skip(1).filter_map(move |rest| read(rest.split(']').next()?));
    let bare = text
        .split([' ', '(', ')', '@', '[', ']', '='])
        .filter(|word| word.contains('.') || word.contains(':'))
        .filter_map(read);
    in_brackets.chain(bare).collect::<Vec<_>>().into_iter()
}

/// Returns the host before the address in a comment such as `(ident@host.example [192.0.2.1])`, and the user
/// before it.
fn host_before_address(comment: &str) -> (String, String) {
    let inner = comment.trim_start_matches('(');
    let host = inner.split(['[', ')']).next().unwrap_or_default().trim();
    let host = host.split(' ').next_back().unwrap_or_default();
    let (ident, host) = host.rsplit_once('@').map_or(("", host), |(ident, host)| (ident, host));
    let is_host = host.contains(|c: char| c.is_ascii_alphabetic()) && host.parse::<IpAddr>().is_err();
    (if is_host { host.to_owned() } else { String::new() }, ident.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<(&str, &str, &str, &str)>) {
        let relay = relay(value);
        let found = relay
            .as_ref()
            .map(|relay| (relay.ip.to_string(), relay.name.as_str(), relay.helo.as_str(), relay.by.as_str()));
        let expected = expected.map(|(ip, name, helo, by)| (ip.to_owned(), name, helo, by));
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn the_usual_forms_are_read() {
        check(
            "from mx.example.org (mx1.example.org [192.0.2.1])\r\n by in.example.net (Postfix) with ESMTPS id 4A for <b@example.net>; Mon",
            Some(("192.0.2.1", "mx1.example.org", "mx.example.org", "in.example.net")),
        );
        check(
            "from mx.example.org (unknown [192.0.2.1]) by in.example.net (Postfix); Mon",
            Some(("192.0.2.1", "", "mx.example.org", "in.example.net")),
        );
        check(
            "from h (root@host.example.org [192.0.2.2] (may be forged)) by in.example.net (8.11.6/8.11.6) with SMTP id g; Mon",
            Some(("192.0.2.2", "host.example.org", "h", "in.example.net")),
        );
        check(
            "from [192.0.2.3] (helo=mail.example.org) by in.example.net with esmtp (Exim 3.35) id 1",
            Some(("192.0.2.3", "", "mail.example.org", "in.example.net")),
        );
        check(
            "from host.example.org ([192.0.2.4] helo=mail.example.org) by in.example.net with esmtp",
            Some(("192.0.2.4", "host.example.org", "mail.example.org", "in.example.net")),
        );
        check(
            "from host.example.org ([192.0.2.4]:4711) by in.example.net with esmtps (Exim 4.93) id 1",
            Some(("192.0.2.4", "host.example.org", "host.example.org", "in.example.net")),
        );
        check(
            "from unknown (HELO mail) (192.0.2.5) by in.example.net with SMTP; 1 Jan",
            Some(("192.0.2.5", "", "mail", "in.example.net")),
        );
        check(
            "from host.example.org (192.0.2.6) by in.example.net with SMTP",
            Some(("192.0.2.6", "", "host.example.org", "in.example.net")),
        );
        check(
            "from a.example ([IPv6:2001:db8::1]) by b.example with HTTP",
            Some(("2001:db8::1", "", "a.example", "b.example")),
        );
        check("from mail.example.org [192.0.2.1] by localhost with IMAP (fetchmail-5.9.0)", None);
        check("by in.example.net (Postfix, from userid 0) id 4A; Mon", None);
        check("(qmail 12 invoked by uid 500); 1 Jan", None);
    }

    proptest::proptest! {
        #[test]
        fn any_field_is_read(value in "[ -~\u{e9}]{0,200}") {
            drop(relay(&value));
        }
    }
}
