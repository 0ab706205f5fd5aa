//! Files of rules and lists: their text, and what they name.

use super::syntax;

/// A rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, for problems.
    pub name: String,
    /// Its text.
    pub text: String,
    /// What it is there for.
    pub role: Role,
}

/// What a file is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has rules.
    Rules,
    /// It has rules, and is read only where another one includes it.
    Included,
    /// It is a list that a statement of this keyword names.
    Feed(&'static str),
}

/// The statements that name lists of addresses: OpenPhish's (an address a line), PhishTank's (CSV, the address
/// in the second column), PhishStats' (CSV, a score in the second column and the address in the third).
pub(super) const FEEDS: [&str; 3] =
    ["phishing_openphish_feed", "phishing_phishtank_feed", "phishing_phishstats_feed"];

impl Source {
    /// Makes a source. In lines that are not UTF-8, bytes beyond ASCII are taken for themselves, written as
    /// escapes; in descriptions they are ISO 8859-1.
    pub fn new(name: impl Into<String>, bytes: &[u8]) -> Self {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.split_inclusive(|byte| *byte == b'\n').map(decode_line).collect(),
        };
        Source { name: name.into(), text, role: Role::Rules }
    }

    /// Returns the names of the sources that this one may include.
    pub fn includes(&self) -> Vec<String> {
        self.named(&["include"]).map(|(_, name)| name).collect()
    }

    /// Returns the names of the lists that this source may use, and what each is there for.
    pub fn feeds(&self) -> Vec<(Role, String)> {
        self.named(&FEEDS).map(|(keyword, name)| (Role::Feed(keyword), name)).collect()
    }

    /// Returns the names of files in statements of some keywords, whether or not they apply.
    fn named(&self, keywords: &[&'static str]) -> impl Iterator<Item = (&'static str, String)> {
        self.text.lines().filter_map(move |line| {
            let line = line.split('#').next().unwrap_or_default();
            let keyword = keywords.iter().find(|keyword| syntax::keyword_of(line) == **keyword)?;
            let (_, name) = syntax::word(line);
            (!name.is_empty()).then(|| (*keyword, resolve(&self.name, name)))
        })
    }
}

fn decode_line(line: &[u8]) -> String {
    if let Ok(line) = std::str::from_utf8(line) {
        return line.to_owned();
    }
    let is_prose = line.split(u8::is_ascii_whitespace).any(|word| word == b"describe" || word == b"report");
    if is_prose {
        return line.iter().map(|byte| char::from(*byte)).collect();
    }
    let mut out = String::with_capacity(line.len() + 16);
    // A backslash before the byte is the byte's own.
    let mut is_escaped = false;
    for chunk in line.utf8_chunks() {
        for c in chunk.valid().chars() {
            is_escaped = c == '\\' && !is_escaped;
            out.push(c);
        }
        for byte in chunk.invalid() {
            if !std::mem::take(&mut is_escaped) {
                out.push('\\');
            }
            out.push_str(&format!("x{byte:02X}"));
        }
    }
    out
}

/// Returns the name of an included file, relative to the one that includes it, `.` and `..` taken out.
pub(super) fn resolve(from: &str, name: &str) -> String {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = if from.contains('/') { folder.split('/').collect() } else { Vec::new() };
    if name.starts_with('/') {
        parts = vec![""];
    }
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| !matches!(*last, "" | "." | "..")) => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
