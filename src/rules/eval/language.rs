//! In which language and script the text is: SpamAssassin's `TextCat`, by the trigrams of `whatlang`, and its
//! tests of character sets.

use whatlang::Lang;

use crate::rules::definition::Settings;

use super::{Context, Function, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_language", unwanted),
    ("check_body_8bits", beyond_ascii),
    ("check_for_faraway_charset", |context, _| {
        plainly(context.message.parts.iter().any(|part| {
            let is_text = part.media_type.starts_with("text/");
            is_text && part.charset.as_deref().is_some_and(|charset| is_faraway(context, charset))
        }))
    }),
    ("check_for_faraway_charset_in_headers", faraway_words),
    ("html_charset_faraway", |context, _| {
        let mut charsets = context.markup().iter().flat_map(|page| page.charsets.iter());
        plainly(charsets.any(|charset| is_faraway(context, charset)))
    }),
];

/// How much of the text is looked at.
const TEXT_BYTES: usize = 10_000;
/// Fewer letters say nothing certain.
const LETTERS: usize = 40;

/// Languages of which no text has many bytes beyond ASCII in a row, by their ISO 639-1 codes, are the others.
const BEYOND_ASCII: [&str; 24] = [
    "am", "ar", "be", "bg", "cs", "el", "et", "fa", "fi", "he", "hi", "hy", "is", "ja", "ka", "ko", "mr",
    "pt", "ru", "ta", "th", "tr", "uk", "vi",
];

/// The languages and locales that are welcome, by their ISO 639-1 codes; all where nobody said.
#[derive(Debug, Default)]
pub(super) struct Welcome {
    languages: Vec<String>,
    locales: Vec<String>,
}

impl Welcome {
    /// Reads `ok_languages` and `ok_locales`, of which the last count.
    pub(super) fn read(settings: &Settings) -> Self {
        let codes = |keyword: &str| {
            let codes = settings.lines(keyword).last().unwrap_or_default();
            // `zh` stands for `zh.gb2312` and the like, `en` for `en_GB`.
            let code = |word: &str| word.split(['.', '_']).next().unwrap_or_default().to_ascii_lowercase();
            let codes: Vec<String> = codes.split_whitespace().map(code).collect();
            if codes.iter().any(|code| code == "all") { Vec::new() } else { codes }
        };
        Welcome { languages: codes("ok_languages"), locales: codes("ok_locales") }
    }
}

/// Whether a character set is of a script that is not welcome. Those that are not told are.
fn is_faraway(context: &Context<'_>, charset: &str) -> bool {
    let welcome = &context.families.languages.locales;
    let charset: String = charset.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let locales: &[(&[&str], &[&str])] = &[
        (&["eucjp", "jis", "shiftjis", "sjis", "iso2022jp"], &["ja"]),
        (&["euckr", "ksc", "iso2022kr"], &["ko"]),
        (&["koi8", "isoir111", "cp866", "pt154", "georgianps"], &["ru", "ka", "tg", "be", "uk", "bg"]),
        (&["tis620"], &["th"]),
        (&["gb", "big5", "euctw", "iso2022cn", "hz"], &["zh"]),
    ];
    let found = locales.iter().find(|(starts, _)| starts.iter().any(|start| charset.starts_with(start)));
    !welcome.is_empty()
        && found.is_some_and(|(_, locales)| {
            !locales.iter().any(|locale| welcome.iter().any(|known| known == locale))
        })
}

/// A word of From or Subject is encoded in a character set that is not welcome (RFC 2047).
fn faraway_words(context: &Context<'_>, _: &[String]) -> Option<String> {
    let fields = ["From", "Subject"].into_iter().flat_map(|name| context.message.headers_named(name));
    plainly(
        fields
            .flat_map(|field| field.raw.split("=?").skip(1))
            .any(|word| word.split_once('?').is_some_and(|(charset, _)| is_faraway(context, charset))),
    )
}

