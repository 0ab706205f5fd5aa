//! The sample mail that lies in the program: written for this project, described by its MANIFEST.

use include_dir::{Dir, include_dir};

use crate::learn::Label;
use crate::mail::{Address, Direction};
use crate::message;

static CORPUS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/corpus");

/// One sample message.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Whether it is there to learn from, not to be sent.
    pub(super) is_training: bool,
    /// Which way it travels.
    pub(super) direction: Direction,
    /// What kind of mail it is, such as `newsletter`.
    pub(super) class: String,
    /// What a person would call it.
    pub(super) label: Label,
    /// The reverse-path.
    pub(super) sender: Option<Address>,
    /// The recipient.
    pub(super) recipient: Address,
    /// The message, with CR LF line ends.
    pub(super) message: Vec<u8>,
}

/// Reads all samples of the MANIFEST.
pub(super) fn all() -> Vec<Sample> {
    let manifest = CORPUS.get_file("MANIFEST").and_then(|file| file.contents_utf8()).unwrap_or_default();
    manifest.lines().filter(|line| !line.starts_with('#')).filter_map(read).collect()
}

fn read(line: &str) -> Option<Sample> {
    let mut fields = line.split('\t');
    let path = fields.next()?;
    let direction = Direction::from_name(fields.next()?)?;
    let class = fields.next()?.to_owned();
    let _language = fields.next()?;
    let label = match fields.next()? {
        "ham" => Label::Ham,
        "spam" => Label::Spam,
        _ => return None,
    };
    let message = with_crlf(CORPUS.get_file(path)?.contents());
    let parsed = message::parse(&message);
    let address = |mailboxes: &[message::Mailbox]| {
        mailboxes.iter().find_map(|mailbox| Address::parse(&mailbox.address).ok())
    };
    Some(Sample {
        is_training: path.starts_with("train/"),
        direction,
        class,
        label,
        sender: address(&parsed.from),
        recipient: address(&parsed.to).or_else(|| Address::parse("office@example.org").ok())?,
        message,
    })
}

/// Ends every line as the wire does (RFC 5321, section 2.3.8).
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + text.len() / 32);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        wire.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_manifest_is_a_sample_and_every_sample_is_in_it() {
        let manifest = CORPUS.get_file("MANIFEST").unwrap().contents_utf8().unwrap();
        let lines = manifest.lines().filter(|line| !line.starts_with('#')).count();
        let samples = all();
        assert_eq!(samples.len(), lines);
        let files = CORPUS.find("**/*.eml").map_or(0, Iterator::count);
        assert_eq!(files, lines);
        assert!(samples.iter().filter(|sample| !sample.is_training).count() >= 150);
        assert!(samples.iter().all(|sample| sample.sender.is_some()));
    }

    #[test]
    fn lines_end_as_on_the_wire() {
        assert_eq!(with_crlf(b"a\nb\r\nc"), b"a\r\nb\r\nc\r\n");
    }
}
