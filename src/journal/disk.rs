//! The journal's file: read once at the start, appended to, and now and then replaced by a shorter one.
//!
//! A file is replaced by rename, and is durable under its name before anybody relies on it. What is damaged
//! is set aside under a dated name and never thrown away.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;
use time::macros::format_description;

use super::live::{Live, Place};
use super::record::{HEADER, Record};
use crate::mail::TransactionId;

/// Longest line that is read; a transaction of 100,000 recipients makes 1.7 MB.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// Where the writer's bytes go.
pub(super) trait Disk: Send + Sync {
    /// Puts a new file with this content in place of the current one. When it returns, the content is
    /// durable under the file's name; after a failure the old file or the new one is there.
    fn replace(&self, content: &[u8]) -> io::Result<()>;

    /// Appends to the current file; after a failure a part may be there.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything appended before is durable.
    fn sync(&self) -> io::Result<()>;
}

/// The file in its folder.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    current: Mutex<Option<Arc<File>>>,
}

impl Files {
    /// Takes a folder, making it for us alone where it does not exist, and its name durable.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => {
                return Err(error);
            }
            _ => {}
        }
        if let Some(parent) = fs::canonicalize(folder)?.parent() {
            sync_folder(parent)?;
        }
        Ok(Files { folder: folder.to_owned(), current: Mutex::new(None) })
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join("journal")
    }

    fn current(&self) -> io::Result<Arc<File>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Disk for Files {
    fn replace(&self, content: &[u8]) -> io::Result<()> {
        let staged = self.folder.join("journal.new");
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let written =
            options.open(&staged).and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
        if let Err(error) = written {
            // It holds disk space that is short; the next attempt truncates it at the latest.
            let _kept = fs::remove_file(&staged);
            return Err(error);
        }
        let file = OpenOptions::new().append(true).open(&staged)?;
        fs::rename(&staged, self.path())?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(file));
        sync_folder(&self.folder)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.current()?.as_ref().write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.current()?.sync_data()
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads a journal into memory. Returns whether it is damaged: has anything but an end that was being
/// written when it was cut off. Every whole line counts all the same.
///
/// # Errors
/// What the system said, except that there is no file: that is an empty journal.
pub(super) fn replay(path: &Path, live: &mut Live) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut places: HashMap<TransactionId, Place> = HashMap::new();
    let mut line = Vec::new();
    let mut first = true;
    let mut damaged = false;
    // A line that is no record is the torn end, unless a whole one comes after it.
    let mut torn = false;
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(damaged);
        }
        if std::mem::take(&mut first) {
            damaged = !HEADER.starts_with(&line);
            if !damaged {
                continue;
            }
        }
        match line.strip_suffix(b"\n").and_then(Record::parse) {
            Some(record) => {
                damaged |= torn;
                apply(live, &mut places, record);
            }
            None => torn = true,
        }
    }
}

fn apply(live: &mut Live, places: &mut HashMap<TransactionId, Place>, record: Record) {
    match record {
        Record::Noted { head, stage, holder, recipients } => {
            if !recipients.is_empty() {
                let known = places.get(&head.id).copied();
                let place = live.note(known, &head, stage, holder, &recipients);
                places.insert(head.id, place);
            }
        }
        Record::Forgotten { id, recipients } => {
            if let Some(place) = places.get(&id).copied() {
                live.forget(place, recipients.as_deref());
                if live.get(place).is_none() {
                    places.remove(&id);
                }
            }
        }
    }
}

/// Names a damaged file `journal.damaged-<date and time>` too, and returns where that is. It keeps its own
/// name until a whole file takes it, so that whoever is cut off in between finds it again.
pub(super) fn set_aside(path: &Path, now: OffsetDateTime) -> io::Result<PathBuf> {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let stamp = now.to_offset(time::UtcOffset::UTC).format(&form).map_err(io::Error::other)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{stamp}"));
    let numbered = (2..100).map(|number| {
        let mut name = name.clone();
        name.push(format!("-{number}"));
        path.with_file_name(name)
    });
    let target = std::iter::once(path.with_file_name(&name))
        .chain(numbered)
        .find(|candidate| candidate.symlink_metadata().is_err())
        .ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
    fs::hard_link(path, &target)?;
    Ok(target)
}
