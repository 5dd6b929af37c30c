//! Repeating gRPC calls.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use http::{HeaderName, HeaderValue, Request};

use super::{HttpReplay, NonIdempotent, RepeatBody, Replay, http::with_head_of};
use crate::{attempt::Attempt, clock, deadline::Deadline, hedge::Hedge, key};

/// The request metadata with the number of attempts that went before, from gRFC A6.
pub const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Repeats gRPC calls that are known to bear it.
///
/// Every gRPC call is a POST, so nothing about a request says whether its method is idempotent. A call is repeated when
/// its method is [named](Self::methods), when [all](Self::every_method) are, or when its metadata has an
/// `idempotency-key`; none by default. gRFC A6 leaves the choice to the service config per method in the same way.
///
/// A `grpc-timeout`, such as tonic's `Request::set_timeout` writes, is for all attempts together: each further one says
/// what is left of it, and none begins that would have to wait longer.
///
/// tonic's bodies cannot be cloned: put a [`ReplayBodyLayer`](super::ReplayBodyLayer) above.
#[derive(Clone, Debug, Default)]
pub struct GrpcReplay {
    methods: Methods,
}

#[derive(Clone, Debug)]
enum Methods {
    Named(Arc<BTreeSet<Box<str>>>),
    Every,
}

impl Default for Methods {
    fn default() -> Self {
        Self::Named(Arc::default())
    }
}

impl GrpcReplay {
    /// Only calls with an idempotency key.
    pub fn new() -> Self {
        Self::default()
    }

    /// These too: a method as it stands in the path, `package.Service/Method`, or all of a service as
    /// `package.Service`. A slash in front does not matter. Replaces what was named before.
    #[must_use]
    pub fn methods<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let names = names.into_iter();
        let names = names.map(|name| name.as_ref().trim_matches('/').into());
        self.methods = Methods::Named(Arc::new(names.collect()));
        self
    }

    /// Every call. Only for a server that is known to tolerate it.
    #[must_use]
    pub fn every_method(mut self) -> Self {
        self.methods = Methods::Every;
        self
    }

    fn may_repeat<B>(&self, request: &Request<B>) -> bool {
        let named = match &self.methods {
            Methods::Every => true,
            Methods::Named(names) => {
                let path = request.uri().path().trim_start_matches('/');
                let service = path.split_once('/').map_or(path, |(service, _)| service);
                names.contains(path) || names.contains(service)
            }
        };
        named || key::has_key(request.headers())
    }
}

impl<B: RepeatBody> Replay<Request<B>> for GrpcReplay {
    fn replay(&self, request: &Request<B>) -> Option<Request<B>> {
        if !self.may_repeat(request) {
            return None;
        }
        let body = request.body().repeat(HttpReplay::MAX_BYTES)?;
        let mut copy = with_head_of(request, body);
        // The time began when the call did: a copy that only had the header would begin it anew.
        if let Some(asked) = Deadline::of_grpc(request.headers(), clock::now)
            && self.deadline(request).is_none_or(|ours| asked < ours)
        {
            copy.extensions_mut().insert(asked);
        }
        Some(copy)
    }

    fn is_whole(&self, copy: &Request<B>) -> bool {
        copy.body().is_whole()
    }

    fn stamp(&self, request: &mut Request<B>, attempt: Attempt) {
        if attempt.is_repeat() {
            let before = HeaderValue::from(attempt.number.saturating_sub(1));
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, before);
        }
        request.extensions_mut().insert(attempt);
    }

    fn mark(&self, request: &mut Request<B>, hedge: Hedge) {
        request.extensions_mut().insert(hedge);
    }

    fn refresh(&self, request: &mut Request<B>, now: Instant) {
        // The same headers say the time left on both: what is there is brought up to date, nothing is added.
        Replay::refresh(&HTTP, request, now);
    }

    fn deadline(&self, request: &Request<B>) -> Option<Deadline> {
        request.extensions().get::<Deadline>().copied()
    }
}

const HTTP: HttpReplay = HttpReplay::new().non_idempotent(NonIdempotent::Never);
