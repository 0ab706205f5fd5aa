//! The keys of a listener, `[[inbound.listener]]` and `[[outbound.listener]]`.

use toml::de::DeValue;

use super::Tables;
use crate::config::problem::Faults;
use crate::config::record::{Key, Record};
use crate::config::value;
use crate::config::way::Listener;
use crate::ingress::{ListenAddress, ListenAddressError, TlsMode};
use crate::smtp::server::Kind;

pub(super) static TABLES: [Tables; 2] = [
    Tables {
        name: "inbound.listener",
        meaning: "A further listener for mail from the world. inbound.listen = \"\" switches the default one off.",
        add: |c, t| LISTENER.read(t).map(|x| c.inbound.listeners.push(x)),
        fields: || LISTENER.fields(),
    },
    Tables {
        name: "outbound.listener",
        meaning: "A further listener for mail of our own users. outbound.listen = \"\" switches the default one off.",
        add: |c, t| LISTENER.read(t).map(|x| c.outbound.listeners.push(x)),
        fields: || LISTENER.fields(),
    },
];

static LISTENER: Record<Listener> = Record {
    required: &["listen"],
    blank: || Listener {
        listen: ListenAddress::Inherited(String::new()),
        protocol: Kind::Smtp,
        tls: TlsMode::None,
        proxy_protocol: false,
    },
    keys: &[
        Key {
            name: "listen",
            default: "\"0.0.0.0:25\"",
            meaning: "Where: address and port, \"unix:/run/lazaret/lmtp.sock\", or \"systemd:NAME\" for a socket\n\
                      that systemd hands over (FileDescriptorName=NAME).",
            set: |l, v| listen(v).map(|x| l.listen = x),
        },
        Key {
            name: "protocol",
            default: "\"smtp\"",
            meaning: "\"smtp\", or \"lmtp\", which answers for each recipient.",
            set: |l, v| {
                let words = [("smtp", Kind::Smtp), ("lmtp", Kind::Lmtp)];
                value::one_of(v, &words).map(|x| l.protocol = x)
            },
        },
        Key { name: "tls", default: "\"none\"", meaning: TLS_MEANING, set: |l, v| tls(v).map(|x| l.tls = x) },
        Key {
            name: "proxy_protocol",
            default: "false",
            meaning: "Whether clients in smtp.proxy_networks begin with a PROXY header, version 1 or 2.",
            set: |l, v| value::truth(v).map(|x| l.proxy_protocol = x),
        },
    ],
};

/// What the modes of TLS mean.
pub(super) const TLS_MEANING: &str = "Encryption: \"none\", \"offered\" (STARTTLS for who wants it), \"required\" (no transaction without\n\
     STARTTLS) or \"implicit\" (from the first byte). All but \"none\" need tls.certificates.";

/// Reads a place to listen.
pub(super) fn listen(value: &DeValue<'_>) -> Result<ListenAddress, Faults> {
    let text = value::text(value)?;
    text.parse().map_err(|error: ListenAddressError| error.to_string().into())
}

/// Reads a mode of TLS.
pub(super) fn tls(value: &DeValue<'_>) -> Result<TlsMode, Faults> {
    let words = [
        ("none", TlsMode::None),
        ("offered", TlsMode::Offered),
        ("required", TlsMode::Required),
        ("implicit", TlsMode::Implicit),
    ];
    value::one_of(value, &words)
}
