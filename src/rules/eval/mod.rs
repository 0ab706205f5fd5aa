//! Native tests for what a pattern cannot say, one file per family.
//!
//! A function returns the sentence for the reviewer when it hits; an empty one when the rule's description
//! says it all.

mod attachments;
mod body;
mod content;
mod forged;
mod header;
mod html;
mod language;
mod link_form;
mod links;
mod lists;
mod lookalike;
mod macros;
mod mime;
mod outbound;
mod pdf;
mod phishing;
mod picture;
mod relay;
mod sender;
mod welcome;

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};

use crate::mail::Envelope;
use crate::message::{self, Header, Link, LinkSource, Mailbox, Markup, Message};

use super::budget::Budget;
use super::definition::Settings;
use super::pattern::Pattern;
use super::source::Source;
use super::subject::{Outcome, Subject};
use super::view::{self, View};

use lists::Lists;

/// A native test: the message and the arguments in the rule file.
pub(super) type Function = fn(&Context<'_>, &[String]) -> Option<String>;

/// A native test that counts; rules over other rules see the count.
pub(super) type Counter = fn(&Context<'_>, &[String]) -> u32;

/// A native test of either kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Native {
    Says(Function),
    Counts(Counter),
}

/// Reads the lists and patterns that the functions share, while rules are compiled: the first message would
/// pay for it otherwise.
pub(super) fn prepare() {
    lists::Lists::get();
    links::prepare();
}

/// Returns the function of a name.
pub(super) fn find(name: &str) -> Option<Native> {
    let counter = mime::COUNTERS.iter().find(|(known, _)| *known == name);
    if let Some((_, function)) = counter {
        return Some(Native::Counts(*function));
    }
    [
        sender::FUNCTIONS,
        links::FUNCTIONS,
        attachments::FUNCTIONS,
        content::FUNCTIONS,
        outbound::FUNCTIONS,
        body::FUNCTIONS,
        forged::FUNCTIONS,
        header::FUNCTIONS,
        html::FUNCTIONS,
        language::FUNCTIONS,
        link_form::FUNCTIONS,
        lookalike::FUNCTIONS,
        macros::FUNCTIONS,
        mime::FUNCTIONS,
        pdf::FUNCTIONS,
        phishing::FUNCTIONS,
        picture::FUNCTIONS,
        relay::FUNCTIONS,
        welcome::FUNCTIONS,
    ]
    .into_iter()
    .flatten()
    .find(|(known, _)| *known == name)
    .map(|(_, function)| Native::Says(*function))
}

/// What the functions take from the statements in rule files, prepared once; a family a field.
#[derive(Debug, Default)]
pub(super) struct Families {
    networks: relay::Networks,
    welcome: welcome::Lists,
    freemail: Domains,
    shorteners: Domains,
    languages: language::Welcome,
    feeds: phishing::Feeds,
}

impl Families {
    /// Reads the statements.
    pub(super) fn read(settings: &Settings, sources: &[Source]) -> Self {
        Families {
            networks: relay::Networks::read(settings),
            welcome: welcome::Lists::read(settings),
            freemail: Domains::read(settings.words("freemail_domains")),
            shorteners: Domains::read(
                settings.words("url_shortener").chain(settings.words("url_shortener_get")),
            ),
            languages: language::Welcome::read(settings),
            feeds: phishing::Feeds::read(settings, sources),
        }
    }
}

/// Domains, some of them with a star.
#[derive(Debug, Default)]
struct Domains {
    exact: HashSet<String>,
    globs: Vec<String>,
}

impl Domains {
    fn read<'s>(words: impl Iterator<Item = &'s str>) -> Self {
        let (globs, exact): (Vec<String>, Vec<String>) =
            words.map(str::to_ascii_lowercase).partition(|word| word.contains(['*', '?']));
        Domains { exact: exact.into_iter().collect(), globs }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.is_empty()
    }

    fn has(&self, domain: &str) -> bool {
        self.exact.contains(domain) || self.globs.iter().any(|glob| super::read::matches(glob, domain))
    }
}

