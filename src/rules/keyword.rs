//! Statements that define no rule: which are read, which take earlier ones back, which mean nothing here and
//! why, and the old names of some.

/// What is done with a statement of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    /// It is kept under this name for the functions that read it.
    Setting(&'static str),
    /// It forgets what was said under these names: all, or the words that it has.
    Clear(&'static [&'static str]),
    /// It takes words out of what was said under these names.
    Remove(&'static [&'static str]),
    /// It takes out what was said under these names of its first word.
    RemoveLine(&'static [&'static str]),
    /// It defines a look-up in the network: a rule whose name is the first word.
    Network,
    /// It switches on something that conditions ask for.
    Compatibility,
    /// It speaks of something that this program does in another way, or not at all.
    Ignored,
}

/// A keyword in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Words, kept.
    Words,
    /// A number, kept.
    Number,
    /// Yes or no, kept.
    Switch,
    Clear(&'static [&'static str]),
    Remove(&'static [&'static str]),
    RemoveLine(&'static [&'static str]),
    Network,
    Compatibility,
    /// Nothing here, and why.
    Ignored(&'static str),
}

use Meaning::{Clear, Compatibility, Ignored, Network, Number, Remove, RemoveLine, Switch, Words};

const REPORT: &str = "messages are marked as the configuration says";
const ELSEWHERE: &str = "is set in the configuration of this program";
const SERVICE: &str = "the service is not asked";
const PERL: &str = "is of SpamAssassin's own installation";
const STATE: &str = "reputation is not kept that way here";
const RESOLVER: &str = "rules look up nothing";

