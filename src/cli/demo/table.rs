//! What happened to each class of mail, for a person.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::learn::Label;
use crate::mail::Direction;

use super::sample::Sample;

/// Where a message was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// In the Maildir.
    Delivered,
    /// In the Maildir, marked as spam.
    Marked,
    /// In the quarantine.
    Kept,
    /// With its sender: it was refused.
    Refused,
    /// Nowhere.
    Unknown,
}

/// One message that was sent.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What was sent.
    pub(super) sample: Sample,
    /// The id under which it was accepted, or the code of the refusal; 0 where there was no reply.
    pub(super) answer: Result<String, u16>,
    /// From MAIL to the reply.
    pub(super) latency: Duration,
    /// Where it was found.
    pub(super) fate: Fate,
}

#[derive(Debug, Default, Clone, Copy)]
struct Row {
    sent: usize,
    delivered: usize,
    marked: usize,
    kept: usize,
    refused: usize,
    unknown: usize,
}

impl Row {
    fn count(&mut self, fate: Fate) {
        self.sent += 1;
        *match fate {
            Fate::Delivered => &mut self.delivered,
            Fate::Marked => &mut self.marked,
            Fate::Kept => &mut self.kept,
            Fate::Refused => &mut self.refused,
            Fate::Unknown => &mut self.unknown,
        } += 1;
    }
}

/// Prints the table and what it comes to. Returns whether every message is accounted for.
pub(super) fn print(outcomes: &[Outcome], elapsed: Duration) -> bool {
    let mut rows: BTreeMap<(Direction, bool, &str), Row> = BTreeMap::new();
    for outcome in outcomes {
        let sample = &outcome.sample;
        let key = (sample.direction, sample.label == Label::Spam, sample.class.as_str());
        rows.entry(key).or_default().count(outcome.fate);
    }
    let rule = "─".repeat(74);
    println!();
    println!(
        "{:<10} {:<8} {:<16} {:>5} {:>10} {:>7} {:>6} {:>8}",
        "direction", "really", "class", "sent", "delivered", "marked", "kept", "refused"
    );
    println!("{rule}");
    let mut last = None;
    for ((direction, is_spam, class), row) in &rows {
        if last.is_some_and(|last| last != (*direction, *is_spam)) {
            println!();
        }
        last = Some((*direction, *is_spam));
        println!(
            "{:<10} {:<8} {:<16} {:>5} {:>10} {:>7} {:>6} {:>8}",
            direction.as_str(),
            if *is_spam { "unwanted" } else { "wanted" },
            class,
            row.sent,
            dot(row.delivered),
            dot(row.marked),
            dot(row.kept),
            dot(row.refused)
        );
    }
    println!("{rule}");
    summary(outcomes, elapsed)
}

fn summary(outcomes: &[Outcome], elapsed: Duration) -> bool {
    let count = |label: Label, fates: &[Fate]| {
        outcomes.iter().filter(|o| o.sample.label == label && fates.contains(&o.fate)).count()
    };
    let all = |label: Label| outcomes.iter().filter(|o| o.sample.label == label).count();
    println!(
        "wanted mail that arrived:     {:>4} of {:<4} unmarked {}",
        count(Label::Ham, &[Fate::Delivered, Fate::Marked]),
        all(Label::Ham),
        count(Label::Ham, &[Fate::Delivered])
    );
    println!(
        "unwanted mail caught:         {:>4} of {:<4} marked {}, kept {}, refused {}",
        count(Label::Spam, &[Fate::Marked, Fate::Kept, Fate::Refused]),
        all(Label::Spam),
        count(Label::Spam, &[Fate::Marked]),
        count(Label::Spam, &[Fate::Kept]),
        count(Label::Spam, &[Fate::Refused])
    );
    let mut latencies: Vec<Duration> = outcomes.iter().map(|outcome| outcome.latency).collect();
    latencies.sort();
    println!(
        "time of a whole transaction:  median {:.1} ms, 99th percentile {:.1} ms, fsync included; {:.0} messages/s",
        percentile(&latencies, 50).as_secs_f64() * 1e3,
        percentile(&latencies, 99).as_secs_f64() * 1e3,
        outcomes.len() as f64 / elapsed.as_secs_f64()
    );
    let unknown: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.fate == Fate::Unknown).collect();
    if unknown.is_empty() {
        println!("custody:                      every message is accounted for");
    } else {
        println!("custody:                      {} messages are NOT accounted for:", unknown.len());
        for outcome in &unknown {
            println!("  {} {:?}", outcome.sample.class, outcome.answer);
        }
    }
    unknown.is_empty()
}

fn dot(count: usize) -> String {
    if count == 0 { "·".to_owned() } else { count.to_string() }
}

/// Returns the value that the given share of a sorted list does not exceed (nearest rank).
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
