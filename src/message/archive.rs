//! What archives hold: names, nested archives, under one budget of bytes, depth and entries.
//!
//! Nothing is written anywhere. An archive that would not fit into the budget, or claims sizes that nobody
//! sends, is over the limit: that is a finding, and what was read until then stands.

use memchr::memmem;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};

/// Deepest archive in an archive.
const DEPTH: usize = 5;
/// Most entries of all archives of an attachment.
const ENTRIES: usize = 10_000;
/// Most names that are kept.
const NAMES: usize = 100;
/// Most bytes that one entry is inflated to.
const ENTRY_BYTES: usize = 4 << 20;
/// How much larger than itself an entry may be, when it is large.
const RATIO: u64 = 100;
const LARGE: u64 = 10 << 20;
/// Most bytes that all entries may claim to be.
const CLAIMED: u64 = 1 << 30;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Names of files, at most [`NAMES`].
    pub(super) names: Vec<String>,
    /// Whether a password is needed.
    pub(super) is_encrypted: bool,
    /// Whether a limit was reached.
    pub(super) is_over_limit: bool,
    /// Addresses that an Office document fetches when it is opened.
    pub(super) external: Vec<String>,
    entries: usize,
    claimed: u64,
}

/// Lists an archive; other bytes list nothing. `budget` is what may be inflated.
pub(super) fn list(bytes: &[u8], budget: &mut usize) -> Listing {
    let mut listing = Listing::default();
    // Archives that are still to be read, with their depth: no recursion.
    let mut waiting: Vec<(Vec<u8>, usize)> = Vec::new();
    listing.read(bytes, 0, budget, &mut waiting);
    while let Some((bytes, depth)) = waiting.pop() {
        listing.read(&bytes, depth, budget, &mut waiting);
    }
    listing
}

/// A file in a ZIP archive.
struct Entry<'a> {
    name: &'a [u8],
    is_encrypted: bool,
    method: u16,
    compressed: usize,
    size: u64,
    /// Where its local header is.
    at: usize,
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

/// Reads an entry of the central directory (APPNOTE, section 4.3.12).
fn central(bytes: &[u8], at: usize) -> Option<(Entry<'_>, usize)> {
    let name_len = usize::from(short(bytes, at + 28)?);
    let next = at + 46 + name_len + usize::from(short(bytes, at + 30)?) + usize::from(short(bytes, at + 32)?);
    let entry = Entry {
        name: bytes.get(at + 46..at + 46 + name_len)?,
        is_encrypted: short(bytes, at + 8)? & 1 == 1,
        method: short(bytes, at + 10)?,
        compressed: usize::try_from(long(bytes, at + 20)?).ok()?,
        size: u64::from(long(bytes, at + 24)?),
        at: usize::try_from(long(bytes, at + 42)?).ok()?,
    };
    Some((entry, next))
}

/// Reads a local header (APPNOTE, section 4.3.7).
fn local(bytes: &[u8], at: usize) -> Option<Entry<'_>> {
    let name_len = usize::from(short(bytes, at + 26)?);
    Some(Entry {
        name: bytes.get(at + 30..at + 30 + name_len)?,
        is_encrypted: short(bytes, at + 6)? & 1 == 1,
        method: short(bytes, at + 8)?,
        compressed: usize::try_from(long(bytes, at + 18)?).ok()?,
        size: u64::from(long(bytes, at + 22)?),
        at,
    })
}

