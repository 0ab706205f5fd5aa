//! What hosts of our own noted on the sender's authenticity: `Authentication-Results` fields (RFC 8601).
//!
//! Anybody can write such a field. Only those are read that name one of our own hosts, above the second Received
//! field: below it stands what the sender handed in.

use crate::message::Message;

use super::subject::{Authentication, Outcome};

/// Longest field, most fields, and most results in each.
const FIELD_BYTES: usize = 8_192;
const FIELDS: usize = 20;
const RESULTS: usize = 50;

/// One result: `method=result`, its properties, and what stands in parentheses.
struct Stated<'f> {
    method: String,
    outcome: Outcome,
    words: Vec<&'f str>,
    comment: String,
}

impl Authentication {
    /// Reads what hosts with these names have noted; `None` where they have noted nothing.
    pub fn read(message: &Message, authserv_ids: &[String]) -> Option<Authentication> {
        if authserv_ids.is_empty() {
            return None;
        }
        let mut received = 0;
        let own = message.headers.iter().take_while(|header| {
            received += usize::from(header.name.eq_ignore_ascii_case("Received"));
            received < 2
        });
        let fields = own.filter(|header| header.name.eq_ignore_ascii_case("Authentication-Results"));
        let mut found = None;
        for field in fields.take(FIELDS) {
            let value = crate::message::text_prefix(&field.value, FIELD_BYTES);
            let (text, comments) = without_comments(value);
            let mut pieces = text.split(';').zip(comments.split(|comments| *comments == ';'));
            let Some((id, _)) = pieces.next() else { continue };
            let id = id.split_whitespace().next().unwrap_or_default().trim_matches('"');
            if !authserv_ids.iter().any(|known| known.eq_ignore_ascii_case(id)) {
                continue;
            }
            let into = found.get_or_insert_with(Authentication::default);
            // One field tells of all signatures: what a later one adds, the server in front may have let pass.
            let is_told = !into.dkim.is_empty();
            for (piece, comment) in pieces.take(RESULTS) {
                let stated = stated(piece, comment.iter().collect());
                if let Some(stated) = stated.filter(|stated| !(is_told && stated.method == "dkim")) {
                    into.take(&stated);
                }
            }
        }
        found
    }

    /// Takes a result in; the first of a method counts, and all signatures of the first field that has any.
    fn take(&mut self, stated: &Stated<'_>) {
        let domain = |key: &str| {
            let value = stated.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
            let value = value.trim_matches('"');
            Some(value.rsplit_once('@').map_or(value, |(_, domain)| domain).to_ascii_lowercase())
        };
        match stated.method.as_str() {
            "spf" if domain("smtp.helo").is_some() && domain("smtp.mailfrom").is_none() => {
                self.spf_helo.get_or_insert(stated.outcome);
            }
            "spf" => {
                self.spf.get_or_insert(stated.outcome);
            }
            "dkim" => {
                let signer = domain("header.d").or_else(|| domain("header.i"));
                self.dkim.extend(signer.map(|signer| (signer, stated.outcome)));
            }
            "dmarc" => {
                // The policy has no property of its own that all use: OpenDMARC and others write `p=reject`.
                let in_comment = stated.comment.to_ascii_lowercase();
                let policy = in_comment
                    .split(|c: char| c.is_whitespace() || c == ',')
                    .find_map(|word| word.strip_prefix("p=").map(str::to_owned))
                    .or_else(|| domain("policy.dmarc"))
                    .or_else(|| domain("policy.published-domain-policy"));
                if self.dmarc.is_none() {
                    (self.dmarc, self.dmarc_policy) = (Some(stated.outcome), policy);
                }
            }
            "arc" => {
                self.arc.get_or_insert(stated.outcome);
            }
            _ => {}
        }
    }
}

