//! The keys of what is remembered of earlier mail, and of lists.

use std::path::PathBuf;

use super::{Key, Tables};
use crate::config::ListFile;
use crate::config::problem::Faults;
use crate::config::record::{self, Record};
use crate::config::value;

pub(super) static REPUTATION: [Key; 2] = [
    Key {
        name: "reputation.correspondents",
        default: "250000",
        meaning: "Pairs of one of your people and somebody to whom they wrote, in a quarter of a year, that are remembered for a year:\n\
                  mail from these is more likely wanted. They stand in a keyed filter of 4.3 MB in all, out of which nobody\n\
                  can read them.",
        set: |c, v| value::count(v, 1_000, 100_000_000).map(|x| c.reputation.correspondents = x),
    },
    Key {
        name: "reputation.false_positives",
        default: "0.001",
        meaning: "How often a stranger may be taken for a correspondent; a smaller share takes more memory.",
        set: |c, v| match value::number(v)? {
            x if (1e-6..=0.1).contains(&x) => {
                c.reputation.false_positives = x;
                Ok(())
            }
            _ => Err("expected a share from 0.000001 to 0.1".to_owned().into()),
        },
    },
];

pub(super) static TABLES: [Tables; 1] = [Tables {
    name: "scan.list",
    meaning: "A list of domains, addresses and IP addresses, a line each, in lower case, sorted with LC_ALL=C sort -u, of up to\n\
              50 million lines. The client, sender and author of inbound mail and the hosts of its links are looked for.\n\
              It is read again at a reload.",
    add: |c, t| LIST.read(t).map(|x| c.lists.push(x)),
    fields: || LIST.fields(),
}];

static LIST: Record<ListFile> = Record {
    required: &["name", "file"],
    blank: || ListFile { name: String::new(), file: PathBuf::new(), points: 0.0 },
    keys: &[
        record::Key {
            name: "name",
            default: "\"SPAMMERS\"",
            meaning: "Its name, in capitals, digits and _: the finding is called LIST_ and the name.",
            set: |l, v| {
                let name = value::text(v)?;
                let is_good = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                if name.is_empty() || name.len() > 40 || !name.chars().all(is_good) {
                    return Err("expected up to 40 capitals, digits and _".to_owned().into());
                }
                l.name = name;
                Ok(())
            },
        },
        record::Key {
            name: "file",
            default: "\"/var/lib/lists/spammers\"",
            meaning: "The file.",
            set: |l, v| {
                let path: Result<PathBuf, Faults> =
                    value::path(v)?.ok_or_else(|| "expected a file".to_owned().into());
                l.file = path?;
                Ok(())
            },
        },
        record::Key {
            name: "points",
            default: "4.0",
            meaning: "The points of mail that is on it; fewer than 0 for a list of the good.",
            set: |l, v| value::number(v).map(|x| l.points = x),
        },
    ],
};
