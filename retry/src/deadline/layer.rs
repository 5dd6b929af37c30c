use std::time::Duration;

use tower_layer::Layer;

use super::DeadlineService;

/// Gives every call a total time, attempts and waits together. See the [module docs](crate::deadline).
///
/// A [`Deadline`](crate::Deadline) already in the request's extensions counts too: the sooner of the two holds. So
/// a server that got a deadline itself can hand it on to the calls it makes. So does the `grpc-timeout` of a gRPC request
/// that has one, and the [`HEADER`](crate::deadline::HEADER) of another: neither is ever lengthened.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) total: Duration,
    pub(super) propagate: bool,
}

impl DeadlineLayer {
    /// At most `total` for a call. Zero refuses every call.
    pub const fn total(total: Duration) -> Self {
        Self {
            settings: Settings {
                total,
                propagate: true,
            },
        }
    }

    /// Whether the server is told the time left: in [`GRPC_TIMEOUT`](crate::deadline::GRPC_TIMEOUT) if the request is
    /// gRPC's, else in [`HEADER`](crate::deadline::HEADER). Default true.
    #[must_use]
    pub const fn propagate(mut self, propagate: bool) -> Self {
        self.settings.propagate = propagate;
        self
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService::new(inner, self.settings)
    }
}
