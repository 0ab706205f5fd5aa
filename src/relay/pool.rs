//! Connections that are kept open between two transactions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::relay::connection::Connection;

/// The idle connections to one target. Each is between two transactions, and was quiet when it came.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Vec<Connection>>,
    max_idle: usize,
    idle_timeout: Duration,
    max_messages: usize,
}

impl Pool {
    pub(super) fn new(max_idle: usize, idle_timeout: Duration, max_messages: usize) -> Self {
        Pool { idle: Mutex::default(), max_idle, idle_timeout, max_messages }
    }

    /// Takes the connection that was used last; the older ones may rest and expire.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        self.drop_expired(&mut idle);
        while let Some(mut connection) = idle.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection that is between two transactions, unless it speaks for one client alone.
    pub(super) fn keep(&self, mut connection: Connection) {
        if connection.is_for_one_client || connection.messages >= self.max_messages || !connection.is_quiet()
        {
            return;
        }
        connection.idle_since = Instant::now();
        let mut idle = self.lock();
        self.drop_expired(&mut idle);
        if idle.len() < self.max_idle {
            idle.push(connection);
        }
    }

    fn drop_expired(&self, idle: &mut Vec<Connection>) {
        idle.retain(|connection| connection.idle_since.elapsed() < self.idle_timeout);
    }

    /// The list stays true when a thread panicked with the lock: nothing is half done under it.
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
