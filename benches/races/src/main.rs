//! Side-by-side races: each primitive of mainstay beside its peers, in one run on one machine.
//!
//! ```sh
//! cargo run --release --manifest-path benches/races/Cargo.toml -- errors retry
//! cargo run --release --manifest-path benches/races/Cargo.toml -- instructions errors retry # needs valgrind
//! ```
//!
//! Compare the ratios of one run, never the times of two: machines differ, and so does one machine an hour
//! later. Before a race starts, it is checked that the contestants do the same work.

#![allow(clippy::disallowed_methods, reason = "it is the clock of a race")]

mod breaker;
mod by_hand;
mod cursors;
mod errors;
mod instructions;
mod race;
mod retry;
mod service;
mod stack;
mod threads;
mod timer;
mod tower_policy;

/// The name of a race, and how to run it.
type Race = (&'static str, fn());

const RACES: [Race; 6] = [
    ("errors", errors::race),
    ("cursors", cursors::race),
    ("retry", retry::race),
    ("breaker", breaker::race),
    ("stack", stack::race),
    ("threads", threads::race),
];

fn main() {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    let counts = wanted.first().is_some_and(|first| first == "instructions");
    if counts {
        wanted.remove(0);
    }
    for name in &wanted {
        assert!(
            RACES.iter().any(|(known, _)| known == name),
            "no race is called `{name}`"
        );
    }
    let races = RACES
        .into_iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name));
    if counts {
        let names: Vec<_> = races.map(|(name, _)| name).collect();
        instructions::table(&names);
        return;
    }
    // Where contestants find tokio's clock and timers.
    let _context = timer::runtime().enter();
    for (name, race) in races {
        if !race::is_counted() {
            println!("# {name}\n");
        }
        results::begin(name);
        race();
    }
}
