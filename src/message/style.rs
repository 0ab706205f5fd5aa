//! What styles take out of sight: the few properties of CSS that decide whether a text is seen.
//!
//! No cascade is computed. Declarations in a `style` attribute count, presentational attributes, and rules of
//! a style sheet whose selector is one element, class or id. What other selectors paint is taken as not
//! known, so that a text is called unseen only where the colours are certain.

use std::collections::HashMap;

/// Largest style sheet that is read, all together, and most selectors.
const SHEET_BYTES: usize = 128 << 10;
const SELECTORS: usize = 1_000;
/// Smallest letters that are read, in pixels.
const SMALLEST_PX: f32 = 2.0;
/// What is further out of the page than this, in pixels, is out of sight.
const AWAY_PX: f32 = -300.0;
/// Largest difference of a channel between two colours that look alike.
const ALIKE: u8 = 16;

type Rgb = [u8; 3];

/// What something is painted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Color(Rgb),
    Nothing,
    /// A picture, or what a style sheet says somewhere.
    Unknown,
}

/// How text looks at a place in the page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    is_gone: bool,
    color: Paint,
    background: Paint,
    size_px: f32,
}

impl Default for Look {
    fn default() -> Self {
        Look {
            is_gone: false,
            color: Paint::Color([0; 3]),
            background: Paint::Color([255; 3]),
            size_px: 16.0,
        }
    }
}

impl Look {
    /// Whether the reader sees a text that looks so.
    pub(super) fn is_seen(&self) -> bool {
        let has_contrast = match (self.color, self.background) {
            (Paint::Nothing, _) => false,
            (Paint::Color(text), Paint::Color(ground)) => {
                text.iter().zip(ground).any(|(text, ground)| text.abs_diff(ground) > ALIKE)
            }
            _ => true,
        };
        !self.is_gone && self.size_px >= SMALLEST_PX && has_contrast
    }

