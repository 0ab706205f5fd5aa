//! Where links lead, and whether they say so.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use crate::message::{LinkSource, host};

use super::sender::imitated;
use super::{Context, Function, WebLink, org, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("links_elsewhere", links_elsewhere),
    ("link_says_otherwise", link_says_otherwise),
    ("link_host_in", link_host_in),
    ("all_links_in", all_links_in),
    ("image_host_in", image_host_in),
    ("link_to_address", link_to_address),
    ("image_from_address", image_from_address),
    ("link_imitates_brand", link_imitates_brand),
    ("link_hides_host", link_hides_host),
    ("link_redirects", link_redirects),
    ("link_in_link", link_in_link),
    ("link_page_elsewhere", link_page_elsewhere),
    ("link_single_token", link_single_token),
    ("link_repeated", link_repeated),
    ("links_unencrypted", links_unencrypted),
    ("links_only_pictures", links_only_pictures),
    ("link_to_program", link_to_program),
    ("link_names_recipient", link_names_recipient),
    ("has_links", has_links),
    ("attached_links", attached_links),
    ("qr_link", qr_link),
    ("qr_link_elsewhere", qr_link_elsewhere),
];

/// There are links, none to the organisation that sends.
fn links_elsewhere(context: &Context<'_>, _: &[String]) -> Option<String> {
    let first = context.clickable().next()?;
    let any_own = context.clickable().any(|link| context.is_own(&link.org, &link.host));
    (!any_own && !context.from_org.is_empty()).then(|| {
        format!("No link leads to the sender's {}; the first goes to {}.", context.from_org, first.host)
    })
}

/// A link shows the address of one organisation and leads to another.
fn link_says_otherwise(context: &Context<'_>, _: &[String]) -> Option<String> {
    context.clickable().filter(|link| link.link.source == LinkSource::Anchor).find_map(|link| {
        let shown = shown_host(&link.link.text)?;
        let differs = org(&shown) != link.org && !context.is_own(&link.org, &link.host);
        differs.then(|| format!("The link says {shown} but goes to {}.", link.host))
    })
}

/// Returns the host that a link text shows, when the text is a web address and nothing else.
fn shown_host(text: &str) -> Option<String> {
    let text = text.trim();
    if text.contains(char::is_whitespace) || text.contains('@') {
        return None;
    }
    let shown = if text.contains("://") || text.starts_with("www.") {
        host(text)?
    } else {
        host(&format!("http://{text}"))?
    };
    // `Dr.Smith` is no host name; one under a real top-level domain is.
    let suffix = psl::suffix(shown.as_bytes())?;
    let name = psl::domain_str(&shown)?;
    (suffix.is_known() && name.contains('.')).then_some(shown)
}

/// `link_host_in(LIST)`
fn link_host_in(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let list = context.lists.hosts(arguments.first()?)?;
    let found = context.clickable().find(|link| list.has_host(&link.host) && link.org != context.from_org)?;
    Some(format!("A link goes to {}.", found.host))
}

/// `all_links_in(LIST)`
fn all_links_in(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let list = context.lists.hosts(arguments.first()?)?;
    let mut links = context.clickable().peekable();
    let first = links.peek()?.host.clone();
    links
        .all(|link| list.has_host(&link.host))
        .then(|| format!("Every link goes through {first} or its like."))
}

/// `image_host_in(LIST)`
fn image_host_in(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let list = context.lists.hosts(arguments.first()?)?;
    let found = context.images().find(|link| list.has_host(&link.host) && link.org != context.from_org)?;
    Some(format!("A picture comes from {}.", found.host))
}

fn is_address(link: &WebLink<'_>) -> bool {
    link.host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// A link leads to a bare IP address.
fn link_to_address(context: &Context<'_>, _: &[String]) -> Option<String> {
    let found = context.clickable().find(|link| is_address(link))?;
    Some(format!("A link goes to the bare address {} instead of a name.", found.host))
}

/// A picture comes from a bare IP address.
fn image_from_address(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.images().any(is_address))
}

/// The host of a link looks like a brand's.
fn link_imitates_brand(context: &Context<'_>, _: &[String]) -> Option<String> {
    context.clickable().filter(|link| !context.is_own(&link.org, &link.host)).find_map(|link| {
        let brand = imitated(context, &link.host)?;
        Some(format!("A link goes to {}, which imitates {brand}.", link.host))
    })
}

/// What stands before an `@` in a link looks like a host but is none.
fn link_hides_host(context: &Context<'_>, _: &[String]) -> Option<String> {
    context.clickable().find_map(|link| {
        let authority = link.link.target.split_once("://")?.1.split(['/', '?', '#']).next()?;
        let (user, _) = authority.rsplit_once('@')?;
        user.contains('.').then(|| format!("A link pretends to go to {user} but goes to {}.", link.host))
    })
}

static REDIRECTORS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?i)^https?://(?:[a-z0-9-]+\.)*(?:google\.[a-z.]{2,6}/(?:url|amp/|aclk)|bing\.com/(?:ck|aclick|amp)|",
        r"facebook\.com/(?:flx|l\.php)|youtube\.com/redirect|doubleclick\.net/|linkedin\.com/(?:slink|redir)|",
        r"googleadservices\.com/|googleweblight\.com/|translate\.goog/|yandex\.[a-z]+/(?:redir|clck)|",
        r"baidu\.com/link|vk\.com/away|t\.umblr\.com/|steamcommunity\.com/linkfilter|cse\.google\.)"
    ))
    .ok()
});

/// Compiles the pattern of redirectors.
pub(super) fn prepare() {
    LazyLock::force(&REDIRECTORS);
}

