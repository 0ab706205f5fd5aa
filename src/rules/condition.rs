//! The conditions of `if` blocks: what this program can do, in the words of SpamAssassin.

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

/// Features that `can` and `has` are asked about, by the last word of their name.
const FEATURES: [&str; 27] = [
    "feature_aux_tlds",
    "feature_bug6558_free",
    "feature_capture_rules",
    "feature_dns_local_ports_permit_avoid",
    "feature_edns",
    "feature_fns_extended",
    "feature_local_tests_only",
    "feature_originating_ip_headers",
    "feature_registryboundaries",
    "feature_subjprefix",
    "feature_welcomelist_blocklist",
    "feature_yesno_takes_args",
    "has_arc",
    "has_check_abundant_unicode_ratio",
    "has_check_body_length",
    "has_check_for_ascii_text_illegal",
    "has_check_freemail_replyto",
    "has_dns_block_rule",
    "feature_dns_block_rule",
    "has_tflags_domains_only",
    "has_tflags_nosubject",
    "has_tflags_maxhits",
    "has_uridnsbl_for_a",
    "perl_min_version_5010000",
    "has_short_url_redir",
    "has_check_uri_host_listed",
    "has_welcomelist_blocklist",
];

/// Whether a condition holds.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn holds(source: &str) -> Result<bool, String> {
    let mut reader = Reader { rest: source.trim() };
    let value = reader.any(DEPTH)?;
    if reader.rest.is_empty() {
        Ok(value != 0.0)
    } else {
        Err(format!("`{}` is not expected here", reader.rest))
    }
}

/// Whether a plugin of this name is part of this program.
pub(super) fn has_plugin(name: &str) -> bool {
    let name = name.trim().strip_prefix("Mail::SpamAssassin::Plugin::").unwrap_or(name.trim());
    PLUGINS.contains(&name)
}

fn has_feature(name: &str) -> bool {
    let name = name.trim();
    let (owner, feature) = name.rsplit_once("::").unwrap_or(("", name));
    let owner_is_here = match owner.strip_prefix("Mail::SpamAssassin::Plugin::") {
        Some(plugin) => PLUGINS.contains(&plugin),
        None => true,
    };
    owner_is_here && FEATURES.contains(&feature)
}

struct Reader<'a> {
    rest: &'a str,
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
            "plugin" | "can" | "has" => {}
            _ => return word.parse().map_err(|_| format!("`{word}` is no condition")),
        }
        let inner = self.rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (name, rest) = inner.ok_or("a name in parentheses is missing")?;
        self.rest = rest.trim_start();
        Ok(truth(if word == "plugin" { has_plugin(name) } else { has_feature(name) }))
    }
}

fn truth(is_true: bool) -> f64 {
    if is_true { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

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
