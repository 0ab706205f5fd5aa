//! From a disposition for each recipient to what one transaction can do and say.
//!
//! A client hears one reply for the whole message, or one for each recipient (LMTP, PRDR). Where it hears
//! one, a refusal cannot be told to some recipients only, so those are kept; and if one must wait, all wait.
//! Pure: the execution is in `delivery`.

use crate::verdict::Disposition;

/// How many answers the client takes for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// One for all recipients.
    Once,
    /// One for each recipient.
    Each,
}

/// What is done with a message for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It goes to the next hop.
    Relay,
    /// It is kept.
    Keep,
    /// The client hears a refusal.
    Refuse,
    /// The client is asked to come back.
    Defer,
}

/// Brings dispositions to what the client can be told. `is_held` says that some recipients of the message
/// are in custody from an earlier attempt, so that the one answer can no longer be a refusal.
pub(super) fn plan(dispositions: &[Disposition], speaks: Speaks, is_held: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = dispositions
        .iter()
        .map(|disposition| match disposition {
            Disposition::Deliver | Disposition::Tag => Step::Relay,
            Disposition::Quarantine => Step::Keep,
            Disposition::Reject => Step::Refuse,
            Disposition::Defer => Step::Defer,
        })
        .collect();
    if speaks == Speaks::Once {
        if steps.contains(&Step::Defer) {
            steps.fill(Step::Defer);
        } else if is_held || steps.iter().any(|step| *step != Step::Refuse) {
            // Never both taken and refused, never silently dropped.
            for step in steps.iter_mut().filter(|step| **step == Step::Refuse) {
                *step = Step::Keep;
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dispositions: &str, speaks: Speaks, is_held: bool, expected: &str) {
        let disposition = |letter| match letter {
            'd' => Disposition::Deliver,
            't' => Disposition::Tag,
            'q' => Disposition::Quarantine,
            'w' => Disposition::Defer,
            _ => Disposition::Reject,
        };
        let dispositions: Vec<_> = dispositions.chars().map(disposition).collect();
        let steps: String = plan(&dispositions, speaks, is_held)
            .iter()
            .map(|step| match step {
                Step::Relay => 'R',
                Step::Keep => 'K',
                Step::Refuse => 'X',
                Step::Defer => 'W',
            })
            .collect();
        assert_eq!(steps, expected, "{dispositions:?} {speaks:?} {is_held}");
    }

    #[test]
    fn one_answer_refuses_all_or_none_and_waits_for_all() {
        check("d", Speaks::Once, false, "R");
        check("dt", Speaks::Once, false, "RR");
        check("dq", Speaks::Once, false, "RK");
        check("rr", Speaks::Once, false, "XX");
        check("dr", Speaks::Once, false, "RK");
        check("qr", Speaks::Once, false, "KK");
        check("rrw", Speaks::Once, false, "WWW");
        check("dqw", Speaks::Once, false, "WWW");
        check("rr", Speaks::Once, true, "KK");
    }

    #[test]
    fn an_answer_for_each_says_what_policy_said() {
        check("dqrw", Speaks::Each, false, "RKXW");
        check("rr", Speaks::Each, true, "XX");
    }
}
