//! Lazaret.

pub mod metrics;
pub mod privacy;
pub mod mail;
pub mod verdict;
pub mod smtp;
pub mod message;
pub mod learn;
pub mod rules;
pub mod store;
pub mod accounts;
pub mod quarantine;
pub mod ingress;
pub mod relay;
pub mod scan;
pub mod digest;
pub mod web;
