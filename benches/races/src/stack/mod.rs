//! Layers together, as a client has them, around a service that succeeds.
//!
//! Five seconds for everything, three attempts from a budget, a circuit that opens after five failures in a row; tower
//! has no layer for the last.

mod generic;
mod web;

use crate::race::{is_counted, run};
use crate::service::{AtOnce, PendingOnce};

pub fn race() {
    if !is_counted() {
        generic::check();
        web::check();
    }
    run("deadline, retry, breaker", generic::contestants(AtOnce));
    run(
        "deadline, retry, breaker, pending once",
        generic::contestants(PendingOnce),
    );
    run(
        "HTTP: deadline, retry, breaker",
        web::contestants(&web::Web::default()),
    );
    run(
        "HTTP: deadline, retry, breaker, pending once",
        web::contestants(&web::Web::pending_once()),
    );
}

/// What stands in the table to tell the cost of the others from that of the service.
const ALONE: &str = "the service alone";

/// Attempts of three calls of a service that fails for good. The fifth failure opens the circuit, and what that
/// refuses is not tried again.
fn attempts(name: &str) -> [usize; 3] {
    if name == ALONE {
        [1, 1, 1]
    } else if name.contains("no breaker") {
        [3, 3, 3]
    } else {
        [3, 2, 0]
    }
}
