//! HTML as a reader sees it: text, links, and a few facts, from the tokens alone.
//!
//! The tokenizer is a state machine (WHATWG), and no tree is built, so nothing recurses however deep the
//! elements are. Nothing is fetched, run or rendered.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{StartTag, Token, Tokenizer};

use super::style::{self, Look, Sheet};
use super::{HtmlFacts, Limits, Link, LinkSource, decode, link};

/// What a page shows.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The visible text.
    pub(super) text: String,
    /// Text in elements that are styled away.
    pub(super) hidden_text: String,
    /// The addresses of pictures that stand in the page itself (`data:`, RFC 2397), at most [`PICTURES`].
    pub(super) pictures: Vec<String>,
    /// Links in order.
    pub(super) links: Vec<Link>,
    /// Counts.
    pub(super) facts: HtmlFacts,
    /// Whether a limit was reached.
    pub(super) is_cut: bool,
}

/// Elements whose content is never shown.
const UNSEEN: [&[u8]; 7] = [b"script", b"style", b"title", b"iframe", b"noembed", b"noframes", b"template"];
/// Elements that begin a line of their own.
const BLOCKS: [&[u8]; 28] = [
    b"address",
    b"article",
    b"aside",
    b"body",
    b"center",
    b"dd",
    b"dl",
    b"dt",
    b"fieldset",
    b"footer",
    b"form",
    b"h1",
    b"h2",
    b"h3",
    b"h4",
    b"h5",
    b"h6",
    b"header",
    b"html",
    b"li",
    b"main",
    b"nav",
    b"ol",
    b"section",
    b"table",
    b"tbody",
    b"tr",
    b"ul",
];
/// Elements that begin a line, two of which in a row leave one blank.
const LINES: [&[u8]; 2] = [b"br", b"div"];
/// Elements that a blank line sets off.
const PARAGRAPHS: [&[u8]; 4] = [b"p", b"blockquote", b"hr", b"pre"];
/// Elements that have no end tag.
const VOID: [&[u8]; 7] = [b"img", b"br", b"input", b"hr", b"meta", b"link", b"area"];
/// Most styled elements in one another that are followed.
const STYLED: usize = 100;
/// Most pictures in a page itself that are looked at.
const PICTURES: usize = 8;
/// Longest visible text of one link.
const LINK_TEXT_BYTES: usize = 1_000;

