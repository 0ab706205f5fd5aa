//! What attached PDF files say of themselves: SpamAssassin's `PDFInfo`.
//!
//! It reads a file line by line, as that plugin does: its checksums and counts are of lines.

use md5::{Digest, Md5};
use memchr::memmem;

use super::{Context, Function, argument_matches, between, number, picture, plainly};

/// Bytes of a file in which it says that it is a PDF.
const HEAD_BYTES: usize = 1_024;
/// Bytes of a file that are read.
const FILE_BYTES: usize = 8 << 20;
/// Lines of a file that its checksum is made of.
const FUZZY_LINES: usize = 70;
/// Longest property.
const PROPERTY_BYTES: usize = 256;
/// Most properties that are kept of a message.
const PROPERTIES: usize = 1_000;

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("pdf_count", |context, arguments| plainly(between(context.pdfs().count as f64, arguments))),
    ("pdf_image_count", |context, arguments| plainly(between(context.pdfs().sizes.len() as f64, arguments))),
    ("pdf_pixel_coverage", |context, arguments| {
        let area = context.pdfs().area;
        plainly(area > 0.0 && between(area, arguments))
    }),
    ("pdf_image_to_text_ratio", |context, arguments| {
        let (area, text) = (context.pdfs().area, context.message.text.len() as f64);
        plainly(
            area > 0.0
                && text > 0.0
                && between(text / area, arguments)
                && number(arguments, 1) != Some(text / area),
        )
    }),
    ("pdf_image_size_exact", |context, arguments| {
        let wanted = (number(arguments, 0)?, number(arguments, 1)?);
        plainly(context.pdfs().all_sizes().any(|size| size == wanted))
    }),
    ("pdf_image_size_range", |context, arguments| {
        let (low, high) = (arguments.get(..2)?, arguments.get(2..).unwrap_or_default());
        plainly(context.pdfs().all_sizes().any(|size| picture::is_within(size, low, high)))
    }),
    ("pdf_named", |context, arguments| plainly(context.pdfs().names.contains(arguments.first()?))),
    ("pdf_name_regex", |context, arguments| {
        plainly(argument_matches(arguments.first()?, context.pdfs().names.iter().map(String::as_str)))
    }),
    ("pdf_match_md5", |context, arguments| {
        plainly(context.pdfs().digests.contains(&arguments.first()?.to_ascii_uppercase()))
    }),
    ("pdf_match_fuzzy_md5", |context, arguments| {
        plainly(context.pdfs().fuzzy_digests.contains(&arguments.first()?.to_ascii_uppercase()))
    }),
    ("pdf_match_details", |context, arguments| {
        let (wanted, pattern) = (arguments.first()?, arguments.get(1)?);
        let properties = context.pdfs().properties.iter().filter(|(name, _)| name == wanted);
        plainly(argument_matches(pattern, properties.map(|(_, value)| value.as_str())))
    }),
    ("pdf_is_encrypted", |context, _| plainly(context.pdfs().is_encrypted)),
    ("pdf_is_empty_body", |context, arguments| {
        let most = number(arguments, 0).unwrap_or(0.0);
        let text = context.message.text.lines().filter(|line| !line.trim().is_empty());
        plainly(context.pdfs().count > 0 && text.map(str::len).sum::<usize>() as f64 <= most)
    }),
];

/// What the attached files say.
#[derive(Debug, Default)]
pub(super) struct Pdfs {
    count: usize,
    names: Vec<String>,
    /// Height and width of each picture.
    sizes: Vec<(f64, f64)>,
    /// The sums of heights and widths, a file each.
    sums: Vec<(f64, f64)>,
    area: f64,
    /// `author`, `creator`, `created`, `modified`, `producer`, `title`, with their values.
    properties: Vec<(String, String)>,
    digests: Vec<String>,
    fuzzy_digests: Vec<String>,
    is_encrypted: bool,
}

impl Pdfs {
    /// Reads the attached files of a message.
    pub(super) fn read(context: &Context<'_>) -> Self {
        let mut pdfs = Pdfs::default();
        for part in &context.message.parts {
            let name = part.name.as_deref().unwrap_or_default();
            let ending = name.len().checked_sub(4).and_then(|at| name.get(at..)).unwrap_or_default();
            let is_named = [".pdf", ".fdf"].iter().any(|known| ending.eq_ignore_ascii_case(known));
            let is_pdf = match part.media_type.as_str() {
                "application/pdf" | "image/pdf" => true,
                "application/octet-stream" | "image/octet-stream" => is_named,
                _ => false,
            };
            if !is_pdf {
                continue;
            }
            pdfs.count += 1;
            let bytes = part.body(context.subject.raw, FILE_BYTES);
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
            let head = bytes.get(..bytes.len().min(HEAD_BYTES)).unwrap_or_default();
            if memmem::find(head, b"%PDF-").is_some() {
                if !name.is_empty() {
                    pdfs.names.push(name.to_owned());
                }
                pdfs.file(bytes);
            }
        }
        pdfs
    }

