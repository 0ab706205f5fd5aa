//! Answers that are not the page somebody wanted.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};

use crate::{accounts, quarantine};

/// Why there is no page.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody is signed in.
    SignIn,
    /// There is no such page, or not for this person.
    NotFound,
    /// The page is not used in this way.
    MethodNotAllowed,
    /// A form came from another origin than this one.
    ForeignForm(String),
    /// A form does not carry its session's token.
    StaleForm,
    /// A form cannot be read.
    BadForm,
    /// Somebody tried too often.
    TooOften,
    /// It cannot be done in the message's state.
    Conflict,
    /// A store failed; the reason is in the log.
    Internal,
}

#[derive(Template)]
#[template(path = "failure.html", config = "src/web/askama.toml")]
struct FailurePage {
    title: &'static str,
    text: String,
    frame: super::view::Frame,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Failure::SignIn => return Redirect::to("/sign-in").into_response(),
            Failure::NotFound => (
                StatusCode::NOT_FOUND,
                "Not here",
                "There is no such page, or nothing for you on it. A message that was kept may have \
                 reached the end of its time."
                    .to_owned(),
            ),
            Failure::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Not like this",
                "This page works in another way.".to_owned(),
            ),
            Failure::ForeignForm(origin) => (
                StatusCode::FORBIDDEN,
                "Refused",
                format!("This form came from another address. Open {origin} and try again there."),
            ),
            Failure::StaleForm => (
                StatusCode::FORBIDDEN,
                "Refused",
                "This page was left open from an earlier session. Go back, reload it, and try again."
                    .to_owned(),
            ),
            Failure::BadForm => (
                StatusCode::BAD_REQUEST,
                "Not understood",
                "The form could not be read. Go back and try again.".to_owned(),
            ),
            Failure::TooOften => (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many tries",
                "Wait a quarter of an hour, then try again.".to_owned(),
            ),
            Failure::Conflict => (
                StatusCode::CONFLICT,
                "Already decided",
                "Somebody has decided about this message meanwhile. Go back and reload the page.".to_owned(),
            ),
            Failure::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something failed",
                "It is our fault, not yours, and it is in the log. Nothing was changed.".to_owned(),
            ),
        };
        (status, page(&FailurePage { title, text, frame: super::view::Frame::outside() })).into_response()
    }
}

/// Renders a page.
pub(super) fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page was not rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl From<quarantine::Error> for Failure {
    fn from(error: quarantine::Error) -> Self {
        log(&error);
        Failure::Internal
    }
}

impl From<accounts::Error> for Failure {
    fn from(error: accounts::Error) -> Self {
        log(&error);
        Failure::Internal
    }
}

/// Writes an error and its causes down, once.
pub(super) fn log(error: &(dyn std::error::Error + 'static)) {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push_str(": ");
        chain.push_str(&error.to_string());
        cause = error.source();
    }
    tracing::error!(error = chain, "a request failed");
}
