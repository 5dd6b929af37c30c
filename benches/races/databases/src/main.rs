//! Pages, idempotency and outbox beside their peers, on servers.
//!
//! ```sh
//! tests/run --only postgres,mariadb --exec \
//!     'cargo run --profile databases --manifest-path benches/races/Cargo.toml -p databases -- --quick pages'
//! ```
//!
//! Compare within one run only. Before a race it is checked that the contestants do the same work.

#![allow(clippy::disallowed_methods, reason = "it is the clock of a race")]

mod idempotency;
mod outbox;
mod pages;
mod servers;
mod turns;

use std::time::Instant;

#[tokio::main]
async fn main() {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if let [child, rest @ ..] = names.as_slice()
        && child == outbox::CHILD
    {
        return outbox::child(rest).await;
    }
    let quick = names.iter().any(|name| name == "--quick");
    names.retain(|name| name != "--quick");
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    servers::keep_versions().await;
    for race in ["pages", "idempotency", "outbox"] {
        if !wanted(race) {
            continue;
        }
        println!("# {race}\n");
        results::begin(race);
        let start = Instant::now();
        match race {
            "pages" => pages::race(quick).await,
            "idempotency" => idempotency::race(quick).await,
            _ => outbox::race(quick).await,
        }
        println!("({} s)\n", start.elapsed().as_secs());
    }
}
