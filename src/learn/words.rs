//! What stands behind the slots of a message, in words that a person understands. It is never stored.

use super::features::View;

/// What a feature is. The numbers enter the hash: they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Text = 1,
    Hidden = 2,
    HeaderSubject = 3,
    HeaderFrom = 4,
    Field = 5,
    Shape = 6,
    Name = 7,
    Order = 8,
    WholeOrder = 9,
    MediaType = 10,
    Charset = 11,
    Attachment = 12,
    HeaderLink = 13,
    Size = 14,
    Relation = 15,
    Hop = 16,
    HeaderGram = 17,
    SubjectGram = 18,
    NameGram = 19,
    BodyGram = 20,
    Sender = 21,
}

impl Kind {
    /// The number that enters the hash.
    pub(super) fn place(self) -> u8 {
        self as u8
    }

    /// The view that it belongs to.
    pub(super) fn view(self) -> View {
        match self {
            Kind::Text | Kind::Hidden => View::Tokens,
            Kind::Relation | Kind::Hop | Kind::SubjectGram | Kind::NameGram => View::Relations,
            Kind::BodyGram => View::Grams,
            Kind::Sender => View::Sender,
            _ => View::Header,
        }
    }

    /// Whether the reader of the message sees it.
    pub(super) fn is_visible(self) -> bool {
        matches!(self, Kind::Text | Kind::HeaderSubject | Kind::HeaderFrom)
    }
}

/// A feature that can be named.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) slot: u32,
    pub(super) kind: Kind,
    start: u32,
    end: u32,
}

/// The readable side of a message's features.
#[derive(Clone, Default)]
pub(super) struct Words {
    pub(super) text: String,
    pub(super) origins: Vec<Origin>,
}

impl Words {
    pub(super) fn new() -> Self {
        Words { text: String::with_capacity(16_384), origins: Vec::with_capacity(1_024) }
    }

    /// Notes what stands behind a slot: the text from `start` on.
    pub(super) fn note(&mut self, slot: u32, kind: Kind, start: usize) {
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(self.text.len())) else { return };
        self.origins.push(Origin { slot, kind, start, end });
    }

    /// Returns what stands behind a slot, in words.
    pub(super) fn describe(&self, origin: &Origin) -> String {
        let text = self.text.get(origin.start as usize..origin.end as usize).unwrap_or_default();
        match origin.kind {
            Kind::Text => format!("\"{text}\""),
            Kind::Hidden => format!("hidden \"{text}\""),
            Kind::HeaderSubject => format!("\"{text}\" in the subject"),
            Kind::HeaderFrom => format!("\"{text}\" in the sender's name or address"),
            Kind::Field => format!("the header field {text}"),
            Kind::Shape => format!("the form of {text}"),
            Kind::Name => format!("a header field {text}"),
            Kind::Order => format!("the header fields {text} in this order"),
            Kind::WholeOrder => "the order of all header fields".to_owned(),
            Kind::MediaType => format!("parts of {text}"),
            Kind::Charset => format!("the character set {text}"),
            Kind::Attachment => format!("an attachment {text}"),
            Kind::HeaderLink => format!("links to {text}"),
            Kind::Size => format!("the size: {text}"),
            Kind::Sender => format!("mail of {text}"),
            Kind::Relation => format!("the relation {text}"),
            Kind::Hop => format!("the way: hop {text}"),
            Kind::HeaderGram | Kind::SubjectGram | Kind::NameGram | Kind::BodyGram => {
                format!("the bytes {text}")
            }
        }
    }
}
