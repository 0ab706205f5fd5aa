//! The clients of other filters, the real ones, at our doors.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::parts::{Gateway, free_port, message, run, scratch};

const SPAM: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

/// Runs a program with a text on its input.
fn feed(program: &str, arguments: &[&str], text: &str) -> Output {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn spamc_over_a_unix_socket_is_answered_and_teaches() {
    let folder = scratch();
    let socket = folder.path().join("spamd.sock");
    let keys = format!("door.spamd = \"unix:{}\"\ndoor.learn = true\n", socket.display());
    let gateway = Gateway::start(folder.path(), &keys);
    let spamc = |arguments: &[&str], mail: &str| {
        feed("spamc", &[&["-U", socket.to_str().unwrap()], arguments].concat(), mail)
    };
    let (good, bad) = (message("Lunch", "At noon?"), message("Test", SPAM));
    assert_eq!(text(&spamc(&["-K"], "")), "SPAMD/1.5 0\n");
    assert_eq!(spamc(&["-c"], &good).status.code(), Some(0));
    let checked = spamc(&["-c"], &bad);
    let points: f64 = text(&checked).split('/').next().unwrap().parse().unwrap();
    assert!(checked.status.code() == Some(1) && points >= 1_000.0, "{checked:?}");
    assert!(text(&spamc(&["-y"], &bad)).contains("GTUBE"));
    assert!(text(&spamc(&["-R"], &bad)).contains("The message holds the standard test text"));
    let processed = text(&spamc(&[], &bad));
    assert!(processed.contains("X-Spam-Flag: YES") && processed.contains(SPAM), "{processed}");
    let taught = spamc(&["-L", "spam"], &bad);
    assert!(text(&taught).contains("successfully"), "{taught:?}");
    assert!(text(&spamc(&["-L", "spam"], &bad)).contains("already"), "a second lesson of the same is none");
    assert!(gateway.stop().success());
}

#[test]
fn rspamc_is_answered() {
    let folder = scratch();
    let port = free_port();
    let gateway = Gateway::start(folder.path(), &format!("door.rspamd = \"127.0.0.1:{port}\"\n"));
    let bad = folder.path().join("bad.eml");
    std::fs::write(&bad, message("Test", SPAM)).unwrap();
    let rspamc = |arguments: &[&str]| {
        Command::new("rspamc").args(["-h", &format!("127.0.0.1:{port}")]).args(arguments).output().unwrap()
    };
    let answer =
        rspamc(&["-i", "192.0.2.1", "-F", "a@example.org", "-r", "b@example.net", bad.to_str().unwrap()]);
    let answer = text(&answer);
    assert!(answer.contains("Action: reject") && answer.contains("Symbol: GTUBE (1000.00)"), "{answer}");
    let refused = rspamc(&["learn_spam", bad.to_str().unwrap()]);
    assert!(!text(&refused).contains("success = true"), "{refused:?}");
    assert!(gateway.stop().success());
}

#[test]
fn a_door_that_others_reach_takes_a_word_of_its_own() {
    let folder = scratch();
    let refused = Gateway::try_start(folder.path(), "door.rspamd = \"0.0.0.0:0\"\n").err().unwrap();
    assert!(refused.contains("door.allow_remote"), "{refused}");
}

/// Imports a folder of rules and returns what was said.
fn import(folder: &Path, rules: &Path, arguments: &[&str]) -> Output {
    run(folder, &[&["rules", "import", rules.to_str().unwrap()], arguments].concat())
}

#[test]
fn rules_are_imported_whole_or_not_at_all() {
    let folder = scratch();
    let (rules, from) = (folder.path().join("rules"), folder.path().join("from"));
    std::fs::create_dir(&from).unwrap();
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(from.join("10.cf"), "body LUNCH /lunch/i\nscore LUNCH 7\ninclude more.inc\n").unwrap();
    std::fs::write(from.join("more.inc"), "describe LUNCH It speaks of lunch\n").unwrap();
    std::fs::write(folder.path().join("lazaret.toml"), format!("scan.rules_dir = \"{}\"\n", rules.display()))
        .unwrap();
    let done = import(folder.path(), &from, &["-c", "lazaret.toml"]);
    assert!(done.status.success(), "{done:?}");
    assert!(rules.join("10.cf").exists() && rules.join("more.inc").exists());
    std::fs::write(from.join("20.cf"), "body LUNCH /(/\n").unwrap();
    let refused = import(folder.path(), &from, &["-c", "lazaret.toml", "--replace"]);
    assert!(!refused.status.success() && !rules.join("20.cf").exists(), "{refused:?}");
    assert!(text(&refused).contains("20.cf:1: "), "{refused:?}");
}
