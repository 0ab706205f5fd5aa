//! The listeners of both directions: opened together, changed and closed while the gateway runs.
//!
//! A change is made in two steps. The first opens what is new and may fail; nothing has changed then. The
//! second cannot fail: it hands every listener its new configuration, starts the new ones, and stops those
//! that are gone, whose sessions end as in a drain.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::task::report_panic;
use crate::gateway::{Gateway, Transaction};
use crate::ingress::{self, Inherited, ListenAddress, Listener, Memory, Sessions};
use crate::mail::Direction;

/// What a listener is to be.
pub(super) struct Wanted {
    /// Where it listens.
    pub(super) listen: ListenAddress,
    /// How it treats its clients.
    pub(super) config: ingress::Config,
}

/// The gateway of a direction, as it is now. A connection keeps the one that it began with.
struct Current(ArcSwap<Gateway>);

impl ingress::Service for Current {
    type Handler = Transaction;

    fn connect(&self, peer: SocketAddr) -> Transaction {
        self.0.load_full().connect(peer)
    }
}

/// The gateways of both directions.
#[derive(Clone)]
pub(super) struct Gateways {
    /// For mail from the world.
    pub(super) inbound: Gateway,
    /// For mail to the world.
    pub(super) outbound: Gateway,
}

struct Running {
    direction: Direction,
    /// As it is configured.
    listen: ListenAddress,
    /// As it is bound.
    address: ListenAddress,
    config: watch::Sender<Arc<ingress::Config>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The listeners that are open.
pub(super) struct Listeners {
    memory: Memory,
    sessions: Sessions,
    inherited: Inherited,
    inbound: Arc<Current>,
    outbound: Arc<Current>,
    running: Vec<Running>,
    /// Those that were closed and whose sessions are not over yet.
    ending: Vec<JoinHandle<()>>,
}

/// A change that can be made: every socket that it needs is open.
pub(super) struct Change(Vec<Step>);

enum Step {
    /// The listener at this place in [`Listeners::running`] stays.
    Keep(usize, Wanted),
    /// This one is new.
    Open(Listener, ListenAddress, Wanted),
}

impl Listeners {
    /// Makes the set, with nothing open yet.
    pub(super) fn new(memory: Memory, inherited: Inherited, gateways: Gateways) -> Self {
        let current = |gateway| Arc::new(Current(ArcSwap::from_pointee(gateway)));
        Listeners {
            memory,
            sessions: Sessions::default(),
            inherited,
            inbound: current(gateways.inbound),
            outbound: current(gateways.outbound),
            running: Vec::new(),
            ending: Vec::new(),
        }
    }

    /// Opens what is wanted and not open yet.
    ///
    /// # Errors
    /// Which address cannot be listened on; nothing has changed.
    pub(super) fn prepare(&mut self, wanted: Vec<Wanted>) -> anyhow::Result<Change> {
        let mut kept = vec![false; self.running.len()];
        let mut steps = Vec::new();
        for wanted in wanted {
            let same = |running: &Running| {
                running.listen == wanted.listen && running.direction == wanted.config.direction
            };
            let found = self.running.iter().zip(&mut kept).position(|(running, kept)| {
                let found = !*kept && same(running);
                *kept |= found;
                found
            });
            steps.push(match found {
                Some(index) => Step::Keep(index, wanted),
                None => {
                    let opening = || format!("listening on {}", wanted.listen);
                    let listener =
                        Listener::open(&wanted.listen, &mut self.inherited).with_context(opening)?;
                    let address = listener.address().with_context(opening)?;
                    Step::Open(listener, address, wanted)
                }
            });
        }
        Ok(Change(steps))
    }

    /// Makes a change, with these gateways for the connections to come.
    pub(super) fn commit(&mut self, change: Change, gateways: Gateways) {
        self.inbound.0.store(Arc::new(gateways.inbound));
        self.outbound.0.store(Arc::new(gateways.outbound));
        let mut before: Vec<Option<Running>> = self.running.drain(..).map(Some).collect();
        for step in change.0 {
            let running = match step {
                Step::Keep(index, wanted) => {
                    let Some(running) = before.get_mut(index).and_then(Option::take) else { continue };
                    running.config.send_replace(Arc::new(wanted.config));
                    running
                }
                Step::Open(listener, address, wanted) => self.start(listener, address, wanted),
            };
            self.running.push(running);
        }
        self.ending.retain(|task| !task.is_finished());
        for gone in before.into_iter().flatten() {
            tracing::info!(address = %gone.address, "closing a listener");
            gone.stop.send_replace(true);
            self.ending.push(gone.task);
        }
    }

    fn start(&self, listener: Listener, address: ListenAddress, wanted: Wanted) -> Running {
        let direction = wanted.config.direction;
        let service = match direction {
            Direction::Inbound => Arc::clone(&self.inbound),
            Direction::Outbound => Arc::clone(&self.outbound),
        };
        let (config, config_now) = watch::channel(Arc::new(wanted.config));
        let (stop, stopped) = watch::channel(false);
        let (memory, sessions) = (self.memory.clone(), self.sessions.clone());
        let serving = ingress::serve(listener, config_now, memory, sessions, service, stopped);
        let task = tokio::spawn(serving);
        Running { direction, listen: wanted.listen, address, config, stop, task }
    }

    /// Returns where a direction is listened on, as bound, in the order of the configuration.
    pub(super) fn addresses(&self, direction: Direction) -> impl Iterator<Item = &ListenAddress> {
        self.running
            .iter()
            .filter(move |running| running.direction == direction)
            .map(|running| &running.address)
    }

    /// Says in the log where it is listened, and for what.
    pub(super) fn log(&self) {
        for running in &self.running {
            let config = running.config.borrow();
            let (protocol, tls) = (config.kind, config.tls_mode);
            let direction = running.direction.as_str();
            tracing::info!(address = %running.address, direction, ?protocol, ?tls, "listening");
        }
    }

    /// Returns the names of the sockets that were handed over and that no listener has taken.
    pub(super) fn unused(&self) -> impl Iterator<Item = &str> {
        self.inherited.names()
    }

    /// Closes every listener and waits for the sessions.
    pub(super) async fn drain(self) {
        for running in &self.running {
            running.stop.send_replace(true);
        }
        for task in self.running.into_iter().map(|running| running.task).chain(self.ending) {
            report_panic(task.await);
        }
    }
}
