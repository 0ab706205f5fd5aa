//! Who asks: the session behind a cookie, the source of a connection, the token of a form.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, Form, FromRequest, FromRequestParts, Request};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Site;
use super::failure::Failure;
use super::listener::Peer;
use crate::accounts::{Principal, Session, Source, Token};
use crate::quarantine::Scope;

/// Somebody who has signed in. Without a session the request goes to the sign-in page.
pub(super) struct SignedIn {
    pub(super) session: Session,
    pub(super) cookie: Token,
}

impl SignedIn {
    /// Returns what this person may see and act on.
    pub(super) fn scope(&self) -> Scope {
        match &self.session.principal {
            Principal::Administrator => Scope::All,
            Principal::Recipient(address) => Scope::Recipient(address.clone()),
        }
    }

    pub(super) fn is_administrator(&self) -> bool {
        self.session.principal == Principal::Administrator
    }

    /// Refuses a form that is not this session's.
    pub(super) fn check(&self, form_token: &str) -> Result<(), Failure> {
        if self.session.accepts(form_token) { Ok(()) } else { Err(Failure::StaleForm) }
    }
}

impl FromRequestParts<Site> for SignedIn {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Failure> {
        let cookie = cookie(&parts.headers, cookie_name(site)).ok_or(Failure::SignIn)?;
        let session = site.accounts.session(&cookie, (site.now)()).await?.ok_or(Failure::SignIn)?;
        Ok(SignedIn { session, cookie })
    }
}

/// Where the request comes from, by its connection; header fields that claim otherwise are not believed.
pub(super) struct From(pub(super) Source);

impl FromRequestParts<Site> for From {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Site) -> Result<Self, Failure> {
        let address = parts.extensions.get::<ConnectInfo<Peer>>();
        let ip = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(Peer(address))| address.ip());
        Ok(From(Source::new(ip)))
    }
}

/// A form, or our own page that says that it cannot be read.
pub(super) struct Posted<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Site> for Posted<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, site: &Site) -> Result<Self, Failure> {
        let form: Result<Form<T>, FormRejection> = Form::from_request(request, site).await;
        form.map(|Form(form)| Posted(form)).map_err(|_| Failure::BadForm)
    }
}

/// The cookie's name; the prefix binds it to this host and to TLS in the browser.
fn cookie_name(site: &Site) -> &'static str {
    if site.is_https() { "__Host-lazaret" } else { "lazaret" }
}

/// Returns the Set-Cookie field that begins a session, or with `None` ends it.
pub(super) fn set_cookie(site: &Site, token: Option<&Token>) -> Result<HeaderValue, Failure> {
    let name = cookie_name(site);
    let secure = if site.is_https() { "; Secure" } else { "" };
    let value = token.map_or("", Token::expose);
    let age = if token.is_some() { "" } else { "; Max-Age=0" };
    let field = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{age}");
    HeaderValue::try_from(field).map_err(|_| Failure::Internal)
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<Token> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| Token::parse(value))
}
