//! Invitations: who asks for what in a calendar object (RFC 5545, RFC 5546).

use super::{Invitation, decode, field};

/// Bytes that are read of one object.
const BYTES: usize = 256 << 10;

/// Whether the bytes begin as a calendar object.
pub(super) fn is_calendar(bytes: &[u8]) -> bool {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    start.get(..15).is_some_and(|start| start.eq_ignore_ascii_case(b"BEGIN:VCALENDAR"))
}

/// Returns an object with its lines unfolded, so that links in it are whole (RFC 5545, section 3.1).
pub(super) fn unfold(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(BYTES)).unwrap_or_default());
    text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "")
}

/// Reads what the unfolded object asks for.
pub(super) fn read(unfolded: &str) -> Invitation {
    let mut invitation = Invitation::default();
    for line in unfolded.lines() {
        let Some((name, value)) = line.split_once([':', ';']) else { continue };
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("METHOD") && invitation.method.is_empty() {
            invitation.method = decode::prefix(value, 20).to_ascii_uppercase();
        } else if name.eq_ignore_ascii_case("ORGANIZER") && invitation.organizer.is_empty() {
            // Parameters stand before the address, and may hold colons in quotes.
            let lower = value.to_ascii_lowercase();
            if let Some(at) = lower.rfind("mailto:") {
                let address = value.get(at + 7..).unwrap_or_default().trim_matches(['"', '<', '>', ' ']);
                invitation.organizer = field::clean(decode::prefix(address, 254));
            }
        }
    }
    invitation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invitations_name_their_organizer() {
        let object = b"BEGIN:VCALENDAR\r\nMETHOD:request\r\nBEGIN:VEVENT\r\nORGANIZER;CN=\"A: b\":mailto:j\r\n ane@a.example\r\n\
                       DESCRIPTION:join https://b.exa\r\n mple/x\r\nEND:VEVENT\r\nEND:VCALENDAR";
        assert!(is_calendar(object) && !is_calendar(b"BEGIN:VCARD"));
        let unfolded = unfold(object);
        assert!(unfolded.contains("https://b.example/x"));
        let expected = Invitation { method: "REQUEST".to_owned(), organizer: "jane@a.example".to_owned() };
        assert_eq!(read(&unfolded), expected);
        assert_eq!(read("METHOD\nORGANIZER:urn:x"), Invitation::default());
    }
}
