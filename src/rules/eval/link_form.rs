//! The form of links: SpamAssassin's `URIEval` and `HTTPSMismatch`.

use std::net::IpAddr;

use super::{Context, Function, org, plainly};
use crate::message::{LinkSource, host};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("check_https_http_mismatch", https_http_mismatch),
    ("check_https_ip_mismatch", https_ip_mismatch),
    ("check_uri_truncated", truncated),
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

/// `check_https_http_mismatch(MIN, MAX)`: so many anchors, one of which shows another organisation's encrypted
/// address than the one it leads to.
fn https_http_mismatch(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let (low, high) = (arguments.first()?.parse::<usize>().ok()?, arguments.get(1)?.parse::<usize>().ok()?);
    let differing = shown(context).filter(|(shown, target)| org(shown) != org(target)).count();
    plainly((low..=high).contains(&differing))
}

fn https_ip_mismatch(context: &Context<'_>, _: &[String]) -> Option<String> {
    let is_ip = |host: &str| host.parse::<IpAddr>().is_ok();
    plainly(shown(context).any(|(shown, target)| !is_ip(&shown) && is_ip(&target)))
}

fn truncated(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.subject().message.links.iter().any(|link| link.target.len() >= LINK_BYTES))
}
