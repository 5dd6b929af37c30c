//! Three attempts, without a wait, paid from a budget of one atomic.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tower::Service;

use crate::service::TryClone;

const ATTEMPTS: u32 = 3;

/// Ten retries at most, and one for each success.
pub struct Tokens(AtomicU64);

impl Tokens {
    const FULL: u64 = 10;

    pub fn shared() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(Self::FULL)))
    }

    fn credit(&self) {
        if self.0.load(Relaxed) < Self::FULL {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn spend(&self) -> bool {
        let spend = |tokens: u64| tokens.checked_sub(1);
        self.0.fetch_update(Relaxed, Relaxed, spend).is_ok()
    }
}

/// `failed` says which outcomes are tried again.
#[derive(Clone)]
pub struct Retry<S, J> {
    inner: S,
    tokens: Arc<Tokens>,
    failed: J,
}

impl<S, J> Retry<S, J> {
    pub fn new(inner: S, tokens: Arc<Tokens>, failed: J) -> Self {
        Self {
            inner,
            tokens,
            failed,
        }
    }
}

impl<S, J, Req> Service<Req> for Retry<S, J>
where
    S: Service<Req> + Clone,
    J: Fn(&Result<S::Response, S::Error>) -> bool + Clone,
    Req: TryClone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RetryFuture<S, J, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let clone = self.inner.clone();
        let mut service = std::mem::replace(&mut self.inner, clone);
        let spare = request.try_clone();
        RetryFuture {
            future: service.call(request),
            service,
            spare,
            attempt: 1,
            tokens: Arc::clone(&self.tokens),
            failed: self.failed.clone(),
        }
    }
}

pin_project_lite::pin_project! {
    pub struct RetryFuture<S: Service<Req>, J, Req> {
        #[pin]
        future: S::Future,
        service: S,
        spare: Option<Req>,
        attempt: u32,
        tokens: Arc<Tokens>,
        failed: J,
    }
}

impl<S, J, Req> Future for RetryFuture<S, J, Req>
where
    S: Service<Req>,
    J: Fn(&Result<S::Response, S::Error>) -> bool,
    Req: TryClone,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let outcome = ready!(this.future.as_mut().poll(cx));
            if !(this.failed)(&outcome) {
                this.tokens.credit();
                return Poll::Ready(outcome);
            }
            let Some(request) = this.spare.take() else {
                return Poll::Ready(outcome);
            };
            if !this.tokens.spend() {
                return Poll::Ready(outcome);
            }
            *this.attempt += 1;
            if *this.attempt < ATTEMPTS {
                *this.spare = request.try_clone();
            }
            // A service that is not ready at once would need a state of its own here; these all are.
            ready!(this.service.poll_ready(cx))?;
            let future = this.service.call(request);
            this.future.set(future);
        }
    }
}

/// The same for a function.
pub async fn retry<T, E, Fut>(tokens: &Tokens, mut operation: impl FnMut() -> Fut) -> Result<T, E>
where
    Fut: Future<Output = Result<T, E>>,
{
    let mut attempt = 1;
    loop {
        match operation().await {
            Ok(answer) => {
                tokens.credit();
                return Ok(answer);
            }
            Err(error) => {
                if attempt >= ATTEMPTS || !tokens.spend() {
                    return Err(error);
                }
                attempt += 1;
            }
        }
    }
}
