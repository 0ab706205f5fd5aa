//! Header fields: SpamAssassin's `HeaderEval`, `FromNameSpoof`, `FreeMail`, and the subject in `BodyEval`.

use mail_parser::DateTime;

use super::{Context, Function, argument_matches, domain_of, plainly};
use crate::rules::definition::{Form, Piece};
use crate::rules::view;

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_for_shifted_date", shifted_date),
    ("check_illegal_chars", illegal_chars),
    ("subject_is_all_caps", all_caps),
    ("check_for_missing_to_header", missing_to),
    ("check_header_count_range", count_range),
    ("sorted_recipients", sorted_recipients),
    ("similar_recipients", similar_recipients),
    ("check_for_matching_env_and_hdr_from", matching_from),
    ("check_for_to_in_subject", to_in_subject),
    ("check_unresolved_template", unresolved_template),
    ("check_equal_from_domains", equal_from_domains),
    ("check_fromname_spoof", name_spoof),
    ("check_fromname_equals_to", name_equals_to),
    ("check_fromname_equals_replyto", name_equals_reply_to),
    ("check_freemail_from", freemail_from),
    ("check_freemail_header", freemail_header),
    ("check_freemail_replyto", freemail_reply_to),
    ("check_freemail_body", freemail_body),
];

pub(super) fn text(context: &Context<'_>, name: &str, form: Form) -> Option<String> {
    let bytes = view::header(&name.to_ascii_lowercase(), form, context)?;
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn hours(text: &str) -> Option<f64> {
    let date = DateTime::parse_rfc822(text.trim())?;
    Some(date.to_timestamp() as f64 / 3_600.0)
}

/// `check_for_shifted_date(MIN, MAX)`: by how many hours Date is ahead of the oldest time of arrival that is
/// closest to it.
fn shifted_date(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let bound = |index: usize, default: f64| {
        arguments
            .get(index)
            .and_then(|bound| if bound == "undef" { None } else { bound.parse().ok() })
            .unwrap_or(default)
    };
    let (low, high) = (bound(0, f64::NEG_INFINITY), bound(1, f64::INFINITY));
    let message = context.subject().message;
    let sent = hours(&message.header("Date")?.value)?;
    let arrivals =
        message.headers_named("Received").filter_map(|field| hours(field.value.rsplit_once(';')?.1));
    let closest = arrivals.map(|arrival| sent - arrival).min_by(|a, b| a.abs().total_cmp(&b.abs()))?;
    plainly((low == f64::NEG_INFINITY || closest >= low) && (high == f64::INFINITY || closest < high))
}

/// `check_illegal_chars(FIELD, RATIO, COUNT)`: bytes that may not stand in a header.
fn illegal_chars(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let name = arguments.first()?;
    let ratio: f64 = arguments.get(1)?.parse().ok()?;
    let least: usize = arguments.get(2)?.parse().ok()?;
    let raw = context.subject().raw.get(..context.subject().message.body_offset)?;
    let field = if name == "ALL" {
        raw.to_vec()
    } else {
        view::header(&name.to_ascii_lowercase(), Form { is_raw: true, ..Form::default() }, context)?
    };
    let is_control = |byte: &u8| *byte < 0x20 && !matches!(*byte, b'\t' | b'\n' | b'\r');
    let is_illegal = |byte: &u8| *byte >= 0x7f || is_control(byte);
    // A header in well-formed UTF-8 is legal today (RFC 6532).
    if !field.is_ascii() && std::str::from_utf8(&field).is_ok() && !field.iter().any(is_control) {
        return None;
    }
    let illegal = field.iter().filter(|byte| is_illegal(byte)).count();
    plainly(illegal >= least && illegal as f64 / field.len().max(1) as f64 >= ratio)
}

/// The subject is all capitals.
fn all_caps(context: &Context<'_>, _: &[String]) -> Option<String> {
    let subject = context.subject().message.subject.trim();
    let subject =
        subject.trim_start_matches("Re:").trim_start_matches("RE:").trim_start_matches("FW:").trim();
    let letters = subject.chars().filter(|c| c.is_alphabetic()).count();
    let is_one_word = !subject.contains(char::is_whitespace);
    let is_ascii_like = subject.chars().filter(|c| c.is_alphabetic()).all(|c| c.is_ascii());
    plainly(letters >= 10 && !is_one_word && is_ascii_like && subject == subject.to_uppercase())
}

fn missing_to(context: &Context<'_>, _: &[String]) -> Option<String> {
    let message = context.subject().message;
    plainly(message.header("To").is_none() && message.header("Apparently-To").is_none())
}

/// `check_header_count_range(FIELD, MIN, MAX)`: different fields of a name.
fn count_range(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let (low, high) = (arguments.get(1)?.parse::<usize>().ok()?, arguments.get(2)?.parse::<usize>().ok()?);
    let mut values: Vec<&str> =
        context.subject().message.headers_named(arguments.first()?).map(|field| field.raw.as_str()).collect();
    values.sort_unstable();
    values.dedup();
    plainly((low..=high).contains(&values.len()))
}

fn recipients(context: &Context<'_>) -> Vec<String> {
    context
        .subject()
        .message
        .to
        .iter()
        .map(|to| to.address.to_ascii_lowercase())
        .filter(|to| !to.is_empty())
        .collect()
}

/// Seven recipients or more in the order of the alphabet.
fn sorted_recipients(context: &Context<'_>, _: &[String]) -> Option<String> {
    let recipients = recipients(context);
    plainly(recipients.len() >= 7 && recipients.is_sorted())
}

/// `similar_recipients(MIN, MAX)`: the share of neighbours whose names or hosts begin alike.
fn similar_recipients(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let low: f64 = arguments.first()?.parse().ok()?;
    let high = arguments.get(1).and_then(|high| high.parse().ok()).unwrap_or(f64::INFINITY);
    let recipients = recipients(context);
    if recipients.len() < 5 {
        return None;
    }
    let start = |text: &str| text.chars().take(3).collect::<String>();
    let mut alike = 0_usize;
    let mut pairs = 0_usize;
    for pair in recipients.windows(2).take(256) {
        let [a, b] = pair else { continue };
        pairs += 1;
        alike += usize::from(start(a) == start(b));
    }
    let share = alike as f64 / pairs.max(1) as f64;
    plainly(share >= low && share < high)
}

fn matching_from(context: &Context<'_>, _: &[String]) -> Option<String> {
    let from = context.subject().message.from.first()?.address.to_ascii_lowercase();
    plainly(context.reverse_path()?.to_ascii_lowercase() == from && !from.is_empty())
}

/// `check_for_to_in_subject(user|address)`
fn to_in_subject(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let to = context.subject().message.to.first()?.address.to_ascii_lowercase();
    let subject = context.subject().message.subject.to_lowercase();
    let user = to.split('@').next().filter(|user| !user.is_empty())?;
    plainly(match arguments.first().map(String::as_str) {
        Some("address") => subject.contains(&to),
        _ => {
            let trimmed = subject.trim();
            trimmed
                .strip_prefix(user)
                .is_some_and(|rest| rest.starts_with([',', ':', ';', '!', '?', ' ', '-']) && rest.len() > 1)
        }
    })
}

/// A word in per cent signs that a mailing program should have replaced.
fn unresolved_template(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_template = |value: &str| {
        value.match_indices('%').any(|(at, _)| {
            let rest = value.get(at + 1..).unwrap_or_default();
            let name = rest.split('%').next().unwrap_or_default();
            name.len() >= 3
                && rest.len() > name.len()
                && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        })
    };
    let skipped = ["x-vms-to", "from"];
    let fields = context.subject().message.headers.iter();
    plainly(
        fields
            .filter(|field| !skipped.contains(&field.name.to_ascii_lowercase().as_str()))
            .any(|field| is_template(&field.raw)),
    )
}

/// From and the reverse-path differ in the last two labels of their domains.
fn equal_from_domains(context: &Context<'_>, _: &[String]) -> Option<String> {
    let end = |address: &str| {
        let domain = domain_of(address);
        let labels: Vec<&str> = domain.rsplit('.').take(2).collect();
        labels.join(".")
    };
    let (from, envelope) =
        (end(&context.subject().message.from.first()?.address), end(&context.reverse_path()?));
    plainly(!from.is_empty() && !envelope.is_empty() && from != envelope)
}

/// Returns the address in the display name of From.
fn named_address(context: &Context<'_>) -> Option<String> {
    let name = &context.subject().message.from.first()?.name;
    let word = name
        .split([' ', '<', '>', '"', '(', ')', ',', '\''])
        .find(|word| word.contains('@') && word.contains('.'))?;
    Some(word.trim_matches('.').to_ascii_lowercase())
}

fn name_spoof(context: &Context<'_>, _: &[String]) -> Option<String> {
    let named = named_address(context)?;
    let from = &context.subject().message.from.first()?.address;
    let differs = super::org(&domain_of(&named)) != super::org(&domain_of(from));
    differs.then(|| format!("The sender's name shows {named}, but the address is another."))
}

fn name_equals_to(context: &Context<'_>, _: &[String]) -> Option<String> {
    let named = named_address(context)?;
    plainly(recipients(context).contains(&named))
}

fn name_equals_reply_to(context: &Context<'_>, _: &[String]) -> Option<String> {
    let named = named_address(context)?;
    plainly(context.subject().message.reply_to.iter().any(|to| to.address.eq_ignore_ascii_case(&named)))
}

/// Whether an address is of a free mail provider: on the rules' list, or on ours where they have none.
fn is_freemail(context: &Context<'_>, address: &str) -> bool {
    let domain = domain_of(address);
    let named = &context.families().freemail;
    let is_listed =
        || if named.is_empty() { context.lists.freemail.has_host(&domain) } else { named.has(&domain) };
    !domain.is_empty() && !is_role(address) && is_listed()
}

/// The part before the @ sign, lower case.
fn local_part(address: &str) -> String {
    address.rsplit_once('@').map_or(address, |(local, _)| local).to_ascii_lowercase()
}

/// Whether an address is that of a role, or made for one message: no person has it.
fn is_role(address: &str) -> bool {
    let local = local_part(address);
    let roles = ["abuse", "support", "sales", "info", "helpdesk", "contact", "kontakt"];
    roles.contains(&local.as_str())
        || is_master(&local)
        || ["undisclosed", "bounce-", "bounced-"].iter().any(|start| local.starts_with(start))
        // As forwarding writes addresses into one another.
        || local.split('=').filter(|piece| !piece.is_empty()).count() > 2
}

fn is_master(local: &str) -> bool {
    matches!(local, "postmaster" | "hostmaster" | "domainmaster")
}

/// Whether a reverse-path is that of a list or a program, whose answers go elsewhere by right.
fn is_for_bounces(address: &str) -> bool {
    let local = local_part(address);
    let ends = ["-request", "-bounce", "-bounces", "-admin", "-owner"];
    is_master(&local)
        || ["double-bounce", "sentto-", "owner-", "return-", "bounce-", "bounced-", "grbounce-"]
            .iter()
            .any(|start| local.starts_with(start))
        || ends.iter().any(|end| local.ends_with(end))
        || ["noreply", "no-reply", "no_reply", "no.reply"].iter().any(|word| local.contains(word))
        || local.split('=').filter(|piece| !piece.is_empty()).count() > 1
}

fn fits(address: &str, pattern: Option<&String>) -> bool {
    pattern.is_none_or(|pattern| argument_matches(pattern, std::iter::once(address)))
}

/// `check_freemail_from(PATTERN)`
fn freemail_from(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let envelope = context.reverse_path();
    let from = context.subject().message.from.iter().map(|from| from.address.clone());
    plainly(
        from.chain(envelope)
            .any(|address| is_freemail(context, &address) && fits(&address, arguments.first())),
    )
}

/// `check_freemail_header(FIELD, PATTERN)`
fn freemail_header(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let name = arguments.first()?.split(':').next()?;
    let value = text(context, name, Form { piece: Piece::Whole, ..Form::default() })?;
    let words = value.split(|c: char| c.is_whitespace() || "<>\"'(),;:[]".contains(c));
    plainly(
        words
            .filter(|word| word.contains('@'))
            .any(|word| is_freemail(context, word) && fits(word, arguments.get(1))),
    )
}

/// `check_freemail_replyto(replyto|reply)`: the answer goes to another free mailbox than the sender's.
fn freemail_reply_to(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let message = context.subject().message;
    if context.reverse_path().is_some_and(|path| is_for_bounces(&path)) {
        return None;
    }
    let from = message.from.first()?.address.to_ascii_lowercase();
    let reply_to = message.reply_to.first().map(|to| to.address.to_ascii_lowercase());
    let differs = reply_to.as_ref().is_some_and(|to| is_freemail(context, to) && *to != from);
    if differs && (is_freemail(context, &from) || arguments.first().is_some_and(|how| how == "reply")) {
        return plainly(true);
    }
    let is_reply = arguments.first().is_some_and(|how| how == "reply");
    let sender = reply_to.filter(|to| is_freemail(context, to)).unwrap_or(from);
    plainly(
        is_reply
            && is_freemail(context, &sender)
            && in_text(context).any(|address| address != sender && is_freemail(context, &address)),
    )
}

fn freemail_body(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    plainly(
        in_text(context).any(|address| is_freemail(context, &address) && fits(&address, arguments.first())),
    )
}

/// Returns the addresses that are written in the text.
fn in_text<'c>(context: &'c Context<'_>) -> impl Iterator<Item = String> + 'c {
    const MOST: usize = 100;
    let words =
        context.subject().message.text.split(|c: char| c.is_whitespace() || "<>\"'(),;:[]".contains(c));
    words
        .filter(|word| word.contains('@'))
        .take(MOST)
        .map(|word| word.trim_end_matches('.').to_ascii_lowercase())
}
