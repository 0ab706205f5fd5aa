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

/// What must be told of hostile messages, by the beginning of their names.
const TOLD: [(&str, &[&str]); 14] = [
    ("nest-multipart-10000", &["BUILD_OVER_LIMIT"]),
    ("nest-multipart-50000", &["BUILD_OVER_LIMIT"]),
    ("parts-empty-500k", &["BUILD_OVER_LIMIT"]),
    ("arc-zip-100M-x1", &["FILE_ARCHIVE_LIMIT"]),
    ("arc-zip-nested-3", &["FILE_ARCHIVE_LIMIT"]),
    ("arc-zip-depth-30", &["FILE_ARCHIVE_LIMIT"]),
    ("arc-zip-overlap", &["FILE_ARCHIVE_LIMIT"]),
    ("arc-gz-1G", &["FILE_ARCHIVE_LIMIT"]),
    ("arc-bz2-500M", &["FILE_ARCHIVE_LIMIT"]),
    ("arc-xz-500M", &["FILE_ARCHIVE_LIMIT"]),
    ("arc-xz-dict-4G", &["FILE_ARCHIVE_LIMIT"]),
    ("message-partial", &["BUILD_PARTIAL"]),
    ("message-external-body", &["BUILD_EXTERNAL_BODY"]),
    ("arc-docx-external-template", &["FILE_FETCHES"]),
];

#[test]
fn every_hostile_message_costs_little_and_is_told() {
    let Some(archive) = needs_test_data("torture/torture.tar.xz") else { return };
    let folder = scratch();
    let mail = folder.path().join("mail");
    std::fs::create_dir(&mail).unwrap();
    let unpacked = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(&mail).status().unwrap();
    assert!(unpacked.success());
    let (mut told, mut scanned_messages) = (0, 0);
    for path in crate::parts::files_below(&mail) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Messages alone: the archives beside them are made to fill disks.
        if !name.ends_with(".eml") && !name.ends_with(".eml.gz") {
            continue;
        }
        if name.ends_with(".gz") {
            assert!(Command::new("gunzip").arg(&path).status().unwrap().success(), "{name}");
        }
        let path = path.with_file_name(name.trim_end_matches(".gz"));
        scanned_messages += 1;
        // Four seconds of a processor for the whole program, a debug build that compiles its rules first; more
        // kills it.
        let output = Command::new("prlimit")
            .args(["--cpu=4", env!("CARGO_BIN_EXE_lazaret"), "scan", "--json"])
            .arg(&path)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", printed(&output));
        let scanned: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let symbols: Vec<&str> = scanned["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|finding| finding["symbol"].as_str())
            .collect();
        for (_, expected) in TOLD.iter().filter(|(start, _)| name.starts_with(start)) {
            told += 1;
            assert!(expected.iter().all(|symbol| symbols.contains(symbol)), "{name}: {symbols:?}");
        }
    }
    assert!(told == TOLD.len() && scanned_messages >= 80, "{told} of {scanned_messages}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mail"], "a scan leaves nothing behind");
}
