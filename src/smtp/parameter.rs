//! The parameters of MAIL and RCPT, those that were offered and no others.
//!
//! Each may stand once and has a bound of its own. What is passed on to the next hop (ENVID, ORCPT) is
//! checked to the last character, so that it cannot be more than a parameter there.

use crate::mail::{BodyType, Mail, Notify, Recipient, Return};
use crate::smtp::path::is_deceptive;
use crate::smtp::syntax::SyntaxError;
use crate::smtp::xtext;

/// Longest ENVID (RFC 3461, section 4.4), ORCPT (section 4.2) and AUTH (RFC 4954, section 5) in bytes.
const MAX_ENVELOPE_ID: usize = 100;
const MAX_ORIGINAL: usize = 500;
const MAX_IDENTITY: usize = 500;

/// Which parameters a session may use, by the reply to EHLO. After HELO none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offered {
    /// What every reply to EHLO offers: SIZE, 8BITMIME, SMTPUTF8, CHUNKING.
    pub esmtp: bool,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// PRDR (draft-hall-prdr).
    pub prdr: bool,
    /// AUTH (RFC 4954).
    pub auth: bool,
}

/// Reads the parameters of MAIL, into a [`Mail`] without a reverse-path.
pub(super) fn parse_mail(parameters: &[u8], offered: &Offered) -> Result<Mail, SyntaxError> {
    let mut mail = Mail::default();
    let mut body = None;
    let mut identity_stands = false;
    for (key, value) in words(parameters) {
        let is = |name: &str, is_offered: bool| is_offered && key.eq_ignore_ascii_case(name.as_bytes());
        if is("SIZE", offered.esmtp) {
            once(&mut mail.size_bytes, parse_size(value.unwrap_or_default())?)?;
        } else if is("BODY", offered.esmtp) {
            once(&mut body, parse_body(value.unwrap_or_default(), offered)?)?;
        } else if is("SMTPUTF8", offered.esmtp) {
            flag(&mut mail.smtputf8, value)?;
        } else if is("RET", offered.dsn) {
            let wanted = match value.unwrap_or_default() {
                value if value.eq_ignore_ascii_case(b"FULL") => Return::Full,
                value if value.eq_ignore_ascii_case(b"HDRS") => Return::Headers,
                _ => return Err(SyntaxError::ParameterValue),
            };
            once(&mut mail.ret, wanted)?;
        } else if is("ENVID", offered.dsn) {
            let id = parse_xtext(value.unwrap_or_default(), MAX_ENVELOPE_ID)?;
            once(&mut mail.envelope_id, id)?;
        } else if is("REQUIRETLS", offered.require_tls) {
            flag(&mut mail.require_tls, value)?;
        } else if is("PRDR", offered.prdr) {
            flag(&mut mail.prdr, value)?;
        } else if is("AUTH", offered.auth) {
            // Who submitted the message elsewhere is nothing that is believed here.
            parse_xtext(value.unwrap_or_default(), MAX_IDENTITY)?;
            flag(&mut identity_stands, None)?;
        } else {
            return Err(SyntaxError::ParameterNotOffered);
        }
    }
    mail.body = body.unwrap_or_default();
    Ok(mail)
}

/// Reads the parameters of RCPT into a recipient.
pub(super) fn parse_rcpt(
    parameters: &[u8],
    offered: &Offered,
    smtputf8: bool,
    recipient: &mut Recipient,
) -> Result<(), SyntaxError> {
    for (key, value) in words(parameters) {
        let is = |name: &str| offered.dsn && key.eq_ignore_ascii_case(name.as_bytes());
        if is("NOTIFY") {
            once(&mut recipient.notify, parse_notify(value.unwrap_or_default())?)?;
        } else if is("ORCPT") {
            once(&mut recipient.original, parse_original(value.unwrap_or_default(), smtputf8)?)?;
        } else {
            return Err(SyntaxError::ParameterNotOffered);
        }
    }
    Ok(())
}

/// Splits parameters into keywords and values.
fn words(parameters: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    parameters.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).map(|word| {
        match memchr::memchr(b'=', word).and_then(|at| word.split_at_checked(at)) {
            Some((key, value)) => (key, value.strip_prefix(b"=")),
            None => (word, None),
        }
    })
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), SyntaxError> {
    if place.replace(value).is_some() { Err(SyntaxError::ParameterValue) } else { Ok(()) }
}

fn flag(place: &mut bool, value: Option<&[u8]>) -> Result<(), SyntaxError> {
    if value.is_some() || std::mem::replace(place, true) { Err(SyntaxError::ParameterValue) } else { Ok(()) }
}

/// Reads digits. A number that no 64 bits hold is still a size: one that exceeds every limit.
fn parse_size(digits: &[u8]) -> Result<u64, SyntaxError> {
    read_number(digits).ok_or(SyntaxError::ParameterValue)
}

