//! What stands around every answer: the browser is told to trust nothing but our own style sheet, and a
//! form that comes from elsewhere is refused before anybody looks at it.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Site;
use super::failure::Failure;

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
    frame-ancestors 'none'; base-uri 'none'";

pub(super) async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let mut response = if safe || is_from_ourselves(request.headers(), site.origin()) {
        next.run(request).await
    } else {
        Failure::ForeignForm(site.origin().to_owned()).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: under it, browsers send `Origin: null` with our own forms. Nobody else is
        // told where the reader comes from by this one either.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if site.is_https() {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a form comes from one of our own pages, as far as the browser says. Where it says nothing, the
/// form's token decides alone.
fn is_from_ourselves(headers: &HeaderMap, origin: &str) -> bool {
    let foreign_site = headers
        .get("sec-fetch-site")
        .is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let foreign_origin =
        headers.get(header::ORIGIN).is_some_and(|given| given.as_bytes() != origin.as_bytes());
    !foreign_site && !foreign_origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &'static str)], expected: bool) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        assert_eq!(is_from_ourselves(&map, "https://gate.example"), expected, "{headers:?}");
    }

    #[test]
    fn forms_from_elsewhere_are_told_apart() {
        check(&[], true);
        check(&[("origin", "https://gate.example")], true);
        check(&[("origin", "https://gate.example"), ("sec-fetch-site", "same-origin")], true);
        check(&[("origin", "http://gate.example")], false);
        check(&[("origin", "https://gate.example.evil.example")], false);
        check(&[("origin", "null")], false);
        check(&[("sec-fetch-site", "cross-site")], false);
        check(&[("sec-fetch-site", "same-site")], false);
    }
}