/// All statements by their present names.
const KEYWORDS: &[(&str, Meaning)] = &[
    // Welcome and block lists.
    ("welcomelist_from", Words),
    ("unwelcomelist_from", Remove(&["welcomelist_from"])),
    ("welcomelist_from_rcvd", Words),
    ("def_welcomelist_from_rcvd", Words),
    ("unwelcomelist_from_rcvd", RemoveLine(&["welcomelist_from_rcvd", "def_welcomelist_from_rcvd"])),
    ("welcomelist_allows_relays", Words),
    ("blocklist_from", Words),
    ("unblocklist_from", Remove(&["blocklist_from"])),
    ("welcomelist_to", Words),
    ("more_spam_to", Words),
    ("all_spam_to", Words),
    ("blocklist_to", Words),
    ("welcomelist_auth", Words),
    ("def_welcomelist_auth", Words),
    ("unwelcomelist_auth", Remove(&["welcomelist_auth", "def_welcomelist_auth"])),
    ("welcomelist_from_dkim", Words),
    ("def_welcomelist_from_dkim", Words),
    ("unwelcomelist_from_dkim", RemoveLine(&["welcomelist_from_dkim", "def_welcomelist_from_dkim"])),
    ("welcomelist_from_spf", Words),
    ("def_welcomelist_from_spf", Words),
    ("unwelcomelist_from_spf", Remove(&["welcomelist_from_spf", "def_welcomelist_from_spf"])),
    ("enlist_uri_host", Words),
    ("delist_uri_host", Remove(&["enlist_uri_host", "welcomelist_uri_host", "blocklist_uri_host"])),
    ("welcomelist_uri_host", Words),
    ("blocklist_uri_host", Words),
    ("enlist_addrlist", Words),
    ("welcomelist_bounce_relays", Words),
    ("welcomelist_subject", Words),
    ("blocklist_subject", Words),
    // Networks and header fields.
    ("trusted_networks", Words),
    ("clear_trusted_networks", Clear(&["trusted_networks"])),
    ("internal_networks", Words),
    ("clear_internal_networks", Clear(&["internal_networks"])),
    ("msa_networks", Words),
    ("clear_msa_networks", Clear(&["msa_networks"])),
    ("originating_ip_headers", Words),
    ("clear_originating_ip_headers", Clear(&["originating_ip_headers"])),
    ("always_trust_envelope_sender", Switch),
    ("envelope_sender_header", Words),
    ("normalize_charset", Switch),
    ("parse_dkim_uris", Switch),
    ("body_part_scan_size", Number),
    ("rawbody_part_scan_size", Number),
    ("ok_locales", Words),
    ("redirector_pattern", Words),
    ("require_version", Ignored("files for all versions up to this one are read")),
    ("util_rb_tld", Words),
    ("util_rb_2tld", Words),
    ("util_rb_3tld", Words),
    ("clear_util_rb", Clear(&["util_rb_tld", "util_rb_2tld", "util_rb_3tld"])),
    // Plugins whose functions are native.
    ("ok_languages", Words),
    ("freemail_domains", Words),
    ("freemail_welcomelist", Words),
    ("freemail_max_body_emails", Number),
    ("freemail_max_body_freemails", Number),
    ("freemail_skip_when_over_max", Switch),
    ("freemail_skip_bulk_envfrom", Switch),
    ("freemail_add_describe_email", Switch),
    ("freemail_import_welcomelist_auth", Switch),
    ("freemail_import_def_welcomelist_auth", Switch),
    ("fns_add_addrlist", Words),
    ("fns_remove_addrlist", Words),
    ("fns_extrachars", Number),
    ("fns_ignore_dkim", Words),
    ("fns_ignore_headers", Words),
    ("fns_check", Number),
    ("url_shortener", Words),
    ("url_shortener_get", Words),
    ("clear_url_shortener", Clear(&["url_shortener", "url_shortener_get"])),
    ("adsp_override", Words),
    ("dkim_minimum_key_bits", Number),
    ("askdns", Network),
    ("uridnsbl", Network),
    ("uridnssub", Network),
    ("urirhsbl", Network),
    ("urirhssub", Network),
    ("urinsrhsbl", Network),
    ("urinsrhssub", Network),
    ("urifullnsrhsbl", Network),
    ("urifullnsrhssub", Network),
    ("uridnsbl_skip_domain", Words),
    ("clear_uridnsbl_skip_domain", Clear(&["uridnsbl_skip_domain"])),
    ("rbl_headers", Words),
    ("hashbl_ignore", Words),
    ("hashbl_email_domain_alias", Words),
    ("hashbl_email_regex", Words),
    ("hashbl_email_welcomelist", Words),
    ("phishing_openphish_feed", Words),
    ("phishing_phishtank_feed", Words),
    ("phishing_phishstats_feed", Words),
    ("phishing_phishstats_minscore", Number),
    ("phishing_uri_noparam", Switch),
    ("authres_networks", Words),
    ("authres_trusted_authserv", Words),
    ("authres_ignored_authserv", Words),
    ("bayes_auto_learn_threshold_nonspam", Number),
    ("bayes_auto_learn_threshold_spam", Number),
    ("bayes_auto_learn_on_error", Switch),
    ("bayes_auto_learn", Switch),
    ("bayes_ignore_header", Words),
    ("bayes_ignore_from", Words),
    ("bayes_ignore_to", Words),
    ("bayes_stopword_languages", Words),
    ("enable_compat", Compatibility),
    // What has no meaning here.
    ("required_score", Ignored("thresholds are the policy's, which is set in the configuration")),
    ("rewrite_header", Ignored(REPORT)),
    ("subjprefix", Ignored(REPORT)),
    ("add_header", Ignored(REPORT)),
    ("remove_header", Ignored(REPORT)),
    ("clear_headers", Ignored(REPORT)),
    ("report_safe", Ignored(REPORT)),
    ("report_wrap_width", Ignored(REPORT)),
    ("report_safe_copy_headers", Ignored(REPORT)),
    ("report_charset", Ignored(REPORT)),
    ("report", Ignored(REPORT)),
    ("clear_report_template", Ignored(REPORT)),
    ("report_contact", Ignored(REPORT)),
    ("report_hostname", Ignored(REPORT)),
    ("inactive_languages", Ignored("languages are told in another way")),
    ("unsafe_report", Ignored(REPORT)),
    ("clear_unsafe_report_template", Ignored(REPORT)),
    ("fold_headers", Ignored(REPORT)),
    ("version_tag", Ignored(REPORT)),
    ("reuse", Ignored("results of earlier scans are not reused")),
    ("run_reuse_tests_only", Ignored("results of earlier scans are not reused")),
    ("shortcircuit", Ignored("all rules run, whatever an earlier one found")),
    ("mbox_format_from_regex", Ignored("mbox files are read by their own rules")),
    ("allow_user_rules", Ignored("users write no rules")),
    ("skip_rbl_checks", Ignored(RESOLVER)),
    ("skip_uribl_checks", Ignored(RESOLVER)),
    ("rbl_timeout", Ignored(RESOLVER)),
    ("uridnsbl_timeout", Ignored(RESOLVER)),
    ("uridnsbl_max_domains", Ignored(RESOLVER)),
    ("uridnsbl_skip_mailto", Ignored(RESOLVER)),
    ("clear_dns_servers", Ignored(RESOLVER)),
    ("clear_dns_query_restriction", Ignored(RESOLVER)),
    ("clear_dns_query_restrictions", Ignored(RESOLVER)),
    ("do_not_use_mail_spf", Ignored(RESOLVER)),
    ("do_not_use_mail_spf_query", Ignored(RESOLVER)),
    ("ignore_received_spf_header", Ignored("SPF is taken from the check of this gateway")),
    ("use_newest_received_spf_header", Ignored("SPF is taken from the check of this gateway")),
    ("spf_timeout", Ignored(RESOLVER)),
    ("dkim_timeout", Ignored(RESOLVER)),
    ("dmarc_save_reports", Ignored("no reports are written")),
    ("use_learner", Ignored(ELSEWHERE)),
    ("use_bayes", Ignored(ELSEWHERE)),
    ("use_bayes_rules", Ignored(ELSEWHERE)),
    ("time_limit", Ignored(ELSEWHERE)),
    ("lock_method", Ignored(PERL)),
    ("loadplugin", Ignored("plugins of SpamAssassin are Perl; what they define is native here")),
    ("tryplugin", Ignored("plugins of SpamAssassin are Perl; what they define is native here")),
    ("country_db_type", Ignored("countries are not looked up")),
    ("country_db_path", Ignored("countries are not looked up")),
    ("use_auto_welcomelist", Ignored(STATE)),
    ("use_txrep", Ignored(STATE)),
    ("use_dcc", Ignored(SERVICE)),
    ("use_dcc_rep", Ignored(SERVICE)),
    ("use_pyzor", Ignored(SERVICE)),
    ("use_razor2", Ignored(SERVICE)),
    ("ignore_always_matching_regexps", Ignored("patterns that always match are allowed")),
];