/// A message with what several functions need, computed once.
pub(super) struct Context<'a> {
    subject: Subject<'a>,
    families: &'a Families,
    message: &'a Message,
    envelope: &'a Envelope,
    lists: &'static Lists,
    /// The first mailbox of From.
    from: Mailbox,
    /// Its domain, lower case.
    from_domain: String,
    /// Its organisational domain.
    from_org: String,
    /// The domain of the reverse-path, lower case; empty where there is none.
    return_domain: String,
    /// The organisational domains that DKIM signatures name: those that hold, where they were verified.
    dkim_orgs: Vec<String>,
    /// Links to web hosts, those in attachments left out.
    links: Vec<WebLink<'a>>,
    trail: OnceCell<relay::Trail>,
    markup: OnceCell<Vec<Markup>>,
    pdfs: OnceCell<pdf::Pdfs>,
    body: OnceCell<View<'a>>,
}

/// A link to a web host.
struct WebLink<'a> {
    link: &'a Link,
    host: String,
    org: String,
}

impl<'a> Context<'a> {
    /// Prepares a message.
    pub(super) fn new(subject: &Subject<'a>, families: &'a Families) -> Self {
        let Subject { message, envelope, .. } = *subject;
        let from = message.from.first().cloned().unwrap_or_default();
        let from_domain = domain_of(&from.address);
        let reverse_path = envelope.mail.reverse_path.as_ref().map(|path| path.to_path());
        let return_path = reverse_path.or_else(|| view::return_path(message));
        let claimed = message.headers_named("DKIM-Signature").take(10).filter_map(|header| {
            let tags = header.value.split(';').map(str::trim);
            let domain = tags.filter_map(|tag| tag.strip_prefix("d=")).next()?;
            Some(org(&domain.trim().to_ascii_lowercase()).to_owned())
        });
        // Where signatures were verified, one that does not hold names nobody.
        let verified = subject.evidence.authentication.as_ref().filter(|found| !found.dkim.is_empty());
        let signed: Vec<String> = match verified {
            Some(found) => {
                let held = found.dkim.iter().filter(|(_, outcome)| *outcome == Outcome::Pass);
                held.map(|(signer, _)| org(signer).to_owned()).collect()
            }
            None => claimed.collect(),
        };
        let links = message.links.iter().filter(|link| link.source != LinkSource::Attachment);
        Context {
            subject: *subject,
            families,
            message,
            envelope,
            lists: Lists::get(),
            from_org: org(&from_domain).to_owned(),
            from_domain,
            from,
            return_domain: return_path.as_deref().map(domain_of).unwrap_or_default(),
            dkim_orgs: signed,
            trail: OnceCell::new(),
            markup: OnceCell::new(),
            pdfs: OnceCell::new(),
            body: OnceCell::new(),
            links: links
                .filter_map(|link| {
                    let host = link.host()?;
                    Some(WebLink { link, org: org(&host).to_owned(), host })
                })
                .collect(),
        }
    }

    /// Returns what the rules look at.
    pub(super) fn subject(&self) -> &Subject<'a> {
        &self.subject
    }

    fn families(&self) -> &'a Families {
        self.families
    }

    /// Returns the way of the message.
    fn trail(&self) -> &relay::Trail {
        self.trail.get_or_init(|| relay::Trail::read(self))
    }

    /// Whether no hop is known.
    fn trail_is_empty(&self) -> bool {
        self.message.header("Received").is_none()
    }

    /// Returns how the HTML parts are written.
    fn markup(&self) -> &[Markup] {
        self.markup.get_or_init(|| {
            let pages = self.message.parts.iter().filter(|part| part.media_type == "text/html");
            let contents = pages.filter_map(|part| part.content.as_ref());
            contents.map(|content| message::markup(content.bytes(self.subject.raw))).collect()
        })
    }

    /// Returns what attached PDF files say.
    fn pdfs(&self) -> &pdf::Pdfs {
        self.pdfs.get_or_init(|| pdf::Pdfs::read(self))
    }

    /// Returns the paragraphs of the visible text, the subject first.
    pub(super) fn body(&self) -> &View<'a> {
        self.body.get_or_init(|| view::body(self.message))
    }

    /// Returns the header fields that hosts of a kind can have written: `trusted` or `internal` those down to
    /// the Received field of the last such hop, `untrusted` or `external` those from it on.
    pub(super) fn fields_of_hops(&self, kind: &str) -> impl Iterator<Item = &'a Header> {
        let trail = self.trail();
        let own =
            if matches!(kind, "trusted" | "untrusted") { trail.trusted().len() } else { trail.internal() };
        let is_own = matches!(kind, "trusted" | "internal");
        let mut received = 0_usize;
        self.message.headers.iter().filter(move |header| {
            let is_received = header.name.eq_ignore_ascii_case("Received");
            received += usize::from(is_received);
            let is_after = received > own;
            // The field of the border itself is of both.
            is_own != is_after || is_own && is_received && received == own + 1
        })
    }

    /// Returns the reverse-path: the envelope's, or that of a message that has been delivered.
    pub(super) fn reverse_path(&self) -> Option<String> {
        let path = self.envelope.mail.reverse_path.as_ref().map(|path| path.to_path());
        path.or_else(|| self.trail().reverse_path(self.message))
    }

    /// The links that a reader can follow.
    fn clickable(&self) -> impl Iterator<Item = &WebLink<'a>> {
        self.links.iter().filter(|link| link.link.is_clickable())
    }

    /// The pictures that a mail program fetches.
    fn images(&self) -> impl Iterator<Item = &WebLink<'a>> {
        self.links.iter().filter(|link| !link.link.is_clickable())
    }

    /// Whether a host belongs to who sends: From, reverse-path, a signature, or the tracking of a bulk sender.
    fn is_own(&self, host_org: &str, host: &str) -> bool {
        host_org == self.from_org
            || !self.return_domain.is_empty() && host_org == org(&self.return_domain)
            || self.dkim_orgs.iter().any(|signer| signer == host_org)
            || self.lists.bulk_hosts.has_host(host)
    }

    /// Whether a signature names the organisation of From.
    fn is_signed_by_author(&self) -> bool {
        self.dkim_orgs.contains(&self.from_org)
    }
}

