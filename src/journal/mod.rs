//! The journal: what closes the window between the next hop's 250 and our own (RFC 1047).
//!
//! A client that did not get our answer, because its connection broke or this process died, sends the same
//! message again. The journal knows by then that somebody has it: the note was durable before our answer
//! left. The retry is answered from the note and nothing is sent a second time. What remains is the moment
//! in which the next hop has decided and we have not heard; a message that was lost in it is sent again, and
//! has a line in the [`Ledger`].
//!
//! It keeps no message and no address, and it decides nothing. Whether a recipient is held is said only
//! after a holder took the message. If the disk fails, mail goes on: what suffers is this protection, and
//! that is logged and counted.
//!
//! One message is the same as another if its direction, the network of its client (IPv4 /24, IPv6 /64), its
//! reverse-path and all its bytes but its topmost Received field are; an equal message that comes while an
//! earlier one is unsettled is taken for a retry.

mod attempt;
mod disk;
mod key;
mod ledger;
mod live;
mod queue;
mod record;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::oneshot;

pub use attempt::{Attempt, Held, Standing};
pub use key::BodyHash;
pub use ledger::{Cause, Ledger, Line};

use crate::mail::{Direction, TransactionId};
use crate::metrics::Counter;
use crate::privacy::InstallationKey;
use disk::{Disk, Files};
use key::{Hasher, RecipientKey};
use live::{Live, Place};
use queue::Wish;
use record::{Record, Stage};
use writer::{Doubt, Shared};

/// Says what time it is.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// The bounds of a journal.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Most recipients of unsettled messages that are remembered; the oldest messages fall out. More than one
    /// message may have.
    pub max_entries: usize,
    /// How long an attempt is remembered: as long as clients retry (RFC 5321, section 4.5.4.1).
    pub max_age: time::Duration,
    /// The size in bytes at which the file is written anew without what is settled.
    pub max_file_bytes: u64,
    /// The size in bytes at which the ledger is begun anew; one old generation is kept.
    pub max_ledger_bytes: u64,
    /// How long a session waits for the disk.
    pub patience: std::time::Duration,
    /// How long the disk is left alone after a failure.
    pub rest: std::time::Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_entries: 100_000,
            max_age: time::Duration::days(5),
            max_file_bytes: 8 << 20,
            max_ledger_bytes: 4 << 20,
            patience: std::time::Duration::from_secs(5),
            rest: std::time::Duration::from_secs(1),
        }
    }
}

/// Who takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The next hop.
    NextHop,
    /// The quarantine.
    Quarantine,
}

impl Holder {
    /// Both.
    pub const ALL: [Holder; 2] = [Holder::NextHop, Holder::Quarantine];

    fn as_str(self) -> &'static str {
        match self {
            Holder::NextHop => "next-hop",
            Holder::Quarantine => "quarantine",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Holder::ALL.into_iter().find(|holder| holder.as_str() == name)
    }
}

