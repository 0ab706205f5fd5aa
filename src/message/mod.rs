//! A message as a reader sees it: header fields, visible text, links, attachments.
//!
//! [`parse`] never fails: what it cannot read becomes a [`Problem`], and the raw bytes are always there.
//! It is pure and bounded (see [`Limits`]); the one place that decodes and inflates.

mod archive;
mod attachment;
mod calendar;
mod colors;
mod decode;
mod edits;
mod field;
mod html;
mod link;
mod markup;
mod mime;
mod office;
mod pdf;
mod picture;
mod problem;
mod received;
mod style;

use std::borrow::Cow;
use std::ops::Range;

use decode::Encoding;

pub use edits::{HeaderEdits, InvalidField};
pub use link::host;
pub use markup::{Markup, markup};
pub use problem::Problem;
pub use received::{Relay, is_fetched, relay};

/// How much of a message is looked at. What is beyond is noted as a [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Header fields of the message, and of each part.
    pub header_fields: usize,
    /// Bytes of the header of the message.
    pub header_bytes: usize,
    /// Bytes of one header field.
    pub field_bytes: usize,
    /// Mailboxes in one address field.
    pub mailboxes: usize,
    /// Leaves of the MIME tree.
    pub parts: usize,
    /// Levels of multiparts and of messages in messages.
    pub depth: usize,
    /// Bytes of an encoded message inside the message, after decoding.
    pub message_bytes: usize,
    /// Bytes of text, all parts together.
    pub text_bytes: usize,
    /// Bytes of decoded text parts that are kept beside the text that they show.
    pub content_bytes: usize,
    /// Bytes of one text part, before HTML becomes text.
    pub html_bytes: usize,
    /// Tokens of one HTML part.
    pub html_tokens: usize,
    /// Links, all parts together.
    pub links: usize,
    /// Bytes of one link.
    pub link_bytes: usize,
    /// Decoded bytes of attachments that are looked into, all together.
    pub attachment_bytes: usize,
    /// Pixels of the pictures in which QR codes are looked for, all together.
    pub picture_pixels: usize,
}

impl Limits {
    /// The limits of [`parse`].
    pub const DEFAULT: Limits = Limits {
        header_fields: 2_000,
        header_bytes: 1 << 20,
        field_bytes: 16 << 10,
        mailboxes: 1_000,
        parts: 500,
        depth: 16,
        message_bytes: 32 << 20,
        text_bytes: 1 << 20,
        content_bytes: 4 << 20,
        html_bytes: 1 << 20,
        html_tokens: 200_000,
        links: 2_000,
        link_bytes: 4_096,
        attachment_bytes: 8 << 20,
        picture_pixels: 4 << 20,
    };
}

/// One header field of the top level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name as spelled.
    pub name: String,
    /// The value as it stands on the wire, without the final line break, folds kept; bytes that are not
    /// UTF-8 replaced.
    pub raw: String,
    /// The value unfolded and with encoded words decoded (RFC 2047).
    pub value: String,
}

/// An address in a header field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mailbox {
    /// The display name, decoded; empty where there is none.
    pub name: String,
    /// The address as written; empty where there is none.
    pub address: String,
}

/// Where a link was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSource {
    /// Written out in a text.
    Text,
    /// `<a href>` or `<area href>`.
    Anchor,
    /// An image or background.
    Image,
    /// The target of a form.
    Form,
    /// A PDF or an HTML page that is attached.
    Attachment,
    /// Within another link, which leads on to it.
    Redirected,
    /// A QR code in a picture.
    Code,
}

/// A link: what the reader sees and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The visible text, white space collapsed; empty for an image.
    pub text: String,
    /// The target as written, character references decoded.
    pub target: String,
    /// Where it was found.
    pub source: LinkSource,
}

/// A part that is not shown as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The file name, decoded.
    pub name: Option<String>,
    /// The declared media type, lower case, `type/subtype`.
    pub declared_type: String,
    /// The media type that the first bytes show, where they show one.
    pub detected_type: Option<&'static str>,
    /// Size after decoding.
    pub size_bytes: usize,
    /// Names of the files in an archive, as far as they are readable: at most 100.
    pub entries: Vec<String>,
    /// Whether an archive or a document needs a password.
    pub is_encrypted: bool,
    /// Whether an archive is larger, deeper or fuller than is read.
    pub is_over_limit: bool,
    /// Whether an Office document fetches a template or an object from elsewhere.
    pub fetches: bool,
    /// Whether an Office document holds macros.
    pub has_macros: bool,
    /// Whether one of its macros runs by itself.
    pub starts_macros: bool,
    /// Whether files or objects are embedded in an Office document that run when they are clicked.
    pub has_objects: bool,
    /// Whether a PDF or an HTML page runs a script or starts a program.
    pub has_script: bool,
    /// Whether an HTML page has a form.
    pub has_form: bool,
}

