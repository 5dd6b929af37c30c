//! The layers, driven on paused time against a scripted server, and over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod allocations;
mod breaker_keyed;
mod breaker_layer;
mod breaker_pending;
mod cancellation;
mod clients;
mod deadline_layer;
mod grpc;
mod hedge_layer;
mod loopback;
mod plain;
mod problem;
mod replay_body;
mod retry_layer;
mod stack;
mod storm;
mod support;
mod throttle_layer;
#[cfg(feature = "tower")]
mod tower_policy;
