//! Every key: its name, default, meaning and effect, in one place.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::{Config, RelayLimits, Route, SmtpLimits, value};
use crate::gateway::{Access, Marking};
use crate::mail::{Address, Domain, InvalidAddress};
use crate::policy::{Exemption, OnDegraded};
use crate::relay::NextHop;

/// The definition of one key.
pub(super) struct Key {
    /// The dotted name.
    pub(super) name: &'static str,
    /// The default, as it would stand in a file.
    pub(super) default: &'static str,
    /// What it means, for the reference.
    pub(super) meaning: &'static str,
    /// Reads a value into the configuration.
    pub(super) set: fn(&mut Config, &DeValue<'_>) -> Result<(), String>,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const MIB: usize = 1 << 20;

/// Returns every key, grouped by table.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    [&GENERAL[..], &INBOUND, &OUTBOUND, &REST].into_iter().flatten()
}

/// The keys of a direction, which differ in their defaults alone.
macro_rules! route_keys {
    ($table:literal, $route:ident, $listen:literal, $from:literal, $marking:literal, $access:expr) => {
        [
            $access,
            Key {
                name: concat!($table, ".listen"),
                default: $listen,
                meaning: concat!("Address and port on which ", $from, " comes in."),
                set: |c, v| value::socket(v).map(|x| c.$route.listen = x),
            },
            Key {
                name: concat!($table, ".next_hop"),
                default: "\"maildir:\"",
                meaning: "Where mail that passes goes: \"smtp://host:port\", or \"maildir:FOLDER\", which delivers\n\
                          durably into a Maildir; without a folder, into one in the data folder.",
                set: |c, v| next_hop(v).map(|x| c.$route.next_hop = x),
            },
            Key {
                name: concat!($table, ".tag"),
                default: "4.0",
                meaning: "Score from which a message is marked as spam and passes.",
                set: |c, v| value::number(v).map(|x| c.$route.tag = x),
            },
            Key {
                name: concat!($table, ".quarantine"),
                default: "6.0",
                meaning: "Score from which it is kept until a person decides.",
                set: |c, v| value::number(v).map(|x| c.$route.quarantine = x),
            },
            Key {
                name: concat!($table, ".reject"),
                default: "25.0",
                meaning: "Score from which it is refused in the session.",
                set: |c, v| value::number(v).map(|x| c.$route.reject = x),
            },
            Key {
                name: concat!($table, ".exempt"),
                default: "[\"postmaster\", \"abuse\"]",
                meaning: "Recipients whose mail always passes, marked: mailboxes, or local parts at any domain.\n\
                          It is scanned all the same.",
                set: |c, v| exemptions(v).map(|x| c.$route.exempt = x),
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
                    value::one_of(v, &words).map(|x| c.$route.on_degraded = x)
                },
            },
            Key {
                name: concat!($table, ".headers"),
                default: $marking,
                meaning: "What is written into the header of a message that passes: \"full\" (id, score, symbols\n\
                          and X-Spam-Flag) or \"id\" (the id alone).",
                set: |c, v| {
                    let words = [("full", Marking::Full), ("id", Marking::Id)];
                    value::one_of(v, &words).map(|x| c.$route.marking = x)
                },
            },
        ]
    };
}

static GENERAL: [Key; 4] = [
    Key {
        name: "hostname",
        default: "\"localhost\"",
        meaning: "The name that we greet with and write into Received fields.",
        set: |c, v| {
            let name = value::text(v)?;
            crate::mail::Domain::parse(&name).map_err(|_| "expected a host name".to_owned())?;
            c.hostname = name;
            Ok(())
        },
    },
    Key {
        name: "data_dir",
        default: "\"./lazaret-data\"",
        meaning: "Folder of records, kept bodies, learned state and keys. One running gateway a folder.",
        set: |c, v| match value::text(v)?.as_str() {
            "" => Err("expected a folder".to_owned()),
            path => {
                c.data_dir = PathBuf::from(path);
                Ok(())
            }
        },
    },
    Key {
        name: "mail_from",
        default: "\"lazaret@localhost\"",
        meaning: "From address of the mail that we write ourselves, such as sign-in links.",
        set: |c, v| {
            let text = value::text(v)?;
            let address = Address::parse(&text).map_err(|error| error.to_string())?;
            if address.domain().is_none() {
                return Err(InvalidAddress::NoDomain.to_string());
            }
            c.mail_from = text;
            Ok(())
        },
    },
    Key {
        name: "log",
        default: "\"info\"",
        meaning: "What is logged, in the syntax of tracing's EnvFilter: \"info\", \"lazaret=debug\".",
        set: |c, v| {
            let text = value::text(v)?;
            tracing_subscriber::EnvFilter::try_new(&text).map_err(|error| error.to_string())?;
            c.log = text;
            Ok(())
        },
    },
];

