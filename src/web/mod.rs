//! The review pages: what is kept, why, and what to do about it.
//!
//! Server-rendered HTML that works without JavaScript. Nothing changes by GET. Every form carries its
//! session's token and must come from our own origin. What a recipient may not see does not exist for
//! them: the answer is 404 in the list, on the page and to every action. Links are built from the
//! configured public address, never from what a request says of the host.

mod auth;
mod failure;
mod headers;
mod list;
mod listener;
mod message;
mod settings;
mod sign_in;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use url::Url;

use crate::accounts::Accounts;
use crate::digest::Outgoing;
use crate::mail::Address;
use crate::quarantine::{Quarantine, Review};
use failure::Failure;

pub use listener::{Bounded, Peer};

/// Bytes of a request's body that are read, at most; our largest form is a password's.
pub const BODY_LIMIT_BYTES: usize = 16 * 1024;
/// Sign-in mails that may be under way at once; more are not sent.
pub const NOTICES_LIMIT: usize = 16;

/// How the pages present themselves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address under which people reach the pages; its path is `/`.
    pub public_url: Url,
    /// The address in From of sign-in mails.
    pub sender: Address,
}

/// Everything that the pages work on.
pub struct Parts {
    /// The kept mail, for reading.
    pub quarantine: Quarantine,
    /// Who may look.
    pub accounts: Accounts,
    /// Carries decisions out.
    pub review: Arc<dyn Review>,
    /// Sends sign-in mails.
    pub outgoing: Arc<dyn Outgoing>,
    /// Renders all metrics as Prometheus text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Tells the time.
    pub now: fn() -> OffsetDateTime,
    /// How the pages present themselves.
    pub config: Config,
}

struct Inner {
    parts: Parts,
    origin: String,
    notices: Arc<Semaphore>,
}

/// [`Parts`], shared by all requests.
#[derive(Clone)]
struct Site(Arc<Inner>);

impl std::ops::Deref for Site {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl Site {
    /// Returns the origin of the public address, as browsers write it.
    fn origin(&self) -> &str {
        &self.0.origin
    }

    fn is_https(&self) -> bool {
        self.config.public_url.scheme() == "https"
    }
}

/// Builds the pages. The service has to be made with [`Peer`] as connection info, for the limits by source.
pub fn router(parts: Parts) -> Router {
    let origin = parts.config.public_url.origin().ascii_serialization();
    let site = Site(Arc::new(Inner { parts, origin, notices: Arc::new(Semaphore::new(NOTICES_LIMIT)) }));
    Router::new()
        .route("/", get(list::show))
        .route("/message/{id}", get(message::show))
        .route("/message/{id}/{action}", post(message::act))
        .route("/sign-in", get(sign_in::show))
        .route("/sign-in/password", post(sign_in::by_password))
        .route("/sign-in/link", post(sign_in::ask_for_link))
        .route("/link/{token}", get(sign_in::show_link))
        .route("/link", post(sign_in::redeem))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/settings", get(settings::show).post(settings::change_password))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/style.css", get(|| asset("text/css; charset=utf-8", include_str!("static/style.css"))))
        .route("/icon.svg", get(|| asset("image/svg+xml", include_str!("static/icon.svg"))))
        .fallback(|| async { Failure::NotFound })
        .method_not_allowed_fallback(|| async { Failure::MethodNotAllowed })
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(middleware::from_fn_with_state(site.clone(), headers::guard))
        .with_state(site)
}

/// Returns where a one-time link leads.
pub fn link_url(public_url: &Url, token: &crate::accounts::Token) -> String {
    format!("{}/link/{}", public_url.origin().ascii_serialization(), token.expose())
}

async fn metrics(State(site): State<Site>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], (site.metrics)()).into_response()
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=300")], text).into_response()
}

#[cfg(test)]
mod tests;
