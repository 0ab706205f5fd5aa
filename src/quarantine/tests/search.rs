use super::*;

async fn numbers(house: &House, query: Query) -> Vec<String> {
    let page = house.quarantine.list(&Scope::All, &query).await.unwrap();
    page.entries
        .iter()
        .map(|entry| entry.private.subject.expose().replace("Your invoice number ", ""))
        .collect()
}

async fn check(house: &House, text: &str, expected: &[&str]) {
    assert_eq!(numbers(house, Query { text: text.into(), ..Query::default() }).await, expected, "{text:?}");
}

#[tokio::test]
async fn entries_are_found_by_what_a_person_types() {
    let house = House::new().await;
    let first = letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    let mut second = letter(2, &["bob@example.net"]);
    second.scan.findings = vec![Finding::new(Symbol::fixed("GTUBE"), 1000.0, "test")];
    second.envelope.direction = Direction::Outbound;
    second.put(&house.quarantine).await;

    check(&house, "", &["2", "1"]).await;
    check(&house, "Alice@example.org", &["1"]).await;
    check(&house, "bounce@evil.example", &["2", "1"]).await;
    check(&house, "mallory@evil.example", &["2", "1"]).await;
    check(&house, "carol@example.org", &[]).await;
    check(&house, "example.net", &["2"]).await;
    check(&house, "GTUBE", &["2"]).await;
    check(&house, "URI_TEXT", &[]).await;
    check(&house, "URI_TEXT_MISMATCH", &["1"]).await;
    check(&house, first.as_str(), &["1"]).await;
    check(&house, &first.as_str().chars().take(6).collect::<String>(), &["1"]).await;
    check(&house, &TransactionId::from_random([2; 16]).to_string(), &["2"]).await;
    check(&house, "invoice", &["2", "1"]).await;
    check(&house, "INVOICE 2", &["2"]).await;
    check(&house, "secretname bob", &["2"]).await;
    check(&house, "%", &[]).await;
    check(&house, "' OR 1=1 --", &[]).await;
}

#[tokio::test]
async fn filters_by_state_and_direction_hold_together() {
    let house = House::new().await;
    let id = letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    let mut outbound = letter(2, &["alice@example.org"]);
    outbound.envelope.direction = Direction::Outbound;
    outbound.put(&house.quarantine).await;
    house.quarantine.act(&Scope::All, &id, Action::Confirm, None, NOW).await.unwrap();
    let by = |state: Option<State>, direction| Query {
        states: state.into_iter().collect(),
        direction,
        ..Query::default()
    };
    assert_eq!(numbers(&house, by(Some(State::Confirmed), None)).await, ["1"]);
    assert_eq!(numbers(&house, by(Some(State::Kept), None)).await, ["2"]);
    assert_eq!(numbers(&house, by(None, Some(Direction::Outbound))).await, ["2"]);
    assert!(numbers(&house, by(Some(State::Confirmed), Some(Direction::Outbound))).await.is_empty());
    let both = Query { states: vec![State::Kept, State::Confirmed], ..Query::default() };
    assert_eq!(numbers(&house, both).await, ["2", "1"]);
    assert!(house.quarantine.has_mail_for(&address("Alice@example.org")).await.unwrap());
    assert!(!house.quarantine.has_mail_for(&address("bob@example.org")).await.unwrap());
}

async fn pages(house: &House, text: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let query = Query { text: text.into(), after, page_size: 3, ..Query::default() };
        let page = house.quarantine.list(&Scope::All, &query).await.unwrap();
        assert!(page.entries.len() <= 3);
        seen.extend(page.entries.iter().map(|entry| entry.id.to_string()));
        match page.next {
            Some(next) => after = Cursor::parse(&next.to_string()),
            None => return seen,
        }
    }
}

#[tokio::test]
async fn pages_hold_every_entry_once() {
    let house = House::new().await;
    for number in 0..9 {
        let mut letter = letter(number, &["alice@example.org"]);
        letter.received_at = NOW;
        letter.put(&house.quarantine).await;
    }
    for text in ["", "evil.example", "your invoice"] {
        let mut seen = pages(&house, text).await;
        let listed = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((listed, seen.len()), (9, 9), "{text:?}");
    }
}

#[tokio::test]
async fn a_recipients_search_finds_nothing_of_others() {
    let house = House::new().await;
    let id = letter(1, &["alice@example.org"]).put(&house.quarantine).await;
    let bob = Scope::Recipient(address("bob@example.org"));
    for text in ["", "alice@example.org", "evil.example", "URI_TEXT_MISMATCH", id.as_str(), "your invoice"] {
        let query = Query { text: text.into(), ..Query::default() };
        let page = house.quarantine.list(&bob, &query).await.unwrap();
        assert!(page.entries.is_empty(), "{text}");
    }
}
