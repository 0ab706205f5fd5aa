//! Tests of the whole program: the binary, real clients and servers around it, the tree itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod accounts;
mod chaos;
mod clock;
mod custody;
mod demo;
mod door;
mod evaluate;
mod faithful;
mod faults;
mod learning;
mod milter;
mod next_hop;
mod parts;
mod postfix;
mod program;
mod reload;
mod resolver;
mod rules;
mod scripted;
mod secure;
mod sign_in;
mod slow;
mod submission;
mod third_party;
mod tidy;
mod vitals;
mod web;
mod wire;