/// Returns the pseudo header of a name in lower case that is computed; `None` where it is none.
pub(super) fn computed_field(name: &str, context: &Context<'_>) -> Option<String> {
    match name {
        "x-languages" => Some(language::of(context).unwrap_or_default().to_owned()),
        _ => relay::field(name, context),
    }
}

/// Returns what a condition of `uri_detail` looks at.
pub(super) fn link_texts(link: &Link, key: &str) -> Vec<String> {
    match key {
        "raw" | "cleaned" => vec![link.target.clone()],
        "text" => vec![link.text.clone()],
        "host" => link.host().into_iter().collect(),
        "domain" => link.host().map(|host| org(&host).to_owned()).into_iter().collect(),
        "type" => vec![
            match link.source {
                LinkSource::Anchor => "a",
                LinkSource::Image => "img",
                LinkSource::Form => "form",
                LinkSource::Text | LinkSource::Attachment | LinkSource::Redirected | LinkSource::Code => {
                    "parsed"
                }
            }
            .to_owned(),
        ],
        _ => Vec::new(),
    }
}

/// Whether a pattern in the arguments of a rule matches one of the texts: `/re/flags`, or the bare pattern, case
/// aside. Compiled once a thread.
fn argument_matches<'t>(pattern: &str, mut texts: impl Iterator<Item = &'t str>) -> bool {
    /// Most patterns that are kept; rule files have some dozens.
    const PATTERNS: usize = 1_000;
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Option<Pattern>>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        if compiled.len() >= PATTERNS {
            compiled.clear();
        }
        let entry = compiled.entry(pattern.to_owned());
        let compiled = entry.or_insert_with_key(|pattern| match pattern.starts_with('/') {
            true => Pattern::compile(pattern).ok(),
            false => Pattern::of_body(pattern, "i").ok(),
        });
        let mut budget = Budget::default();
        compiled
            .as_ref()
            .is_some_and(|pattern| texts.any(|text| pattern.find(text.as_bytes(), 0, &mut budget).is_some()))
    })
}

/// Returns an argument that is a number.
fn number(arguments: &[String], place: usize) -> Option<f64> {
    arguments.get(place)?.parse().ok()
}

/// Whether a value is at least the first of the arguments, and at most the second, if there is one.
fn between(value: f64, arguments: &[String]) -> bool {
    number(arguments, 0).is_some_and(|low| value >= low)
        && number(arguments, 1).is_none_or(|high| value <= high)
}

/// Returns the domain of an address, lower case; empty where there is none.
fn domain_of(address: &str) -> String {
    let domain = address.rsplit_once('@').map(|(_, domain)| domain).unwrap_or_default();
    domain.trim_end_matches(['.', '>', ' ']).to_lowercase()
}

/// Returns the organisational domain of a host, or the host itself.
fn org(host: &str) -> &str {
    psl::domain_str(host).unwrap_or(host)
}

/// Says yes with nothing to add to the rule's description.
fn plainly(is_hit: bool) -> Option<String> {
    is_hit.then(String::new)
}
