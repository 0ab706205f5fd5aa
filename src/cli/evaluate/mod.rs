//! `lazaret evaluate INDEX`: how good filter and rules are over labelled mail, in the order of the list, from an
//! empty model.
//!
//! INDEX has lines `ham|spam PATH`. Each message is judged by what was learned before it, then learned as the kind
//! of feedback says. What would tell the answer is left out, see `labelled`.

mod peer;
mod plot;
mod report;

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::labelled;
use crate::app;
use crate::config::Config;
use crate::learn::{
    self, Automatic, Extracted, FeatureKey, Label, Lesson, MessageKey, Model, Scored, State, Unspoken,
    UnspokenRings, Weight,
};
use crate::mail::{Client, Direction, Envelope, Mail, TransactionId};
use crate::message;
use crate::rules::{RuleSet, Subject};
use peer::{Name, Peer};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Lists of labelled messages.
    #[arg(required = true)]
    index: Vec<PathBuf>,
    /// When and of what people speak: `immediate`, `delayed:MESSAGES`, `partial:PERCENT` (that share of messages),
    /// `mistakes:MISSED,LOST` (that share of missed spam and of lost ham, in per cent).
    #[arg(long, default_value = "immediate", value_name = "KIND")]
    feedback: Feedback,
    /// Share of lessons that say the opposite, in per cent.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    wrong: f64,
    /// Begin at so many places of the list with an empty model, and measure the first messages of each.
    #[arg(long, value_name = "N", conflicts_with_all = ["split", "scores", "json"])]
    starts: Option<usize>,
    /// Do so with the list in N random orders in place of its own, and give the means.
    #[arg(long, value_name = "N", conflicts_with_all = ["starts", "split", "scores", "json"])]
    orders: Option<usize>,
    /// Judge each of K parts by what the others taught, in place of the order of the list.
    #[arg(long, value_name = "K")]
    split: Option<usize>,
    /// Whether rules, the built-in and the configured ones for inbound mail, speak too, or alone.
    #[arg(long, value_enum, default_value_t = Rules::Off)]
    rules: Rules,
    /// Also learn by itself, as `learn.automatic` does, of messages of which nobody speaks. An hour has passed after 100.
    #[arg(long, requires = "rules")]
    automatic: bool,
    /// Run these filters over the same list in the same way, and put them beside. They must be installed.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with_all = ["starts", "orders", "split", "json", "scores"])]
    compare: Vec<Name>,
    /// Chooses who speaks and who errs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write a line `LABEL SCORE PATH` for each message.
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Draw the curves of what is lost and missed and of learning, as `roc.svg` and `learning.svg` in this folder.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["starts", "orders"])]
    plots: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rules {
    On,
    Off,
    Only,
}

/// When a lesson follows a message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Feedback {
    Immediate,
    Delayed(usize),
    Partial(f64),
    Mistakes { missed: f64, lost: f64 },
}

impl FromStr for Feedback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = |text: &str| match text.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
            _ => Err(format!("`{text}` is no share in per cent")),
        };
        match text.split_once(':') {
            None if text == "immediate" => Ok(Feedback::Immediate),
            Some(("delayed", messages)) => {
                messages.parse().map(Feedback::Delayed).map_err(|_| format!("`{messages}` is no number"))
            }
            Some(("partial", percent)) => Ok(Feedback::Partial(share(percent)?)),
            Some(("mistakes", shares)) => {
                let (missed, lost) = shares.split_once(',').unwrap_or((shares, shares));
                Ok(Feedback::Mistakes { missed: share(missed)?, lost: share(lost)? })
            }
            _ => Err("it is `immediate`, `delayed:N`, `partial:P` or `mistakes:P,Q`".to_owned()),
        }
    }
}

/// A message, prepared once.
struct Sample {
    is_spam: bool,
    path: PathBuf,
    extracted: Extracted,
    /// Its name in the log of lessons.
    key: MessageKey,
    /// The points of the rules.
    points: f64,
}

