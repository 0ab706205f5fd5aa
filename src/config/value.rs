//! Typed readings of one TOML value, with messages that say what would be right.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

type Value<'a> = DeValue<'a>;

/// Reads a text.
pub(super) fn text(value: &Value<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        _ => Err(format!("expected a text in quotes, found {}", value.type_str())),
    }
}

/// Reads a list of texts.
pub(super) fn texts(value: &Value<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(items) => items.iter().map(|item| text(item.get_ref())).collect(),
        _ => Err(format!("expected a list of texts, found {}", value.type_str())),
    }
}

/// Reads a text by a type's own grammar.
pub(super) fn parsed<T: std::str::FromStr>(value: &Value<'_>, example: &str) -> Result<T, String> {
    let text = text(value)?;
    text.parse().map_err(|_| format!("not usable; an example of what is: \"{example}\""))
}

/// Reads an address and port.
pub(super) fn socket(value: &Value<'_>) -> Result<SocketAddr, String> {
    parsed(value, "127.0.0.1:2525")
}

/// Reads a number, with or without a fraction.
pub(super) fn number(value: &Value<'_>) -> Result<f64, String> {
    let text = match value {
        DeValue::Float(number) => number.as_str(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        _ => return Err(format!("expected a number, found {}", value.type_str())),
    };
    match text.replace('_', "").parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("expected a finite number".to_owned()),
    }
}

/// Reads a whole number within bounds.
pub(super) fn count(value: &Value<'_>, least: usize, most: usize) -> Result<usize, String> {
    let message = || format!("expected a whole number from {least} to {most}");
    match value {
        DeValue::Integer(number) if number.radix() == 10 => {
            let count = number.as_str().replace('_', "").parse::<usize>().map_err(|_| message())?;
            if (least..=most).contains(&count) { Ok(count) } else { Err(message()) }
        }
        _ => Err(message()),
    }
}

/// Reads a duration such as `"90s"`, `"5m"`, `"12h"` or `"30d"`, within bounds.
pub(super) fn duration(value: &Value<'_>, least: Duration, most: Duration) -> Result<Duration, String> {
    const EXAMPLE: &str = "expected a duration such as \"500ms\", \"90s\", \"5m\", \"12h\" or \"30d\"";
    let text = text(value).map_err(|_| EXAMPLE.to_owned())?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let count: u64 = digits.trim().parse().map_err(|_| EXAMPLE.to_owned())?;
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
    .and_then(|unit: u64| count.checked_mul(unit))
    .ok_or_else(|| EXAMPLE.to_owned())?;
    let duration = Duration::from_millis(millis);
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("expected a duration from {least:?} to {most:?}"))
    }
}

/// Reads a size such as `"64 KiB"` or `"50 MiB"`, or a number of bytes, within bounds.
pub(super) fn size(value: &Value<'_>, least: usize, most: usize) -> Result<usize, String> {
    const EXAMPLE: &str = "expected a size such as \"64 KiB\", \"50 MiB\" or \"2 GiB\"";
    if matches!(value, DeValue::Integer(_)) {
        return count(value, least, most);
    }
    let text = text(value).map_err(|_| EXAMPLE.to_owned())?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let count: usize = digits.trim().parse().map_err(|_| EXAMPLE.to_owned())?;
    let bytes = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    }
    .and_then(|unit: usize| count.checked_mul(unit))
    .ok_or_else(|| EXAMPLE.to_owned())?;
    if (least..=most).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("expected a size from {least} to {most} bytes"))
    }
}

/// Reads one of a few words.
pub(super) fn one_of<T: Copy>(value: &Value<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let text = text(value)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("expected one of {}", words.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn durations_and_sizes_have_units() {
        let hour = Duration::from_secs(3600);
        for (text, expected) in [
            ("90s", Some(Duration::from_secs(90))),
            ("500ms", Some(Duration::from_millis(500))),
            ("60m", Some(hour)),
            ("2h", None),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("99999999999999999999d", None),
            ("1ö", None),
        ] {
            assert_eq!(duration(&string(text), Duration::ZERO, hour).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("64 KiB", Some(65_536)),
            ("1MiB", Some(1 << 20)),
            ("100", Some(100)),
            ("2 MiB", None),
            ("x", None),
        ] {
            assert_eq!(size(&string(text), 1, 1 << 20).ok(), expected, "{text}");
        }
    }
}
