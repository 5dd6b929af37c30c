//! Repeating HTTP requests.

use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use super::{NonIdempotent, RepeatBody, Replay};
use crate::{attempt::Attempt, deadline::Deadline, hedge::Hedge, key};

/// The request header with the number of an attempt after the first: `2` for the first repetition.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-retry-attempt");

/// Repeats HTTP requests that are safe to repeat and whose body is at hand.
///
/// Safe are the idempotent methods (RFC 9110: GET, HEAD, OPTIONS, TRACE, PUT, DELETE) and, see [`NonIdempotent`],
/// requests with an idempotency key. At hand is a body that can be cloned, knows its size, and is not larger than
/// `max_bytes`, or a [`ReplayBody`](super::ReplayBody) that can be sent again; any other request gets one attempt.
/// `http_body_util::Full<Bytes>` and `Empty` share their bytes, so the copy costs the head only.
///
/// Each attempt carries its [`Attempt`] in the request's extensions, and those after the first tell the server their
/// number in [`ATTEMPT`], so that it can tell load from repeated load.
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

    #[cfg(feature = "reqwest")]
    pub(super) const fn limit(&self) -> u64 {
        self.max_bytes
    }

    pub(super) fn is_safe(&self, method: &Method, headers: &HeaderMap) -> bool {
        method.is_idempotent()
            || match self.non_idempotent {
                NonIdempotent::RequireIdempotencyKey => key::has_key(headers),
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

impl<B: RepeatBody> Replay<Request<B>> for HttpReplay {
    fn replay(&self, request: &Request<B>) -> Option<Request<B>> {
        if !self.is_safe(request.method(), request.headers()) {
            return None;
        }
        let body = request.body().repeat(self.max_bytes)?;
        Some(with_head_of(request, body))
    }

    fn is_whole(&self, copy: &Request<B>) -> bool {
        copy.body().is_whole()
    }

    fn stamp(&self, request: &mut Request<B>, attempt: Attempt) {
        if attempt.is_repeat() {
            let number = HeaderValue::from(attempt.number);
            request.headers_mut().insert(ATTEMPT, number);
        }
        request.extensions_mut().insert(attempt);
    }

    fn mark(&self, request: &mut Request<B>, hedge: Hedge) {
        request.extensions_mut().insert(hedge);
    }

    fn refresh(&self, request: &mut Request<B>, now: Instant) {
        if let Some(deadline) = request.extensions().get::<Deadline>().copied() {
            deadline.rewrite(request.headers_mut(), now);
        }
    }

    fn deadline(&self, request: &Request<B>) -> Option<Deadline> {
        request.extensions().get::<Deadline>().copied()
    }
}

/// A request with this body that is otherwise the same.
pub(super) fn with_head_of<B>(request: &Request<B>, body: B) -> Request<B> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}