/// A link goes through somebody's open redirector.
fn link_redirects(context: &Context<'_>, _: &[String]) -> Option<String> {
    let redirector = REDIRECTORS.as_ref()?;
    let found = context
        .clickable()
        .find(|link| redirector.is_match(&link.link.target) && link.org != context.from_org)?;
    Some(format!("A link hides its target behind a redirection at {}.", found.host))
}

/// A link carries the address of another site.
fn link_in_link(context: &Context<'_>, _: &[String]) -> Option<String> {
    context.clickable().find_map(|link| {
        let target = link.link.target.to_ascii_lowercase().replace("%3a", ":").replace("%2f", "/");
        let inner = target.split("://").nth(2)?.split(['/', '?', '&', '#']).next()?.to_owned();
        let inner = host(&format!("http://{inner}"))?;
        let differs = org(&inner) != link.org && !context.is_own(org(&inner), &inner);
        differs.then(|| format!("A link to {} carries another address, {inner}.", link.host))
    })
}

fn path(target: &str) -> &str {
    let rest = target.split_once("://").map(|(_, rest)| rest).unwrap_or(target);
    let rest = rest.split_once('/').map(|(_, path)| path).unwrap_or_default();
    rest.split(['?', '#']).next().unwrap_or_default()
}

/// A link names a `.php` or `.html` page on a host that is not the sender's.
fn link_page_elsewhere(context: &Context<'_>, _: &[String]) -> Option<String> {
    context.clickable().find_map(|link| {
        let path = path(&link.link.target).to_ascii_lowercase();
        let is_page = [".php", ".htm", ".html"].iter().any(|end| path.ends_with(end));
        (is_page && !context.is_own(&link.org, &link.host))
            .then(|| format!("A link goes to a page at {}.", link.host))
    })
}

/// The path of a link is one long token.
fn link_single_token(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.clickable().any(|link| {
        let path = path(&link.link.target).trim_end_matches('/');
        path.len() >= 24 && path.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }))
}

/// One address makes at least half of three or more links.
fn link_repeated(context: &Context<'_>, _: &[String]) -> Option<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut total = 0;
    for link in context.clickable().filter(|link| link.link.source == LinkSource::Anchor) {
        total += 1;
        *counts.entry(link.link.target.as_str()).or_default() += 1;
    }
    plainly(total >= 3 && counts.values().any(|count| count * 2 >= total))
}

/// Every link is plain http.
fn links_unencrypted(context: &Context<'_>, _: &[String]) -> Option<String> {
    let mut links = context.clickable().peekable();
    links.peek()?;
    plainly(
        links
            .all(|link| link.link.target.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"))),
    )
}

/// Every link is a picture without words.
fn links_only_pictures(context: &Context<'_>, _: &[String]) -> Option<String> {
    let mut links = context.clickable().peekable();
    links.peek()?;
    plainly(context.images().next().is_some() && links.all(|link| link.link.text.is_empty()))
}

/// A link loads a program or a disk image.
fn link_to_program(context: &Context<'_>, _: &[String]) -> Option<String> {
    const ENDINGS: [&str; 14] = [
        ".exe", ".scr", ".msi", ".bat", ".cmd", ".js", ".jse", ".vbs", ".hta", ".iso", ".img", ".apk",
        ".lnk", ".ps1",
    ];
    context.clickable().find_map(|link| {
        let path = path(&link.link.target).to_ascii_lowercase();
        let ending = ENDINGS.iter().find(|ending| path.ends_with(*ending))?;
        Some(format!("A link to {} loads a `{ending}` file.", link.host))
    })
}

/// A link carries the address of a recipient.
fn link_names_recipient(context: &Context<'_>, _: &[String]) -> Option<String> {
    let recipients: Vec<String> =
        context.envelope.recipients.iter().take(20).map(|to| to.address.to_normalized()).collect();
    plainly(context.clickable().any(|link| {
        let target = link.link.target.to_lowercase().replace("%40", "@");
        recipients.iter().any(|recipient| recipient.contains('@') && target.contains(recipient))
    }))
}

/// There is a link to the web.
fn has_links(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.clickable().next().is_some())
}

/// A QR code leads to the web.
fn qr_link(context: &Context<'_>, _: &[String]) -> Option<String> {
    let link = context.message.links.iter().find(|link| link.source == LinkSource::Code)?;
    Some(format!("A QR code leads to {}.", link.host()?))
}

/// A QR code leads to where nothing else of the message comes from.
fn qr_link_elsewhere(context: &Context<'_>, _: &[String]) -> Option<String> {
    let codes = context.clickable().filter(|link| link.link.source == LinkSource::Code);
    let known = |org: &str| org == context.from_org || context.dkim_orgs.iter().any(|signer| signer == org);
    codes.filter(|link| !known(&link.org)).map(|link| format!("A QR code leads to {}.", link.host)).next()
}

/// A document that is attached holds links.
fn attached_links(context: &Context<'_>, _: &[String]) -> Option<String> {
    let link = context.message.links.iter().find(|link| link.source == LinkSource::Attachment)?;
    let host = link.host()?;
    Some(format!("An attached document links to {host}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_texts_that_are_addresses_show_a_host() {
        for (text, expected) in [
            ("https://www.paypal.com/signin", Some("www.paypal.com")),
            ("paypal.com", Some("paypal.com")),
            ("WWW.Example.ORG/x", Some("www.example.org")),
            ("Click here", None),
            ("e.g.", None),
            ("Dr.Smith", None),
            ("jane@example.org", None),
        ] {
            assert_eq!(shown_host(text).as_deref(), expected, "{text}");
        }
    }
}
