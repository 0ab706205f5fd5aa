//! One command line, read into a value (RFC 5321, section 4.1).
//!
//! `smtp-proto` knows the greetings. Paths and parameters of MAIL and RCPT are read here, because its parser
//! takes the quotes off a local part (`"a@b"@example.org` would name another mailbox), lets a SIZE of more
//! than 64 bits wrap around, and keeps parameters that this server does not offer; so is whatever frames
//! bytes or is a secret (BDAT, AUTH), to the letter.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smtp_proto::{Error as ProtoError, Request};

use crate::mail::{Mail, Recipient};
use crate::smtp::forward::{Report, is_harmless};
use crate::smtp::parameter::{self, read_number};
use crate::smtp::path::{parse_mailbox, split_path};
use crate::smtp::server::{Mechanism, SignIn};

pub use crate::smtp::parameter::Offered;
pub use crate::smtp::syntax::SyntaxError;

/// A command that this server carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// HELO with the client's name.
    Helo(String),
    /// EHLO with the client's name.
    Ehlo(String),
    /// LHLO with the client's name (RFC 2033).
    Lhlo(String),
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954); always [`SignIn::Begin`].
    Auth(SignIn),
    /// MAIL FROM.
    Mail(Mail),
    /// RCPT TO.
    Rcpt(Recipient),
    /// DATA.
    Data,
    /// BDAT: so many octets follow (RFC 3030). A number that no 64 bits hold is the largest one.
    Bdat {
        /// The size of the chunk.
        octets: u64,
        /// Whether the message ends with it.
        is_last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, whatever its argument.
    Noop,
    /// VRFY, whatever its argument: no mailbox is ever confirmed.
    Vrfy,
    /// HELP.
    Help,
    /// XCLIENT.
    Xclient(Report),
    /// XFORWARD.
    Xforward(Report),
    /// QUIT.
    Quit,
}

/// Longest name that a client gives itself, in bytes.
const MAX_NAME: usize = 255;

/// Methods of HTTP, and the first word of its second version.
const HTTP: [&str; 10] =
    ["GET", "POST", "CONNECT", "PUT", "OPTIONS", "HEAD", "DELETE", "PATCH", "TRACE", "PRI"];

/// Verbs that exist and are never offered.
const NEVER_OFFERED: [&str; 8] = ["EXPN", "ETRN", "ATRN", "BURL", "TURN", "SEND", "SOML", "SAML"];

/// Returns the first word of a line, as far as it is known.
pub fn verb(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_start();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// Reads one line without its CR LF.
///
/// `offered` says which parameters may be used. `smtputf8` says whether the open transaction was declared
/// SMTPUTF8, which a RCPT depends on; a MAIL declares it itself.
///
/// # Errors
/// A [`SyntaxError`], which knows its reply.
pub fn parse(line: &[u8], offered: &Offered, smtputf8: bool) -> Result<Command, SyntaxError> {
    if memchr::memchr2(b'\r', 0, line).is_some() {
        let has_path = strip_verb(line, "MAIL", "FROM").or_else(|| strip_verb(line, "RCPT", "TO")).is_some();
        return Err(if has_path { SyntaxError::Arguments } else { SyntaxError::Character });
    }
    if let Some(rest) = strip_verb(line, "MAIL", "FROM") {
        return parse_mail(rest, offered).map(Command::Mail);
    }
    if let Some(rest) = strip_verb(line, "RCPT", "TO") {
        return parse_rcpt(rest, offered, smtputf8).map(Command::Rcpt);
    }
    parse_other(line)
}

fn parse_other(line: &[u8]) -> Result<Command, SyntaxError> {
    let trimmed = line.trim_ascii();
    let verb = verb(trimmed);
    let argument = trimmed.get(verb.len()..).unwrap_or_default().trim_ascii_start();
    let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
    let bare = |command: Command| if argument.is_empty() { Ok(command) } else { Err(SyntaxError::Arguments) };
    match () {
        () if is("DATA") => bare(Command::Data),
        () if is("RSET") => bare(Command::Rset),
        () if is("QUIT") => bare(Command::Quit),
        () if is("STARTTLS") => bare(Command::StartTls),
        () if is("NOOP") => Ok(Command::Noop),
        () if is("HELP") => Ok(Command::Help),
        () if is("VRFY") && argument.is_empty() => Err(SyntaxError::Arguments),
        () if is("VRFY") => Ok(Command::Vrfy),
        () if is("BDAT") => parse_bdat(argument),
        () if is("AUTH") => parse_auth(argument).map(Command::Auth),
        () if is("XCLIENT") => Report::parse_xclient(argument).map(Command::Xclient),
        () if is("XFORWARD") => Report::parse_xforward(argument).map(Command::Xforward),
        // Those that came here lack FROM: or TO:.
        () if is("MAIL") || is("RCPT") => Err(SyntaxError::Arguments),
        () if NEVER_OFFERED.into_iter().any(is) => Err(SyntaxError::NotOffered),
        () if HTTP.into_iter().any(is) => Err(SyntaxError::Foreign),
        () => parse_greeting(line),
    }
}

fn parse_greeting(line: &[u8]) -> Result<Command, SyntaxError> {
    // The grammar reads up to an LF.
    let mut terminated = Vec::with_capacity(line.len() + 1);
    terminated.extend_from_slice(line);
    terminated.push(b'\n');
    match Request::parse(&mut terminated.iter()) {
        Ok(Request::Helo { host }) => client_name(&host).map(Command::Helo),
        Ok(Request::Ehlo { host }) => client_name(&host).map(Command::Ehlo),
        Ok(Request::Lhlo { host }) => client_name(&host).map(Command::Lhlo),
        Ok(_) | Err(ProtoError::UnknownCommand) => Err(SyntaxError::Unknown),
        Err(_) => Err(SyntaxError::Arguments),
    }
}

/// The name goes into trace fields, logs and pages, so it may have no character that means something there,
/// and no more than a domain may have (RFC 5321, section 4.5.3.1.2): a line of a header has an end, too.
fn client_name(host: &str) -> Result<String, SyntaxError> {
    if host.len() <= MAX_NAME && host.bytes().all(is_harmless) {
        Ok(host.to_owned())
    } else {
        Err(SyntaxError::Arguments)
    }
}

fn parse_bdat(argument: &[u8]) -> Result<Command, SyntaxError> {
    let mut words = argument.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let octets = words.next().and_then(read_number).ok_or(SyntaxError::ChunkSize)?;
    let is_last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
        Some(_) => return Err(SyntaxError::ChunkSize),
    };
    if words.next().is_some() { Err(SyntaxError::ChunkSize) } else { Ok(Command::Bdat { octets, is_last }) }
}

