//! The administrator's password.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::Site;
use super::auth::{From, Posted, SignedIn};
use super::failure::{Failure, page};
use super::view::Frame;
use crate::accounts::{PASSWORD_MINIMUM_CHARS, PasswordChange};

#[derive(Template)]
#[template(path = "settings.html", config = "src/web/askama.toml")]
struct SettingsPage {
    frame: Frame,
    asks_current: bool,
    minimum: usize,
    done: bool,
    problem: Option<&'static str>,
}

#[derive(Deserialize)]
pub(super) struct PasswordForm {
    token: String,
    #[serde(default)]
    current: String,
    new: String,
    again: String,
}

pub(super) async fn show(State(site): State<Site>, signed_in: SignedIn) -> Result<Response, Failure> {
    settings(&site, &signed_in, false, None).await
}

pub(super) async fn change_password(
    State(site): State<Site>,
    signed_in: SignedIn,
    From(source): From,
    Posted(form): Posted<PasswordForm>,
) -> Result<Response, Failure> {
    signed_in.check(&form.token)?;
    if form.new != form.again {
        return settings(&site, &signed_in, false, Some("The two new passwords differ.")).await;
    }
    let change = site
        .accounts
        .change_password(&signed_in.session, &form.current, &form.new, source, (site.now)())
        .await?;
    let (done, problem) = match change {
        PasswordChange::Changed => (true, None),
        PasswordChange::Unsuitable => (false, Some("The new password is too short or too long.")),
        PasswordChange::WrongCurrent => (false, Some("The current password is not right.")),
        PasswordChange::NotAllowed => return Err(Failure::NotFound),
        PasswordChange::Limited => return Err(Failure::TooOften),
    };
    settings(&site, &signed_in, done, problem).await
}

async fn settings(
    site: &Site,
    signed_in: &SignedIn,
    done: bool,
    problem: Option<&'static str>,
) -> Result<Response, Failure> {
    if !signed_in.is_administrator() {
        return Err(Failure::NotFound);
    }
    Ok(page(&SettingsPage {
        frame: Frame::of(signed_in),
        asks_current: !signed_in.session.by_link && site.accounts.has_password().await?,
        minimum: PASSWORD_MINIMUM_CHARS,
        done,
        problem,
    }))
}
