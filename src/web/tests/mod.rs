//! The pages as stories, through the whole stack: requests in, HTML out, over temporary stores.

mod headers;
mod review;
mod sign_in;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::sync::mpsc;
use tower::ServiceExt;
use url::Url;

use super::{Config, Parts, Peer, router};
use crate::accounts::{self, Accounts, Token};
use crate::digest::{Notice, SendError};
use crate::mail::{Address, Client, Direction, Envelope, Mail, TransactionId};
use crate::privacy::{InstallationKey, Redacted};
use crate::quarantine::{self, Arrival, EntryId, Quarantine, Scope, SeenLink, Summary};
use crate::store::{Bodies, Records};
use crate::verdict::{Finding, Scan, Symbol};

const NOW: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);
const PASSWORD: &str = "correct horse battery";

/// The pages over a temporary folder, and what goes out of them.
struct House {
    _folder: tempfile::TempDir,
    router: Router,
    quarantine: Quarantine,
    accounts: Accounts,
    notices: mpsc::Receiver<Notice>,
}

impl House {
    async fn at(public_url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("records.db")).await.unwrap();
        let key = InstallationKey::new([9; 32]);
        let config = quarantine::Config::default();
        let quarantine = Quarantine::open(records.clone(), Bodies::in_memory(), &key, config).await.unwrap();
        let accounts = Accounts::new(records, &key, accounts::Config::default());
        let (sender, notices) = mpsc::channel(16);
        let outgoing =
            move |notice: Notice| -> futures_util::future::BoxFuture<'static, Result<(), SendError>> {
                let sender = sender.clone();
                Box::pin(async move { Ok(sender.send(notice).await?) })
            };
        let router = router(Parts {
            quarantine: quarantine.clone(),
            accounts: accounts.clone(),
            review: Arc::new(quarantine.clone()),
            outgoing: Arc::new(outgoing),
            metrics: Arc::new(|| "lazaret_sessions 0\n".to_owned()),
            now: || NOW,
            config: Config {
                public_url: Url::parse(public_url).unwrap(),
                sender: Address::parse("quarantine@gate.example").unwrap(),
            },
        });
        House { _folder: folder, router, quarantine, accounts, notices }
    }

    async fn new() -> Self {
        House::at("http://gate.example:8025").await
    }

    fn browser(&self) -> Browser {
        Browser { router: self.router.clone(), cookie: None, origin: None, source: 1 }
    }

    async fn administrator(&self) -> Browser {
        let mut browser = self.browser();
        let token = self.accounts.printed_link(NOW).await.unwrap();
        browser.redeem(&token).await;
        browser
    }

    async fn recipient(&self, address: &str) -> Browser {
        let mut browser = self.browser();
        let token = self.accounts.mailed_link(&Address::parse(address).unwrap(), NOW).await.unwrap().unwrap();
        browser.redeem(&token).await;
        browser
    }

    /// Keeps a message from mallory@evil.example.
    async fn keep(&self, number: u8, recipient: &str, subject: &str) -> EntryId {
        let envelope = Envelope {
            id: TransactionId::from_random([number; TransactionId::LEN]),
            direction: Direction::Inbound,
            client: Client { helo: "h".into(), ..Client::new("192.0.2.7:25".parse().unwrap()) },
            mail: Mail { reverse_path: Address::parse("bounce@evil.example").ok(), ..Mail::default() },
            recipients: vec![Address::parse(recipient).unwrap().into()],
        };
        let summary = Summary {
            subject: Redacted::new(subject.into()),
            from_name: Redacted::new("Mallory".into()),
            from_address: Redacted::new("mallory@evil.example".into()),
            preview: Redacted::new("Hello <img src=x onerror=alert(1)>\r\nsecond line".into()),
            links: vec![SeenLink {
                text: Redacted::new("paypal.com".into()),
                target: Redacted::new("https://evil.example/?a=\"><script>".into()),
            }],
            attachments: Redacted::new(vec!["invoice<b>.pdf".into()]),
        };
        let explanation = "The link says paypal.com but goes to evil.example";
        let scan = Scan {
            findings: vec![Finding::new(Symbol::fixed("URI_TEXT_MISMATCH"), 6.5, explanation)],
            ..Scan::default()
        };
        let arrival = Arrival {
            envelope: &envelope,
            recipients: &envelope.recipients,
            body: &Bytes::from_static(b"body"),
            summary: &summary,
            scan: &scan,
            own: &[],
            received_at: NOW - time::Duration::hours(2),
        };
        self.quarantine.put(arrival).await.unwrap().entries()[0].clone()
    }

    async fn state(&self, id: &EntryId) -> &'static str {
        self.quarantine.find(&Scope::All, id).await.unwrap().unwrap().state.as_str()
    }
}

/// Somebody at a browser, with a cookie.
#[derive(Clone)]
struct Browser {
    router: Router,
    cookie: Option<String>,
    /// What the browser says of the origin of its forms, if anything.
    origin: Option<&'static str>,
    /// The last byte of its address.
    source: u8,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Browser {
    async fn send(&mut self, method: Method, path: &str, form: Option<String>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "evil.example");
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, format!("other=1; {cookie}"));
        }
        if let Some(origin) = self.origin {
            request = request.header(header::ORIGIN, origin);
        }
        if form.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let mut request = request.body(Body::from(form.unwrap_or_default())).unwrap();
        let address = SocketAddr::from(([192, 0, 2, self.source], 40_000));
        request.extensions_mut().insert(ConnectInfo(Peer(address)));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        if let Some(set) = parts.headers.get(header::SET_COOKIE) {
            let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
            self.cookie = (!pair.ends_with('=')).then_some(pair);
        }
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        self.send(Method::POST, path, Some(form.finish())).await
    }

    async fn redeem(&mut self, token: &Token) {
        let answer = self.post("/link", &[("link", token.expose())]).await;
        assert_eq!((answer.status, answer.header(header::LOCATION)), (StatusCode::SEE_OTHER, "/"));
    }

    /// Reads the token that the forms of a page carry.
    async fn token(&mut self) -> String {
        let page = self.get("/").await.text;
        let (_, rest) = page.split_once("name=\"token\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    async fn act(&mut self, id: &EntryId, action: &str) -> Answer {
        let token = self.token().await;
        self.post(&format!("/message/{id}/{action}"), &[("token", &token)]).await
    }
}
