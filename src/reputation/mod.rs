//! What is remembered of the mail of earlier hours and days, without keeping any of it: to whom our people wrote, and of which
//! texts there were many. And lists that somebody else keeps.
//!
//! What is remembered cannot be read back: it stands in keyed filters that answer for an item whether it was there, and
//! rotate. An address that is asked for without being known says nothing. See `filter`.

mod bulk;
mod filter;
mod list;

use std::sync::{Arc, Mutex, PoisonError};

pub use filter::{Counting, Rotating, Shape};
pub use list::{List, ListError};

use crate::learn::FeatureKey;
use crate::mail::Address;
use crate::message::{Mailbox, Message};
use crate::metrics::Gauge;
use crate::privacy::{InstallationKey, Purpose};
use crate::rules::{Authentication, Outcome};
use crate::store::{State, StateError};
use crate::verdict::{Finding, Symbol};

/// The name of the correspondents in the state store.
const CORRESPONDENTS: &str = "correspondents";
const DAY_SECONDS: i64 = 86_400;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Pairs of a person and somebody to whom they wrote, in a quarter of a year.
    pub correspondents: usize,
    /// How often a stranger is taken for a correspondent.
    pub false_positives: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config { correspondents: 250_000, false_positives: 0.001 }
    }
}

impl Config {
    fn shape(&self) -> Shape {
        // Each pair stands in it twice: for the person, and for their domain.
        Shape {
            items: self.correspondents.saturating_mul(2),
            false_positives: self.false_positives,
            period: 91 * DAY_SECONDS,
            generations: 4,
        }
    }
}

/// How well we know who wrote to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquaintance {
    /// The recipient wrote to them.
    Own,
    /// Somebody of the recipient's domain wrote to them.
    Colleague,
}

/// What is remembered. Cloning shares it.
#[derive(Clone)]
pub struct Reputation {
    shared: Arc<Shared>,
    lists: Arc<[Named]>,
}

struct Shared {
    config: Config,
    key: [u8; 32],
    words: FeatureKey,
    correspondents: Mutex<Rotating>,
    bulk: Mutex<Counting>,
}

/// A list and what it means to be on it.
pub struct Named {
    /// The symbol of its finding.
    pub symbol: Symbol,
    /// The points.
    pub points: f64,
    /// What is listed.
    pub list: List,
}

impl Reputation {
    /// Begins with nothing remembered.
    pub fn new(config: Config, root: &InstallationKey) -> Self {
        let key = root.derive(Purpose::Filters);
        let shared = Shared {
            config,
            key,
            words: FeatureKey::new(root),
            correspondents: Mutex::new(Rotating::new(config.shape(), key)),
            bulk: Mutex::new(bulk::counting()),
        };
        Reputation { shared: Arc::new(shared), lists: Arc::default() }
    }

    /// Begins with what was remembered before. What cannot be read is left out, and said in the log.
    pub fn restore(config: Config, root: &InstallationKey, state: &dyn State) -> Self {
        let this = Reputation::new(config, root);
        match state.get(CORRESPONDENTS) {
            Ok(Some(bytes)) => match Rotating::decode(config.shape(), this.shared.key, &bytes) {
                Some(read) => *this.correspondents() = read,
                None => tracing::warn!(
                    "correspondents are remembered anew: their filter has another shape or key"
                ),
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "correspondents are remembered anew"),
        }
        this
    }

    /// Stores what is worth remembering over a restart.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn store(&self, state: &dyn State) -> Result<(), StateError> {
        let (bytes, rate) = {
            let correspondents = self.correspondents();
            (correspondents.encode(), correspondents.false_positive_rate())
        };
        Gauge::CorrespondentsFalsePositives.set(rate);
        state.put(CORRESPONDENTS, &bytes)
    }

    /// Takes other lists.
    pub fn with_lists(&self, lists: Vec<Named>) -> Self {
        Reputation { shared: Arc::clone(&self.shared), lists: lists.into() }
    }

    /// Returns the key of a list's filter.
    pub fn key(&self) -> [u8; 32] {
        self.shared.key
    }

    /// Remembers that a person wrote to others, at a second of the clock.
    pub fn wrote<'a>(&self, person: &Address, to: impl Iterator<Item = &'a Address>, now: i64) {
        let mut correspondents = self.correspondents();
        for other in to {
            for item in items(person, &other.to_normalized()) {
                correspondents.insert(&item, now);
            }
        }
    }

    /// Whether a recipient, or somebody of their domain, wrote to an address lately.
    pub fn knows(&self, recipient: &Address, other: &str, now: i64) -> Option<Acquaintance> {
        let other = Address::parse(other).ok()?.to_normalized();
        let correspondents = self.correspondents();
        let [own, colleague] = items(recipient, &other);
        if correspondents.contains(&own, now) {
            Some(Acquaintance::Own)
        } else {
            correspondents.contains(&colleague, now).then_some(Acquaintance::Colleague)
        }
    }

    /// Returns what it says for a recipient that they or their colleagues wrote to the author: nothing where the author is
    /// known to be forged, and little where nobody has looked.
    pub fn acquaintance(
        &self,
        from: &[Mailbox],
        recipient: &Address,
        authentication: Option<&Authentication>,
        now: i64,
    ) -> Option<Finding> {
        let [author] = from else { return None };
        let domain = author.address.rsplit_once('@').map_or("", |(_, domain)| domain).to_ascii_lowercase();
        let share = match authentication {
            Some(results) if results.dmarc == Some(Outcome::Fail) => return None,
            Some(results) => {
                let signed = |(signer, outcome): &(String, Outcome)| {
                    *outcome == Outcome::Pass
                        && (domain == *signer || domain.ends_with(&format!(".{signer}")))
                };
                if results.dmarc == Some(Outcome::Pass) || results.dkim.iter().any(signed) {
                    1.0
                } else {
                    1.0 / 3.0
                }
            }
            None => 1.0 / 3.0,
        };
        let (symbol, points, who) = match self.knows(recipient, &author.address, now)? {
            Acquaintance::Own => ("CORRESPONDENT", -3.0, "The recipient wrote"),
            Acquaintance::Colleague => {
                ("CORRESPONDENT_OF_COLLEAGUE", -1.5, "Somebody of the recipient's domain wrote")
            }
        };
        let proof = if share < 1.0 { ", but nobody has proved that it is really from there" } else { "" };
        let text = format!("{who} to this sender within the last year{proof}.");
        Some(Finding::new(Symbol::fixed(symbol), points * share, text))
    }

    /// Counts the text of a message for so many recipients, and returns what it says that there were many like it.
    pub fn bulk(&self, message: &Message, recipients: usize, now: i64) -> Option<Finding> {
        let sketch = bulk::sketch(&message.text, &self.shared.words)?;
        let mut counting = self.shared.bulk.lock().unwrap_or_else(PoisonError::into_inner);
        bulk::finding(bulk::count(&mut counting, &sketch, recipients, now))
    }

    /// Returns what lists say of some entries, in lower case.
    pub fn listed(&self, entries: &[String]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for Named { symbol, points, list } in self.lists.iter() {
            let found = entries.iter().find(|entry| {
                list.contains(entry).unwrap_or_else(|error| {
                    tracing::error!(list = %symbol, %error, "a list could not be read");
                    false
                })
            });
            if let Some(entry) = found {
                findings.push(Finding::new(symbol.clone(), *points, format!("{entry} is on a list.")));
            }
        }
        findings
    }

    /// Whether there are lists.
    pub fn has_lists(&self) -> bool {
        !self.lists.is_empty()
    }

    fn correspondents(&self) -> std::sync::MutexGuard<'_, Rotating> {
        self.shared.correspondents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Reputation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reputation({:?}, {} lists)", self.shared.config, self.lists.len())
    }
}

