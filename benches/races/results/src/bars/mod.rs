//! The bars: what was promised, and whether it is held. A module for each primitive says which they are.

mod errors;
mod idempotency;
mod outbox;
mod pages;
mod retry;
mod row;
mod table;

pub use row::{Row, number};
pub use table::table;

use crate::measures::Measures;

pub fn rows(m: &Measures) -> Vec<Row> {
    [
        retry::retry(m),
        retry::breaker(m),
        retry::stack(m),
        pages::pages(m),
        pages::cursors(m),
        idempotency::idempotency(m),
        outbox::enqueue(m),
        outbox::relay(m),
        errors::errors(m),
        errors::faults(m),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const OURS: &str = "mainstay";
const BY_HAND: &str = "hand-written";

/// What stands in a table to be compared with, and is nobody's library.
const NOT_PEERS: [&str; 8] = [
    "mainstay",
    "hand-written",
    "by hand",
    "the service alone",
    "axum::Json",
    "reqwest-middleware",
    "raw",
    "bare",
];

/// Those of a table that are peers, in a column or without one.
fn peers(
    m: &Measures,
    (race, table): (&str, &str),
    unit: &str,
    at: Option<f64>,
) -> Vec<(String, f64)> {
    m.table(race, table)
        .filter(|row| row.unit == unit && row.at == at)
        .filter(|row| !NOT_PEERS.iter().any(|start| row.name.starts_with(start)))
        .map(|row| (row.name.clone(), row.value))
        .collect()
}

/// The same as ratios to one figure.
fn per(one: Option<f64>, peers: Vec<(String, f64)>) -> Vec<(String, f64)> {
    one.map(|one| {
        peers
            .into_iter()
            .map(|(name, value)| (name, value / one))
            .collect()
    })
    .unwrap_or_default()
}

fn ratio(over: Option<f64>, under: Option<f64>) -> Option<f64> {
    Some(over? / under?)
}

/// What a crate's own test or the drill has printed.
fn fact(m: &Measures, name: &str) -> Option<f64> {
    m.table("facts", "facts")
        .filter(|fact| fact.name == name)
        .last()
        .map(|fact| fact.value)
}
