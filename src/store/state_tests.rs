//! One conformance suite for every state store, and what sled does when its files are damaged.

use std::fs;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::macros::datetime;

use super::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Memory, Sled, State, StateError};

const NOW: OffsetDateTime = datetime!(2026-06-01 12:30:05 +2);

fn open(path: &Path) -> Sled {
    Sled::open(path, NOW).unwrap().0
}

/// What every store does.
fn conforms(store: &dyn State) {
    assert_eq!(store.get("a").unwrap(), None);
    store.remove("a").unwrap();
    for length in [0, 1, 256 * 1024, 256 * 1024 + 1, 1_000_000, 3] {
        let value: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[2]).collect();
        store.put("a", &value).unwrap();
        assert!(store.get("a").unwrap() == Some(value), "{length}");
    }
    store.put("ab", b"other").unwrap();
    store.remove("a").unwrap();
    assert_eq!(store.get("a").unwrap(), None);
    assert_eq!(store.get("ab").unwrap().as_deref(), Some(&b"other"[..]));
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    assert!(matches!(store.put(&long, b""), Err(StateError::TooLarge)));
    assert!(matches!(store.put("a", &vec![0; MAX_VALUE_BYTES + 1]), Err(StateError::TooLarge)));
}

#[test]
fn memory_conforms() {
    conforms(&Memory::default());
}

#[test]
fn sled_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&open(&folder.path().join("state")));
}

#[test]
fn sled_keeps_its_values_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    open(&path).put("model", &[7; 600_000]).unwrap();
    let (store, aside) = Sled::open(&path, NOW).unwrap();
    assert_eq!(aside, None);
    assert!(store.get("model").unwrap() == Some(vec![7; 600_000]));
}

#[test]
fn a_store_in_use_is_left_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let first = open(&path);
    assert!(matches!(Sled::open(&path, NOW), Err(StateError::Locked)));
    first.put("a", b"still here").unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap().path();
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found
}

/// Damages a store, opens it, and returns whether it was set aside. In any case what opens must work, and
/// must give either what was put or nothing.
fn check(damage: impl Fn(&Path, Vec<u8>) -> Vec<u8>) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let value: Vec<u8> = (0..700_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    {
        let store = open(&path);
        store.put("model", &value).unwrap();
        for n in 0..200 {
            store.put(&format!("small {n}"), format!("value {n}").as_bytes()).unwrap();
        }
    }
    for file in files(&path) {
        let bytes = fs::read(&file).unwrap();
        let changed = damage(&file, bytes.clone());
        if changed != bytes {
            fs::write(&file, changed).unwrap();
        }
    }
    let (store, aside) = Sled::open(&path, NOW).unwrap();
    match store.get("model") {
        Ok(found) => assert!(found.is_none_or(|found| aside.is_none() && found == value)),
        Err(error) => {
            assert!(matches!(error, StateError::Damaged | StateError::Panicked | StateError::Use(_)))
        }
    }
    if let Some(aside) = &aside {
        assert_eq!(aside.path, folder.path().join("state.damaged-20260601T103005Z"));
        assert!(!files(&aside.path).is_empty());
        store.put("model", b"again").unwrap();
        assert_eq!(store.get("model").unwrap().as_deref(), Some(&b"again"[..]));
    }
    aside.is_some()
}

fn is(file: &Path, name: &str) -> bool {
    file.file_name().is_some_and(|found| found == name)
}

/// Noise that is the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut x = 88_172_645_463_325_252u64;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

#[test]
fn a_sound_store_is_not_set_aside() {
    assert!(!check(|_, bytes| bytes));
}

#[test]
fn garbage_in_place_of_the_store_is_set_aside() {
    assert!(check(|_, bytes| noise(bytes.len())));
}

#[test]
fn garbage_in_the_settings_is_set_aside() {
    assert!(check(|file, bytes| if is(file, "conf") { noise(bytes.len()) } else { bytes }));
}

#[test]
fn a_store_that_was_cut_off_gives_all_or_nothing() {
    for kept in [0, 10, 50, 90] {
        check(|file, bytes| if is(file, "db") { bytes[..bytes.len() * kept / 100].to_vec() } else { bytes });
    }
}

#[test]
fn a_store_with_damage_anywhere_gives_all_or_nothing() {
    for tenth in 0..10 {
        check(|file, mut bytes| {
            if is(file, "db") {
                let start = bytes.len() * tenth / 10;
                let end = bytes.len().min(start + 20_000);
                bytes[start..end].copy_from_slice(&noise(end - start));
            }
            bytes
        });
    }
}

#[test]
fn a_damaged_snapshot_of_the_index_gives_all_or_nothing() {
    let is_index = |file: &Path| file.file_name().unwrap().to_string_lossy().starts_with("snap");
    check(|file, bytes| if is_index(file) { noise(bytes.len()) } else { bytes });
    check(|file, bytes| if is_index(file) { bytes[..bytes.len() / 2].to_vec() } else { bytes });
}

#[test]
fn a_file_in_place_of_the_folder_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    fs::write(&path, b"no store").unwrap();
    let (store, aside) = Sled::open(&path, NOW).unwrap();
    assert_eq!(fs::read(aside.unwrap().path).unwrap(), b"no store");
    store.put("a", b"b").unwrap();
}

#[test]
fn a_second_damage_in_one_second_gets_a_name_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut names = Vec::new();
    for _ in 0..2 {
        fs::write(&path, b"no store").unwrap();
        let (store, aside) = Sled::open(&path, NOW).unwrap();
        names.push(aside.unwrap().path);
        drop(store);
        fs::remove_dir_all(&path).unwrap();
    }
    assert_ne!(names[0], names[1]);
}

/// Bytes of all files below a folder; sled may be taking some away meanwhile.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let metadata = entries.flatten().filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    metadata.map(|(path, found)| if found.is_dir() { bytes_below(&path) } else { found.len() }).sum()
}

#[test]
fn a_value_that_is_put_again_and_again_does_not_fill_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (state, _) = Sled::open(&folder.path().join("state"), OffsetDateTime::UNIX_EPOCH).unwrap();
    let mut sizes = Vec::new();
    for number in 0..40u64 {
        // What does not compress, and is another each time.
        let mut random = number + 1;
        let value: Vec<u8> = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()
        })
        .take(500_000)
        .flatten()
        .collect();
        state.put("model", &value).unwrap();
        assert_eq!(state.get("model").unwrap().unwrap(), value);
        sizes.push(bytes_below(folder.path()) >> 20);
    }
    assert!(sizes.last() < Some(&60), "MiB after each: {sizes:?}");
}
