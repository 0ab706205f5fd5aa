//! Names in RAR archives, of version 4 and before and of version 5, from their block headers. What is
//! compressed stays so.

use super::{Listing, long, short};

/// How archives begin: old ones, and those of version 5.
pub(super) const OLD: &[u8] = b"Rar!\x1a\x07\x00";
pub(super) const NEW: &[u8] = b"Rar!\x1a\x07\x01\x00";

const OLD_MAIN: u8 = 0x73;
const OLD_FILE: u8 = 0x74;
const OLD_END: u8 = 0x7b;

const NEW_FILE: u64 = 2;
const NEW_ENCRYPTION: u64 = 4;
const NEW_END: u64 = 5;

/// Lists an old archive: blocks of a checksum, a type, flags, a length, and sometimes the length of data.
pub(super) fn list_old(bytes: &[u8], listing: &mut Listing) {
    let mut at = OLD.len();
    while let (Some(kind), Some(flags), Some(size)) =
        (bytes.get(at + 2), short(bytes, at + 3), short(bytes, at + 5))
    {
        let data = if flags & 0x8000 == 0 { 0 } else { long(bytes, at + 7).unwrap_or(0) };
        match *kind {
            // Headers and all are encrypted.
            OLD_MAIN if flags & 0x80 != 0 => {
                listing.office.is_encrypted = true;
                return;
            }
            OLD_FILE => {
                listing.office.is_encrypted |= flags & 4 != 0;
                let length = usize::from(short(bytes, at + 26).unwrap_or(0));
                let start = at + if flags & 0x100 == 0 { 32 } else { 40 };
                // Behind a NUL the name stands once more, in another encoding.
                let name = bytes.get(start..start + length).unwrap_or_default();
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if !listing.count(u64::from(long(bytes, at + 11).unwrap_or(0))) {
                    return;
                }
                listing.name(name);
            }
            OLD_END => return,
            _ => {}
        }
        let step = usize::from(size).saturating_add(usize::try_from(data).unwrap_or(usize::MAX));
        if size < 7 {
            return;
        }
        at = at.saturating_add(step);
    }
}

/// Reads a number of seven bits a byte, and moves behind it.
fn number(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Lists an archive of version 5; what breaks off ends it.
pub(super) fn list_new(bytes: &[u8], listing: &mut Listing) {
    let mut at = NEW.len();
    while let Some(next) = block(bytes, at, listing) {
        at = next;
    }
}

/// Reads the block at a place: a checksum, a length, a type, flags. Returns where the next one is.
fn block(bytes: &[u8], start: usize, listing: &mut Listing) -> Option<usize> {
    let mut at = start.checked_add(4)?;
    let size = usize::try_from(number(bytes, &mut at)?).ok()?;
    let header = bytes.get(at..at.checked_add(size)?)?;
    let behind = at + size;
    let mut at = 0;
    let (kind, flags) = (number(header, &mut at)?, number(header, &mut at)?);
    let extra = if flags & 1 == 0 { 0 } else { usize::try_from(number(header, &mut at)?).ok()? };
    let data = if flags & 2 == 0 { 0 } else { usize::try_from(number(header, &mut at)?).ok()? };
    match kind {
        NEW_ENCRYPTION => listing.office.is_encrypted = true,
        NEW_FILE => {
            let file_flags = number(header, &mut at)?;
            let size = number(header, &mut at)?;
            number(header, &mut at)?;
            at += if file_flags & 2 == 0 { 0 } else { 4 };
            at += if file_flags & 4 == 0 { 0 } else { 4 };
            number(header, &mut at)?;
            number(header, &mut at)?;
            let length = usize::try_from(number(header, &mut at)?).ok()?;
            if !listing.count(size) {
                return None;
            }
            listing.name(header.get(at..at.checked_add(length)?)?);
            let extra = header.get(header.len().checked_sub(extra)?..)?;
            listing.office.is_encrypted |= is_encrypted(extra);
        }
        _ => {}
    }
    (kind != NEW_ENCRYPTION && kind != NEW_END).then_some(behind.checked_add(data)?)
}

/// Whether one of the extra records of a file says how it is encrypted.
fn is_encrypted(extra: &[u8]) -> bool {
    let mut at = 0;
    while let Some(size) = number(extra, &mut at) {
        let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size));
        let (Some(kind), Some(end)) = (number(extra, &mut at), end) else { return false };
        if kind == 1 {
            return true;
        }
        at = end.max(at);
    }
    false
}
