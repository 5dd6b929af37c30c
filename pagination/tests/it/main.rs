//! Pages against real databases: SQLite always, Postgres where there is one.
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
mod collations;
mod concurrent;
mod cursor_memory;
mod cursors;
mod depth;
mod derive;
mod every_order;
mod expressions;
mod extractor;
mod fuzz;
mod kinds;
mod parents;
mod payments;
mod plans;
mod presets;
mod proof;
mod refusals;
mod streams;
mod support;
mod totals;
mod walks;
