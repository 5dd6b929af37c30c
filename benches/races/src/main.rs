//! Side-by-side races: each primitive of mainstay beside its peers, in one run on one machine.
//!
//! ```sh
//! cargo run --release --manifest-path benches/races/Cargo.toml -- errors
//! ```
//!
//! Compare the ratios of one run, never the times of two: machines differ, and so does one machine an hour
//! later. Before a race starts, it is checked that the contestants do the same work.

mod errors;
mod race;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let races: [(&str, fn()); 1] = [("errors", errors::race)];
    for name in &wanted {
        assert!(
            races.iter().any(|(known, _)| known == name),
            "no race is called `{name}`"
        );
    }
    for (name, race) in races {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            println!("# {name}\n");
            race();
        }
    }
}
