//! How an HTML part is written: its tags, how they balance, what stands in titles, comments and links.
//!
//! What a reader sees is in `html`; this is for rules that ask about the markup itself, in the terms in which
//! SpamAssassin counts it. One pass over the tokens; nothing nests here, so nothing recurses.

use std::collections::HashMap;

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{StartTag, Token, Tokenizer};

use super::colors::{self, ColorStack};

/// Most tokens that are read.
const TOKENS: usize = 200_000;
/// Most texts of a kind that are kept, and bytes of each.
const TEXTS: usize = 200;
const TEXT_BYTES: usize = 4_096;
/// Most different tags.
const TAGS: usize = 500;

/// The markup of one part.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Markup {
    /// Bytes of the source.
    pub length: usize,
    /// For each tag how often it was opened more than closed, at least 0.
    pub open: HashMap<String, i64>,
    /// Tags, opening and closing ones.
    pub tags: usize,
    /// Those of them that HTML knows.
    pub elements: usize,
    /// Different tags.
    pub tags_seen: usize,
    /// Different tags that HTML knows.
    pub elements_seen: usize,
    /// Closing tags of what was not open.
    pub closed_extra: usize,
    /// Tags in the middle of a word.
    pub obfuscation: usize,
    /// Square pixels of the images that say their size.
    pub image_area: u64,
    /// The largest font size, from 1 to 7; 3 is usual.
    pub max_size: u32,
    /// Bytes of text that are no blanks.
    pub non_space: usize,
    /// Titles.
    pub titles: Vec<String>,
    /// Comments, `<!` and `>` included.
    pub comments: Vec<String>,
    /// The text of links; `<img>` stands for an image.
    pub anchors: Vec<String>,
    /// The targets of forms.
    pub form_actions: Vec<String>,
    /// The character sets that the page itself declares.
    pub charsets: Vec<String>,
    /// The sources of frames.
    pub frame_sources: Vec<String>,
    /// Whether an object is embedded.
    pub has_embeds: bool,
    /// Whether text is hardly to be told from its background.
    pub has_low_contrast: bool,
    /// Whether a font is named as no font is.
    pub has_bad_face: bool,
    /// Whether a font has a colour that is none.
    pub has_invalid_color: bool,
}

/// The elements of HTML 4 and XHTML 1, sorted.
const ELEMENTS: [&str; 94] = [
    "a",
    "abbr",
    "acronym",
    "address",
    "applet",
    "area",
    "b",
    "base",
    "basefont",
    "bdo",
    "big",
    "blockquote",
    "body",
    "br",
    "button",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "dfn",
    "dir",
    "div",
    "dl",
    "dt",
    "em",
    "fieldset",
    "font",
    "form",
    "frame",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "hr",
    "html",
    "i",
    "iframe",
    "img",
    "input",
    "ins",
    "isindex",
    "kbd",
    "label",
    "legend",
    "li",
    "link",
    "map",
    "menu",
    "meta",
    "nobr",
    "noframes",
    "noscript",
    "object",
    "ol",
    "optgroup",
    "option",
    "p",
    "param",
    "pre",
    "q",
    "s",
    "samp",
    "script",
    "select",
    "small",
    "span",
    "strike",
    "strong",
    "style",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "textarea",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "x-sigsep",
    "x-tab",
];

