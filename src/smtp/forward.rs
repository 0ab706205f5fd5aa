//! What a trusted peer says of the client behind it: XCLIENT and XFORWARD, as Postfix writes them
//! (XCLIENT_README, XFORWARD_README).
//!
//! Names that go into trace fields and logs lose every character that means something there, like those
//! that a client gives itself.

use std::net::{IpAddr, SocketAddr};

use crate::mail::{Client, Protocol};
use crate::smtp::parameter::read_number;
use crate::smtp::syntax::SyntaxError;
use crate::smtp::xtext;

/// The attributes of XCLIENT, as the reply to EHLO lists them.
pub const XCLIENT_ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// The attributes of XFORWARD, as the reply to EHLO lists them.
pub const XFORWARD_ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO IDENT SOURCE";

/// Longest value in bytes, decoded.
const MAX_VALUE: usize = 255;
/// What stands for a name that the peer does not know either.
const UNKNOWN: &str = "unknown";

/// What was said of one attribute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Told<T> {
    /// Nothing.
    #[default]
    Nothing,
    /// That it cannot be known: `[UNAVAILABLE]`, `[TEMPUNAVAIL]`.
    Unavailable,
    /// This.
    Is(T),
}

/// What a peer says of the client behind it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// NAME: the host name.
    pub name: Told<String>,
    /// ADDR: the address.
    pub address: Told<IpAddr>,
    /// PORT.
    pub port: Told<u16>,
    /// PROTO.
    pub protocol: Told<Protocol>,
    /// HELO: the name that the client gave itself.
    pub helo: Told<String>,
    /// LOGIN: the name under which it has signed in.
    pub login: Told<String>,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Report([redacted])")
    }
}

impl Report {
    /// Reads the arguments of XCLIENT.
    ///
    /// # Errors
    /// [`SyntaxError::Arguments`] where one is unknown, malformed or repeated, or none is there.
    pub fn parse_xclient(arguments: &[u8]) -> Result<Self, SyntaxError> {
        parse(arguments, XCLIENT_ATTRIBUTES)
    }

    /// Reads the arguments of XFORWARD.
    ///
    /// # Errors
    /// As [`Report::parse_xclient`].
    pub fn parse_xforward(arguments: &[u8]) -> Result<Self, SyntaxError> {
        parse(arguments, XFORWARD_ATTRIBUTES)
    }

    /// Takes over what a later command said.
    pub fn merge(&mut self, later: Report) {
        fn take<T>(place: &mut Told<T>, later: Told<T>) {
            if !matches!(later, Told::Nothing) {
                *place = later;
            }
        }
        take(&mut self.name, later.name);
        take(&mut self.address, later.address);
        take(&mut self.port, later.port);
        take(&mut self.protocol, later.protocol);
        take(&mut self.helo, later.helo);
        take(&mut self.login, later.login);
    }

    /// Makes a client the one that was reported (XCLIENT). One whose address is unknown has none: it must not
    /// have the rights of the peer that speaks for it.
    pub fn impersonate(&self, client: &mut Client) {
        let ip = match self.address {
            Told::Nothing => client.peer.ip(),
            Told::Unavailable => IpAddr::from([0, 0, 0, 0]),
            Told::Is(ip) => ip,
        };
        client.peer = SocketAddr::new(ip, self.port_beside(client.peer));
        client.address = client.peer;
        client.name = self.name_or(client.name.take());
        client.login = match &self.login {
            Told::Is(login) => Some(login.clone()),
            Told::Nothing | Told::Unavailable => None,
        };
        if let Some(tls) = &mut client.tls {
            // The certificate is the peer's: the client behind it has shown none.
            tls.client_fingerprint = None;
        }
        self.introduce(client);
    }

    /// Notes where a client's mail comes from (XFORWARD); its rights stay its own.
    pub fn forward(&self, client: &mut Client) {
        if let Told::Is(ip) = self.address {
            client.address = SocketAddr::new(ip, self.port_beside(client.address));
            client.name = None;
        }
        client.name = self.name_or(client.name.take());
        if self.helo == Told::Unavailable {
            UNKNOWN.clone_into(&mut client.helo);
        }
        self.introduce(client);
    }

    /// Puts the greeting that was reported in the place of the peer's own. Whether it is LMTP is not a matter
    /// of report: it says how many replies the peer reads after the end of data, and one that reads one reply
    /// would take a 2xx for a recipient that was refused.
    pub fn introduce(&self, client: &mut Client) {
        if let Told::Is(helo) = &self.helo {
            client.helo.clone_from(helo);
        }
        if let Told::Is(protocol) = self.protocol
            && (protocol == Protocol::Lmtp) == (client.protocol == Protocol::Lmtp)
        {
            client.protocol = protocol;
        }
    }

