//! The conditions of `if` blocks: what this program can do, in the words of SpamAssassin.

use std::collections::HashSet;

/// The version of SpamAssassin whose language is read.
const VERSION: f64 = 4.000_001;
/// The version of Perl whose patterns are read.
const PERL_VERSION: f64 = 5.036;
/// Deepest nesting of parentheses and negations.
const DEPTH: usize = 30;

/// The plugins whose rules and functions are part of this program.
const PLUGINS: [&str; 29] = [
    "AskDNS",
    "AutoLearnThreshold",
    "Bayes",
    "BodyEval",
    "Check",
    "DKIM",
    "DMARC",
    "DNSEval",
    "DecodeShortURLs",
    "FreeMail",
    "FromNameSpoof",
    "HTMLEval",
    "HTTPSMismatch",
    "HashBL",
    "HeaderEval",
    "ImageInfo",
    "MIMEEval",
    "MIMEHeader",
    "OLEVBMacro",
    "PDFInfo",
    "RelayEval",
    "ReplaceTags",
    "SPF",
    "TextCat",
    "URIDNSBL",
    "URIDetail",
    "URIEval",
    "WLBLEval",
    "WelcomeListSubject",
];

/// Features that `can` and `has` are asked about: those of the language, then those of plugins.
const FEATURES: [&str; 47] = [
    "feature_bayes_auto_learn_on_error",
    "feature_bayes_stopwords",
    "feature_blocklist_welcomelist",
    "feature_bug6558_free",
    "feature_capture_rules",
    "feature_compile_regexp",
    "feature_dns_block_rule",
    "feature_dns_local_ports_permit_avoid",
    "feature_dns_query_restriction",
    "feature_edns",
    "feature_get_host",
    "feature_header_address_parser",
    "feature_header_first_last",
    "feature_header_match_many",
    "feature_local_tests_only",
    "feature_meta_rules_matching",
    "feature_originating_ip_headers",
    "feature_registryboundaries",
    "feature_subjprefix",
    "feature_uri_host_listed",
    "feature_welcomelist_blocklist",
    "feature_yesno_takes_args",
    "has_tflags_nolog",
    "has_tflags_nosubject",
    "perl_min_version_5010000",
    "AskDNS::has_tag_header",
    "BodyEval::has_check_body_length",
    "BodyEval::has_plaintext_body_sig_ratio",
    "DKIM::has_arc",
    "DNSEval::has_tflags_domains_only",
    "DNSEval::has_tflags_ips_only",
    "DecodeShortURLs::has_clear",
    "DecodeShortURLs::has_get",
    "DecodeShortURLs::has_short_url",
    "DecodeShortURLs::has_short_url_redir",
    "HashBL::has_hashbl_emails",
    "HashBL::has_hashbl_uris",
    "MIMEEval::has_check_abundant_unicode_ratio",
    "MIMEEval::has_check_for_ascii_text_illegal",
    "MIMEEval::has_check_qp_ratio",
    "MIMEHeader::has_all_header",
    "MIMEHeader::has_capture_rules",
    "MIMEHeader::has_tflags_multiple",
    "SPF::has_check_for_spf_errors",
    "URIDNSBL::has_tflags_domains_only",
    "URIDNSBL::has_uridnsbl_for_a",
    "URIDetail::has_host_key",
];

const PLUGIN: &str = "Mail::SpamAssassin::Plugin::";
const LANGUAGE: &str = "Mail::SpamAssassin::Conf::";

/// What `enable_compat` has switched on from the start, as in SpamAssassin's own installation: the rules of
/// welcome and block lists go by their present names alone.
pub(super) const COMPATIBILITY: [&str; 1] = ["welcomelist_blocklist"];

/// What a condition comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) holds: bool,
    /// A plugin that is not here and for whose want it does not hold.
    pub(super) missing: Option<String>,
}

/// Computes a condition; `compatibility` has what `enable_compat` switched on.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn answer(source: &str, compatibility: &HashSet<String>) -> Result<Answer, String> {
    let mut reader = Reader { rest: source.trim(), compatibility, missing: None };
    let value = reader.any(DEPTH)?;
    if !reader.rest.is_empty() {
        return Err(format!("`{}` is not expected here", reader.rest));
    }
    let holds = value != 0.0;
    Ok(Answer { holds, missing: reader.missing.filter(|_| !holds) })
}

/// Computes the condition of `ifplugin`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn plugin(name: &str) -> Result<Answer, String> {
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("`ifplugin` has one name".to_owned());
    }
    let holds = has_plugin(name);
    Ok(Answer { holds, missing: (!holds).then(|| name.to_owned()) })
}

/// Whether a plugin of this name is part of this program.
fn has_plugin(name: &str) -> bool {
    let name = name.strip_prefix(PLUGIN).unwrap_or(name);
    // It was renamed.
    PLUGINS.contains(&name) || name == "Dmarc"
}

fn has_feature(name: &str, compatibility: &HashSet<String>) -> bool {
    if let Some(feature) = name.strip_prefix(LANGUAGE) {
        return match feature.strip_prefix("compat_") {
            Some(switch) => compatibility.contains(switch),
            None => FEATURES.contains(&feature),
        };
    }
    name.strip_prefix(PLUGIN).is_some_and(|feature| feature.contains("::") && FEATURES.contains(&feature))
}

