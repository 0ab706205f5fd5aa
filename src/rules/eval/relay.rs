//! The way of a message: which hops are ours, and SpamAssassin's `RelayEval` and pseudo headers over them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Context, Function, plainly};
use crate::message::{Message, Relay, is_fetched, relay};
use crate::rules::definition::Settings;

/// Most hops that are read.
const HOPS: usize = 50;

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_no_relays", no_relays),
    ("check_all_trusted", all_trusted),
    ("check_relays_unparseable", unparseable),
    ("helo_ip_mismatch", helo_ip_mismatch),
    ("check_for_no_rdns_dotcom_helo", no_name_dotcom_helo),
];

/// The networks that the rules name.
#[derive(Debug, Default)]
pub(super) struct Networks {
    trusted: Vec<(bool, IpNet)>,
    internal: Vec<(bool, IpNet)>,
}

impl Networks {
    /// Reads the statements; `!` before a network takes it out.
    pub(super) fn read(settings: &Settings) -> Self {
        let networks = |keyword: &str| {
            let read = |word: &str| {
                let (is_in, word) = word.strip_prefix('!').map_or((true, word), |word| (false, word));
                Some((is_in, network(word)?))
            };
            settings.words(keyword).filter_map(read).collect::<Vec<_>>()
        };
        Networks { trusted: networks("trusted_networks"), internal: networks("internal_networks") }
    }

    fn has(list: &[(bool, IpNet)], ip: IpAddr) -> Option<bool> {
        if is_loopback(ip) {
            return Some(true);
        }
        (!list.is_empty())
            .then(|| list.iter().find(|(_, network)| network.contains(&ip)).is_some_and(|(is_in, _)| *is_in))
    }
}

/// Reads `192.0.2.0/24`, `192.0.2.1` and `192.0.2.`.
fn network(word: &str) -> Option<IpNet> {
    if let Ok(network) = word.parse() {
        return Some(network);
    }
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Some(ip.into());
    }
    let octets = word.trim_end_matches('.').split('.').count();
    let zeros = vec!["0"; 4_usize.checked_sub(octets)?].join(".");
    format!("{}.{zeros}/{}", word.trim_end_matches('.'), octets * 8).parse().ok()
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.octets().first() == Some(&100)
                    && ip.octets().get(1).is_some_and(|octet| (64..128).contains(octet))
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// The hops of a message, newest first, and how many of them are trusted and internal.
#[derive(Debug, Default)]
pub(super) struct Trail {
    relays: Vec<Relay>,
    trusted: usize,
    internal: usize,
    unparseable: usize,
}

impl Trail {
    /// Reads the Received fields. The newest hops are trusted while their addresses are in the networks that
    /// the rules name; where they name none, while they are private.
    pub(super) fn read(context: &Context<'_>) -> Self {
        let mut trail = Trail::default();
        let networks = &context.families().networks;
        let is_trusted = |relay: &&Relay| {
            Networks::has(&networks.trusted, relay.ip).unwrap_or_else(|| is_private(relay.ip))
                || !relay.auth.is_empty()
        };
        for field in context.subject().message.headers_named("Received").take(HOPS) {
            match relay(&field.value) {
                Some(relay) => trail.relays.push(relay),
                // What our own side did with the message after fetching it is no way of it.
                None if is_fetched(&field.value) => {
                    if trail.relays.iter().all(|relay| is_trusted(&relay)) {
                        trail.relays.clear();
                    }
                }
                None => trail.unparseable += usize::from(is_odd(&field.value)),
            }
        }
        trail.trusted = trail.relays.iter().take_while(is_trusted).count();
        let is_internal = |relay: &&Relay| Networks::has(&networks.internal, relay.ip).unwrap_or(true);
        trail.internal = trail.relays.iter().take(trail.trusted).take_while(is_internal).count();
        trail
    }

    /// Returns the reverse-path of a message that comes without an envelope: as the hop before ours tells it, or
    /// the fields that a delivery leaves behind, unless another host has written them.
    pub(super) fn reverse_path(&self, message: &Message) -> Option<String> {
        let trusted = self.trusted().last();
        let hop = self.untrusted().first().or(trusted);
        if let Some(hop) = hop.filter(|hop| hop.reverse_path.contains('@')) {
            return Some(hop.reverse_path.clone());
        }
        let is_fetched = || message.headers_named("Received").any(|field| field.value.contains("(fetchmail"));
        if message.header("X-Sender").is_some_and(|field| field.value.contains('@')) && is_fetched() {
            return None;
        }
        for name in ["X-Envelope-From", "Envelope-Sender", "Return-Path"] {
            let place =
                |name: &str| message.headers.iter().position(|field| field.name.eq_ignore_ascii_case(name));
            let Some(at) = place(name) else { continue };
            let is_ours = place("Received").is_none_or(|received| at < received);
            if is_ours {
                let value = message.headers.get(at).map(|field| field.value.as_str()).unwrap_or_default();
                let address = value.trim().trim_start_matches('<').trim_end_matches('>').trim();
                return (!address.is_empty()).then(|| address.to_owned());
            }
            if name == "X-Envelope-From" {
                return None;
            }
        }
        None
    }

