//! Signing in to a next hop (RFC 4954), with PLAIN or LOGIN, over TLS alone.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::mail::Reply;
use crate::relay::connection::Connection;
use crate::relay::{Credentials, Error};

/// The longest initial response that goes into the command itself, in bytes (RFC 4954, section 4: the
/// command line keeps its limit of 512).
const MAX_INITIAL_BYTES: usize = 490;
/// The code for a next hop that offers no mechanism that we know.
const NO_MECHANISM: u16 = 504;

/// Signs in, and returns the reply that settles it: 235, or a refusal of 4xx or 5xx.
///
/// # Errors
/// [`Error::NotEncrypted`] before anything secret is sent; [`Error::SignIn`] where no mechanism is offered
/// that we know; else what befell the connection.
pub(super) async fn authenticate(
    connection: &mut Connection,
    credentials: &Credentials,
    patience: Duration,
) -> Result<Reply, Error> {
    if !connection.is_encrypted() {
        return Err(Error::NotEncrypted);
    }
    let offered = connection.capabilities;
    if offered.auth_plain {
        plain(connection, credentials, patience).await
    } else if offered.auth_login {
        login(connection, credentials, patience).await
    } else {
        Err(Error::SignIn { code: NO_MECHANISM })
    }
}

/// PLAIN (RFC 4616): in one command where it fits.
async fn plain(
    connection: &mut Connection,
    credentials: &Credentials,
    patience: Duration,
) -> Result<Reply, Error> {
    let mut response = Zeroizing::new(String::from("\0"));
    response.push_str(&credentials.login);
    response.push('\0');
    response.push_str(&credentials.password);
    let response = encode(&response);
    if response.len() <= MAX_INITIAL_BYTES {
        let command = Zeroizing::new([b"AUTH PLAIN ", response.as_bytes(), b"\r\n"].concat());
        let reply = exchange(connection, &command, patience).await?;
        return settled(connection, reply);
    }
    let reply = exchange(connection, b"AUTH PLAIN\r\n", patience).await?;
    if reply.code() != 334 {
        return settled(connection, reply);
    }
    let reply = respond(connection, &response, patience).await?;
    settled(connection, reply)
}

/// LOGIN (draft-murchison-sasl-login): the name, then the password, whatever the challenges say.
async fn login(
    connection: &mut Connection,
    credentials: &Credentials,
    patience: Duration,
) -> Result<Reply, Error> {
    let mut reply = exchange(connection, b"AUTH LOGIN\r\n", patience).await?;
    for answer in [&credentials.login, &credentials.password] {
        if reply.code() != 334 {
            break;
        }
        reply = respond(connection, &encode(answer), patience).await?;
    }
    settled(connection, reply)
}

fn settled(connection: &Connection, reply: Reply) -> Result<Reply, Error> {
    match reply.code() {
        235 | 400..600 => Ok(reply),
        _ => Err(connection.nonsense(&reply)),
    }
}

async fn respond(connection: &mut Connection, response: &str, patience: Duration) -> Result<Reply, Error> {
    let line = Zeroizing::new([response.as_bytes(), b"\r\n"].concat());
    exchange(connection, &line, patience).await
}

async fn exchange(connection: &mut Connection, line: &[u8], patience: Duration) -> Result<Reply, Error> {
    connection.write(line, patience).await?;
    connection.read_reply(patience).await
}

fn encode(text: &str) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(text))
}
