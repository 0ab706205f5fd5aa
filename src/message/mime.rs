//! The MIME tree: an entity is cut into parts, a part is decoded once (RFC 2045, 2046).
//!
//! `mail-parser` reads fields and character sets; the tree is walked here, because its depth and its offsets
//! come from the sender: every descent is counted and works on a sub-slice, so there is no cycle and no deep
//! stack. Where mail programs disagree about a malformed tree, all readings are walked and the disagreement
//! is a [`Problem`].

use std::ops::Range;

use memchr::{memchr, memmem};

use super::decode::{self, Encoding};
use super::field::{self, Line, Lines, Parameterized};
use super::{Content, Header, Limits, LinkSource, Message, Part, Problem};
use super::{attachment, calendar, html, link, picture};

/// Decoded bytes that are looked into of every attachment, whatever came before it.
const SNIFF_BYTES: usize = 64 << 10;

/// Collects a message while its tree is walked.
pub(super) struct Walk<'l> {
    limits: &'l Limits,
    /// The message, so that parts can be told by their place in it.
    raw: &'l [u8],
    /// What was found so far.
    pub(super) message: Message,
    attachment_budget: usize,
    /// Pixels in which QR codes may still be looked for.
    picture_budget: usize,
    /// Bytes of decoded text that may still be kept for rules over it.
    content_budget: usize,
}

/// What the header of a part says about its body.
#[derive(Default)]
struct PartHeader {
    fields: Vec<Header>,
    content_type: Option<Parameterized>,
    disposition: Option<Parameterized>,
    encoding: Option<Encoding>,
    subject: Option<String>,
}

impl PartHeader {
    fn media_type<'a>(&'a self, default: &'a str) -> &'a str {
        self.content_type.as_ref().map(|parsed| parsed.word.as_str()).unwrap_or(default)
    }

    fn file_name(&self) -> Option<String> {
        let disposition = self.disposition.as_ref().and_then(|parsed| parsed.parameter("filename"));
        let name =
            disposition.or_else(|| self.content_type.as_ref().and_then(|parsed| parsed.parameter("name")))?;
        let name = field::clean(name.trim());
        (!name.is_empty()).then(|| decode::prefix(&name, 1_024).to_owned())
    }
}

impl<'l> Walk<'l> {
    /// Starts with nothing.
    pub(super) fn new(raw: &'l [u8], limits: &'l Limits) -> Self {
        Walk {
            limits,
            raw,
            message: Message::default(),
            attachment_budget: limits.attachment_bytes,
            picture_budget: limits.picture_pixels,
            content_budget: limits.content_bytes,
        }
    }

    /// Notes a problem, once.
    pub(super) fn note(&mut self, problem: Problem) {
        if !self.message.problems.contains(&problem) {
            self.message.problems.push(problem);
        }
    }

    /// Reads the header of the message and walks over its body.
    pub(super) fn top(&mut self) {
        let raw = self.raw;
        let mut lines = Lines::new(raw);
        let mut part = PartHeader::default();
        let mut strays: Vec<&[u8]> = Vec::new();
        while let Some(line) = lines.next() {
            if lines.offset() > self.limits.header_bytes
                || self.message.headers.len() >= self.limits.header_fields
            {
                self.note(Problem::HeaderTooLong);
                // The rest still ends at the empty line, so that the body is found.
                lines.by_ref().for_each(drop);
                break;
            }
            match line {
                Line::Field { name, value, .. } => {
                    let (name, value) = (raw.get(name), raw.get(value));
                    let (name, value) = (name.unwrap_or_default(), value.unwrap_or_default());
                    let (value, is_cut) = cut(value, self.limits.field_bytes);
                    if is_cut {
                        self.note(Problem::HeaderTooLong);
                    }
                    if std::str::from_utf8(value).is_err() {
                        self.note(Problem::EightBitHeader);
                    }
                    self.part_field(&mut part, name, value);
                    self.message.headers.push(field::read(name, value));
                }
                Line::Stray(range) => {
                    self.note(Problem::MalformedField);
                    strays.extend(raw.get(range));
                }
                Line::Mailbox(_) => self.note(Problem::MailboxLine),
            }
        }
        let body_offset = if self.message.headers.is_empty() && !strays.is_empty() {
            self.note(Problem::NoHeader);
            0
        } else {
            lines.offset()
        };
        self.message.body_offset = body_offset;
        self.body(&part, raw.get(body_offset..).unwrap_or_default(), 0, "text/plain");
        if body_offset > 0 && !strays.is_empty() {
            // Some readers end the header at the first stray line and show what follows.
            self.add_text(&String::from_utf8_lossy(&strays.concat()), false);
        }
    }

