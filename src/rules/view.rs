//! What patterns look at: the texts of a message, each prepared once, when a rule first asks for it.
//!
//! A text comes in pieces, as SpamAssassin has it, and a pattern matches within one piece: paragraphs of the
//! visible text, stretches of the raw text, single links, header fields.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

use memchr::{memchr, memchr_iter};

use crate::message::{Header, Message};

use super::Subject;
use super::bare_link::bare_links;
use super::definition::{Choice, Form, Piece, Target};
use super::eval::{Context, computed_field};

/// Longest paragraph before it is cut at a blank, and shortest stretch of raw text.
const PIECE_BYTES: usize = 2_048;

/// A text in pieces.
#[derive(Debug, Default)]
pub(super) struct View<'a> {
    runs: Vec<Run<'a>>,
    /// Whether the first piece is the subject.
    pub(super) has_subject: bool,
}

/// A stretch of text that is looked over at once.
#[derive(Debug)]
pub(super) struct Run<'a> {
    text: Cow<'a, [u8]>,
    pieces: Vec<Range<usize>>,
}

impl<'a> Run<'a> {
    fn whole(text: impl Into<Cow<'a, [u8]>>) -> Self {
        let text = text.into();
        let pieces = std::iter::once(0..text.len()).collect();
        Run { pieces, text }
    }

    /// Returns the text.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns how many pieces there are.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Returns a piece.
    pub(super) fn piece(&self, index: usize) -> &[u8] {
        self.pieces.get(index).and_then(|range| self.text.get(range.clone())).unwrap_or_default()
    }

    /// Returns where a piece begins.
    pub(super) fn start(&self, index: usize) -> usize {
        self.pieces.get(index).map_or(self.text.len(), |range| range.start)
    }

    /// Returns the index of the piece that a place is in.
    pub(super) fn piece_at(&self, at: usize) -> usize {
        self.pieces.partition_point(|piece| piece.end <= at)
    }
}

impl<'a> View<'a> {
    fn of(run: Run<'a>) -> Self {
        View { runs: vec![run], has_subject: false }
    }

    /// Returns the stretches of text.
    pub(super) fn runs(&self) -> &[Run<'a>] {
        &self.runs
    }
}

/// The texts that many rules look at.
#[derive(Default)]
pub(super) struct Views<'a> {
    raw_body: OnceCell<View<'a>>,
    full: OnceCell<View<'a>>,
    uri: OnceCell<View<'a>>,
}

impl<'a> Views<'a> {
    /// Returns the visible text: the subject first, then each paragraph, white space collapsed, each with a
    /// line break at its end.
    fn raw_body(&self, subject: &Subject<'a>) -> &View<'a> {
        self.raw_body.get_or_init(|| View {
            runs: subject
                .message
                .parts
                .iter()
                .filter_map(|part| Some(part.content.as_ref()?.bytes(subject.raw)))
                .map(stretches)
                .collect(),
            has_subject: false,
        })
    }

    fn uri(&self, message: &Message) -> &View<'a> {
        self.uri.get_or_init(|| {
            let mut run = Run { text: Cow::Owned(Vec::new()), pieces: Vec::new() };
            // What a reader can click on has a scheme; the text around may name more.
            let bare = bare_links(&message.subject).chain(bare_links(&message.text));
            let links = message.links.iter().map(|link| Cow::Borrowed(link.target.as_str()));
            for link in links.chain(bare.map(Cow::Owned)) {
                let text = run.text.to_mut();
                let start = text.len();
                text.extend_from_slice(link.as_bytes());
                run.pieces.push(start..text.len());
                text.push(b'\n');
            }
            View::of(run)
        })
    }

    /// Calls `look` with the text that a target selects, or with `None` where there is none.
    pub(super) fn with<T>(
        &self,
        target: &Target,
        context: &Context<'a>,
        look: impl FnOnce(Option<&View<'a>>) -> T,
    ) -> T {
        let subject = context.subject();
        match target {
            Target::Body => look(Some(context.body())),
            Target::RawBody => look(Some(self.raw_body(subject))),
            Target::Full => {
                look(Some(self.full.get_or_init(|| View::of(Run::whole(with_bare_line_feeds(subject.raw))))))
            }
            Target::Uri => look(Some(self.uri(subject.message))),
            Target::Header { name, form } => match header(name, *form, context) {
                Some(text) => look(Some(&View::of(Run::whole(text)))),
                None => look(None),
            },
            Target::MimeHeader { name, is_raw } => {
                let runs = part_fields(subject.message, name, *is_raw).map(Run::whole).collect();
                look(Some(&View { runs, has_subject: false }))
            }
        }
    }
}

impl View<'_> {
    /// Returns the pieces.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.runs.iter().flat_map(|run| (0..run.len()).map(|index| run.piece(index)))
    }
}

