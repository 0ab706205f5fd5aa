//! Mail that is not ours to keep in the repository: where it is there, all of it is scanned.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::parts::{printed, project, run, scratch};

/// Finds a file of third-party test data. Where there is none, `tests/run` names the tests that did not run.
fn needs_test_data(file: &str) -> Option<PathBuf> {
    let folder =
        std::env::var_os("LAZARET_TEST_DATA").map_or_else(|| project().join("../shared/data"), PathBuf::from);
    Some(folder.join(file)).filter(|path| path.exists())
}

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
