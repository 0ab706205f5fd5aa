//! One kept message: why it was kept, what it says, what to do with it.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::Site;
use super::auth::{Posted, SignedIn};
use super::failure::{Failure, page};
use super::list::Selection;
use super::view::{self, Evidence, Frame, Item, Moment};
use crate::quarantine::{Action, EntryId, Outcome};

#[derive(Template)]
#[template(path = "message.html", config = "src/web/askama.toml")]
struct MessagePage {
    frame: Frame,
    item: Item,
    reverse_path: String,
    client: String,
    size: String,
    transaction: String,
    expires: Moment,
    changed: Moment,
    evidence: Vec<Evidence>,
    degraded: Vec<String>,
    preview: String,
    links: Vec<(String, String)>,
    attachments: Vec<String>,
}

/// What a button on the list or on a message's page sends.
#[derive(Deserialize)]
pub(super) struct ActionForm {
    token: String,
    /// `list` when the button stood there: the person goes back to it.
    #[serde(default)]
    from: String,
    #[serde(flatten)]
    selection: Selection,
}

pub(super) async fn show(
    State(site): State<Site>,
    signed_in: SignedIn,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = EntryId::parse(&id).ok_or(Failure::NotFound)?;
    let now = (site.now)();
    let entry = site.quarantine.find(&signed_in.scope(), &id).await?.ok_or(Failure::NotFound)?;
    Ok(page(&MessagePage {
        reverse_path: match entry.private.reverse_path.expose().as_str() {
            "" => "none (an automatic message)".to_owned(),
            path => view::line(path),
        },
        client: entry.client_ip.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()),
        size: view::size(entry.size_bytes),
        transaction: entry.transaction.to_string(),
        expires: Moment::new(entry.expires_at, now),
        changed: Moment::new(entry.changed_at, now),
        evidence: entry.private.findings.iter().map(Evidence::of).collect(),
        degraded: entry.private.degraded.iter().map(|text| view::line(text)).collect(),
        preview: view::text(entry.private.preview.expose()),
        links: entry
            .private
            .links
            .iter()
            .map(|link| (view::line(link.text.expose()), view::line(link.target.expose())))
            .collect(),
        attachments: entry.private.attachments.expose().iter().map(|text| view::line(text)).collect(),
        item: Item::of(&entry, now),
        frame: Frame::of(&signed_in),
    }))
}

pub(super) async fn act(
    State(site): State<Site>,
    signed_in: SignedIn,
    Path((id, action)): Path<(String, String)>,
    Posted(form): Posted<ActionForm>,
) -> Result<Response, Failure> {
    signed_in.check(&form.token)?;
    let id = EntryId::parse(&id).ok_or(Failure::NotFound)?;
    let action = Action::from_name(&action).ok_or(Failure::NotFound)?;
    match site.review.act(&signed_in.scope(), &id, action, (site.now)()).await? {
        Outcome::NotFound => Err(Failure::NotFound),
        Outcome::NotAllowed(_) => Err(Failure::Conflict),
        Outcome::Done(_) | Outcome::AlreadyDone(_) | Outcome::LessonTakenBack(_) => {
            let back =
                if form.from == "list" { form.selection.url_after(&id) } else { format!("/message/{id}") };
            Ok(Redirect::to(&back).into_response())
        }
    }
}
