//! What archives hold: names, nested archives, under one budget of bytes, depth and entries.
//!
//! Nothing is written anywhere. An archive that would not fit into the budget, or claims sizes that nobody
//! sends, is over the limit: that is a finding, and what was read until then stands.

mod disk;
mod rar;
mod zip;

use std::io::{Cursor, Read};

use memchr::memmem;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use sevenz_rust2::EncoderMethod;

use super::office::{self, Office};

/// Deepest archive in an archive.
const DEPTH: usize = 5;
/// Most entries of all archives of an attachment.
const ENTRIES: usize = 10_000;
/// Most names that are kept.
const NAMES: usize = 100;
/// Most bytes that one entry is inflated to.
const ENTRY_BYTES: usize = 4 << 20;
/// Endings of files in an archive that are looked into: archives and documents.
const OPENED: [&[u8]; 25] = [
    b".zip", b".gz", b".tgz", b".tar", b".bz2", b".tbz", b".xz", b".txz", b".rar", b".7z", b".iso", b".img",
    b".jar", b".apk", b".docx", b".xlsx", b".pptx", b".docm", b".xlsm", b".doc", b".xls", b".ppt", b".dot",
    b".rtf", b".one",
];
/// How much larger than itself an entry may be, when it is large.
const RATIO: u64 = 100;
const LARGE: u64 = 10 << 20;
/// Most memory for the window of a decompressor.
const WINDOW_KIB: u32 = 16 << 10;
/// Most bytes that all entries may claim to be.
const CLAIMED: u64 = 1 << 30;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Names of files, at most [`NAMES`].
    pub(super) names: Vec<String>,
    /// Whether a limit was reached.
    pub(super) is_over_limit: bool,
    /// What Office documents in it do, and whether a password is needed.
    pub(super) office: Office,
    entries: usize,
    claimed: u64,
}

/// Whether the bytes begin as an archive that is read here.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    Kind::of(bytes).is_some()
}

/// What an archive is, by its bytes.
enum Kind {
    Zip,
    Gzip,
    Bzip2,
    Xz,
    Lzma,
    Tar,
    OldRar,
    NewRar,
    SevenZip,
    Disk,
}

impl Kind {
    fn of(bytes: &[u8]) -> Option<Self> {
        let starts: [(&[u8], Kind); 8] = [
            (b"PK\x03\x04", Kind::Zip),
            (b"PK\x05\x06", Kind::Zip),
            (b"\x1f\x8b\x08", Kind::Gzip),
            (b"BZh", Kind::Bzip2),
            (b"\xfd7zXZ\0", Kind::Xz),
            (rar::OLD, Kind::OldRar),
            (rar::NEW, Kind::NewRar),
            (b"7z\xbc\xaf\x27\x1c", Kind::SevenZip),
        ];
        if let Some((_, kind)) = starts.into_iter().find(|(start, _)| bytes.starts_with(start)) {
            return Some(kind);
        }
        if bytes.get(257..262) == Some(b"ustar") {
            return Some(Kind::Tar);
        }
        // No magic number: the usual properties, and a length that is not said or not absurd.
        let is_lzma = bytes.starts_with(b"\x5d")
            && (bytes.get(5..13) == Some(&[0xff; 8]) || bytes.get(10..13) == Some(&[0; 3]));
        if is_lzma {
            return Some(Kind::Lzma);
        }
        disk::is_image(bytes).then_some(Kind::Disk)
    }
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

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

impl Listing {
    fn read(&mut self, bytes: &[u8], depth: usize, budget: &mut usize, waiting: &mut Vec<(Vec<u8>, usize)>) {
        if depth > DEPTH {
            self.is_over_limit = true;
            return;
        }
        let inner = match Kind::of(bytes) {
            Some(Kind::Zip) => return self.zip(bytes, depth, budget, waiting),
            Some(Kind::Tar) => return self.tar(bytes, depth, waiting),
            Some(Kind::OldRar) => return rar::list_old(bytes, self),
            Some(Kind::NewRar) => return rar::list_new(bytes, self),
            Some(Kind::SevenZip) => return self.seven_zip(bytes),
            Some(Kind::Disk) => return disk::list(bytes, self),
            Some(Kind::Gzip) => gzip_body(bytes).and_then(|body| self.inflate(body, budget)),
            Some(Kind::Bzip2) => self.expand(bzip2::read::MultiBzDecoder::new(bytes), budget),
            Some(Kind::Xz) => {
                self.expand(lzma_rust2::XzReader::new_mem_limit(bytes, true, WINDOW_KIB), budget)
            }
            Some(Kind::Lzma) => match lzma_rust2::LzmaReader::new_mem_limit(bytes, WINDOW_KIB, None) {
                Ok(reader) => self.expand(reader, budget),
                Err(_) => {
                    self.is_over_limit |= long(bytes, 1).is_some_and(|window| window / 1_024 > WINDOW_KIB);
                    None
                }
            },
            None => {
                self.office.merge(office::read(bytes));
                None
            }
        };
        waiting.extend(inner.map(|inner| (inner, depth + 1)));
    }

