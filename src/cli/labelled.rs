//! Labelled mail: lists with lines `ham|spam PATH`, paths relative to the folder of the list.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::learn::Label;

/// A line of a list.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// What somebody said of the message.
    pub(super) label: Label,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// Reads a message without what would tell the answer.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let raw = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(without_traces(&raw))
}

/// Reads lists, one behind the other.
///
/// # Errors
/// A list that cannot be read, or a line of another form.
pub(super) fn entries(lists: &[PathBuf]) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for list in lists {
        let text = std::fs::read_to_string(list).with_context(|| format!("reading {}", list.display()))?;
        let folder = list.parent().unwrap_or(Path::new("."));
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let (label, path) = line.trim().split_once(char::is_whitespace).unwrap_or((line, ""));
            let Some(label) = Label::from_name(label) else {
                bail!("{}:{}: a line is `ham PATH` or `spam PATH`", list.display(), number + 1);
            };
            entries.push(Entry { label, path: folder.join(path.trim()) });
        }
    }
    Ok(entries)
}

/// How fields begin that tell what other filters thought, or what a server in front found out.
const TRACES: [&[u8]; 5] =
    [b"X-Spam-", b"X-Spamd-", b"X-Bogosity:", b"Authentication-Results:", b"X-Rspamd-"];

/// What other filters put before a subject.
const MARKS: [&[u8]; 4] = [b"[SPAM]", b"*****SPAM*****", b"***SPAM***", b"[Spam]"];

/// Leaves out what would tell the answer: the line of a mailbox file, fields of earlier filters, and their marks in
/// the subject.
fn without_traces(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let (mut in_header, mut is_trace) = (true, false);
    for (number, line) in raw.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if in_header {
            if number == 0 && line.starts_with(b"From ") {
                continue;
            }
            if line.trim_ascii().is_empty() {
                in_header = false;
            } else if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                is_trace = TRACES
                    .iter()
                    .any(|name| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)));
            }
            if in_header && is_trace {
                continue;
            }
        }
        let is_subject =
            in_header && line.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"Subject:"));
        if let Some((name, value)) = line.split_at_checked(8).filter(|_| is_subject) {
            out.extend_from_slice(name);
            out.extend_from_slice(without_mark(value));
        } else {
            out.extend_from_slice(line);
        }
    }
    out
}

fn without_mark(value: &[u8]) -> &[u8] {
    let text = value.trim_ascii_start();
    MARKS.iter().find_map(|mark| text.strip_prefix(*mark)).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_the_answer_is_left_out() {
        let raw =
            b"From x Mon\nX-Spam-Status: Yes,\n tests=A\nFrom: a\nX-Bogosity: Spam\n\nX-Spam-Flag: text\n";
        assert_eq!(without_traces(raw), b"From: a\n\nX-Spam-Flag: text\n");
        assert_eq!(
            without_traces(b"SUBJECT: [SPAM] a\n\nSubject: [SPAM]\n"),
            b"SUBJECT: a\n\nSubject: [SPAM]\n"
        );
        assert_eq!(without_traces(b"Subject: a [SPAM]\n"), b"Subject: a [SPAM]\n");
    }
}
