//! What is remembered of earlier mail, and what lists say, of a message from the world.

use time::OffsetDateTime;

use super::Shared;
use crate::mail::{Address, Direction, Envelope};
use crate::message::{self, Message};
use crate::rules::Authentication;
use crate::verdict::Finding;

/// Most links whose hosts are looked for in lists.
const LISTED_LINKS: usize = 50;

impl Shared {
    /// Returns what is remembered of earlier mail that bears on a message from the world, and what of it is about one
    /// recipient alone.
    pub(super) fn remembered(
        &self,
        message: &Message,
        envelope: &Envelope,
        authentication: Option<&Authentication>,
        now: Option<OffsetDateTime>,
    ) -> (Vec<Finding>, Vec<(usize, Finding)>) {
        if envelope.direction != Direction::Inbound {
            return Default::default();
        }
        let reputation = &self.reputation;
        let mut found =
            if reputation.has_lists() { reputation.listed(&names(message, envelope)) } else { Vec::new() };
        let Some(now) = now.map(OffsetDateTime::unix_timestamp) else { return (found, Vec::new()) };
        found.extend(reputation.bulk(message, envelope.recipients.len(), now));
        let own = envelope.recipients.iter().enumerate().filter_map(|(place, recipient)| {
            let known = reputation.acquaintance(&message.from, &recipient.address, authentication, now)?;
            Some((place, known))
        });
        (found, own.collect())
    }
}

/// Returns what may be on a list: the client's address, sender and author with their domains, the hosts of links and their
/// domains, in lower case.
fn names(message: &Message, envelope: &Envelope) -> Vec<String> {
    let mut names = vec![envelope.client.address.ip().to_canonical().to_string()];
    let sender = envelope.mail.reverse_path.as_ref().map(Address::to_normalized);
    let author = message.from.first().map(|author| author.address.to_lowercase());
    for address in [sender, author].into_iter().flatten() {
        names.extend(address.rsplit_once('@').map(|(_, domain)| domain.to_owned()));
        names.push(address);
    }
    names.extend(message.links.iter().take(LISTED_LINKS).filter_map(message::Link::host));
    let domains = names.iter().filter_map(|name| psl::domain_str(name)).map(str::to_owned);
    let domains: Vec<String> = domains.collect();
    names.extend(domains);
    names.sort_unstable();
    names.dedup();
    names
}