    /// Reads what a decompressor gives within the budget; what is larger is cut and over the limit, and so is
    /// what needs too much memory.
    fn expand(&mut self, reader: impl Read, budget: &mut usize) -> Option<Vec<u8>> {
        let limit = (*budget).min(ENTRY_BYTES);
        let mut inner = Vec::new();
        let result = reader.take(limit as u64 + 1).read_to_end(&mut inner);
        // What was read until an error stands.
        self.is_over_limit |=
            inner.len() > limit || result.is_err_and(|error| error.kind() == std::io::ErrorKind::OutOfMemory);
        inner.truncate(limit);
        *budget -= inner.len();
        (!inner.is_empty()).then_some(inner)
    }

    /// Reads the names in a 7z archive; with its header encrypted, it has none.
    fn seven_zip(&mut self, bytes: &[u8]) {
        let limit = usize::try_from(WINDOW_KIB).unwrap_or(usize::MAX);
        let password = sevenz_rust2::Password::empty();
        let read = sevenz_rust2::Archive::read_with_memory_limit(&mut Cursor::new(bytes), &password, limit);
        let Ok(archive) = read else {
            // The description of an encrypted header stands in the clear, at the end.
            let end = bytes.get(bytes.len().saturating_sub(WINDOW_KIB as usize)..).unwrap_or_default();
            self.office.is_encrypted |= memmem::find(end, EncoderMethod::ID_AES256_SHA256).is_some();
            return;
        };
        let mut coders = archive.blocks.iter().flat_map(|block| block.coders.iter());
        self.office.is_encrypted |=
            coders.any(|coder| coder.encoder_method_id() == EncoderMethod::ID_AES256_SHA256);
        for file in archive.files.iter().filter(|file| !file.is_directory) {
            if !self.count(file.size) {
                return;
            }
            self.name(file.name.as_bytes());
        }
    }

