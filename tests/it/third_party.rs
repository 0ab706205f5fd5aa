//! Mail that is not ours to keep in the repository: where it is there, all of it is scanned.

use std::path::Path;
use std::process::Command;

use crate::parts::{needs_test_data, printed, run, scratch};

/// Unpacks an archive of messages and scans every one; none may panic or go without a disposition.
fn check(archive: &Path, least: usize) {
    let folder = scratch();
    let mail = folder.path().join("mail");
    std::fs::create_dir(&mail).unwrap();
    let unpacked = Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(&mail).status().unwrap();
    assert!(unpacked.success());
    let output = run(folder.path(), &["scan", "--json", mail.to_str().unwrap()]);
    assert!(output.status.success(), "{}", printed(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut count = 0;
    for line in text.lines() {
        let scanned: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(scanned["degraded"].as_array().map(Vec::len), Some(0), "{line}");
        assert!(scanned["disposition"].is_string(), "{line}");
        count += 1;
    }
    assert!(count >= least, "{count} messages");
}

#[test]
fn every_message_of_other_parsers_tests_is_scanned() {
    if let Some(archive) = needs_test_data("messages.tar.xz") {
        check(&archive, 1_000);
    }
}

#[test]
fn every_hostile_message_is_scanned() {
    if let Some(archive) = needs_test_data("torture/torture.tar.xz") {
        check(&archive, 90);
    }
}
