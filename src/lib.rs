//! Lazaret.
#![deny(rustdoc::broken_intra_doc_links)]

// vocabulary
pub mod metrics;
pub mod privacy;
pub mod mail;
pub mod verdict;

// content
pub mod message;
pub mod learn;

// seams
pub mod store;

// orchestration
pub mod scan;
