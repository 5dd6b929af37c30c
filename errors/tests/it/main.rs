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

#[cfg(feature = "axum")]
mod allocations;
#[cfg(feature = "axum")]
mod answer;
#[cfg(all(feature = "axum", feature = "client", feature = "reqwest"))]
mod client;
#[cfg(all(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod database;
mod decode;
mod decode_cases;
mod derive;
mod dice;
#[cfg(feature = "axum")]
mod edges;
#[cfg(feature = "tonic")]
mod grpc;
#[cfg(feature = "axum")]
mod headers;
#[cfg(feature = "axum")]
mod hostile;
#[cfg(feature = "axum")]
mod layer;
#[cfg(feature = "axum")]
mod localize;
#[cfg(feature = "axum")]
mod nested;
#[cfg(all(feature = "utoipa", feature = "axum"))]
mod openapi;
#[cfg(feature = "axum")]
mod pages;
#[cfg(feature = "axum")]
mod request_id;
#[cfg(feature = "axum")]
mod rfc9110;
#[cfg(feature = "axum")]
mod rfc9457;
mod secrecy;
#[cfg(feature = "axum")]
mod telemetry;
mod total;