/// A message, judged.
#[derive(Debug, Clone, Copy)]
struct Judged {
    score: f64,
    probability: f64,
    state: State,
    is_kept: bool,
    /// What all agree that it is.
    sure: Option<Label>,
}

/// What judges and learns.
enum Filter {
    Ours(Box<Model>, UnspokenRings),
    Other(Peer),
}

impl Filter {
    fn ours() -> Self {
        Filter::Ours(Box::default(), UnspokenRings::default())
    }
}

struct Evaluation<'a> {
    arguments: &'a Arguments,
    samples: Vec<Sample>,
    /// From so many points on a message is kept, where rules speak.
    threshold: f64,
    classifying: Duration,
    learning: Duration,
    lessons: u32,
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let quarantine = config.way(Direction::Inbound).policy()?.thresholds.quarantine().points();
    let (samples, preparing) = samples(arguments, config)?;
    let mut evaluation = Evaluation {
        arguments,
        samples,
        threshold: quarantine,
        classifying: preparing,
        learning: Duration::ZERO,
        lessons: 0,
    };
    let all: Vec<usize> = (0..evaluation.samples.len()).collect();
    if let Some(starts) = arguments.starts {
        return evaluation.report_starts(starts);
    }
    if let Some(orders) = arguments.orders {
        return evaluation.report_orders(&all, orders);
    }
    let judged = match arguments.split {
        Some(parts) => evaluation.split(parts)?,
        None => evaluation.in_order(Filter::ours(), &all)?,
    };
    if let Some(folder) = &arguments.plots {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        plot::draw(folder, &evaluation.scored(&judged))?;
    }
    if !arguments.compare.is_empty() {
        return evaluation.report_compared(&judged, &all);
    }
    evaluation.report(&judged)
}

