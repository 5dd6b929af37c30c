//! May a request be sent again, and with what: the retry layer's view of a request.

mod body;
mod grpc;
mod http;
mod layer;
#[cfg(feature = "reqwest")]
mod reqwest;

use std::time::Instant;

pub use self::{
    body::{RepeatBody, ReplayBody},
    grpc::{GrpcReplay, PREVIOUS_ATTEMPTS},
    http::{ATTEMPT, HttpReplay},
    layer::{ReplayBodyLayer, ReplayBodyService},
};
use crate::{attempt::Attempt, deadline::Deadline, hedge::Hedge};

/// Knows whether a request may be sent again, and copies it.
///
/// `None` means one attempt, never an error.
pub trait Replay<Req> {
    /// A copy to send later, if the request may be repeated at all.
    fn replay(&self, request: &Req) -> Option<Req>;

    /// Whether a copy has by now all that it takes to send it. Asked after an attempt failed; if not, that attempt was
    /// the last. Always by default.
    fn is_whole(&self, copy: &Req) -> bool {
        let _ = copy;
        true
    }

    /// Marks a request with the attempt it is about to make. Does nothing by default.
    fn stamp(&self, request: &mut Req, attempt: Attempt) {
        let _ = (request, attempt);
    }

    /// Marks a request as a hedge. Does nothing by default.
    fn mark(&self, request: &mut Req, hedge: Hedge) {
        let _ = (request, hedge);
    }

    /// Brings up to date what a request with a [`deadline`](Self::deadline) says about the time, before each attempt
    /// after the first.
    fn refresh(&self, request: &mut Req, now: Instant) {
        let _ = (request, now);
    }

    /// When the caller stops waiting. No deadline by default.
    fn deadline(&self, request: &Req) -> Option<Deadline> {
        let _ = request;
        None
    }
}

/// Repeats any request that can be cloned. Whether repeating does harm is for the one who chooses it to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneReplay;

impl<Req: Clone> Replay<Req> for CloneReplay {
    fn replay(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// What to do about methods that are not idempotent, such as POST and PATCH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NonIdempotent {
    /// Repeat them when they carry an `Idempotency-Key`, by which the server tells a repetition. The default.
    #[default]
    RequireIdempotencyKey,
    /// Never repeat them.
    Never,
    /// Always repeat them. Only for a server that is known to tolerate it: a payment may be made twice.
    Always,
}
