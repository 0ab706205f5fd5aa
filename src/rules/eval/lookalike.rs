//! Names that look like others: domains that a reader takes for a brand's or for our own.
//!
//! Two labels look alike when their skeletons are the same (Unicode Technical Standard 39, section 4):
//! `paypaI`, `pаypal` with a Cyrillic letter, `rnicrosoft`. For our own domains one letter more, less, changed
//! or swapped is enough as well.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use unicode_security::confusable_detection::skeleton;

use super::lists::{Brand, Lists};
use super::{Context, Function, domain_of, org};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("from_looks_like_brand", from_brand),
    ("reply_looks_like_brand", reply_brand),
    ("link_looks_like_brand", link_brand),
    ("from_looks_like_us", from_us),
    ("link_looks_like_us", link_us),
    ("name_of_our_people", name_of_our_people),
];

/// Shortest label that one letter more or less makes another: shorter ones are words of their own.
const NEAR_CHARS: usize = 6;

/// Returns what a reader sees of a text, for comparison: letters that look alike are one.
fn seen(text: &str) -> String {
    let skeleton: String = skeleton(text).collect::<String>().to_lowercase();
    // Upright strokes are told apart by context alone, and `cl` is `d` at a glance.
    let strokes =
        skeleton.chars().map(|c| if matches!(c, 'i' | '1' | '|' | '\u{131}' | '\u{3b9}') { 'l' } else { c });
    strokes.collect::<String>().replace("cl", "d")
}

/// Returns the first label of an organisational domain as a reader sees it, punycode undone.
fn label(host: &str) -> String {
    let (unicode, _) = idna::domain_to_unicode(org(host));
    unicode.split('.').next().unwrap_or_default().to_owned()
}

/// Returns the ways in which a label may be seen: a letter may look like another as a capital alone, and
/// domains are written in lower case.
fn ways(label: &str) -> [String; 3] {
    [seen(label), seen(&label.to_lowercase()), seen(&label.to_uppercase())]
}

/// Whether a label looks like a name without being it.
fn looks_like(label: &str, name: &str) -> bool {
    !label.is_empty() && label != name && ways(label).contains(&seen(name))
}

/// The names of brands by how they are seen.
static BRANDS: LazyLock<HashMap<String, Vec<(&'static Brand, &'static str)>>> = LazyLock::new(|| {
    let mut brands: HashMap<String, Vec<(&'static Brand, &'static str)>> = HashMap::new();
    for brand in &Lists::get().brand_hosts {
        for name in &brand.names {
            brands.entry(seen(name)).or_default().push((brand, *name));
        }
    }
    brands
});

/// Returns the brand that a host looks like.
fn brand_of(host: &str) -> Option<&'static str> {
    let label = label(host);
    let folded: String = label
        .chars()
        .map(|c| match c {
            '0' => 'o',
            '1' | '!' | '|' => 'l',
            other => other,
        })
        .collect();
    let ways = ways(&label).into_iter().chain([seen(&folded)]);
    let brands = ways.filter_map(|way| BRANDS.get(&way)).flatten();
    let mut others = brands.filter(|(brand, name)| !brand.owns(host) && *name != label);
    others.next().map(|(_, name)| *name)
}

/// Returns the one of our domains that a host looks like.
fn ours<'c>(context: &'c Context<'_>, host: &str) -> Option<&'c str> {
    let own = &context.subject().organisation.domains;
    if own.iter().any(|domain| org(domain) == org(host)) {
        return None;
    }
    let label = label(host);
    own.iter().map(String::as_str).find(|domain| {
        let own = self::label(domain);
        let is_near = own.chars().count() >= NEAR_CHARS && strsim::osa_distance(&own, &label) == 1;
        looks_like(&label, &own) || is_near || label == own && own.chars().count() >= NEAR_CHARS
    })
}

fn from_brand(context: &Context<'_>, _: &[String]) -> Option<String> {
    let brand = brand_of(&context.from_domain)?;
    Some(format!("The sender's domain {} looks like {brand}, and is not.", context.from_domain))
}

fn reply_brand(context: &Context<'_>, _: &[String]) -> Option<String> {
    let domain = domain_of(&context.subject().message.reply_to.first()?.address);
    let brand = brand_of(&domain)?;
    Some(format!("Answers go to {domain}, which looks like {brand} and is not."))
}

fn link_brand(context: &Context<'_>, _: &[String]) -> Option<String> {
    let mut hosts = HashSet::new();
    context.clickable().filter(|link| hosts.insert(&link.host)).find_map(|link| {
        let brand = brand_of(&link.host)?;
        Some(format!("A link goes to {}, which looks like {brand} and is not.", link.host))
    })
}

fn from_us(context: &Context<'_>, _: &[String]) -> Option<String> {
    let domain = ours(context, &context.from_domain)?;
    Some(format!("The sender's domain {} looks like our {domain}.", context.from_domain))
}

