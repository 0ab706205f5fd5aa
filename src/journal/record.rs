//! The lines of the journal file: text, one record a line, each with its own checksum.
//!
//! A line is believed whole or not at all, wherever it stands, so that a torn end or a damaged line costs
//! nothing but itself.

use std::io::Write as _;

use super::Holder;
use super::key::{MessageKey, RecipientKey};
use crate::mail::{Direction, TransactionId};

/// The first line of a file.
pub(super) const HEADER: &[u8] = b"lazaret journal 1\n";

/// What names an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// When it began, in seconds since 1970.
    pub(super) at: i64,
    pub(super) direction: Direction,
    pub(super) key: MessageKey,
    pub(super) id: TransactionId,
}

/// How it stands with a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Somebody is deciding whether to take the message.
    Pending,
    /// Somebody has taken it.
    Taken,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// These recipients are at this stage. Complete in itself: it needs no earlier line.
    Noted { head: Head, stage: Stage, holder: Holder, recipients: Vec<RecipientKey> },
    /// These recipients of an attempt, or all of them, are of no concern any more.
    Forgotten { id: TransactionId, recipients: Option<Vec<RecipientKey>> },
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Stage::Pending => "pending",
            Stage::Taken => "taken",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Stage::Pending, Stage::Taken].into_iter().find(|stage| stage.as_str() == name)
    }
}

impl Record {
    /// Appends the line, with its end.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut text = Vec::with_capacity(128);
        // Writing to memory does not fail.
        let written = match self {
            Record::Noted { head, stage, holder, recipients } => write!(
                text,
                "{} {} {} {} {:032x} {} ",
                stage.as_str(),
                holder.as_str(),
                head.at,
                head.direction.as_str(),
                head.key.0,
                head.id
            )
            .and_then(|()| write_recipients(&mut text, recipients)),
            Record::Forgotten { id, recipients: Some(recipients) } => {
                write!(text, "forgotten {id} ").and_then(|()| write_recipients(&mut text, recipients))
            }
            Record::Forgotten { id, recipients: None } => write!(text, "forgotten {id} *"),
        };
        debug_assert!(written.is_ok());
        out.reserve(text.len() + 10);
        let checksum = write!(out, "{:08x} ", crc32fast::hash(&text));
        debug_assert!(checksum.is_ok());
        out.extend_from_slice(&text);
        out.push(b'\n');
    }

    /// Reads a line without its end; `None` unless it is exactly what [`Record::write`] writes.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let (checksum, text) = line.split_at_checked(9)?;
        let checksum = std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?;
        if hexadecimal(checksum, 8)? != u128::from(crc32fast::hash(text)) {
            return None;
        }
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let record = match words.next()? {
            "forgotten" => Record::Forgotten {
                id: TransactionId::parse(words.next()?)?,
                recipients: match words.next()? {
                    "*" => None,
                    list => Some(parse_recipients(list)?),
                },
            },
            stage => {
                let stage = Stage::from_name(stage)?;
                let holder = Holder::from_name(words.next()?)?;
                let head = Head {
                    at: words.next()?.parse().ok()?,
                    direction: Direction::from_name(words.next()?)?,
                    key: MessageKey(hexadecimal(words.next()?, 32)?),
                    id: TransactionId::parse(words.next()?)?,
                };
                Record::Noted { head, stage, holder, recipients: parse_recipients(words.next()?)? }
            }
        };
        words.next().is_none().then_some(record)
    }
}

fn write_recipients(out: &mut Vec<u8>, recipients: &[RecipientKey]) -> std::io::Result<()> {
    for (number, recipient) in recipients.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write!(out, "{:016x}", recipient.0)?;
    }
    Ok(())
}

fn parse_recipients(list: &str) -> Option<Vec<RecipientKey>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    list.split(',')
        .map(|word| hexadecimal(word, 16).and_then(|number| u64::try_from(number).ok()).map(RecipientKey))
        .collect()
}

/// Reads exactly so many lower-case digits.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let well_formed =
        text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if well_formed { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recipients() -> impl Strategy<Value = Vec<RecipientKey>> {
        prop::collection::vec(any::<u64>().prop_map(RecipientKey), 0..5)
    }

    fn record() -> impl Strategy<Value = Record> {
        let id = any::<[u8; 16]>().prop_map(TransactionId::from_random);
        let noted = (
            (any::<i64>(), any::<bool>(), any::<u128>(), id.clone()),
            any::<bool>(),
            any::<bool>(),
            recipients(),
        )
            .prop_map(|((at, inbound, key, id), taken, kept, recipients)| Record::Noted {
                head: Head {
                    at,
                    direction: if inbound { Direction::Inbound } else { Direction::Outbound },
                    key: MessageKey(key),
                    id,
                },
                stage: if taken { Stage::Taken } else { Stage::Pending },
                holder: if kept { Holder::Quarantine } else { Holder::NextHop },
                recipients,
            });
        let forgotten = (id, prop::option::of(recipients()))
            .prop_map(|(id, recipients)| Record::Forgotten { id, recipients });
        prop_oneof![noted, forgotten]
    }

    proptest! {
        #[test]
        fn records_survive_a_round_trip_on_one_line(record in record()) {
            let mut line = Vec::new();
            record.write(&mut line);
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(Record::parse(&line), Some(record));
        }

        #[test]
        fn a_changed_or_shortened_line_is_no_record(
            record in record(),
            place in any::<prop::sample::Index>(),
            change in 1u8..=255,
        ) {
            let mut line = Vec::new();
            record.write(&mut line);
            line.pop();
            let place = place.index(line.len());
            prop_assert_eq!(Record::parse(&line[..place]), None);
            line[place] ^= change;
            prop_assert_eq!(Record::parse(&line), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ignored = Record::parse(&bytes);
            let text = bytes.split_off(bytes.len().min(9));
            let mut line = format!("{:08x} ", crc32fast::hash(&text)).into_bytes();
            line.extend(text);
            let _ignored = Record::parse(&line);
        }
    }
}
