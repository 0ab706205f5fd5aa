//! A message as a reader sees it: header fields, visible text, links, attachments.
//!
//! [`parse`] never fails: what it cannot read becomes a [`Problem`], and the raw bytes are always there.
//! It is pure and bounded (see [`Limits`]); the one place that decodes and inflates.

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The file name, decoded.
    pub name: Option<String>,
    /// The declared media type, lower case, `type/subtype`.
    pub declared_type: String,
    /// The media type that the first bytes show, where they show one.
    pub detected_type: Option<&'static str>,
    /// Size after decoding.
    pub size_bytes: usize,
}

/// A leaf of the MIME tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The declared media type, lower case, `type/subtype`.
    pub media_type: String,
    /// The declared charset, lower case.
    pub charset: Option<String>,
    /// Size after decoding.
    pub size_bytes: usize,
}

/// Something malformed, ambiguous or over a limit. The name is the symbol suffix of the finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The parser could read nothing; only the raw bytes were looked at.
    Unreadable,
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
    /// All links, in order of appearance.
    pub links: Vec<Link>,
    /// The leaves of the MIME tree.
    pub parts: Vec<Part>,
    /// What is not shown as text.
    pub attachments: Vec<Attachment>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// Parses a message. Never fails and never panics.
pub fn parse(_raw: &[u8]) -> Message {
    unimplemented!()
}
