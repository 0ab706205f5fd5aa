//! What a PDF does and where it leads: actions and links, in plain objects and in compressed ones
//! (ISO 32000-1, sections 7.5.7 and 12.6).
//!
//! Objects are not followed: words are looked for in the file and in the streams that inflate within the
//! budget. Encrypted files keep their secrets.

use std::borrow::Cow;

use memchr::memmem;

use super::picture;

/// Most streams that are inflated, and bytes of each.
const STREAMS: usize = 500;
const STREAM_BYTES: usize = 1 << 20;
/// Most links that are read.
const LINKS: usize = 20;
/// Longest side of a picture that is inflated.
const PICTURE_SIDE: usize = 4_096;
/// Longest link.
const LINK_BYTES: usize = 2_048;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pdf {
    /// Link targets.
    pub(super) links: Vec<String>,
    /// Link targets in the QR codes of its pictures.
    pub(super) codes: Vec<String>,
    /// Whether it runs a script or starts a program.
    pub(super) has_script: bool,
    /// Whether a password is needed.
    pub(super) is_encrypted: bool,
}

/// Reads a file; `budget` is what may be inflated, `pixels` in how many QR codes may be looked for.
pub(super) fn read(bytes: &[u8], mut budget: usize, pixels: &mut usize) -> Pdf {
    let mut pdf = Pdf { is_encrypted: memmem::find(bytes, b"/Encrypt").is_some(), ..Pdf::default() };
    pdf.look(bytes);
    for at in memmem::find_iter(bytes, b"stream").take(2 * STREAMS) {
        let dictionary = bytes.get(at.saturating_sub(400)..at).unwrap_or_default();
        let dictionary = memmem::rfind(dictionary, b"obj")
            .map_or(dictionary, |from| dictionary.get(from..).unwrap_or_default());
        let has = |word: &[u8]| memmem::find(dictionary, word).is_some();
        let data = bytes.get(at + 6..).unwrap_or_default();
        let data = data.strip_prefix(b"\r\n").or_else(|| data.strip_prefix(b"\n")).unwrap_or(data);
        if has(b"/Image") && pdf.codes.len() < LINKS {
            let end = memmem::find(data, b"endstream").unwrap_or(data.len());
            pdf.codes.extend(picture_links(
                dictionary,
                data.get(..end).unwrap_or_default(),
                &mut budget,
                pixels,
            ));
            continue;
        }
        // Fonts hold no objects; what has no filter was looked at already.
        if !has(b"/FlateDecode") || has(b"/FontFile") || budget == 0 {
            continue;
        }
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

/// Reads the QR codes of a picture (ISO 32000-1, section 8.9.5): JPEG as it is, and rows of gray, RGB or
/// two-coloured pixels that are inflated, with the predictors of PNG or none.
fn picture_links(dictionary: &[u8], data: &[u8], budget: &mut usize, pixels: &mut usize) -> Vec<String> {
    let has = |word: &[u8]| memmem::find(dictionary, word).is_some();
    if has(b"/DCTDecode") {
        return picture::links(data, pixels);
    }
    let number = |key: &[u8]| {
        let at = memmem::find_iter(dictionary, key).map(|at| at + key.len());
        at.filter_map(|at| {
            let rest = dictionary.get(at..)?.trim_ascii_start();
            let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
            std::str::from_utf8(rest.get(..end)?).ok()?.parse::<usize>().ok()
        })
        .next()
    };
    let (Some(width), Some(height)) = (number(b"/Width"), number(b"/Height")) else { return Vec::new() };
    let bits = number(b"/BitsPerComponent").unwrap_or(1);
    let channels = if has(b"RGB") { 3 } else { 1 };
    let is_readable =
        has(b"/FlateDecode") && !has(b"/Indexed") && matches!((bits, channels), (8, _) | (1, 1));
    if !is_readable || width == 0 || width > PICTURE_SIDE || height > PICTURE_SIDE {
        return Vec::new();
    }
    let row = (width * bits * channels).div_ceil(8);
    let is_predicted = number(b"/Predictor").is_some_and(|predictor| predictor >= 10);
    let size = (row + usize::from(is_predicted)) * height;
    if size > *budget {
        return Vec::new();
    }
    let rows = match miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(data, size) {
        Ok(rows) => rows,
        Err(error) => error.output,
    };
    *budget -= rows.len().min(*budget);
    let Some(rows) =
        (if is_predicted { unpredict(&rows, row, (bits * channels).div_ceil(8)) } else { Some(rows) })
    else {
        return Vec::new();
    };
    let is_inverted = has(b"/Decode[1 0]") || has(b"/Decode [1 0]");
    let mut gray = Vec::with_capacity(width * height);
    for row in rows.chunks_exact(row) {
        gray.extend((0..width).map(|x| {
            let value = match (bits, channels) {
                (1, _) => 255 * (row.get(x / 8).copied().unwrap_or(0) >> (7 - x % 8) & 1),
                (_, 3) => row.get(3 * x + 1).copied().unwrap_or(0),
                _ => row.get(x).copied().unwrap_or(0),
            };
            if is_inverted { 255 - value } else { value }
        }));
    }
    let side = |length: usize| u32::try_from(length).unwrap_or(0);
    picture::links_in_gray(side(width), side(gray.len() / width), gray, pixels)
}

/// Undoes the filters of PNG (W3C PNG, section 9): a byte before each row says which.
fn unpredict(rows: &[u8], row: usize, pixel: usize) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::with_capacity(rows.len());
    for line in rows.chunks_exact(row + 1) {
        let (filter, line) = line.split_first()?;
        let start = out.len();
        for (x, value) in line.iter().enumerate() {
            let known = |back: Option<usize>| back.and_then(|at| out.get(at)).copied().unwrap_or(0);
            let left = known((x >= pixel).then(|| start + x - pixel));
            let up = known((start + x).checked_sub(row));
            let corner = known((x >= pixel).then(|| (start + x - pixel).checked_sub(row)).flatten());
            let predicted = match filter {
                0 => 0,
                1 => left,
                2 => up,
                3 => u8::try_from((u16::from(left) + u16::from(up)) / 2).unwrap_or(0),
                4 => {
                    let sum = i16::from(left) + i16::from(up) - i16::from(corner);
                    let far = |from: u8| (sum - i16::from(from)).abs();
                    if far(left) <= far(up) && far(left) <= far(corner) {
                        left
                    } else if far(up) <= far(corner) {
                        up
                    } else {
                        corner
                    }
                }
                _ => return None,
            };
            out.push(value.wrapping_add(predicted));
        }
    }
    Some(out)
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

/// Reads a string at the beginning of a text: `(...)` with escapes, or `<...>` in hexadecimal digits
/// (ISO 32000-1, section 7.3.4).
fn string(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if let Some(digits) = text.strip_prefix(b"<") {
        let digits = digits.get(..memchr::memchr(b'>', digits)?)?;
        let value = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        return digits.chunks(2).map(value).collect::<Option<Vec<u8>>>().map(Cow::Owned);
    }
    let mut rest = text.strip_prefix(b"(")?.iter().copied().peekable();
    let mut out = Vec::new();
    let mut depth = 1_usize;
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => match rest.next()? {
                first @ b'0'..=b'7' => {
                    let mut value = u32::from(first - b'0');
                    for _ in 0..2 {
                        let Some(digit) = rest.next_if(|byte| matches!(byte, b'0'..=b'7')) else { break };
                        value = 8 * value + u32::from(digit - b'0');
                    }
                    // High bits are dropped, as the standard says.
                    out.push(u8::try_from(value & 0xff).unwrap_or_default());
                }
                escaped => out.push(escaped),
            },
            b'(' => {
                depth += 1;
                out.push(byte);
            }
            b')' => {
                depth -= 1;
                if depth == 0 {
                    return Some(Cow::Owned(out));
                }
                out.push(byte);
            }
            _ => out.push(byte),
        }
    }
    None
}

