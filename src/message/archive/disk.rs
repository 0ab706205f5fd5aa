//! Names in disk images (ECMA-119, ISO 9660): the directories of the primary volume.

use super::{Listing, NAMES};

const SECTOR: usize = 2_048;
/// Where the primary volume descriptor is, and the root directory in it.
const PRIMARY: usize = 16 * SECTOR;
const ROOT: usize = 156;
/// Most directories that are read.
const DIRECTORIES: usize = 200;

/// Whether the bytes are a disk image.
pub(super) fn is_image(bytes: &[u8]) -> bool {
    bytes.get(PRIMARY + 1..PRIMARY + 6) == Some(b"CD001")
}

/// Lists an image.
pub(super) fn list(bytes: &[u8], listing: &mut Listing) {
    let mut waiting: Vec<(usize, usize)> =
        extent(bytes.get(PRIMARY + ROOT..).unwrap_or_default()).into_iter().collect();
    // Directories may name one another in a circle.
    let mut read = 0;
    while let Some((start, size)) = waiting.pop() {
        read += 1;
        if read > DIRECTORIES {
            listing.is_over_limit = true;
            return;
        }
        let directory = bytes.get(start..start.saturating_add(size).min(bytes.len())).unwrap_or_default();
        let mut at = 0;
        while let Some(length) = directory.get(at).map(|length| usize::from(*length)) {
            // Records do not cross sectors: the rest of one is filled up.
            if length == 0 {
                at = (at / SECTOR + 1) * SECTOR;
                continue;
            }
            let record = directory.get(at..at + length).unwrap_or_default();
            at += length;
            let name_length = record.get(32).map_or(0, |length| usize::from(*length));
            let name = record.get(33..33 + name_length).unwrap_or_default();
            // The directory itself and the one above have names of one byte.
            if name.is_empty() || matches!(name, [0 | 1]) {
                continue;
            }
            let Some((start, size)) = extent(record) else { continue };
            if record.get(25).is_some_and(|flags| flags & 2 != 0) {
                waiting.push((start, size));
            } else {
                if listing.names.len() >= NAMES || !listing.count(size as u64) {
                    return;
                }
                listing.name(name.split(|byte| *byte == b';').next().unwrap_or_default());
            }
        }
    }
}

/// Reads where a record's file is, and its size.
fn extent(record: &[u8]) -> Option<(usize, usize)> {
    let number = |at: usize| usize::try_from(super::long(record, at)?).ok();
    Some((number(2)?.checked_mul(SECTOR)?, number(10)?))
}
