//! Lists of domains, addresses or networks' hosts, of millions of lines, in a file: a Bloom filter in memory in front of
//! an exact look-up on disk.
//!
//! The file is sorted by bytes (`LC_ALL=C sort -u`), one entry a line, in lower case. In memory are 10 bits an entry; the
//! file is read where the filter says that something may be there, which for one in a hundred is not so.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bloomfilter::Bloom;
use thiserror::Error;

use crate::metrics::Counter;

/// Longest line, and most lines.
const LINE_BYTES: usize = 512;
const LINES: usize = 50_000_000;
/// How often the file is read in vain.
const FALSE_POSITIVES: f64 = 0.01;

/// Why a list cannot be used.
#[derive(Debug, Error)]
pub enum ListError {
    /// The file cannot be read.
    #[error("reading the list")]
    Read(#[from] io::Error),
    /// A line is longer than 512 bytes, is not in lower case, or stands before its place.
    #[error("line {0} is out of order, not in lower case, or too long; sort the file with LC_ALL=C sort -u")]
    Line(usize),
    /// There are too many lines.
    #[error("the list has more than 50,000,000 lines")]
    Long,
    /// The filter cannot be made.
    #[error("making the filter: {0}")]
    Filter(&'static str),
}

/// A list on disk.
pub struct List {
    file: File,
    bytes: u64,
    filter: Bloom<[u8]>,
}

impl List {
    /// Reads a list; `key` is that of its filter.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn open(path: &Path, key: [u8; 32]) -> Result<Self, ListError> {
        let file = File::open(path)?;
        let mut lines = 0;
        each_line(&file, |_| lines += 1)?;
        let filter = Bloom::new_for_fp_rate_with_seed(lines.max(1), FALSE_POSITIVES, &key);
        let mut filter = filter.map_err(ListError::Filter)?;
        each_line(&file, |line| filter.set(line))?;
        let bytes = file.metadata()?.len();
        Ok(List { file, bytes, filter })
    }

    /// Whether an entry, in lower case, is on the list.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn contains(&self, entry: &str) -> io::Result<bool> {
        if entry.is_empty() || !self.filter.check(entry.as_bytes()) {
            Counter::ListLookups.increment(&[("result", "absent")]);
            return Ok(false);
        }
        let is_there = self.search(entry.as_bytes())?;
        let result = if is_there { "listed" } else { "false positive" };
        Counter::ListLookups.increment(&[("result", result)]);
        Ok(is_there)
    }

    /// Looks in the file: half of what is left at each step.
    fn search(&self, entry: &[u8]) -> io::Result<bool> {
        let (mut low, mut high) = (0, self.bytes);
        while low < high {
            let middle = low + (high - low) / 2;
            let (start, line) = self.line_around(middle, low)?;
            match line.as_slice().cmp(entry) {
                std::cmp::Ordering::Equal => return Ok(true),
                std::cmp::Ordering::Less => low = (start + line.len() as u64 + 1).max(middle + 1),
                std::cmp::Ordering::Greater => high = start.min(middle),
            }
        }
        Ok(false)
    }

    /// Returns the line in which a byte stands, and where it begins, not before `low`.
    fn line_around(&self, at: u64, low: u64) -> io::Result<(u64, Vec<u8>)> {
        let from = low.max(at.saturating_sub(LINE_BYTES as u64));
        let mut window = vec![0; 2 * LINE_BYTES + 2];
        let mut read = 0;
        while let Some(rest) = window.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, from + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        window.truncate(read);
        let middle = usize::try_from(at - from).unwrap_or_default();
        let before = window.get(..middle).unwrap_or_default();
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let line = window.get(start..).unwrap_or_default();
        let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
        Ok((from + start as u64, line.get(..end).unwrap_or_default().to_vec()))
    }
}

/// Reads a file from its beginning and checks its order.
fn each_line(file: &File, mut take: impl FnMut(&[u8])) -> Result<(), ListError> {
    let mut reader = BufReader::with_capacity(1 << 16, OffsetReader { file, at: 0 });
    let (mut previous, mut line, mut number) = (Vec::new(), Vec::new(), 0);
    loop {
        line.clear();
        let read = io::Read::take(&mut reader, LINE_BYTES as u64 + 2).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let is_first = number == 1;
        let is_lower = !line.iter().any(u8::is_ascii_uppercase);
        if line.len() > LINE_BYTES || !is_lower || (!is_first && line <= previous) {
            return Err(ListError::Line(number));
        }
        if number > LINES {
            return Err(ListError::Long);
        }
        take(&line);
        std::mem::swap(&mut previous, &mut line);
    }
}

/// Reads a file from a place of its own, whoever else reads it.
struct OffsetReader<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for OffsetReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<List, ListError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, text).unwrap();
        List::open(&path, *b"a key whose 2 halves are unlike!")
    }

    #[test]
    fn every_entry_is_found_and_nothing_else() {
        for count in [0, 1, 2, 3, 10, 1_000, 20_000] {
            let mut entries: Vec<String> =
                (0..count).map(|n| format!("{}{n}.example", "x".repeat(n % 200))).collect();
            entries.sort();
            for end in ["", "\n"] {
                let list = list(&(entries.join("\n") + if count > 0 { end } else { "" })).unwrap();
                assert!(entries.iter().all(|entry| list.contains(entry).unwrap()), "{count}");
                for absent in (0..5_000).map(|n| format!("y{n}.example")) {
                    assert!(!list.contains(&absent).unwrap());
                }
                for absent in ["", "0", "zzzz", "x", "example"] {
                    assert!(!list.contains(absent).unwrap());
                }
            }
        }
    }

    #[test]
    fn a_list_that_could_not_be_searched_is_refused() {
        for (text, line) in [
            ("b\na\n", 2),
            ("a\na\n", 2),
            ("a\nB\n", 2),
            ("a\n\nb", 2),
            (&"x".repeat(513), 1),
            ("a\nc\nb\n", 3),
        ] {
            assert!(matches!(list(text), Err(ListError::Line(found)) if found == line), "{text}");
        }
        assert!(matches!(List::open(Path::new("/nowhere"), [0; 32]), Err(ListError::Read(_))));
    }
}
