//! Transfer encodings and character sets.
//!
//! Decoding never fails: what does not belong is left out, as mail programs do, and noted.

use mail_parser::decoders::charsets::map::charset_decoder;
use memchr::memchr;

/// How a body is encoded (RFC 2045, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// 7bit, 8bit, binary.
    Identity,
    /// Base64.
    Base64,
    /// Quoted-printable.
    QuotedPrintable,
    /// Something else; taken as it stands.
    Unknown,
}

impl Encoding {
    /// Reads a Content-Transfer-Encoding.
    pub(super) fn read(value: &str) -> Self {
        match value.trim().to_ascii_lowercase().as_str() {
            "" | "7bit" | "8bit" | "binary" => Encoding::Identity,
            "base64" => Encoding::Base64,
            "quoted-printable" => Encoding::QuotedPrintable,
            _ => Encoding::Unknown,
        }
    }
}

/// Decodes base64, reading over what is not of its alphabet and over padding in the middle. Stops when
/// `limit` bytes are decoded. The second value counts the bytes, other than white space, that do not belong.
pub(super) fn base64(input: &[u8], limit: usize) -> (Vec<u8>, usize) {
    let mut output = Vec::with_capacity((input.len() / 4 * 3 + 3).min(limit + 3));
    let (mut bits, mut held, mut junk) = (0_u32, 0_u32, 0_usize);
    for byte in input {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                (bits, held) = (0, 0);
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            _ => {
                junk += 1;
                continue;
            }
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            output.extend(u8::try_from((bits >> held) & 0xff));
            bits &= (1 << held) - 1;
            if output.len() >= limit {
                break;
            }
        }
    }
    (output, junk)
}

/// Returns the number of bytes that a base64 text decodes to.
pub(super) fn base64_len(input: &[u8]) -> usize {
    let digits =
        input.iter().filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count();
    digits / 4 * 3 + (digits % 4).saturating_sub(1)
}

/// Decodes quoted-printable; an escape that is none stays as it is.
pub(super) fn quoted_printable(input: &[u8], limit: usize) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len().min(limit));
    let mut rest = input;
    while output.len() < limit {
        let Some(escape) = memchr(b'=', rest) else {
            output.extend_from_slice(rest);
            break;
        };
        output.extend_from_slice(rest.get(..escape).unwrap_or_default());
        rest = rest.get(escape + 1..).unwrap_or_default();
        let hex = |byte: Option<&u8>| {
            byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
        };
        if let (Some(high), Some(low)) = (hex(rest.first()), hex(rest.get(1))) {
            output.push(high << 4 | low);
            rest = rest.get(2..).unwrap_or_default();
            continue;
        }
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
        if rest.len() == blanks || rest.get(blanks) == Some(&b'\n') {
            rest = rest.get(blanks + 1..).unwrap_or_default();
        } else {
            output.push(b'=');
        }
    }
    output.truncate(limit);
    output
}

/// Turns the bytes of a text into characters. Without a character set that is known, or with one that says
/// ASCII or UTF-8, bytes that are no UTF-8 are read as Windows-1252, as mail programs do. The second value
/// says whether the character set is known.
pub(super) fn text(bytes: &[u8], charset: Option<&str>) -> (String, bool) {
    let charset = charset.map(str::trim).filter(|name| !name.is_empty());
    let is_unicode = charset.is_none_or(|name| {
        ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| known.eq_ignore_ascii_case(name))
    });
    let decoder = charset.and_then(|name| charset_decoder(name.as_bytes()));
    if let Some(decoder) = decoder.filter(|_| !is_unicode) {
        return (decoder(bytes), true);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(error) if error.valid_up_to() + 4 > bytes.len() => String::from_utf8_lossy(bytes).into_owned(),
        Err(_) if charset.is_none_or(|name| !name.to_ascii_lowercase().starts_with("utf")) => {
            match charset_decoder(b"windows-1252") {
                Some(decoder) => decoder(bytes),
                None => String::from_utf8_lossy(bytes).into_owned(),
            }
        }
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    };
    (text, is_unicode)
}

/// Returns the longest beginning of a text that has at most `limit` bytes.
pub(super) fn prefix(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Undoes zlib (RFC 1950); `None` for what is malformed or longer than the limit.
pub(super) fn inflate_zlib(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(bytes, limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_reads_over_what_does_not_belong() {
        for (input, expected, junk) in [
            ("aGVsbG8=", "hello", 0),
            ("aGVs\r\nbG8", "hello", 0),
            ("aG*Vs!bG8=", "hello", 2),
            ("aGVsbG8=aGVsbG8=", "hellohello", 0),
            ("", "", 0),
            ("a", "", 0),
        ] {
            assert_eq!(base64(input.as_bytes(), 100), (expected.as_bytes().to_vec(), junk), "{input}");
        }
        assert_eq!(base64(b"aGVsbG8gd29ybGQ=", 4).0.len(), 4);
        assert_eq!(base64_len(b"aGVs\r\nbG8="), 5);
    }

    #[test]
    fn quoted_printable_keeps_escapes_that_are_none() {
        for (input, expected) in [
            ("a=3Db", "a=b"),
            ("soft=\r\nbreak", "softbreak"),
            ("soft= \t\nbreak", "softbreak"),
            ("a=zz=4", "a=zz=4"),
            ("end=", "end"),
            ("=C3=BC", "ü"),
        ] {
            assert_eq!(
                String::from_utf8_lossy(&quoted_printable(input.as_bytes(), 100)),
                expected,
                "{input}"
            );
        }
    }

    #[test]
    fn texts_are_decoded_by_their_charset() {
        for (bytes, charset, expected) in [
            (&b"gr\xfc\xdfe dich"[..], Some("iso-8859-1"), ("grüße dich", true)),
            (b"gr\xfc\xdfe dich", None, ("grüße dich", true)),
            ("grüße".as_bytes(), Some("utf-8"), ("grüße", true)),
            ("grüße".as_bytes(), Some("x-nobody"), ("grüße", false)),
            (b"a+AOQ-b", Some("utf-7"), ("aäb", true)),
        ] {
            let (text, is_known) = text(bytes, charset);
            assert_eq!((text.as_str(), is_known), expected, "{charset:?}");
        }
    }
}
