//! The program as its users meet it: started, spoken to over HTTP, stopped, drilled.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests"
)]

mod drill;
mod operations;
mod payments;
mod problems;
mod service;
mod startup;
mod webhooks;
