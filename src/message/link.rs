//! Links: those written out in a text, and what can be said of any.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memchr2_iter;
use url::Url;

use super::{Link, LinkSource};

/// Most parameters of a link that are looked at.
const PARAMETERS: usize = 30;

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

/// Returns where a link leads on to, when that stands in the link itself: in a parameter, plain or in base64, in
/// the path, or as gateways rewrite links.
pub(super) fn onward(target: &str) -> Option<String> {
    let url = Url::parse(target.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let is_web = |text: &str| {
        let rest = ["http://", "https://"]
            .iter()
            .find(|scheme| starts_with(text, scheme))
            .and_then(|scheme| text.get(scheme.len()..));
        rest.is_some_and(|rest| rest.split(['/', '?', '#']).next().is_some_and(|host| host.contains('.')))
    };
    for (_, value) in url.query_pairs().take(PARAMETERS) {
        if is_web(&value) {
            return Some(value.into_owned());
        }
        // Bing writes `a1` before the base64, Proofpoint `-3A` for a percent escape and `_` for a slash.
        let encoded = value.strip_prefix("a1").unwrap_or(&value);
        if encoded.len() >= 16 && encoded.starts_with("aHR0c") {
            let bytes = URL_SAFE_NO_PAD
                .decode(encoded.trim_end_matches('=').replace('+', "-").replace('/', "_"))
                .ok();
            if let Some(text) =
                bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|text| is_web(text))
            {
                return Some(text);
            }
        }
        if starts_with(&value, "http-3A") || starts_with(&value, "https-3A") {
            let text = value
                .replace("-3A", ":")
                .replace('_', "/")
                .replace("-2D", "-")
                .replace("-26", "&")
                .replace("-3D", "=");
            return Some(text).filter(|text| is_web(text));
        }
    }
    let path = url.path();
    if let Some(inner) =
        path.split_once("__").and_then(|(_, rest)| rest.split_once("__")).map(|(inner, _)| inner)
    {
        return Some(inner.to_owned()).filter(|inner| is_web(inner));
    }
    if let Some(inner) = path.split_once("/amp/s/").map(|(_, inner)| format!("https://{inner}")) {
        return Some(inner).filter(|inner| is_web(inner));
    }
    let inner = path.get(1..).and_then(|path| path.find("http").and_then(|at| path.get(at..)));
    inner.map(|inner| inner.replace("%3A", ":").replace("%2F", "/")).filter(|inner| is_web(inner))
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
    fn links_within_links_are_read() {
        for (target, expected) in [
            (
                "https://www.google.com/url?q=https%3A%2F%2Fevil.example%2Fx&sa=D",
                Some("https://evil.example/x"),
            ),
            ("https://l.facebook.com/l.php?u=http://a.example/", Some("http://a.example/")),
            (
                "https://www.bing.com/ck/a?u=a1aHR0cHM6Ly9ldmlsLmV4YW1wbGUv&ntb=1",
                Some("https://evil.example/"),
            ),
            (
                "https://urldefense.proofpoint.com/v2/url?u=https-3A__evil.example_x",
                Some("https://evil.example/x"),
            ),
            ("https://urldefense.com/v3/__https://evil.example/x__;!!abc", Some("https://evil.example/x")),
            ("https://www.google.com/amp/s/evil.example/p", Some("https://evil.example/p")),
            ("https://a.example/go/https://b.example/x", Some("https://b.example/x")),
            ("https://a.example/?q=hello", None),
            ("https://a.example/http-guide", None),
            ("mailto:a@example.org?u=http://b.example/", None),
        ] {
            assert_eq!(onward(target).as_deref(), expected, "{target}");
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
