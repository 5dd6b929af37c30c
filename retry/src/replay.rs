//! May a request be sent again, and with what: the retry layer's view of a request.

use std::time::Instant;

use http_body::Body;

use crate::{deadline, deadline::Deadline, key, policy::Attempt};

/// Knows whether a request may be sent again, and copies it.
///
/// `None` means one attempt, never an error.
pub trait Replay<Req> {
    /// A copy to send later, if the request may be repeated at all.
    fn replay(&self, request: &Req) -> Option<Req>;

    /// Marks a request with the attempt it is about to make. Does nothing by default.
    fn stamp(&self, request: &mut Req, attempt: Attempt) {
        let _ = (request, attempt);
    }

    /// Brings up to date what a request says about the time, before each attempt after the first.
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

/// Repeats HTTP requests that are safe to repeat and whose body is at hand.
///
/// Safe are the idempotent methods (RFC 9110: GET, HEAD, OPTIONS, TRACE, PUT, DELETE) and, see [`NonIdempotent`],
/// requests with an idempotency key. At hand is a body that can be cloned, knows its size, and is not larger than
/// `max_bytes`; any other request gets one attempt. `http_body_util::Full<Bytes>` and `Empty` share their bytes, so
/// the copy costs the head only.
#[derive(Clone, Copy, Debug)]
pub struct HttpReplay {
    max_bytes: u64,
    non_idempotent: NonIdempotent,
}

impl HttpReplay {
    /// 1 MiB: more than a JSON request should have, little enough to hold for every call in flight.
    pub const MAX_BYTES: u64 = 1024 * 1024;

    /// Bodies up to [`MAX_BYTES`](Self::MAX_BYTES); other methods need a key.
    pub const fn new() -> Self {
        Self {
            max_bytes: Self::MAX_BYTES,
            non_idempotent: NonIdempotent::RequireIdempotencyKey,
        }
    }

    /// Largest body that is held for a repetition, in bytes.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// What to do about methods that are not idempotent.
    #[must_use]
    pub const fn non_idempotent(mut self, rule: NonIdempotent) -> Self {
        self.non_idempotent = rule;
        self
    }

    fn is_safe<B>(&self, request: &http::Request<B>) -> bool {
        request.method().is_idempotent()
            || match self.non_idempotent {
                NonIdempotent::RequireIdempotencyKey => key::has_key(request.headers()),
                NonIdempotent::Never => false,
                NonIdempotent::Always => true,
            }
    }
}

impl Default for HttpReplay {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Body + Clone> Replay<http::Request<B>> for HttpReplay {
    fn replay(&self, request: &http::Request<B>) -> Option<http::Request<B>> {
        let small = request
            .body()
            .size_hint()
            .upper()
            .is_some_and(|bytes| bytes <= self.max_bytes);
        (small && self.is_safe(request)).then(|| request.clone())
    }

    fn stamp(&self, request: &mut http::Request<B>, attempt: Attempt) {
        request.extensions_mut().insert(attempt);
    }

    fn refresh(&self, request: &mut http::Request<B>, now: Instant) {
        let deadline = request.extensions().get::<Deadline>().copied();
        if let Some(deadline) =
            deadline.filter(|_| request.headers().contains_key(deadline::HEADER))
        {
            deadline.write(request.headers_mut(), now);
        }
    }

    fn deadline(&self, request: &http::Request<B>) -> Option<Deadline> {
        request.extensions().get::<Deadline>().copied()
    }
}
