//! What an attachment is, by its name, its declared type and its first bytes.
//!
//! Nothing is unpacked into files: archives and documents are looked through in memory, within the limits.

use memchr::memmem;

use super::{Attachment, Limits, LinkSource, archive, html, office, pdf, picture};

/// Most links that are read from a document.
const DOCUMENT_LINKS: usize = 20;

/// Describes an attachment by its decoded bytes, which may be only the first of `size_bytes`. Also returns
/// the links in it. `pixels` is in how many of pictures QR codes may still be looked for.
pub(super) fn read(
    name: Option<String>,
    declared_type: &str,
    bytes: &[u8],
    size_bytes: usize,
    limits: &Limits,
    pixels: &mut usize,
) -> (Attachment, Vec<(String, LinkSource)>) {
    let detected_type = detect(bytes);
    let mut attachment = Attachment {
        name,
        declared_type: declared_type.to_owned(),
        detected_type,
        size_bytes,
        ..Attachment::default()
    };
    let (mut links, mut codes) = (Vec::new(), Vec::new());
    let mut office = office::read(bytes);
    if archive::is_archive(bytes) {
        let mut budget = limits.attachment_bytes;
        let listing = archive::list(bytes, &mut budget);
        attachment.entries = listing.names;
        attachment.is_over_limit = listing.is_over_limit;
        office = listing.office;
    } else if bytes.starts_with(b"%PDF") {
        let pdf = pdf::read(bytes, limits.attachment_bytes, pixels);
        attachment.has_script = pdf.has_script;
        attachment.is_encrypted = pdf.is_encrypted;
        links.extend(pdf.links);
        codes.extend(pdf.codes);
    } else if picture::is_picture(bytes) {
        codes.extend(picture::links(bytes, pixels));
    } else if detected_type == Some("text/html")
        || detected_type == Some("image/svg+xml")
        || declared_type == "text/html"
    {
        let page = html::read(&String::from_utf8_lossy(bytes), limits);
        attachment.has_script = page.facts.scripts > 0;
        attachment.has_form = page.facts.forms > 0 || page.facts.password_inputs > 0;
        links.extend(
            page.links
                .into_iter()
                .filter(|link| link.is_clickable())
                .map(|link| link.target)
                .take(DOCUMENT_LINKS),
        );
    }
    attachment.has_macros = office.has_macros;
    attachment.starts_macros = office.starts_macros;
    attachment.has_objects = office.has_objects;
    attachment.is_encrypted |= office.is_encrypted;
    attachment.fetches = !office.external.is_empty();
    links.extend(office.external.into_iter().chain(office.links).take(DOCUMENT_LINKS));
    let links = links.into_iter().map(|link| (link, LinkSource::Attachment));
    let codes = codes.into_iter().map(|code| (code, LinkSource::Code));
    (attachment, links.chain(codes).collect())
}

/// Returns the media type that the bytes show.
fn detect(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.get(..bytes.len().min(1_024)).unwrap_or_default().trim_ascii_start();
    let begins = |word: &[u8]| start.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
    if bytes.starts_with(office::OLE) {
        return Some("application/x-ole-storage");
    }
    if bytes.starts_with(office::ONE_NOTE) {
        return Some("application/onenote");
    }
    if bytes.starts_with(office::RTF) {
        return Some("application/rtf");
    }
    if bytes.starts_with(b"L\0\0\0\x01\x14\x02\0") {
        return Some("application/x-ms-shortcut");
    }
    if bytes.get(32_769..32_774) == Some(b"CD001") {
        return Some("application/x-iso9660-image");
    }
    if begins(b"<svg") || begins(b"<?xml") && memmem::find(start, b"<svg").is_some() {
        return Some("image/svg+xml");
    }
    if [&b"<!doctype html"[..], b"<html", b"<head", b"<body", b"<script", b"<meta http-equiv", b"<form"]
        .iter()
        .any(|word| begins(word))
    {
        return Some("text/html");
    }
    infer::get(bytes).map(|kind| kind.mime_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8]) -> (Attachment, Vec<String>) {
        let kind = "application/octet-stream";
        let (attachment, links) = read(None, kind, bytes, bytes.len(), &Limits::DEFAULT, &mut (1 << 20));
        (attachment, links.into_iter().map(|(link, _)| link).collect())
    }

    #[test]
    fn types_are_told_by_content() {
        for (bytes, expected) in [
            (&b"MZ\x90\0\x03\0\0\0"[..], Some("application/vnd.microsoft.portable-executable")),
            (b"%PDF-1.7", Some("application/pdf")),
            (b"PK\x03\x04....", Some("application/zip")),
            (b" \n<!DOCTYPE html><html>", Some("text/html")),
            (b"<svg onload=x>", Some("image/svg+xml")),
            (b"\x89PNG\r\n\x1a\n", Some("image/png")),
            (office::OLE, Some("application/x-ole-storage")),
            (b"hello", None),
            (b"", None),
        ] {
            assert_eq!(read_bytes(bytes).0.detected_type, expected, "{bytes:?}");
        }
    }

    #[test]
    fn archives_tell_their_names() {
        let mut zip = b"PK\x03\x04\x14\0\x01\0\0\0".to_vec();
        zip.extend([0; 16]);
        zip.extend([11, 0, 0, 0]);
        zip.extend(b"invoice.exe");
        let (attachment, _) = read_bytes(&zip);
        assert_eq!((attachment.entries, attachment.is_encrypted), (vec!["invoice.exe".to_owned()], true));
    }

    #[test]
    fn documents_tell_their_links_and_scripts() {
        let (attachment, links) = read_bytes(b"%PDF-1.4 <</S/URI/URI (https://a.example/x)>> /JavaScript");
        assert!(attachment.has_script);
        assert_eq!(links, ["https://a.example/x"]);
        let (attachment, links) = read_bytes(b"<html><form action=https://b.example><script>");
        assert!(attachment.has_script && attachment.has_form);
        assert_eq!(links, ["https://b.example"]);
    }
}
