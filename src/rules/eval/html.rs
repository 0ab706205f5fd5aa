//! How HTML is written: SpamAssassin's `HTMLEval`.

use crate::message::Markup;

use super::{Context, Function, argument_matches, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("html_tag_exists", tag_exists),
    ("html_tag_balance", tag_balance),
    ("html_image_only", image_only),
    ("html_image_ratio", image_ratio),
    ("html_range", range),
    ("html_eval", compare),
    ("html_test", test),
    ("html_text_match", text_match),
    ("html_title_subject_ratio", title_subject_ratio),
    ("check_iframe_src", iframe_source),
];

/// Whether one of the pages is as asked for.
fn any(context: &Context<'_>, is_so: impl Fn(&Markup) -> bool) -> Option<String> {
    plainly(context.markup().iter().any(is_so))
}

fn number(text: &str) -> Option<f64> {
    if text == "inf" || text == "undef" { Some(f64::INFINITY) } else { text.trim().parse().ok() }
}

/// Reads `'< 512'` and the like.
pub(super) fn comparison(text: &str) -> Option<impl Fn(f64) -> bool> {
    let text = text.trim();
    let (sign, rest) =
        ["<=", ">=", "==", "!=", "<", ">"].iter().find_map(|sign| Some((*sign, text.strip_prefix(sign)?)))?;
    let bound: f64 = rest.trim().parse().ok()?;
    Some(move |value: f64| match sign {
        "<=" => value <= bound,
        ">=" => value >= bound,
        "==" => value == bound,
        "!=" => value != bound,
        "<" => value < bound,
        _ => value > bound,
    })
}

fn within(value: f64, arguments: &[String]) -> bool {
    let low = arguments.first().and_then(|low| number(low)).unwrap_or(0.0);
    let high = arguments.get(1).and_then(|high| number(high)).unwrap_or(f64::INFINITY);
    value > low && value <= high
}

/// `html_tag_exists(TAG)`
fn tag_exists(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let tag = arguments.first()?;
    any(context, |page| page.open.contains_key(tag))
}

/// `html_tag_balance(TAG, COMPARISON)`
fn tag_balance(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let (tag, is_so) = (arguments.first()?, comparison(arguments.get(1)?)?);
    any(context, |page| page.open.get(tag).is_some_and(|open| is_so(*open as f64)))
}

/// `html_image_only(MIN, MAX)`: a page with an image whose source is so long.
fn image_only(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    any(context, |page| page.open.contains_key("img") && within(page.length as f64, arguments))
}

/// `html_image_ratio(MIN, MAX)`: text to the area of images.
fn image_ratio(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    any(context, |page| {
        page.image_area > 0 && within(page.non_space as f64 / page.image_area as f64, arguments)
    })
}

fn value(page: &Markup, name: &str) -> Option<f64> {
    let ratio = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    match name {
        "length" => Some(page.length as f64),
        "max_size" => Some(f64::from(page.max_size)),
        "obfuscation_ratio" if page.obfuscation > 0 => ratio(page.obfuscation, page.tags),
        "bad_tag_ratio" if page.elements > 0 => ratio(page.tags - page.elements, page.tags),
        "non_element_ratio" if page.elements_seen > 0 => {
            ratio(page.tags_seen - page.elements_seen, page.tags_seen)
        }
        "closed_extra_ratio" if page.closed_extra > 0 => ratio(page.closed_extra, page.tags),
        "image_area" => Some(page.image_area as f64),
        _ => None,
    }
}

/// `html_range(VALUE, MIN, MAX)`
fn range(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let (name, bounds) = arguments.split_first()?;
    any(context, |page| value(page, name).is_some_and(|value| within(value, bounds)))
}

/// `html_eval(VALUE, COMPARISON)`
fn compare(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let (name, is_so) = (arguments.first()?, comparison(arguments.get(1)?)?);
    any(context, |page| value(page, name).is_some_and(&is_so))
}

/// `html_test(FACT)`
fn test(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    match arguments.first()?.as_str() {
        "html" => any(context, |_| true),
        "form_action_mailto" => any(context, |page| {
            page.form_actions.iter().any(|action| {
                action.trim_start().get(..7).is_some_and(|start| start.eq_ignore_ascii_case("mailto:"))
            })
        }),
        "embeds" => any(context, |page| page.has_embeds),
        "font_low_contrast" => any(context, |page| page.has_low_contrast),
        "font_face_bad" => any(context, |page| page.has_bad_face),
        "font_invalid_color" => any(context, |page| page.has_invalid_color),
        _ => None,
    }
}

/// `html_text_match(title|comment|anchor, PATTERN)`
fn text_match<'c>(context: &'c Context<'_>, arguments: &[String]) -> Option<String> {
    let texts = |page: &'c Markup| match arguments.first().map(String::as_str) {
        Some("title") => page.titles.as_slice(),
        Some("comment") => page.comments.as_slice(),
        Some("anchor") => page.anchors.as_slice(),
        _ => &[],
    };
    plainly(argument_matches(arguments.get(1)?, context.markup().iter().flat_map(texts).map(String::as_str)))
}

/// `html_title_subject_ratio(RATIO)`: the title is so much longer than the subject.
fn title_subject_ratio(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let bound: f64 = arguments.first()?.parse().ok()?;
    let subject = context.subject().message.subject.len();
    any(context, |page| {
        page.titles.iter().any(|title| subject > 0 && title.len() as f64 / subject as f64 > bound)
    })
}

fn iframe_source(context: &Context<'_>, _: &[String]) -> Option<String> {
    any(context, |page| page.frame_sources.iter().any(|source| !source.is_empty()))
}
