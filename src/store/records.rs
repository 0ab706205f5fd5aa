//! The records store: SQLite with a write-ahead log and full synchronisation.
//!
//! Everything whose loss would lose mail or a person's decision is here or in `bodies`. The modules that
//! own the tables write their own SQL; this one owns the file, its settings and its schema.

use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use thiserror::Error;

/// An open records store. Cloning shares the pool.
#[derive(Debug, Clone)]
pub struct Records {
    pool: SqlitePool,
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
        let pool = SqlitePoolOptions::new()
            .max_connections(8)
            .connect_with(options)
            .await
            .map_err(RecordsError::Open)?;
        sqlx::migrate!("src/store/migrations").run(&pool).await.map_err(RecordsError::Migrate)?;
        Ok(Records { pool })
    }

    /// Returns the pool, for the modules that own the tables.
    pub fn pool(&self) -> &SqlitePool {
        &self.pool
    }
}