static INBOUND: [Key; 9] = route_keys!(
    "inbound",
    inbound,
    "\"127.0.0.1:2525\"",
    "mail from the world",
    "\"full\"",
    Key {
        name: "inbound.domains",
        default: "[]",
        meaning: "Your own domains, each by its full name: mail for any other is refused with 550. Empty lets
\
                  the next hop decide, which only a listener on loopback may.",
        set: |c, v| domains(v).map(|x| c.inbound.access = Access::Domains(x)),
    }
);
static OUTBOUND: [Key; 9] = route_keys!(
    "outbound",
    outbound,
    "\"127.0.0.1:2526\"",
    "mail of our own users",
    "\"id\"",
    Key {
        name: "outbound.networks",
        default: "[\"127.0.0.0/8\", \"::1/128\"]",
        meaning: "Networks of your own mail servers: any other client is refused with 554.",
        set: |c, v| networks(v).map(|x| c.outbound.access.clients_mut().networks = x),
    }
);

static REST: [Key; 18] = [
    Key {
        name: "smtp.max_message_size",
        default: "\"50 MiB\"",
        meaning: "Largest message that is taken (RFC 1870). Larger ones are refused with 552.",
        set: |c, v| value::size(v, 1024, 1024 * MIB).map(|x| c.smtp.max_message_bytes = x),
    },
    Key {
        name: "smtp.max_recipients",
        default: "1000",
        meaning: "Recipients in one transaction; further ones get 452.",
        set: |c, v| value::count(v, 100, 100_000).map(|x| c.smtp.max_recipients = x),
    },
    Key {
        name: "smtp.max_connections",
        default: "1000",
        meaning: "Connections at a time, each direction; further ones get 421.",
        set: |c, v| value::count(v, 1, 100_000).map(|x| c.smtp.max_connections = x),
    },
    Key {
        name: "smtp.max_connections_per_ip",
        default: "100",
        meaning: "Connections at a time from one address; further ones get 421.",
        set: |c, v| value::count(v, 1, 100_000).map(|x| c.smtp.max_connections_per_ip = x),
    },
    Key {
        name: "smtp.max_bytes_in_flight",
        default: "\"512 MiB\"",
        meaning: "Message bytes that all sessions hold together; a message that does not fit gets 452.",
        set: |c, v| value::size(v, MIB, 1024 * 1024 * MIB).map(|x| c.smtp.max_bytes_in_flight = x),
    },
    Key {
        name: "smtp.max_errors",
        default: "20",
        meaning: "Wrong commands in one session before it is closed with 421.",
        set: |c, v| value::count(v, 1, 10_000).map(|x| c.smtp.max_errors = x),
    },
    Key {
        name: "smtp.idle_timeout",
        default: "\"5m\"",
        meaning: "Longest silence of a client (RFC 5321, section 4.5.3.2, asks for five minutes).",
        set: |c, v| value::duration(v, SECOND, HOUR).map(|x| c.smtp.idle_timeout = x),
    },
    Key {
        name: "smtp.session_timeout",
        default: "\"1h\"",
        meaning: "Longest session.",
        set: |c, v| value::duration(v, SECOND, DAY).map(|x| c.smtp.session_timeout = x),
    },
    Key {
        name: "relay.connect_timeout",
        default: "\"10s\"",
        meaning: "Time for a connection to the next hop.",
        set: |c, v| value::duration(v, Duration::from_millis(10), HOUR).map(|x| c.relay.connect_timeout = x),
    },
    Key {
        name: "relay.command_timeout",
        default: "\"1m\"",
        meaning: "Time for the next hop's answer to a command. Clients wait five minutes for ours.",
        set: |c, v| value::duration(v, Duration::from_millis(10), HOUR).map(|x| c.relay.command_timeout = x),
    },
    Key {
        name: "relay.data_timeout",
        default: "\"5m\"",
        meaning: "Time for the next hop's answer to the end of data.",
        set: |c, v| value::duration(v, Duration::from_millis(10), HOUR).map(|x| c.relay.data_timeout = x),
    },
    Key {
        name: "relay.max_idle",
        default: "16",
        meaning: "Idle connections to a next hop that are kept for reuse.",
        set: |c, v| value::count(v, 0, 10_000).map(|x| c.relay.max_idle = x),
    },
    Key {
        name: "scan.concurrency",
        default: "0",
        meaning: "Scans at a time; 0 for one a core. Others wait their turn.",
        set: |c, v| value::count(v, 0, 4096).map(|x| c.scan_concurrency = x),
    },
    Key {
        name: "scan.timeout",
        default: "\"10s\"",
        meaning: "Time for one scan; then on_degraded decides. A message whose turn does not come in this time gets 451.",
        set: |c, v| value::duration(v, Duration::from_millis(10), HOUR).map(|x| c.scan_timeout = x),
    },
    Key {
        name: "scan.rules_dir",
        default: "\"\"",
        meaning: "A folder of your own rules (*.cf, in SpamAssassin's language), read after the built-in ones.",
        set: |c, v| value::text(v).map(|x| c.rules_dir = (!x.is_empty()).then(|| PathBuf::from(x))),
    },
    Key {
        name: "quarantine.retention",
        default: "\"30d\"",
        meaning: "How long kept mail is kept; then body and record are removed.",
        set: |c, v| value::duration(v, HOUR, DAY * 3650).map(|x| c.retention = x),
    },
    Key {
        name: "web.listen",
        default: "\"127.0.0.1:8025\"",
        meaning: "Address and port of the review pages and /metrics. Put a TLS proxy in front of it.",
        set: |c, v| value::socket(v).map(|x| c.web_listen = x),
    },
    Key {
        name: "web.public_url",
        default: "\"\"",
        meaning: "How people reach the review pages, such as \"https://mail.example.org\"; links in mail begin\n\
                  with it. Empty for http:// and the listener's address.",
        set: |c, v| {
            let text = value::text(v)?;
            if text.is_empty() {
                c.web_public_url = None;
                return Ok(());
            }
            match url::Url::parse(&text) {
                Ok(url)
                    if matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/" =>
                {
                    c.web_public_url = Some(url);
                    Ok(())
                }
                _ => Err("expected an address such as \"https://mail.example.org\"".to_owned()),
            }
        },
    },
];

