//! Stories that cross crates, and the servers that `tests/run` brings up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod examples_run;
mod figures;
mod one_call;
mod servers;
