//! From findings to a disposition: the only thresholds in the program.
//!
//! [`decide`] is a pure function of the scan, the policy and the recipient. It refuses to guess: an
//! analyser that failed has a rule of its own here, and it can only make the outcome more careful.

use thiserror::Error;

use crate::mail::Address;
use crate::verdict::{Disposition, Scan, Score};

/// The scores at which a message is marked, kept, refused. Ordered: tag <= quarantine <= reject.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    tag: Score,
    quarantine: Score,
    reject: Score,
}

/// Thresholds out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the thresholds must rise: tag, quarantine, reject")]
pub struct Unordered;

impl Thresholds {
    /// Takes three thresholds in points.
    ///
    /// # Errors
    /// [`Unordered`] unless `tag <= quarantine <= reject`.
    pub fn new(tag: f64, quarantine: f64, reject: f64) -> Result<Self, Unordered> {
        if tag <= quarantine && quarantine <= reject {
            Ok(Thresholds {
                tag: Score::new(tag),
                quarantine: Score::new(quarantine),
                reject: Score::new(reject),
            })
        } else {
            Err(Unordered)
        }
    }

    /// Returns the score from which on a message is marked.
    pub fn tag(&self) -> Score {
        self.tag
    }

    /// Returns the score from which on it is kept.
    pub fn quarantine(&self) -> Score {
        self.quarantine
    }

    /// Returns the score from which on it is refused.
    pub fn reject(&self) -> Score {
        self.reject
    }
}

/// What happens to a message that would pass although an analyser did not do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDegraded {
    /// The findings that there are decide.
    Ignore,
    /// It is kept for a person.
    Quarantine,
    /// The client is asked to try again later.
    Defer,
}

/// A recipient whose mail is never kept or refused, only marked: a written exemption.
///
/// RFC 2142 and RFC 5321, section 4.5.1, ask for such mailboxes: reports of spam look like spam.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exemption {
    /// One mailbox, compared without regard to case.
    Mailbox(Address),
    /// A local part at every domain, such as `postmaster`.
    LocalPart(String),
}

impl Exemption {
    /// Whether it covers a recipient.
    pub fn covers(&self, recipient: &Address) -> bool {
        match self {
            Exemption::Mailbox(address) => address.to_normalized() == recipient.to_normalized(),
            Exemption::LocalPart(local) => local.eq_ignore_ascii_case(recipient.local()),
        }
    }
}

/// The policy of one direction.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The thresholds.
    pub thresholds: Thresholds,
    /// The rule for a scan that is not complete.
    pub on_degraded: OnDegraded,
    /// Recipients whose mail always passes.
    pub exemptions: Vec<Exemption>,
}

/// Decides what happens to a message for one recipient.
pub fn decide(scan: &Scan, policy: &Policy, recipient: &Address) -> Disposition {
    decide_for(scan, policy, policy.exemptions.iter().any(|exemption| exemption.covers(recipient)))
}

/// Decides what would happen to a message of which no recipient is known.
pub fn decide_for_nobody(scan: &Scan, policy: &Policy) -> Disposition {
    decide_for(scan, policy, false)
}

fn decide_for(scan: &Scan, policy: &Policy, is_exempt: bool) -> Disposition {
    let score = scan.score();
    let by_score = if score >= policy.thresholds.reject {
        Disposition::Reject
    } else if score >= policy.thresholds.quarantine {
        Disposition::Quarantine
    } else if score >= policy.thresholds.tag {
        Disposition::Tag
    } else {
        Disposition::Deliver
    };
    if is_exempt {
        return if by_score == Disposition::Deliver { by_score } else { Disposition::Tag };
    }
    match policy.on_degraded {
        _ if scan.degraded.is_empty() || !by_score.is_relayed() => by_score,
        OnDegraded::Ignore => by_score,
        OnDegraded::Quarantine => Disposition::Quarantine,
        OnDegraded::Defer => Disposition::Defer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Degraded, Finding, Symbol};

    fn check(points: f64, degraded: bool, on_degraded: OnDegraded, recipient: &str, expected: Disposition) {
        let policy = Policy {
            thresholds: Thresholds::new(4.0, 6.0, 20.0).unwrap(),
            on_degraded,
            exemptions: vec![
                Exemption::LocalPart("postmaster".to_owned()),
                Exemption::Mailbox(Address::parse("abuse@example.org").unwrap()),
            ],
        };
        let mut scan =
            Scan { findings: vec![Finding::new(Symbol::fixed("TEST"), points, "")], ..Scan::default() };
        if degraded {
            scan.degraded.push(Degraded { analyser: "rules", reason: "panic" });
        }
        let recipient = Address::parse(recipient).unwrap();
        assert_eq!(decide(&scan, &policy, &recipient), expected, "{points} {degraded} {on_degraded:?}");
    }

    #[test]
    fn the_score_decides() {
        use Disposition::{Deliver, Quarantine, Reject, Tag};
        for (points, expected) in [
            (-3.0, Deliver),
            (3.9, Deliver),
            (4.0, Tag),
            (5.9, Tag),
            (6.0, Quarantine),
            (19.9, Quarantine),
            (20.0, Reject),
        ] {
            check(points, false, OnDegraded::Defer, "alice@example.org", expected);
        }
    }

    #[test]
    fn a_failed_analyser_makes_the_outcome_more_careful_never_less() {
        use Disposition::{Defer, Quarantine, Reject, Tag};
        for (points, on_degraded, expected) in [
            (5.0, OnDegraded::Ignore, Tag),
            (5.0, OnDegraded::Quarantine, Quarantine),
            (5.0, OnDegraded::Defer, Defer),
            (7.0, OnDegraded::Defer, Quarantine),
            (25.0, OnDegraded::Quarantine, Reject),
        ] {
            check(points, true, on_degraded, "alice@example.org", expected);
        }
    }

    #[test]
    fn exempt_recipients_get_everything_marked() {
        use Disposition::{Deliver, Tag};
        for recipient in ["Postmaster", "postmaster@example.net", "Abuse@Example.org"] {
            check(1.0, true, OnDegraded::Defer, recipient, Deliver);
            check(7.0, false, OnDegraded::Defer, recipient, Tag);
            check(1000.0, false, OnDegraded::Defer, recipient, Tag);
        }
    }

    #[test]
    fn thresholds_out_of_order_are_refused() {
        assert_eq!(Thresholds::new(5.0, 4.0, 20.0), Err(Unordered));
        assert_eq!(Thresholds::new(4.0, 21.0, 20.0), Err(Unordered));
        assert_eq!(Thresholds::new(4.0, f64::NAN, 20.0), Err(Unordered));
    }
}
