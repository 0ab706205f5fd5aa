//! The bodies store: large, immutable, already sealed when they get here.
//!
//! A body is written once under its id and never changed. When [`Bodies::put`] returns, the bytes and the
//! directory entries that lead to them are on disk. Local files today; anything that `object_store`
//! speaks later.

#[cfg(test)]
pub(crate) mod fault;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use thiserror::Error;
use time::OffsetDateTime;

use crate::mail::TransactionId;

/// An open bodies store. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Bodies {
    store: Arc<dyn ObjectStore>,
}

/// Which step failed in the bodies store.
#[derive(Debug, Error)]
pub enum BodiesError {
    /// The folder cannot be made or used.
    #[error("opening the bodies store")]
    Open(#[source] io::Error),
    /// The backend refuses the folder.
    #[error("opening the bodies store")]
    Backend(#[source] object_store::Error),
    /// The body is not stored.
    #[error("writing a body")]
    Put(#[source] object_store::Error),
    /// There is a body of that id already.
    #[error("a body of this id exists already")]
    Exists,
    /// The body cannot be read.
    #[error("reading a body")]
    Get(#[source] object_store::Error),
    /// The body cannot be removed.
    #[error("removing a body")]
    Delete(#[source] object_store::Error),
    /// The ids cannot be listed.
    #[error("listing the bodies")]
    List(#[source] object_store::Error),
}

impl Bodies {
    /// Opens a folder of files, making it where it does not exist.
    ///
    /// # Errors
    /// [`BodiesError::Open`] when the folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self, BodiesError> {
        prepare(folder).map_err(BodiesError::Open)?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(BodiesError::Backend)?.with_fsync(true);
        Ok(Bodies { store: Arc::new(store) })
    }

    /// Makes a store in memory, for tests.
    pub fn in_memory() -> Self {
        Bodies { store: Arc::new(InMemory::new()) }
    }

    /// Takes a backend as it is. It must be durable when `put` returns.
    pub fn with_backend(store: Arc<dyn ObjectStore>) -> Self {
        Bodies { store }
    }

    /// Stores a body; it is durable when this returns.
    ///
    /// # Errors
    /// [`BodiesError::Exists`] when the id is taken: the stored body is untouched. [`BodiesError::Put`]
    /// when it may not be stored.
    pub async fn put(&self, id: &TransactionId, sealed: Bytes) -> Result<(), BodiesError> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&path(id), PutPayload::from_bytes(sealed), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => Err(BodiesError::Exists),
            Err(error) => Err(BodiesError::Put(error)),
        }
    }

    /// Reads a body; `None` where there is none.
    ///
    /// # Errors
    /// [`BodiesError::Get`] when the backend fails.
    pub async fn get(&self, id: &TransactionId) -> Result<Option<Bytes>, BodiesError> {
        match self.store.get(&path(id)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(BodiesError::Get),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(BodiesError::Get(error)),
        }
    }

    /// Removes a body; one that is not there counts as removed.
    ///
    /// # Errors
    /// [`BodiesError::Delete`] when the backend fails.
    pub async fn delete(&self, id: &TransactionId) -> Result<(), BodiesError> {
        match self.store.delete(&path(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BodiesError::Delete(error)),
        }
    }

    /// Returns the ids of all bodies, in no order. What has another name than ours is left out.
    ///
    /// # Errors
    /// [`BodiesError::List`] when the backend fails.
    pub async fn list(&self) -> Result<Vec<TransactionId>, BodiesError> {
        self.list_where(|_| true).await
    }

    /// Returns the ids of the bodies that were put before a time, in no order.
    ///
    /// # Errors
    /// [`BodiesError::List`] when the backend fails.
    pub async fn list_before(&self, time: OffsetDateTime) -> Result<Vec<TransactionId>, BodiesError> {
        self.list_where(|object| object.last_modified.timestamp() < time.unix_timestamp()).await
    }

    async fn list_where(
        &self,
        wanted: impl Fn(&ObjectMeta) -> bool,
    ) -> Result<Vec<TransactionId>, BodiesError> {
        let objects: Vec<_> = self.store.list(None).try_collect().await.map_err(BodiesError::List)?;
        Ok(objects
            .iter()
            .filter(|object| wanted(object))
            .filter_map(|object| object.location.filename().and_then(TransactionId::parse))
            .collect())
    }
}

/// Spreads the bodies over folders by the first character of their id, which is random.
fn path(id: &TransactionId) -> ObjectPath {
    let shard: String = id.as_str().chars().take(1).collect();
    ObjectPath::from_iter([shard.as_str(), id.as_str()])
}

/// Makes the folder and its shards durable beforehand: a put that finds a shard already there does not
/// know whether its directory entry is on disk yet.
fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for shard in ('0'..='9').chain('a'..='z') {
        fs::create_dir_all(folder.join(shard.to_string()))?;
    }
    File::open(folder)?.sync_all()?;
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> TransactionId {
        TransactionId::from_random([byte; TransactionId::LEN])
    }

    /// What every backend has to do.
    async fn conformance(bodies: Bodies) {
        assert_eq!(bodies.get(&id(1)).await.unwrap(), None);
        bodies.put(&id(1), Bytes::from_static(b"one")).await.unwrap();
        bodies.put(&id(40), Bytes::new()).await.unwrap();
        assert!(matches!(bodies.put(&id(1), Bytes::from_static(b"two")).await, Err(BodiesError::Exists)));
        assert_eq!(bodies.get(&id(1)).await.unwrap().unwrap(), "one");
        assert_eq!(bodies.get(&id(40)).await.unwrap().unwrap(), "");
        let mut ids = bodies.list().await.unwrap();
        ids.sort();
        assert_eq!(ids, [id(1), id(40)]);
        bodies.delete(&id(1)).await.unwrap();
        bodies.delete(&id(1)).await.unwrap();
        assert_eq!(bodies.get(&id(1)).await.unwrap(), None);
        bodies.put(&id(1), Bytes::from_static(b"three")).await.unwrap();
        assert_eq!(bodies.get(&id(1)).await.unwrap().unwrap(), "three");
    }

    #[tokio::test]
    async fn files_keep_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        conformance(Bodies::open(&folder.path().join("bodies")).unwrap()).await;
    }

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        conformance(Bodies::in_memory()).await;
    }

    #[tokio::test]
    async fn a_backend_without_faults_to_come_keeps_the_contract() {
        conformance(fault::Faulty::never().bodies()).await;
    }

    #[tokio::test]
    async fn bodies_are_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        Bodies::open(folder.path()).unwrap().put(&id(9), Bytes::from_static(b"kept")).await.unwrap();
        let bodies = Bodies::open(folder.path()).unwrap();
        assert_eq!(bodies.get(&id(9)).await.unwrap().unwrap(), "kept");
    }

    #[tokio::test]
    async fn many_writers_of_one_id_leave_one_winner() {
        let folder = tempfile::tempdir().unwrap();
        let bodies = Bodies::open(folder.path()).unwrap();
        let writers: Vec<_> = (0..16u8)
            .map(|writer| {
                let bodies = bodies.clone();
                tokio::spawn(async move { bodies.put(&id(3), Bytes::from(vec![writer; 100])).await.is_ok() })
            })
            .collect();
        let mut winners = 0;
        for writer in writers {
            winners += usize::from(writer.await.unwrap());
        }
        assert_eq!(winners, 1);
    }
}
