//! Whether a message came the way and from the program that its header says: what of SpamAssassin's `HeaderEval`
//! and `RelayEval` looks for forgeries.

use mail_parser::DateTime;

use super::header::text;
use super::{Context, Function, domain_of, org, plainly};
use crate::message::relay;
use crate::rules::definition::{Form, Piece};
use crate::rules::view;

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_for_forged_yahoo_received_headers", |context, _| {
        forged_provider(context, "yahoo.com", &["yahoo.com"])
    }),
    ("check_for_forged_hotmail_received_headers", |context, _| {
        forged_provider(context, "hotmail.com", &["hotmail.com", "msn.com", "outlook.com"])
    }),
    ("check_for_no_hotmail_received_headers", no_hotmail),
    ("check_for_forged_juno_received_headers", |context, _| {
        forged_provider(context, "juno.com", &["juno.com", "untd.com"])
    }),
    ("check_for_forged_gmail_received_headers", |context, _| {
        forged_provider(context, "gmail.com", &["google.com", "gmail.com"])
    }),
    ("check_for_forged_eudoramail_received_headers", |context, _| {
        forged_provider(context, "eudoramail.com", &["eudoramail.com", "whowhere.com"])
    }),
    ("check_for_fake_aol_relay_in_rcvd", fake_aol_relay),
    ("check_for_forged_received_trail", forged_trail),
    ("check_mailfrom_matches_rcvd", reverse_path_matches_name),
    ("check_outlook_message_id", outlook_message_id),
    ("check_ratware_name_id", name_in_message_id),
    ("check_ratware_envelope_from", recipient_in_reverse_path),
    ("gated_through_received_hdr_remover", |context, _| plainly(is_trail_removed(context))),
];

/// How far the time in a message id may be from Date, in its own units of some seven minutes.
const TIME_STEPS: f64 = 250.0;

/// All fields of a name, white space collapsed.
fn all(context: &Context<'_>, name: &str) -> String {
    let fields = context.subject().message.headers_named(name);
    let words: Vec<&str> = fields.flat_map(|field| field.value.split_whitespace()).collect();
    words.join(" ")
}

/// Returns what stands between two texts that follow each other on a line.
fn between_words<'t>(text: &'t str, before: &str, behind: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(behind)?.0)
}

/// A mailing list takes the way out of its messages.
fn is_trail_removed(context: &Context<'_>) -> bool {
    if context.trail_is_empty() {
        return true;
    }
    let received = all(context, "Received");
    let list = all(context, "Mailing-List");
    let is_ezmlm = list.starts_with("contact ") && list.contains("; run by ezmlm");
    let is_qmail = received.contains("invoked from network); ") || received.contains("invoked by ");
    is_ezmlm
        && all(context, "Delivered-To").starts_with("mailing list ")
        && received.contains("qmail ")
        && is_qmail
        || received.contains("from groups.msn.com (")
}

/// The author is at Hotmail, and no hop is.
fn no_hotmail(context: &Context<'_>, _: &[String]) -> Option<String> {
    let received = all(context, "Received").to_ascii_lowercase();
    let originated = context.subject().message.header("X-Originating-Ip").is_some();
    let organisation = all(context, "X-OriginatorOrg");
    let is_theirs = organisation.contains("hotmail.com") || organisation.contains("msonline-outlook");
    let is_way = received.contains("from mail pickup service by hotmail.com with microsoft smtpsvc;")
        || originated
            && (received.contains(".hotmail.com [")
                || received.contains(".hotmail.com (")
                || received.contains("with http;"))
        || is_theirs
            && (received.contains(".outbound.protection.outlook.com")
                || received.contains(".prod.outlook.com"));
    let says_so = ["from ", "helo ", "helo="].iter().any(|before| {
        let mut rest = received.as_str();
        std::iter::from_fn(|| {
            let (_, after) = rest.split_once(before)?;
            rest = after;
            after.split_whitespace().next()
        })
        .any(|host| host.contains("hotmail.com"))
    });
    plainly(context.from_domain == "hotmail.com" && !is_way && !says_so && !is_trail_removed(context))
}

/// A hop has a name of AOL's inner relays, and does not write as they do.
fn fake_aol_relay(context: &Context<'_>, _: &[String]) -> Option<String> {
    let received = all(context, "Received");
    let mut names = received.split(' ').filter_map(|word| word.strip_prefix("rly-"));
    let is_named = names.any(|name| {
        let bytes = name.as_bytes();
        matches!(bytes.get(..5), Some([a, b, c, d, b'.']) if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && c.is_ascii_digit() && d.is_ascii_digit())
    });
    let is_theirs = received.contains("/AOL-")
        || ["RELAY", "MAILRELAY", "MAILIN"].iter().any(|id| received.contains(&format!("ESMTP id {id}")));
    plainly(is_named && !is_theirs)
}

fn message_id(context: &Context<'_>) -> Option<String> {
    let id = view::header("MESSAGEID", Form::default(), context)?;
    Some(String::from_utf8_lossy(&id).trim_end().to_owned())
}

