//! Submission accounts on the command line, as somebody uses them who has never done so.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::parts::{Gateway, lazaret, printed, run, scratch};

const PASSWORD: &str = "correct horse battery";

/// Runs a command that reads this from standard input.
fn run_with_input(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = lazaret(folder, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

/// The accounts as JSON.
fn listed(folder: &Path) -> serde_json::Value {
    let output = run(folder, &["accounts", "list", "--json"]);
    assert!(output.status.success(), "{}", printed(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    json["accounts"].clone()
}

#[test]
fn an_account_is_added_listed_and_removed() {
    let folder = scratch();
    let folder = folder.path();
    let output = run(folder, &["accounts", "list"]);
    assert!(printed(&output).contains("no accounts"), "{}", printed(&output));

    let add = ["accounts", "add", "Kit", "--sender", "kit@example.org", "--sender", "@example.net"];
    let output = run_with_input(folder, &add, &format!("{PASSWORD}\n"));
    assert!(output.status.success(), "{}", printed(&output));
    assert!(printed(&output).contains("kit is added and may send as kit@example.org, @example.net"));
    assert_eq!(listed(folder)[0]["name"], "kit");
    assert_eq!(listed(folder)[0]["senders"], serde_json::json!(["kit@example.org", "@example.net"]));
    assert_eq!(listed(folder)[0]["disabled"], false);
    let output = run(folder, &["accounts", "list"]);
    assert!(printed(&output).contains("kit  sends as kit@example.org"), "{}", printed(&output));

    let output = run(folder, &["accounts", "disable", "KIT"]);
    assert!(output.status.success(), "{}", printed(&output));
    assert_eq!(listed(folder)[0]["disabled"], true);
    assert!(run(folder, &["accounts", "enable", "kit"]).status.success());
    assert_eq!(listed(folder)[0]["disabled"], false);

    assert!(run(folder, &["accounts", "remove", "kit"]).status.success());
    assert_eq!(listed(folder), serde_json::json!([]));
    let output = run(folder, &["accounts", "remove", "kit"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output).contains("there is no account kit"), "{}", printed(&output));
}

#[test]
fn an_account_named_by_an_address_sends_as_itself() {
    let folder = scratch();
    fs::write(folder.path().join("password"), format!("{PASSWORD}\r\n")).unwrap();
    let output = run(folder.path(), &["accounts", "add", "Alice@Example.org", "--password-file", "password"]);
    assert!(output.status.success(), "{}", printed(&output));
    assert_eq!(listed(folder.path())[0]["senders"], serde_json::json!(["alice@example.org"]));
}

#[test]
fn what_cannot_be_an_account_is_refused_with_the_reason() {
    let folder = scratch();
    let folder = folder.path();
    let kit = ["accounts", "add", "kit", "--sender", "@example.org"];
    assert!(run_with_input(folder, &kit, PASSWORD).status.success());
    for (arguments, input, code, reason) in [
        (&kit[..], PASSWORD, 1, "there is an account kit already"),
        (&["accounts", "add", "lee", "--sender", "@example.org"], "short\n", 1, "at least 12 characters"),
        (&["accounts", "add", "lee", "--sender", "@example.org"], "", 1, "there is no password"),
        (&["accounts", "add", "lee", "--sender", "@example.org"], "one\ntwo\n", 1, "one line"),
        (&["accounts", "add", "lee", "--sender", "example.org"], PASSWORD, 2, "@example.org for a whole"),
        (&["accounts", "add", "lee"], PASSWORD, 2, "--sender"),
        (&["accounts", "add", "two words", "--sender", "@example.org"], PASSWORD, 2, "may not have"),
        (&["accounts", "add", "lee@", "--sender", "@example.org"], PASSWORD, 2, "domain is malformed"),
        (&["accounts", "add", "a@example.org", "--password-file", "nowhere"], "", 1, "nowhere"),
    ] {
        let output = run_with_input(folder, arguments, input);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {}", printed(&output));
        assert!(printed(&output).contains(reason), "{arguments:?} {}", printed(&output));
        assert!(!printed(&output).contains(PASSWORD), "{arguments:?}");
    }
    assert_eq!(listed(folder).as_array().unwrap().len(), 1);
}

#[test]
fn accounts_are_managed_beside_a_running_gateway_and_leave_no_trace_in_clear() {
    let folder = scratch();
    let gateway = Gateway::start(folder.path(), "");
    let add = ["--config", "lazaret.toml", "accounts", "add", "kit.private@example.org"];
    let output = run_with_input(folder.path(), &add, PASSWORD);
    assert!(output.status.success(), "{}", printed(&output));
    assert!(gateway.stop().success());
    for file in fs::read_dir(folder.path().join("data")).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            for secret in [PASSWORD.as_bytes(), b"kit.private"] {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
            }
        }
    }
}
