//! Statements that define no rule: which are read, which mean nothing here, and the old names of some.

/// What is done with a statement of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    /// It is kept under this name for the functions that read it.
    Setting(&'static str),
    /// It forgets what was said under this name.
    Clear(&'static str),
    /// It defines a look-up in the network: a rule whose name is the first word.
    Network,
    /// It speaks of something that this program does in another way, or not at all.
    Ignored,
}

/// Settings that functions read, under their current names.
const SETTINGS: [&str; 72] = [
    "all_spam_to",
    "blocklist_auth",
    "blocklist_from",
    "blocklist_subject",
    "blocklist_to",
    "blocklist_uri_host",
    "welcomelist_uri_host",
    "def_welcomelist_auth",
    "def_welcomelist_from_dkim",
    "def_welcomelist_from_rcvd",
    "def_welcomelist_from_spf",
    "delist_addrlist",
    "delist_uri_host",
    "dkim_minimum_key_bits",
    "enlist_addrlist",
    "enlist_uri_host",
    "envelope_sender_header",
    "fns_add_addrlist",
    "fns_check",
    "fns_extrachars",
    "fns_ignore_dkim",
    "fns_ignore_headers",
    "fns_remove_addrlist",
    "freemail_domains",
    "freemail_import_def_whitelist_auth",
    "freemail_max_body_emails",
    "freemail_max_body_freemails",
    "freemail_skip_when_over_max",
    "freemail_skip_bulk_envfrom",
    "freemail_whitelist",
    "freemail_welcomelist",
    "freemail_add_describe_email",
    "internal_networks",
    "more_spam_to",
    "msa_networks",
    "ok_languages",
    "ok_locales",
    "originating_ip_headers",
    "redirector_pattern",
    "textcat_acceptable_prob",
    "textcat_acceptable_score",
    "textcat_max_languages",
    "textcat_max_ngram_occurrences",
    "textcat_optimal_ngrams",
    "trusted_networks",
    "unwelcomelist_auth",
    "unwelcomelist_from",
    "unwelcomelist_from_dkim",
    "unwelcomelist_from_rcvd",
    "unwelcomelist_from_spf",
    "unblocklist_from",
    "unblocklist_to",
    "url_shortener",
    "url_shortener_get",
    "util_rb_2tld",
    "util_rb_3tld",
    "util_rb_tld",
    "welcomelist_allows_relays",
    "welcomelist_auth",
    "welcomelist_bounce_relays",
    "welcomelist_from",
    "welcomelist_from_dkim",
    "welcomelist_from_rcvd",
    "welcomelist_from_spf",
    "welcomelist_subject",
    "welcomelist_to",
    "phishing_openphish_feed",
    "phishing_phishtank_feed",
    "always_trust_envelope_sender",
    "olemacro_num_mime",
    "imageinfo_max",
    "unblocklist_auth",
];

/// Statements that define a rule which only the network can answer.
const NETWORK: [&str; 11] = [
    "askdns",
    "uridnsbl",
    "uridnssub",
    "urifullnsrhsbl",
    "urifullnsrhssub",
    "urinsrhsbl",
    "urinsrhssub",
    "urirhsbl",
    "urirhssub",
    "urinfullnsrhsbl",
    "rbl_headers_rule",
];

/// Statements without a meaning here: reports and marks of messages, learning, programs that are asked over
/// the network, storage, what a user may set.
const IGNORED: [&str; 93] = [
    "add_header",
    "adsp_override",
    "allow_user_rules",
    "asn_lookup",
    "asn_lookup_ipv6",
    "asn_prefix",
    "auto_learn_threshold",
    "auto_welcomelist_factor",
    "bayes_auto_expire",
    "bayes_auto_learn",
    "bayes_auto_learn_on_error",
    "bayes_auto_learn_threshold_nonspam",
    "bayes_auto_learn_threshold_spam",
    "bayes_expiry_max_db_size",
    "bayes_file_mode",
    "bayes_ignore_from",
    "bayes_ignore_header",
    "bayes_ignore_to",
    "bayes_learn_during_report",
    "bayes_learn_to_journal",
    "bayes_min_ham_num",
    "bayes_min_spam_num",
    "bayes_path",
    "bayes_store_module",
    "bayes_token_sources",
    "bayes_use_hapaxes",
    "clear_headers",
    "clear_report_template",
    "clear_unsafe_report_template",
    "clear_util_rb",
    "dns_available",
    "dns_block_rule",
    "dns_block_time",
    "dns_local_ports_avoid",
    "dns_local_ports_none",
    "dns_local_ports_permit",
    "dns_max_shortcircuits",
    "dns_options",
    "dns_query_restriction",
    "dns_server",
    "dns_test_interval",
    "enable_compat",
    "extracttext_external",
    "extracttext_use",
    "fold_headers",
    "geodb_module",
    "geodb_options",
    "ignore_always_matching_regexps",
    "ignore_server_header",
    "loadplugin",
    "tryplugin",
    "lock_method",
    "meta_dependency",
    "normalize_charset",
    "body_part_scan_size",
    "rawbody_part_scan_size",
    "parse_dkim_uris",
    "pyzor_options",
    "pyzor_timeout",
    "rbl_timeout",
    "razor_config",
    "redefine",
    "remove_header",
    "rename",
    "report",
    "report_charset",
    "report_contact",
    "report_hostname",
    "report_safe",
    "report_safe_copy_headers",
    "require_version",
    "required_hits",
    "required_score",
    "reuse",
    "rewrite_header",
    "score_set",
    "shortcircuit",
    "shortcircuit_ham_score",
    "shortcircuit_spam_score",
    "skip_rbl_checks",
    "skip_uribl_checks",
    "spamtrap",
    "subjprefix",
    "time_limit",
    "unsafe_report",
    "uridnsbl_max_domains",
    "uridnsbl_skip_domain",
    "use_auto_welcomelist",
    "use_bayes",
    "use_bayes_rules",
    "version_tag",
    "warn_unknown",
    "x_spam_relays",
];

/// Beginnings of keywords of whole families without a meaning here.
const IGNORED_FAMILIES: [&str; 12] = [
    "bayes_stopword",
    "dcc_",
    "pyzor_",
    "razor_",
    "use_",
    "txrep_",
    "auto_welcomelist_",
    "spamcop_",
    "antivirus_",
    "asn_",
    "hashbl_",
    "spf_",
];

/// Says what is done with a statement; `None` for a keyword that nobody knows.
pub(super) fn find(keyword: &str) -> Option<Keyword> {
    let known = |list: &[&'static str], name: &str| list.iter().find(|known| **known == name).copied();
    let name = current(keyword);
    if let Some(name) = known(&SETTINGS, &name) {
        return Some(Keyword::Setting(name));
    }
    if let Some(name) = name.strip_prefix("clear_").and_then(|name| known(&SETTINGS, name)) {
        return Some(Keyword::Clear(name));
    }
    if NETWORK.contains(&name.as_str()) {
        return Some(Keyword::Network);
    }
    let is_ignored =
        IGNORED.contains(&name.as_str()) || IGNORED_FAMILIES.iter().any(|family| name.starts_with(family));
    is_ignored.then_some(Keyword::Ignored)
}

/// Returns the current name of a keyword: `whitelist` became `welcomelist`, `blacklist` `blocklist`.
fn current(keyword: &str) -> String {
    keyword.replace("whitelist", "welcomelist").replace("blacklist", "blocklist")
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
            ("unwhitelist_auth", Some(Keyword::Setting("unwelcomelist_auth"))),
            ("clear_trusted_networks", Some(Keyword::Clear("trusted_networks"))),
            ("urirhssub", Some(Keyword::Network)),
            ("bayes_stopword_de", Some(Keyword::Ignored)),
            ("frobnicate", None),
        ] {
            assert_eq!(find(keyword), expected, "{keyword}");
        }
    }
}
