//! Colours of text and background as markup sets them, in the terms in which SpamAssassin compares them, and the
//! names of fonts.
//!
//! What a reader sees is in `style`; here it counts what these rules were scored with: no style sheets, elements
//! that close one another.

/// Elements that may set colours, of which SpamAssassin closes what is open when they end.
const COLORING: [&str; 14] = [
    "body", "font", "table", "tr", "th", "td", "big", "small", "basefont", "marquee", "span", "p", "div", "a",
];
/// Most of them in one another.
const COLORED: usize = 500;
/// Distance of colours, weighted by how bright the channels are, under which text is hard to read.
const LOW_CONTRAST: f32 = 12.0;

/// The colours of text and background.
#[derive(Debug, Clone, Copy)]
struct Colors {
    text: Option<[u8; 3]>,
    ground: Option<[u8; 3]>,
}

impl Colors {
    const USUAL: Colors = Colors { text: Some([0; 3]), ground: Some([255; 3]) };

    fn are_close(self) -> bool {
        let (Some(text), Some(ground)) = (self.text, self.ground) else { return self.text == self.ground };
        let weighted = [0.2126, 0.7152, 0.0722];
        let squares = text.iter().zip(ground).zip(weighted).map(|((text, ground), weight): (_, f32)| {
            (weight * (f32::from(*text) - f32::from(ground))).powi(2)
        });
        squares.sum::<f32>().sqrt() < LOW_CONTRAST
    }

    /// Takes over what a `style` attribute says.
    fn read_style(&mut self, style: &str, outside: Colors) {
        for declaration in style.split(';') {
            let Some((property, value)) = declaration.split_once(':') else { continue };
            let (property, value) = (property.trim().to_ascii_lowercase(), value.trim().to_ascii_lowercase());
            let value = value.strip_suffix("!important").unwrap_or(&value).trim();
            match property.as_str() {
                "color" | "background-color" if value == "inherit" => {}
                "color" if value == "transparent" => self.text = self.ground,
                "color" => self.text = color(value),
                "background-color" if value == "transparent" => self.ground = outside.ground,
                "background-color" => self.ground = color(value),
                "background" => {
                    let found = value.split_whitespace().find_map(color).or_else(|| color(value));
                    self.ground = found.or(self.ground);
                }
                _ => {}
            }
        }
    }
}

/// Reads a colour; `None` for what is none.
fn color(text: &str) -> Option<[u8; 3]> {
    let [red, green, blue, _] = csscolorparser::parse(text.trim()).ok()?.to_rgba8();
    Some([red, green, blue])
}

/// Whether a font's name looks as such: letters, blanks and hyphens, a digit at most at its end.
pub(super) fn is_face(names: &str) -> bool {
    let names = names.trim_start();
    let names = names.strip_suffix(';').unwrap_or(names);
    names.split(',').enumerate().all(|(index, name)| {
        let name = if index == 0 { name.strip_prefix('.').unwrap_or(name) } else { name.trim_start() };
        let name = name.strip_prefix(['"', '\'']).unwrap_or(name);
        let name = name.strip_suffix(['"', '\'']).unwrap_or(name);
        let letters = name.strip_suffix(|c: char| c.is_ascii_digit()).unwrap_or(name);
        let is_letter = |c: char| c.is_ascii_alphabetic();
        letters.starts_with(|c| is_letter(c) || index == 0 && c == ' ')
            && letters.len() > 1
            && letters.ends_with(is_letter)
            && letters.chars().all(|c| is_letter(c) || matches!(c, ' ' | '-'))
    })
}

/// The open elements that may set colours, with the colours within, outermost first.
#[derive(Debug, Default)]
pub(super) struct ColorStack {
    open: Vec<(String, Colors)>,
}

impl ColorStack {
    /// Whether text here is hard to tell from its background.
    pub(super) fn are_close(&self) -> bool {
        self.open.last().map_or(Colors::USUAL, |(_, colors)| *colors).are_close()
    }

    /// Whether one of the colours here is none.
    pub(super) fn are_invalid(&self) -> bool {
        self.open.last().is_some_and(|(_, colors)| colors.text.is_none() != colors.ground.is_none())
    }

    /// Closes an element.
    pub(super) fn end(&mut self, tag: &str) {
        let tag = if tag == "th" { "td" } else { tag };
        // Text behind the end of the body is shown as if in it.
        if tag != "body"
            && COLORING.contains(&tag)
            && let Some(at) = self.open.iter().rposition(|(open, _)| open == tag)
        {
            self.open.truncate(at);
        }
    }

    /// Follows the colours that an element sets.
    pub(super) fn start(&mut self, name: &str, attribute: impl Fn(&str) -> Option<String>) {
        let name = if name == "th" { "td" } else { name };
        if !COLORING.contains(&name) || name == "basefont" {
            return;
        }
        // Cells and rows end where the next begin, with the fonts in them.
        if matches!(name, "td" | "tr") && self.open.iter().any(|(open, _)| open == name) {
            let ends = |open: &str| open == "td" || open == "font" || name == "tr" && open == "tr";
            while self.open.last().is_some_and(|(open, _)| ends(open)) {
                self.open.pop();
            }
        }
        if self.open.len() >= COLORED {
            return;
        }
        let outside = self.open.last().map_or(Colors::USUAL, |(_, colors)| *colors);
        let mut colors = outside;
        if matches!(name, "font" | "body")
            && let Some(text) = attribute(if name == "font" { "color" } else { "text" })
        {
            colors.text = color(&text);
        }
        if matches!(name, "table" | "tr" | "td" | "span" | "p" | "div" | "a")
            && let Some(style) = attribute("style")
        {
            colors.read_style(&style, outside);
        }
        // `bgcolor` is not followed: the points of the rules were found without.
        self.open.push((name.to_owned(), colors));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fonts_have_names() {
        for (face, expected) in [
            ("Arial", true),
            ("'Times New Roman', serif", true),
            ("Arial1;", true),
            ("12pt", false),
            ("a_b", false),
            ("", false),
        ] {
            assert_eq!(is_face(face), expected, "{face}");
        }
    }
}
