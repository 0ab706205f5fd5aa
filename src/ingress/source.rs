//! How many sessions are open: in all, from each source, and from each network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::metrics::Gauge;

/// The open sessions, shared by every listener of the process: a client that is turned away at one door does
/// not come in by the next. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    groups: HashMap<IpNet, usize>,
}

/// How many sessions may be open at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) per_source: usize,
    pub(super) per_network: usize,
}

/// Which cap a client is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Source,
    Network,
}

/// A session, or what precedes it, among all of them; given back when dropped.
#[derive(Debug)]
pub(super) struct Counted {
    sessions: Sessions,
}

/// One session's place among those of its source and network; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    sessions: Sessions,
    held: [IpNet; 2],
}

impl Sessions {
    /// Counts a connection that has come in; `None` where there are as many as there may be.
    pub(super) fn arrive(&self, max_sessions: usize) -> Option<Counted> {
        let mut open = self.lock();
        if open.all >= max_sessions {
            return None;
        }
        open.all += 1;
        drop(open);
        Gauge::Sessions.add(1.0);
        Some(Counted { sessions: self.clone() })
    }

    /// Takes a place for a client, unless its source or its network has all it may have.
    pub(super) fn enter(&self, address: IpAddr, caps: Caps) -> Result<Place, Full> {
        let held = [source_of(address), network_of(address)];
        let limits = [(caps.per_source, Full::Source), (caps.per_network, Full::Network)];
        let mut open = self.lock();
        for (group, (cap, full)) in held.iter().zip(limits) {
            if open.groups.get(group).copied().unwrap_or(0) >= cap {
                return Err(full);
            }
        }
        for group in held {
            *open.groups.entry(group).or_default() += 1;
        }
        drop(open);
        Ok(Place { sessions: self.clone(), held })
    }

    /// The counts stay true when a thread panicked with the lock: nothing is half done under it.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sessions.lock().all -= 1;
        Gauge::Sessions.add(-1.0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sessions.lock();
        for group in self.held {
            if let Some(count) = open.groups.get_mut(&group) {
                *count -= 1;
                if *count == 0 {
                    open.groups.remove(&group);
                }
            }
        }
    }
}

/// An IPv6 client has a /64 to choose addresses from, so the /64 is the source.
fn source_of(address: IpAddr) -> IpNet {
    group(address, 32, 64)
}

/// What one customer of a provider is given, most often.
fn network_of(address: IpAddr) -> IpNet {
    group(address, 24, 48)
}

fn group(address: IpAddr, v4_prefix: u8, v6_prefix: u8) -> IpNet {
    let address = address.to_canonical();
    let prefix = if address.is_ipv4() { v4_prefix } else { v6_prefix };
    IpNet::new(address, prefix).unwrap_or_else(|_| address.into()).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(
        sessions: &Sessions,
        address: &str,
        per_source: usize,
        per_network: usize,
    ) -> Result<Place, Full> {
        sessions.enter(address.parse().unwrap(), Caps { per_source, per_network })
    }

    #[test]
    fn a_source_has_a_number_of_places_and_leaves_nothing_behind() {
        let sessions = Sessions::default();
        let enter = |address: &str| enter(&sessions, address, 2, 100);
        let places = (enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap());
        assert_eq!(enter("2001:db8::3").unwrap_err(), Full::Source);
        assert!(enter("2001:db8:0:1::3").is_ok());
        let v4 = (enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap());
        assert_eq!(enter("192.0.2.1").unwrap_err(), Full::Source);
        assert!(enter("192.0.2.2").is_ok());
        drop((places, v4));
        assert!(enter("2001:db8::3").is_ok());
        assert!(sessions.lock().groups.is_empty());
    }

    #[test]
    fn a_network_has_a_number_of_places_however_they_are_spread() {
        let sessions = Sessions::default();
        let enter = |address: &str| enter(&sessions, address, 100, 2);
        let places = (enter("192.0.2.1").unwrap(), enter("192.0.2.200").unwrap());
        assert_eq!(enter("192.0.2.3").unwrap_err(), Full::Network);
        assert!(enter("192.0.3.3").is_ok());
        let v6 = (enter("2001:db8:1:1::1").unwrap(), enter("2001:db8:1:2::1").unwrap());
        assert_eq!(enter("2001:db8:1:3::1").unwrap_err(), Full::Network);
        assert!(enter("2001:db8:2:3::1").is_ok());
        drop((places, v6));
        assert!(sessions.lock().groups.is_empty());
    }

    #[test]
    fn no_places_at_all_leaves_nothing_behind() {
        let sessions = Sessions::default();
        assert_eq!(enter(&sessions, "192.0.2.1", 0, 1).unwrap_err(), Full::Source);
        assert_eq!(enter(&sessions, "192.0.2.1", 1, 0).unwrap_err(), Full::Network);
        assert!(sessions.lock().groups.is_empty());
    }

    #[test]
    fn all_sessions_together_have_a_number_of_places() {
        let sessions = Sessions::default();
        let held = (sessions.arrive(2).unwrap(), sessions.clone().arrive(2).unwrap());
        assert!(sessions.arrive(2).is_none());
        assert!(sessions.arrive(3).is_some());
        drop(held);
        assert!(sessions.arrive(1).is_some());
        assert_eq!(sessions.lock().all, 0);
    }
}
