//! Links that a list of known phishing addresses names: SpamAssassin's `Phishing`, over the files of OpenPhish,
//! PhishTank and PhishStats that an administrator keeps beside the rules.

use std::collections::HashSet;

use url::Url;

use crate::message::LinkSource;
use crate::rules::definition::Settings;
use crate::rules::source::{FEEDS, Role, Source};

use super::{Context, Function};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[("check_phishing", listed)];

/// Most addresses that are kept.
const ADDRESSES: usize = 2_000_000;

/// Known addresses, in the spelling of the URL standard.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    addresses: HashSet<String>,
    /// Whether what follows the question mark does not count.
    is_without_query: bool,
}

impl Feeds {
    /// Reads the files that the statements name.
    pub(super) fn read(settings: &Settings, sources: &[Source]) -> Self {
        let least = settings.lines("phishing_phishstats_minscore").last();
        let least: f64 = least.and_then(|score| score.parse().ok()).unwrap_or(5.0);
        let switch = settings.lines("phishing_uri_noparam").last();
        let mut feeds = Feeds {
            addresses: HashSet::new(),
            is_without_query: switch.is_some_and(|switch| matches!(switch, "1" | "yes")),
        };
        for source in sources {
            let Role::Feed(keyword) = source.role else { continue };
            // A statement in a part of a file that does not apply names nothing.
            if !settings.lines(keyword).any(|name| source.name == name) {
                continue;
            }
            for line in source.text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
                let mut fields = line.split(',').map(|field| field.trim_matches('"'));
                let address = match FEEDS.iter().position(|feed| *feed == keyword) {
                    Some(0) => Some(line),
                    Some(1) => fields.nth(1),
                    _ => {
                        let score = fields.nth(1).and_then(|score| score.parse::<f64>().ok());
                        fields.next().filter(|_| score.is_some_and(|score| score > least))
                    }
                };
                if feeds.addresses.len() >= ADDRESSES {
                    break;
                }
                feeds.addresses.extend(address.and_then(|address| feeds.normal(address)));
            }
        }
        feeds
    }

    /// Returns an address as it is compared. Without its query, one that has no path of its own says too little.
    fn normal(&self, address: &str) -> Option<String> {
        let mut url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        url.set_fragment(None);
        if self.is_without_query {
            url.set_query(None);
            if url.path().matches('/').count() < 2 {
                return None;
            }
        }
        Some(url.into())
    }
}

/// A link that can be followed is on one of the lists.
fn listed(context: &Context<'_>, _: &[String]) -> Option<String> {
    let feeds = &context.families.feeds;
    if feeds.addresses.is_empty() {
        return None;
    }
    let links = context.message.links.iter().filter(|link| link.source != LinkSource::Image);
    let found = links
        .filter(|link| feeds.normal(&link.target).is_some_and(|address| feeds.addresses.contains(&address)));
    let host = found.filter_map(|link| link.host()).next()?;
    Some(format!("A link to {host} is on a list of phishing addresses."))
}