struct Reader<'a> {
    rest: &'a str,
    compatibility: &'a HashSet<String>,
    missing: Option<String>,
}

impl Reader<'_> {
    fn take(&mut self, sign: &str) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn any(&mut self, depth: usize) -> Result<f64, String> {
        let mut value = self.all(depth)?;
        while self.take("||") || self.take("or ") {
            let right = self.all(depth)?;
            value = truth(value != 0.0 || right != 0.0);
        }
        Ok(value)
    }

    fn all(&mut self, depth: usize) -> Result<f64, String> {
        let mut value = self.comparison(depth)?;
        while self.take("&&") || self.take("and ") {
            let right = self.comparison(depth)?;
            value = truth(value != 0.0 && right != 0.0);
        }
        Ok(value)
    }

    fn comparison(&mut self, depth: usize) -> Result<f64, String> {
        let left = self.single(depth)?;
        for sign in ["<=", ">=", "==", "!=", "<", ">"] {
            if self.take(sign) {
                let right = self.single(depth)?;
                return Ok(truth(match sign {
                    "<=" => left <= right,
                    ">=" => left >= right,
                    "==" => left == right,
                    "!=" => left != right,
                    "<" => left < right,
                    _ => left > right,
                }));
            }
        }
        Ok(left)
    }

    fn single(&mut self, depth: usize) -> Result<f64, String> {
        let depth = depth.checked_sub(1).ok_or("the condition is nested too deeply")?;
        if self.take("!") {
            return Ok(truth(self.single(depth)? == 0.0));
        }
        if self.take("(") {
            let value = self.any(depth)?;
            return if self.take(")") { Ok(value) } else { Err("a parenthesis is not closed".to_owned()) };
        }
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':')))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest.trim_start();
        match word {
            "version" => return Ok(VERSION),
            "perl_version" => return Ok(PERL_VERSION),
            // Rules look up nothing.
            "local_tests_only" => return Ok(1.0),
            "plugin" | "can" | "has" => {}
            _ => return word.parse().map_err(|_| format!("`{word}` is no condition")),
        }
        let inner = self.rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (name, rest) = inner.ok_or("a name in parentheses is missing")?;
        self.rest = rest.trim_start();
        let name = name.trim();
        if word != "plugin" {
            return Ok(truth(has_feature(name, self.compatibility)));
        }
        let is_here = has_plugin(name);
        if !is_here {
            self.missing = Some(name.to_owned());
        }
        Ok(truth(is_here))
    }
}

fn truth(is_true: bool) -> f64 {
    if is_true { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(source: &str) -> Result<bool, String> {
        let compatibility = HashSet::from(["on".to_owned()]);
        answer(source, &compatibility).map(|answer| answer.holds)
    }

    #[test]
    fn what_is_left_out_for_want_of_a_plugin_is_told() {
        let missing = |source: &str| answer(source, &HashSet::new()).unwrap().missing;
        assert_eq!(missing("plugin(Mail::X)"), Some("Mail::X".to_owned()));
        assert_eq!(missing("!plugin(Mail::X)"), None);
        assert_eq!(plugin("Mail::X").unwrap().missing, Some("Mail::X".to_owned()));
        assert!(plugin("").is_err() && plugin("A B").is_err());
    }

    #[test]
    fn conditions_are_read_as_in_rule_files() {
        for (source, expected) in [
            ("(version >= 3.004000)", Ok(true)),
            ("version < 3.4", Ok(false)),
            ("!plugin(Mail::SpamAssassin::Plugin::DKIM)", Ok(false)),
            ("plugin(Mail::SpamAssassin::Plugin::Razor2)", Ok(false)),
            ("can(Mail::SpamAssassin::Conf::feature_bug6558_free) && !(perl_version < 5.01)", Ok(true)),
            ("has(Mail::SpamAssassin::Plugin::Razor2::has_check_body_length)", Ok(false)),
            ("0 || 1 && 0", Ok(false)),
            ("local_tests_only && plugin( Mail::SpamAssassin::Plugin::SPF )", Ok(true)),
            ("can(Mail::SpamAssassin::Conf::compat_on)", Ok(true)),
            ("can(Mail::SpamAssassin::Conf::compat_off)", Ok(false)),
            ("has(Mail::SpamAssassin::Plugin::URIDetail::has_host_key)", Ok(true)),
            ("has(Mail::SpamAssassin::Plugin::BodyEval::has_host_key)", Ok(false)),
            ("can(Mail::SpamAssassin::Conf::feature_geodb)", Ok(false)),
            ("can(", Err("a name in parentheses is missing")),
            ("frobnicate", Err("`frobnicate` is no condition")),
            ("(1", Err("a parenthesis is not closed")),
            ("1 2", Err("`2` is not expected here")),
        ] {
            assert_eq!(holds(source), expected.map_err(str::to_owned), "{source}");
        }
        assert!(holds(&"!".repeat(1_000)).is_err());
    }
}