    /// Counts an entry of a size. Returns false when that is more than is read.
    fn count(&mut self, size: u64) -> bool {
        self.entries += 1;
        self.claimed = self.claimed.saturating_add(size);
        self.is_over_limit |= self.entries > ENTRIES || self.claimed > CLAIMED;
        self.entries <= ENTRIES && self.claimed <= CLAIMED
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
            self.name(name);
            let digits = String::from_utf8_lossy(text(124, 136)).trim().to_owned();
            let size = u64::from_str_radix(&digits, 8).unwrap_or(u64::MAX);
            if !self.count(size) {
                break;
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let content =
                bytes.get(at + 512..(at + 512).saturating_add(size).min(bytes.len())).unwrap_or_default();
            if is_archive(content) {
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
        assert!(!listing.is_over_limit && !listing.office.is_encrypted);
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
    fn documents_in_archives_tell_what_they_do() {
        let project = zip("word/vbaProject.bin", b"..AutoOpen..");
        let listing = read(&zip("a.docm", &project));
        assert!(listing.office.has_macros && listing.office.starts_macros);
        let rich = b"{\\rtf1\\objdata 01}";
        assert!(read(&zip("a.rtf", rich)).office.has_objects);
        let sheet = read(&zip("xl/macrosheets/sheet1.xml", b"<x/>")).office;
        assert!(sheet.has_macros && !sheet.starts_macros);
        let link = br#"<Relationship Type="x/hyperlink" Target="https://b.example/" TargetMode="External"/>"#;
        let office = read(&zip("word/_rels/document.xml.rels", link)).office;
        assert_eq!((office.links, office.external.len()), (vec!["https://b.example/".to_owned()], 0));
    }

    #[test]
    fn documents_tell_what_they_fetch() {
        let relations = br#"<Relationships><Relationship Id="1" Type="x/attachedTemplate" Target="http://a.example/t.dotm" TargetMode="External"/></Relationships>"#;
        assert_eq!(
            read(&zip("word/_rels/settings.xml.rels", relations)).office.external,
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

    #[test]
    fn other_archives_tell_their_names() {
        use base64::Engine;
        let bytes = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let check = |file: &[u8], names: &[&str], is_encrypted: bool| {
            assert!(is_archive(file));
            let listing = read(file);
            assert_eq!(
                (listing.names, listing.office.is_encrypted),
                (names.iter().map(|&name| name.to_owned()).collect(), is_encrypted)
            );
        };
        // bzip2 and xz of a tar file; RAR, of one file, of one that needs a password, of all that does; 7z in
        // the same order; a disk image within xz.
        let files: [(&str, &[&str], bool); 12] = [
            (
                "QlpoOTFBWSZTWfCDnBoAAHF7gMmAAAJAAWeAAgBqZZ9ACAggAFQ0kZDTQMQ9Jo3qgkkQNA0ZAAfSgOQg3oQhEeMbCN0K0CGBi3B4nsIzcDhl4fHdurrhVbLTs9LKr2H0mxyiiIB+LuSKcKEh4Qc4NA==",
                &["invoice.exe"],
                false,
            ),
            (
                "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4Cf/AGNdADSbizOxRUJJQJaEu4MizR3XwySY/3Z5ZCKpmwICrKljANZ4xztewPJto/R/Bsdq8zct3pfn3z88h6Eo6SDSKQjexgAgYQ0EXUtCGRdvE2CU6icQ16ed2px5mlNuxX6gucxAAAAAf8kd1sA4/tIAAX+AUAAAAPnUykOxxGf7AgAAAAAEWVo=",
                &["invoice.exe"],
                false,
            ),
            (
                "UmFyIRoHAM+QcwAADQAAAAAAAACF73QAgCsABQAAAAUAAAADhqYQNgAAAAAUMAsApAEAAGludm9pY2UuZXhlaGVsbG/EPXsAQAcA",
                &["invoice.exe"],
                false,
            ),
            (
                "UmFyIRoHAQDFGjMyAwEAAIgrKGQZAgIFBAWkA4amEDYAAQtpbnZvaWNlLmV4ZWhlbGxvGbI6NQMFAAA=",
                &["invoice.exe"],
                false,
            ),
            (
                "UmFyIRoHAM+QcwAADQAAAAAAAABarHQEgCsABQAAAAUAAAADhqYQNgAAAAAUMAsApAEAAGludm9pY2UuZXhlaGVsbG/EPXsAQAcA",
                &["invoice.exe"],
                true,
            ),
            (
                "UmFyIRoHAQDFGjMyAwEAAB6eT3E/AgMlBQQFpAOGphA2AAELaW52b2ljZS5leGUkAQAADwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAaGVsbG8Zsjo1AwUAAA==",
                &["invoice.exe"],
                true,
            ),
            (
                "UmFyIRoHAM6Zc4AADQAAAAAAAAD2YHQAgCEABQAAAAUAAAADhqYQNgAAAAAUMAEApAEAAHhoZWxsb8Q9ewBABwA=",
                &[],
                true,
            ),
            ("UmFyIRoHAQAPOyyeFQQAAAAPAAAAAAAAAAAAAAAAAAAAAA==", &[], true),
            (
                "N3q8ryccAARzJXhrcAAAAAAAAAAgAAAAAAAAACoSwoEBAAV4aGVsbG8AAACBMweuD85vVl76Dfokg9wXd2LyF6CdJfT4q7m/DIx6LLsjMIzgHiYsXaOtmC0Ctak4S1gs2S/21aI9gDPJVSu+xAacBe2uHZZgmaPcXDRrvFeJENvjeluKcj2setn5P5gaAAAAFwYKAQlmAAcLAQABIwMBAQVdABAAAAx2CgG5iLleAAA=",
                &["a.txt", "invoice.exe"],
                false,
            ),
            (
                "N3q8ryccAARM31ciEAAAAAAAAAByAAAAAAAAABee/QeATGMUmejBJ3VlJfNgtxi/AQQGAAEJEAAHCwEAAiQG8QcBElMPk3B+mQ2rPBDfkJYdsbO6oiEhAQABAAwJBQAICgGGphA2AAAFARkBABEZAGkAbgB2AG8AaQBjAGUALgBlAHgAZQAAABkCAAAUCgEALZWb5qh93QEVBgEAIICkgQAA",
                &["invoice.exe"],
                true,
            ),
            (
                "N3q8ryccAAQWwWd1kAAAAAAAAAAvAAAAAAAAAFK1ucsY7IOUHQwMw+kKQScBSaOcLnycgwLjx3PNxRttBWwVbwLz3VdzwWhe539WRrBmClf6jh0fTkI5mmzgDis8lPcLJRIIM3hQWj6qXaO/K9m3T45Z06Z8IapDpaDNmLdejWKw0ijansEJfTRW/B73ILPquJpehzoXgpmqz6RdcjFc4E0DXzfLmdmBrUkVXHtCS0gXBhABCYCAAAcLAQABJAbxBwESUw8smbl3iFPQ76CAMQJSM3b2DHIKAXCCZwMAAA==",
                &[],
                true,
            ),
            (
                "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4PgEAjNdAABv/f//o7f/Rz5IFXI5YVG4kijmo4YH+e7kHoLTL8U6PAFLsX7JiopNL6MN2X+m44wjEVPgWRjFdYrid/dE790OjkefKuUNdUG7Q609LBi0BT3LYTAYxkCvjKUkM9Ey+IH8A42Qb0Y2D67d4cKrEhZJ+uoXhDyUYYGA5Emfpv1RbgRGD6MPadgxxiDBcKEiyWhbA2KEtmYStqvIl6H0IbTtsIGp5UBz3Mv73q5k3Z646hzTEbHKV+ydGeoyftwjF+QwE4iC1ptlqc2GR//InFDnZSPTdqzvKw3ppFav2xQV5ePuEij1u6D6sIBz8yI6/d8nCgR8YDT3+cTqTeEvS6d+V/7VeESFMaCn7Okp2sJfBQgfZi7G1d+zn7RxBRQtVf0kPVshvm+E7D7zv8tc5gUFEeAYmzo+GMcaybn8DXc2GqYGocVeZyhRKC+Uo/UkBnPWuWOtzK6Am9dC5fOnnCSLo1l909KdWIctWx6HWfRlNBZfXJ93EBpN6Y/NECHPBjDnxG00SQBRn86uiYAguN1O9kiQkX3BRDcYDuHawVjqHIwDYkrZaA9usrq6IJM/vBTv1k8j9rcc3UEuo+kZmay7Zap1I4iXEvd7zJEuOA65Jw5qsWx/eeP++4eVBsidNmjsFGodwJslDUPKvK9T1vx+KVBWbPKXcRib9qwWvOzp2WbL0GlQDioLQro8QpAO5E46A5ppLuuSBW6enHBLfwlRNbg3YB8W1NT2MEs6yCAVw8IAAAB36/xLweXA9gABzwSF8AMAZrgFkrHEZ/sCAAAAAARZWg==",
                &["A.TXT", "INVOICE.EXE"],
                false,
            ),
        ];
        for (file, names, is_encrypted) in files {
            check(&bytes(file), names, is_encrypted);
        }
    }

    #[test]
    fn windows_beyond_the_limit_are_not_opened() {
        // A header that asks for a window of 4 GiB.
        let mut head = b"\xfd7zXZ\0\0\x01\x69\x22\xde\x36\x02\0\x21\x01\x28\0\0\0".to_vec();
        head.extend(crc32fast::hash(&head[12..]).to_le_bytes());
        assert!(read(&head).is_over_limit);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_listed(start in 0_usize..9, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let starts: [&[u8]; 9] = [
                b"PK\x03\x04", b"\x1f\x8b\x08", b"PK\x05\x06", b"", rar::OLD, rar::NEW, b"7z\xbc\xaf\x27\x1c", b"BZh", b"\xfd7zXZ\0",
            ];
            drop(read(&[starts[start], bytes.as_slice()].concat()));
        }
    }
}
