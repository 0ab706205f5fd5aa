//! What no compiler checks: the order of the modules, the purity of the content modules, the manners of
//! the tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The order of ARCHITECTURE: a module uses only those before it.
const ORDER: [&str; 29] = [
    "metrics",
    "privacy",
    "mail",
    "verdict",
    "smtp",
    "message",
    "learn",
    "rules",
    "policy",
    "store",
    "dns",
    "sender_auth",
    "reputation",
    "accounts",
    "quarantine",
    "audit",
    "journal",
    "ingress",
    "relay",
    "antivirus",
    "scan",
    "gateway",
    "digest",
    "door",
    "web",
    "config",
    "app",
    "cli",
    "main",
];

/// Bytes in, values out: no socket, file, clock or randomness.
const PURE: [&str; 5] = ["smtp", "message", "learn", "rules", "policy"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = crate::parts::files_below(folder);
    found.retain(|path| path.extension().is_some_and(|e| e == extension));
    found
}

/// The source of every module, tests left out, by the module's name.
fn sources() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let src = root().join("src");
    let mut sources: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    for path in files_below(&src, "rs") {
        let relative = path.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let is_test = relative.components().any(|part| {
            let name = part.as_os_str().to_str().unwrap();
            name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs")
        }) || relative.ends_with("store/bodies/fault.rs");
        if is_test {
            continue;
        }
        let production = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
        sources.entry(module).or_default().push((path, production));
    }
    sources.remove("lib");
    sources
}

#[test]
fn modules_are_declared_in_the_order_of_the_design() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(declared.len() > 10);
    let places: Vec<usize> = declared
        .iter()
        .map(|name| {
            ORDER.iter().position(|known| known == name).unwrap_or_else(|| panic!("unknown module {name}"))
        })
        .collect();
    assert!(places.is_sorted(), "{declared:?}");
}

#[test]
fn a_module_uses_only_those_above_it() {
    let mut offences = Vec::new();
    for (module, files) in sources() {
        let place =
            ORDER.iter().position(|known| *known == module).unwrap_or_else(|| panic!("unknown {module}"));
        for (path, text) in files {
            for (number, line) in text.lines().enumerate() {
                if line.trim_start().starts_with("//") {
                    continue;
                }
                for used in line.split("crate::").skip(1) {
                    let name: String =
                        used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    if let Some(other) = ORDER.iter().position(|known| *known == name)
                        && other > place
                    {
                        offences.push(format!("{}:{}: {module} uses {name}", path.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn content_modules_touch_no_socket_file_clock_or_randomness() {
    let forbidden = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::process",
        "std::env",
        "std::thread",
        "std::time::Instant",
        "SystemTime",
        "tokio",
        "getrandom",
        "sqlx",
        "sled::",
        "object_store",
        "tracing",
    ];
    // The clock that stops what backtracks, and the threads that compile patterns, are no part of a result.
    let allowed = [("src/rules/budget.rs", "std::time::Instant"), ("src/rules/link.rs", "std::thread")];
    let mut offences = Vec::new();
    for (module, files) in sources() {
        if !PURE.contains(&module.as_str()) {
            continue;
        }
        for (path, text) in files {
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap();
                for word in forbidden {
                    let is_allowed = allowed.iter().any(|(file, what)| path.ends_with(file) && *what == word);
                    if code.contains(word) && !is_allowed {
                        offences.push(format!("{}:{}: {word}", path.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources().into_values().flatten() {
        assert!(text.starts_with("//!"), "{} has no head", path.display());
    }
}

#[test]
fn nothing_unfinished_is_left_in_the_code() {
    let words = ["todo!", "unimplemented!", "dbg!", "FIXME", "XXX"];
    for (path, text) in sources().into_values().flatten() {
        for word in words {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}
