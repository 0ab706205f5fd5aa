//! Signing in and out.
//!
//! Asking for a link is answered in the same words and at the same time whatever the address is: whether
//! mail is kept for it, and whether a link was sent, happens behind the answer.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::auth::{From, Posted, SignedIn, set_cookie};
use super::failure::{Failure, log, page};
use super::view::Frame;
use super::{Site, link_url};
use crate::accounts::{NewSession, SignIn, Token};
use crate::digest::SignInMail;
use crate::mail::Address;

#[derive(Template)]
#[template(path = "sign_in.html", config = "src/web/askama.toml")]
struct SignInPage {
    frame: Frame,
    has_password: bool,
    refused: bool,
    bad_address: bool,
}

#[derive(Template)]
#[template(path = "asked.html", config = "src/web/askama.toml")]
struct AskedPage {
    frame: Frame,
    minutes: i64,
}

#[derive(Template)]
#[template(path = "link.html", config = "src/web/askama.toml")]
struct LinkPage<'a> {
    frame: Frame,
    /// `None` when the link is used up, expired or malformed.
    token: Option<&'a str>,
}

#[derive(Deserialize)]
pub(super) struct PasswordForm {
    password: String,
}

#[derive(Deserialize)]
pub(super) struct AddressForm {
    address: String,
}

#[derive(Deserialize)]
pub(super) struct LinkForm {
    link: String,
}

#[derive(Deserialize)]
pub(super) struct SignOutForm {
    token: String,
}

pub(super) async fn show(
    State(site): State<Site>,
    signed_in: Result<SignedIn, Failure>,
) -> Result<Response, Failure> {
    match signed_in {
        Ok(_) => Ok(Redirect::to("/").into_response()),
        Err(Failure::SignIn) => sign_in_page(&site, false, false).await,
        Err(failure) => Err(failure),
    }
}

pub(super) async fn by_password(
    State(site): State<Site>,
    From(source): From,
    Posted(form): Posted<PasswordForm>,
) -> Result<Response, Failure> {
    match site.accounts.sign_in(&form.password, source, (site.now)()).await? {
        SignIn::Begun(session) => begin(&site, &session),
        SignIn::Refused => sign_in_page(&site, true, false).await,
        SignIn::Limited => Err(Failure::TooOften),
    }
}

pub(super) async fn ask_for_link(
    State(site): State<Site>,
    From(source): From,
    Posted(form): Posted<AddressForm>,
) -> Result<Response, Failure> {
    let Ok(address) = Address::parse(form.address.trim()) else {
        return sign_in_page(&site, false, true).await;
    };
    if !site.accounts.may_ask_for_link(source, (site.now)()).await? {
        return Err(Failure::TooOften);
    }
    if let Ok(permit) = site.0.notices.clone().try_acquire_owned() {
        let site = site.clone();
        tokio::spawn(async move {
            if let Err(error) = mail_link(&site, &address).await {
                log(error.as_ref());
            }
            drop(permit);
        });
    } else {
        tracing::warn!("a sign-in mail was not sent: too many are under way");
    }
    let minutes = site.accounts.mailed_link_lifetime().whole_minutes();
    Ok(page(&AskedPage { frame: Frame::outside(), minutes }))
}

/// Mails a link to an address for which mail is kept. To any other nothing is sent, or these pages would
/// send mail to whomever a stranger names.
async fn mail_link(site: &Site, address: &Address) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let now = (site.now)();
    if !site.quarantine.has_mail_for(address).await? {
        return Ok(());
    }
    let Some(token) = site.accounts.mailed_link(address, now).await? else {
        tracing::info!("a sign-in mail was not sent: the address has got enough of them");
        return Ok(());
    };
    let mail = SignInMail {
        sender: &site.config.sender,
        recipient: address,
        link: &link_url(&site.config.public_url, &token),
        lifetime: site.accounts.mailed_link_lifetime(),
        now,
    };
    site.outgoing.send(mail.write()?).await
}

/// Shows a button: mail programs and scanners that open links use nothing up.
pub(super) async fn show_link(Path(token): Path<String>) -> Response {
    let token = Token::parse(&token);
    page(&LinkPage { frame: Frame::outside(), token: token.as_ref().map(Token::expose) })
}

pub(super) async fn redeem(
    State(site): State<Site>,
    Posted(form): Posted<LinkForm>,
) -> Result<Response, Failure> {
    let session = match Token::parse(&form.link) {
        Some(token) => site.accounts.redeem(&token, (site.now)()).await?,
        None => None,
    };
    match session {
        Some(session) => begin(&site, &session),
        None => Ok(page(&LinkPage { frame: Frame::outside(), token: None })),
    }
}

pub(super) async fn sign_out(
    State(site): State<Site>,
    signed_in: SignedIn,
    Posted(form): Posted<SignOutForm>,
) -> Result<Response, Failure> {
    signed_in.check(&form.token)?;
    site.accounts.end_session(&signed_in.cookie).await?;
    Ok(([(header::SET_COOKIE, set_cookie(&site, None)?)], Redirect::to("/sign-in")).into_response())
}

async fn sign_in_page(site: &Site, refused: bool, bad_address: bool) -> Result<Response, Failure> {
    let has_password = site.accounts.has_password().await?;
    Ok(page(&SignInPage { frame: Frame::outside(), has_password, refused, bad_address }))
}

fn begin(site: &Site, session: &NewSession) -> Result<Response, Failure> {
    let cookie = set_cookie(site, Some(&session.cookie))?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}