fn parse_auth(argument: &[u8]) -> Result<SignIn, SyntaxError> {
    let mut words = argument.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let name = words.next().ok_or(SyntaxError::Arguments)?;
    let mechanism = Mechanism::from_name(name).ok_or(SyntaxError::Mechanism)?;
    let initial = match words.next() {
        None => None,
        Some(b"=") => Some(Vec::new()),
        Some(word) => Some(parse_base64(word)?),
    };
    if words.next().is_some() { Err(SyntaxError::Arguments) } else { Ok(SignIn::Begin(mechanism, initial)) }
}

/// Decodes the line of a client that is signing in, by the letter: padded, without blanks or stray bits (RFC
/// 4954, section 4).
///
/// # Errors
/// [`SyntaxError::Base64`].
pub fn parse_base64(text: &[u8]) -> Result<Vec<u8>, SyntaxError> {
    STANDARD.decode(text).map_err(|_| SyntaxError::Base64)
}

/// Returns what follows `verb keyword:`, in any case and with the blanks that clients are known to add.
fn strip_verb<'a>(line: &'a [u8], verb: &str, keyword: &str) -> Option<&'a [u8]> {
    let rest = strip_prefix_ignore_case(line.trim_ascii_start(), verb)?;
    let keyword_at = rest.trim_ascii_start();
    if keyword_at.len() == rest.len() {
        return None;
    }
    strip_prefix_ignore_case(keyword_at, keyword)?.trim_ascii_start().strip_prefix(b":")
}

fn strip_prefix_ignore_case<'a>(text: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix.as_bytes()).then_some(rest)
}

fn parse_mail(rest: &[u8], offered: &Offered) -> Result<Mail, SyntaxError> {
    let (path, parameters) = split_path(rest).ok_or(SyntaxError::ReversePath)?;
    let mut mail = parameter::parse_mail(parameters, offered)?;
    if !path.is_empty() {
        let address = parse_mailbox(path, mail.smtputf8, SyntaxError::ReversePath)?;
        if address.domain().is_none() {
            return Err(SyntaxError::ReversePath);
        }
        mail.reverse_path = Some(address);
    }
    Ok(mail)
}

