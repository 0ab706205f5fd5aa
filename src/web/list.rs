//! The list of kept mail: what a person opens in the morning.

use askama::Template;
use axum::extract::{Query as UrlQuery, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::Site;
use super::auth::SignedIn;
use super::failure::{Failure, page};
use super::view::{Frame, Item};
use crate::mail::Direction;
use crate::quarantine::{Cursor, EntryId, Query, State as EntryState};

/// Entries on one page.
const PAGE_SIZE: usize = 50;

/// What is listed, as it stands in the address of the page and in the forms on it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Selection {
    /// The search text.
    q: String,
    /// The tab; empty for the first.
    show: String,
    /// A direction, or empty.
    way: String,
    /// Where the page begins, or empty.
    after: String,
    /// The entry that was just acted on, or empty.
    done: String,
}

/// One tab over the list.
#[derive(Debug, Clone, Copy)]
struct Tab {
    name: &'static str,
    label: &'static str,
    states: &'static [EntryState],
    empty: &'static str,
}

const TABS: [Tab; 5] = [
    Tab {
        name: "",
        label: "Waiting",
        states: &[EntryState::Kept, EntryState::Failed],
        empty: "Nothing waits for you.",
    },
    Tab {
        name: "released",
        label: "Released",
        states: &[EntryState::Releasing, EntryState::Released],
        empty: "Nothing was released.",
    },
    Tab {
        name: "spam",
        label: "Spam",
        states: &[EntryState::Confirmed],
        empty: "Nothing was confirmed as spam.",
    },
    Tab { name: "dropped", label: "Dropped", states: &[EntryState::Dropped], empty: "Nothing was dropped." },
    Tab { name: "all", label: "All", states: &[], empty: "Nothing is kept." },
];

impl Selection {
    fn tab(&self) -> Tab {
        let [first, ..] = TABS;
        TABS.into_iter().find(|tab| tab.name == self.show).unwrap_or(first)
    }

    fn query(&self) -> Query {
        Query {
            text: self.q.clone(),
            states: self.tab().states.to_vec(),
            direction: Direction::from_name(&self.way),
            after: Cursor::parse(&self.after),
            page_size: PAGE_SIZE,
        }
    }

    /// Returns the address of the list with this selection.
    fn url(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("q", &self.q),
            ("show", &self.show),
            ("way", &self.way),
            ("after", &self.after),
            ("done", &self.done),
        ] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        let query = query.finish();
        if query.is_empty() { "/".to_owned() } else { format!("/?{query}") }
    }

    /// Returns the address of the list after something was done to an entry of it.
    pub(super) fn url_after(&self, entry: &EntryId) -> String {
        Selection { done: entry.to_string(), ..self.clone() }.url()
    }
}

/// A link of a row of links.
struct Choice {
    label: &'static str,
    url: String,
    current: bool,
}

#[derive(Template)]
#[template(path = "list.html", config = "src/web/askama.toml")]
struct ListPage {
    frame: Frame,
    selection: Selection,
    tabs: Vec<Choice>,
    ways: Vec<Choice>,
    heading: String,
    items: Vec<Item>,
    empty: &'static str,
    searched: bool,
    next: Option<String>,
    first: Option<String>,
    stopped_early: bool,
    done: Option<Item>,
    wants_password: bool,
}

pub(super) async fn show(
    State(site): State<Site>,
    signed_in: SignedIn,
    selection: Result<UrlQuery<Selection>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Failure> {
    let UrlQuery(selection) = selection.map_err(|_| Failure::BadForm)?;
    let now = (site.now)();
    let scope = signed_in.scope();
    let found = site.quarantine.list(&scope, &selection.query()).await?;
    let done = match EntryId::parse(&selection.done) {
        Some(id) => site.quarantine.find(&scope, &id).await?.map(|entry| Item::of(&entry, now)),
        None => None,
    };
    let start = Selection { after: String::new(), done: String::new(), ..selection.clone() };
    let tabs = TABS
        .iter()
        .map(|tab| Choice {
            label: tab.label,
            url: Selection { show: tab.name.to_owned(), ..start.clone() }.url(),
            current: tab.name == selection.tab().name,
        })
        .collect();
    let ways = [("Both ways", ""), ("Inbound", "inbound"), ("Outbound", "outbound")]
        .into_iter()
        .map(|(label, way)| Choice {
            label,
            url: Selection { way: way.to_owned(), ..start.clone() }.url(),
            current: way == Direction::from_name(&selection.way).map_or("", Direction::as_str),
        })
        .collect();
    Ok(page(&ListPage {
        heading: heading(selection.tab(), found.total, !selection.q.trim().is_empty()),
        items: found.entries.iter().map(|entry| Item::of(entry, now)).collect(),
        empty: selection.tab().empty,
        searched: !selection.q.trim().is_empty(),
        next: found.next.map(|next| Selection { after: next.to_string(), ..start.clone() }.url()),
        first: (!selection.after.is_empty()).then(|| start.url()),
        stopped_early: found.stopped_early,
        wants_password: signed_in.is_administrator() && !site.accounts.has_password().await?,
        frame: Frame::of(&signed_in),
        tabs,
        ways,
        done,
        selection: start,
    }))
}

fn heading(tab: Tab, total: Option<u64>, searched: bool) -> String {
    let messages = |count: u64| if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
    match (total, tab.name) {
        (None, _) => "Search".to_owned(),
        (Some(0), _) if searched => "Nothing found".to_owned(),
        (Some(count), _) if searched => format!("{} found", messages(count)),
        (Some(0), "") => "All clear".to_owned(),
        (Some(1), "") => "1 message waits for you".to_owned(),
        (Some(count), "") => format!("{} wait for you", messages(count)),
        (Some(0), _) => tab.label.to_owned(),
        (Some(count), _) => messages(count),
    }
}
