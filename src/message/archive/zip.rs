//! ZIP archives (APPNOTE): names by the central directory, or by local headers as some readers do; archives and
//! the relations of Office documents within.

use memchr::memmem;

use super::super::office;
use super::{CLAIMED, ENTRIES, LARGE, Listing, NAMES, OPENED, RATIO, long, short};

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
    pub(super) fn zip(
        &mut self,
        bytes: &[u8],
        depth: usize,
        budget: &mut usize,
        waiting: &mut Vec<(Vec<u8>, usize)>,
    ) {
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
        self.office.is_encrypted |= entry.is_encrypted;
        self.name(entry.name);
        let name = entry.name.to_ascii_lowercase();
        let is_project = name.ends_with(b"vbaproject.bin");
        let is_relations = name.ends_with(b".rels");
        let is_opened = OPENED.iter().any(|ending| name.ends_with(ending));
        self.office.has_macros |= is_project || memmem::find(&name, b"macrosheets/").is_some();
        self.office.has_objects |= memmem::find(&name, b"embeddings/oleobject").is_some();
        if !(is_project || is_relations || is_opened) || entry.is_encrypted {
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
            } else if is_project {
                self.office.starts_macros |= office::starts(&inner);
            } else {
                *budget = budget.saturating_sub(if entry.method == 0 { inner.len() } else { 0 });
                waiting.push((inner, depth + 1));
            }
        }
        true
    }

    /// Reads what an Office document fetches from elsewhere (templates, objects, frames), and where its links
    /// lead.
    fn relations(&mut self, xml: &[u8]) {
        let text = String::from_utf8_lossy(xml);
        for relation in text.split("<Relationship ").skip(1).take(1_000) {
            let target = relation.split_once("Target=\"").and_then(|(_, rest)| rest.split_once('"'));
            let Some((target, _)) = target.filter(|_| relation.contains("TargetMode=\"External\"")) else {
                continue;
            };
            let targets = if ["attachedTemplate", "oleObject", "frame", "subDocument"]
                .iter()
                .any(|kind| relation.contains(kind))
            {
                &mut self.office.external
            } else if relation.contains("/hyperlink") {
                &mut self.office.links
            } else {
                continue;
            };
            if targets.len() < NAMES {
                targets.push(crate::message::field::clean(target));
            }
        }
    }
}