/// Eight bytes beyond ASCII in a row, where all welcome languages have fewer.
fn beyond_ascii(context: &Context<'_>, _: &[String]) -> Option<String> {
    let welcome = &context.families.languages.languages;
    if welcome.is_empty() || welcome.iter().any(|code| BEYOND_ASCII.contains(&code.as_str())) {
        return None;
    }
    let bytes = context.message.text.as_bytes();
    plainly(bytes.chunk_by(|a, b| a.is_ascii() == b.is_ascii()).any(|run| run.len() >= 8 && !run.is_ascii()))
}

/// The text is in a language that nobody here reads.
fn unwanted(context: &Context<'_>, _: &[String]) -> Option<String> {
    let welcome = &context.families.languages.languages;
    if welcome.is_empty() {
        return None;
    }
    let code = of(context)?;
    let is_welcome = welcome.iter().any(|known| known == code);
    (!is_welcome).then(|| format!("The text is in a language ({code}) that nobody here reads."))
}

/// Returns the ISO 639-1 code of the language of the text, where it is certain.
pub(super) fn of(context: &Context<'_>) -> Option<&'static str> {
    let text = crate::message::text_prefix(&context.message.text, TEXT_BYTES);
    if text.chars().filter(|c| c.is_alphabetic()).take(LETTERS).count() < LETTERS {
        return None;
    }
    let found = whatlang::detect(text)?;
    found.is_reliable().then(|| code(found.lang()))
}

/// Returns the two letters of ISO 639-1.
fn code(language: Lang) -> &'static str {
    match language {
        Lang::Epo => "eo",
        Lang::Eng => "en",
        Lang::Rus => "ru",
        Lang::Cmn => "zh",
        Lang::Spa => "es",
        Lang::Por => "pt",
        Lang::Ita => "it",
        Lang::Ben => "bn",
        Lang::Fra => "fr",
        Lang::Deu => "de",
        Lang::Ukr => "uk",
        Lang::Kat => "ka",
        Lang::Ara => "ar",
        Lang::Hin => "hi",
        Lang::Jpn => "ja",
        Lang::Heb => "he",
        Lang::Yid => "yi",
        Lang::Pol => "pl",
        Lang::Amh => "am",
        Lang::Jav => "jv",
        Lang::Kor => "ko",
        Lang::Nob => "no",
        Lang::Dan => "da",
        Lang::Swe => "sv",
        Lang::Fin => "fi",
        Lang::Tur => "tr",
        Lang::Nld => "nl",
        Lang::Hun => "hu",
        Lang::Ces => "cs",
        Lang::Ell => "el",
        Lang::Bul => "bg",
        Lang::Bel => "be",
        Lang::Mar => "mr",
        Lang::Kan => "kn",
        Lang::Ron => "ro",
        Lang::Slv => "sl",
        Lang::Hrv => "hr",
        Lang::Srp => "sr",
        Lang::Mkd => "mk",
        Lang::Lit => "lt",
        Lang::Lav => "lv",
        Lang::Est => "et",
        Lang::Tam => "ta",
        Lang::Vie => "vi",
        Lang::Urd => "ur",
        Lang::Tha => "th",
        Lang::Guj => "gu",
        Lang::Uzb => "uz",
        Lang::Pan => "pa",
        Lang::Aze => "az",
        Lang::Ind => "id",
        Lang::Tel => "te",
        Lang::Pes => "fa",
        Lang::Mal => "ml",
        Lang::Ori => "or",
        Lang::Mya => "my",
        Lang::Nep => "ne",
        Lang::Sin => "si",
        Lang::Khm => "km",
        Lang::Tuk => "tk",
        Lang::Aka => "ak",
        Lang::Zul => "zu",
        Lang::Sna => "sn",
        Lang::Afr => "af",
        Lang::Lat => "la",
        Lang::Slk => "sk",
        Lang::Cat => "ca",
        Lang::Tgl => "tl",
        Lang::Hye => "hy",
        // Added by later versions of the library: its own code says nothing wrong.
        other => other.code(),
    }
}
