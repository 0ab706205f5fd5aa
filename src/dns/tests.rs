use super::*;

fn exchange(preference: u16, host: &str) -> Exchange {
    Exchange { preference, host: host.to_owned() }
}

fn hosts(mx: Option<Mx>) -> Vec<String> {
    match mx {
        Some(Mx::Hosts { exchanges, .. }) => exchanges.into_iter().map(|exchange| exchange.host).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn exchanges_are_sorted_by_preference_and_named_once() {
    let mx = Mx::new(vec![exchange(20, "b"), exchange(10, "a"), exchange(30, "a"), exchange(10, "c")], true);
    assert_eq!(hosts(mx), ["a", "c", "b"]);
}

#[test]
fn the_null_mx_stands_alone_or_means_nothing() {
    assert_eq!(Mx::new(vec![exchange(0, "")], false), Some(Mx::Null));
    assert_eq!(hosts(Mx::new(vec![exchange(0, ""), exchange(10, "a")], false)), ["a"]);
    assert_eq!(Mx::new(Vec::new(), false), None);
}

#[test]
fn a_domain_with_countless_exchanges_keeps_the_most_preferred() {
    let many = (0..5000).rev().map(|n| exchange(n, &format!("mx{n}"))).collect();
    let kept = hosts(Mx::new(many, false));
    assert_eq!(kept.len(), MAX_EXCHANGES);
    assert_eq!(kept.first().map(String::as_str), Some("mx0"));
}
