//! Replies of an SMTP server, ours or the next hop's (RFC 5321, section 4.2; RFC 3463).

use std::fmt;

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A reply: three digits, an enhanced code where one applies, and one or more lines of text.
///
/// A next hop's text may quote an address, so `Debug` prints the codes alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<EnhancedCode>,
    lines: Vec<String>,
}

impl Reply {
    /// Makes a reply of one line with an enhanced code.
    pub fn new(code: u16, enhanced: EnhancedCode, text: impl Into<String>) -> Self {
        Reply { code, enhanced: Some(enhanced), lines: vec![clean(&text.into())] }
    }

    /// Makes a reply without an enhanced code: greetings, EHLO, 354, and what a next hop sent without one.
    pub fn plain<T: Into<String>>(code: u16, lines: impl IntoIterator<Item = T>) -> Self {
        let mut lines: Vec<String> = lines.into_iter().map(|line| clean(&line.into())).collect();
        if lines.is_empty() {
            lines.push(String::new());
        }
        Reply { code, enhanced: None, lines }
    }

    /// Sets the enhanced code, or takes it away.
    pub fn with_enhanced(mut self, enhanced: Option<EnhancedCode>) -> Self {
        self.enhanced = enhanced;
        self
    }

    /// Returns the three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Returns the enhanced status code.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        self.enhanced
    }

    /// Returns the lines of text, without codes.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether the code is 2xx.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether the code is 4xx.
    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// Whether the code is 5xx.
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// Writes the reply as it goes over the wire, every line ended by CRLF.
    pub fn to_wire(&self) -> String {
        let mut wire = String::new();
        let last = self.lines.len().saturating_sub(1);
        for (index, line) in self.lines.iter().enumerate() {
            let separator = if index == last { ' ' } else { '-' };
            wire.push_str(&format!("{:03}{separator}", self.code));
            if let Some(enhanced) = self.enhanced {
                wire.push_str(&format!("{enhanced} "));
            }
            wire.push_str(line);
            wire.push_str("\r\n");
        }
        wire
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.enhanced {
            Some(enhanced) => write!(f, "Reply({} {enhanced})", self.code),
            None => write!(f, "Reply({})", self.code),
        }
    }
}

/// Replaces what would break the reply's line structure, and bounds the line (RFC 5321, 4.5.3.1.5).
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(480).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_go_over_the_wire_line_by_line() {
        let reply = Reply::new(250, EnhancedCode(2, 0, 0), "kept as 1");
        assert_eq!(reply.to_wire(), "250 2.0.0 kept as 1\r\n");
        let reply = Reply::plain(250, ["mx.example", "SIZE 1000", "PIPELINING"]);
        assert_eq!(reply.to_wire(), "250-mx.example\r\n250-SIZE 1000\r\n250 PIPELINING\r\n");
    }

    #[test]
    fn line_breaks_in_a_text_do_not_make_a_second_reply() {
        let reply = Reply::new(550, EnhancedCode(5, 1, 1), "no\r\n250 yes");
        assert_eq!(reply.to_wire(), "550 5.1.1 no  250 yes\r\n");
    }
}
