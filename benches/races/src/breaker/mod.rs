//! Circuit breakers: what a closed one costs a call that succeeds, by rule, and an open one a call that it refuses.
//!
//! Three rules, as near as each contestant comes to them: five failures in a row, half of the last hundred calls, half
//! of at least twenty calls of the last ten seconds. An open circuit stays so for an hour.

mod functions;
pub mod layers;

use std::ops::RangeInclusive;

use crate::race::{Contestant, is_counted, run, run_at};
use crate::service::{AtOnce, Counted, FAIL, PendingOnce};

pub fn race() {
    if !is_counted() {
        check();
    }
    run("layer, five in a row", layers::in_a_row(AtOnce));
    run("layer, half of 100", layers::of_the_last(AtOnce));
    run(
        "layer, half of 100, pending once",
        layers::of_the_last(PendingOnce),
    );
    run("layer, half within 10 s", layers::over_time(AtOnce));
    run(
        "layer, half within 1 h, full",
        layers::over_time_full(AtOnce),
    );
    if !is_counted() {
        for calls in [100, 10_000, 1_000_000] {
            let title = "by calls in the window";
            run_at(
                title,
                Some(f64::from(calls)),
                layers::holding(AtOnce, calls),
            );
        }
    }
    run("layer, open", opened(layers::to_open(AtOnce)));
    run("function, five in a row", functions::in_a_row(AtOnce));
    run("function, half of 100", functions::of_the_last(AtOnce));
    run("function, half within 10 s", functions::over_time(AtOnce));
    run("function, open", opened(functions::to_open(AtOnce)));
}

/// The same, tripped.
fn opened(contestants: Vec<Contestant<'static>>) -> Vec<Contestant<'static>> {
    contestants
        .into_iter()
        .filter(|contestant| contestant.name != ALONE)
        .map(|contestant| contestant.after(FAILURES, FAIL))
        .collect()
}

/// Enough to open all whose rule is about failures in a row.
const FAILURES: u32 = 200;

/// What stands in the table to tell the cost of the others from that of the service.
const ALONE: &str = "the service alone";

/// The ten million calls of a window that is full.
const FULL: u32 = 10_000_000;

/// A name begins so, and so many failures reach the service before the circuit is open.
type Expected = (&'static str, RangeInclusive<usize>);

/// Each opens when its rule says so. Where a rule is another than the one the race is about, it says here which.
fn check() {
    let rest = |failures| ("", failures..=failures);
    for contestants in [layers::in_a_row, functions::in_a_row] {
        expect(1_000, contestants, &[rest(5)]);
    }
    let of_the_last = [
        // Its window starts anew after a hundred calls; until then, failures share it with the successes before them.
        ("hand-written", 50..=100),
        // Nothing ever leaves its window: half of all calls there ever were.
        ("tower-resilience", 1_000..=1_000),
        rest(50),
    ];
    for contestants in [layers::of_the_last, functions::of_the_last] {
        expect(1_000, contestants, &of_the_last);
    }
    let over_time = [
        // A moving average, heard when the whole time has passed for the first time.
        ("failsafe", 1_000..=1_000),
        // Is set up with a hundred successes.
        ("tower-resilience", 100..=100),
        rest(20),
    ];
    for contestants in [layers::over_time, functions::over_time] {
        expect(0, contestants, &over_time);
    }
}

fn expect(
    successes: usize,
    contestants: fn(Counted<AtOnce>) -> Vec<Contestant<'static>>,
    expected: &[Expected],
) {
    let inner = Counted::new(AtOnce);
    for contestant in contestants(inner.clone()) {
        let name = contestant.name.clone();
        if name == ALONE {
            continue;
        }
        let mut contestant = contestant.prepare();
        inner.take();
        for _ in 0..successes {
            assert_eq!((contestant.once(7), inner.take()), (8, 1), "{name}");
        }
        for _ in 0..1_000 {
            assert_eq!(contestant.once(FAIL), 0, "{name}");
        }
        let failures = inner.take();
        let expected = expected.iter().find(|(start, _)| name.starts_with(start));
        let (_, expected) = expected.unwrap();
        assert!(expected.contains(&failures), "{name}: {failures}");
    }
}
