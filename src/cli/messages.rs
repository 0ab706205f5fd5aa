//! Messages on disk, however they lie there: a file, a folder, a Maildir, an mbox file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Largest message that is read; what is longer is cut, as the listener would refuse it.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;

/// Finds the files below the paths: a folder yields every file in it, a Maildir those of `cur` and `new`.
/// Hidden files are left out.
///
/// # Errors
/// A path that does not exist or cannot be listed.
pub(super) fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
        if metadata.is_dir() {
            find_below(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn find_below(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let is_maildir = folder.join("cur").is_dir() && folder.join("new").is_dir();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let unfinished = is_maildir && path.file_name().is_some_and(|name| name == "tmp");
            if !hidden && !unfinished {
                found.push(path);
            }
        }
        found.sort();
        for path in found {
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    Ok(())
}

/// Reads the messages of a file: several where it is an mbox file, else one. `visit` gets each in turn.
///
/// # Errors
/// A file that cannot be read, or what `visit` returns.
pub(super) fn read(path: &Path, mut visit: impl FnMut(Vec<u8>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    if !reader.fill_buf().with_context(|| format!("reading {}", path.display()))?.starts_with(b"From ") {
        let mut message = Vec::new();
        reader.take(MAX_MESSAGE_BYTES).read_to_end(&mut message).context("reading a message")?;
        return visit(message);
    }
    let mut mbox = Mbox { message: Vec::new(), after_blank: true };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read =
            (&mut reader).take(MAX_MESSAGE_BYTES).read_until(b'\n', &mut line).context("reading an mbox")?;
        if read == 0 {
            break;
        }
        if let Some(message) = mbox.take_line(&line) {
            visit(message)?;
        }
    }
    if mbox.message.is_empty() { Ok(()) } else { visit(mbox.message) }
}

/// Takes out what would steer the terminal: a message is written by whoever sent it.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An mbox file, read line by line: a `From ` line after a blank one begins a message, and `>From ` is a
/// quoted `From ` (the mboxrd form).
struct Mbox {
    message: Vec<u8>,
    after_blank: bool,
}

impl Mbox {
    fn take_line(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let begins = self.after_blank && is_separator(line);
        self.after_blank = matches!(line, b"\n" | b"\r\n");
        if begins {
            let message = std::mem::take(&mut self.message);
            return (!message.is_empty()).then_some(message);
        }
        let quotes = line.iter().take_while(|byte| **byte == b'>').count();
        let is_quoted = quotes > 0 && line.get(quotes..).is_some_and(|rest| rest.starts_with(b"From "));
        let line = if is_quoted { line.get(1..).unwrap_or_default() } else { line };
        if self.message.len() as u64 + line.len() as u64 <= MAX_MESSAGE_BYTES {
            self.message.extend_from_slice(line);
        }
        None
    }
}

/// Whether a line is `From address date`: a text line that begins with "From " names no time of day.
fn is_separator(line: &[u8]) -> bool {
    line.starts_with(b"From ")
        && line.windows(5).any(|window| {
            matches!(window, [a, b, b':', c, d] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages_of(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mail");
        std::fs::write(&path, text).unwrap();
        let mut found = Vec::new();
        read(&path, |message| {
            found.push(String::from_utf8(message).unwrap());
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn an_mbox_holds_several_messages_and_a_file_one() {
        assert_eq!(messages_of("Subject: a\n\nFrom here on\n"), ["Subject: a\n\nFrom here on\n"]);
        assert_eq!(
            messages_of(
                "From a@b Mon Sep  1 10:00:00 2025\nSubject: 1\n\nx\n>From y\n\nFrom c@d Tue Sep  2 10:00:00 2025\nSubject: 2\n\nFrom z\n"
            ),
            ["Subject: 1\n\nx\nFrom y\n\n", "Subject: 2\n\nFrom z\n"]
        );
    }

    #[test]
    fn a_maildir_is_read_without_its_tmp() {
        let folder = tempfile::tempdir().unwrap();
        for (name, file) in [("new", "1"), ("cur", "2:2,S"), ("tmp", "3")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join(file), "x").unwrap();
        }
        let found = find(&[folder.path().to_owned()]).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(find(&[folder.path().join("nowhere")]).is_err());
    }
}
