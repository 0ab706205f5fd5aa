//! One command line, read into a value (RFC 5321, section 4.1).
//!
//! `smtp-proto` knows the verbs. Paths and parameters of MAIL and RCPT are read here, because its parser
//! takes the quotes off a local part (`"a@b"@example.org` would name another mailbox), lets a SIZE of more
//! than 64 bits wrap around, and keeps parameters that this server does not offer.

use std::net::{Ipv4Addr, Ipv6Addr};

use smtp_proto::{Error as ProtoError, Request};
use thiserror::Error;

use crate::mail::{Address, BodyType, EnhancedCode, Mail, Recipient, Reply};

/// A command that this server carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// HELO with the client's name.
    Helo(String),
    /// EHLO with the client's name.
    Ehlo(String),
    /// MAIL FROM.
    Mail(Mail),
    /// RCPT TO.
    Rcpt(Recipient),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP, whatever its argument.
    Noop,
    /// VRFY, whatever its argument: no mailbox is ever confirmed.
    Vrfy,
    /// HELP.
    Help,
    /// QUIT.
    Quit,
}

/// Why a line is no command that this server carries out. Never repeats the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SyntaxError {
    /// The line has a bare CR or a NUL.
    #[error("the line has a character that may not stand in a command")]
    Character,
    /// No such verb.
    #[error("the command is unknown")]
    Unknown,
    /// A verb that exists, but is not offered here.
    #[error("the command is not offered")]
    NotOffered,
    /// Another protocol is spoken: HTTP, most often.
    #[error("this is another protocol")]
    Foreign,
    /// The argument is missing, malformed or one too many.
    #[error("the arguments are malformed")]
    Arguments,
    /// The reverse-path is no mailbox.
    #[error("the reverse-path is malformed")]
    ReversePath,
    /// The forward-path is no mailbox.
    #[error("the forward-path is malformed")]
    ForwardPath,
    /// A mailbox that is not ASCII, without SMTPUTF8 (RFC 6531, section 3.5).
    #[error("the mailbox needs SMTPUTF8")]
    NeedsSmtpUtf8,
    /// A parameter whose value is malformed, or that stands twice.
    #[error("a parameter is malformed")]
    ParameterValue,
    /// A parameter that the reply to EHLO does not offer.
    #[error("a parameter is not offered")]
    ParameterNotOffered,
}

impl SyntaxError {
    /// Returns the reply that the client gets.
    pub fn reply(self) -> Reply {
        let (code, enhanced, text) = match self {
            SyntaxError::Character => (500, EnhancedCode(5, 5, 2), "Bare CR or NUL in command"),
            SyntaxError::Unknown => (500, EnhancedCode(5, 5, 2), "Command not recognized"),
            SyntaxError::NotOffered => (502, EnhancedCode(5, 5, 1), "Command not implemented"),
            SyntaxError::Foreign => {
                (421, EnhancedCode(4, 7, 0), "This is an SMTP server, closing connection")
            }
            SyntaxError::Arguments => (501, EnhancedCode(5, 5, 4), "Syntax error in arguments"),
            SyntaxError::ReversePath => (501, EnhancedCode(5, 1, 7), "Bad sender address syntax"),
            SyntaxError::ForwardPath => (501, EnhancedCode(5, 1, 3), "Bad recipient address syntax"),
            SyntaxError::NeedsSmtpUtf8 => (553, EnhancedCode(5, 6, 7), "Address requires SMTPUTF8"),
            SyntaxError::ParameterValue => (501, EnhancedCode(5, 5, 4), "Bad parameter value"),
            SyntaxError::ParameterNotOffered => (555, EnhancedCode(5, 5, 4), "Parameter not implemented"),
        };
        Reply::new(code, enhanced, text)
    }
}

/// Reads one line without its CR LF.
///
/// `smtputf8` says whether the open transaction was declared SMTPUTF8, which a RCPT depends on; a MAIL
/// declares it itself.
///
/// # Errors
/// A [`SyntaxError`], which knows its reply.
pub fn parse(line: &[u8], smtputf8: bool) -> Result<Command, SyntaxError> {
    if memchr::memchr2(b'\r', 0, line).is_some() {
        let has_path = strip_verb(line, "MAIL", "FROM").or_else(|| strip_verb(line, "RCPT", "TO")).is_some();
        return Err(if has_path { SyntaxError::Arguments } else { SyntaxError::Character });
    }
    if let Some(rest) = strip_verb(line, "MAIL", "FROM") {
        return parse_mail(rest).map(Command::Mail);
    }
    if let Some(rest) = strip_verb(line, "RCPT", "TO") {
        return parse_rcpt(rest, smtputf8).map(Command::Rcpt);
    }
    parse_other(line)
}