/// Reads a text string (ISO 32000-1, section 7.9.2.2): UTF-16 behind its mark, else ISO 8859-1, which is nearly
/// what such files use.
pub(super) fn text_string(text: &[u8]) -> Option<String> {
    let bytes = string(text)?;
    let wide = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(read));
        String::from_utf16_lossy(&units.collect::<Vec<u16>>())
    };
    Some(match bytes.get(..2) {
        Some(b"\xfe\xff") => wide(bytes.get(2..)?, u16::from_be_bytes),
        Some(b"\xff\xfe") => wide(bytes.get(2..)?, u16::from_le_bytes),
        _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(bytes: &[u8]) -> Vec<String> {
        read(bytes, 1 << 20, &mut 0).links
    }

    #[test]
    fn links_are_read_in_every_spelling() {
        assert_eq!(links(b"%PDF-1.4 <</S/URI/URI (https://a.example/x)>>"), ["https://a.example/x"]);
        assert_eq!(links(b"/URI(https://a.example/\\(x\\)(y))"), ["https://a.example/(x)(y)"]);
        assert_eq!(links(b"/URI <68747470733a2f2f622e6578616d706c65>"), ["https://b.example"]);
        assert_eq!(links(b"/URI (unfinished /URI <zz>"), Vec::<String>::new());
    }

    #[test]
    fn strings_are_read_with_their_escapes() {
        assert_eq!(links(b"/URI(http\\163://\\145.example/a)"), ["https://e.example/a"]);
        let text = |bytes: &[u8]| text_string(bytes).unwrap_or_default();
        assert_eq!(text(b"(Foo \\(bar\\) \\344)"), "Foo (bar) \u{e4}");
        assert_eq!(text(b"(\\376\\377\\000H\\000P)"), "HP");
        assert_eq!(text(b"<FEFF0057>"), "W");
        assert_eq!(text(b"(endless \\"), "");
    }

    #[test]
    fn compressed_objects_are_looked_into_within_the_budget() {
        let packed =
            miniz_oxide::deflate::compress_to_vec_zlib(b"<</S/URI/URI(https://c.example/)>> /JavaScript", 6);
        let file =
            [b"%PDF-1.5 1 0 obj <</Filter/FlateDecode>> stream\r\n".as_slice(), &packed, b"\nendstream"]
                .concat();
        let found = read(&file, 1 << 20, &mut 0);
        assert_eq!((found.links, found.has_script), (vec!["https://c.example/".to_owned()], true));
        assert_eq!(read(&file, 0, &mut 0), Pdf::default());
        let bomb = miniz_oxide::deflate::compress_to_vec_zlib(&vec![b' '; 50 << 20], 6);
        let file = [b"1 0 obj <</Filter/FlateDecode>> stream\n".as_slice(), &bomb, b"endstream"].concat();
        assert_eq!(read(&file, 8 << 20, &mut 0), Pdf::default());
    }

    #[test]
    fn pictures_tell_their_codes() {
        use super::picture::tests::{draw, write};
        let picture = draw("https://d.example/");
        let (width, height) = picture.dimensions();
        let zlib = |bytes: &[u8]| miniz_oxide::deflate::compress_to_vec_zlib(bytes, 6);
        let rows = picture.as_raw().chunks(width as usize);
        let predicted: Vec<u8> = rows
            .scan(vec![0; width as usize], |above, row| {
                let filtered = row.iter().zip(above.iter()).map(|(value, up)| value.wrapping_sub(*up));
                let line: Vec<u8> = std::iter::once(2).chain(filtered).collect();
                *above = row.to_vec();
                Some(line)
            })
            .flatten()
            .collect();
        let packed: Vec<u8> = picture
            .as_raw()
            .chunks(width as usize)
            .flat_map(|row| {
                row.chunks(8)
                    .map(|eight| eight.iter().enumerate().map(|(bit, gray)| (gray >> 7) << (7 - bit)).sum())
                    .collect::<Vec<u8>>()
            })
            .collect();
        let jpeg = write(picture.clone(), image::ImageFormat::Jpeg);
        for (keys, data) in [
            ("/BitsPerComponent 8/ColorSpace/DeviceGray/Filter/FlateDecode", zlib(picture.as_raw())),
            (
                "/BitsPerComponent 8/Filter/FlateDecode/DecodeParms<</Predictor 15/Columns 9>>",
                zlib(&predicted),
            ),
            ("/BitsPerComponent 1/Filter /FlateDecode", zlib(&packed)),
            ("/ColorSpace/DeviceRGB/Filter/DCTDecode", jpeg),
        ] {
            let head = format!("1 0 obj <</Subtype/Image/Width {width}/Height {height}{keys}>> stream\n");
            let file = [b"%PDF-1.4\n", head.as_bytes(), &data, b"\nendstream"].concat();
            assert_eq!(read(&file, 1 << 20, &mut (1 << 20)).codes, ["https://d.example/"], "{keys}");
            assert!(read(&file, 1 << 20, &mut 100).codes.is_empty());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_read(bytes in "(?s)(/URI|stream\n|obj|/FlateDecode|[(<>)\\\\a-f0-9 ]){0,60}") {
            drop(read(bytes.as_bytes(), 1 << 16, &mut (1 << 16)));
        }
    }
}
