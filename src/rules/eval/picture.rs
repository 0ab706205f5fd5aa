//! How many and how large the attached pictures are: SpamAssassin's `ImageInfo`.

use super::{Context, Function, argument_matches, between, number, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("image_count", |context, arguments| {
        let count = pictures(context).iter().filter(|picture| picture.is_of(arguments)).count();
        plainly(between(count as f64, arguments.get(1..)?))
    }),
    ("pixel_coverage", |context, arguments| plainly(between(area(context, arguments), arguments.get(1..)?))),
    ("image_to_text_ratio", |context, arguments| {
        let (area, text) = (area(context, arguments), context.message.text.len() as f64);
        plainly(
            area > 0.0
                && text > 0.0
                && between(text / area, arguments.get(1..)?)
                && number(arguments, 2) != Some(text / area),
        )
    }),
    ("image_size_exact", |context, arguments| {
        let wanted = (number(arguments, 1)?, number(arguments, 2)?);
        plainly(sized(context, arguments).any(|size| size == wanted))
    }),
    ("image_size_range", |context, arguments| {
        let (low, high) = (arguments.get(1..3)?, arguments.get(3..).unwrap_or_default());
        plainly(sized(context, arguments).any(|size| is_within(size, low, high)))
    }),
    ("image_named", |context, arguments| {
        let name = arguments.first()?;
        plainly(pictures(context).iter().any(|picture| picture.area() > 0.0 && picture.name == *name))
    }),
    ("image_name_regex", |context, arguments| {
        let pictures = pictures(context);
        let names = pictures.iter().filter(|picture| picture.area() > 0.0).map(|picture| picture.name);
        plainly(argument_matches(arguments.first()?, names))
    }),
];

/// Bytes of a file in which its size is looked for: a JPEG tells it behind its preview.
const HEAD_BYTES: usize = 256 << 10;

/// An attached picture.
struct Picture<'c> {
    /// `gif`, `png` or `jpeg`, as declared.
    kind: &'c str,
    /// Its file name; empty where there is none.
    name: &'c str,
    /// Height and width in pixels; 0 where they cannot be read.
    size: (f64, f64),
}

impl Picture<'_> {
    fn is_of(&self, arguments: &[String]) -> bool {
        arguments.first().is_some_and(|kind| kind == "all" || kind == self.kind)
    }

    fn area(&self) -> f64 {
        self.size.0 * self.size.1
    }
}

/// The pictures that are sent along in base64, as SpamAssassin counts them.
fn pictures<'c>(context: &'c Context<'_>) -> Vec<Picture<'c>> {
    let parts = context.message.parts.iter().filter_map(|part| {
        let kind = match part.media_type.as_str() {
            "image/gif" => "gif",
            "image/png" => "png",
            "image/jpeg" | "image/jpg" => "jpeg",
            _ => return None,
        };
        if !super::mime::field(part, "Content-Transfer-Encoding").eq_ignore_ascii_case("base64") {
            return None;
        }
        let bytes = part.body(context.subject.raw, HEAD_BYTES);
        let (width, height) = crate::message::picture_size(&bytes).unwrap_or_default();
        let name = part.name.as_deref().unwrap_or_default();
        Some(Picture { kind, name, size: (f64::from(height), f64::from(width)) })
    });
    parts.collect()
}

/// The pixels of all pictures of a kind.
fn area(context: &Context<'_>, arguments: &[String]) -> f64 {
    pictures(context).iter().filter(|picture| picture.is_of(arguments)).map(Picture::area).sum()
}

/// Height and width of each picture of a kind.
fn sized<'c>(context: &'c Context<'_>, arguments: &'c [String]) -> impl Iterator<Item = (f64, f64)> {
    let pictures = pictures(context).into_iter();
    pictures.filter(|picture| picture.is_of(arguments) && picture.area() > 0.0).map(|picture| picture.size)
}

/// Whether height and width are within a least and a most pair.
pub(super) fn is_within((height, width): (f64, f64), low: &[String], high: &[String]) -> bool {
    let at_most = |place, value: f64| number(high, place).is_none_or(|high| value <= high);
    number(low, 0).is_some_and(|low| height >= low)
        && number(low, 1).is_some_and(|low| width >= low)
        && at_most(0, height)
        && at_most(1, width)
}
