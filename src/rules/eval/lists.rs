//! The word and host lists in `rules/lists`, read once.

use std::collections::HashSet;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

/// A list of hosts; a host is on it when it, or a domain above it, is.
pub(super) struct Hosts(HashSet<&'static str>);

impl Hosts {
    fn read(text: &'static str) -> Self {
        Hosts(lines(text).collect())
    }

    /// Whether the host or a domain above it is on the list.
    pub(super) fn has_host(&self, host: &str) -> bool {
        let mut rest = host;
        loop {
            if self.0.contains(rest) {
                return true;
            }
            match rest.split_once('.') {
                Some((_, above)) => rest = above,
                None => return false,
            }
        }
    }
}

/// A name that is impersonated.
pub(super) struct Brand {
    /// The names, lower case.
    pub(super) names: Vec<&'static str>,
    /// The organisational domains that may use them.
    pub(super) domains: Vec<&'static str>,
}

impl Brand {
    /// Whether the domain may use the name.
    pub(super) fn owns(&self, domain: &str) -> bool {
        self.domains
            .iter()
            .any(|own| domain.strip_suffix(own).is_some_and(|above| above.is_empty() || above.ends_with('.')))
            || self.names.iter().any(|name| {
                // The brand's own name under the domain of a country: bradesco.com.br, dhl.fr.
                domain.split_once('.').is_some_and(|(label, rest)| {
                    label == name.replace([' ', '\''], "")
                        && (rest.len() == 2 || matches!(rest, "com" | "co.uk" | "com.br"))
                })
            })
    }
}

/// All lists.
pub(super) struct Lists {
    pub(super) shorteners: Hosts,
    pub(super) storage_hosts: Hosts,
    pub(super) function_hosts: Hosts,
    pub(super) site_hosts: Hosts,
    pub(super) image_hosts: Hosts,
    pub(super) image_platforms: Hosts,
    pub(super) bulk_hosts: Hosts,
    pub(super) freemail: Hosts,
    pub(super) cheap_tlds: Hosts,
    /// Brands in display names and subjects.
    pub(super) brands: Vec<Brand>,
    /// Brands in host names.
    pub(super) brand_hosts: Vec<Brand>,
    /// Finds the names of brands; `None` only when they could not be prepared.
    brand_names: Option<AhoCorasick>,
    /// The brand of each name.
    brand_of_name: Vec<usize>,
}

static LISTS: LazyLock<Lists> = LazyLock::new(|| {
    let brands = brands(include_str!("../../../rules/lists/brands.txt"));
    let names = brands.iter().enumerate();
    let names: Vec<(usize, &str)> =
        names.flat_map(|(brand, names)| names.names.iter().map(move |name| (brand, *name))).collect();
    Lists {
        shorteners: Hosts::read(include_str!("../../../rules/lists/shorteners.txt")),
        storage_hosts: Hosts::read(include_str!("../../../rules/lists/storage_hosts.txt")),
        function_hosts: Hosts::read(include_str!("../../../rules/lists/function_hosts.txt")),
        site_hosts: Hosts::read(include_str!("../../../rules/lists/site_hosts.txt")),
        image_hosts: Hosts::read(include_str!("../../../rules/lists/image_hosts.txt")),
        image_platforms: Hosts::read(include_str!("../../../rules/lists/image_platforms.txt")),
        bulk_hosts: Hosts::read(include_str!("../../../rules/lists/bulk_hosts.txt")),
        freemail: Hosts::read(include_str!("../../../rules/lists/freemail.txt")),
        cheap_tlds: Hosts::read(include_str!("../../../rules/lists/cheap_tlds.txt")),
        brand_names: AhoCorasick::new(names.iter().map(|(_, name)| *name)).ok(),
        brand_of_name: names.iter().map(|(brand, _)| *brand).collect(),
        brands,
        brand_hosts: self::brands(include_str!("../../../rules/lists/brand_hosts.txt")),
    }
});

impl Lists {
    /// Returns the lists.
    pub(super) fn get() -> &'static Lists {
        &LISTS
    }

    /// Returns the list of hosts that a rule file names.
    pub(super) fn hosts(&self, name: &str) -> Option<&Hosts> {
        Some(match name {
            "shorteners" => &self.shorteners,
            "storage" => &self.storage_hosts,
            "functions" => &self.function_hosts,
            "sites" => &self.site_hosts,
            "images" => &self.image_hosts,
            "image_platforms" => &self.image_platforms,
            "bulk" => &self.bulk_hosts,
            "freemail" => &self.freemail,
            "cheap_tlds" => &self.cheap_tlds,
            _ => return None,
        })
    }

    /// Returns the brands that a text names as whole words.
    pub(super) fn brands_in(&self, text: &str) -> Vec<&Brand> {
        let text = text.to_lowercase();
        let is_free = |neighbour: Option<char>| neighbour.is_none_or(|c| !c.is_alphanumeric());
        let mut found: Vec<usize> = Vec::new();
        for name in self.brand_names.iter().flat_map(|names| names.find_overlapping_iter(&text)) {
            let before = text.get(..name.start()).and_then(|before| before.chars().next_back());
            let behind = text.get(name.end()..).and_then(|behind| behind.chars().next());
            let brand = self.brand_of_name.get(name.pattern().as_usize()).copied();
            if let Some(brand) =
                brand.filter(|brand| is_free(before) && is_free(behind) && !found.contains(brand))
            {
                found.push(brand);
            }
        }
        found.sort_unstable();
        found.into_iter().filter_map(|brand| self.brands.get(brand)).collect()
    }
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn brands(text: &'static str) -> Vec<Brand> {
    lines(text)
        .filter_map(|line| line.split_once('|'))
        .map(|(names, domains)| Brand {
            names: names.split(',').map(str::trim).collect(),
            domains: domains.split_whitespace().collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_complete() {
        let lists = Lists::get();
        assert_eq!(
            lists.brand_names.as_ref().map(AhoCorasick::patterns_len),
            Some(lists.brand_of_name.len())
        );
        assert!(lists.brands.iter().chain(&lists.brand_hosts).all(|brand| !brand.domains.is_empty()));
        assert!(lists.freemail.has_host("gmail.com") && !lists.freemail.has_host("example.com"));
        assert!(lists.cheap_tlds.has_host("a.b.xyz") && !lists.cheap_tlds.has_host("xyz.com"));
        assert!(lists.storage_hosts.has_host("x.storage.googleapis.com"));
    }

    #[test]
    fn brands_are_found_as_whole_words() {
        let found = |text: &str| !Lists::get().brands_in(text).is_empty();
        assert!(found("PayPal Security") && found("Your PAYPAL, today"));
        assert!(!found("paypalish") && !found("Jane Doe"));
        let paypal = Lists::get().brands_in("paypal");
        assert!(paypal[0].owns("mail.paypal.com") && !paypal[0].owns("paypal.com.evil.example"));
    }
}
