//! A milter: the MTA holds the message and asks about it before its own 2xx.
//!
//! Unlike the other doors this one acts. Who gets the message is the MTA's to deliver, with our fields on top
//! and forged ones taken out; for whom it is kept, it is in the quarantine before the MTA is told to leave
//! them out. A refusal, and a request to come back, are the MTA's replies. Whatever is not understood ends the
//! connection or is a 4xx, so that the MTA holds nothing that nobody has looked at.

mod session;
pub mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::IDLE;
use crate::gateway::{Advice, Gateway};
use crate::ingress::Memory;
use crate::journal::Attempt;
use crate::mail::{Envelope, Reply, TransactionId};
use session::{Arrival, Reaction, Session, trouble};
use wire::Response;

/// How long an MTA may be silent: as long as its own client may, and libmilter's own limit is two hours.
const SILENCE: Duration = Duration::from_secs(1_800);
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Where our fields go: on top of the message, below what the MTA itself has written.
const TOP: u32 = 1;
/// Where lines of a field's value are folded, if there is a blank (RFC 5322, section 2.1.1).
const FOLD_AT: usize = 78;

/// What the milter needs, as it is now.
pub type Current = Arc<ArcSwap<Service>>;

/// What stands behind the milter.
pub struct Service {
    /// The direction of the gateway that judges.
    pub gateway: Gateway,
    /// Bytes of a message.
    pub message_bytes: usize,
}

/// Answers the connection of an MTA until it ends it, or until the gateway stops and no message is under way.
///
/// # Errors
/// What the stream says; `InvalidData` where the MTA does not speak the protocol.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    service: Current,
    memory: Memory,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut session = Session::new(memory);
    let mut unsettled: Option<Attempt> = None;
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    loop {
        let command = match wire::take(&mut input) {
            Ok(Some(command)) => command,
            Ok(None) => {
                if !output.is_empty() {
                    timeout(IDLE, stream.write_all(&output)).await??;
                    output.clear();
                }
                input.reserve(READ_BYTES);
                let read = tokio::select! {
                    biased;
                    read = timeout(SILENCE, stream.read_buf(&mut input)) => read??,
                    () = wait_for_stop(&mut stopped), if session.is_idle() && input.is_empty() => return Ok(()),
                };
                if read == 0 {
                    return Ok(());
                }
                continue;
            }
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        // An MTA that says something more has heard what it was told.
        if let Some(attempt) = unsettled.take() {
            attempt.settle();
        }
        let message_bytes = service.load().message_bytes;
        match session.take(command, message_bytes) {
            Reaction::Silence => {}
            Reaction::Say(response) => response.write(&mut output),
            Reaction::Judge(arrival) => {
                let blank = session.blank();
                let (responses, attempt) = judge(&service.load_full().gateway, *arrival, blank).await;
                unsettled = attempt;
                for response in responses {
                    response.write(&mut output);
                }
            }
            Reaction::Close => return Ok(()),
        }
    }
}

/// Has a message judged. The last response ends it; those before change it.
async fn judge(gateway: &Gateway, arrival: Arrival, blank: &str) -> (Vec<Response>, Option<Attempt>) {
    let Arrival { client, mail, recipients, paths, body, forged, claim: _claim } = arrival;
    let body = match body {
        Ok(body) => body,
        Err(reply) => return (vec![refuse(&reply)], None),
    };
    let mut random = [0; TransactionId::LEN];
    if getrandom::fill(&mut random).is_err() {
        return (vec![refuse(&trouble())], None);
    }
    let id = TransactionId::from_random(random);
    let envelope = Envelope { id, direction: gateway.direction, client, mail, recipients };
    let advised = gateway.advise(&envelope, &body).await;
    let responses = match advised.advice {
        Advice::Refuse(reply) => vec![refuse(&reply)],
        Advice::Drop => vec![Response::Discard],
        Advice::Pass { without, fields } => {
            let mut responses = removals(&forged);
            // Each goes on top, so the last comes first.
            responses.extend(fields.into_iter().rev().map(|(name, value)| {
                let value = format!("{blank}{}", fold(name, &value));
                Response::InsertField { at: TOP, name, value }
            }));
            let left_out = paths.into_iter().filter(|(place, _)| without.contains(place));
            responses.extend(left_out.map(|(_, path)| Response::RemoveRecipient(path)));
            responses.push(Response::Continue);
            responses
        }
    };
    (responses, advised.unsettled)
}

fn refuse(reply: &Reply) -> Response {
    let enhanced = reply.enhanced().map_or_else(String::new, |code| format!("{code} "));
    Response::Reply(format!("{} {enhanced}{}", reply.code(), reply.lines().join(" ")))
}

/// Numbers the forged fields among those of their name, and takes the last ones out first, so that no number
/// means another field then.
fn removals(forged: &[Bytes]) -> Vec<Response> {
    let mut removals = Vec::with_capacity(forged.len());
    for (place, name) in forged.iter().enumerate() {
        let before = forged.iter().take(place).filter(|other| other.eq_ignore_ascii_case(name)).count();
        let number = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
        removals.push(Response::RemoveField { number, name: name.clone() });
    }
    removals.reverse();
    removals
}

/// Folds a value at its blanks, for lines that end with LF.
fn fold(name: &str, value: &str) -> String {
    let mut folded = String::with_capacity(value.len() + 16);
    let mut length = name.len() + 1;
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        if !folded.is_empty() {
            let starts_line = length + 1 + word.len() > FOLD_AT;
            folded.push_str(if starts_line { "\n " } else { " " });
            length = if starts_line { 1 } else { length + 1 };
        }
        folded.push_str(word);
        length += word.len();
    }
    folded
}

/// Returns when the gateway is told to stop, or nobody is left who could tell.
async fn wait_for_stop(stopped: &mut watch::Receiver<bool>) {
    while !*stopped.borrow_and_update() && stopped.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests;
