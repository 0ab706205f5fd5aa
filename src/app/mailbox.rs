//! Maildirs into which people put what is spam and what is not: what appears there is learned.
//!
//! Nothing is moved or removed. Which messages were looked at is remembered by keyed hashes of their names, over a restart
//! as well, so that each teaches once while it lies there, whatever is said of it elsewhere. What disappears stays learned.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;

use super::{now, task};
use crate::config::MaildirPair;
use crate::learn::{FeatureKey, Label};
use crate::privacy::error_chain;
use crate::scan::{By, Learned, Sharing};
use crate::store::{State, Teacher};

/// How often the folders are looked at.
const EVERY: Duration = Duration::from_secs(15);
/// Messages that are learned in one transaction, and their bytes.
const BATCH: usize = 50;
const BATCH_BYTES: u64 = 64 << 20;
/// Messages that a folder may hold.
const FOLDER: usize = 100_000;
/// A change of a folder that is younger may not have been the last one of its moment.
const MOMENT: Duration = Duration::from_secs(2);
/// In which place the names of files and folders are hashed.
const FILE: u8 = 0xb1;

/// What is looked at.
pub(super) struct Mailboxes {
    pub(super) list: Vec<MaildirPair>,
    pub(super) learned: Learned,
    pub(super) state: Arc<dyn State>,
    pub(super) sharing: Sharing,
    /// Longer messages are passed over.
    pub(super) most_bytes: usize,
}

/// One Maildir, and what was learned of it.
struct Folder {
    path: PathBuf,
    label: Label,
    by: By,
    /// Hashes of the names of messages that taught.
    seen: HashSet<u64>,
    /// When it had changed last, where all of it was looked at since.
    looked_at: Option<[SystemTime; 2]>,
    /// Whether it could be read the last time.
    is_well: bool,
}

/// A message in a folder.
#[derive(Clone)]
struct File {
    path: PathBuf,
    name: u64,
    bytes: u64,
}

