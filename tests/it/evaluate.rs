//! `lazaret evaluate` over the sample mail.

use std::fs;
use std::path::Path;

use crate::parts::{printed, run, scratch};

/// Writes a list of the inbound samples, ham and spam in turns as they stand in the manifest.
fn write_list(folder: &Path) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let manifest = fs::read_to_string(corpus.join("MANIFEST")).unwrap();
    let of = |label: &str| -> Vec<String> {
        let rows = manifest.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let rows = rows.filter(|row| row.get(1) == Some(&"inbound") && row.get(4) == Some(&label));
        rows.map(|row| format!("{label} {}\n", corpus.join(row[0]).display())).collect()
    };
    let (ham, spam) = (of("ham"), of("spam"));
    assert!(ham.len() > 50 && spam.len() > 50);
    let list: String = ham.iter().zip(&spam).flat_map(|(ham, spam)| [ham.as_str(), spam.as_str()]).collect();
    fs::write(folder.join("index"), list).unwrap();
}

fn evaluate(folder: &Path, words: &[&str]) -> serde_json::Value {
    let output = run(folder, &[&["evaluate", "index", "--json"], words].concat());
    assert!(output.status.success(), "{}", printed(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn filter_and_rules_are_measured_over_labelled_mail() {
    let folder = scratch();
    write_list(folder.path());
    let number = |found: &serde_json::Value, name: &str| found[name].as_f64().unwrap();
    let learned = evaluate(folder.path(), &["--scores", "scores"]);
    let messages = number(&learned, "messages");
    assert_eq!((number(&learned, "spam"), number(&learned, "lessons")), (messages / 2.0, messages));
    assert!(number(&learned, "1-ROCA %") < 20.0, "{learned}");
    let scores = fs::read_to_string(folder.path().join("scores")).unwrap();
    assert_eq!(scores.lines().count() as f64, messages);
    assert!(scores.starts_with("ham 0.000000 /"), "{scores}");

    // What is learned from all others knows more than what was learned until then.
    let split = evaluate(folder.path(), &["--split", "5"]);
    assert!(number(&split, "1-ROCA %") < number(&learned, "1-ROCA %"), "{split} {learned}");
    assert_eq!(number(&split, "lessons"), 4.0 * messages);
    let late = evaluate(folder.path(), &["--feedback", "delayed:40"]);
    assert_eq!(number(&late, "lessons"), messages - 40.0);
    let few = evaluate(folder.path(), &["--feedback", "partial:20"]);
    assert!((0.1..0.3).contains(&(number(&few, "lessons") / messages)), "{few}");
    let mistakes = evaluate(folder.path(), &["--feedback", "mistakes:100"]);
    assert!(number(&mistakes, "lessons") < messages, "{mistakes}");
    let wrong = evaluate(folder.path(), &["--wrong", "30"]);
    assert!(number(&wrong, "1-ROCA %") > number(&learned, "1-ROCA %"), "{wrong} {learned}");
    // Rules know the first message.
    let rules = evaluate(folder.path(), &["--rules", "only", "--feedback", "partial:0"]);
    assert_eq!(number(&rules, "lessons"), 0.0);
    assert!(number(&rules, "1-ROCA %") < 20.0, "{rules}");
}

#[test]
fn the_first_messages_of_several_starts_are_measured() {
    let folder = scratch();
    write_list(folder.path());
    let output = run(folder.path(), &["evaluate", "index", "--starts", "3"]);
    let text = printed(&output);
    assert!(output.status.success() && text.contains("of the first 50, 3 starts"), "{text}");
    fs::write(folder.path().join("bad"), "ham a\nperhaps b\n").unwrap();
    let output = run(folder.path(), &["evaluate", "bad"]);
    assert!(
        !output.status.success() && printed(&output).contains("bad:2: a line is"),
        "{}",
        printed(&output)
    );
    let output = run(folder.path(), &["evaluate", "index", "--feedback", "never"]);
    assert!(!output.status.success() && printed(&output).contains("delayed:N"), "{}", printed(&output));
}

#[test]
fn random_orders_other_filters_and_curves_stand_beside() {
    let folder = scratch();
    write_list(folder.path());
    let orders = printed(&run(folder.path(), &["evaluate", "index", "--orders", "2"]));
    let row = orders.lines().find(|line| line.starts_with("1-ROCA %")).unwrap_or_else(|| panic!("{orders}"));
    let values: Vec<f64> = row.split_whitespace().skip(2).map(|value| value.parse().unwrap()).collect();
    assert!(values[1] <= values[0] && values[0] <= values[2] && values[1] < values[2], "{orders}");

    let output = run(
        folder.path(),
        &["evaluate", "index", "--compare", "bogofilter,spamassassin,rspamd", "--plots", "curves"],
    );
    let table = printed(&output);
    assert!(output.status.success(), "{table}");
    let error = |name: &str| -> f64 {
        let row = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{table}"));
        row.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // The Bayes filters of these two say nothing before they have 200 lessons of each label.
    assert!(error("spamassassin") <= 100.0 && error("rspamd") <= 100.0, "{table}");
    // Both learned something, and ours no less.
    assert!(error("Lazaret") < error("bogofilter") && error("bogofilter") < 45.0, "{table}");
    for name in ["roc.svg", "learning.svg"] {
        assert!(fs::read_to_string(folder.path().join("curves").join(name)).unwrap().contains("</svg>"));
    }
}