fn parse_other(line: &[u8]) -> Result<Command, SyntaxError> {
    let trimmed = line.trim_ascii();
    let verb_len = memchr::memchr2(b' ', b'\t', trimmed).unwrap_or(trimmed.len());
    let verb = trimmed.get(..verb_len).unwrap_or_default();
    let has_argument = verb_len < trimmed.len();
    let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
    if is("GET") || is("POST") || is("CONNECT") || is("PUT") || is("OPTIONS") || verb.first() == Some(&0x16) {
        return Err(SyntaxError::Foreign);
    }
    // The grammar reads up to an LF.
    let mut terminated = Vec::with_capacity(line.len() + 1);
    terminated.extend_from_slice(line);
    terminated.push(b'\n');
    let request = match Request::parse(&mut terminated.iter()) {
        Ok(request) => request,
        Err(ProtoError::UnknownCommand) => {
            let known = ["TURN", "SEND", "SOML", "SAML", "XCLIENT", "XFORWARD"].into_iter().any(is);
            return Err(if known { SyntaxError::NotOffered } else { SyntaxError::Unknown });
        }
        Err(_) => {
            let known = ["AUTH", "BDAT", "EXPN", "ETRN", "ATRN", "BURL", "LHLO"].into_iter().any(is);
            return Err(if known { SyntaxError::NotOffered } else { SyntaxError::Arguments });
        }
    };
    match request {
        Request::Helo { host } => client_name(&host).map(Command::Helo),
        Request::Ehlo { host } => client_name(&host).map(Command::Ehlo),
        Request::Data | Request::Rset | Request::Quit if has_argument => Err(SyntaxError::Arguments),
        Request::Data => Ok(Command::Data),
        Request::Rset => Ok(Command::Rset),
        Request::Quit => Ok(Command::Quit),
        Request::Noop { .. } => Ok(Command::Noop),
        Request::Vrfy { .. } => Ok(Command::Vrfy),
        Request::Help { .. } => Ok(Command::Help),
        // MAIL and RCPT that came here lack FROM: or TO:.
        Request::Mail { .. } | Request::Rcpt { .. } => Err(SyntaxError::Arguments),
        _ => Err(SyntaxError::NotOffered),
    }
}

/// The name goes into trace fields, logs and pages, so it may have no character that means something there.
fn client_name(host: &str) -> Result<String, SyntaxError> {
    let harmless =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\' | b'(' | b')');
    if host.bytes().all(harmless) { Ok(host.to_owned()) } else { Err(SyntaxError::Arguments) }
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

fn parse_mail(rest: &[u8]) -> Result<Mail, SyntaxError> {
    let (path, parameters) = split_path(rest).ok_or(SyntaxError::ReversePath)?;
    let mut mail = Mail::default();
    let mut body = None;
    for parameter in parameters.split(|&byte| byte == b' ').filter(|word| !word.is_empty()) {
        let (key, value) = match memchr::memchr(b'=', parameter).and_then(|at| parameter.split_at_checked(at))
        {
            Some((key, value)) => (key, value.strip_prefix(b"=")),
            None => (parameter, None),
        };
        let is = |name: &str| key.eq_ignore_ascii_case(name.as_bytes());
        let value_is = |name: &str| value.is_some_and(|value| value.eq_ignore_ascii_case(name.as_bytes()));
        if is("SIZE") {
            if mail.size_bytes.is_some() {
                return Err(SyntaxError::ParameterValue);
            }
            mail.size_bytes = Some(parse_size(value.unwrap_or_default())?);
        } else if is("BODY") {
            let declared = match () {
                () if value_is("7BIT") => BodyType::SevenBit,
                () if value_is("8BITMIME") => BodyType::EightBitMime,
                () if value_is("BINARYMIME") => return Err(SyntaxError::ParameterNotOffered),
                () => return Err(SyntaxError::ParameterValue),
            };
            if body.replace(declared).is_some() {
                return Err(SyntaxError::ParameterValue);
            }
        } else if is("SMTPUTF8") {
            if value.is_some() || mail.smtputf8 {
                return Err(SyntaxError::ParameterValue);
            }
            mail.smtputf8 = true;
        } else {
            return Err(SyntaxError::ParameterNotOffered);
        }
    }
    mail.body = body.unwrap_or_default();
    if !path.is_empty() {
        let address = parse_mailbox(path, mail.smtputf8, SyntaxError::ReversePath)?;
        if address.domain().is_none() {
            return Err(SyntaxError::ReversePath);
        }
        mail.reverse_path = Some(address);
    }
    Ok(mail)
}

fn parse_rcpt(rest: &[u8], smtputf8: bool) -> Result<Recipient, SyntaxError> {
    let (path, parameters) = split_path(rest).ok_or(SyntaxError::ForwardPath)?;
    let address = parse_mailbox(path, smtputf8, SyntaxError::ForwardPath)?;
    if parameters.trim_ascii().is_empty() {
        Ok(address.into())
    } else {
        Err(SyntaxError::ParameterNotOffered)
    }
}

/// Reads digits. A number that no 64 bits hold is still a size: one that exceeds every limit.
fn parse_size(digits: &[u8]) -> Result<u64, SyntaxError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(SyntaxError::ParameterValue);
    }
    let add = |size: u64, digit: &u8| size.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Ok(digits.iter().fold(0, add))
}