/// Writes the subject and every paragraph on a line of its own.
pub(super) fn body<'a>(message: &Message) -> View<'a> {
    let mut text =
        Vec::with_capacity(message.subject.len() + message.text.len() + message.hidden_text.len() + 8);
    let mut pieces = Vec::new();
    paragraph(&message.subject, &mut text, &mut pieces);
    let has_subject = !pieces.is_empty();
    for source in [&message.text, &message.hidden_text] {
        for block in source.split("\n\n") {
            paragraph(block, &mut text, &mut pieces);
        }
    }
    View { runs: vec![Run { text: Cow::Owned(text), pieces }], has_subject }
}

/// Appends a paragraph with its white space collapsed, cut at blanks where it is long.
fn paragraph(source: &str, text: &mut Vec<u8>, pieces: &mut Vec<Range<usize>>) {
    let mut start = text.len();
    for word in source.split_whitespace() {
        if text.len() > start {
            if text.len() - start + word.len() > PIECE_BYTES {
                text.push(b'\n');
                pieces.push(start..text.len());
                start = text.len();
            } else {
                text.push(b' ');
            }
        }
        text.extend_from_slice(word.as_bytes());
    }
    if text.len() > start {
        text.push(b'\n');
        pieces.push(start..text.len());
    }
}

/// Cuts raw text into stretches of one to two times [`PIECE_BYTES`], at a line break, `>` or a blank where
/// there is one.
fn stretches(text: &[u8]) -> Run<'_> {
    let text = with_bare_line_feeds(text);
    let mut pieces = Vec::new();
    let mut start = 0;
    while text.len() - start > 2 * PIECE_BYTES {
        let from = start + PIECE_BYTES;
        let window = text.get(from..start + 2 * PIECE_BYTES).unwrap_or_default();
        let cut = [b'\n', b'>', b' '].into_iter().find_map(|sign| memchr(sign, window)).unwrap_or(0);
        pieces.push(start..from + cut + 1);
        start = from + cut + 1;
    }
    if start < text.len() {
        pieces.push(start..text.len());
    }
    Run { text, pieces }
}

