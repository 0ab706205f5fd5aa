//! How many sessions each source has open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The open sessions of every source. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max_per_source: usize,
}

/// One session's place among those of its source; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    sources: Sources,
    source: IpAddr,
}

impl Sources {
    pub(super) fn new(max_per_source: usize) -> Self {
        Sources { open: Arc::default(), max_per_source }
    }

    /// Takes a place for a client, unless its source has all it may have.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let source = source_of(address);
        let mut open = self.lock();
        let count = open.entry(source).or_default();
        if *count >= self.max_per_source {
            if *count == 0 {
                open.remove(&source);
            }
            return None;
        }
        *count += 1;
        drop(open);
        Some(Place { sources: self.clone(), source })
    }

    /// The counts stay true when a thread panicked with the lock: nothing is half done under it.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sources.lock();
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

/// An IPv6 client has a /64 to choose addresses from, so the /64 is the source.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_number_of_places_and_leaves_nothing_behind() {
        let sources = Sources::new(2);
        let enter = |address: &str| sources.enter(address.parse().unwrap());
        let places = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(places.0.is_some() && places.1.is_some());
        assert!(enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::3").is_some());
        let v4 = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(enter("192.0.2.1").is_none());
        drop((places, v4));
        assert!(enter("2001:db8::3").is_some());
        assert!(sources.lock().is_empty());
    }
}