    /// Changes the look as an element within says.
    pub(super) fn apply(&mut self, change: &Change) {
        self.is_gone |= change.hides;
        if let Some(color) = change.color {
            self.color = color;
        }
        match change.background {
            // Nothing lets the ground shine through.
            None | Some(Paint::Nothing) => {}
            Some(background) => self.background = background,
        }
        match change.size {
            None => {}
            Some(Size::Px(size)) => self.size_px = size,
            Some(Size::Times(factor)) => self.size_px *= factor,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Size {
    Px(f32),
    Times(f32),
}

/// What declarations change.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Change {
    hides: bool,
    color: Option<Paint>,
    background: Option<Paint>,
    size: Option<Size>,
}

impl Change {
    /// Whether anything is changed.
    pub(super) fn is_any(&self) -> bool {
        *self != Change::default()
    }

    /// Adds what later declarations change.
    fn and(&mut self, later: &Change) {
        self.hides |= later.hides;
        self.color = later.color.or(self.color);
        self.background = later.background.or(self.background);
        self.size = later.size.or(self.size);
    }

    /// What is left where it is not known whether the declarations apply.
    fn perhaps(&self) -> Change {
        Change {
            hides: false,
            color: self.color.map(|_| Paint::Unknown),
            background: self.background.map(|_| Paint::Unknown),
            size: None,
        }
    }

    /// Takes the text colour of an attribute.
    pub(super) fn set_color(&mut self, value: &str) {
        self.color = paint(value).or(self.color);
    }

    /// Takes the background colour of an attribute.
    pub(super) fn set_background(&mut self, value: &str) {
        self.background = paint(value).or(self.background);
    }

    /// There is a picture in the background.
    pub(super) fn set_background_picture(&mut self) {
        self.background = Some(Paint::Unknown);
    }
}

/// Reads the declarations of a `style` attribute, or of a rule.
pub(super) fn declarations(style: &str) -> Change {
    let mut change = Change::default();
    let (mut is_clipped, mut has_no_extent, mut is_placed, mut is_away) = (false, false, false, false);
    for declaration in style.split(';') {
        let Some((property, value)) = declaration.split_once(':') else { continue };
        let property = property.trim().to_ascii_lowercase();
        let value = value.trim().to_ascii_lowercase();
        let value = value.strip_suffix("!important").unwrap_or(&value).trim();
        match property.as_str() {
            "display" => change.hides |= value == "none",
            "visibility" => change.hides |= matches!(value, "hidden" | "collapse"),
            "opacity" => change.hides |= value.parse().is_ok_and(|opacity: f32| opacity < 0.05),
            "transform" => change.hides |= value.replace(' ', "").contains("scale(0)"),
            "clip" => change.hides |= is_empty_clip(value),
            "clip-path" => change.hides |= value.starts_with("inset(100%") || value.starts_with("inset(50%"),
            "overflow" | "overflow-y" => is_clipped |= value == "hidden",
            "max-height" | "height" | "max-width" | "width" => {
                has_no_extent |= pixels(value).is_some_and(|extent| extent <= 1.0);
            }
            "position" => is_placed |= matches!(value, "absolute" | "fixed"),
            "left" | "top" | "right" => is_away |= pixels(value).is_some_and(|at| at < AWAY_PX),
            "text-indent" | "margin-left" | "margin-top" => {
                change.hides |= pixels(value).is_some_and(|at| at < AWAY_PX);
            }
            "font-size" => change.size = size(value).or(change.size),
            "font" => {
                let found = value.split_whitespace().rev().find_map(|word| size(word.split('/').next()?));
                change.size = found.or(change.size);
            }
            "color" | "-webkit-text-fill-color" => change.color = paint(value).or(change.color),
            "background" | "background-color" | "background-image" => {
                let is_picture = value.contains("url(") || value.contains("gradient");
                let color = if is_picture { Some(Paint::Unknown) } else { paint(value) };
                change.background = color.or(change.background);
            }
            _ => {}
        }
    }
    change.hides |= is_clipped && has_no_extent || is_placed && is_away;
    change
}

/// `rect(0, 0, 0, 0)` and its like.
fn is_empty_clip(value: &str) -> bool {
    value.strip_prefix("rect(").and_then(|rest| rest.strip_suffix(')')).is_some_and(|edges| {
        edges
            .split([',', ' '])
            .filter(|edge| !edge.is_empty())
            .all(|edge| pixels(edge).is_some_and(|edge| (0.0..=1.0).contains(&edge)))
    })
}

/// Reads a length in pixels, or one that comes to about as many.
fn pixels(value: &str) -> Option<f32> {
    let end = value.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+')).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let number: f32 = number.parse().ok()?;
    match unit.trim() {
        "" | "px" => Some(number),
        "pt" => Some(number * 4.0 / 3.0),
        "em" | "rem" | "ex" | "ch" => Some(number * 16.0),
        "vw" | "vh" => Some(number * 8.0),
        _ if number == 0.0 => Some(0.0),
        _ => None,
    }
}

fn size(value: &str) -> Option<Size> {
    let factor = |unit: &str| value.strip_suffix(unit).and_then(|number| number.trim().parse::<f32>().ok());
    if let Some(percent) = factor("%") {
        return Some(Size::Times(percent / 100.0));
    }
    if let Some(ems) = factor("em").filter(|_| !value.ends_with("rem")) {
        return Some(Size::Times(ems));
    }
    match value {
        "xx-small" | "x-small" | "small" => Some(Size::Px(10.0)),
        "medium" | "large" | "x-large" | "xx-large" => Some(Size::Px(16.0)),
        // A bare number is a weight or a line height, but for nought.
        _ if value.parse::<f32>().is_ok_and(|number| number != 0.0) => None,
        _ => pixels(value).map(Size::Px),
    }
}

fn paint(value: &str) -> Option<Paint> {
    let value = value.trim();
    if matches!(value, "none" | "transparent") {
        return Some(Paint::Nothing);
    }
    if value.starts_with("var(") {
        return Some(Paint::Unknown);
    }
    // `background` may say more than a colour, behind it. Attributes leave the # out.
    let first = if value.ends_with(')') { value } else { value.split_whitespace().next()? };
    let color = csscolorparser::parse(first).ok()?;
    let [red, green, blue, alpha] = color.to_rgba8();
    match alpha {
        0..13 => Some(Paint::Nothing),
        13..240 => Some(Paint::Unknown),
        _ => Some(Paint::Color([red, green, blue])),
    }
}

/// The rules of a page's style sheets.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    rules: HashMap<String, Change>,
    read_bytes: usize,
}

impl Sheet {
    /// Reads a style sheet.
    pub(super) fn read(&mut self, text: &str) {
        let text = super::decode::prefix(text, SHEET_BYTES.saturating_sub(self.read_bytes));
        self.read_bytes += text.len();
        let text = without_comments(text);
        // Blocks within blocks are those of `@media` and its like: they may apply or not.
        let (mut depth, mut start, mut selectors) = (0_usize, 0, "");
        for (at, sign) in text.match_indices(['{', '}']) {
            let before = text.get(start..at).unwrap_or_default();
            if sign == "{" {
                depth += 1;
                selectors = before.rsplit_once(';').map_or(before, |(_, last)| last).trim();
            } else {
                if !selectors.is_empty() {
                    self.rule(selectors, &declarations(before), depth == 1);
                }
                depth = depth.saturating_sub(1);
                selectors = "";
            }
            start = at + 1;
        }
    }

