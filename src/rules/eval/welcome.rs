//! Lists of addresses and hosts in rule files: SpamAssassin's `WLBLEval`, and the checks that rest on proof of
//! the sender (`DKIM`, `SPF`, `DMARC`), which hit on real results alone.

use std::collections::{HashMap, HashSet};

use super::{Context, Function, domain_of, plainly};
use crate::rules::Outcome;
use crate::rules::definition::Settings;
use crate::rules::read::matches;

/// Most globs with a star that cannot be looked up by their domain.
const GLOBS: usize = 5_000;

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_from_in_welcomelist", |context, _| {
        plainly(from_in(context, "welcomelist_from") && !from_in(context, "unwelcomelist_from"))
    }),
    ("check_from_in_whitelist", |context, _| {
        plainly(from_in(context, "welcomelist_from") && !from_in(context, "unwelcomelist_from"))
    }),
    ("check_from_in_default_welcomelist", |context, _| plainly(from_in(context, "def_welcomelist_from"))),
    ("check_from_in_default_whitelist", |context, _| plainly(from_in(context, "def_welcomelist_from"))),
    ("check_from_in_blocklist", |context, _| {
        plainly(from_in(context, "blocklist_from") && !from_in(context, "unblocklist_from"))
    }),
    ("check_from_in_blacklist", |context, _| {
        plainly(from_in(context, "blocklist_from") && !from_in(context, "unblocklist_from"))
    }),
    ("check_to_in_welcomelist", |context, _| plainly(to_in(context, "welcomelist_to"))),
    ("check_to_in_whitelist", |context, _| plainly(to_in(context, "welcomelist_to"))),
    ("check_to_in_blocklist", |context, _| {
        plainly(to_in(context, "blocklist_to") && !to_in(context, "unblocklist_to"))
    }),
    ("check_to_in_blacklist", |context, _| {
        plainly(to_in(context, "blocklist_to") && !to_in(context, "unblocklist_to"))
    }),
    ("check_to_in_more_spam", |context, _| plainly(to_in(context, "more_spam_to"))),
    ("check_to_in_all_spam", |context, _| plainly(to_in(context, "all_spam_to"))),
    ("check_from_in_list", |context, arguments| {
        plainly(from_in(context, &format!("addrlist {}", arguments.first()?)))
    }),
    ("check_replyto_in_list", reply_to_in),
    ("check_subject_in_welcomelist", |context, _| subject_in(context, "welcomelist_subject")),
    ("check_subject_in_whitelist", |context, _| subject_in(context, "welcomelist_subject")),
    ("check_subject_in_blocklist", |context, _| subject_in(context, "blocklist_subject")),
    ("check_subject_in_blacklist", |context, _| subject_in(context, "blocklist_subject")),
    ("check_uri_host_listed", |context, arguments| host_in(context, arguments.first()?)),
    ("check_uri_host_in_welcomelist", |context, _| host_in(context, "WELCOME")),
    ("check_uri_host_in_whitelist", |context, _| host_in(context, "WELCOME")),
    ("check_uri_host_in_blocklist", |context, _| host_in(context, "BLOCK")),
    ("check_uri_host_in_blacklist", |context, _| host_in(context, "BLOCK")),
    ("check_dkim_signed", |context, _| plainly(has_field(context, "DKIM-Signature"))),
    ("check_arc_signed", |context, _| plainly(has_field(context, "ARC-Seal"))),
    ("check_arc_valid", |context, _| {
        plainly(context.subject().evidence.authentication.as_ref()?.arc == Some(Outcome::Pass))
    }),
    ("check_dkim_valid", |context, _| plainly(dkim_passes(context, |_| true))),
    ("check_dkim_valid_author_sig", |context, _| {
        plainly(dkim_passes(context, |signer| signer == context.from_domain))
    }),
    ("check_dkim_valid_envelopefrom", |context, _| {
        plainly(dkim_passes(context, |signer| signer == context.return_domain))
    }),
    ("check_dkim_dependable", |context, _| plainly(dkim_passes(context, |_| true))),
    ("check_dkim_testing", |_, _| None),
    ("check_dkim_signsome", |_, _| None),
    ("check_dkim_signall", |_, _| None),
    ("check_dkim_adsp", |_, _| None),
    ("check_for_dkim_welcomelist_from", |context, _| {
        proven_in(context, &["welcomelist_from_dkim", "welcomelist_auth"], true, false)
    }),
    ("check_for_dkim_whitelist_from", |context, _| {
        proven_in(context, &["welcomelist_from_dkim", "welcomelist_auth"], true, false)
    }),
    ("check_for_def_dkim_welcomelist_from", |context, _| {
        proven_in(context, &["def_welcomelist_from_dkim", "def_welcomelist_auth"], true, false)
    }),
    ("check_for_def_dkim_whitelist_from", |context, _| {
        proven_in(context, &["def_welcomelist_from_dkim", "def_welcomelist_auth"], true, false)
    }),
    ("check_for_spf_welcomelist_from", |context, _| {
        proven_in(context, &["welcomelist_from_spf", "welcomelist_auth"], false, true)
    }),
    ("check_for_spf_whitelist_from", |context, _| {
        proven_in(context, &["welcomelist_from_spf", "welcomelist_auth"], false, true)
    }),
    ("check_for_def_spf_welcomelist_from", |context, _| {
        proven_in(context, &["def_welcomelist_from_spf", "def_welcomelist_auth"], false, true)
    }),
    ("check_for_def_spf_whitelist_from", |context, _| {
        proven_in(context, &["def_welcomelist_from_spf", "def_welcomelist_auth"], false, true)
    }),
    ("check_for_spf_pass", |context, _| spf(context, false, Outcome::Pass)),
    ("check_for_spf_fail", |context, _| spf(context, false, Outcome::Fail)),
    ("check_for_spf_softfail", |context, _| spf(context, false, Outcome::SoftFail)),
    ("check_for_spf_neutral", |context, _| spf(context, false, Outcome::Neutral)),
    ("check_for_spf_none", |context, _| spf(context, false, Outcome::None)),
    ("check_for_spf_permerror", |context, _| spf(context, false, Outcome::PermanentError)),
    ("check_for_spf_temperror", |context, _| spf(context, false, Outcome::TemporaryError)),
    ("check_for_spf_helo_pass", |context, _| spf(context, true, Outcome::Pass)),
    ("check_for_spf_helo_fail", |context, _| spf(context, true, Outcome::Fail)),
    ("check_for_spf_helo_softfail", |context, _| spf(context, true, Outcome::SoftFail)),
    ("check_for_spf_helo_neutral", |context, _| spf(context, true, Outcome::Neutral)),
    ("check_for_spf_helo_none", |context, _| spf(context, true, Outcome::None)),
    ("check_for_spf_helo_permerror", |context, _| spf(context, true, Outcome::PermanentError)),
    ("check_for_spf_helo_temperror", |context, _| spf(context, true, Outcome::TemporaryError)),
    ("check_dmarc_pass", |context, _| {
        plainly(context.subject().evidence.authentication.as_ref()?.dmarc == Some(Outcome::Pass))
    }),
    ("check_dmarc_reject", |context, _| dmarc_fails(context, "reject")),
    ("check_dmarc_quarantine", |context, _| dmarc_fails(context, "quarantine")),
    ("check_dmarc_none", |context, _| dmarc_fails(context, "none")),
    ("check_dmarc_missing", |context, _| {
        plainly(context.subject().evidence.authentication.as_ref()?.dmarc == Some(Outcome::None))
    }),
];

