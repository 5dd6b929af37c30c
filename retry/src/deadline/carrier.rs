//! Where a request keeps its deadline, and how the server is told.

use std::time::Instant;

use super::{
    Deadline,
    wire::{grpc_timeout, is_grpc},
};

/// Knows how requests of one sort carry a deadline.
///
/// A closure `Fn(&mut Req, Deadline, Instant) -> Deadline` is one. The retry layer finds the deadline by
/// [`Replay::deadline`](crate::replay::Replay::deadline).
pub trait CarryDeadline<Req> {
    /// Gives a request a deadline: the one that comes in, or a sooner one that the request had before. It says which.
    fn carry(&self, request: &mut Req, deadline: Deadline, now: Instant) -> Deadline;
}

impl<F, Req> CarryDeadline<Req> for F
where
    F: Fn(&mut Req, Deadline, Instant) -> Deadline,
{
    fn carry(&self, request: &mut Req, deadline: Deadline, now: Instant) -> Deadline {
        self(request, deadline, now)
    }
}

/// In the extensions of an HTTP request, and in a header for the server. The default.
///
/// A [`Deadline`] already in the extensions counts too, and so does what a header says: the `grpc-timeout` of a gRPC
/// request, the [`HEADER`](super::HEADER) of another. The soonest holds.
#[derive(Clone, Copy, Debug)]
pub struct HttpDeadline {
    pub(super) told: bool,
}

impl<B> CarryDeadline<http::Request<B>> for HttpDeadline {
    fn carry(&self, request: &mut http::Request<B>, ours: Deadline, now: Instant) -> Deadline {
        let callers = request.extensions().get::<Deadline>().copied();
        let mut deadline = callers.map_or(ours, |callers| callers.min(ours));
        let grpc = is_grpc(request.headers());
        if grpc && let Some(asked) = grpc_timeout(request.headers()) {
            deadline = deadline.min(Deadline::after(now, asked));
        }
        if deadline.has_passed(now) {
            return deadline;
        }
        if callers != Some(deadline) {
            request.extensions_mut().insert(deadline);
        }
        if self.told
            && let Some(said) = deadline.write(request.headers_mut(), grpc, now)
            && callers.is_none()
        {
            // Somebody else's word, as of a request that is passed on: it holds if it is the sooner.
            deadline = deadline.or_sooner(&said, now);
            if deadline.has_passed(now) {
                return deadline;
            }
            request.extensions_mut().insert(deadline);
            deadline.write(request.headers_mut(), grpc, now);
        }
        deadline
    }
}

/// Nowhere: the call ends in time, and nothing below the layer knows when that is. For requests of any type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untold;

impl<Req> CarryDeadline<Req> for Untold {
    #[inline]
    fn carry(&self, _request: &mut Req, deadline: Deadline, _now: Instant) -> Deadline {
        deadline
    }
}
