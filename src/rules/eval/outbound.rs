//! What should not leave: secrets, and mail that a stolen account sends.

use super::{Context, Function, org, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("card_number", card_number),
    ("account_number", account_number),
    ("recipients_over", recipients_over),
    ("shown_recipients_over", shown_recipients_over),
    ("author_is_not_account", author_is_not_account),
];

/// Longest text that is searched for numbers.
const TEXT_BYTES: usize = 200_000;

/// The text holds a payment card number: 13 to 19 digits, a known range, a right check digit (ISO 7812).
fn card_number(context: &Context<'_>, _: &[String]) -> Option<String> {
    let text = crate::message::text_prefix(&context.message.text, TEXT_BYTES);
    let found = digit_runs(text).into_iter().find(|digits| is_card(digits))?;
    let last: String =
        found.iter().skip(found.len().saturating_sub(4)).map(|digit| char::from(b'0' + digit)).collect();
    Some(format!("The text holds a payment card number that ends in {last}."))
}

/// Returns the runs of digits in a text; single blanks and hyphens between groups do not end a run.
fn digit_runs(text: &str) -> Vec<Vec<u8>> {
    let mut runs = Vec::new();
    let mut run: Vec<u8> = Vec::new();
    let mut gap = 0;
    let mut before = ' ';
    for c in text.chars().chain(['\n']) {
        match c {
            '0'..='9' => {
                if run.is_empty() && (before.is_alphanumeric() || matches!(before, '.' | '/' | '=' | '_')) {
                    // Part of a longer word: an identifier, a link.
                } else if let Some(digit) = c.to_digit(10).and_then(|digit| u8::try_from(digit).ok()) {
                    run.push(digit);
                }
                gap = 0;
            }
            ' ' | '-' if !run.is_empty() && gap == 0 => gap = 1,
            _ => {
                if (13..=19).contains(&run.len()) && !c.is_alphanumeric() && c != '_' {
                    runs.push(std::mem::take(&mut run));
                }
                run.clear();
                gap = 0;
            }
        }
        before = c;
    }
    runs
}

fn is_card(digits: &[u8]) -> bool {
    let prefix = digits.iter().take(4).fold(0_u32, |prefix, digit| prefix * 10 + u32::from(*digit));
    let is_range = match digits.len() {
        13 | 16 | 19 if prefix / 1_000 == 4 => true,
        16 => {
            (51..=55).contains(&(prefix / 100))
                || (2_221..=2_720).contains(&prefix)
                || prefix == 6_011
                || prefix / 100 == 65
        }
        15 => matches!(prefix / 100, 34 | 37),
        14 => matches!(prefix / 100, 36 | 38),
        _ => false,
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let value = u32::from(*digit) * if index % 2 == 1 { 2 } else { 1 };
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    is_range && sum.is_multiple_of(10) && digits.iter().any(|digit| Some(digit) != digits.first())
}

/// The text holds several bank account numbers with a right check (ISO 13616): `account_number(COUNT)`.
fn account_number(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let least: usize = arguments.first()?.parse().ok()?;
    let text = crate::message::text_prefix(&context.message.text, TEXT_BYTES);
    let count = text
        .lines()
        .filter(|line| {
            let compact: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            compact.split(|c: char| !c.is_ascii_alphanumeric()).any(is_iban)
        })
        .take(least)
        .count();
    plainly(count >= least && least > 0)
}

fn is_iban(word: &str) -> bool {
    let bytes = word.as_bytes();
    let country = bytes.get(..2).unwrap_or_default();
    let check = bytes.get(2..4).unwrap_or_default();
    if !(15..=34).contains(&bytes.len())
        || !country.iter().all(u8::is_ascii_uppercase)
        || !check.iter().all(u8::is_ascii_digit)
    {
        return false;
    }
    let turned = bytes.iter().skip(4).chain(bytes.iter().take(4));
    turned.fold(0_u32, |rest, byte| {
        let value = char::from(*byte).to_digit(36).unwrap_or(0);
        (rest * if value > 9 { 100 } else { 10 } + value) % 97
    }) == 1
}

/// `recipients_over(COUNT)`: the envelope names more recipients.
fn recipients_over(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let limit: usize = arguments.first()?.parse().ok()?;
    let count = context.envelope.recipients.len();
    (count > limit).then(|| format!("The message goes to {count} recipients at once."))
}

/// `shown_recipients_over(COUNT)`: To and Cc show more addresses to everybody.
fn shown_recipients_over(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let limit: usize = arguments.first()?.parse().ok()?;
    let count = context.message.to.iter().filter(|to| to.address.contains('@')).count();
    (count > limit).then(|| format!("The message shows {count} addresses to each other."))
}

/// The author is at another organisation than the account that sends.
fn author_is_not_account(context: &Context<'_>, _: &[String]) -> Option<String> {
    let account = org(&context.return_domain);
    let differs = !account.is_empty() && !context.from_org.is_empty() && account != context.from_org;
    differs.then(|| format!("The author is at {}, but the message is sent from {account}.", context.from_org))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_told_by_their_check_digit() {
        let found = |text: &str| digit_runs(text).iter().any(|digits| is_card(digits));
        assert!(found("card 4111 1111 1111 1111."));
        assert!(found("4111-1111-1111-1111"));
        assert!(found("378282246310005"));
        assert!(!found("4111 1111 1111 1112"));
        assert!(!found("0000 0000 0000 0000"));
        assert!(!found("order 12345678901234567890"));
        assert!(!found("https://x.example/4111111111111111"));
    }

    #[test]
    fn account_numbers_are_told_by_their_check_digits() {
        assert!(is_iban("DE89370400440532013000") && is_iban("GB82WEST12345698765432"));
        assert!(!is_iban("DE89370400440532013001") && !is_iban("DE89"));
    }
}
