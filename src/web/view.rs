//! How values look on the pages: times, sizes, scores, sentences.
//!
//! Everything that a message brought passes [`line`] or [`text`] here, and is escaped by the template
//! after that.

use time::{Duration, Month, OffsetDateTime};

use super::auth::SignedIn;
use crate::accounts::Principal;
use crate::mail::Direction;
use crate::quarantine::{Action, Entry, Failure, State, possible};
use crate::verdict::{Finding, Score};

/// What stands around a page: who is signed in, and the token of the forms.
pub(super) struct Frame {
    /// The name shown at the top; empty when nobody is signed in.
    pub(super) who: String,
    pub(super) is_administrator: bool,
    pub(super) token: String,
}

impl Frame {
    pub(super) fn outside() -> Self {
        Frame { who: String::new(), is_administrator: false, token: String::new() }
    }

    pub(super) fn of(signed_in: &SignedIn) -> Self {
        let who = match &signed_in.session.principal {
            Principal::Administrator => "Administrator".to_owned(),
            Principal::Recipient(address) => address.to_path(),
        };
        Frame {
            who,
            is_administrator: signed_in.is_administrator(),
            token: signed_in.session.form_token().to_owned(),
        }
    }
}

/// A time, as people and as machines read it.
pub(super) struct Moment {
    pub(super) relative: String,
    pub(super) absolute: String,
    pub(super) machine: String,
}

impl Moment {
    pub(super) fn new(time: OffsetDateTime, now: OffsetDateTime) -> Self {
        let time = time.to_offset(time::UtcOffset::UTC);
        Moment {
            relative: relative(time, now),
            absolute: format!(
                "{} {} {}, {:02}:{:02} UTC",
                time.day(),
                month(time.month()),
                time.year(),
                time.hour(),
                time.minute()
            ),
            machine: format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
                time.year(),
                u8::from(time.month()),
                time.day(),
                time.hour(),
                time.minute(),
                time.second()
            ),
        }
    }
}

/// A button: what it does, and how loud it is.
pub(super) struct Button {
    pub(super) action: &'static str,
    pub(super) label: &'static str,
    pub(super) class: &'static str,
}

/// A message in the list and at the head of its page.
pub(super) struct Item {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) from_name: String,
    pub(super) from_address: String,
    pub(super) recipient: String,
    pub(super) outbound: bool,
    pub(super) score: String,
    pub(super) level: &'static str,
    pub(super) why: String,
    pub(super) received: Moment,
    pub(super) state: &'static str,
    pub(super) state_label: &'static str,
    /// What is worth saying of the state; empty while nobody has decided.
    pub(super) state_text: String,
    pub(super) buttons: Vec<Button>,
}

impl Item {
    pub(super) fn of(entry: &Entry, now: OffsetDateTime) -> Self {
        let private = &entry.private;
        let subject = line(private.subject.expose());
        let from_address = match private.from_address.expose().as_str() {
            "" => private.reverse_path.expose().as_str(),
            address => address,
        };
        Item {
            id: entry.id.to_string(),
            subject: if subject.is_empty() { "(no subject)".to_owned() } else { subject },
            from_name: line(private.from_name.expose()),
            from_address: if from_address.is_empty() { "(no sender)".to_owned() } else { line(from_address) },
            recipient: line(private.recipient.expose()),
            outbound: entry.direction == Direction::Outbound,
            score: entry.score.to_string(),
            level: level(entry.score),
            why: why(entry),
            received: Moment::new(entry.received_at, now),
            state: entry.state.as_str(),
            state_label: state_label(entry.state),
            state_text: state_text(entry, now),
            buttons: buttons(entry),
        }
    }
}

/// A finding in the table of findings.
pub(super) struct Evidence {
    pub(super) symbol: String,
    pub(super) explanation: String,
    pub(super) score: String,
    /// `up` speaks against the message, `down` for it, `none` neither way.
    pub(super) sign: &'static str,
    /// The length of the bar in steps of a twentieth, 0 to 20; ten points fill it.
    pub(super) length: u8,
}