impl Listing {
    fn read(&mut self, bytes: &[u8], depth: usize, budget: &mut usize, waiting: &mut Vec<(Vec<u8>, usize)>) {
        if depth > DEPTH {
            self.is_over_limit = true;
        } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
            self.zip(bytes, depth, budget, waiting);
        } else if bytes.starts_with(b"\x1f\x8b\x08") {
            if let Some(inner) = gzip_body(bytes).and_then(|body| self.inflate(body, budget)) {
                waiting.push((inner, depth + 1));
            }
        } else if bytes.get(257..262) == Some(b"ustar") {
            self.tar(bytes, depth, waiting);
        }
    }

    fn zip(&mut self, bytes: &[u8], depth: usize, budget: &mut usize, waiting: &mut Vec<(Vec<u8>, usize)>) {
        let end = memmem::rfind(bytes, b"PK\x05\x06");
        let directory = end.and_then(|end| long(bytes, end + 16)).and_then(|at| usize::try_from(at).ok());
        let mut next = directory.filter(|at| bytes.get(*at..at + 4) == Some(b"PK\x01\x02"));
        if next.is_none() {
            // Without a directory, as some readers do: from one local header to the next.
            let mut from = 0;
            while let Some(found) = bytes.get(from..).and_then(|rest| memmem::find(rest, b"PK\x03\x04")) {
                let at = from + found;
                let Some(entry) = local(bytes, at) else { break };
                // What is within the data of a file is no file of this archive.
                from = (at + 30 + entry.name.len()).saturating_add(entry.compressed);
                if !self.entry(bytes, &entry, depth, budget, waiting) {
                    return;
                }
            }
        }
        while let Some(at) = next {
            if bytes.get(at..at + 4) != Some(b"PK\x01\x02") {
                break;
            }
            let Some((entry, after)) = central(bytes, at) else { break };
            if !self.entry(bytes, &entry, depth, budget, waiting) {
                return;
            }
            next = Some(after);
        }
    }

    /// Takes an entry in. Returns false when no more are read.
    fn entry(
        &mut self,
        bytes: &[u8],
        entry: &Entry<'_>,
        depth: usize,
        budget: &mut usize,
        waiting: &mut Vec<(Vec<u8>, usize)>,
    ) -> bool {
        self.entries += 1;
        self.claimed = self.claimed.saturating_add(entry.size);
        let is_bomb = entry.size > LARGE && entry.size / RATIO > entry.compressed as u64;
        if self.entries > ENTRIES || self.claimed > CLAIMED || is_bomb {
            self.is_over_limit = true;
            return self.entries <= ENTRIES;
        }
        self.is_encrypted |= entry.is_encrypted;
        self.name(entry.name);
        let name = entry.name.to_ascii_lowercase();
        let is_relations = name.ends_with(b".rels");
        let is_archive =
            [&b".zip"[..], b".gz", b".tgz", b".jar", b".docx", b".xlsx", b".pptx", b".docm", b".xlsm"]
                .iter()
                .any(|ending| name.ends_with(ending));
        if !(is_relations || is_archive) || entry.is_encrypted {
            return true;
        }
        let data = short(bytes, entry.at + 26).zip(short(bytes, entry.at + 28)).and_then(|(name, extra)| {
            let start = entry.at + 30 + usize::from(name) + usize::from(extra);
            bytes.get(start..start.checked_add(entry.compressed)?.min(bytes.len()))
        });
        let Some(data) = data else { return true };
        let inner = match entry.method {
            0 => Some(data.get(..data.len().min(*budget)).unwrap_or_default().to_vec()),
            8 => self.inflate(data, budget),
            _ => None,
        };
        if let Some(inner) = inner {
            if is_relations {
                self.relations(&inner);
            } else {
                *budget = budget.saturating_sub(if entry.method == 0 { inner.len() } else { 0 });
                waiting.push((inner, depth + 1));
            }
        }
        true
    }

    /// Undoes DEFLATE (RFC 1951) within the budget; what is larger is cut and over the limit.
    fn inflate(&mut self, data: &[u8], budget: &mut usize) -> Option<Vec<u8>> {
        let limit = (*budget).min(ENTRY_BYTES);
        if limit == 0 {
            self.is_over_limit = true;
            return None;
        }
        let inner = match decompress_to_vec_with_limit(data, limit) {
            Ok(inner) => inner,
            Err(error) if error.status == TINFLStatus::HasMoreOutput => {
                self.is_over_limit = true;
                error.output
            }
            Err(error) => error.output,
        };
        *budget = budget.saturating_sub(inner.len());
        Some(inner)
    }

    fn tar(&mut self, bytes: &[u8], depth: usize, waiting: &mut Vec<(Vec<u8>, usize)>) {
        let mut at = 0;
        while let Some(header) = bytes.get(at..at + 512) {
            let text = |from: usize, to: usize| {
                let field = header.get(from..to).unwrap_or_default();
                field.split(|byte| *byte == 0).next().unwrap_or_default()
            };
            let name = text(0, 100);
            if name.is_empty() {
                break;
            }
            self.entries += 1;
            if self.entries > ENTRIES {
                self.is_over_limit = true;
                break;
            }
            self.name(name);
            let digits = String::from_utf8_lossy(text(124, 136)).trim().to_owned();
            let size = u64::from_str_radix(&digits, 8).unwrap_or(u64::MAX);
            self.claimed = self.claimed.saturating_add(size);
            if self.claimed > CLAIMED {
                self.is_over_limit = true;
                break;
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let content =
                bytes.get(at + 512..(at + 512).saturating_add(size).min(bytes.len())).unwrap_or_default();
            if content.starts_with(b"PK\x03\x04") || content.starts_with(b"\x1f\x8b\x08") {
                waiting.push((
                    content.get(..content.len().min(ENTRY_BYTES)).unwrap_or_default().to_vec(),
                    depth + 1,
                ));
            }
            at = at.saturating_add(512).saturating_add(size.div_ceil(512).saturating_mul(512));
        }
    }

    fn name(&mut self, name: &[u8]) {
        if self.names.len() < NAMES && !name.is_empty() {
            let name = name.get(..name.len().min(1_024)).unwrap_or_default();
            self.names.push(super::field::clean(&String::from_utf8_lossy(name)));
        }
    }

    /// Reads what an Office document fetches from elsewhere: templates, objects, frames.
    fn relations(&mut self, xml: &[u8]) {
        let text = String::from_utf8_lossy(xml);
        for relation in text.split("<Relationship ").skip(1).take(1_000) {
            let is_fetched = ["attachedTemplate", "oleObject", "frame", "subDocument"]
                .iter()
                .any(|kind| relation.contains(kind));
            let target = relation
                .split_once("Target=\"")
                .and_then(|(_, rest)| rest.split_once('"'))
                .map(|(target, _)| target);
            if let Some(target) = target.filter(|_| {
                is_fetched && relation.contains("TargetMode=\"External\"") && self.external.len() < NAMES
            }) {
                self.external.push(super::field::clean(target));
            }
        }
    }
}