/// Splits `<path> parameters`, with quoted strings in the path observed and a source route removed (RFC
/// 5321, appendix C: routes are accepted and ignored).
fn split_path(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii_start().strip_prefix(b"<")?;
    let mut quoted = false;
    let mut escaped = false;
    let end = text.iter().position(|&byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return true,
            _ => {}
        }
        false
    })?;
    let (path, rest) = text.split_at_checked(end)?;
    let rest = rest.strip_prefix(b">")?;
    if rest.first().is_some_and(|&byte| byte != b' ') {
        return None;
    }
    let path = if path.starts_with(b"@") {
        let colon = memchr::memchr2(b':', b'"', path)?;
        path.get(colon..)?.strip_prefix(b":")?
    } else {
        path
    };
    Some((path, rest))
}

fn parse_mailbox(path: &[u8], smtputf8: bool, error: SyntaxError) -> Result<Address, SyntaxError> {
    if !path.is_ascii() && !smtputf8 {
        return Err(SyntaxError::NeedsSmtpUtf8);
    }
    let text = std::str::from_utf8(path).map_err(|_| error)?;
    let address = Address::parse(text).map_err(|_| error)?;
    let literal_is_valid = match address.domain().and_then(|domain| domain.as_str().strip_prefix('[')) {
        Some(literal) => is_address_literal(literal.trim_end_matches(']')),
        None => true,
    };
    if literal_is_valid { Ok(address.into()) } else { Err(error) }
}

/// Whether a text is an IPv4 or, with its tag, IPv6 address (RFC 5321, section 4.1.3).
fn is_address_literal(text: &str) -> bool {
    match text.strip_prefix("ipv6:") {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expected: Result<&str, (u16, &str)>) {
        let shown = parse(line.as_bytes(), false).map(|command| match command {
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
        for line in
            ["STARTTLS", "BDAT 5 LAST", "BDAT zz", "AUTH PLAIN AGEAYg==", "EXPN all", "TURN", "XCLIENT A=1"]
        {
            check(line, Err((502, "5.5.1")));
        }
        for line in ["GET / HTTP/1.1", "CONNECT x:25 HTTP/1.0", "\u{16}\u{3}\u{1}"] {
            check(line, Err((421, "4.7.0")));
        }
        for line in [
            "EHLO",
            "HELO ",
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
        check("MAIL FROM:<é@b.example>", Err((553, "5.6.7")));
        check("RCPT TO:<é@b.example>", Err((553, "5.6.7")));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200), smtputf8: bool) {
            let _outcome = parse(&line, smtputf8);
        }

        #[test]
        fn no_path_panics(tail in "(MAIL FROM:|RCPT TO:|EHLO |AUTH |BDAT |VRFY )[ -~\u{e9}\\\\\"<>@:, =]{0,60}") {
            let _outcome = parse(tail.as_bytes(), true);
        }

        #[test]
        fn a_mailbox_survives_the_wire(local in "[a-z0-9.+]{1,20}", domain in "[a-z][a-z0-9]{0,10}\\.example") {
            let line = format!("RCPT TO:<{local}@{domain}>");
            let Ok(Command::Rcpt(address)) = parse(line.as_bytes(), false) else { panic!("{line}") };
            prop_assert_eq!(address.address.to_path(), format!("{local}@{domain}"));
        }
    }
}