/// What a calendar object asks for (RFC 5546).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invitation {
    /// The method in capitals, such as `REQUEST`; empty where there is none.
    pub method: String,
    /// The address of the organizer; empty where there is none.
    pub organizer: String,
}

/// A leaf of the MIME tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The header fields of the part; for a message without parts, those of the message that speak of its
    /// content.
    pub headers: Vec<Header>,
    /// The declared media type, lower case, `type/subtype`.
    pub media_type: String,
    /// The declared charset, lower case.
    pub charset: Option<String>,
    /// The file name, decoded.
    pub name: Option<String>,
    /// Size after decoding.
    pub size_bytes: usize,
    /// What is shown as text, with its transfer encoding undone; `None` for other parts.
    pub content: Option<Content>,
    /// Where its body stands in the message, encoded as it is; `None` within a message that is encoded itself.
    pub place: Option<Range<usize>>,
    encoding: Encoding,
}

impl Part {
    /// Returns the body as it stands in the message; `raw` is the message that was parsed.
    pub fn source<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        self.place.clone().and_then(|place| raw.get(place)).unwrap_or_default()
    }

    /// Returns the body with its transfer encoding undone, the first of it where it is longer than a limit.
    pub fn body<'a>(&self, raw: &'a [u8], limit: usize) -> Cow<'a, [u8]> {
        let source = self.source(raw);
        match self.encoding {
            Encoding::Base64 => decode::base64(source, limit).0.into(),
            Encoding::QuotedPrintable => decode::quoted_printable(source, limit).into(),
            Encoding::Identity | Encoding::Unknown => {
                source.get(..source.len().min(limit)).unwrap_or_default().into()
            }
        }
    }
}

/// Where the bytes of a text part are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In the raw message, at these offsets.
    Raw(Range<usize>),
    /// Decoded.
    Decoded(Vec<u8>),
}

impl Content {
    /// Returns the bytes; `raw` is the message that was parsed.
    pub fn bytes<'a>(&'a self, raw: &'a [u8]) -> &'a [u8] {
        match self {
            Content::Raw(range) => raw.get(range.clone()).unwrap_or_default(),
            Content::Decoded(bytes) => bytes,
        }
    }
}

/// What the HTML parts hold besides text and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HtmlFacts {
    /// HTML parts.
    pub pages: usize,
    /// Forms.
    pub forms: usize,
    /// Visible input fields.
    pub inputs: usize,
    /// Input fields for a password.
    pub password_inputs: usize,
    /// Script elements.
    pub scripts: usize,
    /// Frames and embedded objects.
    pub frames: usize,
    /// Automatic redirections.
    pub refreshes: usize,
    /// Pictures.
    pub images: usize,
    /// Bytes of text that is styled out of sight.
    pub hidden_bytes: usize,
}

impl HtmlFacts {
    fn add(&mut self, page: &HtmlFacts) {
        self.pages += 1;
        self.forms += page.forms;
        self.inputs += page.inputs;
        self.password_inputs += page.password_inputs;
        self.scripts += page.scripts;
        self.frames += page.frames;
        self.refreshes += page.refreshes;
        self.images += page.images;
        self.hidden_bytes += page.hidden_bytes;
    }
}

/// A message, parsed once and shared by all analysers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Every header field of the top level, in order.
    pub headers: Vec<Header>,
    /// The decoded subject; empty where there is none.
    pub subject: String,
    /// The mailboxes of From.
    pub from: Vec<Mailbox>,
    /// The mailboxes of Reply-To.
    pub reply_to: Vec<Mailbox>,
    /// The mailboxes of To, then of Cc.
    pub to: Vec<Mailbox>,
    /// The visible text of all text parts, HTML rendered to text, paragraphs separated by blank lines.
    pub text: String,
    /// The text of HTML elements that are styled out of sight: preview lines, and what is to deceive filters.
    /// Mail programs disagree about some of it, so that rules read it too.
    pub hidden_text: String,
    /// All links, in order of appearance.
    pub links: Vec<Link>,
    /// The leaves of the MIME tree.
    pub parts: Vec<Part>,
    /// What is not shown as text.
    pub attachments: Vec<Attachment>,
    /// The calendar objects.
    pub invitations: Vec<Invitation>,
    /// What the HTML parts hold.
    pub html: HtmlFacts,
    /// Where the body begins in the raw bytes.
    pub body_offset: usize,
    /// Size of the raw bytes.
    pub size_bytes: usize,
    /// What is wrong with it, each problem once.
    pub problems: Vec<Problem>,
}

impl Message {
    /// Returns the header fields of a name, in order; the case of ASCII letters does not matter.
    pub fn headers_named(&self, name: &str) -> impl Iterator<Item = &Header> {
        self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name))
    }

    /// Returns the first header field of a name.
    pub fn header(&self, name: &str) -> Option<&Header> {
        self.headers_named(name).next()
    }
}