    fn part_field(&mut self, part: &mut PartHeader, name: &[u8], value: &[u8]) {
        let is_again = if name.eq_ignore_ascii_case(b"Content-Type") {
            part.content_type.replace(Parameterized::read(value)).is_some()
        } else if name.eq_ignore_ascii_case(b"Content-Disposition") {
            part.disposition.replace(Parameterized::read(value)).is_some()
        } else if name.eq_ignore_ascii_case(b"Content-Transfer-Encoding") {
            part.encoding.replace(Encoding::read(&String::from_utf8_lossy(value))).is_some()
        } else {
            if name.eq_ignore_ascii_case(b"Subject") {
                part.subject = Some(field::read(name, value).value);
            }
            false
        };
        if name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"Content-")) {
            part.fields.push(field::read(name, value));
        }
        if is_again {
            self.note(Problem::AmbiguousPart);
        }
    }

    /// Walks over a part, or over a message inside the message.
    fn entity(&mut self, bytes: &[u8], depth: usize, default_type: &str, is_message: bool) {
        let mut lines = Lines::new(bytes);
        let mut part = PartHeader::default();
        let (mut fields, mut strays) = (0_usize, 0_usize);
        for line in &mut lines {
            match line {
                Line::Field { name, value, .. } => {
                    fields += 1;
                    if fields <= self.limits.header_fields {
                        let (value, _) = cut(bytes.get(value).unwrap_or_default(), self.limits.field_bytes);
                        self.part_field(&mut part, bytes.get(name).unwrap_or_default(), value);
                    }
                }
                Line::Stray(_) | Line::Mailbox(_) => strays += 1,
            }
        }
        let body_offset = if fields == 0 && strays > 0 { 0 } else { lines.offset() };
        if strays > 0 {
            self.note(Problem::MalformedField);
        }
        if let Some(subject) = part.subject.take().filter(|_| is_message) {
            self.add_text(&subject, false);
        }
        self.body(&part, bytes.get(body_offset..).unwrap_or_default(), depth, default_type);
    }

    fn body(&mut self, part: &PartHeader, body: &[u8], depth: usize, default_type: &str) {
        let media_type = part.media_type(default_type).to_owned();
        let is_multipart = media_type.starts_with("multipart/");
        let is_message = matches!(media_type.as_str(), "message/rfc822" | "message/global");
        if (is_multipart || is_message) && depth >= self.limits.depth {
            self.note(Problem::TooDeep);
            return self.leaf(part, body, "text/plain");
        }
        if is_message {
            let decoded = match part.encoding.unwrap_or(Encoding::Identity) {
                Encoding::Base64 => Some(decode::base64(body, self.limits.message_bytes).0),
                Encoding::QuotedPrintable => Some(decode::quoted_printable(body, self.limits.message_bytes)),
                Encoding::Identity | Encoding::Unknown => None,
            };
            return self.entity(decoded.as_deref().unwrap_or(body), depth + 1, "text/plain", true);
        }
        match media_type.as_str() {
            "message/partial" => self.note(Problem::Partial),
            "message/external-body" => self.note(Problem::ExternalBody),
            _ => {}
        }
        if !is_multipart {
            return self.leaf(part, body, &media_type);
        }
        let boundary = part.content_type.as_ref().and_then(|parsed| parsed.parameter("boundary"));
        let boundary = boundary.map(str::trim_end).filter(|boundary| !boundary.is_empty());
        let split = boundary.map(|boundary| split(body, boundary.as_bytes(), self.limits.parts + 1));
        let Some(split) = split.filter(|split| !split.parts.is_empty()) else {
            self.note(Problem::BoundaryMissing);
            let looks_like_html = memmem::find(body, b"<html").or(memmem::find(body, b"<HTML")).is_some();
            return self.leaf(part, body, if looks_like_html { "text/html" } else { "text/plain" });
        };
        if split.parts_after_end {
            self.note(Problem::PartsAfterEnd);
        } else if !split.is_closed {
            self.note(Problem::BoundaryUnclosed);
        }
        if split.is_inexact {
            self.note(Problem::BoundaryInexact);
        }
        let default_type = if media_type == "multipart/digest" { "message/rfc822" } else { "text/plain" };
        for child in split.parts {
            if self.message.parts.len() >= self.limits.parts {
                self.note(Problem::TooManyParts);
                self.add_text(&String::from_utf8_lossy(cut(child, self.limits.text_bytes).0), false);
                break;
            }
            self.entity(child, depth + 1, default_type, false);
        }
    }

    /// Returns where bytes stand in the message; `None` for what was decoded from it.
    fn place(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let start = (bytes.as_ptr() as usize).checked_sub(self.raw.as_ptr() as usize)?;
        let end = start.checked_add(bytes.len())?;
        (end <= self.raw.len()).then_some(start..end)
    }

    fn leaf(&mut self, part: &PartHeader, body: &[u8], media_type: &str) {
        let encoding = part.encoding.unwrap_or(Encoding::Identity);
        if encoding == Encoding::Unknown {
            self.note(Problem::UnknownEncoding);
        }
        let disposition = part.disposition.as_ref().map(|parsed| parsed.word.as_str()).unwrap_or_default();
        let name = part.file_name();
        let is_text = media_type.starts_with("text/")
            || !media_type.contains('/')
            || matches!(media_type, "message/delivery-status" | "message/disposition-notification");
        let is_shown = is_text && (name.is_none() || disposition == "inline");
        let is_attached = !is_text || name.is_some();
        let charset = part.content_type.as_ref().and_then(|parsed| parsed.parameter("charset"));
        let mut size_bytes = body.len();
        let limit = if is_shown { self.limits.html_bytes } else { self.attachment_budget.max(SNIFF_BYTES) };
        let decoded = match encoding {
            Encoding::Base64 => {
                size_bytes = decode::base64_len(body);
                let (bytes, junk) = decode::base64(body, limit);
                if junk > 0 {
                    self.note(Problem::BadBase64);
                }
                Some(bytes)
            }
            Encoding::QuotedPrintable => {
                let bytes = decode::quoted_printable(body, self.limits.message_bytes);
                size_bytes = bytes.len();
                Some(bytes)
            }
            Encoding::Identity | Encoding::Unknown => None,
        };
        let (bytes, is_cut) = cut(decoded.as_deref().unwrap_or(body), limit);
        let content = is_shown.then(|| match self.place(bytes) {
            Some(place) => Content::Raw(place),
            None => {
                let kept = bytes.get(..bytes.len().min(self.content_budget)).unwrap_or_default();
                self.content_budget -= kept.len();
                Content::Decoded(kept.to_vec())
            }
        });
        self.message.parts.push(Part {
            headers: part.fields.clone(),
            media_type: media_type.to_owned(),
            charset: charset.map(str::to_ascii_lowercase),
            name: name.clone(),
            size_bytes,
            content,
            place: self.place(body),
            encoding,
        });
        let unfolded = calendar::is_calendar(bytes).then(|| calendar::unfold(bytes));
        if let Some(unfolded) = &unfolded {
            self.message.invitations.push(calendar::read(unfolded));
        }
        if is_shown {
            if is_cut || size_bytes > limit {
                self.note(Problem::TooMuchText);
            }
            let (text, is_known) = decode::text(bytes, charset);
            if !is_known {
                self.note(Problem::UnknownCharset);
            }
            if media_type == "text/html" {
                self.add_html(&text);
            } else {
                self.add_text(unfolded.as_deref().unwrap_or(&text), true);
            }
        }
        if let Some(unfolded) = unfolded.filter(|_| !is_shown) {
            // A mail program shows an invitation as part of the message.
            for target in link::in_text(&unfolded).take(self.limits.links) {
                self.add_link(String::new(), target.to_owned(), LinkSource::Text);
            }
        }
        if is_attached {
            self.attachment_budget = self.attachment_budget.saturating_sub(bytes.len());
            let pixels = &mut self.picture_budget;
            let (attachment, links) =
                attachment::read(name, media_type, bytes, size_bytes, self.limits, pixels);
            self.message.attachments.push(attachment);
            links.into_iter().for_each(|(target, source)| self.add_link(String::new(), target, source));
        }
    }

    fn add_html(&mut self, source: &str) {
        let page = html::read(source, self.limits);
        self.message.html.add(&page.facts);
        if page.is_cut {
            self.note(Problem::TooMuchText);
        }
        self.add_text(&page.text, false);
        append(&mut self.message.hidden_text, &page.hidden_text, self.limits.text_bytes);
        for link in page.links {
            self.add_link(link.text, link.target, link.source);
        }
        for picture in page.pictures.iter().filter_map(|address| picture::from_data(address)) {
            for target in picture::links(&picture, &mut self.picture_budget) {
                self.add_link(String::new(), target, LinkSource::Code);
            }
        }
    }

    fn add_text(&mut self, text: &str, with_links: bool) {
        if with_links {
            for target in link::in_text(text).take(self.limits.links + 1) {
                self.add_link(target.to_owned(), target.to_owned(), LinkSource::Text);
            }
        }
        if append(&mut self.message.text, text, self.limits.text_bytes) {
            self.note(Problem::TooMuchText);
        }
    }

    fn add_link(&mut self, text: String, target: String, source: LinkSource) {
        if self.message.links.len() >= self.limits.links {
            return self.note(Problem::TooManyLinks);
        }
        if target.len() > self.limits.link_bytes {
            self.note(Problem::TooManyLinks);
        }
        let target = decode::prefix(&target, self.limits.link_bytes).to_owned();
        // A link may lead on and on; what it carries itself is read two steps far.
        let onward = link::onward(&target).filter(|_| source != LinkSource::Image);
        let further = onward.as_deref().and_then(link::onward);
        self.message.links.push(super::Link { text, target, source });
        for target in onward.into_iter().chain(further) {
            if self.message.links.len() < self.limits.links {
                let source = LinkSource::Redirected;
                self.message.links.push(super::Link { text: String::new(), target, source });
            }
        }
    }
}

