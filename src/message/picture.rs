//! QR codes in pictures, read in process: what one says is a link like another (ISO/IEC 18004).
//!
//! Pictures come from the sender, so only their size is believed, and only within a budget of pixels. A
//! decoder that gives up on a picture costs its codes and nothing else.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use image::{GrayImage, ImageReader};

use super::link;

/// Smallest side of a picture that can hold a code: the smallest has 21 modules.
const SMALLEST_SIDE: u32 = 21;
/// Longest side, and most bytes that decoding may take.
const LONGEST_SIDE: u32 = 4_096;
const DECODE_BYTES: u64 = 48 << 20;
/// Largest picture that is looked at in reverse too, in pixels, if it is mostly dark.
const REVERSED_PIXELS: u64 = 1 << 20;
/// Most codes that are read in one picture.
const CODES: usize = 4;
/// Longest text of a code: the largest holds 4,296 letters.
const CODE_BYTES: usize = 4_296;

/// White space and missing padding are forgiven, as browsers do.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whether the bytes begin as a picture that is decoded here.
pub(super) fn is_picture(bytes: &[u8]) -> bool {
    [&b"\x89PNG"[..], b"\xff\xd8\xff", b"GIF8"].iter().any(|start| bytes.starts_with(start))
        || bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
}

/// Reads the links in the codes of a picture in a file format. `pixels` is what may still be decoded.
pub(super) fn links(bytes: &[u8], pixels: &mut usize) -> Vec<String> {
    if !is_picture(bytes) {
        return Vec::new();
    }
    // What a decoder does to itself with a hostile picture must not cost the message its other findings.
    catch_unwind(AssertUnwindSafe(|| gray(bytes, pixels).map(|picture| codes(picture, pixels))))
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// Reads the links in the codes of rows of gray pixels, 0 is black.
pub(super) fn links_in_gray(width: u32, height: u32, gray: Vec<u8>, pixels: &mut usize) -> Vec<String> {
    let is_fit = fits(width, height, pixels);
    let Some(picture) = GrayImage::from_raw(width, height, gray).filter(|_| is_fit) else {
        return Vec::new();
    };
    catch_unwind(AssertUnwindSafe(|| codes(picture, pixels))).unwrap_or_default()
}

/// Returns the picture of a `data:` address (RFC 2397).
pub(super) fn from_data(address: &str) -> Option<Vec<u8>> {
    let (head, data) = address.get(5..)?.split_once(',')?;
    let is_base64 = head.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
    if !is_base64 {
        return None;
    }
    let data: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    LENIENT.decode(data).ok()
}

/// Returns width and height as the file says.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    if !is_picture(bytes) {
        return None;
    }
    let read = || ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?.into_dimensions().ok();
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

/// Takes a picture from the budget, if it may be decoded.
fn fits(width: u32, height: u32, pixels: &mut usize) -> bool {
    let area = usize::try_from(u64::from(width) * u64::from(height)).unwrap_or(usize::MAX);
    let is_fit = width.min(height) >= SMALLEST_SIDE && width.max(height) <= LONGEST_SIDE && area <= *pixels;
    if is_fit {
        *pixels -= area;
    }
    is_fit
}

fn gray(bytes: &[u8], pixels: &mut usize) -> Option<GrayImage> {
    let reader = || ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok();
    let (width, height) = reader()?.into_dimensions().ok()?;
    if !fits(width, height, pixels) {
        return None;
    }
    let mut reader = reader()?;
    let mut limits = image::Limits::no_limits();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(DECODE_BYTES);
    reader.limits(limits);
    let picture = reader.decode().ok()?;
    if !picture.color().has_alpha() {
        return Some(picture.into_luma8());
    }
    // What can be seen through is seen on white.
    let picture = picture.into_luma_alpha8();
    let on_white = picture.pixels().map(|pixel| {
        let [gray, alpha] = pixel.0.map(u32::from);
        u8::try_from((gray * alpha + 255 * (255 - alpha)) / 255).unwrap_or(u8::MAX)
    });
    GrayImage::from_raw(picture.width(), picture.height(), on_white.collect())
}

fn codes(picture: GrayImage, pixels: &mut usize) -> Vec<String> {
    let found = decode(&picture);
    // A code in white on black is read by cameras all the same.
    let sum: u64 = picture.as_raw().iter().map(|gray| u64::from(*gray)).sum();
    let area = picture.as_raw().len() as u64;
    let is_dark = sum < 128 * area && area <= REVERSED_PIXELS;
    if found.is_empty() && is_dark && fits(picture.width(), picture.height(), pixels) {
        let mut picture = picture;
        image::imageops::invert(&mut picture);
        return decode(&picture);
    }
    found
}