    /// Returns our own hops, newest first.
    pub(super) fn trusted(&self) -> &[Relay] {
        self.relays.get(..self.trusted).unwrap_or_default()
    }

    /// Returns how many of our own hops are internal.
    pub(super) fn internal(&self) -> usize {
        self.internal
    }

    /// Returns the hops before ours, newest first.
    pub(super) fn untrusted(&self) -> &[Relay] {
        self.relays.get(self.trusted..).unwrap_or_default()
    }
}

/// Whether a field that names no address is of a form that nobody writes: neither a hop within a host nor
/// `from NAME by NAME with ...`.
fn is_odd(value: &str) -> bool {
    let mut words = value.split_whitespace();
    if words.next() != Some("from") || value.contains("mail pickup service") {
        return false;
    }
    if words.clone().next().is_some_and(|word| word.parse::<IpAddr>().is_ok()) {
        return true;
    }
    !value.contains("localhost")
        && !value.contains("127.0.0.1")
        && words.nth(1).is_some_and(|word| word != "by" && !word.starts_with('('))
}

/// Returns the pseudo header of a name in lower case, in SpamAssassin's form; `None` for another name.
pub(super) fn field(name: &str, context: &Context<'_>) -> Option<String> {
    let kind = name.strip_prefix("x-spam-relays-")?;
    let trail = context.trail();
    let (from, to, is_internal) = match kind {
        "trusted" => (0, trail.trusted, false),
        "untrusted" => (trail.trusted, trail.relays.len(), false),
        "internal" => (0, trail.internal, true),
        "external" => (trail.internal, trail.relays.len(), false),
        _ => return None,
    };
    let write = |(index, relay): (usize, &Relay)| {
        format!(
            "[ ip={} rdns={} helo={} by={} ident={} envfrom={} intl={} id={} auth={} msa=0 ]",
            relay.ip,
            relay.name,
            relay.helo,
            relay.by,
            relay.ident,
            relay.reverse_path,
            u8::from(is_internal || index < trail.internal),
            relay.id,
            relay.auth
        )
    };
    let relays = trail.relays.iter().enumerate().skip(from).take(to.saturating_sub(from));
    Some(relays.map(write).collect::<Vec<_>>().join(" "))
}

fn no_relays(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.trail().relays.is_empty())
}

fn all_trusted(context: &Context<'_>, _: &[String]) -> Option<String> {
    let trail = context.trail();
    plainly(!trail.relays.is_empty() && trail.untrusted().is_empty() && trail.unparseable == 0)
}

fn unparseable(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.trail().unparseable > 0)
}

/// The first two octets of an address that was given for a name are not those of the address.
fn helo_ip_mismatch(context: &Context<'_>, _: &[String]) -> Option<String> {
    let prefix = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets().get(..2).map(<[u8]>::to_vec),
        IpAddr::V6(_) => None,
    };
    plainly(context.trail().untrusted().iter().any(|relay| {
        let said = relay.helo.trim_matches(['[', ']', '!']).parse::<IpAddr>().ok();
        said.is_some_and(|said| !is_private(said) && prefix(said) != prefix(relay.ip))
    }))
}

/// A host without a name says that it is one of a large provider: the oldest hop that gives a name decides.
fn no_name_dotcom_helo(context: &Context<'_>, _: &[String]) -> Option<String> {
    const PROVIDERS: [&str; 11] = [
        "aol.com",
        "caramail.com",
        "cs.com",
        "drizzle.com",
        "excite.com",
        "hotmail.com",
        "localhost.com",
        "lycos.co.uk",
        "lycos.com",
        "msn.com",
        "yahoo.com",
    ];
    let mut hops = context.trail().untrusted().iter();
    let hop = hops.rfind(|hop| !is_private(hop.ip))?;
    let helo = hop.helo.to_ascii_lowercase();
    let is_below = |provider: &&str| {
        helo.strip_suffix(*provider).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    plainly(hop.name.is_empty() && PROVIDERS.iter().any(is_below))
}
