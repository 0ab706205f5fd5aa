//! The records store: SQLite with a write-ahead log and full synchronisation.
//!
//! Everything whose loss would lose mail or a person's decision is here or in `bodies`. The modules that
//! own the tables write their own SQL; this one owns the file, its settings and its schema.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// An open records store. Cloning shares the pool.
#[derive(Debug, Clone)]
pub struct Records {
    pool: SqlitePool,
    writing: Arc<Mutex<()>>,
}

/// A transaction that writes. Dropped without [`Write::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Write {
    transaction: Transaction<'static, Sqlite>,
    _turn: OwnedMutexGuard<()>,
}

/// Why the records store does not answer.
#[derive(Debug, Error)]
pub enum RecordsError {
    /// The file cannot be opened or created.
    #[error("opening the records store")]
    Open(#[source] sqlx::Error),
    /// The schema cannot be brought up to date.
    #[error("updating the schema of the records store")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

impl Records {
    /// Opens the store, creating it where it does not exist, and brings its schema up to date.
    ///
    /// # Errors
    /// [`RecordsError`] when the file is unusable or newer than this program.
    pub async fn open(path: &Path) -> Result<Self, RecordsError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        Self::connect(SqlitePoolOptions::new().max_connections(8), options).await
    }

    /// Opens an empty store in memory, for tests and for commands that keep nothing.
    ///
    /// # Errors
    /// [`RecordsError`] when there is no memory for it.
    pub async fn in_memory() -> Result<Self, RecordsError> {
        // A database in memory lives as long as its one connection.
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        Self::connect(pool, SqliteConnectOptions::new().in_memory(true).foreign_keys(true)).await
    }

    async fn connect(pool: SqlitePoolOptions, options: SqliteConnectOptions) -> Result<Self, RecordsError> {
        let pool = pool.connect_with(options).await.map_err(RecordsError::Open)?;
        sqlx::migrate!("src/store/migrations").run(&pool).await.map_err(RecordsError::Migrate)?;
        Ok(Records { pool, writing: Arc::default() })
    }

    /// Returns the pool, for the modules that own the tables.
    pub fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Begins a transaction that writes, in its turn: SQLite has one writer at a time, and waiting here is
    /// fair where waiting for the file's lock is polling.
    ///
    /// # Errors
    /// An [`sqlx::Error`] when the store is closed, full or locked by another process for ten seconds.
    pub async fn begin(&self) -> Result<Write, sqlx::Error> {
        let turn = Arc::clone(&self.writing).lock_owned().await;
        Ok(Write { transaction: self.pool.begin_with("BEGIN IMMEDIATE").await?, _turn: turn })
    }
}

impl Write {
    /// Commits; what was written is on disk when this returns.
    ///
    /// # Errors
    /// An [`sqlx::Error`]: it may or may not be on disk.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await
    }
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.transaction
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}
