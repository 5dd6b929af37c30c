//! The layers, driven on paused time against a scripted server, and once over a real socket.
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

mod breaker_keyed;
mod breaker_layer;
mod breaker_pending;
mod cancellation;
mod deadline_layer;
mod loopback;
mod plain;
mod retry_layer;
mod support;
