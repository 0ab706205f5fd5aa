//! What people do with kept mail, and what follows from it: a delivery, a lesson, or both taken back.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::learn::MessageKey;
use crate::message;
use crate::quarantine::{self, Action, Content, EntryId, Error, Outcome, Quarantine, Scope};
use crate::scan::Learned;

/// Carries out the decisions of reviewers. Cloning shares it.
#[derive(Clone)]
pub struct Review {
    /// Where kept mail is.
    pub quarantine: Quarantine,
    /// What lessons go to.
    pub learned: Learned,
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
        let Some(body) = self.quarantine.body(scope, id).await? else { return Ok(None) };
        let learned = self.learned.clone();
        let client = entry.client();
        let content = tokio::task::spawn_blocking(move || {
            let message = message::parse(&body);
            Content {
                message: MessageKey::of(&message, learned.key()),
                features: learned.extract(&message, client.as_ref()).features,
            }
        })
        .await;
        if content.is_err() {
            tracing::error!(entry = %id, "a kept message could not be read for its lesson");
        }
        Ok(content.ok())
    }
}