    /// The sizes of the pictures, and what SpamAssassin keeps among them: the sums of a file.
    fn all_sizes(&self) -> impl Iterator<Item = (f64, f64)> {
        self.sizes.iter().chain(&self.sums).copied()
    }

    fn file(&mut self, bytes: &[u8]) {
        let (mut fuzzy, mut tags) = (Md5::new(), Md5::new());
        let (mut has_fuzzy, mut has_tags, mut is_fuzzy_done, mut lines) = (false, false, false, 0_usize);
        let (mut has_picture, mut sum) = (false, (0.0, 0.0));
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if !is_fuzzy_done {
                lines += 1;
                if lines < FUZZY_LINES && counts(line) {
                    fuzzy.update(line.trim_ascii_end());
                    has_fuzzy = true;
                }
                is_fuzzy_done = lines >= FUZZY_LINES || has(line, b"stream");
            }
            let has_name = memchr::memchr(b'/', line).is_some();
            has_picture |= has_name && has(line, b"/Image");
            if let Some((width, height)) = measures(line).filter(|_| has_picture) {
                (has_picture, is_fuzzy_done) = (false, true);
                sum = (sum.0 + height, sum.1 + width);
                self.area += width * height;
                if self.sizes.len() < PROPERTIES {
                    self.sizes.push((height, width));
                }
            }
            if !has_name {
                continue;
            }
            self.is_encrypted |= line.starts_with(b"/Encrypt");
            if let Some(name) = line.strip_prefix(b"/") {
                let end = name.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(name.len());
                tags.update(name.get(..end).unwrap_or_default());
                has_tags |= end > 0;
            }
            self.properties(line);
        }
        if sum.0 > 0.0 {
            self.sums.push(sum);
        }
        self.digests.push(hex(&Md5::digest(bytes)));
        self.fuzzy_digests.extend(has_fuzzy.then(|| hex(&fuzzy.finalize())));
        self.fuzzy_digests.extend(has_tags.then(|| hex(&tags.finalize())));
    }

    fn properties(&mut self, line: &[u8]) {
        for (name, key) in [
            ("author", &b"/Author"[..]),
            ("creator", b"/Creator"),
            ("created", b"/CreationDate"),
            ("modified", b"/ModDate"),
            ("producer", b"/Producer"),
            ("title", b"/Title"),
        ] {
            let Some(at) = memmem::find(line, key) else { continue };
            let rest = line.get(at + key.len()..).unwrap_or_default().trim_ascii_start();
            let Some(value) = crate::message::pdf_string(rest) else { continue };
            let value = match name {
                "created" | "modified" => value
                    .strip_prefix("D:")
                    .map(|date| date.chars().take_while(char::is_ascii_digit).collect::<String>()),
                _ => Some(value),
            };
            if let Some(value) = value.filter(|_| self.properties.len() < PROPERTIES) {
                self.properties.push((name.to_owned(), value.chars().take(PROPERTY_BYTES).collect()));
            }
        }
    }
}

fn has(line: &[u8], word: &[u8]) -> bool {
    memmem::find(line, word).is_some()
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Whether a line is not a comment, nor one of those that differ from copy to copy.
fn counts(line: &[u8]) -> bool {
    let differs = [&b"%"[..], b"/Height", b"/Width", b"/MediaBox", b"/CropBox"];
    !differs.iter().any(|start| line.starts_with(start)) && matrix(line).is_none()
}

/// The numbers of a line that scales a picture: `630 0 0 149 0 0 cm`.
fn matrix(line: &[u8]) -> Option<(f64, f64)> {
    let text = std::str::from_utf8(line.strip_suffix(b" cm")?).ok()?;
    let numbers = text.split(' ').map(str::parse::<u32>).collect::<Result<Vec<u32>, _>>().ok()?;
    match numbers.as_slice() {
        [width, _, _, height, _, _] => Some((f64::from(*width), f64::from(*height))),
        _ => None,
    }
}

/// Width and height of a picture, where a line says both.
fn measures(line: &[u8]) -> Option<(f64, f64)> {
    let both = || {
        let text = std::str::from_utf8(line.get(memmem::find(line, b"/Width ")? + 7..)?).ok()?;
        let (width, rest) = text.split_once("/Height ")?;
        let height = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((width.parse::<u32>().ok()?, height.parse::<u32>().ok()?))
    };
    let found = matrix(line).or_else(|| both().map(|(width, height)| (f64::from(width), f64::from(height))));
    found.filter(|(width, height)| *width > 0.0 && *height > 0.0)
}
