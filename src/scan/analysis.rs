//! One message, all analysers, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use time::OffsetDateTime;

use super::{Apart, Judged, Met, Scanned, Shared};
use crate::learn::{self, Features, Opinion};
use crate::mail::Envelope;
use crate::message::{self, Message};
use crate::metrics::Counter;
use crate::rules::{Authentication, Evaluation, Evidence, RuleSet, Subject};
use crate::verdict::{Degraded, Finding, Scan};

/// What the learned models say of a message.
#[derive(Default)]
struct Learned {
    /// To all.
    opinion: Option<Opinion>,
    /// To each recipient who has layers, by their place in the envelope.
    apart: Vec<(usize, Opinion)>,
    features: Features,
    /// Lessons that people gave to the shared model.
    given: u32,
}

impl Shared {
    /// Runs all analysers. `now` is there where the message is on its way: then it is counted among others like it.
    pub(super) fn analyse(
        &self,
        body: &[u8],
        envelope: &Envelope,
        met: Met,
        layers: &[Apart],
        now: Option<OffsetDateTime>,
    ) -> Scanned {
        let mut scan = Scan::default();
        let message = guarded(&mut scan, "message", || message::parse(body)).unwrap_or_else(|| {
            // A message that breaks the parser is still looked at, as raw text.
            Message { text: raw_text(body), ..Message::default() }
        });
        let learned = guarded(&mut scan, "learned", || self.hear(&message, envelope, met, layers));
        let rules = self.rules.load();
        let set = rules.of(envelope.direction);
        let authentication = guarded(&mut scan, "authentication", || {
            Authentication::read(&message, &rules.organisation.authserv_ids)
        });
        let opinion = learned.as_ref().and_then(|learned| learned.opinion.as_ref());
        let evidence = Evidence {
            bayes: opinion.map(|opinion| opinion.bayes),
            authentication: authentication.flatten(),
        };
        let evaluation = guarded(&mut scan, "rules", || {
            set.evaluate(&Subject {
                message: &message,
                raw: body,
                envelope,
                evidence: &evidence,
                organisation: &rules.organisation,
            })
        });
        // What was learned is weighed once: by the rules that ask for it, or else by the filter itself.
        scan.findings.extend(opinion.filter(|_| !set.weighs_learned()).map(Opinion::finding));
        let mut own =
            learned.as_ref().map(|learned| learned.differences(set, evaluation.as_ref())).unwrap_or_default();
        let judged = learned.map(|learned| learned.judged(evaluation.as_ref()));
        if let Some(evaluation) = evaluation {
            if !evaluation.exceeded.is_empty() {
                tracing::warn!(rules = evaluation.exceeded.join(" "), "rules took too long and were stopped");
                scan.degraded.push(Degraded { analyser: "rules", reason: "time" });
            }
            scan.findings.extend(evaluation.findings);
        }
        let remembered = guarded(&mut scan, "reputation", || {
            self.remembered(&message, envelope, evidence.authentication.as_ref(), now)
        });
        let (found, of_recipients) = remembered.unwrap_or_default();
        scan.findings.extend(found);
        own.extend(of_recipients);
        scan.findings.sort_by(|a, b| b.score.points().abs().total_cmp(&a.score.points().abs()));
        Scanned { scan, message: Arc::new(message), judged, own }
    }

    /// Asks the learned models, once for all and once for each who has layers.
    fn hear(&self, message: &Message, envelope: &Envelope, met: Met, layers: &[Apart]) -> Learned {
        let client = (met == Met::InSession).then_some(&envelope.client);
        let extracted = self.learned.extract(message, client);
        let model = self.learned.model();
        let heard = model.hear(&extracted.features);
        let opinion = model.judge_heard(&extracted, &heard);
        let apart = layers.iter().filter_map(|Apart { place, layers }| {
            Some((*place, model.judge_for(&extracted, &heard, layers)?))
        });
        let apart = apart.collect();
        let (ham, spam) = model.lessons();
        Learned { opinion, apart, features: extracted.features, given: ham.saturating_add(spam) }
    }
}

impl Learned {
    /// Returns what layers change for their recipients, against the points that were counted for what all learned.
    fn differences(&self, set: &RuleSet, evaluation: Option<&Evaluation<'_>>) -> Vec<(usize, Finding)> {
        let (counted, most) = if set.weighs_learned() {
            // Rules give about as much for it as makes spam.
            (evaluation.map_or(0.0, |evaluation| evaluation.learned_points), learn::SPAM_POINTS)
        } else {
            (self.opinion.as_ref().map_or(0.0, Opinion::points), learn::MAX_POINTS)
        };
        let difference =
            |(place, own): &(usize, Opinion)| Some((*place, learn::difference(counted, own, most)?));
        self.apart.iter().filter_map(difference).collect()
    }

    /// Returns what is kept of it for lessons that follow.
    fn judged(self, evaluation: Option<&Evaluation<'_>>) -> Judged {
        let score = self.opinion.as_ref().map_or(0.0, |opinion| opinion.score);
        let whole = evaluation.filter(|evaluation| evaluation.exceeded.is_empty());
        let sure = self.opinion.as_ref().zip(whole).and_then(|(opinion, evaluation)| {
            let points: f64 = evaluation.findings.iter().map(|finding| finding.score.points()).sum();
            // The filter does not agree with itself.
            learn::sure_label(opinion, points - evaluation.learned_points, self.given)
        });
        Judged { score, features: Arc::new(self.features), sure }
    }
}

/// Runs one analyser; a panic becomes a [`Degraded`].
fn guarded<T>(scan: &mut Scan, analyser: &'static str, work: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(work)).ok();
    if result.is_none() {
        Counter::Panics.increment(&[("where", analyser)]);
        tracing::error!(analyser, "an analyser panicked");
        scan.degraded.push(Degraded { analyser, reason: "panic" });
    }
    result
}

fn raw_text(body: &[u8]) -> String {
    const LONGEST: usize = 1 << 20;
    String::from_utf8_lossy(body.get(..body.len().min(LONGEST)).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_one_analyser_leaves_the_others_findings() {
        let mut scan = Scan::default();
        assert_eq!(guarded(&mut scan, "rules", || -> u8 { std::panic::panic_any(()) }), None);
        assert_eq!(guarded(&mut scan, "learned", || 7), Some(7));
        assert_eq!(scan.degraded, [Degraded { analyser: "rules", reason: "panic" }]);
    }
}
