//! The keys of SMTP on both sides: limits, time, and whose word counts.

use std::time::Duration;

use super::{DAY, HOUR, Key, MIB, SECOND};
use crate::config::value;

const MINUTE: Duration = Duration::from_secs(60);

pub(super) static SMTP: [Key; 19] = [
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
        meaning: "Connections at a time, over all listeners; further ones get 421.",
        set: |c, v| value::count(v, 1, 100_000).map(|x| c.smtp.max_connections = x),
    },
    Key {
        name: "smtp.max_connections_per_ip",
        default: "100",
        meaning: "Connections at a time from one address (IPv6: one /64), over all listeners; further ones get 421.",
        set: |c, v| value::count(v, 1, 100_000).map(|x| c.smtp.max_connections_per_ip = x),
    },
    Key {
        name: "smtp.max_connections_per_network",
        default: "400",
        meaning: "Connections at a time from one IPv4 /24 or one IPv6 /48, over all listeners; further ones get 421.",
        set: |c, v| value::count(v, 1, 100_000).map(|x| c.smtp.max_connections_per_network = x),
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
        name: "smtp.max_commands",
        default: "3000",
        meaning: "Commands between two messages of a session before it is closed with 421; accepted recipients do\n\
                  not count.",
        set: |c, v| value::count(v, 20, 1_000_000).map(|x| c.smtp.max_commands = x),
    },
    Key {
        name: "smtp.max_messages",
        default: "1000",
        meaning: "Messages of one session; the next one gets 421, and its client connects again.",
        set: |c, v| value::count(v, 1, 1_000_000).map(|x| c.smtp.max_messages = x),
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
        name: "smtp.min_data_rate",
        default: "1000",
        meaning: "Bytes a second at which a message earns more time than idle_timeout; a slower one gets 421.",
        set: |c, v| {
            let rate = value::count(v, 1, 1_000_000_000)?;
            c.smtp.min_data_rate = u32::try_from(rate).map_err(|error| error.to_string())?;
            Ok(())
        },
    },
    Key {
        name: "smtp.greeting_delay",
        default: "\"0s\"",
        meaning: "How long a client must wait for the greeting; one that talks before it is turned away.",
        set: |c, v| value::duration(v, Duration::ZERO, MINUTE).map(|x| c.smtp.greeting_delay = x),
    },
    Key {
        name: "smtp.tarpit",
        default: "\"0s\"",
        meaning: "The pause before each reply that refuses something.",
        set: |c, v| value::duration(v, Duration::ZERO, MINUTE).map(|x| c.smtp.tarpit = x),
    },
    Key {
        name: "smtp.shutdown_grace",
        default: "\"30s\"",
        meaning: "Time that sessions and a release under way have to end when the gateway stops. A second\n\
                  SIGTERM ends it at once.",
        set: |c, v| value::duration(v, Duration::ZERO, HOUR).map(|x| c.smtp.shutdown_grace = x),
    },
    Key {
        name: "smtp.require_tls_networks",
        default: "[]",
        meaning: "Clients that get no transaction without TLS, whatever the listener says.",
        set: |c, v| value::networks(v).map(|x| c.smtp.require_tls_networks = x),
    },
    Key {
        name: "smtp.proxy_networks",
        default: "[]",
        meaning: "Proxies that begin each connection with a PROXY header, on listeners with proxy_protocol.",
        set: |c, v| value::networks(v).map(|x| c.smtp.proxy_networks = x),
    },
    Key {
        name: "smtp.xclient_networks",
        default: "[]",
        meaning: "Clients that may say by XCLIENT on whose behalf they come; their word decides who may send.",
        set: |c, v| value::networks(v).map(|x| c.smtp.xclient_networks = x),
    },
    Key {
        name: "smtp.xforward_networks",
        default: "[]",
        meaning: "Clients that may say by XFORWARD where mail came from; the log and the analysers believe it.",
        set: |c, v| value::networks(v).map(|x| c.smtp.xforward_networks = x),
    },
];

pub(super) static RELAY: [Key; 5] = [
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
        name: "relay.back_off",
        default: "\"30s\"",
        meaning: "How long a next hop that failed is passed over where there is another.",
        set: |c, v| value::duration(v, SECOND, HOUR).map(|x| c.relay.back_off = x),
    },
];
