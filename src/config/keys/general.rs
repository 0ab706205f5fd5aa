//! The keys of the installation: names, folders, scanning, quarantine, review pages.

use std::path::PathBuf;
use std::time::Duration;

use super::{DAY, HOUR, Key};
use crate::config::value;
use crate::mail::{Address, Direction, Domain, InvalidAddress};

pub(super) static FIRST: [Key; 4] = [
    Key {
        name: "hostname",
        default: "\"localhost\"",
        meaning: "The name that we greet with and write into Received fields.",
        set: |c, v| {
            let name = value::text(v)?;
            Domain::parse(&name).map_err(|_| "expected a host name")?;
            c.hostname = name;
            Ok(())
        },
    },
    Key {
        name: "data_dir",
        default: "\"./lazaret-data\"",
        meaning: "Folder of records, kept bodies, learned state and keys. One running gateway a folder.",
        set: |c, v| match value::text(v)?.as_str() {
            "" => Err("expected a folder".into()),
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
                return Err(InvalidAddress::NoDomain.to_string().into());
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

pub(super) static LAST: [Key; 15] = [
    Key {
        name: "scan.authserv_ids",
        default: "[]",
        meaning: "Names under which servers in front of this one write Authentication-Results (RFC 8601): what they\n\
                  say of SPF, DKIM, DMARC and ARC is believed. They must remove such fields that bear their names\n\
                  from what they receive.",
        set: |c, v| value::texts(v, |text| Ok(text.to_owned())).map(|x| c.authserv_ids = x),
    },
    Key {
        name: "scan.concurrency",
        default: "0",
        meaning: "Scans at a time; 0 for one a core. Others wait their turn.",
        set: |c, v| value::count(v, 0, 4096).map(|x| c.scan_concurrency = x),
    },
    Key {
        name: "scan.exempt_networks",
        default: "[]",
        meaning: "Clients whose mail is not scanned and passes: a written exemption, which the log repeats at the\n\
                  start. Their messages carry UNSCANNED_EXEMPT.",
        set: |c, v| value::networks(v).map(|x| c.scan_exempt_networks = x),
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
        set: |c, v| value::path(v).map(|x| c.rules_dir = x),
    },
    Key {
        name: "organisation.people",
        default: "[]",
        meaning: "People whose names are worth imitating, as \"Anna Smith <anna@example.org>\": mail that bears such\n\
                  a name and comes from elsewhere is told. Your domains are those of inbound.domains.",
        set: |c, v| {
            let people = value::texts(v, |text| {
                let mailbox = crate::message::mailboxes(&text).into_iter().next();
                mailbox.filter(|person| !person.name.is_empty() && person.address.contains('@')).ok_or_else(
                    || "expected a name and an address: \"Anna Smith <anna@example.org>\"".to_owned(),
                )
            })?;
            c.people = people;
            Ok(())
        },
    },
    Key {
        name: "quarantine.retention",
        default: "\"30d\"",
        meaning: "How long kept mail is kept; then body and record are removed.",
        set: |c, v| value::duration(v, HOUR, DAY * 3650).map(|x| c.retention = x),
    },
    Key {
        name: "door.spamd",
        default: "\"\"",
        meaning: "Where SpamAssassin's spamd protocol is spoken, for spamc and its like: \"127.0.0.1:783\", or\n\
                  \"unix:/run/lazaret/spamd.sock\". Empty for nowhere.",
        set: |c, v| value::place(v).map(|x| c.door.spamd = x),
    },
    Key {
        name: "door.rspamd",
        default: "\"\"",
        meaning: "Where Rspamd's HTTP is spoken, for rspamc and its like: \"127.0.0.1:11333\". Empty for nowhere.",
        set: |c, v| match value::text(v)?.as_str() {
            "" => {
                c.door.rspamd = None;
                Ok(())
            }
            _ => value::socket(v).map(|x| c.door.rspamd = Some(x)),
        },
    },
    Key {
        name: "door.milter",
        default: "\"\"",
        meaning: "Where mail servers find a milter: \"127.0.0.1:8891\", or \"unix:/run/lazaret/milter.sock\". What is\n\
                  kept is in the quarantine here; the mail server delivers the rest. Empty for nowhere.",
        set: |c, v| value::place(v).map(|x| c.door.milter = x),
    },
    Key {
        name: "door.direction",
        default: "\"inbound\"",
        meaning: "Which way the mail travels that these clients ask about: \"inbound\" or \"outbound\".",
        set: |c, v| match value::text(v)?.as_str() {
            "inbound" => {
                c.door.direction = Direction::Inbound;
                Ok(())
            }
            "outbound" => {
                c.door.direction = Direction::Outbound;
                Ok(())
            }
            _ => Err("expected \"inbound\" or \"outbound\"".into()),
        },
    },
    Key {
        name: "door.learn",
        default: "false",
        meaning: "Whether these clients may teach the filter.",
        set: |c, v| value::truth(v).map(|x| c.door.may_teach = x),
    },
    Key {
        name: "door.allow_remote",
        default: "false",
        meaning: "Whether these doors may be at an address that others reach. Nobody signs in there: whoever\n\
                  reaches them learns how mail is judged, and may teach where door.learn is true.",
        set: |c, v| value::truth(v).map(|x| c.door.allow_remote = x),
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
                _ => Err("expected an address such as \"https://mail.example.org\"".into()),
            }
        },
    },
];
