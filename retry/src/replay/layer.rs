use std::task::{Context, Poll};

use http::Request;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::ReplayBody;

/// Makes the bodies of requests repeatable: see [`ReplayBody`]. Put it above [`RetryLayer`](crate::RetryLayer).
///
/// Not needed for bodies that can be cloned, such as `http_body_util::Full`. Below it the body is a [`ReplayBody`],
/// which a client with a body type of its own may want boxed again:
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
/// use mainstay_retry::{BoxError, ReplayBody, ReplayBodyLayer, RetryLayer};
/// use tower::{ServiceBuilder, service_fn};
/// # use bytes::Bytes;
/// # type OwnBody = UnsyncBoxBody<Bytes, BoxError>;
///
/// let client = service_fn(|request: Request<OwnBody>| async move { Ok::<_, BoxError>(Response::new(request.into_body())) });
/// let client = ServiceBuilder::new()
///     .layer(ReplayBodyLayer::new())
///     .layer(RetryLayer::http())
///     .map_request(|request: Request<ReplayBody<OwnBody>>| request.map(BodyExt::boxed_unsync))
///     .service(client);
/// # fn check<S: tower::Service<Request<OwnBody>>>(_: S) {}
/// # check(client);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReplayBodyLayer {
    max_bytes: usize,
}

impl ReplayBodyLayer {
    /// Keeps up to 64 KiB of each body.
    pub const fn new() -> Self {
        Self {
            max_bytes: super::body::MAX_BYTES,
        }
    }

    /// Most of a body that is kept, in bytes. A longer body gets one attempt.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }
}

impl Default for ReplayBodyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ReplayBodyLayer {
    type Service = ReplayBodyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReplayBodyService {
            inner,
            max_bytes: self.max_bytes,
        }
    }
}

/// A client whose bodies can be sent again. Made by [`ReplayBodyLayer`].
#[derive(Clone, Copy, Debug)]
pub struct ReplayBodyService<S> {
    inner: S,
    max_bytes: usize,
}

impl<S> ReplayBodyService<S> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, B> Service<Request<B>> for ReplayBodyService<S>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let max_bytes = self.max_bytes;
        self.inner
            .call(request.map(|body| ReplayBody::new(body, max_bytes)))
    }
}
