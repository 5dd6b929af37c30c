//! What is remembered of a request until its answer is there, and the id the two share.

use std::cell::Cell;
use std::convert::Infallible;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use super::{REQUEST_ID, RequestIds, Shared};
use crate::RequestId;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What is remembered of a request. Header values share their bytes with the request, so nothing is allocated.
pub(super) struct Asked {
    id: Option<RequestId>,
    /// Of a call that succeeds, nobody needs it taken apart.
    traceparent: Option<HeaderValue>,
    pub(super) accept_language: Option<HeaderValue>,
    pub(super) is_head: bool,
}

impl Asked {
    /// Notes what the answer will need, and leaves the request with one sound `x-request-id` or with none.
    pub(super) fn of<B>(request: &mut Request<B>, shared: &Shared) -> Self {
        let id = given(request.headers());
        if id.is_none() {
            request.headers_mut().remove(&REQUEST_ID);
        }
        let headers = request.headers();
        let mut asked = Self {
            traceparent: match id {
                Some(_) => None,
                None => only(headers, &TRACEPARENT).cloned(),
            },
            id,
            accept_language: match shared.localize {
                Some(_) => headers.get(header::ACCEPT_LANGUAGE).cloned(),
                None => None,
            },
            is_head: request.method() == Method::HEAD,
        };
        if shared.request_ids == RequestIds::OnArrival {
            let id = asked.id().clone();
            request.headers_mut().insert(REQUEST_ID, id.to_header());
            request.extensions_mut().insert(id);
        }
        asked
    }

    /// The id of the request, made now if nobody made one.
    pub(super) fn id(&mut self) -> &RequestId {
        let traceparent = &self.traceparent;
        self.id.get_or_insert_with(|| {
            let trace = traceparent.as_ref().and_then(RequestId::from_traceparent);
            // Of a layer inside of another, the outer one answers too.
            settle(|| trace)
        })
    }

    /// The id of the request, if it came with one or somebody asked for it.
    pub(super) fn known_id(&self) -> Option<&RequestId> {
        self.id.as_ref()
    }

    /// Runs a part of the inner service. An id that is made in there by [`RequestId`] as an extractor is
    /// that of the answer: handed over through the thread, because a place in the request would be allocated
    /// for each of them. `run` must not unwind.
    pub(super) fn around<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let outer = CURRENT.try_with(|current| current.replace(Current::Inside(self.id.take())));
        let done = run();
        // Without the thread's own data, which goes when the thread does, there is nothing to hand over.
        let Ok(mut outer) = outer else { return done };
        if let Current::Inside(id) = CURRENT.replace(Current::Outside) {
            self.id = id;
        }
        if let Current::Inside(unknown @ None) = &mut outer {
            unknown.clone_from(&self.id);
        }
        CURRENT.set(outer);
        done
    }
}

/// The request that this thread works on.
enum Current {
    Outside,
    Inside(Option<RequestId>),
}

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current::Outside) };
}

/// The id that the layer will answer with: `found`, unless it has one; made, if neither is there.
fn settle(found: impl FnOnce() -> Option<RequestId>) -> RequestId {
    let make = || found().unwrap_or_else(RequestId::generate);
    let current = CURRENT.try_with(|current| current.replace(Current::Outside));
    let Ok(Current::Inside(id)) = current else {
        return make();
    };
    let id = id.unwrap_or_else(make);
    CURRENT.set(Current::Inside(Some(id.clone())));
    id
}

/// A header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// The id in the request's header.
fn given(headers: &HeaderMap) -> Option<RequestId> {
    only(headers, &REQUEST_ID).and_then(RequestId::from_header)
}

/// The id in the headers, its own or the trace's.
fn told(headers: &HeaderMap) -> Option<RequestId> {
    let traced = || only(headers, &TRACEPARENT).and_then(RequestId::from_traceparent);
    given(headers).or_else(traced)
}

/// The id of the request: the one in its `x-request-id`, else the trace id of its `traceparent`, else one that is made
/// now, which [`ProblemLayer`](super::ProblemLayer) then puts into the answer. `Option<RequestId>` makes none.
///
/// Asked for in another task than the one the layer is polled in, or without the layer, an id that is made is of this
/// place alone.
impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(given(&parts.headers).unwrap_or_else(|| settle(|| told(&parts.headers))))
    }
}

/// The id the request came with; none is made.
impl<S: Send + Sync> OptionalFromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(told(&parts.headers))
    }
}