/// Families of statements by how their names begin.
const FAMILIES: &[(&str, Meaning)] = &[
    ("hashbl_acl_", Ignored(RESOLVER)),
    ("bayes_stopword_", Ignored("the filter of this program has no stop words")),
    ("bayes_", Ignored("the filter of this program keeps its words its own way")),
    ("dns_", Ignored(RESOLVER)),
    ("user_scores_", Ignored("users have no scores of their own")),
    ("url_shortener_", Ignored("shortened links are not followed")),
    ("max_short_url", Ignored("shortened links are not followed")),
    ("olemacro_", Ignored("files are told by their content")),
    ("textcat_", Ignored("languages are told in another way")),
    ("shortcircuit_", Ignored("all rules run, whatever an earlier one found")),
    ("auto_welcomelist_", Ignored(STATE)),
    ("user_awl_", Ignored(STATE)),
    ("txrep_", Ignored(STATE)),
    ("dcc_", Ignored(SERVICE)),
    ("dccifd_", Ignored(SERVICE)),
    ("pyzor_", Ignored(SERVICE)),
    ("razor_", Ignored(SERVICE)),
    ("spamcop_", Ignored(SERVICE)),
    ("asn_", Ignored("networks are not looked up")),
    ("clear_asn_", Ignored("networks are not looked up")),
    ("geodb_", Ignored("countries are not looked up")),
    ("uri_country_", Ignored("countries are not looked up")),
    ("uri_block_", Ignored("countries are not looked up")),
    ("extracttext_", Ignored("no programs are started")),
    ("trigger_", Ignored("messages are not rewritten")),
    ("resource_limit_", Ignored(ELSEWHERE)),
];

