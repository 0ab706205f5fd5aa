//! HTML as a reader sees it: text, links, and a few facts, from the tokens alone.
//!
//! The tokenizer is a state machine (WHATWG), and no tree is built, so nothing recurses however deep the
//! elements are. Nothing is fetched, run or rendered.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{StartTag, Token, Tokenizer};

use super::{HtmlFacts, Limits, Link, LinkSource, decode, link};

/// What a page shows.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The visible text.
    pub(super) text: String,
    /// Text in elements that are styled away.
    pub(super) hidden_text: String,
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
const BLOCKS: [&[u8]; 27] = [
    b"address",
    b"article",
    b"aside",
    b"blockquote",
    b"body",
    b"br",
    b"center",
    b"dd",
    b"div",
    b"dl",
    b"dt",
    b"fieldset",
    b"footer",
    b"form",
    b"header",
    b"hr",
    b"html",
    b"li",
    b"main",
    b"nav",
    b"ol",
    b"pre",
    b"section",
    b"table",
    b"tbody",
    b"tr",
    b"ul",
];
/// Elements that a blank line sets off.
const PARAGRAPHS: [&[u8]; 7] = [b"p", b"h1", b"h2", b"h3", b"h4", b"h5", b"h6"];
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
    hidden: Option<(Vec<u8>, usize)>,
    /// Line breaks owed before the next visible character: 0 to 2.
    breaks: usize,
    has_blank: bool,
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
        match &mut self.hidden {
            Some((hidden, depth)) if hidden == name => *depth += 1,
            Some(_) => {}
            None => {
                let is_void = matches!(name, b"img" | b"br" | b"input" | b"hr" | b"meta" | b"link" | b"area");
                let hides =
                    attribute("style").is_some_and(|style| hides(&style)) || attribute("hidden").is_some();
                if hides && !is_void {
                    self.hidden = Some((name.to_vec(), 1));
                }
            }
        }
    }

    fn end(&mut self, name: &[u8]) {
        if let Some(unseen) = &self.unseen {
            if unseen == name {
                self.unseen = None;
            }
            return;
        }
        if name == b"a" {
            self.close_anchor();
        }
        if let Some((hidden, depth)) = &mut self.hidden
            && hidden == name
        {
            *depth -= 1;
            if *depth == 0 {
                self.hidden = None;
            }
        }
        self.separate(name);
    }

    fn separate(&mut self, name: &[u8]) {
        if PARAGRAPHS.contains(&name) {
            self.breaks = 2;
        } else if BLOCKS.contains(&name) {
            self.breaks = self.breaks.max(1);
        } else if matches!(name, b"td" | b"th") {
            self.has_blank = true;
        }
    }

    fn image(&mut self, source: &str) {
        let target = source.trim();
        // The bytes of an inline picture are no link.
        if !target.is_empty() && !target.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("data:")) {
            self.page.links.push(Link {
                text: String::new(),
                target: target.to_owned(),
                source: LinkSource::Image,
            });
        }
    }

    fn text(&mut self, text: &str) {
        if self.unseen.is_some() {
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
        let to = if self.hidden.is_some() {
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

/// Whether a style takes an element out of sight.
fn hides(style: &str) -> bool {
    let style: String =
        style.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect();
    style.contains("display:none") || style.contains("visibility:hidden")
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
    }

    #[test]
    fn a_hundred_thousand_open_elements_are_no_depth() {
        let page = read(&"<div><b>x".repeat(100_000), &Limits::DEFAULT);
        assert!(page.text.starts_with("x\nx"));
    }
}
