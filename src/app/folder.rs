//! The data folder: who may use it, and what lies where.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::privacy::InstallationKey;
use crate::store::{Bodies, BodiesError, Records, RecordsError, keyfile};

/// A data folder that exists, with its stores open.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// The root secret.
    pub key: InstallationKey,
    /// The records store.
    pub records: Records,
    /// The bodies store.
    pub bodies: Bodies,
}

/// Held by the one gateway that serves from a folder; released when it ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It cannot be made or written.
    #[error("the data folder {} cannot be used", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process serves from it.
    #[error("another gateway already serves from the data folder {}; stop it, or give this one a folder of its own", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The key file is unusable.
    #[error("the key of the data folder cannot be used")]
    Key(#[from] keyfile::KeyFileError),
    /// The records store is unusable.
    #[error("the records of the data folder cannot be used")]
    Records(#[from] RecordsError),
    /// The bodies store is unusable.
    #[error("the kept bodies of the data folder cannot be used")]
    Bodies(#[from] BodiesError),
}

impl Folder {
    /// Opens the folder for the gateway that serves from it, making it where it does not exist.
    ///
    /// # Errors
    /// [`FolderError::InUse`] when another gateway serves from it; otherwise what is wrong with it.
    pub async fn open_to_serve(path: &Path) -> Result<(Self, Lock), FolderError> {
        let unusable = |source| FolderError::Unusable { path: path.to_owned(), source };
        create(path).map_err(unusable)?;
        let file = own_file(&path.join("lock")).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        Ok((Folder::open(path).await?, Lock { _file: file }))
    }

    /// Opens the folder beside a gateway that may be serving from it, for commands.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn open(path: &Path) -> Result<Self, FolderError> {
        create(path).map_err(|source| FolderError::Unusable { path: path.to_owned(), source })?;
        let key = keyfile::load_or_create(&path.join("lazaret.key"))?;
        let records = path.join("records.sqlite");
        // SQLite gives its other files the mode of this one.
        own_file(&records).map_err(|source| FolderError::Unusable { path: path.to_owned(), source })?;
        let records = Records::open(&records).await?;
        let bodies = Bodies::open(&path.join("bodies"))?;
        Ok(Folder { path: path.to_owned(), key, records, bodies })
    }

    /// Returns where the journal and the ledger are.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Returns where the state store is.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }
}

/// Returns the Maildir of a direction that delivers into the data folder.
pub fn maildir(data_dir: &Path, direction: crate::mail::Direction) -> PathBuf {
    data_dir.join("maildir").join(direction.as_str())
}

/// Opens a file, making it for us alone where there is none.
fn own_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes the folder for us alone, and its entry durable.
fn create(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(error),
    }
    if let Some(parent) = fs::canonicalize(path)?.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_gateway_a_folder() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("data");
        let (_folder, lock) = Folder::open_to_serve(&path).await.unwrap();
        assert!(matches!(Folder::open_to_serve(&path).await, Err(FolderError::InUse { .. })));
        Folder::open(&path).await.unwrap();
        drop(lock);
        Folder::open_to_serve(&path).await.unwrap();
    }
}
