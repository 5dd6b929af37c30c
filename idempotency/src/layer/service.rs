//! Sorts requests: those that pass, those without a key, and those that run under one.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum_core::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::Scoped;
use super::config::Config;
use super::lazy::{self, Lazy};
use super::protocol::{BoxError, Ended, Protocol};
use super::run;

/// What [`IdempotencyLayer`](super::IdempotencyLayer) makes of a service.
pub struct IdempotencyService<I, P: Protocol> {
    inner: I,
    config: Arc<Config<P>>,
    scope: Scoped,
}

impl<I, P: Protocol> IdempotencyService<I, P> {
    pub(super) fn new(inner: I, config: Arc<Config<P>>, scope: Scoped) -> Self {
        Self {
            inner,
            config,
            scope,
        }
    }
}

impl<I, P, B, R> Service<Request<R>> for IdempotencyService<I, P>
where
    P: Protocol,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
    I: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    I::Future: Send + 'static,
    I::Error: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = I::Error;
    type Future = ResponseFuture<I::Future, I::Error, P>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let config = Config::of_route(&self.config, &request);
        let counts = config.methods.contains(request.method());
        if !counts || (!config.required && !request.headers().contains_key(&config.header)) {
            // What is axum's body already, stays as it is.
            let future = self.inner.call(request.map(Body::new));
            return ResponseFuture::passing(future, counts.then(|| Lazy::new(Arc::clone(config))));
        }
        let config = Arc::clone(config);
        self.keyed(config, request)
    }
}

impl<I, P: Protocol> IdempotencyService<I, P> {
    /// Apart, for its stack is large, and what passes needs little.
    #[inline(never)]
    fn keyed<B, R>(
        &mut self,
        config: Arc<Config<P>>,
        request: Request<R>,
    ) -> ResponseFuture<I::Future, I::Error, P>
    where
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
        I: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        I::Future: Send + 'static,
        I::Error: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // The clone has not been polled ready; the instance that was takes the call.
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        let scope = config.scope.clone();
        let scope = scope.unwrap_or_else(|| self.scope.clone());
        ResponseFuture::boxed(run::keyed(config, scope, inner, request.map(Body::new)))
    }
}

pin_project! {
    /// The future of [`IdempotencyService`].
    ///
    /// # Cancel safety
    /// Once the body of a keyed request has been read, the request runs in a task of its own: dropping this future
    /// loses the answer, not the work, and a retry gets the answer. Without a key the handler is dropped with it and its
    /// transaction rolled back, unless its commit has begun.
    pub struct ResponseFuture<F, E, P: Protocol> {
        #[pin]
        state: State<F, E, P>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, E, P: Protocol> {
        /// No key: the handler's own future.
        Passing { #[pin] future: F, lazy: Option<Lazy>, protocol: PhantomData<fn() -> P> },
        /// A key, or a commit to wait for. Boxed: it reads the body and awaits a spawned task, whose types have no name;
        /// beside two round trips to a database the allocation is not seen.
        Boxed { future: Boxed<E> },
    }
}

type Boxed<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<F, E, P: Protocol> ResponseFuture<F, E, P> {
    fn passing(future: F, lazy: Option<Lazy>) -> Self {
        Self {
            state: State::Passing {
                future,
                lazy,
                protocol: PhantomData,
            },
        }
    }

    fn boxed(future: impl Future<Output = Result<Response<Body>, E>> + Send + 'static) -> Self {
        Self {
            state: State::Boxed {
                future: Box::pin(future),
            },
        }
    }
}

impl<F, E, P, B> Future for ResponseFuture<F, E, P>
where
    P: Protocol,
    F: Future<Output = Result<Response<B>, E>>,
    E: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProjection::Boxed { future } => return future.as_mut().poll(cx),
                StateProjection::Passing { future, lazy, .. } => {
                    let polled = if lazy.is_some() {
                        let entered = lazy::enter(lazy);
                        let polled = future.poll(cx);
                        *lazy = entered.leave();
                        polled
                    } else {
                        future.poll(cx)
                    };
                    let polled = polled.map_ok(|response| response.map(Body::new));
                    if !matches!(lazy, Some(Lazy::Asked(_))) {
                        return polled;
                    }
                    match end::<P>(lazy, ready!(polled)?) {
                        Ended::Now(response) => return Poll::Ready(Ok(response)),
                        Ended::Later(ended) => state.set(State::Boxed {
                            future: Box::pin(ended.map(Ok)),
                        }),
                    }
                }
            }
        }
    }
}

/// Ends what the handler asked for. Apart, as what is keyed.
#[inline(never)]
fn end<P: Protocol>(lazy: &mut Option<Lazy>, response: Response<Body>) -> Ended {
    match lazy.take().and_then(Lazy::asked) {
        Some(asked) => P::end(asked, response),
        None => Ended::Now(response),
    }
}

impl<I: Clone, P: Protocol> Clone for IdempotencyService<I, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            config: Arc::clone(&self.config),
            scope: self.scope.clone(),
        }
    }
}

impl<I, P: Protocol> fmt::Debug for IdempotencyService<I, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService").finish_non_exhaustive()
    }
}

impl<F, E, P: Protocol> fmt::Debug for ResponseFuture<F, E, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
