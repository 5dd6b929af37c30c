//! One absolute deadline for a logical call: carried in the request, told to the server, and kept.
//!
//! [`DeadlineLayer`] belongs at the top of a client stack. It ends the call when the time is over, whatever the layers
//! below are doing, and writes a [`Deadline`] into the request's extensions where they can read it: the retry layer
//! refuses at once a wait that could not end in time. The server is told the time that is left, in [`HEADER`] or, for
//! gRPC, in [`GRPC_TIMEOUT`], so that it can stop working for a caller who has gone.
//!
//! A server of ours reads both with [`AcceptDeadlineLayer`], which refuses work whose time is over before it has begun.
//! From there the deadline goes on: as an argument of the handler (feature `axum`), into the extensions of the requests
//! that the handler makes, and to its database with [`Deadline::statement_timeout`].

mod accept;
mod carrier;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod layer;
mod service;
mod statement;
mod wire;

use std::time::{Duration, Instant};

#[cfg(feature = "axum")]
pub use self::extract::DeadlineRejection;
pub use self::{
    accept::{AcceptBody, AcceptDeadline, AcceptDeadlineFuture, AcceptDeadlineLayer},
    carrier::{CarryDeadline, HttpDeadline, Untold},
    future::DeadlineFuture,
    layer::DeadlineLayer,
    service::DeadlineService,
    statement::StatementTimeout,
    wire::{GRPC_TIMEOUT, HEADER},
};

/// Far enough to mean never, near enough for every clock and timer to hold.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

const fn at_most_never(time: Duration) -> Duration {
    if time.as_secs() < NEVER.as_secs() {
        time
    } else {
        NEVER
    }
}

/// The instant after which nobody waits for the answer any more. Found in request extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    /// A deadline at this instant of the monotonic clock.
    pub const fn at(instant: Instant) -> Self {
        Self { at: instant }
    }

    /// A deadline `time` after `now`. More than 30 years is 30 years.
    pub fn after(now: Instant, time: Duration) -> Self {
        Self::after_total(now, at_most_never(time))
    }

    /// [`after`](Self::after) a time that is not too long.
    #[inline]
    fn after_total(now: Instant, total: Duration) -> Self {
        Self {
            at: now.checked_add(total).unwrap_or(now),
        }
    }

    /// A deadline `time` from now, on tokio's clock.
    pub fn within(time: Duration) -> Self {
        Self::after(tokio::time::Instant::now().into_std(), time)
    }

    /// The instant itself.
    pub const fn instant(self) -> Instant {
        self.at
    }

    /// The time left at `now`; zero when it has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// Whether it has passed at `now`.
    pub fn has_passed(self, now: Instant) -> bool {
        self.at <= now
    }
}
