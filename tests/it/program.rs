//! The command line, as a person uses it.

use std::fs;
use std::process::Stdio;

use crate::parts::{lazaret, message, printed, project, run, scratch};

#[test]
fn config_check_reports_every_problem_with_line_and_key_and_exits_78() {
    let folder = scratch();
    fs::write(
        folder.path().join("bad.toml"),
        "hostnam = \"x\"\n[inbound]\nlisten = 25\n[web]\nlisten = \"y\"\n",
    )
    .unwrap();
    let output = run(folder.path(), &["config", "check", "bad.toml"]);
    assert_eq!(output.status.code(), Some(78));
    let text = printed(&output);
    for expected in ["bad.toml:1: hostnam", "bad.toml:3: inbound.listen", "bad.toml:5: web.listen"] {
        assert!(text.contains(expected), "{text}");
    }
    let output = run(folder.path(), &["--config", "bad.toml", "serve"]);
    assert_eq!(output.status.code(), Some(78), "{}", printed(&output));
    let output = run(folder.path(), &["config", "check", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(78), "{}", printed(&output));
}

#[test]
fn the_printed_reference_and_the_example_are_good_configurations() {
    let folder = scratch();
    let output = run(folder.path(), &["config", "reference"]);
    fs::write(folder.path().join("reference.toml"), &output.stdout).unwrap();
    let example = project().join("systemd/lazaret.toml");
    for file in ["reference.toml", example.to_str().unwrap()] {
        let output = run(folder.path(), &["config", "check", file]);
        assert!(output.status.success(), "{}", printed(&output));
    }
}

#[test]
fn ledger_lists_what_may_exist_twice_and_says_when_there_is_nothing() {
    let folder = scratch();
    let output = run(folder.path(), &["ledger"]);
    assert!(output.status.success() && printed(&output).contains("empty"), "{}", printed(&output));
    assert!(!folder.path().join("lazaret-data").exists(), "reading the ledger makes no data folder");
    fs::create_dir_all(folder.path().join("lazaret-data/journal")).unwrap();
    fs::write(
        folder.path().join("lazaret-data/journal/ledger"),
        "2026-03-01T12:30:15Z 0zz3456789abcdef inbound 2 the next hop's reply never came\n2026-03",
    )
    .unwrap();
    let output = run(folder.path(), &["ledger"]);
    assert!(printed(&output).contains("0zz3456789abcdef"), "{}", printed(&output));
    let output = run(folder.path(), &["ledger", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["lines"].as_array().unwrap().len(), 1);
    assert_eq!(json["lines"][0]["time"], "2026-03-01T12:30:15Z");
    assert_eq!(json["lines"][0]["recipients"], 2);
}

#[test]
fn scan_says_what_it_found_and_what_would_happen() {
    let folder = scratch();
    let text = message("hello", "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X");
    fs::write(folder.path().join("gtube.eml"), text).unwrap();
    let output = run(folder.path(), &["scan", "gtube.eml"]);
    let text = printed(&output);
    assert!(output.status.success() && text.contains("GTUBE") && text.contains("reject"), "{text}");
    let output = run(folder.path(), &["scan", "--json", "gtube.eml"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["disposition"], "reject");
    assert!(json["findings"].as_array().unwrap().iter().any(|finding| finding["symbol"] == "GTUBE"));
    assert!(!folder.path().join("lazaret-data").exists(), "scanning a file makes no data folder");
}

#[test]
fn learned_mail_changes_what_scan_finds_and_is_learned_once() {
    let folder = scratch();
    for (label, words) in [("ham", "minutes agenda budget meeting"), ("spam", "casino winner jackpot bonus")]
    {
        fs::create_dir(folder.path().join(label)).unwrap();
        for number in 0..30 {
            let text = message(&format!("{label} {number}"), &format!("{words} {number} {words}"));
            fs::write(folder.path().join(label).join(format!("{number}.eml")), text).unwrap();
        }
    }
    let learn = |label: &str| {
        let output = run(folder.path(), &["learn", &format!("--{label}"), label]);
        assert!(output.status.success(), "{}", printed(&output));
        printed(&output)
    };
    assert!(learn("ham").contains("30 learned"));
    assert!(learn("spam").contains("30 learned"));
    assert!(learn("spam").contains("30 already known"));
    let scan = |words: &str| {
        fs::write(folder.path().join("probe.eml"), message("probe", words)).unwrap();
        let output = run(folder.path(), &["scan", "--json", "probe.eml"]);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(scan("the casino has a jackpot bonus for the winner").contains("BAYES_SPAM"));
    assert!(!scan("minutes of the budget meeting and its agenda").contains("BAYES_SPAM"));

    // Somebody taught one message wrongly: it is found, and forgotten.
    let wrong = message("spam 77", "casino winner jackpot bonus 77 casino winner jackpot bonus");
    fs::write(folder.path().join("wrong.eml"), wrong).unwrap();
    assert!(printed(&run(folder.path(), &["learn", "--ham", "wrong.eml"])).contains("1 learned"));
    let audit = printed(&run(folder.path(), &["learn", "audit", "--most", "1"]));
    let line = audit.lines().nth(1).and_then(|line| line.split_whitespace().next()).unwrap().to_owned();
    assert_eq!(line, "61", "{audit}");
    let status = |expected: &[&str]| {
        let status = printed(&run(folder.path(), &["learn", "status"]));
        let status = status.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(expected.iter().all(|line| status.contains(line)), "{status}");
    };
    status(&["ham lessons, cli 31", "spam lessons, cli 30", "lines in the log 61"]);
    let forgotten = printed(&run(folder.path(), &["learn", "forget", "--line", &line]));
    assert!(forgotten.contains("lessons forgotten: 1"), "{forgotten}");
    status(&["ham lessons, cli 30", "spam lessons, cli 30"]);
    assert!(printed(&run(folder.path(), &["learn", "forget", "spam"])).contains("lessons forgotten: 30"));
    assert!(printed(&run(folder.path(), &["learn", "rebuild"])).contains("folded 30 ham and 0 spam lessons"));
    let nothing = run(folder.path(), &["learn", "forget"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", printed(&nothing));
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_quietly() {
    let folder = scratch();
    let mut child = lazaret(folder.path(), &["config", "reference"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Nobody reads: the pipe is shut before all of it fits.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(printed(&output), "");
}