/// Returns a configuration that every key is about to overwrite with its default.
pub(super) fn blank() -> Config {
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let route = Route {
        listen: nowhere,
        access: Access::Domains(Vec::new()),
        next_hop: NextHop::Maildir { path: PathBuf::new() },
        tag: 0.0,
        quarantine: 0.0,
        reject: 0.0,
        exempt: Vec::new(),
        on_degraded: OnDegraded::Quarantine,
        marking: Marking::Id,
    };
    Config {
        hostname: String::new(),
        data_dir: PathBuf::new(),
        inbound: route.clone(),
        outbound: route,
        smtp: SmtpLimits {
            max_message_bytes: 0,
            max_recipients: 0,
            max_connections: 0,
            max_connections_per_ip: 0,
            max_bytes_in_flight: 0,
            max_errors: 0,
            idle_timeout: Duration::ZERO,
            session_timeout: Duration::ZERO,
        },
        relay: RelayLimits {
            connect_timeout: Duration::ZERO,
            command_timeout: Duration::ZERO,
            data_timeout: Duration::ZERO,
            max_idle: 0,
        },
        scan_concurrency: 0,
        scan_timeout: Duration::ZERO,
        rules_dir: None,
        web_listen: nowhere,
        web_public_url: None,
        mail_from: String::new(),
        retention: Duration::ZERO,
        log: String::new(),
    }
}

/// Reads a next hop. A Maildir without a folder is the data folder's own, which `app` knows.
fn next_hop(value: &DeValue<'_>) -> Result<NextHop, String> {
    if value::text(value)? == "maildir:" {
        return Ok(NextHop::Maildir { path: PathBuf::new() });
    }
    value::parsed(value, "smtp://127.0.0.1:10025")
}

fn domains(value: &DeValue<'_>) -> Result<Vec<Domain>, String> {
    let parse = |text: String| {
        Domain::parse(&text)
            .map_err(|_| format!("\"{text}\" is no domain; an example of one: \"example.org\""))
    };
    value::texts(value)?.into_iter().map(parse).collect()
}

fn networks(value: &DeValue<'_>) -> Result<Vec<IpNet>, String> {
    let parse = |text: String| match text.parse::<IpNet>() {
        Ok(net) if net.prefix_len() == 0 => Err(format!("\"{text}\" is the whole world")),
        Ok(net) => Ok(net),
        Err(_) => Err(format!("\"{text}\" is no network; an example of one: \"192.0.2.0/24\"")),
    };
    value::texts(value)?.into_iter().map(parse).collect()
}

fn exemptions(value: &DeValue<'_>) -> Result<Vec<Exemption>, String> {
    let mut exemptions = Vec::new();
    for text in value::texts(value)? {
        exemptions.push(if text.contains('@') {
            let address = Address::parse(&text).map_err(|error| format!("\"{text}\": {error}"))?;
            Exemption::Mailbox(address)
        } else {
            Exemption::LocalPart(text)
        });
    }
    Ok(exemptions)
}