impl Evidence {
    pub(super) fn of(finding: &Finding) -> Self {
        let points = finding.score.points();
        let length = (1..=20u8).take_while(|step| points.abs() * 2.0 >= f64::from(*step)).count();
        let length = u8::try_from(length).unwrap_or(20);
        Evidence {
            symbol: line(finding.symbol.as_str()),
            explanation: line(finding.explanation.expose()),
            score: format!("{points:+.1}"),
            sign: if points > 0.0 {
                "up"
            } else if points < 0.0 {
                "down"
            } else {
                "none"
            },
            length: if points == 0.0 { 0 } else { length.max(1) },
        }
    }
}

/// Returns one line of what a message brought, without the characters that disturb a page.
pub(super) fn line(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").replace(is_deceptive, "")
}

/// Returns a text of several lines, without the characters that disturb a page.
pub(super) fn text(text: &str) -> String {
    text.replace("\r\n", "\n")
        .chars()
        .filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || is_deceptive(*c)))
        .collect()
}

/// Whether a character turns the direction of writing around or is there without being seen.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}')
}

/// Returns a size in the unit that gives it one to three digits.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

fn relative(time: OffsetDateTime, now: OffsetDateTime) -> String {
    let (distance, future) = if time > now { (time - now, true) } else { (now - time, false) };
    let count = |count: i64, unit: &str| {
        let plural = if count == 1 { "" } else { "s" };
        if future { format!("in {count} {unit}{plural}") } else { format!("{count} {unit}{plural} ago") }
    };
    if distance < Duration::minutes(1) {
        if future { "in a moment".to_owned() } else { "just now".to_owned() }
    } else if distance < Duration::hours(1) {
        count(distance.whole_minutes(), "minute")
    } else if distance < Duration::days(1) {
        count(distance.whole_hours(), "hour")
    } else {
        count(distance.whole_days(), "day")
    }
}

fn month(month: Month) -> &'static str {
    match month {
        Month::January => "Jan",
        Month::February => "Feb",
        Month::March => "Mar",
        Month::April => "Apr",
        Month::May => "May",
        Month::June => "Jun",
        Month::July => "Jul",
        Month::August => "Aug",
        Month::September => "Sep",
        Month::October => "Oct",
        Month::November => "Nov",
        Month::December => "Dec",
    }
}

fn level(score: Score) -> &'static str {
    match score.points() {
        points if points < 5.0 => "low",
        points if points < 10.0 => "medium",
        _ => "high",
    }
}

fn why(entry: &Entry) -> String {
    let Some(finding) = entry.main_finding() else {
        return if entry.private.degraded.is_empty() {
            "Kept by the policy for this recipient".to_owned()
        } else {
            "Kept because it could not be checked completely".to_owned()
        };
    };
    let explanation = line(finding.explanation.expose());
    let explanation = explanation.trim_end_matches('.');
    if explanation.is_empty() {
        return format!("Kept because of {}", finding.symbol);
    }
    reason(explanation)
}

/// Returns why something was kept: "because" before what begins as a clause does, a colon before the rest.
fn reason(explanation: &str) -> String {
    const CLAUSES: [&str; 12] =
        ["a", "an", "the", "this", "it", "its", "no", "there", "answers", "nothing", "somebody", "another"];
    let (first, rest) = explanation.split_once(' ').unwrap_or((explanation, ""));
    let lower = first.to_lowercase();
    if CLAUSES.contains(&lower.as_str()) {
        format!("Kept because {lower} {rest}")
    } else {
        format!("Kept: {explanation}")
    }
}

fn state_label(state: State) -> &'static str {
    match state {
        State::Kept => "Waiting",
        State::Releasing => "On its way",
        State::Released => "Released",
        State::Failed => "Not delivered",
        State::Confirmed => "Spam",
        State::Dropped => "Dropped",
    }
}

fn state_text(entry: &Entry, now: OffsetDateTime) -> String {
    match entry.state {
        State::Kept => String::new(),
        State::Releasing => match &entry.delivery {
            Some(delivery) if delivery.attempts > 0 => format!(
                "Released; the mail server did not take it yet ({}). Next try {}.",
                delivery.last_failure.map_or("no reason given", failure_text),
                relative(delivery.due_at, now)
            ),
            _ => "Released; it is being delivered.".to_owned(),
        },
        State::Released => "Released and delivered.".to_owned(),
        State::Failed => format!(
            "Released, but not delivered: {}. You can release it again.",
            entry.failure.map_or("no reason given", failure_text)
        ),
        State::Confirmed if entry.lesson.is_some() => {
            "Confirmed as spam; the filter has learned from it.".to_owned()
        }
        State::Confirmed => "Confirmed as spam.".to_owned(),
        State::Dropped => "Dropped.".to_owned(),
    }
}

