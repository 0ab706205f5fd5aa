//! Links: those written out in a text, and what can be said of any.

use memchr::memchr2_iter;
use url::Url;

use super::{Link, LinkSource};

impl Link {
    /// Returns the host of the target in lower case, an IDN in its ASCII form; `None` for what is no web
    /// address.
    pub fn host(&self) -> Option<String> {
        host(&self.target)
    }

    /// Whether the reader can follow it: everything but images.
    pub fn is_clickable(&self) -> bool {
        self.source != LinkSource::Image
    }
}

/// Returns the host of a web address as a browser would see it; `www.` without a scheme counts.
pub fn host(target: &str) -> Option<String> {
    let target = target.trim();
    let url = match Url::parse(target) {
        Ok(url) => url,
        Err(url::ParseError::RelativeUrlWithoutBase) if starts_with(target, "//") => {
            Url::parse(&format!("http:{target}")).ok()?
        }
        Err(url::ParseError::RelativeUrlWithoutBase) if starts_with(target, "www.") => {
            Url::parse(&format!("http://{target}")).ok()?
        }
        Err(_) => return None,
    };
    if !matches!(url.scheme(), "http" | "https" | "ftp") {
        return None;
    }
    url.host_str().map(|host| host.trim_end_matches('.').to_ascii_lowercase())
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Finds the web addresses that are written out in a text: `http://`, `https://` and `www.`, without the
/// punctuation that ends a sentence.
pub(super) fn in_text(text: &str) -> impl Iterator<Item = &str> {
    let mut end_of_last = 0;
    // Every address begins with a letter that is rare enough to search for.
    memchr2_iter(b':', b'.', text.as_bytes()).filter_map(move |mark| {
        let before = text.get(..mark)?;
        let start = ["https", "http", "www"].into_iter().find_map(|word| {
            let start = mark.checked_sub(word.len())?;
            let is_word = before.get(start..)?.eq_ignore_ascii_case(word);
            let is_sign = text.get(mark..)?.starts_with(if word == "www" { "." } else { "://" });
            let is_free = !before.get(..start)?.ends_with(|c: char| c.is_ascii_alphanumeric());
            (is_word && is_sign && is_free).then_some(start)
        })?;
        if start < end_of_last {
            return None;
        }
        let rest = text.get(start..)?;
        let len = rest
            .find(|c: char| {
                c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"' | '`' | '{' | '}' | '|')
            })
            .unwrap_or(rest.len());
        let found = trim(rest.get(..len)?);
        end_of_last = start + found.len();
        // `http://` alone, or `www.`, is no address.
        (found.len() > mark - start + 3).then_some(found)
    })
}

fn trim(mut found: &str) -> &str {
    loop {
        let trimmed =
            found.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '*', '_', '~', '’', '”', '…']);
        let trimmed = match trimmed.strip_suffix(')') {
            Some(inner) if !inner.contains('(') => inner,
            _ => trimmed,
        };
        let trimmed = match trimmed.strip_suffix(']') {
            Some(inner) if !inner.contains('[') => inner,
            _ => trimmed,
        };
        if trimmed.len() == found.len() {
            return found;
        }
        found = trimmed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_a_text_end_before_the_punctuation() {
        for (text, expected) in [
            ("see http://a.example/x?y=1.", &["http://a.example/x?y=1"][..]),
            ("(https://a.example/) and <HTTP://B.example>", &["https://a.example/", "HTTP://B.example"]),
            ("go to www.a.example, now", &["www.a.example"]),
            ("https://a.example/w(x)", &["https://a.example/w(x)"]),
            ("https://www.a.example/?u=http://b.example", &["https://www.a.example/?u=http://b.example"]),
            ("xhttp://a.example hxxp://a.example www. http://", &[]),
            ("ü:www.ü.example!", &["www.ü.example"]),
        ] {
            assert_eq!(in_text(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn hosts_are_seen_as_a_browser_sees_them() {
        for (target, expected) in [
            ("https://WWW.Example.org:8443/x", Some("www.example.org")),
            ("http://paypal.com@evil.example/", Some("evil.example")),
            ("//cdn.example/x.png", Some("cdn.example")),
            ("www.example.org/a", Some("www.example.org")),
            ("http://3232235777/", Some("192.168.1.1")),
            ("http://bücher.example/", Some("xn--bcher-kva.example")),
            ("mailto:a@example.org", None),
            ("cid:1234", None),
            ("#top", None),
        ] {
            assert_eq!(host(target).as_deref(), expected, "{target}");
        }
    }
}
