//! MTA-STS: which hosts a domain's mail may go to, as the domain says over HTTPS (RFC 8461).
//!
//! A policy is kept in memory until it expires and protects the domain for that long, also while its record
//! or its host cannot be reached: whoever suppresses them gains nothing. It is fetched again when the
//! announced id changes, and once a day. After a fetch that failed the host is left alone for a while.

mod fetch;
mod policy;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

use self::fetch::{FetchError, Fetcher};
use self::policy::announced_id;
use super::ascii_name;
use crate::dns::Resolver;
use crate::mail::Domain;
use crate::metrics::Counter;
use crate::privacy::error_chain;

pub(super) use policy::{Mode, Policy};

/// Domains whose policy is kept; the least recently used goes.
const MAX_DOMAINS: usize = 4096;
/// A policy is fetched again after this time even if its id is the same (RFC 8461, section 3.3).
const REFRESH_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// After a failed fetch the next one waits this long (RFC 8461, section 3.3).
const RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// The policies of domains.
pub(super) struct Policies {
    resolver: Arc<dyn Resolver>,
    fetcher: Fetcher,
    domains: std::sync::Mutex<HashMap<String, Slot>>,
}

struct Slot {
    /// Locked while the policy is fetched, so that mail for one domain fetches it once.
    state: Arc<Mutex<State>>,
    used: Instant,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// When a fetch was begun that has not succeeded.
    failed: Option<Instant>,
}

struct Known {
    id: String,
    policy: Arc<Policy>,
    fetched: Instant,
}

impl Known {
    fn is_live(&self, now: Instant) -> bool {
        now.duration_since(self.fetched) < self.policy.max_age()
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.fetched) < REFRESH_AFTER
    }
}

impl Policies {
    /// Makes an empty store; policy hosts are verified with `tls`.
    pub(super) fn new(resolver: Arc<dyn Resolver>, tls: Option<Arc<ClientConfig>>, port: u16) -> Self {
        let fetcher = Fetcher::new(Arc::clone(&resolver), tls, port);
        Policies { resolver, fetcher, domains: std::sync::Mutex::default() }
    }

    /// Returns the policy that holds for a domain; `None` where there is none, or none can be had.
    pub(super) async fn policy(&self, domain: &Domain) -> Option<Arc<Policy>> {
        self.policy_at(domain, Instant::now()).await
    }

    async fn policy_at(&self, domain: &Domain, now: Instant) -> Option<Arc<Policy>> {
        let name = ascii_name(domain.as_str())?;
        let name = name.as_ref();
        // A record that cannot be looked up is as good as none: what is kept holds.
        let texts = self.resolver.txt(&format!("_mta-sts.{name}")).await.unwrap_or_default();
        let id = announced_id(&texts);
        let state = self.state(name, id.is_some(), now)?;
        let mut state = state.lock().await;
        let live = state.known.as_ref().filter(|known| known.is_live(now));
        let kept = live.map(|known| Arc::clone(&known.policy));
        let Some(id) = id else { return kept };
        if live.is_some_and(|known| known.id == id && known.is_fresh(now))
            || state.failed.is_some_and(|failed| now.duration_since(failed) < RETRY_AFTER)
        {
            return kept;
        }
        // Set before, so that it stands if the caller loses patience and drops us.
        state.failed = Some(now);
        let fetched = self.fetcher.fetch(name).await;
        let result = fetched.as_ref().err().map_or("done", FetchError::kind);
        Counter::MtaStsFetches.increment(&[("result", result)]);
        match fetched {
            Ok(policy) => {
                let policy = Arc::new(policy);
                let known = Known { id: id.to_owned(), policy: Arc::clone(&policy), fetched: now };
                *state = State { known: Some(known), failed: None };
                Some(policy)
            }
            Err(error) => {
                tracing::warn!(
                    ?domain,
                    error = error_chain(&error),
                    is_kept = kept.is_some(),
                    "cannot fetch an MTA-STS policy"
                );
                kept
            }
        }
    }

    /// Returns the state of a domain; a new one only for a domain that announces a policy.
    fn state(&self, name: &str, is_announced: bool, now: Instant) -> Option<Arc<Mutex<State>>> {
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = domains.get_mut(name) {
            slot.used = slot.used.max(now);
            return Some(Arc::clone(&slot.state));
        }
        if !is_announced {
            return None;
        }
        if domains.len() >= MAX_DOMAINS {
            let oldest = domains.iter().min_by_key(|(_, slot)| slot.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| domains.remove(&name));
        }
        let state = Arc::<Mutex<State>>::default();
        domains.insert(name.to_owned(), Slot { state: Arc::clone(&state), used: now });
        Some(state)
    }
}

#[cfg(test)]
mod tests;
