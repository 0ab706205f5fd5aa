//! Dialogues with the gateway, byte by byte, and what must hold after each: `cases.json`.
//!
//! A case has `steps` and a `check`. A step may `send` text, a character for a byte (or a list of texts,
//! of `{rep, n}`: a text n times, and of `{count, text}`: numbered texts), in pieces of `split` bytes (or of
//! a list of lengths) with a `pause`, for `send_s` seconds at most, with `noread` without reading meanwhile. It then waits for `n`
//! replies (one; `"quiet"`: all until a silence), each `within` some seconds, and compares each with
//! `expect`; a closed connection reads `CLOSED` and none in time `TIMEOUT`. `gate` ends the dialogue there
//! unless the replies are 2xx or 3xx. `eod` says that the replies answer an end of data: a 2xx must have a
//! message at the next hop or in quarantine. `sleep`, `shut` (half-close), `reset`, `close` and `closed`
//! (by the gateway, in so many seconds or in `"T"`, its own time-out) do what they are called. `tls` is a
//! handshake, for the name `sni` and with the outcome that it may `fail`.
//!
//! `check` has bounds for the number of `messages` at the next hop, patterns that `no_hop` or `some_hop`
//! command line there may or must match, patterns for the last message's MAIL (`mail`) and each RCPT
//! (`rcpts`), texts that it has or not (`has`, `has_not`), what follows its header (`body`) and its end
//! (`body_end`), that it has no NUL (`nul`), new entries in quarantine (`kept`), whether the connection is `closed` or `usable` afterwards (`"or-closed"`), bounds for the number of `replies` that match a
//! pattern, the growth of the process (`rss_mb`), the time (`max_s`), and alternatives (`any`).
//!
//! Always: no bare CR or LF reaches the next hop, the gateway lives, and a normal message passes within
//! five seconds. A case that `need`s an extension runs when the reply to EHLO offers it. The cases are held
//! before a plain next hop or, where they need CHUNKING, before one that takes it (all cases before both in
//! the nightly run). A `manual` case is a test of its own, by the name in `ELSEWHERE`.

mod case;
mod dialogue;
mod hop;
mod line;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use regex::Regex;

use crate::parts::{Client, Gateway, eventually, is_nightly, message, printed, run, scratch};
use crate::vitals::{begin_peak, memory_kib, sessions};
use case::{Case, Check, OneOrMany, OrClosed, Usable};
use dialogue::Dialogue;
use hop::{Extensions, Message, Record, RecordingHop};
use line::Trust;

/// Gateways for the cases that wait for no time-out.
const LANES: usize = 3;
/// The configured time-out for those that do, and the margin to it.
const IDLE_TIMEOUT: &str = "2s";
const TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a normal message must pass.
const NORMAL: Duration = Duration::from_secs(5);
/// How soon a connection that must be closed is.
const CLOSED: Duration = Duration::from_secs(5);

/// Cases whose expectation is wrong for this program, and why.
const JUDGED_WRONG: [(&str, &str); 1] =
    [("bdat-07", "it announces ten octets and sends nine; bdat-07-whole sends what it announces")];

/// Cases that are no dialogue, and the tests that hold them.
const ELSEWHERE: [(&str, &str); 5] = [
    ("time-04", "slow::two_thousand_slow_clients_leave_a_good_one_its_pace"),
    ("time-05", "slow::ten_thousand_connects_leave_no_descriptor_behind"),
    ("time-13", "clock::a_clock_that_leaps_harms_no_mail"),
    ("time-14", "resolver::a_resolver_that_never_answers_defers_the_mail_in_time"),
    ("time-15", "resolver::a_resolver_that_talks_nonsense_defers_the_mail_in_time"),
];

