//! One binary for the crate's integration tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

#[cfg(all(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod database;
mod decode;
#[cfg(all(feature = "axum", feature = "client", feature = "reqwest"))]
mod client;
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod database;
mod decode_cases;
mod derive;
mod dice;
#[cfg(feature = "axum")]
mod hostile;
#[cfg(feature = "axum")]
mod layer;
mod secrecy;
mod total;
