//! Metrics, through the `metrics` facade when that feature is on and nowhere otherwise. No keys, scopes or bodies: label
//! values are those of a short list.
#![cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "nobody listens")
)]

use std::time::Duration;

/// A keyed request, by what became of it: `ran`, `replayed`, `released`, or the code of a refusal. The replay rate is
/// `replayed` over all.
pub(crate) fn request(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("mainstay.idempotency.requests", "outcome" => outcome).increment(1);
}

/// How long a duplicate waited for the first request of its key, in seconds.
pub(crate) fn waited(time: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("mainstay.idempotency.wait.duration").record(time.as_secs_f64());
}

/// A delivery of a webhook: `first`, `duplicate` or `refused`.
pub(crate) fn delivery(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("mainstay.webhook.deliveries", "outcome" => outcome).increment(1);
}