/// More than one hop was handed on by another host than the one that took it.
fn forged_trail(context: &Context<'_>, _: &[String]) -> Option<String> {
    let hops = context.trail().untrusted();
    let is_host = |host: &str| host.split('.').filter(|label| !label.is_empty()).count() >= 2;
    let pairs = hops.iter().zip(hops.iter().skip(1));
    let breaks = pairs.filter(|(newer, older)| {
        let (name, by) = (newer.name.to_ascii_lowercase(), older.by.to_ascii_lowercase());
        let (name, by) = (org(&name), org(&by));
        is_host(name) && is_host(by) && name != by && !(by == "msn.com" && name == "hotmail.com")
    });
    plainly(breaks.count() > 1)
}

/// The host that handed the message over has a name in the domain of the reverse-path.
fn reverse_path_matches_name(context: &Context<'_>, _: &[String]) -> Option<String> {
    let domain = domain_of(&context.reverse_path()?);
    let (untrusted, trusted) = (context.trail().untrusted(), context.trail().trusted());
    let hops = if untrusted.is_empty() { trusted } else { untrusted.get(..1)? };
    plainly(
        domain.contains('.')
            && hops
                .iter()
                .any(|hop| !hop.name.is_empty() && org(&hop.name.to_ascii_lowercase()) == org(&domain)),
    )
}

/// The time in a message id of Outlook's form is neither that of Date nor that of the first hop.
fn outlook_message_id(context: &Context<'_>, _: &[String]) -> Option<String> {
    let id = message_id(context)?;
    let (left, _) = id.strip_prefix('<')?.split_once('@')?;
    let pieces: Vec<&str> = left.split('$').collect();
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let [first, second, third] = pieces.as_slice() else { return None };
    if !is_hex(first, 12) || !is_hex(second, 8) || !is_hex(third, 8) {
        return None;
    }
    let said = f64::from(u32::from_str_radix(first.get(4..)?, 16).ok()?);
    // The high half of the time in steps of 100 ns since 1601.
    let differs = |date: Option<DateTime>| {
        let seconds = date.map(|date| date.to_timestamp() as f64).unwrap_or_default();
        (said - (seconds * 0.002_328_306_436_538_7 + 27_111_902.832_984_9).trunc()).abs() >= TIME_STEPS
    };
    let message = context.subject().message;
    let date = message.header("Date").and_then(|field| DateTime::parse_rfc822(field.value.trim()));
    let received = message.header("Received").and_then(|field| field.value.rsplit_once(';'));
    let arrival = received.and_then(|(_, date)| DateTime::parse_rfc822(date.trim()));
    plainly(differs(date) && differs(arrival))
}

/// The message id ends in the address of From, behind 28 capitals.
fn name_in_message_id(context: &Context<'_>, _: &[String]) -> Option<String> {
    let id = message_id(context)?;
    let (capitals, address) = between_words(&id, "<", ">")?.split_once('.')?;
    let is_tool = capitals.len() == 28 && capitals.bytes().all(|byte| byte.is_ascii_uppercase());
    let from = text(context, "From", Form::default())?;
    plainly(is_tool && from.contains(&format!("<{address}>")) && from.contains('"'))
}

/// The reverse-path holds the recipient's domain and name, as `DOMAIN-USER@`, and is no rewritten one.
fn recipient_in_reverse_path(context: &Context<'_>, _: &[String]) -> Option<String> {
    let address = Form { piece: Piece::Address, ..Form::default() };
    let to = text(context, "To", address)?.to_ascii_lowercase();
    let from = context.reverse_path()?.to_ascii_lowercase();
    let (user, domain) = to.split_once('@')?;
    let is_rewritten = from.starts_with("srs0") || from.starts_with("srs1");
    let (before, _) = from.rsplit_once('@')?;
    let before = before.strip_suffix(user)?;
    let mut before = before.chars();
    before.next_back()?;
    let rest = before.as_str().strip_suffix(psl::domain_str(domain)?)?;
    plainly(!is_rewritten && !rest.ends_with(|c: char| c.is_alphanumeric()))
}

/// From is at a provider, but no hop was.
fn forged_provider(context: &Context<'_>, domain: &str, hosts: &[&str]) -> Option<String> {
    let message = context.subject().message;
    let from = domain_of(&message.from.first()?.address);
    if from != domain {
        return None;
    }
    let is_theirs = |name: &str| {
        let name = name.to_ascii_lowercase();
        hosts.iter().any(|host| name.strip_suffix(host).is_some_and(|before| before.ends_with('.')))
    };
    // Only what our own hosts saw counts, and what their web pages and servers write.
    let trail = context.trail();
    let seen = trail.trusted().iter().chain(trail.untrusted().first());
    let taken = message
        .headers_named("Received")
        .filter_map(|field| relay(&field.value))
        .any(|hop| is_theirs(&hop.by));
    let was_there = seen.clone().any(|hop| is_theirs(&hop.name)) || taken;
    let is_signed = message
        .headers_named("DKIM-Signature")
        .any(|field| hosts.iter().any(|host| field.value.contains(host)));
    plainly(!was_there && !is_signed && !context.trail_is_empty())
}
