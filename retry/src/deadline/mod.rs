//! One absolute deadline for a logical call: carried in the request, told to the server, and kept.
//!
//! [`DeadlineLayer`] belongs at the top of a client stack. It ends the call when the time is over, whatever the layers
//! below are doing, and writes a [`Deadline`] into the request's extensions where they can read it: the retry layer
//! refuses at once a wait that could not end in time. The server is told the milliseconds that are left in
//! [`HEADER`], so that it can stop working for a caller who has gone; a server of ours reads that with
//! [`AcceptDeadlineLayer`].

mod accept;
mod future;
mod layer;
mod service;

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::retry_after;

pub use self::{
    accept::{AcceptDeadline, AcceptDeadlineLayer},
    future::DeadlineFuture,
    layer::DeadlineLayer,
    service::DeadlineService,
};

/// The request header with the time left, in whole milliseconds, rounded down.
///
/// A duration and not a date: the two machines need not agree on the time.
pub const HEADER: HeaderName = HeaderName::from_static("x-deadline-ms");

/// Far enough to mean never, near enough for every clock and timer to hold.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

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
        Self {
            at: now.checked_add(time.min(NEVER)).unwrap_or(now),
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

    /// Reads [`HEADER`]. What is not exactly one whole number of milliseconds is no deadline.
    pub(crate) fn read(headers: &HeaderMap, now: Instant) -> Option<Self> {
        let mut values = headers.get_all(HEADER).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => {
                retry_after::millis(value.as_bytes()).map(|time| Self::after(now, time))
            }
            _ => None,
        }
    }

    /// Writes the time left at `now` into [`HEADER`].
    pub(crate) fn write(self, headers: &mut HeaderMap, now: Instant) {
        let millis = u64::try_from(self.remaining(now).as_millis()).unwrap_or(u64::MAX);
        headers.insert(HEADER, HeaderValue::from(millis));
    }
}