/// Names a pair of a person and somebody else, and of the person's domain and somebody else.
fn items(person: &Address, other: &str) -> [Vec<u8>; 2] {
    let person_name = person.to_normalized();
    let domain = person.domain().map_or("", |domain| domain.as_str()).to_ascii_lowercase();
    [format!("p\0{person_name}\0{other}"), format!("d\0{domain}\0{other}")].map(String::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn root() -> InstallationKey {
        InstallationKey::new([6; 32])
    }

    fn from(address: &str) -> Vec<Mailbox> {
        vec![Mailbox { name: String::new(), address: address.to_owned() }]
    }

    #[test]
    fn whom_our_people_wrote_to_is_known_to_them_and_a_little_to_their_colleagues() {
        let reputation = Reputation::new(Config::default(), &root());
        let (ann, bob, carl) =
            (address("Ann@example.org"), address("bob@example.org"), address("carl@example.net"));
        reputation.wrote(&ann, [address("Friend@Example.com")].iter(), 0);
        let points = |recipient: &Address, other: &str, results: Option<&Authentication>| {
            let found = reputation.acquaintance(&from(other), recipient, results, DAY_SECONDS);
            found.map(|finding| (finding.symbol.to_string(), finding.score.points()))
        };
        let dmarc = |outcome| Authentication { dmarc: Some(outcome), ..Authentication::default() };
        let own = "CORRESPONDENT".to_owned();
        assert_eq!(
            points(&ann, "friend@example.com", Some(&dmarc(Outcome::Pass))),
            Some((own.clone(), -3.0))
        );
        assert_eq!(points(&ann, "friend@example.com", Some(&dmarc(Outcome::Fail))), None);
        assert_eq!(points(&ann, "friend@example.com", None), Some((own.clone(), -1.0)));
        let signed = Authentication {
            dkim: vec![("example.com".to_owned(), Outcome::Pass)],
            ..Authentication::default()
        };
        assert_eq!(points(&ann, "friend@example.com", Some(&signed)), Some((own, -3.0)));
        let colleague = "CORRESPONDENT_OF_COLLEAGUE".to_owned();
        assert_eq!(points(&bob, "friend@example.com", None), Some((colleague, -0.5)));
        assert_eq!(points(&carl, "friend@example.com", None), None);
        assert_eq!(points(&ann, "other@example.com", None), None);
        // A year later it is forgotten.
        assert_eq!(reputation.knows(&ann, "friend@example.com", 365 * DAY_SECONDS), None);
    }

    #[test]
    fn correspondents_survive_a_restart_under_the_same_key() {
        let state = Memory::default();
        let reputation = Reputation::new(Config::default(), &root());
        let ann = address("ann@example.org");
        reputation.wrote(&ann, [address("friend@example.com")].iter(), 0);
        reputation.store(&state).unwrap();
        let knows = |root: &InstallationKey, config| {
            Reputation::restore(config, root, &state).knows(&ann, "friend@example.com", 0)
        };
        assert_eq!(knows(&root(), Config::default()), Some(Acquaintance::Own));
        assert_eq!(knows(&InstallationKey::new([7; 32]), Config::default()), None);
        assert_eq!(knows(&root(), Config { correspondents: 9, ..Config::default() }), None);
        // Nothing of it can be read.
        let stored = state.get(CORRESPONDENTS).unwrap().unwrap();
        assert!(!stored.windows(6).any(|bytes| bytes == b"friend"));
        state.put(CORRESPONDENTS, b"nonsense").unwrap();
        assert_eq!(knows(&root(), Config::default()), None);
    }
}
