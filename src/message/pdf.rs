//! What a PDF does and where it leads: actions and links, in plain objects and in compressed ones
//! (ISO 32000-1, sections 7.5.7 and 12.6).
//!
//! Objects are not followed: words are looked for in the file and in the streams that inflate within the
//! budget. Encrypted files keep their secrets.

use std::borrow::Cow;

use memchr::memmem;

/// Most streams that are inflated, and bytes of each.
const STREAMS: usize = 500;
const STREAM_BYTES: usize = 1 << 20;
/// Most links that are read.
const LINKS: usize = 20;
/// Longest link.
const LINK_BYTES: usize = 2_048;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pdf {
    /// Link targets.
    pub(super) links: Vec<String>,
    /// Whether it runs a script or starts a program.
    pub(super) has_script: bool,
    /// Whether a password is needed.
    pub(super) is_encrypted: bool,
}

/// Reads a file; `budget` is what may be inflated.
pub(super) fn read(bytes: &[u8], mut budget: usize) -> Pdf {
    let mut pdf = Pdf { is_encrypted: memmem::find(bytes, b"/Encrypt").is_some(), ..Pdf::default() };
    pdf.look(bytes);
    for at in memmem::find_iter(bytes, b"stream").take(2 * STREAMS) {
        // Pictures and fonts hold no objects; what has no filter was looked at already.
        let dictionary = bytes.get(at.saturating_sub(400)..at).unwrap_or_default();
        let dictionary = memmem::rfind(dictionary, b"obj")
            .map_or(dictionary, |from| dictionary.get(from..).unwrap_or_default());
        let has = |word: &[u8]| memmem::find(dictionary, word).is_some();
        if !has(b"/FlateDecode") || has(b"/Image") || has(b"/FontFile") || budget == 0 {
            continue;
        }
        let data = bytes.get(at + 6..).unwrap_or_default();
        let data = data.strip_prefix(b"\r\n").or_else(|| data.strip_prefix(b"\n")).unwrap_or(data);
        let end = memmem::find(data, b"endstream").unwrap_or(data.len());
        let limit = budget.min(STREAM_BYTES);
        let data = data.get(..end).unwrap_or_default();
        let inflated = match miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(data, limit) {
            Ok(inflated) => inflated,
            // Cut off, or with rubbish at its end: what came until then counts.
            Err(error) => error.output,
        };
        budget = budget.saturating_sub(inflated.len());
        pdf.look(&inflated);
    }
    pdf
}

impl Pdf {
    fn look(&mut self, bytes: &[u8]) {
        self.has_script |=
            [&b"/JavaScript"[..], b"/Launch"].iter().any(|word| memmem::find(bytes, word).is_some());
        for at in memmem::find_iter(bytes, b"/URI").take(10 * LINKS) {
            if self.links.len() >= LINKS {
                break;
            }
            let rest = bytes.get(at + 4..bytes.len().min(at + 4 + LINK_BYTES)).unwrap_or_default();
            let link = string(rest.trim_ascii_start())
                .map(|link| super::field::clean(&String::from_utf8_lossy(&link)));
            if let Some(link) = link.filter(|link| !link.is_empty() && !self.links.contains(link)) {
                self.links.push(link);
            }
        }
    }
}

/// Reads a string at the beginning of a text: `(...)` with escapes, or `<...>` in hexadecimal digits.
fn string(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if let Some(digits) = text.strip_prefix(b"<") {
        let digits = digits.get(..memchr::memchr(b'>', digits)?)?;
        let value = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        return digits.chunks(2).map(value).collect::<Option<Vec<u8>>>().map(Cow::Owned);
    }
    let rest = text.strip_prefix(b"(")?;
    let mut out = Vec::new();
    let (mut depth, mut is_escaped) = (1_usize, false);
    for byte in rest {
        match byte {
            _ if std::mem::take(&mut is_escaped) => out.push(*byte),
            b'\\' => is_escaped = true,
            b'(' => {
                depth += 1;
                out.push(*byte);
            }
            b')' => {
                depth -= 1;
                if depth == 0 {
                    return Some(Cow::Owned(out));
                }
                out.push(*byte);
            }
            _ => out.push(*byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(bytes: &[u8]) -> Vec<String> {
        read(bytes, 1 << 20).links
    }

    #[test]
    fn links_are_read_in_every_spelling() {
        assert_eq!(links(b"%PDF-1.4 <</S/URI/URI (https://a.example/x)>>"), ["https://a.example/x"]);
        assert_eq!(links(b"/URI(https://a.example/\\(x\\)(y))"), ["https://a.example/(x)(y)"]);
        assert_eq!(links(b"/URI <68747470733a2f2f622e6578616d706c65>"), ["https://b.example"]);
        assert_eq!(links(b"/URI (unfinished /URI <zz>"), Vec::<String>::new());
    }

    #[test]
    fn compressed_objects_are_looked_into_within_the_budget() {
        let packed =
            miniz_oxide::deflate::compress_to_vec_zlib(b"<</S/URI/URI(https://c.example/)>> /JavaScript", 6);
        let file =
            [b"%PDF-1.5 1 0 obj <</Filter/FlateDecode>> stream\r\n".as_slice(), &packed, b"\nendstream"]
                .concat();
        let found = read(&file, 1 << 20);
        assert_eq!((found.links, found.has_script), (vec!["https://c.example/".to_owned()], true));
        assert_eq!(read(&file, 0), Pdf::default());
        let bomb = miniz_oxide::deflate::compress_to_vec_zlib(&vec![b' '; 50 << 20], 6);
        let file = [b"1 0 obj <</Filter/FlateDecode>> stream\n".as_slice(), &bomb, b"endstream"].concat();
        assert_eq!(read(&file, 8 << 20), Pdf::default());
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_read(bytes in "(?s)(/URI|stream\n|obj|/FlateDecode|[(<>)\\\\a-f0-9 ]){0,60}") {
            drop(read(bytes.as_bytes(), 1 << 16));
        }
    }
}