fn stated(piece: &str, comment: String) -> Option<Stated<'_>> {
    let mut words = piece.split_whitespace();
    let (method, result) = words.next()?.split_once('=')?;
    let method = method.split('/').next()?.to_ascii_lowercase();
    let outcome = match result.to_ascii_lowercase().as_str() {
        "none" => Outcome::None,
        "neutral" | "policy" => Outcome::Neutral,
        "pass" => Outcome::Pass,
        "softfail" => Outcome::SoftFail,
        "fail" | "hardfail" => Outcome::Fail,
        "temperror" => Outcome::TemporaryError,
        "permerror" => Outcome::PermanentError,
        _ => return None,
    };
    Some(Stated { method, outcome, words: words.collect(), comment })
}

/// Takes the comments out of a value (RFC 5322, section 3.2.2). Returns them too, with a `;` for each one of the
/// text, so that it is known which result each belongs to.
fn without_comments(value: &str) -> (String, Vec<char>) {
    let (mut text, mut comments) = (String::with_capacity(value.len()), Vec::new());
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    for c in value.chars() {
        let was_escaped = std::mem::take(&mut is_escaped);
        match c {
            _ if was_escaped => {}
            '\\' if depth > 0 || is_quoted => {
                is_escaped = true;
                continue;
            }
            '"' if depth == 0 => is_quoted = !is_quoted,
            '(' if !is_quoted => {
                depth += 1;
                text.push(' ');
                continue;
            }
            ')' if depth > 0 => {
                depth -= 1;
                comments.push(' ');
                continue;
            }
            ';' if is_quoted => continue,
            ';' if depth == 0 => comments.push(';'),
            _ => {}
        }
        if depth > 0 {
            // One in a comment is no border.
            comments.push(if c == ';' { ',' } else { c });
        } else {
            text.push(c);
        }
    }
    (text, comments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::parse;

    fn read(header: &str) -> Option<Authentication> {
        let raw = format!("{header}\nFrom: a@example.org\n\nx\n").replace('\n', "\r\n");
        Authentication::read(&parse(raw.as_bytes()), &["mx.example.net".to_owned()])
    }

    #[test]
    fn results_of_our_own_hosts_are_read() {
        let found = read(
            "Authentication-Results: MX.example.net (v1; x) 1; spf=softfail (a; b) smtp.mailfrom=a@example.org;\n \
             dkim=pass (2048-bit key) header.d=Example.ORG header.i=@example.org;\n dkim=fail header.i=@b.example;\n \
             dmarc=fail (p=reject dis=none) header.from=example.org; arc=none; iprev=pass\n\
             Authentication-Results: mx.example.net; spf=pass smtp.helo=h.example; spf=pass smtp.mailfrom=a@example.org;\n \
             dkim=pass header.d=later.example",
        );
        let expected = Authentication {
            spf: Some(Outcome::SoftFail),
            spf_helo: Some(Outcome::Pass),
            dkim: vec![("example.org".to_owned(), Outcome::Pass), ("b.example".to_owned(), Outcome::Fail)],
            dmarc: Some(Outcome::Fail),
            dmarc_policy: Some("reject".to_owned()),
            arc: Some(Outcome::None),
        };
        assert_eq!(found, Some(expected));
        assert_eq!(read("Authentication-Results: mx.example.net; none"), Some(Authentication::default()));
    }

    #[test]
    fn results_that_others_have_written_are_not() {
        assert_eq!(
            read("Authentication-Results: mx.example.com; spf=pass smtp.mailfrom=a@example.org"),
            None
        );
        let hop = "Received: from a by b; Mon, 1 Jan 2024 10:00:00 +0000";
        let field = "Authentication-Results: mx.example.net; dmarc=pass header.from=example.org";
        assert!(read(&format!("{hop}\n{field}")).is_some());
        assert_eq!(read(&format!("{hop}\n{hop}\n{field}")), None);
        let quoted = "Authentication-Results: \"x; mx.example.net\"; dmarc=pass";
        assert_eq!(read(quoted), None);
        assert_eq!(read("Authentication-Results: (mx.example.net; dmarc=pass) other.example"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_field_is_read(value in "(mx.example.net|spf|=|pass|;|[(]|[)]|\"|\\\\|p=|header.d|[a-z ]){0,30}") {
            drop(read(&format!("Authentication-Results: mx.example.net; {value}")));
        }
    }
}
