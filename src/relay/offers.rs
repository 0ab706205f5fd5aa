//! What may be offered to a client: no more than what every next hop can keep. Of the size that one takes,
//! a part is for the header fields that are added on the way, so that a client hears at MAIL what would
//! not fit.

use futures_util::future::join_all;

use crate::relay::MAX_ADDED_BYTES;
use crate::relay::route::Hop;
use crate::smtp::client::Capabilities;
use crate::smtp::server::Offers;

/// Asks all hops at once, and joins what they say.
pub(super) async fn offers(hops: impl Iterator<Item = &Hop>) -> Offers {
    let mut asking = Vec::new();
    for hop in hops {
        asking.push(ask(hop));
    }
    join(join_all(asking).await.into_iter().flatten())
}

async fn ask(hop: &Hop) -> Option<(Capabilities, bool)> {
    match hop {
        Hop::Server(server) => {
            server.offered().await.map(|learned| (learned.capabilities, learned.is_verified))
        }
        Hop::Maildir(_) => {
            let any_bytes = Capabilities { chunking: true, binary_mime: true, ..Capabilities::default() };
            Some((any_bytes, false))
        }
    }
}

/// Joins what the hops in reach offer, each with whether it is proved to be the one that was meant.
fn join(offered: impl Iterator<Item = (Capabilities, bool)>) -> Offers {
    let each = offered.map(|(capabilities, is_verified)| Offers {
        // Zero would be no limit at all.
        size_bytes: capabilities
            .size
            .filter(|limit| *limit > 0)
            .map(|limit| limit.saturating_sub(MAX_ADDED_BYTES).max(1)),
        binary_mime: capabilities.binary_mime && capabilities.chunking,
        dsn: capabilities.dsn,
        require_tls: capabilities.require_tls && is_verified,
        mechanisms: Vec::new(),
    });
    let joined = each.reduce(|all, one| Offers {
        size_bytes: match (all.size_bytes, one.size_bytes) {
            (Some(smallest), Some(size)) => Some(smallest.min(size)),
            (size, None) | (None, size) => size,
        },
        binary_mime: all.binary_mime && one.binary_mime,
        dsn: all.dsn && one.dsn,
        require_tls: all.require_tls && one.require_tls,
        mechanisms: Vec::new(),
    });
    joined.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_hop_offers_is_offered_and_the_smallest_size() {
        let all = Capabilities {
            size: Some(MAX_ADDED_BYTES + 1000),
            binary_mime: true,
            chunking: true,
            dsn: true,
            require_tls: true,
            ..Capabilities::default()
        };
        let one = join([(all, true)].into_iter());
        assert!(one.binary_mime && one.dsn && one.require_tls);
        assert_eq!(one.size_bytes, Some(1000));
        let less = Capabilities { size: Some(10), dsn: false, ..all };
        let two = join([(all, true), (less, false)].into_iter());
        let expected = Offers { size_bytes: Some(1), binary_mime: true, ..Offers::default() };
        assert_eq!(two, expected);
        let unlimited = Capabilities { size: Some(0), chunking: false, ..all };
        let two = join([(unlimited, true), (all, true)].into_iter());
        assert_eq!((two.size_bytes, two.binary_mime), (Some(1000), false));
        assert_eq!(join(std::iter::empty()), Offers::default());
    }
}
