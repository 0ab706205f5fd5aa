//! Signing in with a submission account: a password or a proof, held against what is stored.
//!
//! The answer takes the same work whether the name exists or not, and failures are limited by source and
//! by name before anything is looked at.

use std::future::Future;

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{LoginName, SCRAM_ITERATIONS, Submitter};
use crate::accounts::limit::{Kind, Source};
use crate::accounts::password::{DECOY, verify};
use crate::accounts::{Accounts, Error, PASSWORD_LIMIT_BYTES};
use crate::smtp::sasl::{self, Proof, Proven, ScramKeys};

/// What came of a sign-in.
#[derive(Debug)]
pub enum Verdict<T = Submitter> {
    /// It is right.
    Accepted(T),
    /// It is wrong, there is no such account, or it is disabled.
    Refused,
    /// This source, or everybody together with this name, has failed too often; nothing was looked at.
    Limited,
}

/// What came of a SCRAM sign-in: on success the account, and what our own signature is made of.
pub type ScramVerdict = Verdict<(Submitter, Proven)>;

impl Accounts {
    /// Signs in with a name and a password.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn verify_plain(
        &self,
        name: &str,
        password: &Zeroizing<String>,
        source: Source,
        now: OffsetDateTime,
    ) -> Result<Verdict, Error> {
        self.limited(name, source, now, async {
            let found = match LoginName::parse(name) {
                Ok(name) => self.find_submitter(&name).await?,
                Err(_) => None,
            };
            let stored = match &found {
                Some((_, secret)) => Zeroizing::new(secret.password_hash.clone()),
                None => Zeroizing::new(DECOY.to_owned()),
            };
            let prepared = match password.len() <= PASSWORD_LIMIT_BYTES {
                true => sasl::prepare(password).unwrap_or_default(),
                false => Zeroizing::default(),
            };
            let is_right = self.on_hashing_thread(move || Ok(verify(&prepared, &stored))).await?;
            Ok(found.map(|(submitter, _)| submitter).filter(|found| is_right && !found.is_disabled))
        })
        .await
    }

    /// Returns the SCRAM keys of a name; for one that nobody has, keys that look like others.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn scram_keys(&self, name: &str) -> Result<ScramKeys, Error> {
        let Ok(name) = LoginName::parse(name) else {
            return Ok(ScramKeys::of_nobody(&self.token_key, name, SCRAM_ITERATIONS));
        };
        let of_nobody = ScramKeys::of_nobody(&self.token_key, name.as_str(), SCRAM_ITERATIONS);
        Ok(match self.find_submitter(&name).await? {
            Some((_, secret)) => secret.scram_keys(),
            None => of_nobody,
        })
    }

    /// Signs in with the proof that ends a SCRAM exchange.
    ///
    /// # Errors
    /// A store's failure.
    pub async fn verify_scram(
        &self,
        proof: &Proof,
        source: Source,
        now: OffsetDateTime,
    ) -> Result<ScramVerdict, Error> {
        self.limited(proof.name(), source, now, async {
            let Some(proven) = proof.verify() else { return Ok(None) };
            let Ok(name) = LoginName::parse(proof.name()) else { return Ok(None) };
            let found = self.submitter(&name).await?.filter(|found| !found.is_disabled);
            Ok(found.map(|submitter| (submitter, proven)))
        })
        .await
    }

    /// Runs somebody else's check of a name and a password under the same limits; `None` of `check` is a
    /// failure that counts, an error is none.
    ///
    /// # Errors
    /// What `check` failed with, or a store's failure.
    pub async fn limited<T, E: From<Error>>(
        &self,
        name: &str,
        source: Source,
        now: OffsetDateTime,
        check: impl Future<Output = Result<Option<T>, E>>,
    ) -> Result<Verdict<T>, E> {
        // A name that none can be is counted as it came.
        let parsed = LoginName::parse(name);
        let name = parsed.as_ref().map_or(name, LoginName::as_str);
        let source = source.as_subject();
        let subjects = [(Kind::SubmissionFromSource, source.as_str()), (Kind::SubmissionForName, name)];
        let Some(under_way) = self.enter(subjects, now).await? else {
            return Ok(Verdict::Limited);
        };
        match check.await? {
            Some(accepted) => Ok(Verdict::Accepted(accepted)),
            None => {
                self.record_failure(under_way, now).await?;
                Ok(Verdict::Refused)
            }
        }
    }
}