fn parse_rcpt(rest: &[u8], offered: &Offered, smtputf8: bool) -> Result<Recipient, SyntaxError> {
    let (path, parameters) = split_path(rest).ok_or(SyntaxError::ForwardPath)?;
    let mut recipient = Recipient::from(parse_mailbox(path, smtputf8, SyntaxError::ForwardPath)?);
    parameter::parse_rcpt(parameters, offered, smtputf8, &mut recipient)?;
    Ok(recipient)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ESMTP: Offered =
        Offered { esmtp: true, binary_mime: false, dsn: false, require_tls: false, prdr: false, auth: false };

    fn check(line: &str, expected: Result<&str, (u16, &str)>) {
        let shown = parse(line.as_bytes(), &ESMTP, false).map(|command| match command {
            Command::Helo(name) => format!("helo {name}"),
            Command::Ehlo(name) => format!("ehlo {name}"),
            Command::Mail(mail) => format!(
                "mail <{}> {:?} {:?} {}",
                mail.reverse_path.map(|path| path.to_path()).unwrap_or_default(),
                mail.size_bytes,
                mail.body,
                mail.smtputf8
            ),
            Command::Rcpt(to) => format!("rcpt <{}>", to.address.to_path()),
            other => format!("{other:?}").to_lowercase(),
        });
        let shown =
            shown.map_err(|error| (error.reply().code(), error.reply().enhanced().unwrap().to_string()));
        assert_eq!(
            shown,
            expected.map(str::to_owned).map_err(|(code, enhanced)| (code, enhanced.to_owned())),
            "{line:?}"
        );
    }

    #[test]
    fn commands_are_read_in_any_case_and_with_stray_blanks() {
        check("EHLO client.example", Ok("ehlo client.example"));
        check("helo [192.0.2.1]", Ok("helo [192.0.2.1]"));
        check("DATA", Ok("data"));
        check("data ", Ok("data"));
        check("RSET", Ok("rset"));
        check("NOOP anything", Ok("noop"));
        check("VRFY alice", Ok("vrfy"));
        check("VRFY jörg", Ok("vrfy"));
        check("lhlo client.example", Ok("lhlo(\"client.example\")"));
        check("STARTTLS", Ok("starttls"));
        check("bdat 10", Ok("bdat { octets: 10, is_last: false }"));
        check("BDAT 0 last", Ok("bdat { octets: 0, is_last: true }"));
        check("BDAT 99999999999999999999", Ok("bdat { octets: 18446744073709551615, is_last: false }"));
        check("AUTH plain", Ok("auth(begin(plain, none))"));
        check("AUTH SCRAM-SHA-256 =", Ok("auth(begin(scramsha256, some([0 bytes])))"));
        check("AUTH PLAIN AGEAYg==", Ok("auth(begin(plain, some([4 bytes])))"));
        check("HELP", Ok("help"));
        check("QUIT", Ok("quit"));
        check("mail from:<a@b.example>", Ok("mail <a@b.example> None SevenBit false"));
        check("MAIL FROM: <a@b.example> ", Ok("mail <a@b.example> None SevenBit false"));
        check("MAIL FROM:<>", Ok("mail <> None SevenBit false"));
        check("RCPT TO:<postmaster>", Ok("rcpt <postmaster>"));
    }

    #[test]
    fn offered_parameters_are_read() {
        check(
            "MAIL FROM:<a@b.example> SIZE=1000 BODY=8BITMIME",
            Ok("mail <a@b.example> Some(1000) EightBitMime false"),
        );
        check("MAIL FROM:<é@b.example> SMTPUTF8", Ok("mail <é@b.example> None SevenBit true"));
        check("MAIL FROM:<> body=7bit size=0", Ok("mail <> Some(0) SevenBit false"));
    }

    #[test]
    fn a_size_beyond_64_bits_does_not_wrap() {
        check(
            "MAIL FROM:<> SIZE=18446744073709551616000",
            Ok("mail <> Some(18446744073709551615) SevenBit false"),
        );
    }

    #[test]
    fn a_path_keeps_its_quotes_and_loses_its_route() {
        check(
            r#"RCPT TO:<"a\"@evil.example>"@example.net>"#,
            Ok(r#"rcpt <"a\"@evil.example>"@example.net>"#),
        );
        check(
            "MAIL FROM:<@r1.example,@r2.example:a@b.example>",
            Ok("mail <a@b.example> None SevenBit false"),
        );
    }

    #[test]
    fn malformed_commands_get_the_reply_that_fits() {
        check("XYZZY", Err((500, "5.5.2")));
        check("", Err((500, "5.5.2")));
        check("STARTTLSX", Err((500, "5.5.2")));
        for line in ["EXPN all", "EXPN é", "TURN", "ETRN x"] {
            check(line, Err((502, "5.5.1")));
        }
        for line in ["BDAT", "BDAT zz", "BDAT -1", "BDAT +1", "BDAT 5 LAS", "BDAT 5 LAST x", "BDAT LAST"] {
            check(line, Err((501, "5.5.4")));
        }
        check(&format!("EHLO {}", "x".repeat(255)), Ok(&format!("ehlo {}", "x".repeat(255))));
        check(&format!("EHLO {}", "x".repeat(256)), Err((501, "5.5.4")));
        check("AUTH XOAUTH2 eA==", Err((504, "5.5.4")));
        for line in
            ["AUTH PLAIN *", "AUTH PLAIN !!!!", "AUTH PLAIN eA", "AUTH PLAIN eB==", "AUTH PLAIN eA==="]
        {
            check(line, Err((501, "5.5.2")));
        }
        for line in ["GET / HTTP/1.1", "CONNECT x:25 HTTP/1.0", "PRI * HTTP/2.0"] {
            check(line, Err((421, "4.7.0")));
        }
        for line in [
            "EHLO",
            "HELO ",
            "STARTTLS now",
            "VRFY",
            "AUTH",
            "AUTH PLAIN = =",
            "XCLIENT",
            "XFORWARD ADDR",
            "EHLO \u{1b}[31m<script>",
            "EHLO bücher.example",
            "DATA now",
            "RSET x",
            "QUIT x",
        ] {
            check(line, Err((501, "5.5.4")));
        }
        check("MAIL", Err((501, "5.5.4")));
        check("MAIL FROM a@b.example", Err((501, "5.5.4")));
        for line in [
            "a@b.example",
            "<a@b.example",
            "<a b@b.example>",
            "<;id;>",
            "<a@b.example>SIZE=1",
            "<postmaster>",
        ] {
            check(&format!("MAIL FROM:{line}"), Err((501, "5.1.7")));
        }
        for line in [
            "<>",
            "<a@[IPv6:zzz]>",
            "<a@[1.2.3]>",
            "<a@b.example:25>",
            "<r@y.example@b.example>",
            "<@a>",
            "<@r:>",
        ] {
            check(&format!("RCPT TO:{line}"), Err((501, "5.1.3")));
        }
        check("MAIL FROM:<a\0b@b.example>", Err((501, "5.5.4")));
        check("MAIL FROM:<a\rb@b.example>", Err((501, "5.5.4")));
        check("NOOP \r", Err((500, "5.5.2")));
    }

    #[test]
    fn parameters_that_are_not_offered_or_malformed_are_refused() {
        for parameter in ["AUTH=<>", "RET=FULL", "BODY=BINARYMIME", "REQUIRETLS", "MT-PRIORITY=0", "X"] {
            check(&format!("MAIL FROM:<> {parameter}"), Err((555, "5.5.4")));
        }
        check("RCPT TO:<a@b.example> NOTIFY=NEVER", Err((555, "5.5.4")));
        for parameter in [
            "SIZE",
            "SIZE=",
            "SIZE=-1",
            "SIZE=1e9",
            "SIZE=0x10",
            "SIZE=1 SIZE=2",
            "BODY=9BIT",
            "BODY",
            "SMTPUTF8=1",
        ] {
            check(&format!("MAIL FROM:<> {parameter}"), Err((501, "5.5.4")));
        }
        for deceptive in
            ["a\u{202e}b@c.example", "a@b\u{2066}.example", "\"\u{2028}\"@c.example", "\u{200b}@c.example"]
        {
            check(&format!("MAIL FROM:<{deceptive}> SMTPUTF8"), Err((501, "5.1.7")));
        }
        check("MAIL FROM:<é@b.example>", Err((553, "5.6.7")));
        check("RCPT TO:<é@b.example>", Err((553, "5.6.7")));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200), smtputf8: bool) {
            let _outcome = parse(&line, &ESMTP, smtputf8);
        }

        #[test]
        fn no_path_panics(tail in "(MAIL FROM:|RCPT TO:|EHLO |AUTH |BDAT |VRFY )[ -~\u{e9}\\\\\"<>@:, =]{0,60}") {
            let _outcome = parse(tail.as_bytes(), &ESMTP, true);
        }

        #[test]
        fn a_mailbox_survives_the_wire(local in "[a-z0-9.+]{1,20}", domain in "[a-z][a-z0-9]{0,10}\\.example") {
            let line = format!("RCPT TO:<{local}@{domain}>");
            let Ok(Command::Rcpt(address)) = parse(line.as_bytes(), &ESMTP, false) else { panic!("{line}") };
            prop_assert_eq!(address.address.to_path(), format!("{local}@{domain}"));
        }
    }
}
