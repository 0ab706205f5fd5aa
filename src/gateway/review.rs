//! What people do with kept mail, and what follows from it: a delivery, a lesson, or both taken back.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::learn::{Label, MessageKey};
use crate::message;
use crate::privacy::error_chain;
use crate::quarantine::{self, Action, Content, EntryId, Error, Outcome, Quarantine, Scope};
use crate::scan::{Learned, Sharing};
use crate::store::Taught;

/// Carries out the decisions of reviewers. Cloning shares it.
#[derive(Clone)]
pub struct Review {
    /// Where kept mail is.
    pub quarantine: Quarantine,
    /// What lessons go to.
    pub learned: Learned,
    /// Who is taught by what a person says of their own mail.
    pub sharing: Sharing,
    /// Told when a release is in the outbox.
    pub wake: Arc<Notify>,
}

impl quarantine::Review for Review {
    fn act<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a EntryId,
        action: Action,
        now: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let content = match action {
                Action::Release | Action::Confirm => self.content(scope, id).await?,
                Action::Drop | Action::Undo => None,
            };
            let outcome = self.quarantine.act(scope, id, action, content.as_ref(), now).await?;
            if outcome != Outcome::NotFound {
                tracing::info!(entry = %id, action = action.as_str(), ?outcome, "reviewed");
            }
            if let (Action::Release, Outcome::Done(_), Some(content)) = (action, &outcome, &content)
                && content.layers.contains(&Taught::SHARED)
                && let Err(error) = self.learned.imply(content.message, Label::Ham, now).await
            {
                tracing::warn!(error = %error_chain(&error), "what follows from a release was not learned");
            }
            self.learned.notify();
            self.wake.notify_one();
            Ok(outcome)
        })
    }
}

impl Review {
    /// Reads the message again for what it teaches; `None` when it is gone. A message that cannot be read
    /// for its lesson is still released or confirmed: the person's decision comes first.
    async fn content(&self, scope: &Scope, id: &EntryId) -> Result<Option<Content>, Error> {
        let Some(entry) = self.quarantine.find(scope, id).await? else { return Ok(None) };
        let body = match self.quarantine.body(scope, id).await {
            Ok(Some(body)) => body,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::error!(entry = %id, error = %error_chain(&error), "a kept message could not be read for its lesson");
                return Ok(None);
            }
        };
        let learned = self.learned.clone();
        let client = entry.client();
        let content = tokio::task::spawn_blocking(move || {
            let message = message::parse(&body);
            (MessageKey::of(&message, learned.key()), learned.extract(&message, client.as_ref()).features)
        })
        .await;
        let Ok((message, features)) = content else {
            tracing::error!(entry = %id, "a kept message could not be read for its lesson");
            return Ok(None);
        };
        let layers = match scope {
            Scope::All => vec![Taught::SHARED],
            Scope::Recipient(person) => match self.learned.taught_by(person, self.sharing, &features).await {
                Ok(layers) => layers,
                Err(error) => {
                    tracing::error!(entry = %id, error = %error_chain(&error), "nothing is learned from a decision");
                    return Ok(None);
                }
            },
        };
        Ok(Some(Content { message, features, layers }))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::mail::{Address, Client, Direction, Envelope, Mail, TransactionId};
    use crate::privacy::InstallationKey;
    use crate::quarantine::{Arrival, Config, Review as _, State, Summary};
    use crate::store::{Bodies, Memory, Records};
    use crate::verdict::Scan;

    const NOW: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);

    #[tokio::test]
    async fn a_message_that_cannot_be_read_is_decided_about_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("records.db")).await.unwrap();
        let bodies = Bodies::open(&folder.path().join("bodies")).unwrap();
        let key = InstallationKey::new([5; 32]);
        let quarantine =
            Quarantine::open(records.clone(), bodies.clone(), &key, Config::default()).await.unwrap();
        let learned = Learned::open(&records, Arc::new(Memory::default()), &key).await.unwrap();
        let recipients = [Address::parse("alice@example.org").unwrap().into()];
        let envelope = Envelope {
            id: TransactionId::from_random([1; TransactionId::LEN]),
            direction: Direction::Inbound,
            client: Client { helo: "c".into(), ..Client::new("192.0.2.7:2525".parse().unwrap()) },
            mail: Mail::default(),
            recipients: recipients.to_vec(),
        };
        let arrival = Arrival {
            envelope: &envelope,
            recipients: &recipients,
            body: &"Subject: x\r\n\r\ny\r\n".into(),
            summary: &Summary::default(),
            scan: &Scan::default(),
            own: &[],
            received_at: NOW,
        };
        let id = quarantine.put(arrival).await.unwrap().entries()[0].clone();
        bodies.delete(&envelope.id).await.unwrap();
        bodies.put(&envelope.id, "damaged".into()).await.unwrap();
        let review = Review { quarantine, learned, sharing: Sharing::Person, wake: Arc::default() };
        let outcome = review.act(&Scope::All, &id, Action::Confirm, NOW).await.unwrap();
        assert_eq!(outcome, Outcome::Done(State::Confirmed));
    }
}
