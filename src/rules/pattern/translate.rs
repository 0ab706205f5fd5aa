//! From Perl's spelling of a pattern to that of `regex`, and of `fancy-regex` where the former cannot say it.
//!
//! A pattern with look-around, back-references or possessive quantifiers has two translations: the exact
//! one, and one without them that matches wherever the exact one does and elsewhere too. The second runs
//! in linear time and tells where the first has to look at all.

use std::iter::Peekable;
use std::str::Chars;

use super::class::{Piece, character, class, code_point, escaped};

/// A pattern in both spellings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Translation {
    /// For `regex`: matches at least where the pattern does.
    pub(super) linear: String,
    /// For `fancy-regex`; `None` when `linear` is exact.
    pub(super) exact: Option<String>,
    /// Whether it speaks of characters instead of bytes.
    pub(super) is_unicode: bool,
}

/// Deepest nesting of groups.
const DEPTH: usize = 100;

/// Translates the body of a pattern. `is_extended` is the flag `x`; `is_multi_line` the flag `m`.
///
/// # Errors
/// What is not supported, in words.
pub(super) fn translate(
    body: &str,
    is_extended: bool,
    is_multi_line: bool,
    is_unicode: bool,
) -> Result<Translation, String> {
    let mut writer = Writer {
        linear: String::with_capacity(body.len() + 16),
        exact: String::with_capacity(body.len() + 16),
        needs_exact: false,
        groups: Vec::new(),
        captures: 0,
        hidden_from: None,
        is_unicode,
        is_extended,
        is_multi_line,
        can_repeat: false,
        after_quantifier: false,
    };
    let mut chars = body.chars().peekable();
    while let Some(c) = chars.next() {
        writer.step(c, &mut chars)?;
    }
    if !writer.groups.is_empty() {
        return Err("a group is not closed".to_owned());
    }
    Ok(Translation { linear: writer.linear, exact: writer.needs_exact.then_some(writer.exact), is_unicode })
}

struct Writer {
    linear: String,
    exact: String,
    needs_exact: bool,
    /// For each open group whether the flag `x` held before it.
    groups: Vec<bool>,
    /// Groups that were opened and capture.
    captures: usize,
    /// The depth of the group, if any, that `linear` leaves out.
    hidden_from: Option<usize>,
    is_unicode: bool,
    is_extended: bool,
    is_multi_line: bool,
    /// Whether a quantifier may stand here.
    can_repeat: bool,
    after_quantifier: bool,
}

pub(super) type Rest<'a> = Peekable<Chars<'a>>;

impl Writer {
    /// Writes to both.
    fn both(&mut self, text: &str) {
        self.exact.push_str(text);
        self.loose(text);
    }

    /// Writes what the linear pattern has instead.
    fn loose(&mut self, text: &str) {
        if self.hidden_from.is_none() {
            self.linear.push_str(text);
        }
    }

    fn atom(&mut self, text: &str) {
        self.both(text);
        self.can_repeat = true;
    }

