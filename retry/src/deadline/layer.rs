use std::time::Duration;

use tower_layer::Layer;

use super::{DeadlineService, HttpDeadline, at_most_never};

/// Gives every call a total time, attempts and waits together. See the [module docs](crate::deadline).
///
/// For HTTP requests, unless it is told by [`carried_by`](Self::carried_by) how requests of another type carry a
/// deadline. One that a request already has counts too: the sooner of the two holds, and none is ever lengthened. So a
/// server that got a deadline itself can hand it on to the calls it makes.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer<K = HttpDeadline> {
    total: Duration,
    carrier: K,
}

impl DeadlineLayer {
    /// At most `total` for a call. Zero refuses every call.
    pub const fn total(total: Duration) -> Self {
        Self {
            total: at_most_never(total),
            carrier: HttpDeadline { told: true },
        }
    }

    /// Whether the server is told the time left: in [`GRPC_TIMEOUT`](crate::deadline::GRPC_TIMEOUT) if the request is
    /// gRPC's, else in [`HEADER`](crate::deadline::HEADER). Default true.
    #[must_use]
    pub const fn propagate(mut self, propagate: bool) -> Self {
        self.carrier.told = propagate;
        self
    }
}

impl<K> DeadlineLayer<K> {
    /// For requests of another type than HTTP's: with a [`CarryDeadline`](super::CarryDeadline) of one's own, or with
    /// [`Untold`](super::Untold) where only this side is to know.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use mainstay_retry::{Deadline, DeadlineLayer, deadline::Untold};
    ///
    /// struct Query { text: String, until: Option<Deadline> }
    ///
    /// let any = DeadlineLayer::total(Duration::from_secs(5)).carried_by(Untold);
    /// let told = DeadlineLayer::total(Duration::from_secs(5)).carried_by(|query: &mut Query, ours: Deadline, _: Instant| {
    ///     let until = query.until.map_or(ours, |theirs| theirs.min(ours));
    ///     *query.until.insert(until)
    /// });
    /// # let _ = (any, told);
    /// ```
    #[must_use]
    pub fn carried_by<L>(self, carrier: L) -> DeadlineLayer<L> {
        DeadlineLayer {
            total: self.total,
            carrier,
        }
    }
}

impl<S, K: Clone> Layer<S> for DeadlineLayer<K> {
    type Service = DeadlineService<S, K>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService::new(inner, self.total, self.carrier.clone())
    }
}
