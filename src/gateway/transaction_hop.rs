//! A next hop of tests, over LMTP or with PRDR, with an answer for each recipient.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What it answers where nothing else is said.
pub(super) const YES: &str = "250 2.0.0 queued";

/// How a next hop speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tongue {
    Lmtp,
    Prdr,
}

/// A next hop with an answer for each recipient, and the copies that it took.
pub(super) struct Hop {
    pub(super) port: u16,
    pub(super) script: Arc<Script>,
    pub(super) playing: JoinHandle<()>,
}

pub(super) struct Script {
    pub(super) tongue: Tongue,
    /// What the end of data is answered for a recipient; `YES` where nothing is said.
    pub(super) ends: Mutex<BTreeMap<String, &'static str>>,
    /// What the next RCPTs of a recipient are answered.
    pub(super) rcpts: Mutex<BTreeMap<String, VecDeque<&'static str>>>,
    pub(super) taken: Mutex<Vec<String>>,
    /// Ends of data that may be answered; many, unless a test holds them back.
    pub(super) turns: Semaphore,
    /// Ends of data that have come.
    pub(super) ended: Semaphore,
}

impl Hop {
    pub(super) async fn start(tongue: Tongue) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::new(Script {
            tongue,
            ends: Mutex::default(),
            rcpts: Mutex::default(),
            taken: Mutex::default(),
            turns: Semaphore::new(1000),
            ended: Semaphore::new(0),
        });
        let shared = Arc::clone(&script);
        let playing = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&shared);
                tokio::spawn(async move { script.play(BufReader::new(stream)).await });
            }
        });
        Hop { port, script, playing }
    }

    pub(super) fn answer(&self, ends: &[(&str, &'static str)]) {
        *self.script.ends.lock().unwrap() =
            ends.iter().map(|(name, end)| ((*name).to_owned(), *end)).collect();
    }

    /// The recipients of the copies that it took since the last call, in order.
    pub(super) fn taken(&self) -> Vec<String> {
        let mut taken = std::mem::take(&mut *self.script.taken.lock().unwrap());
        taken.sort();
        taken
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

impl Script {
    pub(super) async fn play(&self, mut stream: BufReader<TcpStream>) -> Option<()> {
        stream.write_all(b"220 hop ready\r\n").await.ok()?;
        let (mut recipients, mut has_prdr, mut in_data) = (Vec::new(), false, false);
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let text = line.trim_end();
            let reply = if in_data {
                if text != "." {
                    continue;
                }
                in_data = false;
                self.ended.add_permits(1);
                self.turns.acquire().await.ok()?.forget();
                self.end(&std::mem::take(&mut recipients), has_prdr)
            } else if let Some(path) = text.strip_prefix("RCPT TO:<") {
                let name = path.trim_end_matches('>').to_owned();
                let scripted = self.rcpts.lock().unwrap().get_mut(&name).and_then(VecDeque::pop_front);
                let reply = scripted.unwrap_or("250 2.1.5 Ok");
                if reply.starts_with('2') {
                    recipients.push(name);
                }
                format!("{reply}\r\n")
            } else if text == "DATA" {
                in_data = true;
                "354 go\r\n".to_owned()
            } else if text.starts_with("EHLO") {
                "250-hop\r\n250 PRDR\r\n".to_owned()
            } else {
                if text.starts_with("MAIL") || text == "RSET" {
                    recipients.clear();
                    has_prdr = text.ends_with("PRDR");
                }
                "250 2.0.0 Ok\r\n".to_owned()
            };
            stream.write_all(reply.as_bytes()).await.ok()?;
        }
    }

    /// The replies to the end of data; takes a copy for each that is positive.
    pub(super) fn end(&self, recipients: &[String], has_prdr: bool) -> String {
        let ends = self.ends.lock().unwrap();
        let mut replies: Vec<&str> =
            recipients.iter().map(|name| ends.get(name).copied().unwrap_or(YES)).collect();
        let mut taken = self.taken.lock().unwrap();
        for (name, _) in recipients.iter().zip(&replies).filter(|(_, reply)| reply.starts_with('2')) {
            taken.push(name.clone());
        }
        if self.tongue == Tongue::Prdr {
            if has_prdr && replies.len() > 1 {
                replies.insert(0, "353 one for each");
                replies.push("250 2.0.0 done");
            } else {
                replies.truncate(1);
            }
        }
        replies.iter().map(|reply| format!("{reply}\r\n")).collect()
    }
}