/// Appends a paragraph, with uniform line breaks. Returns whether it had to be cut.
fn append(to: &mut String, paragraph: &str, limit: usize) -> bool {
    let paragraph = paragraph.trim();
    if paragraph.is_empty() {
        return false;
    }
    if !to.is_empty() {
        to.push_str("\n\n");
    }
    let kept = decode::prefix(paragraph, limit.saturating_sub(to.len()));
    to.extend(kept.chars().filter(|c| !matches!(c, '\r' | '\0')));
    kept.len() < paragraph.len()
}

fn cut(bytes: &[u8], limit: usize) -> (&[u8], bool) {
    match bytes.get(..limit) {
        Some(kept) if bytes.len() > limit => (kept, true),
        _ => (bytes, false),
    }
}

/// A multipart body, cut.
struct Split<'a> {
    parts: Vec<&'a [u8]>,
    is_closed: bool,
    parts_after_end: bool,
    is_inexact: bool,
}

fn split<'a>(body: &'a [u8], boundary: &[u8], limit: usize) -> Split<'a> {
    let exact = split_by(body, boundary, limit, false);
    if exact.parts.is_empty() { split_by(body, boundary, limit, true) } else { exact }
}

/// Cuts at lines that begin with the boundary; `loosely` allows something to follow it.
fn split_by<'a>(body: &'a [u8], boundary: &[u8], limit: usize, loosely: bool) -> Split<'a> {
    let mut delimiter = b"--".to_vec();
    delimiter.extend_from_slice(boundary);
    let mut found = Split { parts: Vec::new(), is_closed: false, parts_after_end: false, is_inexact: false };
    let mut open: Option<usize> = None;
    for at in memmem::find_iter(body, &delimiter) {
        if at > 0 && body.get(at - 1) != Some(&b'\n') {
            continue;
        }
        let after = body.get(at + delimiter.len()..).unwrap_or_default();
        let line_len = memchr(b'\n', after).map_or(after.len(), |position| position + 1);
        let line = after.get(..line_len).unwrap_or_default().trim_ascii();
        let is_end = line.starts_with(b"--");
        if !is_end && !line.is_empty() {
            // The boundary of an inner multipart may begin with that of the outer one.
            if !loosely {
                continue;
            }
            found.is_inexact = true;
        }
        if let Some(start) = open.take() {
            let mut end = at.saturating_sub(1);
            if body.get(end.wrapping_sub(1)) == Some(&b'\r') {
                end -= 1;
            }
            found.parts.push(body.get(start..end.max(start)).unwrap_or_default());
        }
        if found.parts.len() >= limit {
            return found;
        }
        if is_end {
            found.is_closed = true;
        } else {
            found.parts_after_end |= found.is_closed;
            open = Some(at + delimiter.len() + line_len);
        }
    }
    if let Some(start) = open {
        found.is_closed = false;
        found.parts.push(body.get(start..).unwrap_or_default());
    }
    found
}
