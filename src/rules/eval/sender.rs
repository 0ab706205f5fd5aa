//! Who claims to write, and whether the claims fit together.

use crate::message::Mailbox;

use super::{Context, Function, domain_of, org, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("from_malformed", from_malformed),
    ("name_brand_elsewhere", name_brand_elsewhere),
    ("brand_without_own_link", brand_without_own_link),
    ("name_address_elsewhere", name_address_elsewhere),
    ("from_host_imitates_brand", from_host_imitates_brand),
    ("from_is_brand_unproven", from_is_brand_unproven),
    ("domain_in_list", domain_in_list),
    ("domain_random", domain_random),
    ("from_digits_in_domain", from_digits_in_domain),
    ("reply_to_freemail", reply_to_freemail),
    ("reply_to_elsewhere", reply_to_elsewhere),
    ("signed_elsewhere", signed_elsewhere),
    ("genuine_list", genuine_list),
    ("to_missing", to_missing),
    ("to_is_from", to_is_from),
    ("list_id_borrowed", list_id_borrowed),
];

/// From cannot be read as one name and one address.
fn from_malformed(context: &Context<'_>, _: &[String]) -> Option<String> {
    let raw = context.message.header("From")?.raw.trim().to_owned();
    let mut quoted = false;
    let mut outside = String::new();
    for c in raw.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            _ => outside.push(c),
        }
    }
    let name = outside.split_once('<').map(|(name, _)| name.trim_end()).unwrap_or_default();
    let has_address = raw.contains('@');
    let has_stray = name.contains([',', ';', '@', '<']);
    let twice = outside.matches('<').count() > 1 && context.message.from.len() < 2;
    plainly(
        !has_address
            || twice
            || has_stray && context.message.from.iter().filter(|from| from.address.contains('@')).count() < 2,
    )
}

/// The display name is a brand's, the address is not.
fn name_brand_elsewhere(context: &Context<'_>, _: &[String]) -> Option<String> {
    let brand = foreign_brand(context, &context.from.name)?;
    Some(format!("The sender is called “{}”, but {} is not {brand}.", context.from.name, context.from_domain))
}

