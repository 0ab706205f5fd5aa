//! Next hops that speak SMTP or LMTP as they are told to: what they offer, with whom they speak TLS, what they
//! refuse. They write down what they hear.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::ServerConfig;

use crate::secure::Lines;

/// What a next hop is like.
#[derive(Clone, Default)]
pub(crate) struct Nature {
    /// Whether it answers for each recipient.
    pub(crate) is_lmtp: bool,
    /// Further lines of its reply to EHLO.
    pub(crate) offers: Vec<String>,
    /// STARTTLS is offered with this.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// Whether somebody on the way puts replies behind its "220" to STARTTLS.
    pub(crate) is_injected: bool,
    /// Over TLS it offers AUTH PLAIN, and takes this response alone.
    pub(crate) plain_response: Option<String>,
    /// It refuses mailboxes that begin like this, after the end of data over LMTP.
    pub(crate) refuses: Option<&'static str>,
}

/// A message that it acknowledged to at least one recipient.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// The commands of its transaction, MAIL first.
    pub(crate) envelope: Vec<String>,
    /// Header and body.
    pub(crate) text: String,
    /// Whether it came over TLS.
    pub(crate) is_secure: bool,
    /// Whether its sender had signed in.
    pub(crate) is_signed_in: bool,
}

#[derive(Default)]
struct Heard {
    taken: Vec<Taken>,
    commands: Vec<String>,
}

/// A running next hop.
pub(crate) struct ScriptedHop {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

impl ScriptedHop {
    /// Starts it on a free port.
    pub(crate) fn start(nature: Nature) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), nature)
    }

    /// Starts it there.
    pub(crate) fn start_at(address: SocketAddr, nature: Nature) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let hop = ScriptedHop { address, heard: Arc::clone(&heard) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (nature, heard) = (nature.clone(), Arc::clone(&heard));
                // The other end may break off at any time.
                std::thread::spawn(move || {
                    Lines::new(stream).and_then(|lines| serve(lines, &nature, &heard))
                });
            }
        });
        hop
    }

    /// What it has acknowledged.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.heard.lock().unwrap().taken.clone()
    }

    /// Every command that it has heard.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.heard.lock().unwrap().commands.clone()
    }
}

fn serve(mut lines: Lines, nature: &Nature, heard: &Mutex<Heard>) -> io::Result<()> {
    lines.send("220 hop.example ready\r\n")?;
    let mut envelope: Vec<String> = Vec::new();
    let mut is_signed_in = false;
    loop {
        let command = lines.line()?.trim_end().to_owned();
        heard.lock().unwrap().commands.push(command.clone());
        let verb = command.split(' ').next().unwrap_or_default();
        let reply = match verb {
            "EHLO" | "LHLO" if (verb == "LHLO") == nature.is_lmtp => capabilities(nature, lines.is_secure()),
            "STARTTLS" => {
                let Some(config) = &nature.tls else { return Ok(()) };
                let injected =
                    if nature.is_injected { "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n" } else { "" };
                lines.send(&format!("220 go on\r\n{injected}"))?;
                lines = lines.answer_tls(config)?;
                continue;
            }
            "AUTH" => {
                is_signed_in = command.strip_prefix("AUTH PLAIN ") == nature.plain_response.as_deref();
                let reply = if is_signed_in { "235 2.7.0 signed in" } else { "535 5.7.8 wrong" };
                format!("{reply}\r\n")
            }
            "MAIL" if nature.plain_response.is_some() && !is_signed_in => "530 5.7.0 sign in\r\n".to_owned(),
            "MAIL" => {
                envelope = vec![command];
                "250 2.1.0 ok\r\n".to_owned()
            }
            "RCPT" if !nature.is_lmtp && is_refused(nature, &command) => "550 5.1.1 nobody\r\n".to_owned(),
            "RCPT" => {
                envelope.push(command);
                "250 2.1.5 ok\r\n".to_owned()
            }
            "DATA" => {
                lines.send("354 go\r\n")?;
                let text = message(&mut lines)?;
                let is_secure = lines.is_secure();
                let envelope = std::mem::take(&mut envelope);
                let replies = end_of_data(nature, &envelope);
                if replies.contains("250 ") {
                    // What is recorded before the reply leaves is what the hop holds.
                    let taken = Taken { envelope, text, is_secure, is_signed_in };
                    heard.lock().unwrap().taken.push(taken);
                }
                replies
            }
            "QUIT" => return lines.send("221 bye\r\n"),
            "RSET" | "XFORWARD" => "250 2.0.0 ok\r\n".to_owned(),
            _ => "502 5.5.1 what?\r\n".to_owned(),
        };
        lines.send(&reply)?;
    }
}

fn capabilities(nature: &Nature, is_secure: bool) -> String {
    let mut offers = nature.offers.clone();
    if nature.tls.is_some() && !is_secure {
        offers.push("STARTTLS".to_owned());
    }
    if nature.plain_response.is_some() && is_secure {
        offers.push("AUTH PLAIN".to_owned());
    }
    let lines: String = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
    format!("250-hop.example\r\n{lines}250 8BITMIME\r\n")
}

fn message(lines: &mut Lines) -> io::Result<String> {
    let mut text = String::new();
    loop {
        let line = lines.line()?;
        if line == ".\r\n" {
            return Ok(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

/// The replies to the end of data: one, or one for each recipient.
fn end_of_data(nature: &Nature, envelope: &[String]) -> String {
    if !nature.is_lmtp {
        return "250 2.0.0 queued\r\n".to_owned();
    }
    let reply = |rcpt: &String| match is_refused(nature, rcpt) {
        true => "552 5.2.2 full\r\n",
        false => "250 2.0.0 delivered\r\n",
    };
    envelope.iter().skip(1).map(reply).collect()
}

fn is_refused(nature: &Nature, rcpt: &str) -> bool {
    nature.refuses.is_some_and(|start| rcpt.contains(&format!("<{start}")))
}