fn failure_text(failure: Failure) -> &'static str {
    match failure {
        Failure::Unreachable => "the mail server cannot be reached",
        Failure::Temporary(_) => "the mail server asked to wait",
        Failure::Permanent(_) => "the mail server refused it",
        Failure::Unreadable => "the stored message cannot be read",
        Failure::GaveUp => "it was tried for days",
    }
}

fn buttons(entry: &Entry) -> Vec<Button> {
    possible(entry.state)
        .filter(|action| {
            // Nothing is left to take back once the message is delivered and its lesson gone.
            !(*action == Action::Undo && entry.state == State::Released && entry.lesson.is_none())
        })
        .map(|action| {
            let (label, class) = match (action, entry.state) {
                (Action::Release, State::Failed) => ("Release again", "good"),
                // What is very likely spam is not released by the loudest button.
                (Action::Release, _) if level(entry.score) == "high" => ("Release", "calm"),
                (Action::Release, _) => ("Release", "good"),
                (Action::Confirm, _) => ("It is spam", "bad"),
                (Action::Drop, _) => ("Drop", "quiet"),
                (Action::Undo, State::Releasing) => ("Stop the release", "quiet"),
                (Action::Undo, State::Released) => ("Take the lesson back", "quiet"),
                (Action::Undo, _) => ("Undo", "quiet"),
            };
            Button { action: action.as_str(), label, class }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_told_as_people_tell_them() {
        let now = datetime!(2026-03-02 09:00 UTC);
        for (time, expected) in [
            (datetime!(2026-03-02 09:00 UTC), "just now"),
            (datetime!(2026-03-02 08:59 UTC), "1 minute ago"),
            (datetime!(2026-03-02 07:01 UTC), "1 hour ago"),
            (datetime!(2026-02-27 09:00 UTC), "3 days ago"),
            (datetime!(2026-03-02 09:00:20 UTC), "in a moment"),
            (datetime!(2026-04-01 09:00 UTC), "in 30 days"),
        ] {
            assert_eq!(relative(time, now), expected);
        }
        let moment = Moment::new(datetime!(2026-03-02 10:05 +1), now);
        assert_eq!(moment.absolute, "2 Mar 2026, 09:05 UTC");
        assert_eq!(moment.machine, "2026-03-02T09:05:00Z");
    }

    #[test]
    fn what_a_message_brought_cannot_disturb_the_page() {
        assert_eq!(line(" a\r\nb\u{202e}c\u{0}  d "), "a bc d");
        assert_eq!(text("a\r\nb\u{1b}[31m\u{202e}c\tz"), "a\nb[31mc\tz");
    }

    #[test]
    fn sizes_have_few_digits() {
        for (bytes, expected) in
            [(0, "0 bytes"), (999, "999 bytes"), (4_200, "4 kB"), (12_345_678, "12.3 MB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn a_bar_is_as_long_as_its_score() {
        for (points, length, sign) in
            [(0.0, 0, "none"), (0.1, 1, "up"), (5.0, 10, "up"), (-2.5, 5, "down"), (1000.0, 20, "up")]
        {
            let evidence = Evidence::of(&Finding::new(crate::verdict::Symbol::fixed("A"), points, ""));
            assert_eq!((evidence.length, evidence.sign), (length, sign), "{points}");
        }
    }

    #[test]
    fn a_reason_reads_as_a_sentence() {
        for (explanation, expected) in [
            ("The link says a but goes to b", "Kept because the link says a but goes to b"),
            ("the link says a but goes to b", "Kept because the link says a but goes to b"),
            ("PayPal is named", "Kept: PayPal is named"),
            ("words seen in spam: \"x\"", "Kept: words seen in spam: \"x\""),
            ("", "Kept: "),
        ] {
            assert_eq!(reason(explanation), expected);
        }
    }
}
