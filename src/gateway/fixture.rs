//! A gateway over stores in a folder, for tests: it lets everybody in, learns nothing by itself and marks with its id.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::{Access, Authority, Clock, Gateway, Marking, SignIns};
use crate::journal::{self, Journal};
use crate::mail::Direction;
use crate::policy::Policy;
use crate::privacy::{InstallationKey, PseudonymKey};
use crate::quarantine::{self, Quarantine};
use crate::relay::{self, NextHop, Relay};
use crate::rules::{Organisation, RuleSet, Source};
use crate::scan::{self, Rules, Scanner};
use crate::store::{Bodies, Records};

/// The key of its stores.
pub(crate) fn key() -> InstallationKey {
    InstallationKey::new([5; 32])
}

/// Opens its journal, always at the same time.
pub(crate) fn open_journal(folder: &Path, now: OffsetDateTime) -> (Journal, journal::Recovered) {
    let clock = Arc::new(move || now);
    Journal::open(&folder.join("journal"), &key(), journal::Config::default(), clock).unwrap()
}

/// Makes it, with these rules for both directions.
pub(crate) async fn gateway(
    folder: &Path,
    next_hop: NextHop,
    rules: &[u8],
    policy: Arc<Policy>,
    now: OffsetDateTime,
) -> Gateway {
    let records = Records::open(&folder.join("records.db")).await.unwrap();
    let bodies = Bodies::open(&folder.join("bodies")).unwrap();
    let rules = || RuleSet::compile(&[Source::new("t.cf", rules)]).0;
    let rules = Rules { inbound: rules(), outbound: rules(), organisation: Organisation::default() };
    let scans = scan::Config { concurrency: 2, timeout: Duration::from_secs(60) };
    let scanner = Scanner::of_test(&records, scans, rules).await;
    let clock: Clock = Arc::new(move || now);
    let pseudonyms = PseudonymKey::new(&key());
    Gateway {
        direction: Direction::Inbound,
        hostname: "gw.example".into(),
        access: Access::Domains(Vec::new()),
        sign_ins: SignIns {
            authority: Authority::Nobody,
            needs_tls: true,
            pseudonyms: pseudonyms.clone(),
            clock: Arc::clone(&clock),
        },
        relay: Relay::new(relay::Config::new(next_hop, "gw.example")),
        scanner,
        unscanned: Arc::new([]),
        implies: true,
        learns_by_itself: false,
        traps: Arc::default(),
        policy,
        marking: Marking::Id,
        quarantine: Quarantine::open(records, bodies, &key(), quarantine::Config::default()).await.unwrap(),
        journal: open_journal(folder, now).0,
        pseudonyms,
        clock,
    }
}
