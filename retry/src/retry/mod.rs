//! Tries a call again, within reason.
//!
//! An attempt is followed by another only when all of this holds: the [verdict](crate::Verdict) is retryable, the
//! request may be [replayed](crate::Replay), attempts are left, the wait ends before the caller's
//! [deadline](crate::Deadline), and the [budget](crate::Budget) pays for it. Else the caller gets the last outcome as
//! it is: this layer makes no errors and changes none.
//!
//! A response that leads to another attempt is dropped before the wait, so that its connection is not held. Every
//! attempt after the first waits until the service is ready anew; only a [`DeadlineLayer`](crate::DeadlineLayer) above
//! cuts that wait off, unless [`OnUnready`](crate::OnUnready) says not to wait. A call that cannot be repeated costs no copy.

mod future;
mod keyed;
mod layer;
mod service;

pub use self::{
    future::RetryFuture,
    keyed::{BudgetKey, KeyedRetry, KeyedRetryLayer, PerHost},
    layer::RetryLayer,
    service::Retry,
};
