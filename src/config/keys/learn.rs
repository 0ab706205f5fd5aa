//! The keys of what is learned, and of a pair of Maildirs that is learned from.

use std::path::PathBuf;

use super::{DAY, Key, Tables};
use crate::config::MaildirPair;
use crate::config::problem::Faults;
use crate::config::record::{self, Record};
use crate::config::value;
use crate::mail::Address;
use crate::scan::Sharing;

pub(super) static LEARN: [Key; 6] = [
    Key {
        name: "learn.implied",
        default: "true",
        meaning: "Whether a report also teaches others: who releases a kept message has likely seen what else was kept a\n\
                  day ago or longer, so a few of those count as spam, at half weight. For this the features of the last\n\
                  600 messages are in memory: keyed hashes, no text.",
        set: |c, v| value::truth(v).map(|x| c.learn_implied = x),
    },
    Key {
        name: "learn.automatic",
        default: "false",
        meaning: "Whether the gateway also teaches itself: messages on which rules and both models agree with a margin, at half\n\
                  weight, at most 60 an hour, as many of either label, and only after people taught 200.",
        set: |c, v| value::truth(v).map(|x| c.learn_automatic = x),
    },
    Key {
        name: "learn.traps",
        default: "[]",
        meaning: "Addresses in your domains that nobody uses and that are there to catch spam. What is sent to one is kept, learned\n\
                  as spam at half weight, and more likely spam for its other recipients.",
        set: |c, v| {
            value::texts(v, |text| Address::parse(&text).map_err(|error| error.to_string()))
                .map(|x| c.learn_traps = x)
        },
    },
    Key {
        name: "learn.share",
        default: "\"person\"",
        meaning: "Who is taught by what a person says of their own mail: \"person\" (their own mailbox alone), \"organisation\"\n\
                  (all of their domain as well) or \"everyone\". What administrators, commands and mail servers teach is for all.",
        set: |c, v| value::one_of(v, &Sharing::ALL).map(|x| c.learn_share = x),
    },
    Key {
        name: "learn.retention",
        default: "\"730d\"",
        meaning: "How long lessons stay in the log, where each can be forgotten by itself. What all learn from one that leaves\n\
                  stays learned.",
        set: |c, v| value::duration(v, DAY, DAY * 3650).map(|x| c.learn_retention = x),
    },
    Key {
        name: "learn.max_lessons",
        default: "200000",
        meaning: "Lessons that stay in the log, of about 5 KB; the oldest leave first.",
        set: |c, v| value::count(v, 1_000, 10_000_000).map(|x| c.learn_max_lessons = x),
    },
];

pub(super) static TABLES: [Tables; 1] = [Tables {
    name: "learn.maildir",
    meaning: "A pair of Maildirs into which people, and nobody else, put what is spam and what is not: it is learned within\n\
              seconds. Nothing is moved or removed.",
    add: |c, t| PAIR.read(t).map(|x| c.learn_maildirs.push(x)),
    fields: || PAIR.fields(),
}];

static PAIR: Record<MaildirPair> = Record {
    required: &["ham", "spam"],
    blank: || MaildirPair { ham: PathBuf::new(), spam: PathBuf::new(), person: None },
    keys: &[
        record::Key {
            name: "ham",
            default: "\"/var/mail/anna/.NotJunk\"",
            meaning: "The Maildir of wanted mail.",
            set: |m, v| some(value::path(v)?).map(|x| m.ham = x),
        },
        record::Key {
            name: "spam",
            default: "\"/var/mail/anna/.Junk\"",
            meaning: "The Maildir of spam.",
            set: |m, v| some(value::path(v)?).map(|x| m.spam = x),
        },
        record::Key {
            name: "person",
            default: "\"\"",
            meaning: "Whose they are: then learn.share says who learns from them. Empty for all.",
            set: |m, v| {
                let address = value::text(v)?;
                m.person = if address.is_empty() {
                    None
                } else {
                    Some(Address::parse(&address).map_err(|error| error.to_string())?)
                };
                Ok(())
            },
        },
    ],
};

fn some(path: Option<PathBuf>) -> Result<PathBuf, Faults> {
    path.ok_or_else(|| "expected a folder".to_owned().into())
}
