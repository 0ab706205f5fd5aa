//! The paths of MAIL and RCPT (RFC 5321, section 4.1.2).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::mail::Address;
use crate::smtp::syntax::SyntaxError;

/// Splits `<path> parameters`, with quoted strings in the path observed and a source route removed (RFC
/// 5321, appendix C: routes are accepted and ignored).
pub(super) fn split_path(text: &[u8]) -> Option<(&[u8], &[u8])> {
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

/// Reads a mailbox: an address with a domain or a valid address literal, or the bare postmaster. One with
/// characters that make it look like another one is refused.
pub(super) fn parse_mailbox(path: &[u8], smtputf8: bool, error: SyntaxError) -> Result<Address, SyntaxError> {
    if !path.is_ascii() && !smtputf8 {
        return Err(SyntaxError::NeedsSmtpUtf8);
    }
    let text = std::str::from_utf8(path).map_err(|_| error)?;
    let address = Address::parse(text).map_err(|_| error)?;
    if text.chars().any(is_deceptive) {
        return Err(error);
    }
    let literal_is_valid = match address.domain().and_then(|domain| domain.as_str().strip_prefix('[')) {
        Some(literal) => is_address_literal(literal.trim_end_matches(']')),
        None => true,
    };
    if literal_is_valid { Ok(address) } else { Err(error) }
}

/// Whether a character has no shape of its own and changes how its neighbours are shown: it turns the
/// direction (the property Bidi_Control), ends the line, or is nothing at all. RFC 5893 and RFC 8264 keep them
/// out of names.
pub(super) fn is_deceptive(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Whether a text is an IPv4 or, with its tag, IPv6 address (RFC 5321, section 4.1.3).
fn is_address_literal(text: &str) -> bool {
    match text.strip_prefix("ipv6:") {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<Ipv4Addr>().is_ok(),
    }
}
