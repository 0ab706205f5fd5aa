//! The texts of MTA-STS: the record that announces a policy, and the policy (RFC 8461, section 3).

use std::time::Duration;

use thiserror::Error;

/// Hosts in one policy.
const MAX_PATTERNS: usize = 64;
/// A policy's longest life, in seconds (RFC 8461, section 3.2): a year.
const MAX_AGE_SECONDS: u64 = 31_557_600;

/// What is to be done about hosts that do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay::tls) enum Mode {
    /// No mail goes there.
    Enforce,
    /// Mail goes there all the same.
    Testing,
    /// There is no policy any more.
    None,
}

/// A domain's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::relay::tls) struct Policy {
    mode: Mode,
    max_age: Duration,
    patterns: Vec<Pattern>,
}

/// One `mx` line; the name in lower case, without the `*.` of a wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    is_wildcard: bool,
    name: String,
}

/// Why a text is no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum InvalidPolicy {
    /// It is of another version or of none.
    #[error("the version is not STSv1")]
    Version,
    /// The mode is missing or unknown.
    #[error("the mode is missing or unknown")]
    Mode,
    /// The life time is missing or no number.
    #[error("max_age is missing or no number")]
    MaxAge,
    /// A host is no name, there are none, or too many (64).
    #[error("the hosts are missing, malformed or too many")]
    Mx,
    /// A line is no field.
    #[error("a line is no field")]
    Line,
}

