//! The review pages of a running gateway, over HTTP and in a real browser.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use crate::parts::{Client, Gateway, Hop, PATIENCE, eventually, message, scratch};

/// A browser without a screen: keeps its cookie, follows no redirect.
pub(crate) struct Browser {
    server: SocketAddr,
    cookie: Option<String>,
}

pub(crate) struct Answer {
    status: u16,
    head: String,
    pub(crate) body: String,
}

impl Browser {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Browser { server, cookie: None }
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\n"), "")
    }

    fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let head = format!(
            "POST {path} HTTP/1.1\r\nOrigin: http://{}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n",
            self.server,
            form.len()
        );
        self.request(&head, &form)
    }

    fn request(&mut self, head: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let cookie = self.cookie.as_ref().map_or_else(String::new, |cookie| format!("Cookie: {cookie}\r\n"));
        write!(stream, "{head}Host: {}\r\n{cookie}Connection: close\r\n\r\n{body}", self.server).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        for line in head.lines() {
            if let Some(cookie) = line.to_lowercase().starts_with("set-cookie: ").then(|| &line[12..]) {
                self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
            }
        }
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Signs in with a link, as a person does: opens it, presses its button.
    fn sign_in(&mut self, link: &str) {
        let path = link.split_once(&self.server.to_string()).unwrap().1;
        // A scanner that follows links in mail does not use it up.
        for _ in 0..2 {
            assert_eq!(self.get(path).status, 200);
        }
        let page = self.get(path);
        let answer = self.post("/link", &[("link", &value_of(&page.body, "link"))]);
        assert!((300..400).contains(&answer.status), "{}", answer.head);
        assert!(answer.head.to_lowercase().contains("httponly"), "{}", answer.head);
    }
}

/// The value of a hidden field.
fn value_of(page: &str, name: &str) -> String {
    let field = format!("name=\"{name}\" value=\"");
    page.split_once(&field)
        .unwrap_or_else(|| panic!("no {name} in {page}"))
        .1
        .split('"')
        .next()
        .unwrap()
        .to_owned()
}

/// The ids of the messages that a list links to.
fn ids_of(page: &str) -> Vec<String> {
    let mut ids: Vec<String> = page
        .split("href=\"/message/")
        .skip(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_alphanumeric).collect())
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

fn gateway_that_keeps_everything(hop: &Hop) -> (tempfile::TempDir, Gateway) {
    let folder = scratch();
    let keys = format!(
        "inbound.next_hop = \"smtp://{0}\"\noutbound.next_hop = \"smtp://{0}\"\n\
         inbound.tag = -50.0\ninbound.quarantine = -50.0\noutbound.tag = -50.0\noutbound.quarantine = -50.0",
        hop.address
    );
    let gateway = Gateway::start(folder.path(), &keys);
    (folder, gateway)
}

fn send(to: SocketAddr, recipient: &str, subject: &str) {
    let mut client = Client::connect(to).unwrap();
    let reply = client.send("ann@sender.example", &[recipient], &message(subject, "<b>text</b>")).unwrap();
    assert!(reply.starts_with("250"), "{reply}");
}

#[test]
fn an_administrator_releases_a_message_once_however_often_the_button_is_pressed() {
    let hop = Hop::start();
    let (_folder, gateway) = gateway_that_keeps_everything(&hop);
    send(gateway.inbound, "alice@example.org", "kept in");
    send(gateway.outbound, "friend@elsewhere.example", "kept out");
    let mut browser = Browser::new(gateway.web);
    assert!((300..400).contains(&browser.get("/").status), "the list needs a sign-in");
    browser.sign_in(gateway.link.as_ref().unwrap());
    let list = browser.get("/");
    assert!(list.body.contains("kept in") && list.body.contains("kept out"), "{}", list.body);
    assert!(
        list.head.to_lowercase().contains("content-security-policy: default-src 'none'"),
        "{}",
        list.head
    );
    for id in ids_of(&list.body) {
        let page = browser.get(&format!("/message/{id}"));
        assert!(
            page.body.contains("&lt;b&gt;text") || page.body.contains("&#60;b&#62;text"),
            "{}",
            page.body
        );
        let token = value_of(&page.body, "token");
        let path = format!("/message/{id}/release");
        assert_eq!(browser.get(&path).status, 405, "nothing changes by GET");
        for _ in 0..3 {
            let answer = browser.post(&path, &[("token", &token)]);
            assert!((300..400).contains(&answer.status), "{} {}", answer.head, answer.body);
        }
        let forged = browser.post(&path, &[("token", "x")]);
        assert!((400..500).contains(&forged.status), "a form of another session is refused");
    }
    eventually("both releases", || (hop.taken().len() >= 2).then_some(()));
    eventually("the pages to say so", || browser.get("/?show=all").body.contains("eleased").then_some(()));
    assert_eq!(hop.taken().len(), 2, "released more than once");
    assert!(hop.taken().iter().any(|message| message.contains("Subject: kept out")));
    let metrics = browser.get("/metrics");
    assert!(metrics.body.contains("lazaret_transactions_total"), "{}", metrics.body);
    assert!(!metrics.body.contains('@'), "{}", metrics.body);
}

#[test]
fn a_recipient_signs_in_by_mail_and_sees_their_own_messages_only() {
    let hop = Hop::start();
    let (_folder, gateway) = gateway_that_keeps_everything(&hop);
    send(gateway.inbound, "alice@example.org", "for alice");
    send(gateway.inbound, "bob@example.org", "for bob");
    let mut administrator = Browser::new(gateway.web);
    administrator.sign_in(gateway.link.as_ref().unwrap());
    let all = ids_of(&administrator.get("/").body);
    assert_eq!(all.len(), 2);

    let mut alice = Browser::new(gateway.web);
    let asked = alice.post("/sign-in/link", &[("address", "alice@example.org")]);
    let stranger = alice.post("/sign-in/link", &[("address", "stranger@example.org")]);
    assert_eq!(
        (asked.status, asked.body),
        (stranger.status, stranger.body),
        "the answer tells nobody who has mail"
    );
    let mail = eventually("the sign-in mail", || hop.taken().pop());
    let link = mail.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    alice.sign_in(link);
    let own = ids_of(&alice.get("/").body);
    assert_eq!(own.len(), 1);
    let other = all.iter().find(|id| **id != own[0]).unwrap();
    assert!(alice.get(&format!("/message/{}", own[0])).body.contains("for alice"));
    let token = value_of(&alice.get(&format!("/message/{}", own[0])).body, "token");
    assert_eq!(alice.get(&format!("/message/{other}")).status, 404);
    for action in ["release", "confirm", "drop", "undo"] {
        let answer = alice.post(&format!("/message/{other}/{action}"), &[("token", &token)]);
        assert_eq!(answer.status, 404, "{action}");
    }
    assert_eq!(ids_of(&alice.get(&format!("/?q={other}")).body), Vec::<String>::new());
    assert_eq!(hop.taken().len(), 1, "only the sign-in mail left");
}

#[test]
fn the_pages_work_in_a_browser() {
    let hop = Hop::start();
    let (folder, gateway) = gateway_that_keeps_everything(&hop);
    let profile = folder.path().join("profile");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://{}/sign-in", gateway.web))
        .stdin(Stdio::null())
        .output()
        .expect("chromium is installed by tests/run");
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(dom.contains("Mail me a link") && dom.contains("Administrator"), "{dom}");
    let console = String::from_utf8_lossy(&output.stderr);
    assert!(!console.contains("Content Security Policy"), "the page breaks its own policy: {console}");
}
