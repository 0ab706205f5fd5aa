//! What the text is like, and how the message is built.

use crate::message::{Invitation, Problem};

use super::{Context, Function, domain_of, org, plainly};

/// The functions of this family.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("message_problem", message_problem),
    ("html_form", html_form),
    ("html_password", html_password),
    ("html_script", html_script),
    ("html_redirect", html_redirect),
    ("text_shorter_than", text_shorter_than),
    ("freemail_in_text", freemail_in_text),
    ("mixed_scripts", mixed_scripts),
    ("subject_capitals", subject_capitals),
    ("invitation", invitation),
    ("invitation_of_stranger", invitation_of_stranger),
];

/// `message_problem(SYMBOL, ...)`: the parser noted one of these.
fn message_problem(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let wanted: Vec<Problem> = arguments.iter().filter_map(|name| Problem::from_symbol(name)).collect();
    let found = context.message.problems.iter().find(|problem| wanted.contains(problem))?;
    Some(found.explanation().to_owned())
}

/// The message asks for a place in the reader's calendar.
fn invitation(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.message.invitations.iter().any(asks))
}

fn asks(invitation: &Invitation) -> bool {
    matches!(invitation.method.as_str(), "REQUEST" | "PUBLISH" | "ADD")
}

/// Who invites is neither of the sender's organisation nor of a reader's.
fn invitation_of_stranger(context: &Context<'_>, _: &[String]) -> Option<String> {
    let mut known: Vec<String> = vec![context.from_org.clone()];
    known.extend(context.dkim_orgs.iter().cloned());
    let recipients = context.envelope.recipients.iter().map(|to| to.address.to_normalized());
    known.extend(recipients.map(|address| org(&domain_of(&address)).to_owned()));
    let organizers = context.message.invitations.iter().filter(|invitation| asks(invitation));
    organizers.map(|invitation| domain_of(&invitation.organizer)).find_map(|domain| {
        let is_stranger = !domain.is_empty() && !known.iter().any(|known| known == org(&domain));
        is_stranger.then(|| format!("The invitation is of {domain}."))
    })
}

/// The message has a form to fill in.
fn html_form(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.message.html.forms > 0)
}

/// The message asks for a password in a field of its own.
fn html_password(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.message.html.password_inputs > 0)
}

/// The message has a script.
fn html_script(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.message.html.scripts > 0)
}

/// The message redirects by itself.
fn html_redirect(context: &Context<'_>, _: &[String]) -> Option<String> {
    plainly(context.message.html.refreshes > 0)
}

/// `text_shorter_than(CHARACTERS)`
fn text_shorter_than(context: &Context<'_>, arguments: &[String]) -> Option<String> {
    let limit: usize = arguments.first()?.parse().ok()?;
    plainly(context.message.text.chars().filter(|c| !c.is_whitespace()).take(limit).count() < limit)
}

/// A free mailbox other than the sender's is written in the text.
fn freemail_in_text(context: &Context<'_>, _: &[String]) -> Option<String> {
    let text = crate::message::text_prefix(&context.message.text, 20_000);
    let words = text
        .split(|c: char| c.is_whitespace() || "<>()[],;:\"'".contains(c))
        .filter(|word| word.contains('@'));
    let found = words.take(50).find(|word| {
        let word = word.trim_end_matches(['.', '!', '?']);
        context.lists.freemail.has_host(&domain_of(word))
            && !word.eq_ignore_ascii_case(&context.from.address)
            && !context.message.to.iter().any(|to| to.address.eq_ignore_ascii_case(word))
    })?;
    Some(format!("The text asks to write to a free mailbox at {}.", domain_of(found.trim_end_matches('.'))))
}

/// A word of the subject, the sender's name or the text mixes letters of Latin with look-alikes.
fn mixed_scripts(context: &Context<'_>, _: &[String]) -> Option<String> {
    let text = crate::message::text_prefix(&context.message.text, 20_000);
    let is_latin = |c: char| c.is_ascii_alphabetic();
    let is_lookalike = |c: char| matches!(c, '\u{0370}'..='\u{03FF}' | '\u{0400}'..='\u{04FF}' | '\u{0531}'..='\u{0587}' | '\u{13A0}'..='\u{13F4}');
    let words = [context.message.subject.as_str(), context.from.name.as_str(), text];
    let found = words
        .into_iter()
        .filter(|text| !text.is_ascii())
        .flat_map(|text| text.split(|c: char| !c.is_alphabetic()))
        .find(|word| {
            // Units such as µm or Ω are short; a look-alike word has two letters of Latin or more.
            word.chars().filter(|c| is_latin(*c)).count() >= 2
                && word.chars().any(is_lookalike)
                && word.chars().count() >= 4
        })?;
    Some(format!(
        "The word “{}” is spelled with foreign letters that look alike.",
        found.chars().take(30).collect::<String>()
    ))
}

/// Most letters of the subject are capitals.
fn subject_capitals(context: &Context<'_>, _: &[String]) -> Option<String> {
    let letters = context.message.subject.chars().filter(|c| c.is_alphabetic());
    let (capitals, total) = letters.fold((0_usize, 0_usize), |(capitals, total), c| {
        (capitals + usize::from(c.is_uppercase()), total + 1)
    });
    plainly(total >= 12 && capitals * 10 > total * 8)
}