/// Reads the markup of a part.
pub fn markup(source: &[u8]) -> Markup {
    let text = String::from_utf8_lossy(source);
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let mut reader = Reader {
        markup: Markup { length: source.len(), max_size: 3, ..Markup::default() },
        ..Reader::default()
    };
    for token in Tokenizer::new_with_emitter(text.as_ref(), emitter).flatten().take(TOKENS) {
        match token {
            Token::StartTag(tag) => reader.start(&tag),
            Token::EndTag(tag) => reader.end(&String::from_utf8_lossy(&tag.name)),
            Token::String(text) => reader.text(&String::from_utf8_lossy(&text.value)),
            Token::Comment(comment) => {
                let comment = format!("<!--{}-->", String::from_utf8_lossy(&comment.value));
                keep(&mut reader.markup.comments, comment);
            }
            Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    reader.markup
}

fn keep(texts: &mut Vec<String>, text: String) {
    if texts.len() < TEXTS {
        texts.push(super::text_prefix(&text, TEXT_BYTES).to_owned());
    }
}

fn append(texts: &mut [String], text: &str) {
    if let Some(last) = texts.last_mut()
        && last.len() < TEXT_BYTES
    {
        last.push_str(super::text_prefix(text, TEXT_BYTES));
    }
}

#[derive(Default)]
struct Reader {
    markup: Markup,
    colors: ColorStack,
    /// Whether the text before the last tag ended within a word.
    ended_in_word: bool,
}

impl Reader {
    fn end(&mut self, tag: &str) {
        self.count(tag, -1);
        self.colors.end(tag);
    }

    fn is_in(&self, tag: &str) -> bool {
        self.markup.open.get(tag).is_some_and(|open| *open > 0)
    }

    fn count(&mut self, tag: &str, change: i64) {
        let is_element = ELEMENTS.binary_search(&tag).is_ok();
        let markup = &mut self.markup;
        markup.tags += 1;
        markup.elements += usize::from(is_element);
        if !markup.open.contains_key(tag) {
            if markup.open.len() >= TAGS {
                return;
            }
            markup.tags_seen += 1;
            markup.elements_seen += usize::from(is_element);
        }
        let open = markup.open.entry(tag.to_owned()).or_default();
        *open += change;
        if *open < 0 {
            *open = 0;
            markup.closed_extra += 1;
        }
        if matches!(
            tag,
            "br" | "div" | "li" | "th" | "td" | "dt" | "dd" | "p" | "hr" | "blockquote" | "pre" | "title"
        ) || tag.starts_with('h')
        {
            self.ended_in_word = false;
        }
    }

    fn start(&mut self, tag: &StartTag<()>) {
        let name = String::from_utf8_lossy(&tag.name).into_owned();
        let attribute = |key: &str| {
            tag.attributes.get(key.as_bytes()).map(|value| String::from_utf8_lossy(&value.value).into_owned())
        };
        self.count(&name, 1);
        self.colors.start(&name, attribute);
        if name == "font"
            && let Some(face) = attribute("face")
        {
            self.markup.has_bad_face |= !colors::is_face(&face);
        }
        match name.as_str() {
            "a" => keep(&mut self.markup.anchors, String::new()),
            "title" => keep(&mut self.markup.titles, String::new()),
            "img" => {
                if self.is_in("a") {
                    append(&mut self.markup.anchors, "<img>\n");
                }
                if let (Some(width), Some(height)) = (attribute("width"), attribute("height")) {
                    let area = pixels(&width, 8).saturating_mul(pixels(&height, 6));
                    self.markup.image_area = self.markup.image_area.saturating_add(area);
                }
            }
            "form" => keep(&mut self.markup.form_actions, attribute("action").unwrap_or_default()),
            "meta" => {
                let content = attribute("content").unwrap_or_default();
                let declared = content.split_once("charset=").map(|(_, charset)| charset.to_owned());
                if let Some(charset) = attribute("charset").or(declared) {
                    keep(&mut self.markup.charsets, charset);
                }
            }
            "iframe" | "frame" => keep(&mut self.markup.frame_sources, attribute("src").unwrap_or_default()),
            "embed" | "object" => self.markup.has_embeds = true,
            "font" | "basefont" => {
                if let Some(size) = attribute("size") {
                    self.markup.max_size = self.markup.max_size.max(font_size(&size));
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if self.is_in("script") || self.is_in("style") {
            return;
        }
        if self.is_in("a") {
            append(&mut self.markup.anchors, text);
        }
        if self.is_in("title") {
            append(&mut self.markup.titles, text);
        }
        if !text.trim().is_empty() {
            self.markup.has_low_contrast |= self.colors.are_close();
            self.markup.has_invalid_color |= self.colors.are_invalid();
        }
        let is_word = |c: char| !c.is_whitespace() && !c.is_ascii_punctuation();
        if self.ended_in_word && text.chars().next().is_some_and(is_word) {
            self.markup.obfuscation += 1;
        }
        self.ended_in_word = text.chars().next_back().is_some_and(is_word);
        self.markup.non_space += text.bytes().filter(|byte| !byte.is_ascii_whitespace()).count();
    }
}

/// Reads a length in pixels, or in hundredths of a screen; what is no number is guessed.
fn pixels(text: &str, for_percent: u64) -> u64 {
    let number = |text: &str| text.parse::<u64>().ok().map(|number| number.min(100_000));
    let length = match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent * for_percent),
        None => number(text),
    };
    length.filter(|length| *length > 0).unwrap_or(200)
}

/// Reads a font size: absolute, or relative to 3.
fn font_size(text: &str) -> u32 {
    let text = text.trim();
    let size = match text.strip_prefix('+') {
        Some(more) => more.parse::<u32>().ok().map(|more| more.saturating_add(3)),
        None => text.parse().ok(),
    };
    size.unwrap_or(3).min(20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_counted() {
        let page = markup(
            b"<html><title>Hi</title><!-- c --><body><b>vi</b><x>agra</x></b><a href=x>go<img width=10 height=20%></a>\
              <font size=+4 color=zz9>big</font><form action=mailto:a><iframe src=http://b></iframe>",
        );
        assert_eq!((page.tags, page.closed_extra, page.obfuscation), (17, 1, 3));
        assert_eq!((page.image_area, page.max_size), (1_200, 7));
        assert_eq!((page.titles, page.comments), (vec!["Hi".to_owned()], vec!["<!-- c -->".to_owned()]));
        assert_eq!(page.anchors, ["go<img>\n"]);
        assert_eq!(
            (page.form_actions, page.frame_sources),
            (vec!["mailto:a".to_owned()], vec!["http://b".to_owned()])
        );
        assert!(page.has_invalid_color && page.open.get("body") == Some(&1));
        assert_eq!(page.tags_seen - page.elements_seen, 1);
    }

    #[test]
    fn text_without_contrast_is_told() {
        for (source, expected) in [
            ("<font color=white>x</font>", true),
            ("<font color=white></font>x", false),
            ("<td style='background-color:#336699'><font color='#336690'>x", true),
            ("<td bgcolor=#000000><font color=white>x", true),
            ("<table><tr><td style='color:#fff;background:#000'>x<td>y", false),
            ("<div style='color:transparent'>x</div>", true),
            ("<b style='color:#fff'>x</b>", false),
            ("<body text=#f0f0ff>x", true),
        ] {
            assert_eq!(markup(source.as_bytes()).has_low_contrast, expected, "{source}");
        }
    }

    #[test]
    fn the_list_of_elements_is_sorted() {
        assert!(ELEMENTS.is_sorted());
    }
}
