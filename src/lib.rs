//! Lazaret: a mail gateway that scans, keeps what is doubtful, and loses nothing.
//!
//! A *lazaret* was the station where a ship waited until it was known to be clean. This one does that for
//! mail: an SMTP proxy that parses every inbound and outbound message, scores it with a rule set and a
//! Bayes filter, lets the clean ones through, and keeps the doubtful ones in quarantine until a person
//! releases or drops them.
//!
//! # The way of a message
//!
//! ```text
//! client MTA ──► ingress ─► smtp::server session ─► gateway::transaction
//!                                                     │  scan: message::parse, rules, learned
//!                                                     │  policy::decide, per recipient
//!                                                     │  journal: held by an earlier attempt? what is begun?
//!                        relay (next hops) ◄──────────┼───────────► quarantine
//!                                 └──── Custody ──────┴──── Custody ────┘
//!                                            journal: who holds it
//! client MTA ◄── reply, one for each recipient, built only from Custody
//! ```
//!
//! Clients of other filters come in through [`door`]: they are told what scanning found, and keep the mail. A
//! mail server that asks a milter is told what policy decides; for whom a message is kept, the quarantine has
//! it before.
//!
//! [`gateway::Transaction`] is that path on one page.
//!
//! # Invariants
//!
//! 1. **Custody.** A 2xx to the end of data is constructed only from proof, for each recipient, that
//!    somebody else holds the message durably: the next hop's own 2xx ([`relay::Accepted`]), the
//!    quarantine's commit ([`quarantine::Kept`]), or the journal's note of either in an earlier attempt
//!    ([`journal::Held`]). Where one reply stands for several recipients, all of them are proved. Anything
//!    unexpected is a 4xx. There is no queue of our own to lose.
//! 2. **The accepted bytes never change.** Header changes are a list of their own, applied once, on the
//!    way out ([`message::HeaderEdits`]).
//! 3. **Analysers find, policy decides.** Analysers return [`verdict::Finding`]s; only
//!    [`policy::decide`], a pure function, makes a [`verdict::Disposition`] of them. An analyser that
//!    fails adds [`verdict::Degraded`] and takes nothing away.
//! 4. **One disposition per recipient**, acted on once; never both kept and refused, never dropped in
//!    silence. The journal remembers what was done for whom until the client has heard of it, so that its
//!    retry repeats nothing; what may exist twice all the same is a line in the ledger.
//! 5. **Personal data passes through [`privacy`]** before it reaches a log or a metric, by type.
//! 6. **Everything is bounded**, with a named limit and a clear answer when it is reached.
//!
//! # The map
//!
//! A module uses only those above it; a test keeps it so.

// vocabulary
pub mod metrics;
pub mod privacy;
pub mod mail;
pub mod verdict;

// content: bytes in, values out; no socket, file, clock or randomness
pub mod smtp;
pub mod message;
pub mod learn;
pub mod rules;
pub mod policy;

// seams: what may be had from elsewhere
pub mod store;
pub mod dns;

// state
pub mod reputation;
pub mod accounts;
pub mod quarantine;
pub mod journal;

// edges
pub mod ingress;
pub mod relay;

// orchestration
pub mod scan;
pub mod gateway;

// surfaces
pub mod digest;
pub mod door;
pub mod web;

// assembly
pub mod config;
pub mod app;
pub mod cli;
