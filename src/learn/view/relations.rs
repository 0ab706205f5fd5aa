//! How what the message says of itself fits together: domains, hops, times, and pairs of these.

use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::{Collector, organisation, prefix, shape};
use crate::learn::trail::{Hop, Trail};
use crate::learn::words::Kind;
use crate::message::Message;

/// Words in the names of hosts that have an address for a time.
const POOLS: [&str; 8] = ["dyn", "dial", "dsl", "pool", "ppp", "cable", "dhcp", "cust"];
/// Hops from here on count as one place.
const PLACES: usize = 3;
const SUBJECT_BYTES: usize = 200;
const NAME_BYTES: usize = 100;
const LINKS: usize = 50;
/// Receiving hosts that are looked at, newest first.
const RECEIVERS: usize = 2;

pub(super) fn extract(message: &Message, trail: &Trail<'_>, to: &mut Collector<'_>) {
    let from = message.from.first();
    for (kind, text) in [
        (Kind::SubjectGram, prefix(&message.subject, SUBJECT_BYTES)),
        (Kind::NameGram, from.map_or("", |from| prefix(&from.name, NAME_BYTES))),
    ] {
        to.add_grams::<3>(kind, text.as_bytes());
        to.add_grams::<5>(kind, text.as_bytes());
    }
    let strong: Vec<u64> =
        strong(message, trail).into_iter().map(|relation| to.add(Kind::Relation, relation)).collect();
    for (place, first) in strong.iter().enumerate() {
        strong.iter().skip(place + 1).for_each(|second| to.add_pair(*first, *second));
    }
    for (place, hop) in trail.hops.iter().enumerate() {
        add_hop(place.min(PLACES), hop, to);
    }
    to.add(Kind::Relation, "");
}

fn add_hop(place: usize, hop: &Hop, to: &mut Collector<'_>) {
    let digits = hop.name.bytes().filter(u8::is_ascii_digit).count().min(8);
    to.add(Kind::Hop, format_args!("{place} from {}", organisation(&hop.name)));
    to.add(Kind::Hop, format_args!("{place} greeting as {}", organisation(&hop.helo)));
    to.add(Kind::Hop, format_args!("{place} dot {}", hop.helo.contains('.')));
    to.add(Kind::Hop, format_args!("{place} literal {}", hop.helo.starts_with('[')));
    to.add(Kind::Hop, format_args!("{place} greeting as named {}", hop.helo == hop.name));
    to.add(Kind::Hop, format_args!("{place} digits {digits}"));
    for pool in POOLS.iter().filter(|pool| hop.name.contains(*pool) || hop.helo.contains(*pool)) {
        to.add(Kind::Hop, format_args!("{place} pool {pool}"));
    }
    match hop.ip {
        Some(IpAddr::V4(ip)) => {
            let [a, b, ..] = ip.octets();
            to.add(Kind::Hop, format_args!("{place} {a}.*"));
            to.add(Kind::Hop, format_args!("{place} {a}.{b}.*"));
        }
        Some(IpAddr::V6(ip)) => {
            let [a, b, ..] = ip.segments();
            to.add(Kind::Hop, format_args!("{place} {a:x}:*"));
            to.add(Kind::Hop, format_args!("{place} {a:x}:{b:x}:*"));
        }
        None => {}
    }
}

