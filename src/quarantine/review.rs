//! What a person decides about an entry, and what follows from it.
//!
//! [`step`] is the whole table of what is possible in which state. Everything that follows from one
//! decision is written in one transaction: the new state, the delivery in the outbox, the lesson.

use futures_util::future::BoxFuture;
use sqlx::{Row, SqliteConnection};
use time::OffsetDateTime;

use super::entry::{EntryId, State};
use super::search::Scope;
use super::{Error, Quarantine};
use crate::learn::{Features, Label, MessageKey};
use crate::metrics::Counter;
use crate::store::timestamp::to_column;
use crate::store::{LessonError, LessonLog, NewLesson, Taught, Teacher};

/// What a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Deliver the message, and learn it as wanted mail.
    Release,
    /// Learn it as spam.
    Confirm,
    /// Put it aside without learning anything.
    Drop,
    /// Take the last decision back, and its lesson.
    Undo,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 4] = [Action::Release, Action::Confirm, Action::Drop, Action::Undo];

    /// Returns its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Release => "release",
            Action::Confirm => "confirm",
            Action::Drop => "drop",
            Action::Undo => "undo",
        }
    }

    /// Reads what [`Action::as_str`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Action::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// What an action came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done; the entry is in this state now.
    Done(State),
    /// There was nothing to do; the entry is in this state.
    AlreadyDone(State),
    /// The message was delivered or is being delivered; only the lesson was taken back.
    LessonTakenBack(State),
    /// It cannot be done in this state.
    NotAllowed(State),
    /// There is no such entry, or not for this person.
    NotFound,
}

/// What a decision teaches from: the message, as the filter sees it. The label follows from the action,
/// the teacher from the scope.
#[derive(Debug, Clone)]
pub struct Content {
    /// The key of the message's content.
    pub message: MessageKey,
    /// Its features.
    pub features: Features,
    /// In which layers it teaches.
    pub layers: Vec<Taught>,
}

/// What an action does in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Put the delivery into the outbox, teach "ham".
    Release,
    /// Teach "spam".
    Confirm,
    /// Only change the state.
    Drop,
    /// Back to kept, without the lesson.
    Restore,
    /// As `Restore`, unless an attempt is under way.
    Recall,
    /// Only take the lesson back.
    TakeLessonBack,
    /// It is so already.
    Nothing,
    /// It cannot be done.
    Refuse,
}

fn step(state: State, action: Action) -> Step {
    match (action, state) {
        (Action::Release, State::Kept | State::Failed) => Step::Release,
        (Action::Release, State::Releasing | State::Released) => Step::Nothing,
        (Action::Release, State::Confirmed | State::Dropped) => Step::Refuse,
        (Action::Confirm, State::Kept | State::Failed) => Step::Confirm,
        (Action::Confirm, State::Confirmed) => Step::Nothing,
        (Action::Confirm, State::Releasing | State::Released | State::Dropped) => Step::Refuse,
        (Action::Drop, State::Kept | State::Failed) => Step::Drop,
        (Action::Drop, State::Dropped) => Step::Nothing,
        (Action::Drop, State::Releasing | State::Released | State::Confirmed) => Step::Refuse,
        (Action::Undo, State::Kept) => Step::Nothing,
        (Action::Undo, State::Releasing) => Step::Recall,
        (Action::Undo, State::Released) => Step::TakeLessonBack,
        (Action::Undo, State::Failed | State::Confirmed | State::Dropped) => Step::Restore,
    }
}

/// Returns what a person can do about an entry in this state.
pub fn possible(state: State) -> impl Iterator<Item = Action> {
    Action::ALL
        .into_iter()
        .filter(move |action| !matches!(step(state, *action), Step::Nothing | Step::Refuse))
}

/// Carries out a person's decision, with the lesson that follows from it.
pub trait Review: Send + Sync {
    /// Does `action` to the entry `id` in `scope`, as [`Quarantine::act`] does.
    fn act<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a EntryId,
        action: Action,
        now: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Outcome, Error>>;
}

/// The fake of tests: the quarantine by itself teaches nothing.
#[cfg(test)]
impl Review for Quarantine {
    fn act<'a>(
        &'a self,
        scope: &'a Scope,
        id: &'a EntryId,
        action: Action,
        now: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(Quarantine::act(self, scope, id, action, None, now))
    }
}