/// Reads digits; what 64 bits do not hold becomes their largest number. `None` where there are none, or
/// something else.
pub(super) fn read_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, add))
}

fn parse_body(value: &[u8], offered: &Offered) -> Result<BodyType, SyntaxError> {
    let is = |name: &str| value.eq_ignore_ascii_case(name.as_bytes());
    if is("7BIT") {
        Ok(BodyType::SevenBit)
    } else if is("8BITMIME") {
        Ok(BodyType::EightBitMime)
    } else if !is("BINARYMIME") {
        Err(SyntaxError::ParameterValue)
    } else if offered.binary_mime {
        Ok(BodyType::Binary)
    } else {
        Err(SyntaxError::ParameterNotOffered)
    }
}

/// Checks that a value is xtext of printable characters, and returns it as it came.
fn parse_xtext(value: &[u8], max_bytes: usize) -> Result<String, SyntaxError> {
    let is_printable = |decoded: Vec<u8>| decoded.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let is_valid = (1..=max_bytes).contains(&value.len()) && xtext::decode(value).is_some_and(is_printable);
    let text = if is_valid { std::str::from_utf8(value).ok() } else { None };
    text.map(str::to_owned).ok_or(SyntaxError::ParameterValue)
}

/// Reads `NEVER`, or a list of the occasions, each once (RFC 3461, section 4.1).
fn parse_notify(value: &[u8]) -> Result<Notify, SyntaxError> {
    let mut notify = Notify::default();
    if value.eq_ignore_ascii_case(b"NEVER") {
        return Ok(notify);
    }
    for word in value.split(|&byte| byte == b',') {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let occasion = match () {
            () if is("SUCCESS") => &mut notify.success,
            () if is("FAILURE") => &mut notify.failure,
            () if is("DELAY") => &mut notify.delay,
            () => return Err(SyntaxError::ParameterValue),
        };
        flag(occasion, None)?;
    }
    Ok(notify)
}

/// Reads `addr-type;address`, the address in xtext, or for the type `utf-8` in its own encoding (RFC 6533,
/// section 3), and returns it as it came.
fn parse_original(value: &[u8], smtputf8: bool) -> Result<String, SyntaxError> {
    let malformed = SyntaxError::ParameterValue;
    let (kind, address) =
        memchr::memchr(b';', value).and_then(|at| value.split_at_checked(at)).ok_or(malformed)?;
    let address = address.strip_prefix(b";").unwrap_or_default();
    let kind_is_valid =
        !kind.is_empty() && kind.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    if !kind_is_valid || value.len() > MAX_ORIGINAL {
        return Err(malformed);
    }
    if kind.eq_ignore_ascii_case(b"utf-8") {
        if !is_utf8_address(address, smtputf8) {
            return Err(malformed);
        }
    } else {
        parse_xtext(address, MAX_ORIGINAL)?;
    }
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| malformed)
}

