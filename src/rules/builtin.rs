//! Our own rules: `rules/*.cf`, carried in the program.

use crate::mail::Direction;

use super::{RuleSet, Source};

/// The files for both directions, then those for one.
const COMMON: [(&str, &str); 1] = [("common.cf", include_str!("../../rules/common.cf"))];
const INBOUND: [(&str, &str); 4] = [
    ("inbound-sender.cf", include_str!("../../rules/inbound-sender.cf")),
    ("inbound-links.cf", include_str!("../../rules/inbound-links.cf")),
    ("inbound-topics.cf", include_str!("../../rules/inbound-topics.cf")),
    ("scores.cf", include_str!("../../rules/scores.cf")),
];
const OUTBOUND: [(&str, &str); 1] = [("outbound.cf", include_str!("../../rules/outbound.cf"))];

/// Returns our own rule files for a direction.
pub(super) fn sources(direction: Direction) -> Vec<Source> {
    let own: &[(&str, &str)] = match direction {
        Direction::Inbound => &INBOUND,
        Direction::Outbound => &OUTBOUND,
    };
    let source = |(name, text): &(&str, &str)| Source::new(*name, text.as_bytes());
    COMMON.iter().chain(own).map(source).collect()
}

impl RuleSet {
    /// Compiles our own rules for a direction.
    pub fn built_in(direction: Direction) -> RuleSet {
        // A test proves that nothing in them is refused.
        RuleSet::compile(&sources(direction)).0
    }

    /// Returns our own rule files for a direction, to compile them together with an administrator's.
    pub fn built_in_sources(direction: Direction) -> Vec<Source> {
        sources(direction)
    }
}
