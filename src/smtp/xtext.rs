//! The encoding of parameter values that may hold anything (RFC 3461, section 4).

/// Decodes xtext: printable ASCII but `+` and `=`, and `+` with two upper-case hexadecimal digits for the
/// rest.
///
/// Returns `None` where the text is not xtext.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        decoded.push(match byte {
            b'+' => hex_digit(*rest.next()?)? << 4 | hex_digit(*rest.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => byte,
            _ => return None,
        });
    }
    Some(decoded)
}

/// Encodes a text as xtext.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'+' | b'=') => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("+{byte:02X}")),
        }
    }
    encoded
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_read_by_the_letter() {
        for (text, expected) in [
            ("", Some("")),
            ("a@b.example", Some("a@b.example")),
            ("a+2Bb+3Dc+20d", Some("a+b=c d")),
            ("a=b", None),
            ("a b", None),
            ("+", None),
            ("+2", None),
            ("+2b", None),
            ("+G0", None),
            ("é", None),
            ("a\u{7f}", None),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), expected.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_as_xtext_reads_back() {
        for text in ["", "a@b.example", "a+b=c d", "é\r\n\0"] {
            assert_eq!(decode(encode(text).as_bytes()).as_deref(), Some(text.as_bytes()), "{text:?}");
        }
        assert_eq!(encode("a+b=c d"), "a+2Bb+3Dc+20d");
    }
}
