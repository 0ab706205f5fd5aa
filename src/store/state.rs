//! The state store: what saves time and can be had again, such as snapshots of models.
//!
//! Nothing whose loss would lose mail or a person's decision lives here. So a store that is damaged is set
//! aside under another name, for whoever wants to look, and a fresh one begins; but a store that another
//! process holds, or that may not be read, is an error and stays where it is.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::metrics::Counter;

/// Most bytes of a value.
pub const MAX_VALUE_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes of a key.
pub const MAX_KEY_BYTES: usize = 256;

/// How long a store may be locked before it counts as held by another process, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Larger ones would be files of their own, which sled 0.34 never removes.
const CHUNK_BYTES: usize = 16 * 1024;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
const CHECKSUM_BYTES: usize = 32;

/// Values under names. The calls block: they are made from threads that may.
pub trait State: Send + Sync {
    /// Returns a value, whole as it was put, or `None` where there is none.
    ///
    /// # Errors
    /// [`StateError::Damaged`] when it is not what was put; other [`StateError`]s when the store fails.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError>;

    /// Puts a value in place of the one before. After a crash the one or the other is there.
    ///
    /// # Errors
    /// [`StateError::TooLarge`] over [`MAX_VALUE_BYTES`] or [`MAX_KEY_BYTES`]; others when the store fails.
    fn put(&self, key: &str, value: &[u8]) -> Result<(), StateError>;

    /// Removes a value; that there is none is no error.
    ///
    /// # Errors
    /// [`StateError`] when the store fails.
    fn remove(&self, key: &str) -> Result<(), StateError>;
}

/// Why the state store does not answer.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another process has it open.
    #[error("the state store is in use by another process")]
    Locked,
    /// It cannot be opened, for a reason that setting it aside would not mend.
    #[error("opening the state store")]
    Open(#[source] io::Error),
    /// The damaged store cannot be renamed.
    #[error("setting the damaged state store aside")]
    SetAside(#[source] io::Error),
    /// It failed in use.
    #[error("using the state store")]
    Use(#[source] sled::Error),
    /// It panicked in use.
    #[error("the state store panicked")]
    Panicked,
    /// A value is not what was put.
    #[error("a value in the state store is damaged")]
    Damaged,
    /// A key or value is over its limit.
    #[error("a key or value is too large for the state store")]
    TooLarge,
}

/// A damaged store that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it lies now.
    pub path: PathBuf,
}

/// The state store of one machine, in sled.
pub struct Sled {
    /// `None` only while it is being dropped.
    db: Option<sled::Db>,
}

/// A state store in memory, for tests and for commands that keep nothing.
#[derive(Debug, Default)]
pub struct Memory {
    values: Mutex<HashMap<String, Vec<u8>>>,
}

impl Sled {
    /// Opens the store, creating it where it does not exist. One that is damaged is renamed to
    /// `<path>.damaged-<date and time>`, and a fresh one is made. Blocks.
    ///
    /// # Errors
    /// [`StateError::Locked`] while another process has it open; [`StateError::Open`] where the file system
    /// refuses; [`StateError::SetAside`] where the rename fails.
    pub fn open(path: &Path, now: OffsetDateTime) -> Result<(Self, Option<SetAside>), StateError> {
        match Sled::open_unlocked(path) {
            Ok(store) => Ok((store, None)),
            Err(StateError::Damaged) => {
                let aside = set_aside(path, now).map_err(StateError::SetAside)?;
                tracing::warn!(aside = %aside.path.display(), "the state store was damaged and is set aside");
                Counter::StateStoresSetAside.increment(&[]);
                Ok((Sled::open_whole(path)?, Some(aside)))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a store, waiting a little while it is locked: sled's threads hold the lock of a store that was
    /// closed for a moment longer.
    fn open_unlocked(path: &Path) -> Result<Self, StateError> {
        let began = Instant::now();
        loop {
            match Sled::open_whole(path) {
                Err(StateError::Locked) if began.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
                opened => return opened,
            }
        }
    }

    /// Opens a store and reads all of it once: sled finds some damage only when it gets there.
    fn open_whole(path: &Path) -> Result<Self, StateError> {
        let opened = quietly(|| {
            let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).open()?;
            let store = Sled { db: Some(db) };
            store.read_all()?;
            Ok(store)
        });
        match opened {
            Ok(Ok(store)) => Ok(store),
            Ok(Err(error)) => Err(classify(error)),
            Err(_panic) => Err(StateError::Damaged),
        }
    }

    fn read_all(&self) -> Result<(), sled::Error> {
        let Some(db) = &self.db else { return Ok(()) };
        db.iter().try_for_each(|pair| pair.map(drop))
    }

    fn using<T>(&self, work: impl FnOnce(&sled::Db) -> Result<T, sled::Error>) -> Result<T, StateError> {
        let db = self.db.as_ref().ok_or(StateError::Panicked)?;
        quietly(|| work(db)).map_err(|_panic| StateError::Panicked)?.map_err(StateError::Use)
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        let db = self.db.take();
        // A damaged store may panic once more when it is flushed.
        if quietly(|| drop(db)).is_err() {
            Counter::Panics.increment(&[]);
        }
    }
}

impl std::fmt::Debug for Sled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sled")
    }
}

/// A value lies in chunks under `key/generation/number`; the entry `key` says how many they are, and their
/// checksum, and is written last.
impl State for Sled {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let Some(head) = self.using(|db| db.get(key))? else { return Ok(None) };
        let head = Head::read(&head).ok_or(StateError::Damaged)?;
        let mut value = Vec::with_capacity(head.length);
        for chunk in 0..head.chunks() {
            let chunk = self.using(|db| db.get(head.chunk_key(key, chunk)))?.ok_or(StateError::Damaged)?;
            value.extend_from_slice(&chunk);
            if value.len() > head.length {
                return Err(StateError::Damaged);
            }
        }
        let whole = value.len() == head.length && Sha256::digest(&value).as_slice() == head.checksum;
        if whole { Ok(Some(value)) } else { Err(StateError::Damaged) }
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
            return Err(StateError::TooLarge);
        }
        let before = self.using(|db| db.get(key))?.and_then(|head| Head::read(&head));
        let head = Head {
            generation: before.as_ref().map_or(0, |before| before.generation.wrapping_add(1)),
            length: value.len(),
            checksum: Sha256::digest(value).into(),
        };
        for (number, chunk) in (0..).zip(value.chunks(CHUNK_BYTES)) {
            self.using(|db| db.insert(head.chunk_key(key, number), chunk))?;
        }
        self.using(|db| db.flush())?;
        self.using(|db| db.insert(key, head.write()))?;
        self.using(|db| db.flush())?;
        if let Some(before) = before {
            self.remove_chunks(key, &before)?;
        }
        Ok(())
    }

    fn remove(&self, key: &str) -> Result<(), StateError> {
        let Some(head) = self.using(|db| db.remove(key))? else { return Ok(()) };
        if let Some(head) = Head::read(&head) {
            self.remove_chunks(key, &head)?;
        }
        self.using(|db| db.flush()).map(drop)
    }
}