/// The strongest relations: one feature each, which are paired with one another.
fn strong(message: &Message, trail: &Trail<'_>) -> Vec<String> {
    let field = |name: &str| {
        let found = trail.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.map_or("", |field| field.value.as_str())
    };
    let has = |name: &str| !field(name).is_empty();
    let from = domain(message.from.first().map_or("", |from| &from.address));
    let reply_to = domain(message.reply_to.first().map_or("", |to| &to.address));
    let to = domain(message.to.first().map_or("", |to| &to.address));
    let id = domain(field("Message-ID"));
    let date: Vec<&str> = field("Date").split_whitespace().collect();
    let date = |place: usize| date.get(place).copied().unwrap_or_default();
    let mailer = if has("X-Mailer") { field("X-Mailer") } else { field("User-Agent") };
    let mailer: String = mailer.chars().filter(|c| !c.is_ascii_digit() && *c != '.').take(30).collect();
    let types: Vec<&str> = message.parts.iter().take(6).map(|part| part.media_type.as_str()).collect();
    let letters = message.subject.chars().filter(|c| c.is_alphabetic()).count();
    let capitals = message.subject.chars().filter(|c| c.is_uppercase()).count();
    let hosts: Vec<String> = message.links.iter().take(LINKS).filter_map(|link| link.host()).collect();
    let mut linked: Vec<&str> = hosts.iter().map(|host| organisation(host)).collect();
    linked.sort_unstable();
    linked.dedup();
    let is_reply = message.subject.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("re:"));
    let (newest, oldest) = (trail.hops.first(), trail.hops.last());
    let hop = |hop: Option<&Hop>, part: fn(&Hop) -> &String| hop.map(part).cloned().unwrap_or_default();
    let mut relations = vec![
        format!("Message-ID {}", relation(&id, &from)),
        format!("Reply-To {}", relation(&reply_to, &from)),
        format!("To {}", relation(&to, &from)),
        format!("Message-ID like {}", shape(field("Message-ID"), 30)),
        format!("mail program {mailer}"),
        format!("parts {}", types.join(" ")),
        format!("capitals {}", (capitals * 5).checked_div(letters).unwrap_or_default()),
        format!("length {}", (message.subject.len() / 10).min(10)),
        format!("reply {is_reply} {}", has("In-Reply-To")),
        format!("recipients {}", message.to.len().min(5)),
        format!("list {} {} {}", has("List-Id"), has("List-Unsubscribe"), field("Precedence")),
        format!("linked organisations {}", linked.len().min(6)),
        format!("link to the sender's own {}", linked.contains(&organisation(&from))),
        format!("zone {}", date(5)),
        format!("hour {}", date(4).split(':').next().unwrap_or_default()),
        format!("weekday {}", date(0)),
        format!("delay {}", delay(field("Received"), field("Date"))),
        format!("hops {}", trail.hops.len()),
        format!("top domain {}", from.rsplit('.').next().unwrap_or_default()),
        format!(
            "newest hop {} {}",
            relation(&hop(newest, |hop| &hop.helo), &hop(newest, |hop| &hop.name)),
            hop(newest, |hop| &hop.name).is_empty()
        ),
        format!("newest hop of the sender {}", relation(&hop(newest, |hop| &hop.name), &from)),
        format!(
            "oldest hop {} {}",
            relation(&hop(oldest, |hop| &hop.name), &from),
            relation(&hop(oldest, |hop| &hop.helo), &id)
        ),
    ];
    let received = trail.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("Received"));
    relations.extend(received.take(RECEIVERS).map(|field| {
        let host = field.value.split(" by ").nth(1).and_then(|rest| rest.split_whitespace().next());
        format!("received by {}", organisation(host.unwrap_or_default()))
    }));
    relations
}

/// Returns the domain of an address, or of what looks like one, in lower case.
fn domain(value: &str) -> String {
    let domain = value.rsplit_once('@').map(|(_, domain)| domain).unwrap_or_default();
    domain.split(['>', ' ', ',', ';']).next().unwrap_or_default().to_ascii_lowercase()
}

/// Says how two hosts or domains belong together.
fn relation(one: &str, other: &str) -> &'static str {
    match (one, other) {
        ("", _) | (_, "") => "missing",
        (one, other) if one == other => "equal",
        (one, other) if organisation(one) == organisation(other) => "of the same organisation",
        _ => "different",
    }
}

/// Returns how long the message was under way, on a coarse scale: 0 below two minutes, then powers of two; "unknown"
/// without two dates.
fn delay(received: &str, date: &str) -> String {
    let parse = |date: &str| {
        let date = date.split('(').next().unwrap_or_default().trim();
        OffsetDateTime::parse(date, &Rfc2822).ok()
    };
    let received = received.rsplit_once(';').and_then(|(_, date)| parse(date));
    let Some((received, date)) = received.zip(parse(date)) else { return "unknown".to_owned() };
    let minutes = (received - date).whole_minutes();
    let scale = minutes.unsigned_abs().checked_ilog2().unwrap_or_default();
    format!("{}2^{scale}", if minutes < 0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_belong_together_by_organisation() {
        for (one, other, expected) in [
            ("", "a.example", "missing"),
            ("a.example", "a.example", "equal"),
            ("mx.a.co.uk", "news.a.co.uk", "of the same organisation"),
            ("a.co.uk", "b.co.uk", "different"),
        ] {
            assert_eq!(relation(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn delays_are_coarse_and_may_be_unknown() {
        let date = "Mon, 1 Jun 2026 10:00:00 +0000";
        for (received, expected) in [
            ("from a by b; Mon, 1 Jun 2026 12:00:30 +0200", "2^0"),
            ("from a by b; Mon, 1 Jun 2026 11:05:00 +0000 (UTC)", "2^6"),
            ("from a by b; Mon, 1 Jun 2026 09:00:00 +0000", "-2^5"),
            ("from a by b", "unknown"),
            ("from a by b; yesterday", "unknown"),
        ] {
            assert_eq!(delay(received, date), expected, "{received}");
        }
    }
}
