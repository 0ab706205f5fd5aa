//! Messages as people send them: a text, and in the larger ones a file beside it.

/// Words of the text, taken in turn.
const WORDS: [&str; 24] = [
    "minutes", "agenda", "the", "budget", "meeting", "of", "Tuesday", "and", "please", "review", "draft",
    "contract", "before", "we", "send", "it", "to", "printer", "with", "kind", "regards", "from", "our",
    "office",
];
/// Bytes of text in a message with a file.
const TEXT_BYTES: usize = 3_000;
const BOUNDARY: &str = "=_a_boundary_of_a_bench";

/// Makes a message of about so many bytes, without a Message-ID: the same one is sent again and again, by many at
/// once, and must not be taken for a retry.  its lines end with LF, as files have them here.
pub(crate) fn of_size(bytes: usize) -> String {
    let mut message = String::with_capacity(bytes + 1_000);
    message.push_str(
        "From: Ann Sender <ann@sender.example>\nTo: Alice <alice@example.org>\nSubject: minutes of Tuesday\n\
         Date: Mon, 02 Nov 2026 10:00:00 +0000\nMIME-Version: 1.0\n",
    );
    if bytes <= 2 * TEXT_BYTES {
        message.push_str("Content-Type: text/plain; charset=utf-8\n\n");
        push_text(&mut message, bytes);
        return message;
    }
    message.push_str(&format!(
        "Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n\n--{BOUNDARY}\n\
         Content-Type: text/plain; charset=utf-8\n\n"
    ));
    let text_end = message.len() + TEXT_BYTES;
    push_text(&mut message, text_end);
    message.push_str(&format!(
        "\n--{BOUNDARY}\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\
         Content-Disposition: attachment; filename=\"drawing.dwg\"\n\n"
    ));
    // Base64 of bytes that look like any: a small generator's (Knuth, TAOCP 3.3.4).
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 1u64;
    while message.len() < bytes {
        for _ in 0..76 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            message.push(char::from(DIGITS[(state >> 58) as usize]));
        }
        message.push('\n');
    }
    message.push_str(&format!("\n--{BOUNDARY}--\n"));
    message
}

/// Appends lines of text until the message is so long.
fn push_text(message: &mut String, end: usize) {
    for (number, word) in WORDS.iter().cycle().enumerate() {
        if message.len() >= end {
            break;
        }
        message.push_str(word);
        message.push(if number % 11 == 10 { '\n' } else { ' ' });
    }
    message.push('\n');
}