    fn rule(&mut self, selectors: &str, change: &Change, is_certain: bool) {
        if !change.is_any() || selectors.starts_with('@') {
            return;
        }
        for selector in selectors.split(',').map(str::trim) {
            let last = selector.rsplit([' ', '>', '+', '~']).next().unwrap_or_default();
            let is_plain = last == selector && !selector.contains([':', '[', '*']);
            let parts: Vec<&str> = last.split(['.', '#', ':', '[']).filter(|part| !part.is_empty()).collect();
            let is_single = is_plain && parts.len() == 1;
            let change = if is_single && is_certain { *change } else { change.perhaps() };
            for part in parts {
                // What belongs to a class or an id is told apart from elements by its sign.
                let sign =
                    last.find(part).and_then(|at| last.get(at.checked_sub(1)?..at)).unwrap_or_default();
                let sign = if matches!(sign, "." | "#") { sign } else { "" };
                let key = format!("{sign}{}", part.to_ascii_lowercase());
                if self.rules.len() < SELECTORS || self.rules.contains_key(&key) {
                    self.rules.entry(key).or_default().and(&change);
                }
            }
        }
    }

    /// Returns what the sheet changes for an element.
    pub(super) fn change(&self, element: &str, classes: &str, id: &str) -> Change {
        let mut change = Change::default();
        if self.rules.is_empty() {
            return change;
        }
        let classes =
            classes.split_whitespace().take(20).map(|class| format!(".{}", class.to_ascii_lowercase()));
        let id = format!("#{}", id.to_ascii_lowercase());
        for key in std::iter::once(element.to_owned()).chain(classes).chain([id]) {
            if let Some(found) = self.rules.get(&key) {
                change.and(found);
            }
        }
        change
    }
}

fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("/*") {
        kept.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, rest)| rest);
    }
    kept.push_str(rest);
    kept.replace("<!--", "").replace("-->", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_seen(styles: &[&str]) -> bool {
        let mut look = Look::default();
        styles.iter().for_each(|style| look.apply(&declarations(style)));
        look.is_seen()
    }

    #[test]
    fn what_is_out_of_sight_is_told() {
        for style in [
            "DISPLAY : none",
            "display:none!important",
            "visibility: hidden",
            "opacity:0",
            "font-size:0",
            "font-size:1px",
            "font: bold 1px/1 Arial",
            "max-height:0;overflow:hidden",
            "overflow:hidden; width:0px",
            "position:absolute; left:-9999px",
            "text-indent:-999em",
            "clip: rect(0, 0, 0, 0)",
            "color:#fff",
            "color: rgb(250, 250, 250)",
            "color:transparent",
            "background:#000; color:black",
            "background-color: navy; color:#000080",
        ] {
            assert!(!is_seen(&[style]), "{style}");
        }
        for style in [
            "",
            "color:#fff; background:#d00 no-repeat",
            "color:#fff; background:url(x.png) #fff",
            "color:white; background-image: linear-gradient(red, blue)",
            "max-height:0",
            "left:-9999px",
            "font-size:9px",
            "font: 700 12px Arial",
            "color:#ddd",
            "color:nonsense",
            "text-indent:-10px",
            "color:rgba(0,0,0,.5)",
        ] {
            assert!(is_seen(&[style]), "{style}");
        }
    }

    #[test]
    fn looks_are_inherited_and_changed_within() {
        assert!(is_seen(&["font-size:0", "font-size:14px"]));
        assert!(!is_seen(&["font-size:10px", "font-size:10%"]));
        assert!(!is_seen(&["display:none", "display:block; color:red"]));
        assert!(is_seen(&["background:#036", "color:#fff"]));
        assert!(!is_seen(&["background:#036", "background:transparent; color:#003366"]));
    }

    #[test]
    fn sheets_apply_where_it_is_certain() {
        let mut sheet = Sheet::default();
        sheet.read(
            "@import url(x.css); /* .seen{display:none} */ .pre, #x { display:none } p {color:#fff}\n\
             @media (max-width:600px) { .narrow { display:none } .b { background:#000 } } td.c{background:red}",
        );
        let is_seen = |element: &str, classes: &str, id: &str| {
            let mut look = Look::default();
            look.apply(&declarations("color:#fefefe"));
            look.apply(&sheet.change(element, classes, id));
            look.is_seen()
        };
        assert!(sheet.change("div", "PRE", "").hides && sheet.change("div", "", "X").hides);
        assert!(!sheet.change("div", "seen narrow", "").hides);
        assert!(!is_seen("div", "", "") && !is_seen("p", "", ""));
        assert!(is_seen("div", "b", "") && is_seen("td", "c", ""));
    }

    proptest::proptest! {
        #[test]
        fn any_sheet_is_read(text in "(?s)([.#a{};:/*@ ,-]|display:none|rect\\(|\\PC){0,80}") {
            Sheet::default().read(&text);
            declarations(&text);
        }
    }
}