    fn port_beside(&self, known: SocketAddr) -> u16 {
        match (&self.port, &self.address) {
            (Told::Is(port), _) => *port,
            (Told::Nothing, Told::Nothing) => known.port(),
            _ => 0,
        }
    }

    fn name_or(&self, known: Option<String>) -> Option<String> {
        match &self.name {
            Told::Nothing => known,
            Told::Unavailable => None,
            Told::Is(name) => Some(name.clone()),
        }
    }
}

fn parse(arguments: &[u8], known: &str) -> Result<Report, SyntaxError> {
    let mut report = Report::default();
    let mut seen = Vec::new();
    for word in arguments.split(|&byte| byte == b' ').filter(|word| !word.is_empty()) {
        let at = memchr::memchr(b'=', word).ok_or(SyntaxError::Arguments)?;
        let (key, value) = word.split_at_checked(at).ok_or(SyntaxError::Arguments)?;
        let value = value.strip_prefix(b"=").unwrap_or_default();
        let key = known
            .split(' ')
            .find(|name| key.eq_ignore_ascii_case(name.as_bytes()))
            .ok_or(SyntaxError::Arguments)?;
        if seen.contains(&key) {
            return Err(SyntaxError::Arguments);
        }
        seen.push(key);
        read(&mut report, key, value).ok_or(SyntaxError::Arguments)?;
    }
    if seen.is_empty() { Err(SyntaxError::Arguments) } else { Ok(report) }
}

fn read(report: &mut Report, key: &str, value: &[u8]) -> Option<()> {
    let is_unavailable =
        ["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    let decoded = xtext::decode(value)?;
    if decoded.is_empty() || decoded.len() > MAX_VALUE {
        return None;
    }
    fn told<T>(is_unavailable: bool, value: impl FnOnce() -> Option<T>) -> Option<Told<T>> {
        if is_unavailable { Some(Told::Unavailable) } else { value().map(Told::Is) }
    }
    match key {
        "NAME" => report.name = told(is_unavailable, || Some(harmless(&decoded)))?,
        "HELO" => report.helo = told(is_unavailable, || Some(harmless(&decoded)))?,
        "ADDR" => report.address = told(is_unavailable, || parse_address(&decoded))?,
        "PORT" => report.port = told(is_unavailable, || parse_port(&decoded))?,
        "PROTO" => report.protocol = told(is_unavailable, || parse_protocol(&decoded))?,
        "LOGIN" => report.login = told(is_unavailable, || parse_login(decoded))?,
        // Where the client connected to is the peer's own affair, but no reason to take nonsense.
        "DESTADDR" if !is_unavailable => parse_address(&decoded).map(|_| ())?,
        "DESTPORT" if !is_unavailable => parse_port(&decoded).map(|_| ())?,
        // So are IDENT and SOURCE.
        _ => {}
    }
    Some(())
}

fn harmless(text: &[u8]) -> String {
    text.iter().map(|&byte| if is_harmless(byte) { char::from(byte) } else { '?' }).collect()
}

/// Whether a character of a client's name means nothing in trace fields, logs and pages.
pub(super) fn is_harmless(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\' | b'(' | b')')
}

fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = match text.split_at_checked(5) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case("IPV6:") => IpAddr::V6(rest.parse().ok()?),
        _ => text.parse().ok()?,
    };
    Some(address.to_canonical())
}

fn parse_port(text: &[u8]) -> Option<u16> {
    u16::try_from(read_number(text)?).ok()
}

fn parse_protocol(text: &[u8]) -> Option<Protocol> {
    [("SMTP", Protocol::Smtp), ("ESMTP", Protocol::Esmtp), ("LMTP", Protocol::Lmtp)]
        .into_iter()
        .find(|(name, _)| text.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, protocol)| protocol)
}