/// Which step failed in the journal.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// The folder or a file in it cannot be used.
    #[error("the journal in {} cannot be opened", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The line was not written, or a line before it a moment ago was not.
    #[error("writing the journal")]
    Write(#[source] Arc<io::Error>),
    /// The line may not be durable.
    #[error("making the journal durable")]
    Sync(#[source] Arc<io::Error>),
    /// Too much waits to be written.
    #[error("the journal's disk does not keep up")]
    Behind,
    /// The disk took too long; it may still write the line.
    #[error("the journal's disk does not answer")]
    TimedOut,
}

/// What a journal held when it was opened.
#[derive(Debug)]
pub struct Recovered {
    /// Attempts without a verdict: the process died while somebody was deciding. Each is to be given to
    /// [`Journal::resolve`] before mail comes in.
    pub unresolved: Vec<Unresolved>,
    /// Where the damaged file lies, if it was.
    pub set_aside: Option<PathBuf>,
}

/// An attempt without a verdict.
#[derive(Debug)]
pub struct Unresolved {
    head: record::Head,
    place: Place,
    relayed: Vec<RecipientKey>,
    kept: Vec<RecipientKey>,
}

impl Unresolved {
    /// Returns the transaction, under which the quarantine would hold the message.
    pub fn id(&self) -> &TransactionId {
        &self.head.id
    }

    /// Returns which way it travelled.
    pub fn direction(&self) -> Direction {
        self.head.direction
    }
}

/// The journal of a gateway. Cloning shares it. Its threads end when the last clone is dropped.
#[derive(Clone)]
pub struct Journal {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    hasher: Hasher,
    clock: Clock,
    patience: std::time::Duration,
}

impl Journal {
    /// Opens the journal in a folder, making it where it does not exist, and reads it. An end that was cut
    /// off is left out. A damaged file is renamed to `journal.damaged-<date and time>`; its whole lines
    /// count. Blocks. No other process may have it open.
    ///
    /// # Errors
    /// [`Error::Open`] when the folder or the file cannot be used.
    pub fn open(
        folder: &Path,
        key: &InstallationKey,
        config: Config,
        clock: Clock,
    ) -> Result<(Self, Recovered), Error> {
        let failed = |error| Error::Open { path: folder.to_owned(), source: Arc::new(error) };
        let files = Files::open(folder).map_err(failed)?;
        let mut live = Live::new(config.max_entries, config.max_age);
        let damaged = disk::replay(&files.path(), &mut live).map_err(failed)?;
        let set_aside = if damaged {
            let aside = disk::set_aside(&files.path(), clock()).map_err(failed)?;
            tracing::error!(aside = %aside.display(), "the journal was damaged and is set aside");
            Counter::JournalsSetAside.increment(&[]);
            Some(aside)
        } else {
            None
        };
        live.prune(clock().unix_timestamp());
        let (journal, unresolved) =
            Journal::start(live, Arc::new(files), Ledger::new(folder), key, config, clock).map_err(failed)?;
        Ok((journal, Recovered { unresolved, set_aside }))
    }

    /// Writes the memory into a first file and starts the threads.
    fn start(
        live: Live,
        disk: Arc<dyn Disk>,
        ledger: Ledger,
        key: &InstallationKey,
        config: Config,
        clock: Clock,
    ) -> io::Result<(Self, Vec<Unresolved>)> {
        let mut unresolved = Vec::new();
        for (place, entry) in live.all() {
            let relayed = entry.at(Stage::Pending, Holder::NextHop);
            let kept = entry.at(Stage::Pending, Holder::Quarantine);
            if !relayed.is_empty() || !kept.is_empty() {
                unresolved.push(Unresolved { head: entry.head.clone(), place, relayed, kept });
            }
        }
        let mut content = record::HEADER.to_vec();
        live.write_page(0, usize::MAX, &mut content);
        disk.replace(&content)?;
        let shared = Arc::new(Shared::new(live, Arc::clone(&disk), config, content.len() as u64));
        writer::start(&shared, disk, ledger, config.max_ledger_bytes)?;
        let handle = Handle { shared, hasher: Hasher::new(key), clock, patience: config.patience };
        Ok((Journal { handle: Arc::new(handle) }, unresolved))
    }

    /// Ends an attempt that an earlier process left without a verdict. `kept` says whether the quarantine
    /// holds entries of its id: then a retry is answered for those that were to be kept. Those that were on
    /// their way to the next hop get a line in the ledger, and a retry is sent again. Returns when that is
    /// durable, however long the disk takes: no session waits for it.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn resolve(&self, unresolved: Unresolved, kept: bool) -> Result<(), Error> {
        let Unresolved { head, place, relayed, kept: keeping } = unresolved;
        if !keeping.is_empty() && kept {
            let (waiter, noted) = oneshot::channel();
            self.shared().change(|state| {
                let (stage, holder) = (Stage::Taken, Holder::Quarantine);
                state.live.note(Some(place), &head, stage, holder, &keeping);
                let record = Record::Noted { head: head.clone(), stage, holder, recipients: keeping };
                state.push(&record, Wish::Durable(waiter));
            });
            noted.await.unwrap_or(Err(Error::TimedOut))?;
        } else if !keeping.is_empty() {
            self.shared().change(|state| state.forget(place, Some(&keeping)));
        }
        if !relayed.is_empty() {
            let cause = Cause::GatewayStopped;
            Counter::JournalDoubts.increment(&[("cause", cause.as_label())]);
            let line = Line::new(self.now(), &head.id, head.direction, relayed.len(), cause);
            let (waiter, written) = oneshot::channel();
            self.shared().doubt(Doubt {
                line,
                place: Some(place),
                recipients: relayed,
                waiter: Some(waiter),
            });
            written.await.map_err(|_| Error::TimedOut)?;
        }
        Ok(())
    }

    /// Returns when everything noted so far is durable: before a shutdown.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn flush(&self) -> Result<(), Error> {
        let (waiter, noted) = oneshot::channel();
        self.shared().change(|state| state.wait_for_all(waiter));
        self.wait(noted).await
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    fn hasher(&self) -> &Hasher {
        &self.handle.hasher
    }

    fn now(&self) -> OffsetDateTime {
        (self.handle.clock)()
    }

    fn patience(&self) -> std::time::Duration {
        self.handle.patience
    }

    async fn wait(&self, noted: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
        match tokio::time::timeout(self.patience(), noted).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Error::TimedOut),
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

#[cfg(test)]
mod tests;
