//! Addresses in the text that name no scheme, which SpamAssassin takes for links all the same: mailboxes and
//! names of hosts.

/// Longest address that is taken, and most of them.
const BYTES: usize = 512;
const MOST: usize = 1_000;

/// Returns the addresses with the scheme that is meant: `mailto:` or `http://`.
pub(super) fn bare_links(text: &str) -> impl Iterator<Item = String> {
    let is_end = |c: char| c.is_whitespace() || "<>\"`{}[]|\u{a0}".contains(c);
    let words = text.split(is_end).filter(|word| word.len() > 3 && word.len() <= BYTES && word.contains('.'));
    words.filter_map(bare_link).take(MOST)
}

fn bare_link(word: &str) -> Option<String> {
    let word = match word.find(')') {
        Some(end) if !word.get(..end)?.contains('(') => word.get(..end)?,
        _ => word,
    };
    if word.contains("://") || word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("www.")) {
        return None;
    }
    if let Some(at) = word.find('@') {
        return mailbox(word, at);
    }
    let word = word.trim_start_matches(|c: char| c.is_ascii_punctuation());
    let end = word.find([':', '/']).unwrap_or(word.len());
    let (host, rest) = word.split_at_checked(end)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_host = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    // A port of at most five digits, and a path; nothing else may follow.
    let port = rest.strip_prefix(':').unwrap_or_default().split('/').next()?;
    let path = rest.strip_prefix(':').map_or(rest, |rest| rest.get(port.len()..).unwrap_or_default());
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_place =
        is_port && rest.starts_with(':') != port.is_empty() && (path.is_empty() || path.starts_with('/'));
    let word = word.trim_end_matches(|c: char| "-~!@#^&*()_+=:;'?,.".contains(c));
    (is_host && is_place && has_known_end(host)).then(|| format!("http://{word}"))
}

fn mailbox(word: &str, at: usize) -> Option<String> {
    let start = word.get(..at)?.rfind([',', '\'', '(']).map_or(0, |sign| sign + 1);
    let local = word.get(start..at)?;
    // `mail:` and the like before an address are no part of it.
    let local = local.rsplit_once(':').map_or(local, |(_, local)| local);
    let domain = word.get(at + 1..)?;
    let end = domain.find(|c: char| c == ',' || c == '(' || c == '\'' || c == '@' || !c.is_ascii());
    let domain = domain.get(..end.unwrap_or(domain.len()))?;
    let domain = domain.trim_end_matches(|c: char| "-~!@#^&*()_+=:;'?,.".contains(c));
    let host = domain.split(['?', '&', '>']).next()?;
    let is_local = !local.is_empty() && local.is_ascii() && !local.contains('/');
    (is_local && has_known_end(host)).then(|| format!("mailto:{local}@{domain}"))
}

/// Whether a name ends below a public suffix.
fn has_known_end(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_known = psl::suffix(host.as_bytes()).is_some_and(|suffix| suffix.is_known());
    let labels = || host.split('.').all(|label| !label.is_empty() && label.len() < 64);
    is_known && labels() && psl::domain_str(&host).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_and_hosts_are_links() {
        for (text, expected) in [
            ("write to a.b@example.com, please", &["mailto:a.b@example.com"][..]),
            ("<a@example.com>", &["mailto:a@example.com"]),
            ("mailto:a@example.com?subject=x", &["mailto:a@example.com?subject=x"]),
            ("Email:a@example.com.", &["mailto:a@example.com"]),
            ("see example.com/x?y=1.", &["http://example.com/x?y=1"]),
            ("example.co.uk example.com:8080/", &["http://example.co.uk", "http://example.com:8080/"]),
            ("http://example.com www.example.com", &[]),
            ("example.com. example.com, example.com:586: a_b.com", &["http://example.com"]),
            ("file.nosuchtld 1.5 e.g. a..com .com com", &[]),
            ("@example.com a@b ü@example.com", &[]),
        ] {
            assert_eq!(bare_links(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[a-z@.:/()?'<>, é-]{0,80}") {
            for link in bare_links(&text) {
                proptest::prop_assert!(link.starts_with("mailto:") || link.starts_with("http://"));
            }
        }
    }
}