impl Policy {
    /// Reads a policy. Of a field that is there twice the first counts; unknown fields are skipped.
    ///
    /// # Errors
    /// [`InvalidPolicy`]: the domain is then as good as without a policy.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidPolicy> {
        let (mut version, mut mode, mut max_age, mut patterns) = (None, None, None, Vec::new());
        for line in text.split('\n') {
            let line = line.trim_matches([' ', '\t', '\r']);
            if line.is_empty() {
                continue;
            }
            let (field, value) = line.split_once(':').ok_or(InvalidPolicy::Line)?;
            let value = value.trim_matches([' ', '\t']);
            match field {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" if patterns.len() == MAX_PATTERNS => return Err(InvalidPolicy::Mx),
                "mx" => patterns.push(Pattern::parse(value).ok_or(InvalidPolicy::Mx)?),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(InvalidPolicy::Version);
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(InvalidPolicy::Mode),
        };
        let max_age = max_age
            .filter(|digits| (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u64>().ok())
            .ok_or(InvalidPolicy::MaxAge)?;
        if patterns.is_empty() && mode != Mode::None {
            return Err(InvalidPolicy::Mx);
        }
        Ok(Policy { mode, max_age: Duration::from_secs(max_age.min(MAX_AGE_SECONDS)), patterns })
    }

    /// Returns what is to be done about hosts that do not fit.
    pub(in crate::relay::tls) fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns how long it may be kept, a year at most.
    pub(super) fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Whether it lists a host. A wildcard stands for exactly one label (RFC 8461, section 4.1).
    pub(in crate::relay::tls) fn allows(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.patterns.iter().any(|pattern| {
            let compared = if pattern.is_wildcard {
                match host.split_once('.') {
                    Some((label, rest)) if !label.is_empty() => rest,
                    _ => return false,
                }
            } else {
                host
            };
            compared.eq_ignore_ascii_case(&pattern.name)
        })
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let label_is_valid = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        (name.len() <= 253 && name.split('.').all(label_is_valid))
            .then(|| Pattern { is_wildcard, name: name.to_ascii_lowercase() })
    }
}

/// Finds the id of the policy that a domain announces in the texts at `_mta-sts` (RFC 8461, section 3.1).
///
/// Other texts do not count; two announcements, or one that is malformed, are as good as none.
pub(super) fn announced_id(texts: &[String]) -> Option<&str> {
    let mut announcements = texts.iter().filter_map(|text| text.strip_prefix("v=STSv1"));
    let (Some(fields), None) = (announcements.next(), announcements.next()) else { return None };
    let fields = fields.trim_start_matches([' ', '\t']).strip_prefix(';')?;
    let id = fields.split(';').find_map(|field| field.trim_matches([' ', '\t']).strip_prefix("id="))?;
    ((1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<(Mode, u64, usize), InvalidPolicy>) {
        let read = Policy::parse(text);
        assert_eq!(
            read.map(|policy| (policy.mode, policy.max_age.as_secs(), policy.patterns.len())),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn policies_are_read_as_the_rfc_writes_them() {
        check(
            "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 604800\n",
            Ok((Mode::Enforce, 604_800, 2)),
        );
        check(
            "version:STSv1\r\nmode:testing\r\nmx:a.example\r\nmax_age:1\r\n\r\n",
            Ok((Mode::Testing, 1, 1)),
        );
        check("max_age: 86400 \n mx: a.example\nmode: none\nversion: STSv1", Ok((Mode::None, 86_400, 1)));
        check("version: STSv1\nmode: none\nmax_age: 0", Ok((Mode::None, 0, 0)));
        check("version: STSv1\nmode: none\nmax_age: 5\nfuture_field: x: y", Ok((Mode::None, 5, 0)));
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_first_counts() {
        check(
            "version: STSv1\nversion: STSv2\nmode: enforce\nmode: none\nmx: a.example\nmax_age: 7\nmax_age: 8\n",
            Ok((Mode::Enforce, 7, 1)),
        );
    }

    #[test]
    fn a_policy_lives_a_year_at_most() {
        check("version: STSv1\nmode: none\nmax_age: 9999999999", Ok((Mode::None, MAX_AGE_SECONDS, 0)));
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_part_at_fault() {
        check("", Err(InvalidPolicy::Version));
        check("version: STSv2\nmode: none\nmax_age: 1", Err(InvalidPolicy::Version));
        check("version: STSv1\nmax_age: 1", Err(InvalidPolicy::Mode));
        check("version: STSv1\nmode: Enforce\nmax_age: 1", Err(InvalidPolicy::Mode));
        check("version: STSv1\nmode: none", Err(InvalidPolicy::MaxAge));
        check("version: STSv1\nmode: none\nmax_age: ", Err(InvalidPolicy::MaxAge));
        check("version: STSv1\nmode: none\nmax_age: +1", Err(InvalidPolicy::MaxAge));
        check("version: STSv1\nmode: none\nmax_age: 10000000000", Err(InvalidPolicy::MaxAge));
        check("version: STSv1\nmode: enforce\nmax_age: 1", Err(InvalidPolicy::Mx));
        for bad in ["", "*", "*.", "a.*.example", "*a.example", "a..example", "a b", "bücher.example"] {
            check(&format!("version: STSv1\nmode: enforce\nmax_age: 1\nmx: {bad}"), Err(InvalidPolicy::Mx));
        }
        check("<html>", Err(InvalidPolicy::Line));
        let many = "mx: a.example\n".repeat(MAX_PATTERNS + 1);
        check(&format!("version: STSv1\nmode: enforce\nmax_age: 1\n{many}"), Err(InvalidPolicy::Mx));
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let text = "version: STSv1\nmode: enforce\nmax_age: 1\nmx: *.Example.net\nmx: mx.example.org";
        let policy = Policy::parse(text).unwrap();
        for good in ["a.example.net", "A.EXAMPLE.NET", "a.example.net.", "mx.example.org"] {
            assert!(policy.allows(good), "{good}");
        }
        for bad in ["example.net", ".example.net", "a.b.example.net", "a.mx.example.org", "example.org", ""] {
            assert!(!policy.allows(bad), "{bad}");
        }
    }

    fn check_announcement(texts: &[&str], expected: Option<&str>) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(announced_id(&texts), expected, "{texts:?}");
    }

    #[test]
    fn one_announcement_is_found_among_other_texts() {
        check_announcement(&["v=STSv1; id=20160831085700Z;"], Some("20160831085700Z"));
        check_announcement(&["v=spf1 -all", "v=STSv1;id=1"], Some("1"));
        check_announcement(&["v=STSv1 ; x=y; id=1 ;"], Some("1"));
        check_announcement(&[], None);
        check_announcement(&["v=STSv1; id=1", "v=STSv1; id=2"], None);
        check_announcement(&["v=STSv1"], None);
        check_announcement(&["v=STSv1;"], None);
        check_announcement(&["v=STSv1; id="], None);
        check_announcement(&["v=STSv1; id=a-b"], None);
        check_announcement(&["v=STSv10; id=1"], None);
        check_announcement(&[&format!("v=STSv1; id={}", "1".repeat(33))], None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "(?s).{0,400}", host in "(?s).{0,80}") {
            if let Ok(policy) = Policy::parse(&text) {
                prop_assert!(!policy.allows(""));
                policy.allows(&host);
            }
            announced_id(&[format!("v=STSv1{text}")]);
        }

        #[test]
        fn no_policy_of_known_fields_makes_the_reader_panic(
            lines in prop::collection::vec("(version|mode|mx|max_age|x)?:?[ \t]*(STSv1|enforce|none|[0-9]{0,11}|[*.a-c]{0,9})\r?", 0..12)
        ) {
            if let Ok(policy) = Policy::parse(&lines.join("\n")) {
                prop_assert!(policy.max_age() <= Duration::from_secs(MAX_AGE_SECONDS));
                prop_assert!(policy.mode() == Mode::None || !policy.patterns.is_empty());
            }
        }
    }
}