/// Whether a text is printable ASCII without `+`, `=` and `\`, `\x{HEX}` for other characters, and with
/// SMTPUTF8 those characters themselves.
fn is_utf8_address(text: &[u8], smtputf8: bool) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let is_valid = match c {
            '\\' => {
                let Some((digits, after)) =
                    rest.as_str().strip_prefix("x{").and_then(|rest| rest.split_once('}'))
                else {
                    return false;
                };
                rest = after.chars();
                (2..=6).contains(&digits.len())
                    && u32::from_str_radix(digits, 16)
                        .ok()
                        .and_then(char::from_u32)
                        .is_some_and(|c| !c.is_control() && !is_deceptive(c))
            }
            '+' | '=' => false,
            '!'..='~' => true,
            c => smtputf8 && !c.is_ascii() && !c.is_control() && !is_deceptive(c),
        };
        if !is_valid {
            return false;
        }
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Address;

    const ALL: Offered =
        Offered { esmtp: true, binary_mime: true, dsn: true, require_tls: true, prdr: true, auth: true };

    fn mail(parameters: &str) -> Result<Mail, SyntaxError> {
        parse_mail(parameters.as_bytes(), &ALL)
    }

    fn rcpt(parameters: &str, smtputf8: bool) -> Result<Recipient, SyntaxError> {
        let mut recipient = Recipient::from(Address::parse("a@b.example").unwrap());
        parse_rcpt(parameters.as_bytes(), &ALL, smtputf8, &mut recipient)?;
        Ok(recipient)
    }

    #[test]
    fn parameters_of_mail_are_read_in_any_order_and_case() {
        assert_eq!(
            mail(" size=10 BODY=binarymime RET=hdrs ENVID=QQ+2B314 SMTPUTF8 REQUIRETLS prdr AUTH=<>"),
            Ok(Mail {
                reverse_path: None,
                size_bytes: Some(10),
                body: BodyType::Binary,
                smtputf8: true,
                ret: Some(Return::Headers),
                envelope_id: Some("QQ+2B314".to_owned()),
                require_tls: true,
                prdr: true,
            })
        );
        assert_eq!(mail(" AUTH=a+2Bb@c.example"), Ok(Mail::default()));
    }

    #[test]
    fn malformed_and_repeated_parameters_of_mail_are_refused() {
        let long = format!("ENVID={}", "x".repeat(101));
        for parameters in [
            "RET",
            "RET=ALL",
            "RET=FULL RET=FULL",
            "ENVID",
            "ENVID=",
            "ENVID=a+0D+0AQUIT",
            "ENVID=é",
            "ENVID=a ENVID=b",
            &long,
            "REQUIRETLS=1",
            "REQUIRETLS REQUIRETLS",
            "PRDR=YES",
            "AUTH",
            "AUTH=a=b",
            "AUTH=<> AUTH=<>",
            "SIZE=1 SIZE=1",
            "BODY=7BIT BODY=8BITMIME",
        ] {
            assert_eq!(mail(parameters), Err(SyntaxError::ParameterValue), "{parameters}");
        }
    }

    #[test]
    fn nothing_is_accepted_that_was_not_offered() {
        for parameters in
            ["SIZE=1", "BODY=7BIT", "SMTPUTF8", "RET=FULL", "ENVID=a", "REQUIRETLS", "PRDR", "AUTH=<>", "X=1"]
        {
            let outcome = parse_mail(parameters.as_bytes(), &Offered::default());
            assert_eq!(outcome, Err(SyntaxError::ParameterNotOffered), "{parameters}");
        }
        let esmtp = Offered { esmtp: true, ..Offered::default() };
        assert_eq!(parse_mail(b"BODY=BINARYMIME", &esmtp), Err(SyntaxError::ParameterNotOffered));
        for parameters in ["NOTIFY=NEVER", "ORCPT=rfc822;a@b.example"] {
            let mut recipient = Recipient::from(Address::parse("a@b.example").unwrap());
            let outcome = parse_rcpt(parameters.as_bytes(), &esmtp, false, &mut recipient);
            assert_eq!(outcome, Err(SyntaxError::ParameterNotOffered), "{parameters}");
        }
    }

    #[test]
    fn never_excludes_every_occasion_and_each_stands_once() {
        let notify = |list: &str| rcpt(&format!("NOTIFY={list}"), false).map(|to| to.notify.unwrap());
        assert_eq!(notify("never"), Ok(Notify::default()));
        assert_eq!(notify("SUCCESS,delay"), Ok(Notify { success: true, failure: false, delay: true }));
        for list in [
            "",
            "NEVER,FAILURE",
            "SUCCESS,NEVER",
            "SUCCESS,SUCCESS",
            "SUCCESS,",
            ",DELAY",
            "SUCCESS, DELAY",
            "X",
        ] {
            assert!(notify(list).is_err(), "{list}");
        }
        assert!(rcpt("NOTIFY=NEVER NOTIFY=NEVER", false).is_err());
    }

    #[test]
    fn an_original_recipient_is_checked_and_kept_as_it_came() {
        for (value, smtputf8, is_valid) in [
            ("rfc822;a+2Bb@c.example", false, true),
            ("x400;/C=US/", false, false),
            ("x-unknown;abc", false, true),
            ("utf-8;a\\x{E9}@b.example", false, true),
            ("utf-8;é@b.example", true, true),
            ("utf-8;é@b.example", false, false),
            ("utf-8;\\x{0A}", false, false),
            ("utf-8;\\x{D800}", false, false),
            ("utf-8;\\x{202E}", false, false),
            ("utf-8;a\u{202e}b@c.example", true, false),
            ("utf-8;a\u{85}b@c.example", true, false),
            ("utf-8;\\x", false, false),
            ("utf-8;a+b", true, false),
            ("rfc822;é@b.example", true, false),
            ("rfc822;a+0Ab", false, false),
            ("rfc822;", false, false),
            ("utf-8;", false, false),
            (";a", false, false),
            ("a@b.example", false, false),
        ] {
            let original = rcpt(&format!("ORCPT={value}"), smtputf8).map(|to| to.original.unwrap());
            let expected = if is_valid { Ok(value.to_owned()) } else { Err(SyntaxError::ParameterValue) };
            assert_eq!(original, expected, "{value}");
        }
        assert!(rcpt(&format!("ORCPT=rfc822;{}", "x".repeat(494)), false).is_err());
        assert!(rcpt("ORCPT=rfc822;a ORCPT=rfc822;a", false).is_err());
    }
}
