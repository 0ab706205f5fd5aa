//! The keys of a direction: its default listener, who may use it, its default next hop, its policy.

use toml::de::DeValue;

use super::{Key, listener, route};
use crate::config::problem::Faults;
use crate::config::value;
use crate::config::way::{Auth, exemption};
use crate::gateway::{InvalidFingerprint, Marking};
use crate::ingress::ListenAddress;
use crate::policy::OnDegraded;

/// The keys of a direction, which differ in their defaults alone.
macro_rules! way_keys {
    ($table:literal, $way:ident, $listen:literal, $from:literal, $marking:literal, [$($own:expr),+ $(,)?]) => {
        [
            $($own,)+
            Key {
                name: concat!($table, ".listen"),
                default: $listen,
                meaning: concat!("Where the default listener takes ", $from, ": as the listen of a further\n",
                    "listener, see below. Empty for none."),
                set: |c, v| default_listener(v).map(|x| c.$way.listen = x),
            },
            Key {
                name: concat!($table, ".tls"),
                default: "\"none\"",
                meaning: listener::TLS_MEANING,
                set: |c, v| listener::tls(v).map(|x| c.$way.tls = x),
            },
            Key {
                name: concat!($table, ".next_hop"),
                default: "\"maildir:\"",
                meaning: "Where mail that passes goes: \"smtp://HOST:PORT\", \"smtps://\", \"lmtp://HOST:PORT\", \"lmtp:PATH\",\n\
                          \"mx://DOMAIN\" (its exchanges), or \"maildir:FOLDER\", which delivers durably into a Maildir;\n\
                          without a folder, into one in the data folder. A list of them is tried in its order; a\n\
                          table in it says more, see below.",
                set: |c, v| route::next_hops(v).map(|x| c.$way.next_hops = x),
            },
            Key {
                name: concat!($table, ".next_hop_tls"),
                default: "\"opportunistic\"",
                meaning: NEXT_HOP_TLS,
                set: |c, v| route::tls(v).map(|x| c.$way.next_hop_tls = x),
            },
            Key {
                name: concat!($table, ".tag"),
                default: "4.0",
                meaning: "Score from which a message is marked as spam and passes.",
                set: |c, v| value::number(v).map(|x| c.$way.tag = x),
            },
            Key {
                name: concat!($table, ".quarantine"),
                default: "5.0",
                meaning: "Score from which it is kept until a person decides.",
                set: |c, v| value::number(v).map(|x| c.$way.quarantine = x),
            },
            Key {
                name: concat!($table, ".reject"),
                default: "25.0",
                meaning: "Score from which it is refused in the session.",
                set: |c, v| value::number(v).map(|x| c.$way.reject = x),
            },
            Key {
                name: concat!($table, ".exempt"),
                default: "[\"postmaster\", \"abuse\"]",
                meaning: "Recipients whose mail always passes, marked: mailboxes, or local parts at any domain.\n\
                          It is scanned all the same.",
                set: |c, v| value::texts(v, exemption).map(|x| c.$way.exempt = x),
            },
            Key {
                name: concat!($table, ".on_degraded"),
                default: "\"quarantine\"",
                meaning: "What happens to a message that would pass although an analyser failed:\n\
                          \"quarantine\", \"defer\" (the client tries again) or \"ignore\".",
                set: |c, v| {
                    let words = [
                        ("quarantine", OnDegraded::Quarantine),
                        ("defer", OnDegraded::Defer),
                        ("ignore", OnDegraded::Ignore),
                    ];
                    value::one_of(v, &words).map(|x| c.$way.on_degraded = x)
                },
            },
            Key {
                name: concat!($table, ".headers"),
                default: $marking,
                meaning: "What is written into the header of a message that passes: \"full\" (id, score, symbols\n\
                          and X-Spam-Flag) or \"id\" (the id alone).",
                set: |c, v| {
                    let words = [("full", Marking::Full), ("id", Marking::Id)];
                    value::one_of(v, &words).map(|x| c.$way.marking = x)
                },
            },
        ]
    };
}

pub(super) static INBOUND: [Key; 11] = way_keys!(
    "inbound",
    inbound,
    "\"127.0.0.1:2525\"",
    "mail from the world",
    "\"full\"",
    [Key {
        name: "inbound.domains",
        default: "[]",
        meaning: "Your own domains, each by its full name: mail for any other is refused with 550. Empty lets\n\
                  the next hop decide, which only a listener on loopback may.",
        set: |c, v| value::domains(v).map(|x| c.inbound.domains = x),
    }]
);

pub(super) static OUTBOUND: [Key; 13] = way_keys!(
    "outbound",
    outbound,
    "\"127.0.0.1:2526\"",
    "mail of our own users",
    "\"id\"",
    [
        Key {
            name: "outbound.networks",
            default: "[\"127.0.0.0/8\", \"::1/128\"]",
            meaning: "Networks of your own mail servers: any other client that has not signed in is refused with 554.",
            set: |c, v| value::networks(v).map(|x| c.outbound.networks = x),
        },
        Key {
            name: "outbound.auth",
            default: "\"none\"",
            meaning: "How clients of other networks sign in (AUTH): \"none\", \"accounts\" (`lazaret accounts add`) or\n\
                      \"next_hop\", which passes it on. A password is taken over TLS alone.",
            set: |c, v| {
                let words = [("none", Auth::None), ("accounts", Auth::Accounts), ("next_hop", Auth::NextHop)];
                value::one_of(v, &words).map(|x| c.outbound.auth = x)
            },
        },
        Key {
            name: "outbound.client_certificates",
            default: "[]",
            meaning: "SHA-256 fingerprints of the client certificates that may send without signing in. With a\n\
                      tls.client_ca they must be signed by it too.",
            set: |c, v| value::texts(v, |text| {
                text.parse().map_err(|error: InvalidFingerprint| format!("\"{text}\": {error}"))
            })
            .map(|x| c.outbound.client_certificates = x),
        },
    ]
);

const NEXT_HOP_TLS: &str = "What the connections to next hops must be, unless they say it themselves: \"none\" (in clear),\n\
     \"opportunistic\" (encrypted where it is offered), \"required\" (encrypted, with any certificate),\n\
     \"verified\" or \"verified:NAME\" (with a certificate of the host's or this name), \"sha256:HEX\" (with\n\
     this certificate) or \"published\" (by DANE, else by MTA-STS, else as \"opportunistic\").";

fn default_listener(value: &DeValue<'_>) -> Result<Option<ListenAddress>, Faults> {
    if value.as_str() == Some("") { Ok(None) } else { listener::listen(value).map(Some) }
}