/// Returns a text with lines that end in LF alone, as rules are written for.
fn with_bare_line_feeds(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\r', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut copied = 0;
    for at in memchr_iter(b'\r', text) {
        if text.get(at + 1) == Some(&b'\n') {
            out.extend_from_slice(text.get(copied..at).unwrap_or_default());
            copied = at + 1;
        }
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

fn part_fields<'m>(message: &'m Message, name: &'m str, is_raw: bool) -> impl Iterator<Item = Vec<u8>> + 'm {
    let fields = message.parts.iter().flat_map(|part| &part.headers);
    fields.filter(move |field| field.name.eq_ignore_ascii_case(name)).map(move |field| line(field, is_raw))
}

fn line(field: &Header, is_raw: bool) -> Vec<u8> {
    let value = if is_raw { &field.raw } else { &field.value };
    let value = value.strip_prefix(' ').unwrap_or(value);
    [&with_bare_line_feeds(value.as_bytes()), &b"\n"[..]].concat()
}

/// Returns what a header rule looks at; `None` when there is no such field.
pub(super) fn header(name: &str, form: Form, context: &Context<'_>) -> Option<Vec<u8>> {
    let message = context.subject().message;
    let mut lines: Vec<Vec<u8>> = match name {
        "ALL" => message.headers.iter().map(|header| named_line(header, form.is_raw)).collect(),
        "all-trusted" | "all-untrusted" | "all-internal" | "all-external" => {
            let fields = context.fields_of_hops(name.strip_prefix("all-").unwrap_or_default());
            fields.map(|header| named_line(header, form.is_raw)).collect()
        }
        "envelopefrom" => vec![context.reverse_path()?.into_bytes()],
        "tocc" => fields(message, &["To", "Cc"], form),
        "MESSAGEID" => fields(
            message,
            &["X-Message-ID", "Resent-Message-ID", "X-Original-Message-ID", "Message-ID"],
            form,
        ),
        _ => match computed_field(name, context) {
            Some(text) => vec![text.into_bytes()],
            None => fields(message, &[name], form),
        },
    };
    match form.choice {
        Choice::All => {}
        Choice::First => lines.truncate(1),
        Choice::Last => lines = lines.pop().into_iter().collect(),
    }
    if form.piece != Piece::Whole {
        lines = lines.iter().flat_map(|line| pieces_of(&String::from_utf8_lossy(line), form)).collect();
    }
    if lines.is_empty() {
        return None;
    }
    let separator: &[u8] = if lines.first().is_some_and(|line| line.ends_with(b"\n")) { b"" } else { b"\n" };
    Some(lines.join(separator))
}

fn named_line(header: &Header, is_raw: bool) -> Vec<u8> {
    let value = if is_raw { header.raw.as_str() } else { header.value.trim_start() };
    let blank: &str = if is_raw { "" } else { " " };
    [header.name.as_bytes(), b":", blank.as_bytes(), value.as_bytes(), b"\n"].concat()
}

/// Returns the values of fields, each as a line. Addresses and names are read from the raw value.
fn fields(message: &Message, names: &[&str], form: Form) -> Vec<Vec<u8>> {
    let is_raw = form.is_raw || matches!(form.piece, Piece::Address | Piece::Name);
    names.iter().flat_map(|name| message.headers_named(name)).map(|field| line(field, is_raw)).collect()
}

/// Returns the pieces of a value that a form asks for.
fn pieces_of(value: &str, form: Form) -> Vec<Vec<u8>> {
    let mailboxes = || crate::message::mailboxes(value).into_iter();
    match form.piece {
        Piece::Whole => vec![value.as_bytes().to_vec()],
        Piece::Address => {
            mailboxes().map(|mailbox| mailbox.address.into_bytes()).filter(|text| !text.is_empty()).collect()
        }
        Piece::Name if form.is_raw => {
            // As it is written: what stands before the address, or behind it in parentheses.
            let before = value.rsplit_once('<').map(|(before, _)| before);
            let comment = || {
                value.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map(|(comment, _)| comment)
            };
            let name = before.or_else(comment).unwrap_or_default().trim().trim_matches('"');
            if name.is_empty() { Vec::new() } else { vec![name.as_bytes().to_vec()] }
        }
        Piece::Name => {
            mailboxes().map(|mailbox| mailbox.name.into_bytes()).filter(|text| !text.is_empty()).collect()
        }
        Piece::Host => hosts(value).map(|host| host.as_bytes().to_vec()).collect(),
        Piece::Domain => {
            hosts(value).map(|host| psl::domain_str(host).unwrap_or(host).as_bytes().to_vec()).collect()
        }
        Piece::Ip | Piece::ReverseIp => {
            let is_ip = |word: &&str| word.parse::<std::net::Ipv4Addr>().is_ok();
            let words = value.split(|c: char| !c.is_ascii_digit() && c != '.').filter(is_ip);
            let reversed = |word: &str| word.rsplit('.').collect::<Vec<_>>().join(".");
            words
                .map(|word| if form.piece == Piece::Ip { word.to_owned() } else { reversed(word) })
                .map(String::into_bytes)
                .collect()
        }
    }
}

/// Returns the host names under a real top-level domain in a text.
fn hosts(value: &str) -> impl Iterator<Item = &str> {
    let is_host_sign = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    value
        .split(move |c: char| !is_host_sign(c))
        .map(|word| word.trim_matches(['.', '-', '_']))
        .filter(|word| {
            word.contains('.') && psl::suffix(word.as_bytes()).is_some_and(|suffix| suffix.is_known())
        })
        .filter(|word| psl::domain_str(word).is_some())
}

/// Returns the address in Return-Path, which tells the reverse-path of a message that has been delivered.
pub(super) fn return_path(message: &Message) -> Option<String> {
    let value = message.header("Return-Path")?.value.trim();
    let address = value.trim_start_matches('<').trim_end_matches('>').trim();
    (!address.is_empty()).then(|| address.to_owned())
}
