//! A Maildir as next hop: each message a file, on disk before it is said to be.
//!
//! The file is written in `tmp` and synchronised, renamed into `new`, and the folder synchronised. It
//! begins with the envelope, a `Return-Path` and a `Delivered-To` for each recipient; the message follows
//! byte by byte, its CR LF included.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use crate::mail::{Address, EnhancedCode, Mail, Reply};
use crate::relay::{Accepted, Error, Outcome};

#[derive(Debug)]
pub(super) struct Maildir {
    path: PathBuf,
    /// Whether the folders are known to be there.
    is_ready: AtomicBool,
    delivered: AtomicU64,
}

/// One message on its way into the Maildir.
#[derive(Debug)]
pub(super) struct Delivery {
    maildir: Arc<Maildir>,
    return_path: String,
    recipients: Vec<String>,
}

impl Delivery {
    pub(super) fn new(maildir: Arc<Maildir>, mail: &Mail) -> Self {
        let return_path = mail.reverse_path.as_ref().map(Address::to_path).unwrap_or_default();
        Delivery { maildir, return_path, recipients: Vec::new() }
    }

    /// Every recipient is welcome; one that is named twice is written once.
    pub(super) fn rcpt(&mut self, to: &Address) -> Reply {
        let path = to.to_path();
        if !self.recipients.contains(&path) {
            self.recipients.push(path);
        }
        Reply::new(250, EnhancedCode(2, 1, 5), "Ok")
    }

    pub(super) async fn data(self, message: &[Bytes]) -> Result<Outcome, Error> {
        let message = message.to_vec();
        let write = tokio::task::spawn_blocking(move || self.write(&message));
        match write.await {
            Ok(written) => written.map(Outcome::Accepted),
            Err(panic) => Err(Error::Maildir { ambiguous: true, source: io::Error::other(panic) }),
        }
    }

    fn write(&self, message: &[Bytes]) -> Result<Accepted, Error> {
        let unambiguous = |source| Error::Maildir { ambiguous: false, source };
        self.maildir.prepare().map_err(unambiguous)?;
        let name = self.maildir.unique_name().map_err(unambiguous)?;
        let [temporary, new] = ["tmp", "new"].map(|folder| self.maildir.path.join(folder).join(&name));
        let written = self.write_file(&temporary, message).and_then(|()| fs::rename(&temporary, &new));
        if let Err(source) = written {
            // The folders may have been taken away since.
            self.maildir.is_ready.store(false, Ordering::Release);
            // What is left in `tmp` is nobody's mail; readers clean it up if this cannot.
            if let Err(error) = fs::remove_file(&temporary) {
                tracing::debug!(kind = ?error.kind(), "an unfinished file stays in the Maildir's tmp");
            }
            return Err(unambiguous(source));
        }
        sync_folder(&self.maildir.path.join("new"))
            .map_err(|source| Error::Maildir { ambiguous: true, source })?;
        Ok(Accepted { reply: Reply::new(250, EnhancedCode(2, 0, 0), "Delivered") })
    }

    fn write_file(&self, path: &Path, message: &[Bytes]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut writer = BufWriter::with_capacity(64 * 1024, file);
        write!(writer, "Return-Path: <{}>\r\n", self.return_path)?;
        for recipient in &self.recipients {
            write!(writer, "Delivered-To: {recipient}\r\n")?;
        }
        for part in message {
            writer.write_all(part)?;
        }
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl Maildir {
    pub(super) fn new(path: PathBuf) -> Self {
        Maildir { path, is_ready: AtomicBool::new(false), delivered: AtomicU64::new(0) }
    }

    /// Makes the folders on first use, durably: a file is only as safe as the entry of its folder.
    fn prepare(&self) -> io::Result<()> {
        if self.is_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let changed = changed_folders(&self.path);
        for folder in ["tmp", "new", "cur"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(self.path.join(folder))?;
        }
        for folder in changed {
            sync_folder(&folder)?;
        }
        self.is_ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Names a file: a count for this process, the process, and a random number for the rest.
    fn unique_name(&self) -> io::Result<String> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let count = self.delivered.fetch_add(1, Ordering::Relaxed);
        Ok(format!("{count:08}.P{}R{:016x}.lazaret", std::process::id(), u64::from_le_bytes(random)))
    }
}

/// Returns the folders that get a new entry when this one is made with all above it that are missing: itself,
/// every one that is made, and the one that is there already.
fn changed_folders(path: &Path) -> Vec<PathBuf> {
    let mut changed = vec![path.to_owned()];
    let mut made = path;
    loop {
        let parent = match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) => Path::new("."),
            None => return changed,
        };
        changed.push(parent.to_owned());
        if parent.exists() {
            return changed;
        }
        made = parent;
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_that_gets_an_entry_is_synchronised() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path();
        let path = top.join("maildir").join("inbound");
        assert_eq!(changed_folders(&path), [path.clone(), top.join("maildir"), top.to_owned()]);
        fs::create_dir_all(&path).unwrap();
        assert_eq!(changed_folders(&path), [path.clone(), top.join("maildir")]);
        assert_eq!(
            changed_folders(Path::new("no-such-folder")),
            [Path::new("no-such-folder"), Path::new(".")]
        );
        assert_eq!(changed_folders(Path::new("/")), [Path::new("/")]);
    }
}
