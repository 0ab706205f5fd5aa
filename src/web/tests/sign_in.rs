use super::*;

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_sign_in() {
    let house = House::new().await;
    let id = house.keep(1, "alice@example.org", "Your invoice").await;
    let mut browser = house.browser();
    for cookie in [None, Some("lazaret=x".to_owned()), Some(format!("lazaret={}", "A".repeat(43)))] {
        browser.cookie = cookie;
        for path in ["/".to_owned(), format!("/message/{id}"), "/settings".into()] {
            let answer = browser.get(&path).await;
            assert_eq!(answer.header(header::LOCATION), "/sign-in", "{path}");
        }
        let answer = browser.post(&format!("/message/{id}/release"), &[("token", "x")]).await;
        assert_eq!(answer.header(header::LOCATION), "/sign-in");
    }
    assert_eq!(house.state(&id).await, "kept");
    assert_eq!(browser.get("/sign-in").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_recipient_asks_for_a_link_and_comes_in_by_it() {
    let mut house = House::new().await;
    house.keep(1, "alice@example.org", "Your invoice").await;
    let mut browser = house.browser();
    let answer = browser.post("/sign-in/link", &[("address", " Alice@example.org ")]).await;
    assert!(answer.text.contains("a link is on its way"));
    let notice = house.notices.recv().await.unwrap();
    assert_eq!(notice.recipient.to_normalized(), "alice@example.org");
    let text = String::from_utf8(notice.bytes).unwrap();
    let (_, link) = text.split_once("http://gate.example:8025").unwrap();
    let path = link.split_whitespace().next().unwrap();

    // A scanner that opens the link uses nothing up.
    for _ in 0..3 {
        let page = house.browser().get(path).await;
        assert!(page.text.contains("works once") && page.headers.get(header::SET_COOKIE).is_none());
    }
    let token = path.strip_prefix("/link/").unwrap();
    browser.redeem(&Token::parse(token).unwrap()).await;
    assert!(browser.get("/").await.text.contains("Your invoice"));

    let again = house.browser().post("/link", &[("link", token)]).await;
    assert!(again.text.contains("This link has ended") && again.headers.get(header::SET_COOKIE).is_none());
    let malformed = house.browser().post("/link", &[("link", "x")]).await;
    assert!(malformed.text.contains("This link has ended"));
}

#[tokio::test]
async fn an_unknown_address_gets_the_same_answer_and_no_mail() {
    let mut house = House::new().await;
    house.keep(1, "alice@example.org", "Your invoice").await;
    let mut browser = house.browser();
    let unknown = browser.post("/sign-in/link", &[("address", "carol@example.org")]).await;
    let known = browser.post("/sign-in/link", &[("address", "alice@example.org")]).await;
    assert_eq!((unknown.status, unknown.text), (known.status, known.text));
    assert_eq!(house.notices.recv().await.unwrap().recipient.to_path(), "alice@example.org");
    drop(house.router);
    drop(browser);
    assert!(house.notices.recv().await.is_none(), "a stranger got mail");
}

#[tokio::test]
async fn a_source_that_asks_too_often_is_stopped() {
    let house = House::new().await;
    let mut browser = house.browser();
    for _ in 0..30 {
        let answer = browser.post("/sign-in/link", &[("address", "carol@example.org")]).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let answer = browser.post("/sign-in/link", &[("address", "carol@example.org")]).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    browser.source = 2;
    let answer = browser.post("/sign-in/link", &[("address", "not an address")]).await;
    assert!(answer.text.contains("not an address"));
}

#[tokio::test]
async fn the_administrator_sets_a_password_and_comes_back_with_it() {
    let house = House::new().await;
    let mut browser = house.administrator().await;
    assert!(browser.get("/").await.text.contains("Set a password"));
    let token = browser.token().await;
    for (new, again, expected) in [
        ("short", "short", "too short"),
        (PASSWORD, "something else altogether", "differ"),
        (PASSWORD, PASSWORD, "The password is set"),
    ] {
        let fields = [("token", token.as_str()), ("new", new), ("again", again)];
        assert!(browser.post("/settings", &fields).await.text.contains(expected), "{expected}");
    }
    assert!(!browser.get("/").await.text.contains("Set a password"));
    let answer = browser.post("/sign-out", &[("token", &token)]).await;
    assert_eq!(answer.header(header::LOCATION), "/sign-in");
    assert!(answer.header(header::SET_COOKIE).contains("Max-Age=0"));
    assert_eq!(browser.get("/").await.status, StatusCode::SEE_OTHER);

    let wrong = browser.post("/sign-in/password", &[("password", "wrong")]).await;
    assert!(wrong.text.contains("That is not the password"));
    let right = browser.post("/sign-in/password", &[("password", PASSWORD)]).await;
    assert_eq!(right.header(header::LOCATION), "/");
    assert_eq!(browser.get("/").await.status, StatusCode::OK);

    let mut guesser = Browser { source: 9, ..house.browser() };
    for _ in 0..10 {
        guesser.post("/sign-in/password", &[("password", "guess")]).await;
    }
    let answer = guesser.post("/sign-in/password", &[("password", PASSWORD)]).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_copied_cookie_is_worth_nothing_after_the_sign_out() {
    let house = House::new().await;
    let mut browser = house.administrator().await;
    let mut thief = browser.clone();
    assert_eq!(thief.get("/").await.status, StatusCode::OK);
    let token = browser.token().await;
    browser.post("/sign-out", &[("token", &token)]).await;
    assert_eq!(thief.get("/").await.header(header::LOCATION), "/sign-in");
}

#[tokio::test]
async fn a_mail_that_cannot_be_sent_changes_nothing_of_the_answer() {
    let mut house = House::new().await;
    house.keep(1, "alice@example.org", "Your invoice").await;
    house.notices.close();
    let mut browser = house.browser();
    let answer = browser.post("/sign-in/link", &[("address", "alice@example.org")]).await;
    assert!(answer.text.contains("a link is on its way"));
}
