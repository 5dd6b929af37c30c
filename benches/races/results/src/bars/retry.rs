//! Retry, breaker and the stack of both, in the process; and a storm.

use super::row::{Row, at_most};
use super::{BY_HAND, OURS, peers, per, ratio};
use crate::measures::Measures;

const BUDGET: &str = "mainstay, token budget";

pub fn retry(m: &Measures) -> Vec<Row> {
    let ops = |name| m.counted("mainstay-retry", name);
    let success = ("retry", "layer, ready at once");
    let failure = ("retry", "layer, one failure, no wait, success");
    let ns = |(race, table): (&str, &str), name: &str| m.nanos(race, table, name);
    let storm = |name| m.get("storm", "recovered at 850 calls a second", name, "s");
    vec![
        at_most("retry, success", 80.0, "instructions")
            .of(ops("retry_success"))
            .beside(ops("retry_hand_written"))
            .peer(peers(m, success, "instructions", None)),
        at_most("retry, success: time", 1.4, "x by hand")
            .of(ratio(ns(success, BUDGET), ns(success, BY_HAND)))
            .beside(Some(1.0))
            .peer(per(ns(success, BY_HAND), peers(m, success, "ns", None))),
        at_most("retry, success: allocations", 0.0, "allocations")
            .of(m.allocations(success.0, success.1, BUDGET)),
        at_most("retry, one failure", 150.0, "instructions")
            .of(ops("retry_one_failure"))
            .beside(ops("retry_one_failure_hand_written"))
            .peer(peers(m, failure, "instructions", None)),
        at_most("retry, one failure: allocations", 0.0, "allocations")
            .of(m.allocations(failure.0, failure.1, BUDGET)),
        // A tick of tokio's timer is a million.
        at_most("retry, one failure: no tick of a timer", 1_000.0, "ns")
            .of(ns(failure, BUDGET))
            .beside(ns(failure, BY_HAND))
            .peer(peers(m, failure, "ns", None)),
        at_most("storm, with a budget", 15.0, "s")
            .of(storm("a budget of successes"))
            .beside(storm("no retries")),
        at_most("storm, with a breaker", 3.0, "s")
            .of(storm("a budget and a breaker"))
            .beside(storm("no retries")),
        at_most("storm, with deadlines", 1.0, "s")
            .of(storm("a budget and deadlines"))
            .beside(storm("no retries")),
    ]
}

pub fn breaker(m: &Measures) -> Vec<Row> {
    let ops = |name| m.counted("mainstay-retry", name);
    let counted = |table: &'static str| peers(m, ("breaker", table), "instructions", None);
    let by_hand = |table| m.get("breaker", table, BY_HAND, "instructions");
    let allocations = |table| m.allocations("breaker", table, OURS);
    let threads = |name| m.at("threads", "one breaker, half of 100", name, 2.0);
    let count = "layer, half of 100";
    let time = "layer, half within 10 s";
    let full = "layer, half within 1 h, full";
    let open = "layer, open";
    vec![
        at_most("breaker closed, count window", 60.0, "instructions")
            .of(ops("breaker_count"))
            .beside(by_hand(count))
            .peer(counted(count)),
        at_most("breaker closed, time window", 100.0, "instructions")
            .of(ops("breaker_time"))
            .beside(by_hand(time))
            .peer(counted(time)),
        at_most(
            "breaker closed, time window with 10 million calls",
            100.0,
            "instructions",
        )
        .of(ops("breaker_time_full"))
        .beside(by_hand(full))
        .peer(counted(full)),
        at_most("breaker closed: allocations", 0.0, "allocations").of(allocations(count)),
        at_most("breaker, two threads", 1.4, "x by hand")
            .of(ratio(threads(OURS), threads(BY_HAND)))
            .beside(Some(1.0))
            .peer(per(
                threads(BY_HAND),
                peers(m, ("threads", "one breaker, half of 100"), "ns", Some(2.0)),
            )),
        at_most("breaker open", 70.0, "instructions")
            .of(ops("breaker_reject_open"))
            .beside(by_hand(open))
            .peer(counted(open)),
        at_most("breaker open: allocations", 0.0, "allocations").of(allocations(open)),
    ]
}

pub fn stack(m: &Measures) -> Vec<Row> {
    let table = ("stack", "deadline, retry, breaker");
    vec![
        at_most("client stack, success", 300.0, "instructions")
            .of(m.counted("mainstay-retry", "stack_generic_deadline"))
            .beside(m.get(table.0, table.1, BY_HAND, "instructions"))
            .peer(peers(m, table, "instructions", None)),
        at_most("client stack, success: allocations", 0.0, "allocations")
            .of(m.allocations(table.0, table.1, OURS)),
    ]
}
