//! The quarantine as a story: kept, found, decided, delivered, removed.

mod put;
mod release;
mod review;
mod search;

use bytes::Bytes;
use time::OffsetDateTime;
use time::macros::datetime;

use super::*;
use crate::mail::{Client, Direction, Envelope, Mail, TransactionId};
use crate::privacy::Redacted;
use crate::verdict::{Finding, Scan, Symbol};

pub(super) const NOW: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);
pub(super) const KEY: [u8; 32] = [5; 32];

/// A quarantine over a temporary folder, and what to reopen it with.
pub(super) struct House {
    folder: tempfile::TempDir,
    pub(super) bodies: Bodies,
    pub(super) quarantine: Quarantine,
}

pub(super) async fn open(
    folder: &std::path::Path,
    bodies: Bodies,
    key: [u8; 32],
) -> Result<(Quarantine, Recovered), Error> {
    let records = Records::open(&folder.join("records.db")).await.unwrap();
    let quarantine = Quarantine::open(records, bodies, &InstallationKey::new(key), Config::default()).await?;
    let recovered = quarantine.recover(NOW).await?;
    Ok((quarantine, recovered))
}

impl House {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bodies = Bodies::open(&folder.path().join("bodies")).unwrap();
        House::with(folder, bodies).await
    }

    pub(super) async fn with(folder: tempfile::TempDir, bodies: Bodies) -> Self {
        let (quarantine, _) = open(folder.path(), bodies.clone(), KEY).await.unwrap();
        House { folder, bodies, quarantine }
    }

    pub(super) async fn reopened(&self) -> (Quarantine, Recovered) {
        open(self.folder.path(), self.bodies.clone(), KEY).await.unwrap()
    }
}

pub(super) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// A message from mallory@evil.example, to be changed before it is put.
pub(super) struct Letter {
    pub(super) envelope: Envelope,
    pub(super) summary: Summary,
    pub(super) scan: Scan,
    pub(super) body: Bytes,
    pub(super) received_at: OffsetDateTime,
}

pub(super) fn letter(number: u8, recipients: &[&str]) -> Letter {
    Letter {
        envelope: Envelope {
            id: TransactionId::from_random([number; TransactionId::LEN]),
            direction: Direction::Inbound,
            client: Client { helo: "evil.example".into(), ..Client::new("192.0.2.7:2525".parse().unwrap()) },
            mail: Mail { reverse_path: Some(address("bounce@evil.example")), ..Mail::default() },
            recipients: recipients.iter().map(|text| address(text).into()).collect(),
        },
        summary: Summary {
            subject: Redacted::new(format!("Your invoice number {number}")),
            from_name: Redacted::new("Mallory Secretname".into()),
            from_address: Redacted::new("mallory@evil.example".into()),
            preview: Redacted::new("Please pay at once".into()),
            links: vec![SeenLink {
                text: Redacted::new("Pay".into()),
                target: Redacted::new("https://paylink.example/".into()),
            }],
            attachments: Redacted::new(vec!["statement.pdf".into()]),
        },
        scan: Scan {
            findings: vec![
                Finding::new(Symbol::fixed("HAM_SIGN"), -0.5, "a sign of ham"),
                Finding::new(
                    Symbol::fixed("URI_TEXT_MISMATCH"),
                    6.5,
                    "the link says paypal.com but goes to evil.example",
                ),
            ],
            ..Scan::default()
        },
        body: Bytes::from(format!("Subject: Your invoice number {number}\r\n\r\nPlease pay at once\r\n")),
        received_at: NOW + Duration::seconds(i64::from(number)),
    }
}

impl Letter {
    pub(super) fn arrival(&self) -> Arrival<'_> {
        Arrival {
            envelope: &self.envelope,
            recipients: &self.envelope.recipients,
            body: &self.body,
            summary: &self.summary,
            scan: &self.scan,
            own: &[],
            received_at: self.received_at,
        }
    }

    pub(super) async fn put(&self, quarantine: &Quarantine) -> EntryId {
        quarantine.put(self.arrival()).await.unwrap().entries()[0].clone()
    }
}

pub(super) async fn state(quarantine: &Quarantine, id: &EntryId) -> Option<State> {
    quarantine.find(&Scope::All, id).await.unwrap().map(|entry| entry.state)
}
