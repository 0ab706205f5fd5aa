//! Single characters and classes in Perl's spelling: escapes, code points, brackets.

use super::translate::Rest;

/// What an escape stands for, in a class or out of it.
pub(super) enum Piece {
    Class(String),
    Code(u32),
}

/// Reads an escape after its backslash.
pub(super) fn character(c: char, rest: &mut Rest<'_>) -> Result<Piece, String> {
    Ok(match c {
        'w' | 'd' | 's' | 'W' | 'D' | 'S' => Piece::Class(format!("\\{c}")),
        'h' => Piece::Class("[ \\t]".to_owned()),
        'H' => Piece::Class("[^ \\t]".to_owned()),
        'v' => Piece::Class("[\\n\\x0B\\x0C\\r]".to_owned()),
        'V' => Piece::Class("[^\\n\\x0B\\x0C\\r]".to_owned()),
        'p' | 'P' => {
            let mut name = String::new();
            match rest.next() {
                Some('{') => name.extend(rest.by_ref().take_while(|c| *c != '}')),
                Some(letter) => name.push(letter),
                None => return Err("the pattern ends within an escape".to_owned()),
            }
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_=^ ".contains(c)) {
                return Err("this property is not supported".to_owned());
            }
            Piece::Class(format!("\\{c}{{{name}}}"))
        }
        'n' => Piece::Code(10),
        'r' => Piece::Code(13),
        't' => Piece::Code(9),
        'f' => Piece::Code(12),
        'a' => Piece::Code(7),
        'e' => Piece::Code(27),
        'c' => {
            let letter = rest.next().filter(char::is_ascii).ok_or("the pattern ends within an escape")?;
            Piece::Code(u32::from(letter.to_ascii_uppercase()) ^ 64)
        }
        'x' => {
            let mut digits = String::new();
            if rest.next_if_eq(&'{').is_some() {
                digits.extend(rest.by_ref().take_while(|c| *c != '}').filter(|c| !c.is_whitespace()));
            } else {
                while digits.len() < 2
                    && let Some(digit) = rest.next_if(char::is_ascii_hexdigit)
                {
                    digits.push(digit);
                }
            }
            let digits = if digits.is_empty() { "0" } else { &digits };
            let code = u32::from_str_radix(digits, 16).ok().filter(|code| char::from_u32(*code).is_some());
            Piece::Code(code.ok_or("this character does not exist")?)
        }
        '0'..='7' => {
            let mut digits = c.to_string();
            while digits.len() < 3
                && let Some(digit) = rest.next_if(|c| matches!(c, '0'..='7'))
            {
                digits.push(digit);
            }
            Piece::Code(u32::from_str_radix(&digits, 8).unwrap_or(0))
        }
        c => Piece::Code(u32::from(c)),
    })
}

/// Writes a character so that it stands for itself, in a class or out of it.
pub(super) fn escaped(c: char) -> String {
    if c.is_ascii() && !c.is_ascii_alphanumeric() { code_point(u32::from(c)) } else { c.to_string() }
}

pub(super) fn code_point(code: u32) -> String {
    match u8::try_from(code).map(char::from) {
        Ok(c) if c.is_ascii_alphanumeric() || matches!(c, '_' | ' ' | '/' | ':' | '@' | '"' | '=' | ',') => {
            // A blank would be lost in an extended pattern, but those are not handed on as such.
            c.to_string()
        }
        Ok(c) if c.is_ascii_punctuation() && !matches!(c, '<' | '>') => format!("\\{c}"),
        Ok(_) => format!("\\x{code:02X}"),
        Err(_) => format!("\\x{{{code:X}}}"),
    }
}

/// Reads a bracketed class after its opening bracket.
pub(super) fn class(rest: &mut Rest<'_>, is_unicode: bool) -> Result<String, String> {
    let mut out = String::from("[");
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut is_first = true;
    // The last single character, which a range may begin with.
    let mut low: Option<u32> = None;
    let mut in_range = false;
    loop {
        let c = rest.next().ok_or("a class is not closed")?;
        let piece = match c {
            ']' if !is_first => break,
            '[' if matches!(rest.peek(), Some(':')) && rest.clone().any(|c| c == ']') => {
                let name: String = rest.by_ref().take_while(|c| *c != ']').collect();
                let inner = name.strip_prefix(':').and_then(|name| name.strip_suffix(':'));
                let word = inner.map(|name| name.trim_start_matches('^')).unwrap_or_default();
                if word.is_empty() || !word.chars().all(|c| c.is_ascii_alphabetic()) {
                    return Err("this class is not supported".to_owned());
                }
                Piece::Class(format!("[{name}]"))
            }
            '\\' => match rest.next().ok_or("the pattern ends with a backslash")? {
                'b' => Piece::Code(8),
                'E' | 'Q' => continue,
                c => character(c, rest)?,
            },
            '-' if low.is_some() && !in_range && rest.peek().is_some_and(|c| *c != ']') => {
                in_range = true;
                continue;
            }
            c if !is_unicode && !c.is_ascii() => {
                // Over bytes a class has the bytes of a character as its members.
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    out.push_str(&format!("\\x{byte:02X}"));
                }
                is_first = false;
                continue;
            }
            c => Piece::Code(u32::from(c)),
        };
        is_first = false;
        match piece {
            Piece::Class(class) => {
                if std::mem::take(&mut in_range) {
                    out.push_str("\\-");
                }
                out.push_str(&class);
                low = None;
            }
            Piece::Code(code) => {
                if std::mem::take(&mut in_range) {
                    if low.is_some_and(|low| low > code) {
                        return Err("a range in a class runs backwards".to_owned());
                    }
                    out.push('-');
                    low = None;
                } else {
                    low = Some(code);
                }
                out.push_str(&code_point(code));
            }
        }
    }
    out.push(']');
    Ok(out)
}
