//! Header fields: SpamAssassin's `HeaderEval`, `FromNameSpoof`, `FreeMail`, and the subject in `BodyEval`.

use mail_parser::DateTime;

use super::{Context, Function, argument_matches, domain_of, plainly};
use crate::message::{Header, Message};
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
    let text = text.trim();
    // Without a zone, it is taken for that of Greenwich.
    let date = DateTime::parse_rfc822(text).or_else(|| DateTime::parse_rfc822(&format!("{text} +0000")))?;
    Some(date.to_timestamp() as f64 / 3_600.0)
}

/// Returns the first time in a text that looks like `1 Jan 2024 10:00:00 +0000`.
fn time_in(text: &str) -> Option<f64> {
    let is_clock = |word: &str| {
        let pieces: Vec<&str> = word.split(':').collect();
        pieces.len() == 3 && pieces.iter().all(|piece| piece.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .windows(5)
        .find(|words| words.get(3).is_some_and(|word| is_clock(word)))
        .and_then(|words| hours(&words.join(" ")))
}

/// Returns the Received fields but those that fetching the message from a mailbox has left.
fn hops_before_fetching(message: &Message) -> impl Iterator<Item = &Header> {
    let is_own = |field: &Header| {
        field.value.starts_with("from localhost ")
            || field.value.contains("127.0.0.1")
            || field.value.contains("invoked by uid ")
    };
    let is_fetched =
        |field: &Header| field.value.contains("by localhost with ") && field.value.contains("(fetchmail-");
    let mut ahead = message.headers_named("Received").peekable();
    let own = usize::from(ahead.next_if(|field| is_own(field)).is_some());
    let was_fetched = ahead.peek().is_some_and(|field| is_fetched(field));
    message.headers_named("Received").skip(if was_fetched { own + 1 } else { 0 })
}

/// `check_for_shifted_date(MIN, MAX)`: by how many hours Date is ahead of the time of a hop, of those the one
/// that is closest to it.
fn shifted_date(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let bound = |index: usize| arguments.get(index).and_then(|bound| bound.parse::<f64>().ok());
    let message = context.subject().message;
    let sent = ["Resent-Date", "Date"].into_iter().flat_map(|name| message.headers_named(name));
    let sent = sent.filter_map(|field| hours(&field.value)).next();
    let arrivals = hops_before_fetching(message).filter_map(|field| time_in(&field.value));
    let mut differences: Vec<f64> =
        sent.map(|sent| arrivals.map(|arrival| sent - arrival).collect()).unwrap_or_default();
    // What the sender's own host wrote in the same second says nothing.
    if differences.len() > 1 && differences.last() == Some(&0.0) {
        differences.pop();
    }
    let closest = differences.into_iter().min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or_default();
    plainly(bound(0).is_none_or(|low| closest >= low) && bound(1).is_none_or(|high| closest < high))
}

/// Returns the bytes of the first field of a name in a header, without its name.
fn raw_field(header: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut lines = header.split_inclusive(|byte| *byte == b'\n');
    let rest = lines.find_map(|line| {
        let (start, rest) = line.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name.as_bytes()).then(|| rest.strip_prefix(b":")).flatten()
    })?;
    let folded = lines.take_while(|line| line.starts_with(b" ") || line.starts_with(b"\t"));
    Some(std::iter::once(rest).chain(folded).collect::<Vec<_>>().concat())
}

/// `check_illegal_chars(FIELD, RATIO, COUNT)`: bytes that may not stand in a header.
fn illegal_chars(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let name = arguments.first()?;
    let ratio: f64 = arguments.get(1)?.parse().ok()?;
    let least: usize = arguments.get(2)?.parse().ok()?;
    let raw = context.subject().raw.get(..context.subject().message.body_offset)?;
    // The bytes themselves: what is no text has become something else in the parsed fields.
    let field = if name == "ALL" { raw.to_vec() } else { raw_field(raw, name)? };
    let is_control = |byte: &u8| *byte < 0x20 && !matches!(*byte, b'\t' | b'\n' | b'\r');
    let is_illegal = |byte: &u8| *byte >= 0x7f || is_control(byte);
    // A header in well-formed UTF-8 is legal today (RFC 6532).
    if !field.is_ascii() && std::str::from_utf8(&field).is_ok() && !field.iter().any(is_control) {
        return None;
    }
    let mut illegal = field.iter().filter(|byte| is_illegal(byte)).count();
    // A sign for cents, pounds or trade marks may stand in a subject.
    let signs = field.iter().filter(|byte| matches!(**byte, 0xa2 | 0xa3 | 0xae)).count();
    if name.eq_ignore_ascii_case("Subject") && signs == 1 {
        illegal = illegal.saturating_sub(1);
    }
    plainly(illegal >= least && illegal as f64 / field.len().max(1) as f64 >= ratio)
}

/// The subject is all capitals.
fn all_caps(context: &Context<'_>, _: &[String]) -> Option<String> {
    const ANSWERS: [&str; 10] = ["re:", "fwd:", "fw:", "aw:", "antwort:", "wg:", "sv:", "vb:", "vs:", "vl:"];
    let mut subject = context.subject().message.subject.trim();
    let is_answer = |subject: &str, prefix: &str| {
        subject.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    while let Some(prefix) = ANSWERS.iter().find(|prefix| is_answer(subject, prefix)) {
        subject = subject.get(prefix.len()..).unwrap_or_default().trim_start();
    }
    let mut letters = subject.bytes().filter(u8::is_ascii_alphabetic).peekable();
    let is_long = subject.len() >= 10 && subject.contains(char::is_whitespace);
    plainly(is_long && letters.peek().is_some() && letters.all(|letter| letter.is_ascii_uppercase()))
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

/// `check_freemail_replyto(replyto|reply)`: the answer goes to another free mailbox than the sender's, or the text
/// names another than the one that is answered.
fn freemail_reply_to(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let message = context.subject().message;
    if context.reverse_path().is_some_and(|path| is_for_bounces(&path)) {
        return None;
    }
    let addresses = |mailboxes: &[crate::message::Mailbox]| -> Vec<String> {
        let addresses = mailboxes.iter().map(|mailbox| mailbox.address.to_ascii_lowercase());
        addresses.filter(|address| !address.is_empty()).collect()
    };
    let (from, reply_to) = (addresses(&message.from), addresses(&message.reply_to));
    let is_free = |addresses: &[String]| addresses.iter().any(|address| is_freemail(context, address));
    let (from_free, reply_free) = (is_free(&from), is_free(&reply_to));
    if from_free && reply_free && !from.iter().any(|address| reply_to.contains(address)) {
        return plainly(true);
    }
    let is_reply = arguments.first().is_some_and(|how| how == "reply");
    let answered = match is_reply {
        false if !reply_free => return None,
        true if !from_free || !reply_to.is_empty() && !reply_free => return None,
        true if !reply_free => from,
        _ => reply_to,
    };
    let mut named = in_text(context).filter(|address| is_freemail(context, address));
    plainly(named.any(|address| answered.iter().any(|answered| *answered != address)))
}

fn freemail_body(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    plainly(
        in_text(context).any(|address| is_freemail(context, &address) && fits(&address, arguments.first())),
    )
}

/// Returns the addresses that are written in the text or linked to, but those in angle brackets and in web
/// addresses.
fn in_text(context: &Context<'_>) -> impl Iterator<Item = String> {
    const MOST: usize = 40;
    let message = context.subject().message;
    let linked = message.links.iter().filter_map(|link| {
        let address = link.target.get(..7).filter(|start| start.eq_ignore_ascii_case("mailto:"))?;
        link.target.get(address.len()..)?.split(['?', '&']).next()
    });
    let is_end = |c: char| c.is_whitespace() || "\"(),;:[]".contains(c);
    let words = message.text.split(is_end).filter(|word| word.contains('@') && !word.contains('/'));
    let written = words.filter(|word| !word.ends_with('>')).map(|word| word.trim_start_matches('<'));
    let all =
        linked.chain(written).map(|word| word.trim_end_matches(['.', '\'', '!', '?']).to_ascii_lowercase());
    all.take(MOST).collect::<Vec<_>>().into_iter()
}