/// Looks at the folders until `stopped`.
pub(super) async fn watch(mailboxes: Mailboxes, mut stopped: watch::Receiver<bool>) {
    let mut folders = Vec::new();
    for mailbox in &mailboxes.list {
        for (label, path) in [(Label::Ham, &mailbox.ham), (Label::Spam, &mailbox.spam)] {
            let by = match &mailbox.person {
                Some(person) => By::Person(person.clone(), mailboxes.sharing),
                None => By::All(Teacher::Cli),
            };
            let mut folder = Folder {
                path: path.clone(),
                label,
                by,
                seen: HashSet::new(),
                looked_at: None,
                is_well: true,
            };
            folder.remember(&mailboxes).await;
            folders.push(folder);
        }
    }
    while !folders.is_empty() {
        for folder in &mut folders {
            let looked = tokio::select! {
                () = task::wait_for_stop(&mut stopped) => return,
                looked = folder.look(&mailboxes) => looked,
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

impl Folder {
    /// The name under which the state store keeps what taught.
    fn state_key(&self, key: &FeatureKey) -> String {
        let path = self.path.as_os_str().as_encoded_bytes();
        format!("maildir/{:016x}/{}", key.word(FILE, path), self.label.as_str())
    }

    /// Reads what taught before a restart. Where that is lost, the log of lessons knows most of it.
    async fn remember(&mut self, mailboxes: &Mailboxes) {
        let (state, name) = (Arc::clone(&mailboxes.state), self.state_key(mailboxes.learned.key()));
        let bytes = tokio::task::spawn_blocking(move || state.get(&name).ok().flatten()).await;
        let bytes = bytes.ok().flatten().unwrap_or_default();
        self.seen = bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
    }

    /// Learns what is new.
    async fn look(&mut self, mailboxes: &Mailboxes) -> Result<(), String> {
        let path = self.path.clone();
        let changed_at = blocking(move || changed_at(&path)).await?;
        if self.looked_at == Some(changed_at) {
            return Ok(());
        }
        let (path, key) = (self.path.clone(), mailboxes.learned.key().clone());
        let files = blocking(move || files(&path, &key)).await?;
        let there: HashSet<u64> = files.iter().map(|file| file.name).collect();
        let before = self.seen.len();
        self.seen.retain(|name| there.contains(name));
        let mut has_changed = self.seen.len() != before;
        let mut new = files.into_iter().filter(|file| !self.seen.contains(&file.name)).peekable();
        let (mut names, mut all) = (Vec::new(), 0);
        let mut result = Ok(());
        while new.peek().is_some() && result.is_ok() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(file) = new.next_if(|file| {
                batch.is_empty() || (batch.len() < BATCH && bytes + file.bytes <= BATCH_BYTES)
            }) {
                bytes += file.bytes;
                batch.push(file);
            }
            all += batch.len();
            match self.learn(batch, mailboxes).await {
                Ok(done) => names.extend(done),
                Err(error) => result = Err(error),
            }
        }
        drop(new);
        has_changed |= !names.is_empty();
        let is_past = changed_at.iter().all(|changed| *changed + MOMENT < SystemTime::from(now()));
        self.looked_at = (result.is_ok() && names.len() == all && is_past).then_some(changed_at);
        self.seen.extend(names);
        if has_changed {
            let bytes: Vec<u8> = self.seen.iter().flat_map(|name| name.to_le_bytes()).collect();
            let (state, name) = (Arc::clone(&mailboxes.state), self.state_key(mailboxes.learned.key()));
            let stored = tokio::task::spawn_blocking(move || state.put(&name, &bytes)).await;
            if let Ok(Err(error)) = stored {
                tracing::warn!(error = error_chain(&error), "what taught from a folder was not remembered");
            }
        }
        result
    }

    /// Learns messages, and returns the names of those that are done with: what cannot be read is tried again.
    async fn learn(&self, batch: Vec<File>, mailboxes: &Mailboxes) -> Result<Vec<u64>, String> {
        let most = mailboxes.most_bytes;
        let (messages, done) = blocking(move || Ok(read(&batch, most))).await?;
        if !messages.is_empty() {
            let learned = &mailboxes.learned;
            let appended = learned.learn(self.label, messages, &self.by, now()).await;
            let appended = appended.map_err(|error| error_chain(&error))?;
            let (label, learned, relabelled) = (self.label.as_str(), appended.learned, appended.relabelled);
            tracing::info!(label, learned, relabelled, "learned from a folder");
        }
        Ok(done)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| "reading was broken off".to_owned())?;
    done.map_err(|error| error.to_string())
}

/// Returns when messages last came to a Maildir or left it.
fn changed_at(maildir: &Path) -> io::Result<[SystemTime; 2]> {
    let of = |part: &str| std::fs::metadata(maildir.join(part))?.modified();
    Ok([of("new")?, of("cur")?])
}

/// Returns the messages of a Maildir, ordered by their names, which begin with the time. What a mail client adds
/// behind a colon does not count.
fn files(maildir: &Path, key: &FeatureKey) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for part in ["new", "cur"] {
        for entry in std::fs::read_dir(maildir.join(part))? {
            let entry = entry?;
            let name = entry.file_name();
            // It may have been moved meanwhile: then it is found where it is now, or the next time.
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_file() || name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let unique = name.as_encoded_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
            let hash = key.word(FILE, unique);
            files.push((unique.to_vec(), File { path: entry.path(), name: hash, bytes: metadata.len() }));
        }
    }
    if files.len() > FOLDER {
        return Err(io::Error::other(format!("it holds more than {FOLDER} messages")));
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

/// Reads messages; also returns the names of those that were read, or are too long.
fn read(files: &[File], most: usize) -> (Vec<Bytes>, Vec<u64>) {
    let (mut messages, mut done) = (Vec::new(), Vec::new());
    for file in files {
        let is_short = usize::try_from(file.bytes).is_ok_and(|bytes| bytes <= most);
        let message = if is_short { std::fs::read(&file.path).ok() } else { None };
        if message.is_some() || !is_short {
            done.push(file.name);
        }
        messages.extend(message.map(Bytes::from));
    }
    (messages, done)
}
