//! The form of links: SpamAssassin's `URIEval` and `HTTPSMismatch`.

use std::collections::HashSet;
use std::net::IpAddr;

use super::{Context, Function, number, org, plainly};
use crate::message::{LinkSource, host};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_https_http_mismatch", https_http_mismatch),
    ("check_https_ip_mismatch", https_ip_mismatch),
    ("check_uri_truncated", truncated),
    ("short_url", short_url),
];

/// Longest link that is read whole.
const LINK_BYTES: usize = 4_096;

/// The links whose text shows an encrypted address: the host shown, and that of the target.
fn shown(context: &Context<'_>) -> impl Iterator<Item = (String, String)> {
    let anchors = context.subject().message.links.iter().filter(|link| link.source == LinkSource::Anchor);
    let pairs = anchors.filter_map(|link| {
        let is_plain = link.target.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"));
        let at = link.text.to_ascii_lowercase().find("https://")?;
        let shown = host(link.text.get(at..)?.split_whitespace().next()?)?;
        is_plain.then_some((shown, link.host()?))
    });
    pairs.collect::<Vec<_>>().into_iter()
}

/// `check_https_http_mismatch(MIN, MAX)`: so many anchors at least and fewer than that, one of which shows another
/// organisation's encrypted address than the one it leads to.
fn https_http_mismatch(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let least = number(arguments, 0).unwrap_or(1.0);
    let anchors = context.subject().message.links.iter().filter(|link| {
        let is_web = link.target.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http"));
        link.source == LinkSource::Anchor && is_web && !link.text.is_empty()
    });
    let (mut targets, mut is_hit) = (HashSet::new(), false);
    for link in anchors {
        let Some(host) = link.host().filter(|host| psl::domain_str(host).is_some()) else { continue };
        targets.insert(link.target.as_str());
        let text = link.text.to_ascii_lowercase();
        is_hit |= text.split("https://").skip(1).any(|rest| {
            let shown =
                rest.split(|c: char| c.is_whitespace() || "/:?#".contains(c)).next().unwrap_or_default();
            let is_ip = shown.parse::<IpAddr>().is_ok();
            (is_ip || psl::domain_str(shown).is_some()) && org(shown) != org(&host)
        });
    }
    let anchors = targets.len() as f64;
    plainly(is_hit && anchors >= least && number(arguments, 1).is_none_or(|most| anchors < most))
}

fn https_ip_mismatch(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_ip = |host: &str| host.parse::<IpAddr>().is_ok();
    plainly(shown(context).any(|(shown, target)| !is_ip(&shown) && is_ip(&target)))
}

/// `short_url()`: a link of one of the services that `url_shortener` names. None is asked where it leads.
fn short_url(context: &Context<'_>, _: &[String]) -> Option<String> {
    let shorteners = &context.families().shorteners;
    let is_short = |target: &str, host: &str| {
        let (above, labels) = (host.split_once('.').map(|(_, above)| above), host.split('.').count());
        if labels == 2 {
            let path = target.split_once("//").and_then(|(_, rest)| rest.split_once('/'));
            let has_path = path.is_some_and(|(_, path)| path.contains(|c: char| c.is_alphanumeric()));
            return has_path && shorteners.has(host);
        }
        // A name that begins with a full stop stands for all below it.
        let is_below = || match above {
            Some(above) if labels == 3 && host.starts_with("www.") => shorteners.has(above),
            Some(above) if labels == 3 => shorteners.has(&format!(".{above}")),
            _ => false,
        };
        shorteners.has(host) || is_below()
    };
    let web = context
        .subject()
        .message
        .links
        .iter()
        .filter(|link| link.target.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http")));
    let found =
        web.filter_map(|link| Some((link, link.host()?))).find(|(link, host)| is_short(&link.target, host));
    found.map(|(_, host)| format!("A link of {host} hides where it leads."))
}

fn truncated(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.subject().message.links.iter().any(|link| link.target.len() >= LINK_BYTES))
}
