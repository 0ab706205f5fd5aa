//! The mail that we write ourselves. Today: the sign-in link.
//!
//! Plain text, marked as automatic (RFC 3834), from the null reverse-path, so that nothing answers it and
//! nothing bounces. It names the installation, not the kept messages: whoever reads it over a shoulder
//! learns nothing. Sending is somebody else's work, behind [`Outgoing`].

use std::time::SystemTime;

use futures_util::future::BoxFuture;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::mail::Address;

/// A finished mail to one recipient, to be sent from the null reverse-path.
#[derive(Clone)]
pub struct Notice {
    /// Whom it is for.
    pub recipient: Address,
    /// The message, CRLF line ends.
    pub bytes: Vec<u8>,
}

/// Sends notices. Any function of the same form is one.
pub trait Outgoing: Send + Sync {
    /// Hands a notice to the next hop; done when the next hop has taken it.
    fn send(&self, notice: Notice) -> BoxFuture<'static, Result<(), SendError>>;
}

/// Why a notice was not sent, whatever the sender's own reason is.
pub type SendError = Box<dyn std::error::Error + Send + Sync>;

impl<F> Outgoing for F
where
    F: Fn(Notice) -> BoxFuture<'static, Result<(), SendError>> + Send + Sync,
{
    fn send(&self, notice: Notice) -> BoxFuture<'static, Result<(), SendError>> {
        self(notice)
    }
}

/// Why a notice was not written.
#[derive(Debug, Error)]
pub enum Error {
    /// Sender or recipient cannot stand in a header field.
    #[error("an address of the notice cannot be written")]
    Address(#[source] lettre::address::AddressError),
    /// The message cannot be put together.
    #[error("putting the notice together")]
    Message(#[source] lettre::error::Error),
    /// The operating system gave no random bytes.
    #[error("drawing a random message id")]
    Random(#[source] getrandom::Error),
}

/// What a sign-in mail says.
#[derive(Debug, Clone, Copy)]
pub struct SignInMail<'a> {
    /// The address in From.
    pub sender: &'a Address,
    /// Whom it is for.
    pub recipient: &'a Address,
    /// The whole link.
    pub link: &'a str,
    /// How long the link works.
    pub lifetime: Duration,
    /// The time of writing.
    pub now: OffsetDateTime,
}

impl SignInMail<'_> {
    /// Writes the mail.
    ///
    /// # Errors
    /// [`enum@Error`] when an address cannot stand in a header field.
    pub fn write(&self) -> Result<Notice, Error> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(Error::Random)?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let domain = self.sender.domain().map_or("localhost", |domain| domain.as_str());
        let text = format!(
            "Somebody, most likely you, asked to see the mail that is kept for this address.\n\
             \n\
             Open this link to look at it and to release what you want:\n\
             \n\
             {}\n\
             \n\
             It works once, within {} minutes.\n\
             \n\
             If it was not you, there is nothing to do: without this link nobody gets in.\n",
            self.link,
            self.lifetime.whole_minutes()
        );
        let message = Message::builder()
            .from(mailbox(self.sender, Some("Mail quarantine"))?)
            .to(mailbox(self.recipient, None)?)
            .subject("Your link to the kept mail")
            .date(SystemTime::from(self.now))
            .message_id(Some(format!("<{id}@{domain}>")))
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map_err(Error::Message)?;
        Ok(Notice { recipient: self.recipient.clone(), bytes: message.formatted() })
    }
}

fn mailbox(address: &Address, name: Option<&str>) -> Result<Mailbox, Error> {
    let address = address.to_path().parse().map_err(Error::Address)?;
    Ok(Mailbox::new(name.map(str::to_owned), address))
}

#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn write(recipient: &str) -> Result<String, Error> {
        let mail = SignInMail {
            sender: &Address::parse("quarantine@gate.example").unwrap(),
            recipient: &Address::parse(recipient).unwrap(),
            link: "https://gate.example/link/0123456789012345678901234567890123456789012",
            lifetime: Duration::minutes(15),
            now: datetime!(2026-03-02 09:00 UTC),
        };
        Ok(String::from_utf8(mail.write()?.bytes).unwrap())
    }

    #[test]
    fn a_sign_in_mail_is_plain_automatic_and_complete() {
        let text = write("alice@example.org").unwrap();
        for line in [
            "From: \"Mail quarantine\" <quarantine@gate.example>\r\n",
            "To: alice@example.org\r\n",
            "Date: Mon, 02 Mar 2026 09:00:00 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "\r\nhttps://gate.example/link/0123456789012345678901234567890123456789012\r\n",
            "within 15 minutes",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    }

    #[test]
    fn an_address_that_fits_no_header_field_is_an_error() {
        assert!(matches!(write("postmaster"), Err(Error::Address(_))));
    }

    #[test]
    fn no_two_mails_share_a_message_id() {
        let id = |text: String| text.lines().find(|line| line.starts_with("Message-ID")).unwrap().to_owned();
        assert_ne!(id(write("alice@example.org").unwrap()), id(write("alice@example.org").unwrap()));
    }
}