/// Returns the compressed data behind the header of a gzip file (RFC 1952).
fn gzip_body(bytes: &[u8]) -> Option<&[u8]> {
    let flags = *bytes.get(3)?;
    let mut at = 10;
    if flags & 4 != 0 {
        at += 2 + usize::from(short(bytes, at)?);
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            at += memchr::memchr(0, bytes.get(at..)?)? + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    bytes.get(at..)
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec;

    use super::*;

    /// Writes a ZIP archive with one file, without a directory.
    fn zip(name: &str, content: &[u8]) -> Vec<u8> {
        let data = compress_to_vec(content, 6);
        let mut out = b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0".to_vec();
        out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        out.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        out.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        out.extend([0, 0]);
        out.extend(name.as_bytes());
        out.extend(data);
        out
    }

    fn read(bytes: &[u8]) -> Listing {
        list(bytes, &mut (8 << 20))
    }

    #[test]
    fn archives_in_archives_tell_their_names() {
        let inner = zip("c.exe", b"MZ");
        let listing = read(&zip("a.zip", &zip("b.zip", &inner)));
        assert_eq!(listing.names, ["a.zip", "b.zip", "c.exe"]);
        assert!(!listing.is_over_limit && !listing.is_encrypted);
    }

    #[test]
    fn bombs_are_over_the_limit() {
        assert!(read(&zip("a.gz", &vec![0; 5 << 20])).is_over_limit);
        let mut deep = zip("x.txt", b"x");
        for _ in 0..10 {
            deep = zip("a.zip", &deep);
        }
        assert!(read(&deep).is_over_limit);
        let mut gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\0".to_vec();
        gzip.extend(compress_to_vec(&vec![0; 6 << 20], 6));
        assert!(read(&gzip).is_over_limit);
        let mut claims = zip("a.bin", b"x");
        claims[22..26].copy_from_slice(&(500_u32 << 20).to_le_bytes());
        assert!(read(&claims).is_over_limit);
    }

    #[test]
    fn documents_tell_what_they_fetch() {
        let relations = br#"<Relationships><Relationship Id="1" Type="x/attachedTemplate" Target="http://a.example/t.dotm" TargetMode="External"/></Relationships>"#;
        assert_eq!(
            read(&zip("word/_rels/settings.xml.rels", relations)).external,
            ["http://a.example/t.dotm"]
        );
    }

    #[test]
    fn tar_files_tell_their_names() {
        let mut tar = vec![0; 512];
        tar[..5].copy_from_slice(b"a.exe");
        tar[124..135].copy_from_slice(b"00000000002");
        tar[257..262].copy_from_slice(b"ustar");
        tar.extend(b"MZ");
        tar.extend(vec![0; 510]);
        let mut gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\0".to_vec();
        gzip.extend(compress_to_vec(&tar, 6));
        assert_eq!(read(&gzip).names, ["a.exe"]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_listed(start in 0_usize..4, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let starts: [&[u8]; 4] = [b"PK\x03\x04", b"\x1f\x8b\x08", b"PK\x05\x06", b""];
            drop(read(&[starts[start], bytes.as_slice()].concat()));
        }
    }
}
