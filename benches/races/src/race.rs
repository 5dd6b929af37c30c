//! How a race is run: contestants take turns, so that a disturbance of the machine meets all of them.

use std::hint::black_box;
use std::time::Instant;

/// Many short rounds rather than a few long ones, because a long one is more often interrupted by the neighbours on a
/// busy machine, and the slowest contestant's most of all.
const ROUNDS: usize = 2_001;
const CALLS_PER_ROUND: u32 = 100;

/// One contestant and what it does once.
pub struct Contestant<'a> {
    pub name: &'static str,
    pub run: Box<dyn Fn() -> usize + 'a>,
}

/// Wraps what is raced. The number it returns keeps the work from being thought away.
pub fn contestant<'a>(name: &'static str, run: impl Fn() -> usize + 'a) -> Contestant<'a> {
    Contestant {
        name,
        run: Box::new(run),
    }
}

/// Prints the median of each contestant, its ratio to the first one's, and its allocations per call.
///
/// With `RACES_ONLY` set to `title: name` that contestant alone runs, `RACES_TIMES` times, to be counted by callgrind.
pub fn run(title: &str, contestants: &[Contestant<'_>]) {
    if let Ok(only) = std::env::var("RACES_ONLY") {
        let times: u32 = std::env::var("RACES_TIMES").unwrap().parse().unwrap();
        for contestant in contestants {
            if only == format!("{title}: {}", contestant.name) {
                (0..times).for_each(|_| {
                    black_box((contestant.run)());
                });
            }
        }
        return;
    }
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(ROUNDS); contestants.len()];
    for round in 0..=ROUNDS {
        // Another one begins each time: nobody always runs after the same neighbour's cache.
        for at in 0..contestants.len() {
            let at = (at + round) % contestants.len();
            let start = Instant::now();
            for _ in 0..CALLS_PER_ROUND {
                black_box((contestants[at].run)());
            }
            let nanos = start.elapsed().as_nanos() as f64 / f64::from(CALLS_PER_ROUND);
            if round > 0 {
                times[at].push(nanos);
            }
        }
    }
    let medians: Vec<f64> = times
        .into_iter()
        .map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        })
        .collect();
    println!(
        "{title:<44} {:>9} {:>7} {:>12}",
        "median ns", "ratio", "allocations"
    );
    for (contestant, median) in contestants.iter().zip(&medians) {
        let allocations = allocation_counter::measure(|| {
            black_box((contestant.run)());
        });
        println!(
            "  {:<42} {median:>9.0} {:>7.2} {:>12}",
            contestant.name,
            median / medians[0],
            allocations.count_total
        );
    }
    println!();
}