/// What became of a case.
enum Outcome {
    Ok,
    Elsewhere(&'static str),
    Failed(String),
    NotApplicable(String),
    JudgedWrong(&'static str),
}

#[test]
fn every_wire_case_holds() {
    let read = || -> Vec<Case> { serde_json::from_str(include_str!("cases.json")).unwrap() };
    for id in JUDGED_WRONG.iter().chain(&ELSEWHERE).map(|(id, _)| id) {
        assert!(read().iter().any(|case| case.id == *id), "no case {id}");
    }
    let (late, quick): (VecDeque<Case>, VecDeque<Case>) = read().into_iter().partition(|case| case.slow > 0);
    let needs_chunking = |case: &Case| case.need.as_deref() == Some("CHUNKING");
    let (mut chunked, mut plain): (VecDeque<Case>, VecDeque<Case>) =
        quick.into_iter().partition(needs_chunking);
    if is_nightly() {
        plain = read().into_iter().filter(|case| case.slow == 0).collect();
        chunked = read().into_iter().filter(|case| case.slow == 0).collect();
    }
    let [plain, chunked, late] = [plain, chunked, late].map(Mutex::new);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let idle = format!("smtp.idle_timeout = \"{IDLE_TIMEOUT}\"");
        let outcomes = &outcomes;
        let late = &late;
        scope.spawn(move || Lane::start(&idle, Extensions::Chunking).work(late, outcomes));
        scope.spawn(|| Lane::start("", Extensions::Chunking).work(&chunked, outcomes));
        for _ in 0..LANES {
            scope.spawn(|| Lane::start("", Extensions::None).work(&plain, outcomes));
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|(_, outcome)| wanted(outcome)).count();
    println!(
        "{} ok, {} by tests of their own, {} not applicable, {} judged wrong",
        count(|outcome| matches!(outcome, Outcome::Ok)),
        count(|outcome| matches!(outcome, Outcome::Elsewhere(_))),
        count(|outcome| matches!(outcome, Outcome::NotApplicable(_))),
        count(|outcome| matches!(outcome, Outcome::JudgedWrong(_))),
    );
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|(id, outcome)| match outcome {
            Outcome::Failed(why) => Some(format!("{id}: {why}")),
            Outcome::Ok | Outcome::Elsewhere(_) | Outcome::NotApplicable(_) | Outcome::JudgedWrong(_) => None,
        })
        .collect();
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

/// A gateway between this test and a next hop of its own; one case at a time.
struct Lane {
    folder: tempfile::TempDir,
    gateway: Gateway,
    hop: RecordingHop,
    /// What its certificate is checked with.
    trust: Trust,
    /// What the inbound and the outbound listener offer in their reply to EHLO.
    offered: [BTreeSet<String>; 2],
    /// Entries in quarantine when the case began.
    kept: usize,
}

impl Lane {
    fn start(keys: &str, extensions: Extensions) -> Self {
        let folder = scratch();
        let hop = RecordingHop::start(extensions);
        let trust = Trust::make(folder.path());
        // The cases are about the wire: messages without any header are nothing to keep here.
        let keys = format!(
            "log = \"warn\"\nsmtp.max_message_size = \"10 MiB\"\ninbound.quarantine = 20\n\
             inbound.next_hop = \"smtp://{0}\"\noutbound.next_hop = \"smtp://{0}\"\n{1}{keys}",
            hop.address,
            secure(folder.path()),
        );
        let gateway = Gateway::start(folder.path(), &keys);
        let offered = [gateway.inbound, gateway.outbound].map(offered);
        let lane = Lane { folder, gateway, hop, trust, offered, kept: 0 };
        // What is set up at the first message is not the first case's growth.
        lane.pass_normal_message().unwrap();
        lane
    }

    fn work(mut self, cases: &Mutex<VecDeque<Case>>, outcomes: &Mutex<Vec<(String, Outcome)>>) {
        loop {
            let Some(case) = cases.lock().unwrap().pop_front() else { return };
            let outcome = self.outcome(&case);
            match &outcome {
                Outcome::Ok => println!("case {}: ok", case.id),
                Outcome::Elsewhere(test) => println!("case {}: the test {test}", case.id),
                Outcome::Failed(why) => println!("case {}: FAILED {why}; wanted: {}", case.id, case.prose),
                Outcome::NotApplicable(need) => println!("case {}: not applicable: needs {need}", case.id),
                Outcome::JudgedWrong(why) => println!("case {}: judged wrong: {why}", case.id),
            }
            outcomes.lock().unwrap().push((case.id, outcome));
        }
    }

    fn outcome(&mut self, case: &Case) -> Outcome {
        if let Some((_, why)) = JUDGED_WRONG.iter().find(|(id, _)| *id == case.id) {
            return Outcome::JudgedWrong(why);
        }
        if case.manual.is_some() {
            return match ELSEWHERE.iter().find(|(id, _)| *id == case.id) {
                Some((_, test)) => Outcome::Elsewhere(test),
                None => Outcome::Failed("no test holds this case".to_owned()),
            };
        }
        let [inbound, outbound] = &self.offered;
        let (address, offered) = match case.port.as_deref() {
            None | Some("inbound") => (self.gateway.inbound, inbound),
            Some("outbound") => (self.gateway.outbound, outbound),
            Some(port) => return Outcome::NotApplicable(format!("the port {port}")),
        };
        if let Some(need) = &case.need
            && !offered.contains(need.as_str())
        {
            return Outcome::NotApplicable(need.clone());
        }
        match self.hold(case, address) {
            Ok(()) => Outcome::Ok,
            Err(why) => Outcome::Failed(why),
        }
    }

    /// Has the dialogue and looks at what must hold.
    fn hold(&mut self, case: &Case, address: SocketAddr) -> Result<(), String> {
        self.hop.restart(case.hop.trusting);
        if case.check.kept.is_some() {
            self.kept = self.count_kept();
        }
        let gone = |error| format!("the gateway is gone: {error}");
        let resident = begin_peak(self.gateway.pid()).map_err(gone)?;
        let started = Instant::now();
        let mut dialogue = Dialogue::connect(address, TIMEOUT, self.trust.clone()).map_err(gone)?;
        let spoken = self.speak(&mut dialogue, case);
        let elapsed = started.elapsed();
        let replies = std::mem::take(&mut dialogue.replies);
        let acknowledged = dialogue.acknowledged;
        drop(dialogue);
        let settled = self.settle();
        let grown_mb = memory_kib(self.gateway.pid(), "VmHWM:").saturating_sub(resident).div_ceil(1024);
        let record = self.hop.record();
        let after = self.pass_normal_message();
        spoken.and(settled).and(after)?;

        if let Some(offence) = record.offences.first() {
            return Err(format!("a bare CR or LF reached the next hop: {offence}"));
        }
        let is_to_count = case.check.kept.is_some() || acknowledged > record.messages.len();
        let newly_kept = if is_to_count { self.newly_kept() } else { 0 };
        let held = record.messages.len() + newly_kept;
        if acknowledged > held {
            return Err(format!("{acknowledged} messages were acknowledged and {held} are held"));
        }
        let facts = Facts { replies, record, newly_kept, grown_mb, elapsed };
        facts.hold(&case.check)
    }

    /// The steps, and what can only be seen while the connection is there.
    fn speak(&self, dialogue: &mut Dialogue, case: &Case) -> Result<(), String> {
        if !case.early {
            dialogue.greet()?;
        }
        for (number, step) in case.steps.iter().enumerate() {
            match dialogue.take(step) {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => return Err(format!("step {}: {why}", number + 1)),
            }
        }
        if case.check.closed && !dialogue.closes_within(CLOSED) {
            return Err("the connection stays open at the end".to_owned());
        }
        let may_be_closed = match case.check.usable {
            Some(Usable::OrClosed(OrClosed::OrClosed)) => true,
            Some(Usable::Always(true)) => false,
            None | Some(Usable::Always(false)) => return Ok(()),
        };
        match dialogue.rset() {
            reply if reply.starts_with("250") || may_be_closed && reply == "CLOSED" => Ok(()),
            reply => Err(format!("afterwards RSET is answered {reply:?}")),
        }
    }

    /// Waits until no session is open, so that all that was to reach the next hop has.
    fn settle(&self) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if sessions(self.gateway.web).ok_or("the gateway is gone")? == 0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("its session stays".to_owned())
    }

    fn pass_normal_message(&self) -> Result<(), String> {
        let started = Instant::now();
        let before = self.hop.record().messages.len();
        let reply = Client::connect(self.gateway.inbound)
            .and_then(|mut client| {
                client.send("ann@sender.example", &["alice@example.org"], &message("normal", "text"))
            })
            .map_err(|error| format!("no normal message passes: {error}"))?;
        let elapsed = started.elapsed();
        if !reply.starts_with("250") || self.hop.record().messages.len() != before + 1 {
            return Err(format!("a normal message is answered {reply:?}"));
        }
        if elapsed > NORMAL {
            return Err(format!("a normal message takes {elapsed:?}"));
        }
        eventually("the client's session to end", || (sessions(self.gateway.web)? == 0).then_some(()));
        Ok(())
    }

    /// Returns how many entries the quarantine has gained since the last count.
    fn newly_kept(&mut self) -> usize {
        let kept = self.count_kept();
        kept - std::mem::replace(&mut self.kept, kept)
    }

    fn count_kept(&self) -> usize {
        let config = self.folder.path().join("lazaret.toml");
        let arguments = ["--config", config.to_str().unwrap(), "quarantine", "list", "--all", "--json"];
        let list: serde_json::Value =
            serde_json::from_slice(&run(self.folder.path(), &arguments).stdout).unwrap();
        list["entries"].as_array().unwrap().len()
    }
}

/// What a case is judged by.
struct Facts {
    replies: Vec<String>,
    record: Record,
    newly_kept: usize,
    grown_mb: u64,
    elapsed: Duration,
}

impl Facts {
    fn hold(&self, check: &Check) -> Result<(), String> {
        let between = |what: &str, number: usize, least: usize, most: usize| {
            if (least..=most).contains(&number) {
                Ok(())
            } else {
                Err(format!("{number} {what}, not {least} to {most}"))
            }
        };
        if let Some([least, most]) = check.messages {
            between("messages at the next hop", self.record.messages.len(), least, most)?;
        }
        let commands = &self.record.commands;
        if let Some(pattern) = &check.no_hop
            && let Some(command) = commands.iter().find(|command| is_match(pattern, command))
        {
            return Err(format!("the next hop got {command:?}"));
        }
        if let Some(pattern) = &check.some_hop
            && !commands.iter().any(|command| is_match(pattern, command))
        {
            return Err(format!("the next hop got nothing like {pattern:?}: {commands:?}"));
        }
        self.last_message_holds(check)?;
        if check.nul && self.record.messages.iter().any(|message| message.content.contains('\0')) {
            return Err("a NUL reached the next hop".to_owned());
        }
        if let Some([least, most]) = check.kept {
            between("new entries in quarantine", self.newly_kept, least, most)?;
        }
        for (pattern, least, most) in &check.replies {
            let number = self.replies.iter().filter(|reply| is_match(pattern, reply)).count();
            between(&format!("replies like {pattern:?}"), number, *least, *most)?;
        }
        if let Some(most) = check.rss_mb
            && self.grown_mb > most
        {
            return Err(format!("the process grew by {} MiB, more than {most}", self.grown_mb));
        }
        if let Some(most) = check.max_s
            && self.elapsed.as_secs_f64() > most
        {
            return Err(format!("it took {:?}", self.elapsed));
        }
        let alternatives: Vec<String> = check.any.iter().map_while(|check| self.hold(check).err()).collect();
        if !check.any.is_empty() && alternatives.len() == check.any.len() {
            return Err(alternatives.join("; or "));
        }
        Ok(())
    }
}

/// A `check` may ask about a message that is not there: then it is not as it should be.
impl Facts {
    fn last_message_holds(&self, check: &Check) -> Result<(), String> {
        let nothing = Message::default();
        let last = self.record.messages.last().unwrap_or(&nothing);
        if let Some(pattern) = &check.mail
            && !is_match(pattern, &last.mail)
        {
            return Err(format!("its MAIL was {:?}, not {pattern:?}", last.mail));
        }
        if let Some(patterns) = &check.rcpts
            && (patterns.len() != last.rcpts.len()
                || patterns.iter().zip(&last.rcpts).any(|(pattern, rcpt)| !is_match(pattern, rcpt)))
        {
            return Err(format!("its RCPTs were {:?}, not {patterns:?}", last.rcpts));
        }
        let texts = |texts: &Option<OneOrMany<String>>| -> Vec<String> {
            texts.as_ref().map_or_else(Vec::new, |texts| texts.as_slice().to_vec())
        };
        if let Some(text) = texts(&check.has).iter().find(|text| !last.content.contains(*text)) {
            return Err(format!("the last message does not have {text:?}"));
        }
        if let Some(text) = texts(&check.has_not).iter().find(|text| last.content.contains(*text)) {
            return Err(format!("the last message has {text:?}"));
        }
        let body = last.content.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        if let Some(wanted) = &check.body
            && body != wanted
        {
            return Err(format!("the body of the last message is {body:?}, not {wanted:?}"));
        }
        if let Some(end) = &check.body_end
            && !last.content.ends_with(end)
        {
            return Err(format!("the last message does not end with {end:?}"));
        }
        Ok(())
    }
}

/// Whether a pattern is found. `PATTERN(?!REST)` is read as: the first, and not the two in sequence.
fn is_match(pattern: &str, text: &str) -> bool {
    let found = |pattern: &str| Regex::new(pattern).unwrap().is_match(text);
    match pattern.split_once("(?!").and_then(|(first, rest)| Some((first, rest.strip_suffix(')')?))) {
        Some((first, rest)) => found(first) && !found(&format!("{first}(?:{rest})")),
        None => found(pattern),
    }
}

/// Returns the words that the reply to EHLO offers.
fn offered(address: SocketAddr) -> BTreeSet<String> {
    let mut client = Client::connect(address).unwrap();
    let reply = client.command("EHLO client.example").unwrap();
    reply.lines().skip(1).flat_map(|line| line[4..].split(' ')).map(str::to_ascii_uppercase).collect()
}

/// Sets up TLS on both listeners and an account on the outbound one; returns the keys for it.
fn secure(folder: &Path) -> String {
    let reference = printed(&run(folder, &["config", "reference"]));
    let has_key = |key: &str| reference.lines().any(|line| line.starts_with(&format!("{key} =")));
    if !has_key("certificates") {
        return String::new();
    }
    let [chain, key] = [line::CHAIN, line::KEY].map(|name| folder.join(name));
    let mut keys = format!(
        "tls.certificates = [{{ chain = \"{}\", key = \"{}\" }}]\ninbound.tls = \"offered\"\noutbound.tls = \"offered\"\n",
        chain.display(),
        key.display()
    );
    if has_key("auth") {
        let config = folder.join("accounts.toml");
        let password = folder.join("password");
        std::fs::write(&config, format!("data_dir = \"{}\"\n", folder.join("data").display())).unwrap();
        std::fs::write(&password, "a-long-secret\n").unwrap();
        let [config, password] = [&config, &password].map(|path| path.to_str().unwrap());
        let arguments = ["--config", config, "accounts", "add", "kit", "--sender", "kit@example.org"];
        let output = run(folder, &[&arguments[..], &["--password-file", password]].concat());
        assert!(output.status.success(), "{}", printed(&output));
        keys.push_str("outbound.auth = \"accounts\"\n");
    }
    keys
}

#[test]
fn a_pattern_may_say_what_must_not_follow() {
    assert!(is_match("^250(?![^$]*STARTTLS)", "250-a\r\n250 SIZE"));
    assert!(!is_match("^250(?![^$]*STARTTLS)", "250-a\r\n250 STARTTLS"));
}