fn decode(picture: &GrayImage) -> Vec<String> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let pixels = picture.as_raw();
    let gray = |x: usize, y: usize| pixels.get(y * width + x).copied().unwrap_or(255);
    let mut prepared = rqrr::PreparedImage::prepare_from_greyscale(width, height, gray);
    let mut links = Vec::new();
    for grid in prepared.detect_grids().into_iter().take(CODES) {
        let Ok((_, text)) = grid.decode() else { continue };
        let text = super::decode::prefix(text.trim(), CODE_BYTES);
        let whole = link::host(text).map(|_| text.to_owned());
        let link = whole.or_else(|| link::in_text(text).next().map(str::to_owned));
        if let Some(link) = link.filter(|link| !links.contains(link)) {
            links.push(link);
        }
    }
    links
}

#[cfg(test)]
pub(super) mod tests {
    use image::{DynamicImage, ImageFormat, Luma, LumaA};
    use qrcode::{Color, QrCode};

    use super::*;

    const SIDE: u32 = 4;

    /// Draws a code for a text, with its quiet zone.
    pub(in crate::message) fn draw(text: &str) -> GrayImage {
        let code = QrCode::new(text).unwrap();
        let modules = u32::try_from(code.width()).unwrap();
        GrayImage::from_fn((modules + 8) * SIDE, (modules + 8) * SIDE, |x, y| {
            let (x, y) = ((x / SIDE).wrapping_sub(4), (y / SIDE).wrapping_sub(4));
            let is_dark = x < modules && y < modules && code[(x as usize, y as usize)] == Color::Dark;
            Luma([if is_dark { 0 } else { 255 }])
        })
    }

    pub(in crate::message) fn write(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture.into().write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn read(file: &[u8]) -> Vec<String> {
        links(file, &mut (8 << 20))
    }

    #[test]
    fn codes_are_links_in_every_format() {
        let picture = draw("https://sign-in.example/?id=7");
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif] {
            let file = write(DynamicImage::from(picture.clone()).into_rgb8(), format);
            assert_eq!(read(&file), ["https://sign-in.example/?id=7"], "{format:?}");
        }
        let mut inverted = picture.clone();
        image::imageops::invert(&mut inverted);
        assert_eq!(read(&write(inverted, ImageFormat::Png)).len(), 1);
        let clear = image::ImageBuffer::from_fn(picture.width(), picture.height(), |x, y| {
            LumaA([0_u8, 255 - picture.get_pixel(x, y).0[0]])
        });
        assert_eq!(read(&write(DynamicImage::ImageLumaA8(clear), ImageFormat::Png)).len(), 1);
    }

    #[test]
    fn what_is_no_link_or_too_large_is_none() {
        assert_eq!(read(&write(draw("WIFI:T:WPA;S:guest;;"), ImageFormat::Png)), [""; 0]);
        assert_eq!(read(&write(draw("see www.example.org"), ImageFormat::Png)), ["www.example.org"]);
        let file = write(draw("https://a.example/"), ImageFormat::Png);
        let mut pixels = 1_000;
        assert_eq!((links(&file, &mut pixels).len(), pixels), (0, 1_000));
        assert!(read(&file[..file.len() / 2]).is_empty() && read(b"\x89PNG\r\n\x1a\n").is_empty());
    }

    #[test]
    fn pictures_in_addresses_are_read() {
        let address = format!("data:image/png;base64,{}", LENIENT.encode(b"\x89PNG"));
        assert_eq!(from_data(&address).as_deref(), Some(&b"\x89PNG"[..]));
        assert_eq!(from_data("DATA:image/png; Base64 , iVBO\r\n Rw").as_deref(), Some(&b"\x89PNG"[..]));
        assert_eq!(from_data("data:text/plain,hello"), None);
        assert_eq!(from_data("data:é"), None);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
        #[test]
        fn damaged_codes_are_read_or_not(
            text in "https://[a-z]{1,40}\\.example/",
            spots in proptest::collection::vec((0_u32..200, 0_u32..200, 0_u32..30, proptest::prelude::any::<u8>()), 0..12),
        ) {
            let mut picture = draw(&text);
            for (left, top, side, gray) in spots {
                for (x, y) in (left..left + side).flat_map(|x| (top..top + side).map(move |y| (x, y))) {
                    if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
                        *pixel = Luma([gray]);
                    }
                }
            }
            for link in read(&write(picture, ImageFormat::Png)) {
                proptest::prop_assert!(link.len() <= CODE_BYTES);
            }
        }
    }
}
