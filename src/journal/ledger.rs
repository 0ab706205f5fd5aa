//! The ledger: a line for every message that may exist twice, for the administrator to look up.
//!
//! Text, one line each: time, transaction id, direction, number of recipients, cause. It names no address.
//! Bounded: when it is full it becomes the one old generation that is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::disk::sync_folder;
use crate::mail::{Direction, TransactionId};

/// Most bytes that are read of one generation.
const MAX_READ_BYTES: u64 = 64 << 20;

/// Why nobody knows whether the message was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The next hop's reply to the end of data never came.
    ReplyLost,
    /// The session ended before the reply was there.
    SessionEnded,
    /// The gateway stopped before the reply was there.
    GatewayStopped,
    /// The client may not have our answer, and nothing tells its retry from a new message.
    AnswerLost,
}

impl Cause {
    /// Returns a sentence for people.
    pub fn as_sentence(self) -> &'static str {
        match self {
            Cause::ReplyLost => "the next hop's reply never came",
            Cause::SessionEnded => "the session ended while the next hop was deciding",
            Cause::GatewayStopped => "the gateway stopped while the next hop was deciding",
            Cause::AnswerLost => "the client may not have the answer, and its retry is not to be known",
        }
    }

    /// Returns the label of metrics.
    pub(super) fn as_label(self) -> &'static str {
        match self {
            Cause::ReplyLost => "reply-lost",
            Cause::SessionEnded => "session-ended",
            Cause::GatewayStopped => "gateway-stopped",
            Cause::AnswerLost => "answer-lost",
        }
    }
}

/// One line: this transaction may have reached the next hop, and the client was not told so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When it became known.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// The transaction, as in the log and in the `X-Lazaret-Id` field of the message.
    pub id: String,
    /// Which way it travelled.
    pub direction: Direction,
    /// For how many recipients it is in doubt.
    pub recipients: usize,
    /// Why, in words.
    pub cause: String,
}

impl Line {
    pub(super) fn new(
        time: OffsetDateTime,
        id: &TransactionId,
        direction: Direction,
        recipients: usize,
        cause: Cause,
    ) -> Self {
        Line { time, id: id.to_string(), direction, recipients, cause: cause.as_sentence().to_owned() }
    }

    fn write(&self, out: &mut String) -> io::Result<()> {
        let time = self.time.format(&Rfc3339).map_err(io::Error::other)?;
        let direction = self.direction.as_str();
        out.push_str(&format!("{time} {} {direction} {} {}\n", self.id, self.recipients, self.cause));
        Ok(())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(5, ' ');
        Some(Line {
            time: OffsetDateTime::parse(words.next()?, &Rfc3339).ok()?,
            id: TransactionId::parse(words.next()?)?.to_string(),
            direction: Direction::from_name(words.next()?)?,
            recipients: words.next()?.parse().ok()?,
            cause: words.next()?.to_owned(),
        })
    }
}

/// The file of the ledger and its old generation.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// Takes the ledger in the journal's folder, which need not exist.
    pub fn new(folder: &Path) -> Self {
        Ledger { folder: folder.to_owned() }
    }

    /// Returns the lines, oldest first. A line that was cut off is left out. Works beside a running gateway.
    ///
    /// # Errors
    /// What the system said, except that there is no file: that is an empty ledger.
    pub fn read(&self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for path in [self.old(), self.path()] {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut bytes = Vec::new();
            file.take(MAX_READ_BYTES).read_to_end(&mut bytes)?;
            lines.extend(String::from_utf8_lossy(&bytes).lines().filter_map(Line::parse));
        }
        Ok(lines)
    }

    /// Appends lines; they are durable when it returns. A file over `max_bytes` is first put in place of the
    /// old generation.
    ///
    /// # Errors
    /// What the system said; some of the lines may be there.
    pub(super) fn append(&self, lines: &[Line], max_bytes: u64) -> io::Result<()> {
        let path = self.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() >= max_bytes => fs::rename(&path, self.old())?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Opened each time: a line is rare.
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        let mut text = String::new();
        if size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(size - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                text.push('\n');
            }
        }
        for line in lines {
            line.write(&mut text)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_folder(&self.folder)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("ledger")
    }

    fn old(&self) -> PathBuf {
        self.folder.join("ledger.old")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> Line {
        Line::new(
            time::macros::datetime!(2026-03-01 12:30:15 UTC),
            &TransactionId::from_random([1; 16]),
            Direction::Outbound,
            number,
            Cause::ReplyLost,
        )
    }

    fn recipients(ledger: &Ledger) -> Vec<usize> {
        ledger.read().unwrap().iter().map(|line| line.recipients).collect()
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path());
        assert_eq!(ledger.read().unwrap(), []);
        ledger.append(&[line(1), line(2)], 1 << 20).unwrap();
        ledger.append(&[line(3)], 1 << 20).unwrap();
        assert_eq!(ledger.read().unwrap(), [line(1), line(2), line(3)]);
    }

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path());
        ledger.append(&[line(1), line(2)], 1 << 20).unwrap();
        let path = folder.path().join("ledger");
        let mut bytes = fs::read(&path).unwrap();
        // Within the time of the second line, so that the rest is no line at all.
        bytes.truncate(bytes.len() / 2 + 10);
        fs::write(&path, bytes).unwrap();
        ledger.append(&[line(3)], 1 << 20).unwrap();
        assert_eq!(recipients(&ledger), [1, 3]);
    }

    #[test]
    fn a_full_ledger_becomes_the_one_old_generation() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path());
        for number in 1..=5 {
            ledger.append(&[line(number)], 100).unwrap();
        }
        assert_eq!(recipients(&ledger), [3, 4, 5]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