    fn literal(&mut self, c: char) {
        if self.is_unicode || c.is_ascii() {
            self.atom(&escaped(c));
        } else {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                self.atom(&format!("\\x{byte:02X}"));
            }
        }
    }

    fn step(&mut self, c: char, rest: &mut Rest<'_>) -> Result<(), String> {
        let after_quantifier = std::mem::take(&mut self.after_quantifier);
        match c {
            '\\' => self.escape(rest)?,
            '[' => {
                let class = class(rest, self.is_unicode)?;
                self.atom(&class);
            }
            '(' => self.open(rest)?,
            ')' => self.close()?,
            '|' => {
                self.both("|");
                self.can_repeat = false;
            }
            '^' => self.both(if self.is_multi_line { "(?m:^)" } else { "^" }),
            '$' => self.both(if self.is_multi_line { "(?m:$)" } else { "(?:\\n?\\z)" }),
            '.' => self.atom("."),
            '*' | '+' | '?' => self.repeat(&c.to_string(), after_quantifier),
            '{' => match interval(rest) {
                Some(text) if self.can_repeat => self.repeat(&text, after_quantifier),
                Some(text) => text.chars().for_each(|c| self.literal(c)),
                None => self.literal('{'),
            },
            '#' if self.is_extended => rest.by_ref().take_while(|c| *c != '\n').for_each(drop),
            c if self.is_extended && c.is_ascii_whitespace() => self.after_quantifier = after_quantifier,
            c => self.literal(c),
        }
        Ok(())
    }

    fn repeat(&mut self, quantifier: &str, after_quantifier: bool) {
        if after_quantifier && quantifier == "+" {
            // Possessive: never gives back. Without it the pattern matches in more places.
            self.exact.push('+');
            self.needs_exact = true;
        } else if after_quantifier && quantifier == "?" {
            self.both("?");
        } else {
            self.both(quantifier);
            self.after_quantifier = true;
        }
    }

    fn open(&mut self, rest: &mut Rest<'_>) -> Result<(), String> {
        if self.groups.len() >= DEPTH {
            return Err(format!("groups are nested deeper than {DEPTH}"));
        }
        self.can_repeat = false;
        if rest.next_if_eq(&'?').is_none() {
            // Captures by number serve back-references alone.
            self.captures += 1;
            self.exact.push('(');
            self.loose("(?:");
            self.groups.push(self.is_extended);
            return Ok(());
        }
        match rest.next() {
            Some('#') => {
                rest.by_ref().take_while(|c| *c != ')').for_each(drop);
                self.can_repeat = true;
                return Ok(());
            }
            Some(sign @ ('=' | '!')) => self.look(&format!("(?{sign}")),
            Some('>') => {
                self.exact.push_str("(?>");
                self.loose("(?:");
                self.needs_exact = true;
            }
            Some('<') if matches!(rest.peek(), Some('=' | '!')) => {
                let sign = rest.next().unwrap_or('=');
                self.look(&format!("(?<{sign}"));
            }
            Some(open @ ('<' | '\'' | 'P')) => {
                if open == 'P' && rest.next_if_eq(&'<').is_none() {
                    return Err("this kind of group is not supported".to_owned());
                }
                let end = if open == '\'' { '\'' } else { '>' };
                let name: String = rest.by_ref().take_while(|c| *c != end).collect();
                if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                    return Err("a named group has a name of letters, digits and `_`".to_owned());
                }
                self.captures += 1;
                self.both(&format!("(?<{name}>"));
            }
            Some(c) if matches!(c, ':' | '^' | '-') || c.is_ascii_alphabetic() => {
                return self.flags(c, rest);
            }
            _ => return Err("this kind of group is not supported".to_owned()),
        }
        self.groups.push(self.is_extended);
        Ok(())
    }

    /// Begins a look-around assertion, which the linear pattern leaves out.
    fn look(&mut self, open: &str) {
        self.exact.push_str(open);
        self.needs_exact = true;
        if self.hidden_from.is_none() {
            // Something must stand here, since a quantifier may follow.
            self.linear.push_str("(?:)");
            self.hidden_from = Some(self.groups.len());
        }
    }

    /// Reads `(?i)`, `(?i-x:`, `(?^i:` and the like, of which `first` is the first sign.
    fn flags(&mut self, first: char, rest: &mut Rest<'_>) -> Result<(), String> {
        let before = self.is_extended;
        let (mut on, mut off, mut is_off) = (String::new(), String::new(), false);
        let mut next = Some(first);
        let is_group = loop {
            match next {
                Some('^') => {
                    off = "imsx".to_owned();
                    self.is_extended = false;
                }
                Some('-') => is_off = true,
                Some(flag @ ('i' | 'm' | 's' | 'x')) => {
                    if flag == 'x' {
                        self.is_extended = !is_off;
                    }
                    if flag == 'm' && !is_off {
                        self.is_multi_line = true;
                    }
                    off.retain(|known| known != flag);
                    on.retain(|known| known != flag);
                    if is_off { off.push(flag) } else { on.push(flag) }
                }
                Some('a' | 'u' | 'd' | 'l' | 'p' | 'n') => {}
                Some(':') => break true,
                Some(')') => break false,
                _ => return Err("this kind of group is not supported".to_owned()),
            }
            next = rest.next();
        };
        // The extended form is undone here, and `^` and `$` say themselves what they mean.
        for flags in [&mut on, &mut off] {
            flags.retain(|flag| matches!(flag, 'i' | 's'));
        }
        let minus = if off.is_empty() { "" } else { "-" };
        if is_group {
            self.both(&format!("(?{on}{minus}{off}:"));
            self.groups.push(before);
        } else if !(on.is_empty() && off.is_empty()) {
            self.both(&format!("(?{on}{minus}{off})"));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.is_extended = self.groups.pop().ok_or("a group is closed that was not opened")?;
        if self.hidden_from == Some(self.groups.len()) {
            self.exact.push(')');
            self.hidden_from = None;
        } else {
            self.both(")");
        }
        self.can_repeat = true;
        Ok(())
    }

    fn escape(&mut self, rest: &mut Rest<'_>) -> Result<(), String> {
        let c = rest.next().ok_or("the pattern ends with a backslash")?;
        match c {
            '1'..='9' => {
                let mut number = c.to_string();
                while number.len() < 3
                    && let Some(digit) = rest.next_if(char::is_ascii_digit)
                {
                    number.push(digit);
                }
                // Perl takes a number with no such group for the code of a character.
                let is_group = number.parse().is_ok_and(|number: usize| number <= self.captures);
                match u32::from_str_radix(&number, 8).ok().filter(|_| number.len() > 1 && !is_group) {
                    Some(code) => self.code(code),
                    None if is_group => self.back_reference(&format!("\\{number}")),
                    None => return Err("a back-reference names no group".to_owned()),
                }
            }
            'g' | 'k' => {
                let close = match rest.next() {
                    Some('{') => '}',
                    Some('<') => '>',
                    Some('\'') => '\'',
                    Some(digit) if c == 'g' && digit.is_ascii_digit() => {
                        self.back_reference(&format!("\\{digit}"));
                        return Ok(());
                    }
                    _ => return Err("this back-reference is not supported".to_owned()),
                };
                let name: String = rest.by_ref().take_while(|c| *c != close).collect();
                let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                let is_number = name.chars().all(|c| c.is_ascii_digit());
                match (is_name, is_number) {
                    (true, true) => self.back_reference(&format!("\\{name}")),
                    (true, false) => self.back_reference(&format!("\\k<{name}>")),
                    _ => return Err("this back-reference is not supported".to_owned()),
                }
            }
            'b' | 'B' => {
                // ASCII word boundaries, as Perl has them over bytes; they are also much faster.
                self.exact.push('\\');
                self.exact.push(c);
                self.loose(&format!("(?-u:\\{c})"));
                self.can_repeat = true;
            }
            'A' => self.both("\\A"),
            'z' => self.both("\\z"),
            'Z' => self.both("(?:\\n?\\z)"),
            'R' => self.atom("(?:\\r\\n|\\n|\\r)"),
            'N' if rest.peek() != Some(&'{') => self.atom("[^\\n]"),
            'Q' => {
                while let Some(c) = rest.next() {
                    if c == '\\' && rest.next_if_eq(&'E').is_some() {
                        break;
                    }
                    self.literal(c);
                }
            }
            'E' => {}
            'G' | 'K' | 'X' | 'N' | 'l' | 'u' | 'L' | 'U' => {
                return Err(format!("the escape `\\{c}` is not supported"));
            }
            c => match character(c, rest)? {
                Piece::Class(class) => self.atom(&class),
                Piece::Code(code) => self.code(code),
            },
        }
        Ok(())
    }

    fn back_reference(&mut self, text: &str) {
        self.exact.push_str(text);
        self.loose("(?s:.*?)");
        self.needs_exact = true;
        self.can_repeat = true;
    }

    fn code(&mut self, code: u32) {
        self.atom(&code_point(code));
    }
}

/// Reads `n}`, `n,}`, `,m}` or `n,m}` after a brace. Reads nothing when it is something else.
fn interval(rest: &mut Rest<'_>) -> Option<String> {
    let mut ahead = rest.clone();
    let inner: String = ahead.by_ref().take(12).take_while(|c| *c != '}').collect();
    let (low, high) = inner.split_once(',').map_or((inner.as_str(), None), |(low, high)| (low, Some(high)));
    let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let is_interval =
        is_number(low) && high.is_none_or(is_number) && !(low.is_empty() && high.is_none_or(str::is_empty));
    if !is_interval || rest.clone().nth(inner.chars().count()) != Some('}') {
        return None;
    }
    rest.by_ref().take(inner.chars().count() + 1).for_each(drop);
    let low = if low.is_empty() { "0" } else { low };
    Some(match high {
        Some(high) => format!("{{{low},{high}}}"),
        None => format!("{{{low}}}"),
    })
}
