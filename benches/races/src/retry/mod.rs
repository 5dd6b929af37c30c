//! Retry: what it costs a call that succeeds, and one that fails once.
//!
//! Each contestant makes three attempts at most and, where it can, pays for them from a budget of its own kind, with the
//! settings that its documentation shows; waits are 100 ms doubling to 20 s with the jitter it has, unless the race is
//! about a failure without a wait.

mod functions;
pub mod layers;
mod web;

use crate::race::{Contestant, is_counted, run};
use crate::service::{AtOnce, Counted, FAIL, Flaky, PendingOnce};

pub fn race() {
    if !is_counted() {
        check();
    }
    run("layer, ready at once", layers::patient(AtOnce));
    run("layer, pending once", layers::patient(PendingOnce));
    run(
        "layer, one failure, no wait, success",
        layers::eager(Flaky::default()),
    );
    run("function, ready at once", functions::patient(AtOnce));
    run("function, pending once", functions::patient(PendingOnce));
    run(
        "function, one failure, no wait, success",
        functions::eager(Flaky::default()),
    );
    web::race();
}

/// All make three attempts of a call that fails and one of a call that does not; two if the second succeeds; and none
/// more than the first when the budget is spent.
fn check() {
    let inner = Counted::new(AtOnce);
    for contestants in [layers::patient, functions::patient] {
        for contestant in contestants(inner.clone()) {
            let name = contestant.name.clone();
            let mut contestant = contestant.prepare();
            assert_eq!((contestant.once(7), inner.take()), (8, 1), "{name}");
            let attempts = if tries_once(&name) { 1 } else { 3 };
            assert_eq!(
                (contestant.once(FAIL), inner.take()),
                (0, attempts),
                "{name}"
            );
        }
    }
    let flaky = Counted::new(Flaky::default());
    for contestants in [layers::eager, functions::eager] {
        for contestant in contestants(flaky.clone()) {
            let name = contestant.name.clone();
            let mut contestant = contestant.prepare();
            // More than any budget is filled with to begin with.
            for _ in 0..150 {
                assert_eq!((contestant.once(7), flaky.take()), (8, 2), "{name}");
            }
        }
    }
    for contestants in [layers::eager, functions::eager] {
        contestants(inner.clone())
            .into_iter()
            .filter(|contestant| !contestant.name.contains("no budget"))
            .for_each(|contestant| check_budget(&inner, contestant));
    }
}

/// A service that fails for good is soon asked once a call.
fn check_budget(inner: &Counted<AtOnce>, contestant: Contestant<'_>) {
    let name = contestant.name.clone();
    let mut contestant = contestant.prepare();
    for _ in 0..150 {
        contestant.once(FAIL);
    }
    inner.take();
    for _ in 0..10 {
        contestant.once(FAIL);
    }
    // Some budgets get a little with time.
    let attempts = inner.take();
    assert!((10..=12).contains(&attempts), "{name}: {attempts}");
}

/// What stands in the table to tell the cost of the others from that of the service.
fn tries_once(name: &str) -> bool {
    name == ALONE
}

const ALONE: &str = "the service alone";