/// A list of addresses: exact ones, whole domains, and other globs.
#[derive(Debug, Default)]
pub(super) struct AddressList {
    exact: HashSet<String>,
    /// `*@domain`
    domains: HashSet<String>,
    globs: Vec<String>,
}

impl AddressList {
    fn add(&mut self, word: &str) {
        let word = word.to_ascii_lowercase();
        match word.strip_prefix("*@") {
            Some(domain) if !domain.contains(['*', '?']) => {
                self.domains.insert(domain.to_owned());
            }
            _ if !word.contains(['*', '?']) => {
                self.exact.insert(word);
            }
            _ if self.globs.len() < GLOBS => self.globs.push(word),
            _ => {}
        }
    }

    /// Whether an address is on it.
    pub(super) fn has(&self, address: &str) -> bool {
        let address = address.to_ascii_lowercase();
        self.exact.contains(&address)
            || self.domains.contains(&domain_of(&address))
            || self.globs.iter().any(|glob| matches(glob, &address))
    }
}

/// The lists that the rules name.
#[derive(Debug, Default)]
pub(super) struct Lists {
    addresses: HashMap<String, AddressList>,
    /// Hosts by the name of their list.
    hosts: HashMap<String, HashSet<String>>,
    subjects: HashMap<&'static str, Vec<String>>,
}

