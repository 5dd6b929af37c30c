//! What a failure leaves on the spans around it, under the names of the OpenTelemetry conventions.

use tracing::{Id, Span};

use crate::{Error, Problem};

/// Marks the current span and the one in which the error was made, and names the one the line belongs to.
pub(super) fn mark(problem: &Problem, error: Option<&Error>) -> Option<Id> {
    let current = Span::current();
    record(&current, problem);
    match error.map(Error::origin) {
        Some(origin) if !origin.is_disabled() && origin.id() != current.id() => {
            record(origin, problem);
            origin.id()
        }
        _ => current.id(),
    }
}

/// A span takes these only if it was declared with them.
fn record(span: &Span, problem: &Problem) {
    span.record("error.type", problem.code());
    if problem.status() >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}