/// Reads, parses and scans the messages; also returns how long all but the reading took.
fn samples(arguments: &Arguments, config: &Config) -> anyhow::Result<(Vec<Sample>, Duration)> {
    let entries = labelled::entries(&arguments.index)?;
    let bar = ProgressBar::new(entries.len() as u64)
        .with_style(ProgressStyle::with_template("reading [{bar:40}] {pos}/{len}  {eta}")?);
    let (rules, _) = RuleSet::compile(&app::configured_sources(config, Direction::Inbound)?);
    let envelope = Envelope {
        id: TransactionId::from_random([0; TransactionId::LEN]),
        direction: Direction::Inbound,
        client: Client::new(([127, 0, 0, 1], 0).into()),
        mail: Mail::default(),
        recipients: Vec::new(),
    };
    let key = FeatureKey::from_bytes([0; 32]);
    let (mut samples, mut took) = (Vec::with_capacity(entries.len()), Duration::ZERO);
    for entry in entries {
        let raw = labelled::read(&entry.path)?;
        let began = Instant::now();
        let message = message::parse(&raw);
        let extracted = learn::extract(&message, None, &key);
        let message_key = MessageKey::of(&message, &key);
        let points = match arguments.rules {
            Rules::Off => 0.0,
            Rules::On | Rules::Only => {
                let findings = rules.evaluate(&Subject::new(&message, &raw, &envelope)).findings;
                findings.iter().map(|finding| finding.score.points()).sum()
            }
        };
        took += began.elapsed();
        samples.push(Sample {
            is_spam: entry.label == Label::Spam,
            path: entry.path,
            extracted,
            key: message_key,
            points,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((samples, took))
}

impl Evaluation<'_> {
    fn judge(&mut self, filter: &Filter, place: usize) -> anyhow::Result<Judged> {
        let sample = self.samples.get(place).context("there is no such message")?;
        let model = match filter {
            Filter::Ours(model, _) => model,
            Filter::Other(peer) => {
                let raw = labelled::read(&sample.path)?;
                let began = Instant::now();
                let said = peer.judge(&raw)?;
                self.classifying += began.elapsed();
                let state = if said.is_spam { State::Spam } else { State::Unsure };
                return Ok(Judged {
                    score: said.score,
                    probability: 0.5,
                    state,
                    is_kept: said.is_spam,
                    sure: None,
                });
            }
        };
        let began = Instant::now();
        let opinion = model.judge(&sample.extracted);
        self.classifying += began.elapsed();
        let (odds, points) = opinion.as_ref().map_or((0.0, 0.0), |opinion| (opinion.score, opinion.points()));
        let score = match self.arguments.rules {
            Rules::Off => odds,
            Rules::On => sample.points + points,
            Rules::Only => sample.points,
        };
        let probability = opinion.as_ref().map_or(0.5, |opinion| opinion.probability);
        let (ham, spam) = model.lessons();
        let sure = opinion
            .as_ref()
            .and_then(|said| learn::sure_label(said, sample.points, ham.saturating_add(spam)));
        let state = opinion.map_or(State::Unsure, |opinion| opinion.state);
        let is_kept = match self.arguments.rules {
            Rules::Off => state == State::Spam,
            Rules::On | Rules::Only => score >= self.threshold,
        };
        Ok(Judged { score, probability, state, is_kept, sure })
    }

    /// Judges and learns messages in an order.
    fn in_order(&mut self, mut filter: Filter, order: &[usize]) -> anyhow::Result<Vec<(usize, Judged)>> {
        let mut waiting: VecDeque<usize> = VecDeque::new();
        let mut automatic = Automatic::default();
        let mut judged = Vec::with_capacity(order.len());
        let bar = ProgressBar::new(order.len() as u64)
            .with_style(ProgressStyle::with_template("judging [{bar:40}] {pos}/{len}  {eta}")?);
        for place in order.iter().copied() {
            bar.inc(1);
            if let Feedback::Delayed(messages) = self.arguments.feedback
                && waiting.len() < messages
            {
                // Nothing is known yet by which it could be judged.
                waiting.push_back(place);
                continue;
            }
            let found = self.judge(&filter, place)?;
            judged.push((place, found));
            match self.arguments.feedback {
                Feedback::Immediate => self.learn(&mut filter, place)?,
                Feedback::Delayed(_) => {
                    waiting.push_back(place);
                    if let Some(place) = waiting.pop_front() {
                        self.learn(&mut filter, place)?;
                    }
                }
                Feedback::Partial(share) if self.chance(place, "spoken of") < share => {
                    self.learn(&mut filter, place)?;
                }
                Feedback::Partial(_) if self.arguments.automatic => {
                    self.learn_by_itself(&mut filter, place, found, &mut automatic);
                }
                Feedback::Partial(_) => {}
                Feedback::Mistakes { missed, lost } => {
                    self.hear_of_mistakes(&mut filter, place, found, [missed, lost])?;
                }
            }
        }
        bar.finish_and_clear();
        Ok(judged)
    }

    /// Learns what all agree on.
    fn learn_by_itself(&self, filter: &mut Filter, place: usize, found: Judged, automatic: &mut Automatic) {
        const MESSAGES_AN_HOUR: usize = 100;
        let hour = i64::try_from(place / MESSAGES_AN_HOUR).unwrap_or_default();
        if let (Filter::Ours(model, _), Some(sample), Some(label)) =
            (filter, self.samples.get(place), found.sure)
            && automatic.take(label, hour)
        {
            let features = sample.extracted.features.clone();
            model.learn(&Lesson { label, features, weight: Weight::Half, teacher: 0, hour: 0 });
        }
    }

    /// Learns a message if it was a mistake that somebody reports, and what follows from that for others.
    fn hear_of_mistakes(
        &mut self,
        filter: &mut Filter,
        place: usize,
        found: Judged,
        [missed, lost]: [f64; 2],
    ) -> anyhow::Result<()> {
        let Some(sample) = self.samples.get(place) else { return Ok(()) };
        let share = if sample.is_spam { missed } else { lost };
        let is_reported = sample.is_spam != found.is_kept && self.chance(place, "spoken of") < share;
        if let Filter::Ours(model, unspoken) = filter {
            if is_reported {
                let reported = if sample.is_spam { Label::Spam } else { Label::Ham };
                let mut draws = 0;
                let draw = |most: usize| {
                    draws += 1;
                    let drawn = self.draw(place, &format!("implied {draws}")) % most.max(1) as u64;
                    usize::try_from(drawn).unwrap_or_default()
                };
                let (label, implied) = unspoken.implied(reported, 0, draw);
                for Unspoken { features, .. } in implied {
                    let features = Arc::unwrap_or_clone(features);
                    model.learn(&Lesson { label, features, weight: Weight::Half, teacher: 0, hour: 0 });
                }
            } else {
                let features = Arc::new(sample.extracted.features.clone());
                unspoken.push(
                    Unspoken { message: sample.key, score: found.score, features, at: 0 },
                    found.is_kept,
                );
            }
        }
        if is_reported { self.learn(filter, place) } else { Ok(()) }
    }

    /// Judges each part by what the others taught.
    fn split(&mut self, parts: usize) -> anyhow::Result<Vec<(usize, Judged)>> {
        if parts < 2 {
            bail!("there are at least two parts");
        }
        let part: Vec<u64> =
            (0..self.samples.len()).map(|place| self.draw(place, "part") % parts as u64).collect();
        let mut judged = Vec::with_capacity(part.len());
        for held in 0..parts as u64 {
            let mut filter = Filter::ours();
            let places = |is_held: bool| {
                part.iter()
                    .enumerate()
                    .filter(move |(_, part)| (**part == held) == is_held)
                    .map(|(place, _)| place)
            };
            for place in places(false) {
                self.learn(&mut filter, place)?;
            }
            for place in places(true) {
                judged.push((place, self.judge(&filter, place)?));
            }
        }
        judged.sort_by_key(|(place, _)| *place);
        Ok(judged)
    }

    fn learn(&mut self, filter: &mut Filter, place: usize) -> anyhow::Result<()> {
        let is_wrong = self.chance(place, "wrong") < self.arguments.wrong / 100.0;
        let Some(sample) = self.samples.get(place) else { return Ok(()) };
        let label = if sample.is_spam != is_wrong { Label::Spam } else { Label::Ham };
        let mut began = Instant::now();
        match filter {
            Filter::Ours(model, _) => {
                let features = sample.extracted.features.clone();
                model.learn(&Lesson { label, features, weight: Weight::Whole, teacher: 0, hour: 0 });
            }
            Filter::Other(peer) => {
                let raw = labelled::read(&sample.path)?;
                began = Instant::now();
                peer.learn(&raw, label)?;
            }
        }
        self.learning += began.elapsed();
        self.lessons += 1;
        Ok(())
    }

    /// Returns a number that depends on the seed, the message and the question alone.
    fn draw(&self, place: usize, question: &str) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        (self.arguments.seed, place, question).hash(&mut hasher);
        hasher.finish()
    }

    /// Returns the same as a number from 0 to 1.
    fn chance(&self, place: usize, question: &str) -> f64 {
        self.draw(place, question) as f64 / u64::MAX as f64
    }

    fn scored(&self, judged: &[(usize, Judged)]) -> Vec<Scored> {
        let of = |(place, found): &(usize, Judged)| {
            let is_spam = self.samples.get(*place)?.is_spam;
            Some(Scored { score: found.score, is_spam, is_kept: found.is_kept })
        };
        judged.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_is_read() {
        for (text, expected) in [
            ("immediate", Ok(Feedback::Immediate)),
            ("delayed:1000", Ok(Feedback::Delayed(1_000))),
            ("partial:5", Ok(Feedback::Partial(0.05))),
            ("mistakes:50,10", Ok(Feedback::Mistakes { missed: 0.5, lost: 0.1 })),
            ("mistakes:50", Ok(Feedback::Mistakes { missed: 0.5, lost: 0.5 })),
            ("partial:101", Err("`101` is no share in per cent".to_owned())),
            ("delayed:x", Err("`x` is no number".to_owned())),
        ] {
            assert_eq!(text.parse::<Feedback>(), expected, "{text}");
        }
        assert!("sometimes".parse::<Feedback>().is_err());
    }
}
