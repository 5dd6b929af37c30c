//! Metrics, through the `metrics` facade when that feature is on and nowhere otherwise. No keys, scopes or bodies: label
//! values are those of a short list.
#![cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "nobody listens")
)]

use std::time::Duration;

/// A keyed request, by what became of it: `ran`, `replayed`, `released`, or the code of a refusal. The replay rate is
/// `replayed` over all.
#[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "the layer's"))]
pub(crate) fn request(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("mainstay.idempotency.requests", "outcome" => outcome).increment(1);
}

/// How long a duplicate waited for the first request of its key, in seconds.
#[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "the layer's"))]
pub(crate) fn waited(time: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("mainstay.idempotency.wait.duration").record(time.as_secs_f64());
}

/// A delivery of a webhook: `first`, `duplicate` or `refused`.
pub(crate) fn delivery(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("mainstay.webhook.deliveries", "outcome" => outcome).increment(1);
}

/// Rows that the reaper deleted, by table: `keys`, `leases`, `inbox`; and `days` that it emptied.
pub(crate) fn reaped(table: &'static str, rows: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("mainstay.idempotency.reaped", "table" => table).increment(rows);
}

/// A claim of a lease, by what it found: `run`, `taken_over`, `replay`, `in_flight`, `mismatch`, `unknown` or `refused`; and what
/// became of attempts that did not get to their end: `fenced`, `lost`.
pub(crate) fn lease(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("mainstay.idempotency.leases", "outcome" => outcome).increment(1);
}

/// The age of a lease at its attempt's end, in seconds.
pub(crate) fn lease_age(age: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("mainstay.idempotency.lease.age").record(age.as_secs_f64());
}