/// Says what is done with a statement; `None` for a keyword that nobody knows.
///
/// # Errors
/// What is wrong with its value, in words.
pub(super) fn find(keyword: &str, value: &str) -> Result<Option<Keyword>, String> {
    let Some((name, meaning)) = meaning(keyword) else { return Ok(None) };
    let needs_value = !matches!(meaning, Ignored(_) | Clear(_));
    let wrong = match meaning {
        _ if needs_value && value.is_empty() => Some("has no value"),
        Number if !is_number(value) => Some("is a number"),
        Switch if !["0", "1", "yes", "no"].contains(&value.to_ascii_lowercase().as_str()) => {
            Some("is 0 or 1")
        }
        Words if name == "enlist_uri_host" && !value.starts_with('(') => {
            Some("names its list in parentheses")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        return Err(format!("`{keyword}` {wrong}"));
    }
    Ok(Some(match meaning {
        Words | Number | Switch => Keyword::Setting(name),
        Clear(names) => Keyword::Clear(names),
        Remove(names) => Keyword::Remove(names),
        RemoveLine(names) => Keyword::RemoveLine(names),
        Network => Keyword::Network,
        Compatibility => Keyword::Compatibility,
        Ignored(_) => Keyword::Ignored,
    }))
}

/// Returns why a statement means nothing here; empty for one that means something.
pub fn why_ignored(keyword: &str) -> &'static str {
    match meaning(keyword) {
        Some((_, Ignored(why))) => why,
        _ => "",
    }
}

fn meaning(keyword: &str) -> Option<(&'static str, Meaning)> {
    let name = current(keyword);
    let own = KEYWORDS.iter().find(|(known, _)| *known == name);
    own.or_else(|| FAMILIES.iter().find(|(family, _)| name.starts_with(family))).copied()
}

/// Returns the current name of a keyword: `whitelist` became `welcomelist`, `blacklist` `blocklist`.
fn current(keyword: &str) -> String {
    match keyword {
        "required_hits" => "required_score".to_owned(),
        _ => keyword.replace("whitelist", "welcomelist").replace("blacklist", "blocklist"),
    }
}

fn is_number(value: &str) -> bool {
    let first = value.split_whitespace().next().unwrap_or_default();
    first.parse::<f64>().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_known_by_their_old_names_too() {
        for (keyword, expected) in [
            ("whitelist_from", Some(Keyword::Setting("welcomelist_from"))),
            ("def_whitelist_auth", Some(Keyword::Setting("def_welcomelist_auth"))),
            ("blacklist_uri_host", Some(Keyword::Setting("blocklist_uri_host"))),
            ("freemail_import_whitelist_auth", None),
            ("unblacklist_from", Some(Keyword::Remove(&["blocklist_from"]))),
            ("clear_trusted_networks", Some(Keyword::Clear(&["trusted_networks"]))),
            ("urirhssub", Some(Keyword::Network)),
            ("required_hits", Some(Keyword::Ignored)),
            ("bayes_stopword_de", Some(Keyword::Ignored)),
            ("dcc_home", Some(Keyword::Ignored)),
            ("frobnicate", None),
        ] {
            assert_eq!(find(keyword, "x").unwrap_or_default(), expected, "{keyword}");
        }
        assert_eq!(why_ignored("report"), REPORT);
        assert_eq!(why_ignored("trusted_networks"), "");
    }

    #[test]
    fn values_are_checked() {
        for (keyword, value, expected) in [
            ("trusted_networks", "", Some("`trusted_networks` has no value")),
            ("fns_check", "x", Some("`fns_check` is a number")),
            ("fns_check", "1", None),
            ("normalize_charset", "maybe", Some("`normalize_charset` is 0 or 1")),
            ("normalize_charset", "Yes", None),
            ("enlist_uri_host", "a.example", Some("`enlist_uri_host` names its list in parentheses")),
            ("enlist_uri_host", "(A) a.example", None),
            ("report", "", None),
            ("clear_util_rb", "", None),
        ] {
            assert_eq!(find(keyword, value).err().as_deref(), expected, "{keyword} {value}");
        }
    }

    #[test]
    fn names_stand_once_and_what_is_taken_back_exists() {
        let names: std::collections::HashSet<_> = KEYWORDS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), KEYWORDS.len());
        for (name, meaning) in KEYWORDS {
            if let Clear(targets) | Remove(targets) | RemoveLine(targets) = meaning {
                assert!(targets.iter().all(|target| names.contains(target)), "{name}");
            }
        }
    }
}
