use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

use super::service::Rules;
use crate::{
    classify::Classify,
    deadline::Deadline,
    policy::{Attempt, is_final, last},
    replay::Replay,
    verdict::Verdict,
};

pin_project! {
    /// The outcome of the last attempt.
    ///
    /// # Cancel safety
    /// Dropping it drops the attempt or the wait under way. What was paid from the budget stays paid. The request may
    /// or may not have taken effect.
    #[must_use = "futures do nothing unless polled"]
    pub struct RetryFuture<S, Req, C, R>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S::Future>,
        rules: Arc<Rules<C, R>>,
        // What a further attempt needs; none when there will not be one.
        again: Option<Again<S, Req>>,
        repeated: bool,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Attempt { #[pin] future: F },
        Wait { #[pin] timer: Sleep },
        Ready,
    }
}

struct Again<S, Req> {
    service: S,
    spare: Req,
    attempt: Attempt,
    prev: Duration,
    deadline: Option<Deadline>,
}

impl<S, Req, C, R> RetryFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    pub(super) fn once(future: S::Future, rules: Arc<Rules<C, R>>) -> Self {
        Self {
            state: State::Attempt { future },
            rules,
            again: None,
            repeated: false,
        }
    }

    pub(super) fn repeatable(
        future: S::Future,
        rules: Arc<Rules<C, R>>,
        service: S,
        spare: Req,
        attempt: Attempt,
        deadline: Option<Deadline>,
    ) -> Self {
        let again = Again {
            service,
            spare,
            attempt,
            prev: Duration::ZERO,
            deadline,
        };
        Self {
            state: State::Attempt { future },
            rules,
            again: Some(again),
            repeated: false,
        }
    }
}

impl<S, Req, C, R> Future for RetryFuture<S, Req, C, R>
where
    S: Service<Req>,
    S::Error: 'static,
    C: Classify<S::Response, S::Error>,
    R: Replay<Req>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Rules { policy, replay } = &**this.rules;
        loop {
            match this.state.as_mut().project() {
                StateProj::Attempt { future } => {
                    let outcome = ready!(future.poll(cx));
                    let verdict = policy.judge(&outcome);
                    if matches!(verdict, Verdict::Success) {
                        return Poll::Ready(outcome);
                    }
                    let again = this.again.as_mut().filter(|_| !is_final(&outcome));
                    let wait = again.and_then(|again| {
                        let now = Instant::now().into_std();
                        policy.decide(verdict, again.attempt, &mut again.prev, again.deadline, now)
                    });
                    let (Some(wait), Some(again)) = (wait, this.again.as_mut()) else {
                        return Poll::Ready(last(outcome, *this.repeated));
                    };
                    again.attempt = again.attempt.next();
                    *this.repeated = true;
                    drop(outcome); // its connection is not held through the wait
                    // A timer of zero would still wait for the next tick of a millisecond.
                    let next = if wait.is_zero() {
                        State::Ready
                    } else {
                        State::Wait { timer: sleep(wait) }
                    };
                    this.state.set(next);
                }
                StateProj::Wait { timer } => {
                    ready!(timer.poll(cx));
                    this.state.set(State::Ready);
                }
                StateProj::Ready => {
                    if let Some(again) = this.again.as_mut() {
                        // An error here is not the attempt's but the service's: there is nobody left to ask.
                        if let Err(error) = ready!(again.service.poll_ready(cx)) {
                            return Poll::Ready(last(Err(error), true));
                        }
                    }
                    let Some(mut again) = this.again.take() else {
                        return Poll::Pending;
                    };
                    let spare = if again.attempt.is_last() {
                        None
                    } else {
                        replay.replay(&again.spare)
                    };
                    if spare.is_none() {
                        again.attempt.max = again.attempt.number;
                    }
                    let mut request = again.spare;
                    replay.refresh(&mut request, Instant::now().into_std());
                    replay.stamp(&mut request, again.attempt);
                    let future = again.service.call(request);
                    *this.again = spare.map(|spare| Again { spare, ..again });
                    this.state.set(State::Attempt { future });
                }
            }
        }
    }
}

impl<S, Req, C, R> fmt::Debug for RetryFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = self.again.as_ref().map(|again| again.attempt.number);
        f.debug_struct("RetryFuture")
            .field("attempt", &attempt)
            .finish_non_exhaustive()
    }
}
