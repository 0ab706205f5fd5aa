//! Typed readings of one TOML value, with messages that say what would be right.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::problem::Faults;
use crate::ingress::ListenAddress;
use crate::mail::Domain;

type Value<'a> = DeValue<'a>;

/// Reads a text.
pub(super) fn text(value: &Value<'_>) -> Result<String, Faults> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        _ => Err(format!("expected a text in quotes, found {}", value.type_str()).into()),
    }
}

/// Reads a path; an empty text is none.
pub(super) fn path(value: &Value<'_>) -> Result<Option<PathBuf>, Faults> {
    text(value).map(|text| (!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Reads where to listen, a TCP address or a Unix socket; an empty text is nowhere.
pub(super) fn place(value: &Value<'_>) -> Result<Option<ListenAddress>, Faults> {
    match text(value)?.as_str() {
        "" => Ok(None),
        text => match text.parse() {
            Ok(address @ (ListenAddress::Tcp(_) | ListenAddress::Unix(_))) => Ok(Some(address)),
            _ => Err("expected an address such as \"127.0.0.1:783\" or \"unix:/path\"".into()),
        },
    }
}

/// Reads yes or no.
pub(super) fn truth(value: &Value<'_>) -> Result<bool, Faults> {
    value.as_bool().ok_or_else(|| format!("expected true or false, found {}", value.type_str()).into())
}

/// Reads a list, each of whose items is read by `read`; every mistake is told with its place.
pub(super) fn list<T>(
    value: &Value<'_>,
    mut read: impl FnMut(&Value<'_>) -> Result<T, Faults>,
) -> Result<Vec<T>, Faults> {
    let DeValue::Array(items) = value else {
        return Err(format!("expected a list, found {}", value.type_str()).into());
    };
    let mut list = Vec::new();
    let mut faults = Faults::default();
    for (index, item) in items.iter().enumerate() {
        match read(item.get_ref()) {
            Ok(item) => list.push(item),
            Err(found) => {
                faults.0.extend(found.inside(&format!("[{}]", index + 1), item.span().start).0);
            }
        }
    }
    if faults.0.is_empty() { Ok(list) } else { Err(faults) }
}

/// Reads a list of texts, each by `parse`, which says what is wrong with one.
pub(super) fn texts<T>(
    value: &Value<'_>,
    parse: impl Fn(String) -> Result<T, String>,
) -> Result<Vec<T>, Faults> {
    list(value, |item| parse(text(item)?).map_err(Faults::from))
}

/// Reads a table in line.
pub(super) fn table<'a>(value: &'a Value<'a>) -> Result<&'a DeTable<'a>, Faults> {
    match value {
        DeValue::Table(table) => Ok(table),
        _ => Err(format!("expected a table in braces, found {}", value.type_str()).into()),
    }
}

/// Reads a list of domains.
pub(super) fn domains(value: &Value<'_>) -> Result<Vec<Domain>, Faults> {
    texts(value, |text| {
        Domain::parse(&text)
            .map_err(|_| format!("\"{text}\" is no domain; an example of one: \"example.org\""))
    })
}

/// The shortest prefixes of networks that one organisation has: 10.0.0.0/8 and fc00::/7 are the largest.
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 7;

/// Reads a list of networks that are trusted. A single address is a network; what nobody has for himself is
/// none, whether in one piece or in few.
pub(super) fn networks(value: &Value<'_>) -> Result<Vec<IpNet>, Faults> {
    texts(value, |text| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match net {
            Ok(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => {
                Err(format!("\"{text}\" is IPv4 in the clothes of IPv6; write it as IPv4"))
            }
            Ok(IpNet::V4(net)) if net.prefix_len() < SHORTEST_V4 => Err(too_large(&text, SHORTEST_V4)),
            Ok(IpNet::V6(net)) if net.prefix_len() < SHORTEST_V6 => Err(too_large(&text, SHORTEST_V6)),
            Ok(net) => Ok(net),
            Err(_) => Err(format!("\"{text}\" is no network; an example of one: \"192.0.2.0/24\"")),
        }
    })
}

fn too_large(text: &str, shortest: u8) -> String {
    format!("\"{text}\" is the whole world or much of it; a prefix of /{shortest} or longer is trusted")
}

/// Reads a text by a type's own grammar.
pub(super) fn parsed<T: std::str::FromStr>(value: &Value<'_>, example: &str) -> Result<T, Faults> {
    let text = text(value)?;
    text.parse().map_err(|_| format!("not usable; an example of what is: \"{example}\"").into())
}

/// Reads an address and port.
pub(super) fn socket(value: &Value<'_>) -> Result<SocketAddr, Faults> {
    parsed(value, "127.0.0.1:2525")
}

/// Reads a number, with or without a fraction.
pub(super) fn number(value: &Value<'_>) -> Result<f64, Faults> {
    let text = match value {
        DeValue::Float(number) => number.as_str(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        _ => return Err(format!("expected a number, found {}", value.type_str()).into()),
    };
    match text.replace('_', "").parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("expected a finite number".into()),
    }
}

/// Reads a whole number within bounds.
pub(super) fn count(value: &Value<'_>, least: usize, most: usize) -> Result<usize, Faults> {
    let message = || Faults::from(format!("expected a whole number from {least} to {most}"));
    match value {
        DeValue::Integer(number) if number.radix() == 10 => {
            let count = number.as_str().replace('_', "").parse::<usize>().map_err(|_| message())?;
            if (least..=most).contains(&count) { Ok(count) } else { Err(message()) }
        }
        _ => Err(message()),
    }
}

/// Reads a duration such as `"90s"`, `"5m"`, `"12h"` or `"30d"`, within bounds.
pub(super) fn duration(value: &Value<'_>, least: Duration, most: Duration) -> Result<Duration, Faults> {
    const EXAMPLE: &str = "expected a duration such as \"500ms\", \"90s\", \"5m\", \"12h\" or \"30d\"";
    let text = text(value).map_err(|_| Faults::from(EXAMPLE))?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let count: u64 = digits.trim().parse().map_err(|_| Faults::from(EXAMPLE))?;
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
    .and_then(|unit: u64| count.checked_mul(unit))
    .ok_or_else(|| Faults::from(EXAMPLE))?;
    let duration = Duration::from_millis(millis);
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("expected a duration from {least:?} to {most:?}").into())
    }
}

/// Reads a size such as `"64 KiB"` or `"50 MiB"`, or a number of bytes, within bounds.
pub(super) fn size(value: &Value<'_>, least: usize, most: usize) -> Result<usize, Faults> {
    const EXAMPLE: &str = "expected a size such as \"64 KiB\", \"50 MiB\" or \"2 GiB\"";
    if matches!(value, DeValue::Integer(_)) {
        return count(value, least, most);
    }
    let text = text(value).map_err(|_| Faults::from(EXAMPLE))?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let count: usize = digits.trim().parse().map_err(|_| Faults::from(EXAMPLE))?;
    let bytes = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    }
    .and_then(|unit: usize| count.checked_mul(unit))
    .ok_or_else(|| Faults::from(EXAMPLE))?;
    if (least..=most).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("expected a size from {least} to {most} bytes").into())
    }
}

/// Reads one of a few words.
pub(super) fn one_of<T: Copy>(value: &Value<'_>, words: &[(&str, T)]) -> Result<T, Faults> {
    let text = text(value)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("expected one of {}", words.join(", ")).into()
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
