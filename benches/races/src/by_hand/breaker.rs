//! A breaker of one word: zero while closed, else the time at which one call may see whether the other side is back.
//!
//! Its rules are what one gets with an atomic or two. The windows do not slide but start anew, and under contention a
//! failure may be counted in the window after its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tower::Service;

/// When to open.
pub trait Rule: Send + Sync + 'static {
    /// Counts a success.
    fn good(&self);

    /// Counts a failure; whether it was one too many.
    fn bad(&self) -> bool;
}

/// So many failures without a success between them.
pub struct InARow {
    failures: AtomicU32,
    limit: u32,
}

impl InARow {
    pub fn new(limit: u32) -> Self {
        Self {
            failures: AtomicU32::new(0),
            limit,
        }
    }
}

impl Rule for InARow {
    fn good(&self) {
        // Read first: healthy threads write nothing.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    fn bad(&self) -> bool {
        self.failures.fetch_add(1, Relaxed) + 1 >= self.limit
    }
}

/// Away from the words that others only read.
#[repr(align(128))]
struct Apart(AtomicU64);

/// Half of so many calls; then all are forgotten.
pub struct OfTheLast {
    // Calls in the upper half, failures in the lower.
    counts: Apart,
    calls: u64,
}

impl OfTheLast {
    pub fn new(calls: u64) -> Self {
        Self {
            counts: Apart(AtomicU64::new(0)),
            calls,
        }
    }

    fn count(&self, failures: u64) -> u64 {
        let counts = self.counts.0.fetch_add(1 << 32 | failures, Relaxed);
        if counts >> 32 >= self.calls {
            self.counts.0.store(0, Relaxed);
        }
        (counts & u64::from(u32::MAX)) + failures
    }
}

impl Rule for OfTheLast {
    fn good(&self) {
        self.count(0);
    }

    fn bad(&self) -> bool {
        self.count(1) >= self.calls / 2
    }
}

/// Half of at least twenty calls of the same stretch of time.
pub struct OverTime {
    started: Instant,
    length: u64,
    ends: AtomicU64,
    counts: Apart,
}

impl OverTime {
    const CALLS_MIN: u64 = 20;

    pub fn new(length: Duration) -> Self {
        Self {
            started: Instant::now(),
            length: length.as_nanos() as u64,
            ends: AtomicU64::new(0),
            counts: Apart(AtomicU64::new(0)),
        }
    }

    fn count(&self, failures: u64) -> u64 {
        let now = self.started.elapsed().as_nanos() as u64;
        if now >= self.ends.load(Relaxed) {
            self.ends.store(now + self.length, Relaxed);
            self.counts.0.store(0, Relaxed);
        }
        let added = 1 << 32 | failures;
        self.counts.0.fetch_add(added, Relaxed) + added
    }
}

impl Rule for OverTime {
    fn good(&self) {
        self.count(0);
    }

    fn bad(&self) -> bool {
        let counts = self.count(1);
        let (calls, failures) = (counts >> 32, counts & u64::from(u32::MAX));
        calls >= Self::CALLS_MIN && failures * 2 >= calls
    }
}

/// What all calls share.
pub struct Circuit<R> {
    started: Instant,
    closed_or_until: AtomicU64,
    rule: R,
}

const WAIT: Duration = Duration::from_secs(3_600);

impl<R: Rule> Circuit<R> {
    pub fn shared(rule: R) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            closed_or_until: AtomicU64::new(0),
            rule,
        })
    }

    /// A call of a function.
    pub fn call<T, E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<T, Rejected<E>> {
        let closed = self.admit().ok_or(Rejected::Open)?;
        let outcome = f();
        match &outcome {
            Ok(_) => self.good(closed),
            Err(_) => self.bad(),
        }
        outcome.map_err(Rejected::Inner)
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Whether a call is let in, and if so, whether the circuit is closed.
    fn admit(&self) -> Option<bool> {
        match self.closed_or_until.load(Relaxed) {
            0 => Some(true),
            until => self.probe(until),
        }
    }

    #[inline]
    fn probe(&self, until: u64) -> Option<bool> {
        let now = self.now();
        let next = now + WAIT.as_nanos() as u64;
        let may = now >= until
            && self
                .closed_or_until
                .compare_exchange(until, next, Relaxed, Relaxed)
                .is_ok();
        may.then_some(false)
    }

    fn good(&self, closed: bool) {
        if !closed {
            self.closed_or_until.store(0, Relaxed);
        }
        self.rule.good();
    }

    fn bad(&self) {
        if self.rule.bad() {
            let until = self.now() + WAIT.as_nanos() as u64;
            self.closed_or_until.store(until, Relaxed);
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Rejected<E> {
    #[error("the circuit is open")]
    Open,
    #[error(transparent)]
    Inner(E),
}

/// Whether this is a failure, and not one of the circuit's own.
pub fn is_inner<T, E>(outcome: &Result<T, Rejected<E>>) -> bool {
    matches!(outcome, Err(Rejected::Inner(_)))
}

/// `failed` says which outcomes count against the other side.
pub struct Breaker<S, R, J> {
    inner: S,
    circuit: Arc<Circuit<R>>,
    failed: J,
}

impl<S: Clone, R, J: Clone> Clone for Breaker<S, R, J> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            circuit: Arc::clone(&self.circuit),
            failed: self.failed.clone(),
        }
    }
}

impl<S, R, J> Breaker<S, R, J> {
    pub fn new(inner: S, circuit: Arc<Circuit<R>>, failed: J) -> Self {
        Self {
            inner,
            circuit,
            failed,
        }
    }
}

impl<S, R, J, Req> Service<Req> for Breaker<S, R, J>
where
    S: Service<Req>,
    R: Rule,
    J: Fn(&Result<S::Response, S::Error>) -> bool + Clone,
{
    type Response = S::Response;
    type Error = Rejected<S::Error>;
    type Future = BreakerFuture<S::Future, R, J>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Rejected::Inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let state = match self.circuit.admit() {
            None => State::Rejected,
            Some(closed) => State::Admitted {
                future: self.inner.call(request),
                circuit: Arc::clone(&self.circuit),
                failed: self.failed.clone(),
                closed,
            },
        };
        BreakerFuture { state }
    }
}

pin_project_lite::pin_project! {
    pub struct BreakerFuture<F, R, J> {
        #[pin]
        state: State<F, R, J>,
    }
}

pin_project_lite::pin_project! {
    #[project = StateProj]
    enum State<F, R, J> {
        Rejected,
        Admitted {
            #[pin]
            future: F,
            circuit: Arc<Circuit<R>>,
            failed: J,
            closed: bool,
        },
    }
}

impl<F, R, J, T, E> Future for BreakerFuture<F, R, J>
where
    F: Future<Output = Result<T, E>>,
    R: Rule,
    J: Fn(&Result<T, E>) -> bool,
{
    type Output = Result<T, Rejected<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Rejected => Poll::Ready(Err(Rejected::Open)),
            StateProj::Admitted {
                future,
                circuit,
                failed,
                closed,
            } => {
                let outcome = ready!(future.poll(cx));
                if failed(&outcome) {
                    circuit.bad();
                } else {
                    circuit.good(*closed);
                }
                Poll::Ready(outcome.map_err(Rejected::Inner))
            }
        }
    }
}
