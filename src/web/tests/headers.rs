use super::*;

#[tokio::test]
async fn every_answer_tells_the_browser_to_trust_nothing() {
    let house = House::new().await;
    let mut browser = house.administrator().await;
    for path in [
        "/",
        "/sign-in",
        "/link/x",
        "/nowhere",
        "/settings",
        "/style.css",
        "/icon.svg",
        "/healthz",
        "/metrics",
    ] {
        let answer = browser.get(path).await;
        assert_eq!(
            answer.header("content-security-policy"),
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        let asset = ["/style.css", "/icon.svg"].contains(&path);
        assert_eq!(answer.header("cache-control") == "no-store", !asset, "{path}");
        assert!(answer.headers.get("strict-transport-security").is_none());
    }
}

#[tokio::test]
async fn forms_of_other_origins_are_refused() {
    let house = House::new().await;
    let id = house.keep(1, "alice@example.org", "Your invoice").await;
    let mut browser = house.administrator().await;
    for origin in ["http://evil.example", "null", "https://gate.example:8025", "http://gate.example"] {
        browser.origin = Some(origin);
        assert_eq!(browser.act(&id, "release").await.status, StatusCode::FORBIDDEN, "{origin}");
        let fields = [("address", "alice@example.org")];
        assert_eq!(browser.post("/sign-in/link", &fields).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(house.state(&id).await, "kept");
    browser.origin = Some("http://gate.example:8025");
    assert_eq!(browser.act(&id, "release").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn cookies_are_as_strict_as_the_address_allows() {
    for (url, prefix, secure) in
        [("http://127.0.0.1:8025", "lazaret=", false), ("https://gate.example", "__Host-lazaret=", true)]
    {
        let house = House::at(url).await;
        let token = house.accounts.printed_link(NOW).await.unwrap();
        let answer = house.browser().post("/link", &[("link", token.expose())]).await;
        let cookie = answer.header(header::SET_COOKIE);
        assert!(cookie.starts_with(prefix), "{cookie}");
        assert!(cookie.contains("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
        assert_eq!(cookie.contains("; Secure"), secure);
        assert_eq!(answer.headers.contains_key("strict-transport-security"), secure);
    }
}

#[tokio::test]
async fn a_form_that_is_too_large_is_not_read() {
    let house = House::new().await;
    let large = "x".repeat(crate::web::BODY_LIMIT_BYTES + 1);
    let answer = house.browser().post("/sign-in/link", &[("address", &large)]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let house = House::new().await;
    let mut browser = house.administrator().await;
    for path in ["/nowhere", "/message/x", "/message/..%2f..%2fetc", "/static/../Cargo.toml"] {
        assert_eq!(browser.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let id = house.keep(1, "alice@example.org", "Your invoice").await;
    assert_eq!(browser.act(&id, "explode").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_machine_readable_pages_answer_without_a_session() {
    let house = House::new().await;
    assert_eq!(house.browser().get("/healthz").await.text, "ok\n");
    let metrics = house.browser().get("/metrics").await;
    assert_eq!(metrics.text, "lazaret_sessions 0\n");
    assert!(metrics.header(header::CONTENT_TYPE).starts_with("text/plain"));
}