/// Returns the first name of a brand in a text that the domain of From does not own.
fn foreign_brand(context: &Context<'_>, text: &str) -> Option<&'static str> {
    let brands = context.lists.brands_in(text);
    let is_own = brands.iter().any(|brand| brand.owns(&context.from_domain));
    let brand = brands.first().filter(|_| !is_own && !context.from_domain.is_empty())?;
    brand.names.first().copied()
}

/// A brand writes, it says, yet not from its domain, and no link leads there.
fn brand_without_own_link(context: &Context<'_>, _: &[String]) -> Option<String> {
    let claimed = format!("{} / {}", context.from.name, context.message.subject);
    let name = foreign_brand(context, &claimed)?;
    let brands = context.lists.brands_in(&claimed);
    let mut links = context.clickable().peekable();
    links.peek()?;
    let leads_there = links.any(|link| brands.iter().any(|brand| brand.owns(&link.host)));
    (!leads_there)
        .then(|| format!("The message speaks of {name}, but neither the sender nor a link is {name}'s."))
}

/// The display name holds an address of another organisation.
fn name_address_elsewhere(context: &Context<'_>, _: &[String]) -> Option<String> {
    let word = context.from.name.split_whitespace().find(|word| word.contains('@') && word.contains('.'))?;
    let shown = domain_of(word.trim_matches(|c: char| !c.is_alphanumeric()));
    let differs = !shown.is_empty() && org(&shown) != context.from_org && !context.from_org.is_empty();
    differs.then(|| {
        format!("The sender's name shows an address at {shown}, but it is at {}.", context.from_domain)
    })
}

/// The host of From looks like a brand's: `paypa1.com`, `secure-paypal.com`.
fn from_host_imitates_brand(context: &Context<'_>, _: &[String]) -> Option<String> {
    let brand = imitated(context, &context.from_domain)?;
    Some(format!("The sender's domain {} imitates {brand}.", context.from_domain))
}

/// Returns the brand that a host imitates.
pub(super) fn imitated(context: &Context<'_>, host: &str) -> Option<&'static str> {
    let folded: String = host
        .chars()
        .map(|c| match c {
            '0' => 'o',
            '1' => 'l',
            '3' => 'e',
            '5' => 's',
            other => other,
        })
        .collect();
    let brand = context.lists.brand_hosts.iter().find(|brand| {
        brand.names.iter().any(|name| {
            [host, folded.as_str()].iter().any(|host| {
                host.split(['.', '-'])
                    .any(|label| label.starts_with(name) || name.len() > 6 && label.contains(name))
            })
        })
    })?;
    if brand.owns(host) { None } else { brand.names.first().copied() }
}

/// From is at a brand's domain, but neither the reverse-path nor a signature is.
fn from_is_brand_unproven(context: &Context<'_>, _: &[String]) -> Option<String> {
    let brand =
        context.lists.brands.iter().find(|brand| brand.domains.contains(&context.from_org.as_str()))?;
    let proven = brand.owns(&context.return_domain)
        || context.dkim_orgs.iter().any(|signer| brand.owns(signer))
        || context.return_domain.is_empty();
    (!proven).then(|| {
        format!(
            "The message claims to come from {}, but came by way of {}.",
            context.from_domain, context.return_domain
        )
    })
}

fn domain_named(context: &Context<'_>, which: Option<&String>) -> Option<String> {
    match which.map(String::as_str)? {
        "from" => Some(context.from_domain.clone()),
        "return" => Some(context.return_domain.clone()),
        "reply" => context.message.reply_to.first().map(|to| domain_of(&to.address)),
        _ => None,
    }
}

/// `domain_in_list(from|return|reply, LIST)`
fn domain_in_list(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let domain = domain_named(context, arguments.first())?;
    plainly(context.lists.hosts(arguments.get(1)?)?.has_host(&domain))
}

/// `domain_random(from|return|reply)`: a label looks like a machine made it.
fn domain_random(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let domain = domain_named(context, arguments.first())?;
    // The author's own organisation and bulk senders name their bounce hosts by machine.
    let label = org(&domain).split('.').next()?.to_owned();
    is_random(&label).then(|| format!("The domain {} looks as if a machine had made it up.", org(&domain)))
}

/// Whether a label looks random: hardly a vowel, or letters and digits in turns.
fn is_random(label: &str) -> bool {
    if label.len() < 6 || label.starts_with("xn--") {
        return false;
    }
    let letters = label.chars().filter(char::is_ascii_alphabetic).count();
    let vowels = label.chars().filter(|c| "aeiouy".contains(*c)).count();
    let longest =
        label.split(|c: char| "aeiouy-".contains(c) || c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    let bytes = label.as_bytes();
    let switches = bytes
        .iter()
        .zip(bytes.iter().skip(1))
        .filter(|(a, b)| a.is_ascii_digit() != b.is_ascii_digit())
        .count();
    letters >= 4 && vowels * 100 < letters * 15
        || longest >= 6
        || switches >= 3
        || label.len() >= 16 && switches >= 2
}

/// A digit in the organisational domain of From, which gives no mailboxes to everybody.
fn from_digits_in_domain(context: &Context<'_>, _: &[String]) -> Option<String> {
    let label = context.from_org.split('.').next()?;
    plainly(
        label.contains(|c: char| c.is_ascii_digit()) && !context.lists.freemail.has_host(&context.from_org),
    )
}

fn reply_to<'a>(context: &'a Context<'_>) -> Option<&'a Mailbox> {
    context.message.reply_to.iter().find(|to| to.address.contains('@'))
}

/// Answers go to a free mailbox, although From is none.
fn reply_to_freemail(context: &Context<'_>, _: &[String]) -> Option<String> {
    let domain = domain_of(&reply_to(context)?.address);
    let differs =
        context.lists.freemail.has_host(&domain) && !context.lists.freemail.has_host(&context.from_domain);
    differs.then(|| {
        format!("The sender is at {}, but answers go to a free mailbox at {domain}.", context.from_domain)
    })
}

/// Answers go to another organisation.
fn reply_to_elsewhere(context: &Context<'_>, _: &[String]) -> Option<String> {
    let domain = domain_of(&reply_to(context)?.address);
    let differs = !context.from_org.is_empty() && org(&domain) != context.from_org;
    differs.then(|| format!("The sender is at {}, but answers go to {domain}.", context.from_domain))
}

/// There are signatures, none of the organisation in From.
fn signed_elsewhere(context: &Context<'_>, _: &[String]) -> Option<String> {
    let signer = context.dkim_orgs.first().filter(|_| !context.is_signed_by_author())?;
    Some(format!("The message is signed by {signer}, not by the sender's {}.", context.from_org))
}

/// The message came through a mailing list: its list is also where it was sent from.
fn genuine_list(context: &Context<'_>, _: &[String]) -> Option<String> {
    let id = context.message.header("List-Id").or_else(|| context.message.header("List-Post"))?;
    let host = id.value.rsplit(['<', '@', ':']).next()?.trim_end_matches('>').trim().to_ascii_lowercase();
    let has_more = ["List-Post", "List-Archive", "List-Subscribe", "Precedence"]
        .iter()
        .any(|name| context.message.header(name).is_some());
    let return_org = org(&context.return_domain);
    plainly(has_more && !return_org.is_empty() && org(&host) == return_org)
}

/// A list's fields on a message that came from elsewhere, without a signature of the author.
fn list_id_borrowed(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let id = context.message.header("List-Id").or_else(|| context.message.header("List-Post"))?;
    let host = id.value.rsplit(['<', '@', ':']).next()?.trim_end_matches('>').trim().to_ascii_lowercase();
    let is_strange = genuine_list(context, arguments).is_none()
        && !context.is_signed_by_author()
        && !context.return_domain.is_empty()
        && !context.is_own(org(&host), &host);
    plainly(is_strange)
}

/// There is no To, or it names no address.
fn to_missing(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(!context.message.to.iter().any(|to| to.address.contains('@')))
}

/// The message is addressed to its own sender.
fn to_is_from(context: &Context<'_>, _: &[String]) -> Option<String> {
    let from = &context.from.address;
    plainly(from.contains('@') && context.message.to.iter().any(|to| to.address.eq_ignore_ascii_case(from)))
}

#[cfg(test)]
mod tests {
    use super::is_random;

    #[test]
    fn random_labels_are_told_from_names() {
        for label in ["xkcdqwrt", "a1b2c3d4", "bcdfghjk"] {
            assert!(is_random(label), "{label}");
        }
        for label in ["example", "microsoft", "web24", "dhl", "stackoverflow", "web2go", "linkedin"] {
            assert!(!is_random(label), "{label}");
        }
    }
}