impl Lists {
    /// Reads the statements.
    pub(super) fn read(settings: &Settings) -> Self {
        let mut lists = Lists::default();
        for keyword in [
            "welcomelist_from",
            "unwelcomelist_from",
            "blocklist_from",
            "unblocklist_from",
            "welcomelist_to",
            "blocklist_to",
            "unblocklist_to",
            "more_spam_to",
            "all_spam_to",
            "welcomelist_auth",
            "def_welcomelist_auth",
        ] {
            let list = lists.addresses.entry(keyword.to_owned()).or_default();
            settings.words(keyword).for_each(|word| list.add(word));
        }
        // The second word of these, where there is one, is the signer or the relay.
        for keyword in [
            "welcomelist_from_dkim",
            "def_welcomelist_from_dkim",
            "welcomelist_from_spf",
            "def_welcomelist_from_spf",
        ] {
            let list = lists.addresses.entry(keyword.to_owned()).or_default();
            settings
                .lines(keyword)
                .filter_map(|line| line.split_whitespace().next())
                .for_each(|word| list.add(word));
        }
        for line in settings.lines("enlist_addrlist") {
            let (name, rest) = named_list(line);
            let list = lists.addresses.entry(format!("addrlist {name}")).or_default();
            rest.split_whitespace().for_each(|word| list.add(word));
        }
        let mut enlist = |name: &str, words: &str, is_in: bool| {
            let hosts = lists.hosts.entry(name.to_owned()).or_default();
            for word in words.split_whitespace() {
                let (is_in, host) = word.strip_prefix('!').map_or((is_in, word), |host| (!is_in, host));
                if is_in {
                    hosts.insert(host.to_ascii_lowercase());
                } else {
                    hosts.remove(&host.to_ascii_lowercase());
                }
            }
        };
        for line in settings.lines("enlist_uri_host") {
            let (name, rest) = named_list(line);
            enlist(name, rest, true);
        }
        settings.lines("welcomelist_uri_host").for_each(|line| enlist("WELCOME", line, true));
        settings.lines("blocklist_uri_host").for_each(|line| enlist("BLOCK", line, true));
        for keyword in ["welcomelist_subject", "blocklist_subject"] {
            let globs = settings.lines(keyword).map(|line| format!("*{}*", line.to_lowercase())).collect();
            lists.subjects.insert(keyword, globs);
        }
        lists
    }
}

/// Splits `(NAME) words`.
fn named_list(line: &str) -> (&str, &str) {
    line.strip_prefix('(')
        .and_then(|line| line.split_once(')'))
        .map_or(("", line), |(name, rest)| (name.trim(), rest))
}

fn has_field(context: &Context<'_>, name: &str) -> bool {
    context.subject().message.header(name).is_some()
}

/// The addresses that may be the sender's.
fn senders(context: &Context<'_>) -> Vec<String> {
    let message = context.subject().message;
    let mut senders: Vec<String> = message.from.iter().map(|from| from.address.clone()).collect();
    for name in ["Sender", "Resent-Sender", "Resent-From", "X-Envelope-From"] {
        let fields = message.headers_named(name).take(3);
        senders.extend(
            fields.flat_map(|field| crate::message::mailboxes(&field.raw)).map(|mailbox| mailbox.address),
        );
    }
    senders.extend(context.reverse_path());
    senders.retain(|sender| !sender.is_empty());
    senders
}

fn from_in(context: &Context<'_>, list: &str) -> bool {
    let Some(list) = context.families().welcome.addresses.get(list) else { return false };
    senders(context).iter().any(|sender| list.has(sender))
}

fn to_in(context: &Context<'_>, list: &str) -> bool {
    let Some(list) = context.families().welcome.addresses.get(list) else { return false };
    let envelope = context.subject().envelope.recipients.iter().map(|to| to.address.to_normalized());
    let header = context.subject().message.to.iter().map(|to| to.address.clone());
    envelope.chain(header).any(|to| list.has(&to))
}

fn reply_to_in(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let list = context.families().welcome.addresses.get(&format!("addrlist {}", arguments.first()?))?;
    plainly(context.subject().message.reply_to.iter().any(|to| list.has(&to.address)))
}

fn subject_in(context: &Context<'_>, list: &str) -> Option<String> {
    let subject = context.subject().message.subject.to_lowercase();
    plainly(context.families().welcome.subjects.get(list)?.iter().any(|glob| matches(glob, &subject)))
}

fn host_in(context: &Context<'_>, list: &str) -> Option<String> {
    let hosts = context.families().welcome.hosts.get(list)?;
    let is_listed = |host: &str| {
        std::iter::successors(Some(host), |host| host.split_once('.').map(|(_, above)| above))
            .any(|host| hosts.contains(host))
    };
    let found = context.links.iter().find(|link| is_listed(&link.host))?;
    Some(format!("A link goes to {}.", found.host))
}

fn dkim_passes(context: &Context<'_>, is_meant: impl Fn(&str) -> bool) -> bool {
    let authentication = context.subject().evidence.authentication.as_ref();
    authentication.is_some_and(|found| {
        found.dkim.iter().any(|(signer, outcome)| *outcome == Outcome::Pass && is_meant(signer))
    })
}

fn spf(context: &Context<'_>, of_helo: bool, outcome: Outcome) -> Option<String> {
    let found = context.subject().evidence.authentication.as_ref()?;
    plainly(if of_helo { found.spf_helo } else { found.spf } == Some(outcome))
}

fn dmarc_fails(context: &Context<'_>, policy: &str) -> Option<String> {
    let found = context.subject().evidence.authentication.as_ref()?;
    plainly(found.dmarc == Some(Outcome::Fail) && found.dmarc_policy.as_deref() == Some(policy))
}

/// A sender on one of the lists, with proof that it is the sender.
fn proven_in(context: &Context<'_>, lists: &[&str], by_dkim: bool, by_spf: bool) -> Option<String> {
    let is_proven = by_dkim && dkim_passes(context, |signer| signer == context.from_domain)
        || by_spf && spf(context, false, Outcome::Pass).is_some();
    plainly(is_proven && lists.iter().any(|list| from_in(context, list)))
}
