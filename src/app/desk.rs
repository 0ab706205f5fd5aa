//! What commands need of an installation, without serving: a scanner, a reviewer, a teacher.
//!
//! They work beside a running gateway. It has the state store to itself, so a command folds the lessons
//! of the records store, and what a command writes there the gateway follows.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::Notify;

use super::build::{lists, open_quarantine, scan_config};
use super::rules::rules;
use super::{Folder, now, open_state};
use crate::config::Config;
use crate::gateway::Review;
use crate::learn::Label;
use crate::privacy::InstallationKey;
use crate::reputation::Reputation;
use crate::scan::{By, Learned, Scanner};
use crate::store::{Appended, Memory, Records, Teacher};

/// A reviewer's desk on the command line.
pub struct Desk {
    /// Carries out decisions.
    pub review: Review,
}

/// Opens the data folder beside a gateway that may be serving from it.
///
/// # Errors
/// What could not be opened.
pub async fn desk(config: &Config) -> anyhow::Result<Desk> {
    let folder = Folder::open(&config.data_dir).await?;
    let quarantine = open_quarantine(config, &folder).await?;
    let learned = learned(&folder).await?;
    Ok(Desk {
        review: Review { quarantine, learned, sharing: config.learn_share, wake: Arc::new(Notify::new()) },
    })
}

impl Desk {
    /// Teaches a batch of messages in one transaction, as everybody's.
    ///
    /// # Errors
    /// A store's failure: nothing of the batch was learned.
    pub async fn learn(&self, label: Label, messages: Vec<Bytes>) -> anyhow::Result<Appended> {
        Ok(self.review.learned.learn(label, messages, &By::All(Teacher::Cli), now()).await?)
    }
}

/// Folds the log of lessons anew and stores the model, in a data folder from which nobody serves. Returns the lessons in
/// force: ham, spam.
///
/// # Errors
/// What could not be opened: the state store is locked while a gateway is running.
pub async fn rebuild_model(config: &Config) -> anyhow::Result<(u32, u32)> {
    let folder = Folder::open(&config.data_dir).await?;
    let state = open_state(folder.state()).await.context("the gateway must not be running for this")?;
    let learned = Learned::open(&folder.records, state, &folder.key).await?;
    Ok(learned.rebuild().await?.lessons())
}

/// Makes a scanner for messages on disk. A data folder that does not exist is not made; nothing has been
/// learned then.
///
/// # Errors
/// What could not be opened.
pub async fn scanner(config: &Config) -> anyhow::Result<Scanner> {
    let (learned, key) = if config.data_dir.join("lazaret.key").exists() {
        let folder = Folder::open(&config.data_dir).await?;
        let learned = learned(&folder).await?;
        learned.load().await?;
        (learned, folder.key)
    } else {
        let (records, key) = (Records::in_memory().await?, InstallationKey::new([0; 32]));
        (Learned::open(&records, Arc::new(Memory::default()), &key).await?, key)
    };
    let reputation = Reputation::new(config.reputation, &key);
    let reputation = reputation.with_lists(lists(config, reputation.key()).await?);
    Scanner::new(scan_config(config), rules(config)?, learned, reputation)
        .context("starting the threads that scan")
}

async fn learned(folder: &Folder) -> anyhow::Result<Learned> {
    let state = Arc::new(Memory::default());
    Ok(Learned::open(&folder.records, state, &folder.key).await?)
}
