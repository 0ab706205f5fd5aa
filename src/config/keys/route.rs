//! The keys of a route, `[[inbound.route]]` and `[[outbound.route]]`, and of the next hops in a list.

use std::path::PathBuf;

use toml::de::DeValue;

use super::Tables;
use crate::config::problem::Faults;
use crate::config::record::{Key, Record};
use crate::config::value;
use crate::config::way::{Route, Target};
use crate::relay::tls::{InvalidTlsPolicy, TlsPolicy};
use crate::relay::{InvalidNextHop, NextHop};

pub(super) static TABLES: [Tables; 2] = [
    Tables {
        name: "inbound.route",
        meaning: "Next hops for mail to some domains. Other mail goes to inbound.next_hop.",
        add: |c, t| INBOUND.read(t).map(|x| c.inbound.routes.push(x)),
        fields: || INBOUND.fields(),
    },
    Tables {
        name: "outbound.route",
        meaning: "Next hops for mail from some domains or accounts. Other mail goes to outbound.next_hop.",
        add: |c, t| OUTBOUND.read(t).map(|x| c.outbound.routes.push(x)),
        fields: || OUTBOUND.fields(),
    },
];

static INBOUND: Record<Route> = Record {
    required: &["domains", "next_hops"],
    blank,
    keys: &[
        Key {
            name: "domains",
            default: "[\"example.org\"]",
            meaning: "The domains of the recipients, each by its full name.",
            set: |r, v| some(value::domains(v)?).map(|x| r.domains = x),
        },
        NEXT_HOPS,
    ],
};

static OUTBOUND: Record<Route> = Record {
    required: &["next_hops"],
    blank,
    keys: &[
        Key {
            name: "sender_domains",
            default: "[]",
            meaning: "The domains of the senders, each by its full name.",
            set: |r, v| value::domains(v).map(|x| r.sender_domains = x),
        },
        Key {
            name: "accounts",
            default: "[]",
            meaning: "The names under which clients signed in.",
            set: |r, v| value::texts(v, Ok).map(|x| r.accounts = x),
        },
        NEXT_HOPS,
    ],
};

const NEXT_HOPS: Key<Route> = Key {
    name: "next_hops",
    default: "[\"smtp://10.0.0.1:25\", \"smtp://10.0.0.2:25\"]",
    meaning: "The next hops, the preferred one first, or tables in line that say more about each.",
    set: |r, v| next_hops(v).map(|x| r.next_hops = x),
};

fn blank() -> Route {
    Route { domains: Vec::new(), sender_domains: Vec::new(), accounts: Vec::new(), next_hops: Vec::new() }
}

/// A next hop as a table in line.
pub(super) static TARGET: Record<Target> = Record {
    required: &["to"],
    blank: || Target {
        to: NextHop::Maildir { path: PathBuf::new() },
        priority: 0,
        weight: 0,
        tls: None,
        login_file: None,
        xclient: false,
    },
    keys: &[
        Key {
            name: "to",
            default: "\"smtp://10.0.0.1:25\"",
            meaning: "Where it is.",
            set: |t, v| next_hop(v).map(|x| t.to = x),
        },
        Key {
            name: "priority",
            default: "10",
            meaning: "Lower ones are tried first.",
            set: |t, v| small(v, 0, 65_535).map(|x| t.priority = x),
        },
        Key {
            name: "weight",
            default: "1",
            meaning: "Its share of the mail among those of the same priority.",
            set: |t, v| small(v, 1, 1000).map(|x| t.weight = x),
        },
        Key {
            name: "tls",
            default: "\"\"",
            meaning: "As next_hop_tls of the direction, which holds where this is empty.",
            set: |t, v| match value::text(v)?.as_str() {
                "" => Ok(()),
                _ => tls(v).map(|x| t.tls = Some(x)),
            },
        },
        Key {
            name: "login_file",
            default: "\"\"",
            meaning: "A file with a name and a password, a line each, to sign in with; over TLS alone.",
            set: |t, v| value::path(v).map(|x| t.login_file = x),
        },
        Key {
            name: "xclient",
            default: "false",
            meaning: "Whether it is told the client by XCLIENT, as it were the client itself.",
            set: |t, v| value::truth(v).map(|x| t.xclient = x),
        },
    ],
};

fn small(value: &DeValue<'_>, least: u16, most: u16) -> Result<u16, Faults> {
    let count = value::count(value, least.into(), most.into())?;
    u16::try_from(count).map_err(|error| error.to_string().into())
}

/// Reads a next hop, or a list of them. Those given as texts are tried in their order.
pub(super) fn next_hops(value: &DeValue<'_>) -> Result<Vec<Target>, Faults> {
    if let DeValue::String(_) = value {
        return Ok(vec![plain(next_hop(value)?, 0)]);
    }
    let mut place = 0;
    let targets = value::list(value, |item| {
        place += 10;
        match item {
            DeValue::Table(table) => TARGET.read(table),
            _ => Ok(plain(next_hop(item)?, place)),
        }
    })?;
    some(targets)
}

fn plain(to: NextHop, priority: u16) -> Target {
    Target { to, priority, weight: 1, tls: None, login_file: None, xclient: false }
}

fn some<T>(list: Vec<T>) -> Result<Vec<T>, Faults> {
    if list.is_empty() { Err("the list is empty".into()) } else { Ok(list) }
}

/// Reads a next hop. A Maildir without a folder is the data folder's own, which `app` knows.
fn next_hop(value: &DeValue<'_>) -> Result<NextHop, Faults> {
    match value::text(value)?.as_str() {
        "maildir:" => Ok(NextHop::Maildir { path: PathBuf::new() }),
        text => text.parse().map_err(|error: InvalidNextHop| error.to_string().into()),
    }
}

/// Reads what the connection to a next hop must be.
pub(super) fn tls(value: &DeValue<'_>) -> Result<TlsPolicy, Faults> {
    value::text(value)?.parse().map_err(|error: InvalidTlsPolicy| error.to_string().into())
}