impl Sled {
    fn remove_chunks(&self, key: &str, head: &Head) -> Result<(), StateError> {
        for number in 0..head.chunks() {
            self.using(|db| db.remove(head.chunk_key(key, number)))?;
        }
        Ok(())
    }
}

impl State for Memory {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.values.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
            return Err(StateError::TooLarge);
        }
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn remove(&self, key: &str) -> Result<(), StateError> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(())
    }
}

struct Head {
    generation: u32,
    length: usize,
    checksum: [u8; CHECKSUM_BYTES],
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk::<4>()?;
        let (length, checksum) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let within = length <= MAX_VALUE_BYTES;
        let generation = u32::from_le_bytes(*generation);
        within.then_some(Head { generation, length, checksum: checksum.try_into().ok()? })
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = self.generation.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(self.length as u64).to_le_bytes());
        bytes.extend_from_slice(&self.checksum);
        bytes
    }

    fn chunks(&self) -> usize {
        self.length.div_ceil(CHUNK_BYTES)
    }

    fn chunk_key(&self, key: &str, number: usize) -> Vec<u8> {
        // A zero byte ends the name, so that no name's chunks are another name's.
        format!("{key}\0{}/{number}", self.generation).into_bytes()
    }
}

/// Runs what may panic on damaged data.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(work))
}

fn classify(error: sled::Error) -> StateError {
    match error {
        // sled has no error of its own for a lock.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => StateError::Locked,
        sled::Error::Io(error) if is_environment(&error) => StateError::Open(error),
        _ => StateError::Damaged,
    }
}

/// Whether the file system, not the store, is at fault.
fn is_environment(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::PermissionDenied
            | Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::ReadOnlyFilesystem
            | Kind::OutOfMemory
            | Kind::Interrupted
            | Kind::ResourceBusy
    ) || matches!(error.raw_os_error(), Some(5 | 23 | 24))
}

fn set_aside(path: &Path, now: OffsetDateTime) -> io::Result<SetAside> {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let stamp = now.to_offset(time::UtcOffset::UTC).format(&form).map_err(io::Error::other)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{stamp}"));
    let base = path.with_file_name(&name);
    let taken = |candidate: &PathBuf| candidate.symlink_metadata().is_ok();
    let numbered = (2..100).map(|number| {
        let mut name = name.clone();
        name.push(format!("-{number}"));
        path.with_file_name(name)
    });
    let target = std::iter::once(base).chain(numbered).find(|candidate| !taken(candidate));
    let target = target.ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
    std::fs::rename(path, &target)?;
    Ok(SetAside { path: target })
}