/// Fields that may occur once (RFC 5322, section 3.6; RFC 2045).
const SINGLE_FIELDS: [&str; 13] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
];

/// Returns the longest beginning of a text that has at most `limit` bytes.
pub fn text_prefix(text: &str, limit: usize) -> &str {
    decode::prefix(text, limit)
}

/// Returns the text of a page of HTML, what is styled out of sight at its end.
pub fn html_text(source: &str) -> String {
    let page = html::read(source, &Limits::DEFAULT);
    format!("{}\n{}", page.text, page.hidden_text)
}

/// Undoes zlib (RFC 1950), for clients that compress; `None` for what is malformed or longer than the limit.
pub fn inflate_zlib(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    decode::inflate_zlib(bytes, limit)
}

/// Returns width and height of a picture (PNG, JPEG, GIF, WebP) in pixels, as its file says.
pub fn picture_size(bytes: &[u8]) -> Option<(u32, u32)> {
    picture::size(bytes)
}

/// Reads a text string at the beginning of some bytes of a PDF file (ISO 32000-1, section 7.9.2.2).
pub fn pdf_string(bytes: &[u8]) -> Option<String> {
    pdf::text_string(bytes)
}

/// Reads the mailboxes of an address field by its raw value, within the usual limits.
pub fn mailboxes(raw_value: &str) -> Vec<Mailbox> {
    field::mailboxes(raw_value, Limits::DEFAULT.mailboxes)
}

/// Parses a message. Never fails and never panics.
pub fn parse(raw: &[u8]) -> Message {
    parse_within(raw, &Limits::DEFAULT)
}

/// Parses a message within other limits than the usual ones.
pub fn parse_within(raw: &[u8], limits: &Limits) -> Message {
    let mut walk = mime::Walk::new(raw, limits);
    walk.top();
    for problem in line_problems(raw) {
        walk.note(problem);
    }
    let message = &mut walk.message;
    message.size_bytes = raw.len();
    let mailboxes = |message: &Message, name: &str| -> Vec<Mailbox> {
        let fields = message.headers_named(name).take(limits.header_fields.min(10));
        fields.flat_map(|header| field::mailboxes(&header.raw, limits.mailboxes)).collect()
    };
    message.subject = message.header("Subject").map(|header| header.value.clone()).unwrap_or_default();
    message.from = mailboxes(message, "From");
    message.reply_to = mailboxes(message, "Reply-To");
    message.to = mailboxes(message, "To");
    message.to.extend(mailboxes(message, "Cc"));
    for (name, problem) in [
        ("From", Problem::MissingFrom),
        ("Date", Problem::MissingDate),
        ("Message-ID", Problem::MissingMessageId),
    ] {
        if walk.message.header(name).is_none() {
            walk.note(problem);
        }
    }
    if SINGLE_FIELDS.iter().any(|name| walk.message.headers_named(name).nth(1).is_some()) {
        walk.note(Problem::DuplicateField);
    }
    for problem in author_problems(&walk.message) {
        walk.note(problem);
    }
    let message = &walk.message;
    let body = raw.get(message.body_offset..).unwrap_or_default();
    let shows_nothing = message.text.is_empty() && message.hidden_text.is_empty() && message.links.is_empty();
    if shows_nothing && message.attachments.is_empty() && !body.trim_ascii().is_empty()
        || message.headers.is_empty()
    {
        walk.note(Problem::Unreadable);
        let start = raw.get(..raw.len().min(limits.text_bytes)).unwrap_or_default();
        walk.message.text = String::from_utf8_lossy(start).replace(['\r', '\0'], "");
    }
    walk.message
}

/// Finds what mail programs disagree about, which show one author.
fn author_problems(message: &Message) -> Vec<Problem> {
    let mut fields = message.headers_named("From").take(10).map(|header| mailboxes(&header.raw));
    let first = fields.next().unwrap_or_default();
    let is_known = |other: &Mailbox| first.iter().any(|one| one.address.eq_ignore_ascii_case(&other.address));
    let conflict = fields.flatten().any(|other| !is_known(&other)).then_some(Problem::ConflictingAuthors);
    let several = first.iter().filter(|author| !author.address.is_empty()).nth(1);
    conflict.into_iter().chain(several.map(|_| Problem::SeveralAuthors)).collect()
}

/// Finds what is wrong with the lines, wherever they stand.
fn line_problems(raw: &[u8]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if memchr::memchr(0, raw).is_some() {
        problems.push(Problem::NulByte);
    }
    let ends_line = |at: usize| raw.get(at + 1) == Some(&b'\n');
    if memchr::memchr_iter(b'\r', raw).any(|at| !ends_line(at)) {
        problems.push(Problem::BareCarriageReturn);
    }
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', raw).chain([raw.len()]) {
        if end - start > 999 {
            problems.push(Problem::LongLine);
            break;
        }
        start = end + 1;
        if start > raw.len() {
            break;
        }
    }
    problems
}

#[cfg(test)]
mod tests;
