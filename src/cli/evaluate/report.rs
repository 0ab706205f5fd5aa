//! What an evaluation prints: one list, several orders or starts, or other filters beside ours.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;

use super::peer::Peer;
use super::{Evaluation, Filter, Judged, Sample};
use crate::learn::{Measures, Model, State, View, calibration_error, measure};

/// How many messages from a start are looked at, and where they are measured.
const FROM_START: [usize; 3] = [50, 200, 1_000];

impl Evaluation<'_> {
    fn measured(&self, judged: &[(usize, Judged)]) -> anyhow::Result<Measures> {
        measure(&self.scored(judged)).context("the lists have no ham, or no spam")
    }

    /// Runs other filters over the same list and prints all in one table.
    pub(super) fn report_compared(
        &mut self,
        ours: &[(usize, Judged)],
        all: &[usize],
    ) -> anyhow::Result<ExitCode> {
        let a_second = |evaluation: &Self| {
            let rate = |count: f64, took: Duration| count / took.as_secs_f64().max(1e-9);
            [
                rate(all.len() as f64, evaluation.classifying),
                rate(f64::from(evaluation.lessons), evaluation.learning),
            ]
        };
        let mut rows = vec![("Lazaret".to_owned(), self.measured(ours)?, a_second(self))];
        for name in &self.arguments.compare {
            (self.classifying, self.learning, self.lessons) = (Duration::ZERO, Duration::ZERO, 0);
            let judged = self.in_order(Filter::Other(Peer::start(*name)?), all)?;
            let name = name.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            rows.push((name, self.measured(&judged)?, a_second(self)));
        }
        println!(
            "{:<14} {:>9} {:>8} {:>11} {:>13} {:>12} {:>12} {:>11}",
            "",
            "1-ROCA %",
            "lam %",
            "ham lost %",
            "spam missed %",
            "at 0.1 % ham",
            "classified/s",
            "learned/s"
        );
        for (name, measures, [classified, learned]) in rows {
            println!(
                "{name:<14} {:>9.4} {:>8.3} {:>11.3} {:>13.3} {:>12.3} {classified:>12.0} {learned:>11.0}",
                measures.roca_error,
                measures.lam,
                measures.ham_lost,
                measures.spam_missed,
                measures.missed_at_tenth
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn report(&self, judged: &[(usize, Judged)]) -> anyhow::Result<ExitCode> {
        let measures = self.measured(judged)?;
        let spam = self.samples.iter().filter(|sample| sample.is_spam).count();
        let unsure = judged.iter().filter(|(_, found)| found.state == State::Unsure).count();
        let probabilities: Vec<(f64, bool)> = judged
            .iter()
            .filter_map(|(place, found)| Some((found.probability, self.samples.get(*place)?.is_spam)))
            .collect();
        let a_second = |count: f64, took: Duration| count / took.as_secs_f64().max(1e-9);
        let of = |sample: &Sample| {
            View::ALL.map(|view| sample.extracted.features.view(view).len()).iter().sum::<usize>()
        };
        let features = self.samples.iter().map(of).sum::<usize>() as f64;
        let rows = [
            ("messages", judged.len() as f64),
            ("spam", spam as f64),
            ("lessons", f64::from(self.lessons)),
            ("1-ROCA %", measures.roca_error),
            ("lam %", measures.lam),
            ("ham lost %", measures.ham_lost),
            ("spam missed %", measures.spam_missed),
            ("spam missed % at 0.1 % ham lost", measures.missed_at_tenth),
            ("spam missed % at 0.01 % ham lost", measures.missed_at_hundredth),
            ("calibration error %", calibration_error(&probabilities)),
            ("unsure %", 100.0 * unsure as f64 / judged.len().max(1) as f64),
            ("features a message", features / self.samples.len().max(1) as f64),
            ("memory of the model, MiB", Model::new().memory_bytes() as f64 / f64::from(1 << 20)),
            ("classified a second", a_second(judged.len() as f64, self.classifying)),
            ("learned a second", a_second(f64::from(self.lessons), self.learning)),
        ];
        if self.arguments.json {
            let object: serde_json::Map<String, serde_json::Value> =
                rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            println!("{:#}", serde_json::Value::Object(object));
        } else {
            for (name, value) in rows {
                println!("{name:<34} {value:>12.4}");
            }
        }
        if let Some(path) = &self.arguments.scores {
            let line = |(place, found): &(usize, Judged)| {
                let sample = self.samples.get(*place)?;
                let label = if sample.is_spam { "spam" } else { "ham" };
                Some(format!("{label} {:.6} {}\n", found.score, sample.path.display()))
            };
            let text: String = judged.iter().filter_map(line).collect();
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Measures several random orders.
    pub(super) fn report_orders(&mut self, all: &[usize], orders: usize) -> anyhow::Result<ExitCode> {
        let mut found: Vec<Measures> = Vec::new();
        for number in 0..orders {
            let mut order = all.to_vec();
            order.sort_by_cached_key(|place| self.draw(*place, &format!("order {number}")));
            let judged = self.in_order(Filter::ours(), &order)?;
            found.push(self.measured(&judged)?);
        }
        type Measure = fn(&Measures) -> f64;
        let of: [(&str, Measure); 5] = [
            ("1-ROCA %", |found| found.roca_error),
            ("lam %", |found| found.lam),
            ("ham lost %", |found| found.ham_lost),
            ("spam missed %", |found| found.spam_missed),
            ("spam missed % at 0.1 % ham lost", |found| found.missed_at_tenth),
        ];
        println!("{:<34} {:>12} {:>12} {:>12}", format!("{orders} orders"), "mean", "least", "most");
        for (name, value) in of {
            let values: Vec<f64> = found.iter().map(value).collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            let (least, most) =
                values.iter().fold((mean, mean), |(least, most), value| (value.min(least), value.max(most)));
            println!("{name:<34} {mean:>12.4} {least:>12.4} {most:>12.4}");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Measures the first messages from several places of the list on, each from an empty model.
    pub(super) fn report_starts(&mut self, starts: usize) -> anyhow::Result<ExitCode> {
        let count = FROM_START.into_iter().max().unwrap_or_default().min(self.samples.len());
        let mut sums = FROM_START.map(|messages| (messages, 0.0, 0_u32));
        for start in 0..starts {
            let all = self.samples.len();
            let first = start * all / starts.max(1);
            let order: Vec<usize> = (first..first + count).map(|place| place % all.max(1)).collect();
            let judged = self.in_order(Filter::ours(), &order)?;
            for (messages, sum, measured) in &mut sums {
                // A start without ham or without spam says nothing.
                let first = judged.get(..*messages).map(|first| self.measured(first));
                if let Some(Ok(measures)) = first {
                    *sum += measures.roca_error;
                    *measured += 1;
                }
            }
        }
        for (messages, sum, measured) in sums.into_iter().filter(|(.., measured)| *measured > 0) {
            let name = format!("1-ROCA % of the first {messages}, {measured} starts");
            println!("{name:<44} {:>10.4}", sum / f64::from(measured));
        }
        Ok(ExitCode::SUCCESS)
    }
}
