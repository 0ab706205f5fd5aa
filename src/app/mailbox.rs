//! Maildirs into which people put what is spam and what is not: what appears there is learned.
//!
//! Nothing is moved or removed. A message that was looked at is not read again while it lies there, and after a restart
//! it is known by the log of lessons. What disappears stays learned.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::{now, task};
use crate::config::MaildirPair;
use crate::learn::Label;
use crate::privacy::error_chain;
use crate::scan::{By, Learned, Sharing};
use crate::store::Teacher;

/// How often the folders are looked at.
const EVERY: Duration = Duration::from_secs(15);
/// Messages that are learned in one transaction, and at one look in one folder.
const BATCH: usize = 50;
const LOOK: usize = 1_000;

/// What is looked at.
pub(super) struct Mailboxes {
    pub(super) list: Vec<MaildirPair>,
    pub(super) learned: Learned,
    pub(super) sharing: Sharing,
    /// Longer messages are passed over.
    pub(super) most_bytes: usize,
}

/// One folder, and what was learned of it.
struct Folder {
    path: PathBuf,
    label: Label,
    by: By,
    seen: HashSet<OsString>,
    /// Whether it could be read the last time.
    is_well: bool,
}

/// Looks at the folders until `stopped`.
pub(super) async fn watch(mailboxes: Mailboxes, mut stopped: watch::Receiver<bool>) {
    let by = |mailbox: &MaildirPair| match &mailbox.person {
        Some(person) => By::Person(person.clone(), mailboxes.sharing),
        None => By::All(Teacher::Cli),
    };
    let mut folders: Vec<Folder> = Vec::new();
    for mailbox in &mailboxes.list {
        for (label, path) in [(Label::Ham, &mailbox.ham), (Label::Spam, &mailbox.spam)] {
            for part in ["new", "cur"] {
                let (path, by, seen) = (path.join(part), by(mailbox), HashSet::new());
                folders.push(Folder { path, label, by, seen, is_well: true });
            }
        }
    }
    while !folders.is_empty() {
        for folder in &mut folders {
            let looked = tokio::select! {
                () = task::wait_for_stop(&mut stopped) => return,
                looked = look(folder, &mailboxes) => looked,
            };
            if let Err(error) = &looked
                && folder.is_well
            {
                // A path may tell whose mailbox it is.
                let label = folder.label.as_str();
                tracing::error!(label, error = %error, "a folder of learn.maildir cannot be learned from");
            }
            folder.is_well = looked.is_ok();
        }
        tokio::select! {
            () = task::wait_for_stop(&mut stopped) => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Learns what is new in a folder.
async fn look(folder: &mut Folder, mailboxes: &Mailboxes) -> Result<(), String> {
    let path = folder.path.clone();
    let names = blocking(move || names(&path)).await?;
    folder.seen.retain(|name| names.contains(name));
    let new: Vec<OsString> =
        names.iter().filter(|name| !folder.seen.contains(*name)).take(LOOK).cloned().collect();
    for batch in new.chunks(BATCH) {
        let (path, most, files) = (folder.path.clone(), mailboxes.most_bytes, batch.to_vec());
        let messages = blocking(move || read(&path, &files, most)).await?;
        let learned = &mailboxes.learned;
        let appended = learned.learn(folder.label, messages, &folder.by, now()).await;
        let appended = appended.map_err(|error| error_chain(&error))?;
        tracing::info!(
            label = folder.label.as_str(),
            learned = appended.learned,
            relabelled = appended.relabelled,
            "learned from a folder"
        );
        folder.seen.extend(batch.iter().cloned());
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| "reading was broken off".to_owned())?;
    done.map_err(|error| error.to_string())
}

/// Returns the names of the messages in a folder.
fn names(folder: &Path) -> io::Result<HashSet<OsString>> {
    let mut names = HashSet::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if file.file_type()?.is_file() && !file.file_name().as_encoded_bytes().starts_with(b".") {
            names.insert(file.file_name());
        }
    }
    Ok(names)
}

fn read(folder: &Path, files: &[OsString], most: usize) -> io::Result<Vec<Bytes>> {
    let mut messages = Vec::with_capacity(files.len());
    for file in files {
        let path = folder.join(file);
        match std::fs::metadata(&path) {
            Ok(found) if usize::try_from(found.len()).is_ok_and(|length| length <= most) => {}
            // Too long; or moved meanwhile, so that it is found where it is now.
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        match std::fs::read(&path) {
            Ok(message) => messages.push(message.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(messages)
}
