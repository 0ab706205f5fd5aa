use super::*;

#[tokio::test]
async fn the_morning_of_an_administrator() {
    let house = House::new().await;
    let first = house.keep(1, "alice@example.org", "Your invoice").await;
    house.keep(2, "bob@example.org", "Win a prize").await;
    let mut browser = house.administrator().await;

    let list = browser.get("/").await;
    assert_eq!(list.status, StatusCode::OK);
    for text in ["2 messages wait for you", "Your invoice", "Win a prize", "2 hours ago", "alice@example.org"]
    {
        assert!(list.text.contains(text), "{text}");
    }
    assert!(list.text.contains("Kept because the link says paypal.com but goes to evil.example"));

    let page = browser.get(&format!("/message/{first}")).await;
    for text in [
        "Your invoice",
        "URI_TEXT_MISMATCH",
        "+6.5",
        "second line",
        "bounce@evil.example",
        "192.0.2.7",
        "evil.example/?a=",
    ] {
        assert!(page.text.contains(text), "{text}");
    }

    let answer = browser.act(&first, "confirm").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(answer.header(header::LOCATION), format!("/message/{first}"));
    assert!(browser.get("/").await.text.contains("1 message waits for you"));
    assert!(browser.get("/?show=spam").await.text.contains("Your invoice"));
    assert!(browser.get("/?q=prize").await.text.contains("Win a prize"));
    assert!(browser.get("/?q=nothing+like+it").await.text.contains("Nothing found"));

    assert_eq!(browser.act(&first, "release").await.status, StatusCode::CONFLICT);
    assert_eq!(browser.act(&first, "undo").await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.state(&first).await, "kept");
    browser.act(&first, "release").await;
    browser.act(&first, "release").await;
    assert_eq!(house.state(&first).await, "releasing");
    assert_eq!(house.quarantine.waiting().await.unwrap(), 1);
}

#[tokio::test]
async fn a_button_on_the_list_leads_back_to_the_same_list() {
    let house = House::new().await;
    let id = house.keep(1, "alice@example.org", "Your invoice").await;
    let mut browser = house.administrator().await;
    let token = browser.token().await;
    let fields = [("token", token.as_str()), ("from", "list"), ("q", "a&b"), ("way", "inbound")];
    let answer = browser.post(&format!("/message/{id}/drop"), &fields).await;
    assert_eq!(answer.header(header::LOCATION), format!("/?q=a%26b&way=inbound&done={id}"));
    let list = browser.get(answer.header(header::LOCATION)).await;
    assert!(list.text.contains("Dropped:") && list.text.contains(&format!("/message/{id}/undo")));
}

#[tokio::test]
async fn a_recipient_sees_and_releases_their_own() {
    let house = House::new().await;
    let own = house.keep(1, "alice@example.org", "Your invoice").await;
    house.keep(2, "bob@example.org", "Something for Bob").await;
    let mut alice = house.recipient("alice@example.org").await;
    let list = alice.get("/").await.text;
    assert!(list.contains("Your invoice") && !list.contains("Bob") && !list.contains("bob@"));
    assert_eq!(alice.act(&own, "release").await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.state(&own).await, "releasing");
}

#[tokio::test]
async fn what_belongs_to_others_answers_as_if_it_did_not_exist() {
    let house = House::new().await;
    house.keep(1, "alice@example.org", "Your invoice").await;
    let bobs = house.keep(2, "bob@example.org", "Something for Bob").await;
    let nobodys = EntryId::parse("0000000000000000").unwrap();
    let mut alice = house.recipient("alice@example.org").await;

    let mut answers = Vec::new();
    for id in [&bobs, &nobodys] {
        let page = alice.get(&format!("/message/{id}")).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND);
        answers.push(page.text);
        for action in ["release", "confirm", "drop", "undo"] {
            let answer = alice.act(id, action).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{action}");
            answers.push(answer.text);
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "the answers differ");
    assert_eq!(house.state(&bobs).await, "kept");

    for query in [
        String::new(),
        "?show=all".into(),
        "?q=Bob".into(),
        "?q=bob%40example.org".into(),
        format!("?q={bobs}"),
        format!("?done={bobs}"),
        "?way=outbound&show=all".into(),
    ] {
        let list = alice.get(&format!("/{query}")).await.text;
        assert!(!list.contains("Something for") && !list.contains(&format!("/message/{bobs}")), "{query}");
    }
}

#[tokio::test]
async fn a_recipient_has_no_password_page() {
    let house = House::new().await;
    house.keep(1, "alice@example.org", "Your invoice").await;
    let mut alice = house.recipient("alice@example.org").await;
    let token = alice.token().await;
    assert_eq!(alice.get("/settings").await.status, StatusCode::NOT_FOUND);
    let fields = [("token", token.as_str()), ("new", PASSWORD), ("again", PASSWORD)];
    assert_eq!(alice.post("/settings", &fields).await.status, StatusCode::NOT_FOUND);
    assert!(!house.accounts.has_password().await.unwrap());
}

#[tokio::test]
async fn nothing_a_message_says_becomes_markup() {
    let house = House::new().await;
    let evil = "</title><script>alert(1)</script>\"'><img src=x> \u{202e}gpj.exe";
    let id = house.keep(1, "alice@example.org", evil).await;
    let mut browser = house.administrator().await;
    for path in
        ["/".to_owned(), format!("/message/{id}"), format!("/?done={id}"), "/?q=%22%3E%3Cscript%3E".into()]
    {
        let page = browser.get(&path).await.text;
        for forbidden in ["<script", "<img src=x", "onerror=alert(1)>", "\u{202e}", " style=", "javascript:"]
        {
            assert!(!page.contains(forbidden), "{forbidden} in {path}");
        }
    }
}

#[tokio::test]
async fn nothing_changes_by_get() {
    let house = House::new().await;
    let id = house.keep(1, "alice@example.org", "Your invoice").await;
    let mut browser = house.administrator().await;
    for action in ["release", "confirm", "drop", "undo"] {
        let answer = browser.get(&format!("/message/{id}/{action}")).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_eq!(browser.get("/sign-out").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(house.state(&id).await, "kept");
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_form_without_its_sessions_token_is_refused() {
    let house = House::new().await;
    let id = house.keep(1, "alice@example.org", "Your invoice").await;
    let mut browser = house.administrator().await;
    let mut other = house.administrator().await;
    let foreign = other.token().await;
    for token in ["", "x", foreign.as_str()] {
        let answer = browser.post(&format!("/message/{id}/release"), &[("token", token)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_eq!(browser.post("/sign-out", &[("token", token)]).await.status, StatusCode::FORBIDDEN);
        let fields = [("token", token), ("new", PASSWORD), ("again", PASSWORD)];
        assert_eq!(browser.post("/settings", &fields).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(browser.post(&format!("/message/{id}/release"), &[]).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(house.state(&id).await, "kept");
}
