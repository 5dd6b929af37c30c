#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::large_futures,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod abuse;
mod allocations;
mod app;
mod cancellation;
mod days;
mod db;
mod faults;
mod ietf;
mod inbox;
mod jobs;
mod jobs_leased;
mod layer;
mod layer_options;
mod leases;
mod leases_redis;
mod lost_commits;
mod mariadb;
mod model;
mod openapi;
mod optimistic;
mod processes;
mod races;
mod reaper;
mod round_trips;
mod stores;
mod webhooks;