impl Quarantine {
    /// Carries out what a person decided about an entry in their scope.
    ///
    /// Doing the same twice, at once or later, does it once. Release and confirm teach what
    /// `content` holds; without it they teach nothing.
    ///
    /// # Errors
    /// A store's failure: nothing was done.
    pub async fn act(
        &self,
        scope: &Scope,
        id: &EntryId,
        action: Action,
        content: Option<&Content>,
        now: OffsetDateTime,
    ) -> Result<Outcome, Error> {
        let teacher = match scope {
            Scope::All => Teacher::Administrator,
            Scope::Recipient(address) => self.teacher(address),
        };
        let mut write = self.records.begin().await?;
        let mut query =
            sqlx::QueryBuilder::new("SELECT e.state, e.lesson FROM quarantine_entries e WHERE e.id = ");
        query.push_bind(id.as_str());
        self.restrict(&mut query, scope);
        let Some(row) = query.build().fetch_optional(&mut *write).await? else {
            return Ok(Outcome::NotFound);
        };
        let state = State::from_name(row.try_get("state")?).ok_or(Error::Malformed("state"))?;
        let mut taught: Option<i64> = row.try_get("lesson")?;

        let outcome = match step(state, action) {
            Step::Release => {
                sqlx::query("INSERT INTO outbox (entry_id, created_at, due_at) VALUES (?, ?2, ?2)")
                    .bind(id.as_str())
                    .bind(to_column(now))
                    .execute(&mut *write)
                    .await?;
                // A release that failed has taught already.
                if taught.is_none() {
                    taught = teach(&mut write, Label::Ham, content, &teacher, now).await?;
                }
                Outcome::Done(State::Releasing)
            }
            Step::Confirm => {
                retract(&mut write, taught, &teacher, now).await?;
                taught = teach(&mut write, Label::Spam, content, &teacher, now).await?;
                Outcome::Done(State::Confirmed)
            }
            Step::Drop => {
                retract(&mut write, taught.take(), &teacher, now).await?;
                Outcome::Done(State::Dropped)
            }
            Step::Restore => {
                retract(&mut write, taught.take(), &teacher, now).await?;
                Outcome::Done(State::Kept)
            }
            Step::Recall => {
                retract(&mut write, taught.take(), &teacher, now).await?;
                let recalled = sqlx::query(
                    "DELETE FROM outbox WHERE entry_id = ? AND (leased_until IS NULL OR leased_until <= ?)",
                )
                .bind(id.as_str())
                .bind(to_column(now))
                .execute(&mut *write)
                .await?
                .rows_affected();
                if recalled == 1 { Outcome::Done(State::Kept) } else { Outcome::LessonTakenBack(state) }
            }
            Step::TakeLessonBack if taught.is_some() => {
                retract(&mut write, taught.take(), &teacher, now).await?;
                Outcome::LessonTakenBack(state)
            }
            Step::TakeLessonBack | Step::Nothing => return Ok(Outcome::AlreadyDone(state)),
            Step::Refuse => return Ok(Outcome::NotAllowed(state)),
        };
        if let Outcome::Done(state) | Outcome::LessonTakenBack(state) = outcome {
            sqlx::query("UPDATE quarantine_entries SET state = ?, lesson = ?, failure = NULL, changed_at = ? WHERE id = ?")
                .bind(state.as_str())
                .bind(taught)
                .bind(to_column(now))
                .bind(id.as_str())
                .execute(&mut *write)
                .await?;
        }
        write.commit().await?;
        Counter::Reviews.increment(&[("action", action.as_str())]);
        Ok(outcome)
    }
}

/// Writes the lesson of a decision, where there is anything to learn from.
async fn teach(
    write: &mut SqliteConnection,
    label: Label,
    content: Option<&Content>,
    teacher: &Teacher,
    now: OffsetDateTime,
) -> Result<Option<i64>, Error> {
    let Some(content) = content else { return Ok(None) };
    let lesson = NewLesson {
        layers: content.layers.clone(),
        message: content.message,
        label,
        features: content.features.clone(),
        teacher: teacher.clone(),
        learned_at: now,
    };
    LessonLog::append(write, &lesson).await.map(Some).map_err(|error| Error::Lesson(error.into()))
}

/// Takes the lesson of an earlier decision back.
async fn retract(
    write: &mut SqliteConnection,
    taught: Option<i64>,
    teacher: &Teacher,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let Some(sequence) = taught else { return Ok(()) };
    match LessonLog::retract(write, sequence, teacher, now).await {
        // A lesson that has left the log, by age or by a person's erasure, is taken back already.
        Ok(_) | Err(LessonError::Unknown(_)) => Ok(()),
        Err(error) => Err(Error::Lesson(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_in_every_state_does_what_the_table_says() {
        use Step::*;
        //                kept     releasing  released        failed   confirmed dropped
        let table = [
            (Action::Release, [Release, Nothing, Nothing, Release, Refuse, Refuse]),
            (Action::Confirm, [Confirm, Refuse, Refuse, Confirm, Nothing, Refuse]),
            (Action::Drop, [Drop, Refuse, Refuse, Drop, Refuse, Nothing]),
            (Action::Undo, [Nothing, Recall, TakeLessonBack, Restore, Restore, Restore]),
        ];
        for (action, steps) in table {
            for (state, expected) in State::ALL.into_iter().zip(steps) {
                assert_eq!(step(state, action), expected, "{action:?} when {state:?}");
            }
        }
    }
}