/// Reads a page.
pub(super) fn read(source: &str, limits: &Limits) -> Page {
    let mut reader = Reader::default();
    let source_cut = decode::prefix(source, limits.html_bytes);
    reader.page.is_cut = source_cut.len() < source.len();
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let tokens = Tokenizer::new_with_emitter(source_cut, emitter).flatten();
    let mut count = 0_usize;
    for token in tokens {
        count += 1;
        if count > limits.html_tokens || reader.page.links.len() > limits.links {
            reader.page.is_cut = true;
            break;
        }
        match token {
            Token::StartTag(tag) => reader.start(&tag),
            Token::EndTag(tag) => reader.end(&tag.name),
            Token::String(text) => reader.text(&String::from_utf8_lossy(&text.value)),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    reader.close_anchor();
    reader.page
}

#[derive(Default)]
struct Reader {
    page: Page,
    anchor: Option<Link>,
    unseen: Option<Vec<u8>>,
    sheet: Sheet,
    /// The style sheet that is under way: its text may come in pieces.
    css: String,
    /// The open elements that change how text looks, outermost first.
    styled: Vec<Styled>,
    /// Line breaks owed before the next visible character: 0 to 2.
    breaks: usize,
    has_blank: bool,
}

/// An open element that changes how text looks.
struct Styled {
    name: Vec<u8>,
    /// How many elements of the name are open since then, with this one.
    depth: usize,
    look: Look,
}

impl Reader {
    fn start(&mut self, tag: &StartTag<()>) {
        if self.unseen.is_some() {
            return;
        }
        let name: &[u8] = &tag.name;
        let attribute =
            |key: &str| tag.attributes.get(key.as_bytes()).map(|value| String::from_utf8_lossy(&value.value));
        match name {
            // Structured data for the mail program, as in receipts, is no program.
            b"script" => {
                let is_data = attribute("type").is_some_and(|kind| kind.trim().ends_with("json"));
                self.page.facts.scripts += usize::from(!is_data);
            }
            b"iframe" | b"frame" | b"object" | b"embed" => self.page.facts.frames += 1,
            b"a" | b"area" => {
                self.close_anchor();
                if let Some(href) = attribute("href") {
                    let link = Link {
                        text: attribute("alt").unwrap_or_default().into_owned(),
                        target: href.trim().to_owned(),
                        source: LinkSource::Anchor,
                    };
                    if name == b"a" { self.anchor = Some(link) } else { self.page.links.push(link) }
                }
            }
            b"img" => {
                self.page.facts.images += 1;
                if let Some(source) = attribute("src") {
                    self.image(&source);
                }
                if let Some(text) = attribute("alt") {
                    self.text(&text);
                }
            }
            b"form" => {
                self.page.facts.forms += 1;
                let target = attribute("action").unwrap_or_default().trim().to_owned();
                self.page.links.push(Link { text: String::new(), target, source: LinkSource::Form });
            }
            b"input" => {
                let kind = attribute("type").unwrap_or_default().to_ascii_lowercase();
                self.page.facts.inputs += usize::from(kind != "hidden");
                self.page.facts.password_inputs += usize::from(kind == "password");
                if matches!(kind.as_str(), "submit" | "button")
                    && let Some(text) = attribute("value")
                {
                    self.text(&text);
                }
            }
            b"meta" => {
                let refreshes =
                    attribute("http-equiv").is_some_and(|key| key.eq_ignore_ascii_case("refresh"));
                if refreshes && let Some(content) = attribute("content") {
                    self.page.facts.refreshes += 1;
                    let target = content.split_once('=').map(|(_, url)| url.trim_matches(['"', '\'', ' ']));
                    let target = target.unwrap_or_default().to_owned();
                    self.page.links.push(Link { text: String::new(), target, source: LinkSource::Anchor });
                }
            }
            _ => {}
        }
        if let Some(background) = attribute("background") {
            self.image(&background);
        }
        if UNSEEN.contains(&name) {
            self.unseen = Some(name.to_vec());
            return;
        }
        self.separate(name);
        self.style(tag);
    }

    /// Follows what an element changes of how text looks.
    fn style(&mut self, tag: &StartTag<()>) {
        let name: &[u8] = &tag.name;
        if VOID.contains(&name) {
            return;
        }
        // A paragraph ends where the next begins.
        if name == b"p" && self.styled.last().is_some_and(|last| last.name == name) {
            self.styled.pop();
        }
        let attribute =
            |key: &[u8]| tag.attributes.get(key).map(|value| String::from_utf8_lossy(&value.value));
        let mut look = self.look();
        let before = look;
        let element = String::from_utf8_lossy(name);
        let (classes, id) = (attribute(b"class").unwrap_or_default(), attribute(b"id").unwrap_or_default());
        look.apply(&self.sheet.change(&element, &classes, &id));
        let mut written = style::Change::default();
        let color = if name == b"body" { attribute(b"text") } else { attribute(b"color") };
        color.into_iter().for_each(|color| written.set_color(&color));
        attribute(b"bgcolor").into_iter().for_each(|color| written.set_background(&color));
        if attribute(b"background").is_some() {
            written.set_background_picture();
        }
        look.apply(&written);
        if attribute(b"hidden").is_some() {
            look.apply(&style::declarations("display:none"));
        }
        attribute(b"style").into_iter().for_each(|text| look.apply(&style::declarations(&text)));
        if look != before && self.styled.len() < STYLED {
            self.styled.push(Styled { name: name.to_vec(), depth: 1, look });
        } else if let Some(open) = self.styled.iter_mut().rfind(|open| open.name == name) {
            open.depth += 1;
        }
    }

    fn look(&self) -> Look {
        self.styled.last().map_or_else(Look::default, |last| last.look)
    }

    fn end(&mut self, name: &[u8]) {
        if let Some(unseen) = &self.unseen {
            if unseen == name {
                self.sheet.read(&std::mem::take(&mut self.css));
                self.unseen = None;
            }
            return;
        }
        if name == b"a" {
            self.close_anchor();
        }
        if let Some(at) = self.styled.iter().rposition(|open| open.name == name)
            && let Some(open) = self.styled.get_mut(at)
        {
            open.depth -= 1;
            if open.depth == 0 {
                // What was left open within ends with it.
                self.styled.truncate(at);
            }
        }
        self.separate(name);
    }

    fn separate(&mut self, name: &[u8]) {
        if PARAGRAPHS.contains(&name) {
            self.breaks = 2;
        } else if LINES.contains(&name) {
            self.breaks += 1;
        } else if BLOCKS.contains(&name) {
            self.breaks = self.breaks.max(1);
        } else if matches!(name, b"td" | b"th") {
            self.has_blank = true;
        }
    }

    fn image(&mut self, source: &str) {
        let target = source.trim();
        // The bytes of an inline picture are no link.
        if target.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("data:")) {
            if self.page.pictures.len() < PICTURES {
                self.page.pictures.push(target.to_owned());
            }
        } else if !target.is_empty() {
            self.page.links.push(Link {
                text: String::new(),
                target: target.to_owned(),
                source: LinkSource::Image,
            });
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(unseen) = &self.unseen {
            if unseen == b"style" {
                self.css.push_str(text);
            }
            return;
        }
        if let Some(anchor) = &mut self.anchor
            && anchor.text.len() < LINK_TEXT_BYTES
        {
            for word in text.split_whitespace() {
                if !anchor.text.is_empty() {
                    anchor.text.push(' ');
                }
                anchor.text.push_str(decode::prefix(word, LINK_TEXT_BYTES));
            }
        } else if self.anchor.is_none() {
            for target in link::in_text(text) {
                self.page.links.push(Link {
                    text: target.to_owned(),
                    target: target.to_owned(),
                    source: LinkSource::Text,
                });
            }
        }
        let to = if !self.look().is_seen() {
            self.page.facts.hidden_bytes += text.trim().len();
            &mut self.page.hidden_text
        } else {
            &mut self.page.text
        };
        for c in text.chars() {
            if c.is_whitespace() {
                self.has_blank = true;
                continue;
            }
            if !to.is_empty() && self.breaks > 0 {
                to.push_str(if self.breaks > 1 { "\n\n" } else { "\n" });
            } else if !to.is_empty() && self.has_blank {
                to.push(' ');
            }
            (self.breaks, self.has_blank) = (0, false);
            to.push(c);
        }
    }

    fn close_anchor(&mut self) {
        if let Some(anchor) = self.anchor.take() {
            self.page.links.push(anchor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, text: &str, links: &[(&str, &str, LinkSource)]) {
        let page = read(source, &Limits::DEFAULT);
        let found: Vec<_> =
            page.links.iter().map(|link| (link.text.as_str(), link.target.as_str(), link.source)).collect();
        assert_eq!((page.text.as_str(), found.as_slice()), (text, links), "{source}");
    }

    #[test]
    fn text_reads_as_it_is_seen() {
        check("<p>One  two\n three</p><p>four</p>", "One two three\n\nfour", &[]);
        check("a<br>b<div>c</div>d", "a\nb\nc\nd", &[]);
        check("<table><tr><td>a<td>b<tr><td>c</table>", "a b\nc", &[]);
        check("via<b>gra</b>&nbsp;&#x26;&eacute;", "viagra &é", &[]);
        check("a<!-- x -->b<style>.x{}</style><script>1<2</script>c", "abc", &[]);
        check("<head><title>t</title></head>x", "x", &[]);
        check("x<img src=cid:1 alt='The logo'>", "xThe logo", &[("", "cid:1", LinkSource::Image)]);
        check("<img src='data:image/png;base64,AAAA'>x", "x", &[]);
    }

    #[test]
    fn links_have_the_text_that_the_reader_sees() {
        use LinkSource::{Anchor, Form, Image, Text};
        check(
            "<a href=' http://evil.example/?a=1&amp;b=2 '>pay<b>pal</b>\n .com</a>",
            "paypal .com",
            &[("pay pal .com", "http://evil.example/?a=1&b=2", Anchor)],
        );
        check("<a href=x>one<a href=y>two", "onetwo", &[("one", "x", Anchor), ("two", "y", Anchor)]);
        check(
            "<a href=x><img src=http://i.example/b.png alt=Open></a>",
            "Open",
            &[("", "http://i.example/b.png", Image), ("Open", "x", Anchor)],
        );
        check("go to www.a.example.", "go to www.a.example.", &[("www.a.example", "www.a.example", Text)]);
        check("<form action=/go><input type=password></form>", "", &[("", "/go", Form)]);
        check(
            "<meta http-equiv=refresh content='0; url=http://a.example'>",
            "",
            &[("", "http://a.example", Anchor)],
        );
    }

    #[test]
    fn hidden_text_is_kept_apart() {
        let page = read("<div style='DISPLAY : none'>ham <div>x</div> words</div>spam", &Limits::DEFAULT);
        assert_eq!((page.text.as_str(), page.hidden_text.as_str()), ("spam", "ham\nx\nwords"));
        for (source, text, hidden) in [
            ("<font color=#fffffe>a</font>b", "b", "a"),
            ("<body bgcolor=black text=black>a<font color=red>b", "b", "a"),
            ("<div style='background:#000'><span style='color:#fff'>a</span></div>", "a", ""),
            ("<td style=font-size:0>a<div><b style=font-size:12px>b</b>c</div></td>d", "b\nd", "ac"),
            ("<div style=display:none><span>a<i style=color:red>b</div>c", "c", "ab"),
            ("<p style=color:white>a<p>b", "b", "a"),
            ("<td background=x.png><font color=white>a", "a", ""),
            ("<style>.p{display:none}</style><i class='q p'>a</i>b", "b", "a"),
            ("<p hidden>a</p>b", "b", "a"),
        ] {
            let page = read(source, &Limits::DEFAULT);
            assert_eq!((page.text.as_str(), page.hidden_text.as_str()), (text, hidden), "{source}");
        }
    }

    #[test]
    fn a_hundred_thousand_open_elements_are_no_depth() {
        let page = read(&"<div><b>x".repeat(100_000), &Limits::DEFAULT);
        assert!(page.text.starts_with("x\nx"));
    }
}