fn parse_login(text: Vec<u8>) -> Option<String> {
    String::from_utf8(text).ok().filter(|login| !login.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        let mut client = Client::new("192.0.2.1:25".parse().unwrap());
        client.helo = "proxy.example".to_owned();
        client
    }

    #[test]
    fn xclient_makes_the_client_another_one() {
        let arguments =
            b"NAME=c.example ADDR=IPV6:2001:db8::1 PORT=1234 PROTO=ESMTP helo=me LOGIN=a+2Bb DESTPORT=25";
        let mut client = client();
        Report::parse_xclient(arguments).unwrap().impersonate(&mut client);
        assert_eq!(client.peer, "[2001:db8::1]:1234".parse().unwrap());
        assert_eq!(client.address, client.peer);
        assert_eq!(client.name.as_deref(), Some("c.example"));
        assert_eq!(client.helo, "me");
        assert_eq!(client.protocol, Protocol::Esmtp);
        assert_eq!(client.login.as_deref(), Some("a+b"));
    }

    #[test]
    fn a_client_of_unknown_address_has_not_the_rights_of_its_proxy() {
        for word in ["[UNAVAILABLE]", "[TEMPUNAVAIL]"] {
            let mut client = client();
            let arguments = format!("ADDR={word} LOGIN={word}");
            Report::parse_xclient(arguments.as_bytes()).unwrap().impersonate(&mut client);
            assert_eq!(client.peer, "0.0.0.0:0".parse().unwrap());
            assert_eq!(client.login, None);
        }
    }

    #[test]
    fn xforward_tells_of_the_origin_and_leaves_the_rights() {
        let mut client = client();
        let arguments = b"NAME=c.example ADDR=198.51.100.7 HELO=<b>+20x PROTO=SMTP SOURCE=REMOTE IDENT=4";
        Report::parse_xforward(arguments).unwrap().forward(&mut client);
        assert_eq!(client.peer, "192.0.2.1:25".parse().unwrap());
        assert_eq!(client.address, "198.51.100.7:0".parse().unwrap());
        assert_eq!((client.name.as_deref(), client.helo.as_str()), (Some("c.example"), "?b??x"));
    }

    #[test]
    fn a_client_has_not_the_certificate_of_its_proxy() {
        let mut client = client();
        client.tls = Some(crate::mail::Tls {
            version: "TLSv1.3",
            cipher: String::new(),
            client_fingerprint: Some("00".repeat(32)),
        });
        let mut forwarded = client.clone();
        Report::parse_xclient(b"ADDR=198.51.100.7").unwrap().impersonate(&mut client);
        assert_eq!(client.tls.unwrap().client_fingerprint, None);
        Report::parse_xforward(b"ADDR=198.51.100.7").unwrap().forward(&mut forwarded);
        assert!(forwarded.tls.unwrap().client_fingerprint.is_some());
    }

    #[test]
    fn how_many_replies_a_peer_reads_is_not_a_matter_of_report() {
        for (own, told, expected) in [
            (Protocol::Esmtp, "SMTP", Protocol::Smtp),
            (Protocol::Smtp, "ESMTP", Protocol::Esmtp),
            (Protocol::Esmtp, "LMTP", Protocol::Esmtp),
            (Protocol::Lmtp, "ESMTP", Protocol::Lmtp),
        ] {
            let mut client = Client { protocol: own, ..client() };
            Report::parse_xforward(format!("PROTO={told}").as_bytes()).unwrap().forward(&mut client);
            assert_eq!(client.protocol, expected, "{own:?} told {told}");
        }
    }

    #[test]
    fn several_commands_add_up() {
        let mut report = Report::parse_xforward(b"NAME=a ADDR=198.51.100.7").unwrap();
        report.merge(Report::parse_xforward(b"NAME=[UNAVAILABLE] HELO=b").unwrap());
        let mut client = client();
        report.forward(&mut client);
        assert_eq!((client.name, client.helo.as_str()), (None, "b"));
        assert_eq!(client.address.ip(), IpAddr::from([198, 51, 100, 7]));
    }

    #[test]
    fn malformed_attributes_are_refused() {
        let long = format!("NAME={}", "x".repeat(256));
        for arguments in [
            "",
            "NAME",
            "NAME=",
            "ADDR=example",
            "ADDR=IPV6:192.0.2.1",
            "PORT=65536",
            "PORT=-1",
            "PROTO=HTTP",
            "LOGIN=+0D+0A",
            "LOGIN=+FF",
            "NAME=a NAME=b",
            "XYZZY=1",
            "IDENT=1",
            "DESTADDR=x",
            "NAME=a=b",
            &long,
        ] {
            assert_eq!(
                Report::parse_xclient(arguments.as_bytes()),
                Err(SyntaxError::Arguments),
                "{arguments}"
            );
        }
        assert!(Report::parse_xforward(b"LOGIN=a").is_err());
    }
}
