//! What Office documents of the old kinds do: compound files ([MS-CFB]), Rich Text Format, OneNote sections
//! ([MS-ONESTORE]). The XML ones are archives, see `archive`.
//!
//! Nothing is parsed: what is looked for stands in these files as it is, wherever it stands.

use memchr::memmem;

use super::link;

/// How a compound file begins: the old Office formats, MSI.
pub(super) const OLE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";
/// How a OneNote section begins.
pub(super) const ONE_NOTE: &[u8] = b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3";
/// What stands before a file in a OneNote section ([MS-ONESTORE], section 2.6.13).
const ONE_NOTE_FILE: &[u8] = b"\xe7\x16\xe3\xbd\x65\x26\x11\x45\xa4\xc4\x8d\x4d\x0b\x7a\x9e\xac";
/// How Rich Text begins; readers ask for no more.
pub(super) const RTF: &[u8] = b"{\\rt";
/// Most links that are read from a text.
const LINKS: usize = 20;
/// Names of macros that run by themselves, in lower case.
const STARTS: [&[u8]; 12] = [
    b"autoopen",
    b"auto_open",
    b"autoexec",
    b"autoexit",
    b"autoclose",
    b"auto_close",
    b"autonew",
    b"document_open",
    b"document_close",
    b"document_new",
    b"workbook_open",
    b"workbook_beforeclose",
];

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Office {
    /// Whether it holds macros.
    pub(super) has_macros: bool,
    /// Whether one of them runs by itself.
    pub(super) starts_macros: bool,
    /// Whether files or objects are embedded that run when they are clicked.
    pub(super) has_objects: bool,
    /// Whether a password is needed.
    pub(super) is_encrypted: bool,
    /// What is fetched from elsewhere when it is opened.
    pub(super) external: Vec<String>,
    /// Where its links lead.
    pub(super) links: Vec<String>,
}

impl Office {
    /// Adds what another document does.
    pub(super) fn merge(&mut self, other: Office) {
        self.has_macros |= other.has_macros;
        self.starts_macros |= other.starts_macros;
        self.has_objects |= other.has_objects;
        self.is_encrypted |= other.is_encrypted;
        self.external.extend(other.external);
        self.links.extend(other.links);
        self.external.truncate(LINKS);
        self.links.truncate(LINKS);
    }
}

/// Whether a macro in these bytes runs by itself, by the names in the cache of a VBA project ([MS-OVBA]).
pub(super) fn starts(bytes: &[u8]) -> bool {
    let lower = bytes.to_ascii_lowercase();
    STARTS.iter().any(|name| memmem::find(&lower, name).is_some())
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Reads a file of one of these kinds; of another kind, there is nothing.
pub(super) fn read(bytes: &[u8]) -> Office {
    if bytes.starts_with(OLE) {
        // Names in a compound file are UTF-16.
        let has = |name: &str| memmem::find(bytes, &wide(name)).is_some();
        let has_macros = has("_VBA_PROJECT");
        return Office {
            has_macros,
            starts_macros: has_macros && starts(bytes),
            has_objects: has("\u{1}Ole10Native"),
            is_encrypted: has("EncryptedPackage"),
            ..Office::default()
        };
    }
    if bytes.starts_with(ONE_NOTE) {
        return Office { has_objects: memmem::find(bytes, ONE_NOTE_FILE).is_some(), ..Office::default() };
    }
    if bytes.starts_with(RTF) { rich_text(bytes) } else { Office::default() }
}

/// Reads Rich Text (Rich Text Format 1.9.1): embedded objects, and templates from elsewhere.
fn rich_text(bytes: &[u8]) -> Office {
    let has = |word: &[u8]| memmem::find(bytes, word).is_some();
    let mut office = Office {
        has_objects: has(b"\\objdata") || has(b"\\objemb") || has(b"\\objupdate"),
        ..Office::default()
    };
    let targets = |word: &'static [u8]| {
        memmem::find_iter(bytes, word).take(LINKS).filter_map(move |at| {
            let rest = bytes.get(at + word.len()..bytes.len().min(at + word.len() + 2_048))?;
            let rest = String::from_utf8_lossy(rest);
            let rest = rest.trim_start_matches([' ', '"', '\r', '\n']);
            let end = rest.find(['"', '}', '{', ' ', '\r', '\n']).unwrap_or(rest.len());
            let target = super::field::clean(rest.get(..end)?);
            link::host(&target).map(|_| target)
        })
    };
    office.external.extend(targets(b"\\*\\template"));
    office.external.extend(targets(b"INCLUDEPICTURE"));
    office.links.extend(targets(b"HYPERLINK"));
    office
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_that_run_by_themselves_are_told() {
        let project = [OLE, &wide("_VBA_PROJECT"), b"\0\0Module1\0Document_Open\0"].concat();
        let office = read(&project);
        assert!(office.has_macros && office.starts_macros && !office.has_objects);
        let office = read(&[OLE, &wide("_VBA_PROJECT"), b"Sub Total()"].concat());
        assert!(office.has_macros && !office.starts_macros);
        // Without a project, the words are words.
        assert_eq!(read(&[OLE, b"document_open"].concat()), Office::default());
        assert!(read(&[OLE, &wide("\u{1}Ole10Native")].concat()).has_objects);
        assert!(read(&[OLE, &wide("EncryptedPackage")].concat()).is_encrypted);
    }

    #[test]
    fn rich_text_tells_objects_and_what_it_fetches() {
        let office = read(b"{\\rtf1{\\*\\template http://a.example/t.dotm}{\\object\\objdata 0105}}");
        assert!(office.has_objects);
        assert_eq!(office.external, ["http://a.example/t.dotm"]);
        let office = read(b"{\\rtf1{\\field{\\*\\fldinst HYPERLINK \"https://b.example/x\" }}}");
        assert_eq!(
            (office.links.as_slice(), office.has_objects),
            (&["https://b.example/x".to_owned()][..], false)
        );
        assert_eq!(read(b"{\\rtf1{\\*\\template C:\\\\normal.dot}}"), Office::default());
        assert_eq!(read(b"{\\rtf1 HYPERLINK \xff\xc3"), Office::default());
    }

    #[test]
    fn sections_tell_their_files() {
        assert!(read(&[ONE_NOTE, b"...", ONE_NOTE_FILE].concat()).has_objects);
        assert!(!read(&[ONE_NOTE, b"..."].concat()).has_objects);
    }
}