fn link_us(context: &Context<'_>, _: &[String]) -> Option<String> {
    let mut hosts = HashSet::new();
    context.clickable().filter(|link| hosts.insert(&link.host)).find_map(|link| {
        let domain = ours(context, &link.host)?;
        Some(format!("A link goes to {}, which looks like our {domain}.", link.host))
    })
}

/// The display name is that of one of our people, in any order, and the address is not theirs.
fn name_of_our_people(context: &Context<'_>, _: &[String]) -> Option<String> {
    let words = |name: &str| {
        let name = seen(name);
        let mut words: Vec<String> = name
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| word.len() > 1)
            .map(str::to_owned)
            .collect();
        words.sort();
        words
    };
    let from = context.subject().message.from.first()?;
    let name = words(&from.name);
    let is_ours = context.subject().organisation.domains.iter().any(|domain| org(domain) == context.from_org);
    if name.len() < 2 || is_ours {
        return None;
    }
    let person = context.subject().organisation.people.iter().find(|person| words(&person.name) == name)?;
    let is_theirs = person.address.eq_ignore_ascii_case(&from.address);
    (!is_theirs).then(|| format!("The sender bears the name of {}, but writes from elsewhere.", person.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Client, Direction, Envelope, Mail, TransactionId};
    use crate::message::{Mailbox, parse};
    use crate::rules::definition::Settings;
    use crate::rules::eval::Families;
    use crate::rules::{Evidence, Organisation, Subject};

    fn with<T>(from: &str, work: impl FnOnce(&Context<'_>) -> T) -> T {
        let raw = format!("From: {from}\r\nSubject: x\r\n\r\nhttp://examp1e.org/\r\n");
        let message = parse(raw.as_bytes());
        let envelope = Envelope {
            id: TransactionId::from_random([0; 16]),
            direction: Direction::Inbound,
            client: Client::new(([192, 0, 2, 1], 25).into()),
            mail: Mail::default(),
            recipients: Vec::new(),
        };
        let organisation = Organisation {
            domains: vec!["example.org".to_owned()],
            people: vec![Mailbox { name: "Anna Smith".to_owned(), address: "anna@example.org".to_owned() }],
            ..Organisation::default()
        };
        let evidence = Evidence::default();
        let subject = Subject {
            message: &message,
            raw: raw.as_bytes(),
            envelope: &envelope,
            evidence: &evidence,
            organisation: &organisation,
        };
        work(&Context::new(&subject, &Families::read(&Settings::default(), &[])))
    }

    #[test]
    fn domains_that_look_alike_are_told() {
        for (domain, expected) in [
            ("paypa1.com", Some("paypal")),
            ("p\u{430}ypal.com", Some("paypal")),
            ("xn--pypal-4ve.com", Some("paypal")),
            ("rnicrosoft.com", Some("microsoft")),
            ("paypal.com", None),
            ("example.com", None),
            ("xn--mller-kva.de", None),
        ] {
            assert_eq!(brand_of(domain), expected, "{domain}");
        }
    }

    #[test]
    fn what_looks_like_us_is_told() {
        for (from, expected) in [
            ("a@exampie.org", true),
            ("a@exmaple.org", true),
            ("a@example.net", true),
            ("a@example.org", false),
            ("a@mail.example.org", false),
            ("a@sample.org", false),
        ] {
            assert_eq!(with(from, |context| from_us(context, &[]).is_some()), expected, "{from}");
        }
        assert!(with("a@b.example", |context| link_us(context, &[]).is_some()));
    }

    #[test]
    fn the_name_of_a_colleague_from_elsewhere_is_told() {
        for (from, expected) in [
            ("Anna Smith <boss@gmail.com>", true),
            ("\"Smith, Anna\" <boss@gmail.com>", true),
            ("\u{410}nna Smith <boss@gmail.com>", true),
            ("Anna Smith <anna@example.org>", false),
            ("Anna Jones <a@gmail.com>", false),
        ] {
            assert_eq!(with(from, |context| name_of_our_people(context, &[]).is_some()), expected, "{from}");
        }
    }

    #[test]
    fn published_lookalikes_are_told_and_real_domains_are_not() {
        let table = include_str!("../../../tests/data/confusables.csv");
        let (mut missed, mut wrong, mut spoofs) = (Vec::new(), Vec::new(), 0);
        for line in table.lines().skip(1) {
            let mut columns = line.split(',');
            let (Some(kind), Some(brand), Some(unicode), Some(punycode)) =
                (columns.next(), columns.next(), columns.next(), columns.next())
            else {
                continue;
            };
            let punycode = if punycode.is_empty() { unicode } else { punycode };
            // Own domains stand for the brands that are not on the list.
            let name = label(punycode);
            let is_told = brand_of(punycode).is_some() || !brand.is_empty() && looks_like(&name, brand);
            match kind {
                "spoof" => {
                    spoofs += 1;
                    if !is_told {
                        missed.push(punycode);
                    }
                }
                _ if is_told => wrong.push(punycode),
                _ => {}
            }
        }
        assert_eq!(wrong, Vec::<&str>::new());
        assert!(missed.len() * 16 <= spoofs, "{} of {spoofs}: {missed:?}", missed.len());
    }
}
