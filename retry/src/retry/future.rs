use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::service::Rules;
use crate::{
    attempt::Attempt,
    classify::Classify,
    clock,
    policy::{Failed, OnUnready, Repeat, is_final, last},
    replay::Replay,
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
        state: State<S::Future, Result<S::Response, S::Error>>,
        rules: Arc<Rules<C, R>>,
        // What a further attempt needs; none when there will not be one.
        again: Option<Again<S, Req>>,
        // None while the first attempt is under way, or before it.
        repeat: Option<Repeat>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, O> {
        Attempt { #[pin] future: F },
        // The last outcome is kept only by those who want it back when the service is not ready.
        Wait { #[pin] timer: Sleep, kept: Option<O> },
        // Between two attempts: a further one is due, and the service has said that it will wake us.
        Unready,
    }
}

struct Again<S, Req> {
    service: S,
    spare: Req,
}

impl<S, Req, C, R> RetryFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn once(future: S::Future, rules: Arc<Rules<C, R>>) -> Self {
        Self {
            state: State::Attempt { future },
            rules,
            again: None,
            repeat: None,
        }
    }

    #[inline]
    pub(super) fn repeatable(
        future: S::Future,
        rules: Arc<Rules<C, R>>,
        service: S,
        spare: Req,
    ) -> Self {
        Self {
            state: State::Attempt { future },
            rules,
            again: Some(Again { service, spare }),
            repeat: None,
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
            let kept = match this.state.as_mut().project() {
                StateProj::Attempt { future } => {
                    let outcome = ready!(future.poll(cx));
                    let Err(failed) = policy.judge(&outcome, this.repeat) else {
                        return Poll::Ready(outcome);
                    };
                    let repeated = this.repeat.is_some();
                    // The attempt is over: what it may still hold, a permit or the body, is what the next one needs.
                    this.state.set(State::Unready);
                    let wait = after(this.rules, failed, &outcome, this.again, this.repeat);
                    let Some(wait) = wait else {
                        return Poll::Ready(last(outcome, repeated));
                    };
                    let kept = match policy.unready() {
                        OnUnready::ReturnLast => Some(last(outcome, repeated)),
                        OnUnready::Wait => {
                            drop(outcome); // its connection is not held through the wait
                            None
                        }
                    };
                    // A timer of zero would still wait for the next tick of a millisecond.
                    if !wait.is_zero() {
                        let timer = sleep(wait);
                        this.state.set(State::Wait { timer, kept });
                        continue;
                    }
                    kept
                }
                StateProj::Wait { timer, kept } => {
                    ready!(timer.poll(cx));
                    kept.take()
                }
                StateProj::Unready => None,
            };
            // Both are there: whoever comes here has something to go on with.
            let (Some(again), Some(repeat)) = (this.again.as_mut(), this.repeat.as_ref()) else {
                return Poll::Pending;
            };
            match (again.service.poll_ready(cx), kept) {
                (Poll::Ready(Ok(())), _) => {}
                // The error is not the attempt's but the service's: there is nobody left to ask.
                (Poll::Ready(Err(error)), _) => return Poll::Ready(last(Err(error), true)),
                (Poll::Pending, Some(outcome)) => return Poll::Ready(outcome),
                (Poll::Pending, None) => {
                    this.state.set(State::Unready);
                    return Poll::Pending;
                }
            }
            let spare = if repeat.number < policy.attempts() {
                replay.replay(&again.spare)
            } else {
                None
            };
            let max = if spare.is_some() {
                policy.attempts()
            } else {
                repeat.number
            };
            let request = &mut again.spare;
            if replay.deadline(request).is_some() {
                replay.refresh(request, clock::now());
            }
            replay.stamp(request, Attempt::repeat(repeat, max));
            let future = if let Some(spare) = spare {
                let request = mem::replace(request, spare);
                again.service.call(request)
            } else {
                let Some(Again { mut service, spare }) = this.again.take() else {
                    return Poll::Pending;
                };
                service.call(spare)
            };
            this.state.set(State::Attempt { future });
        }
    }
}

/// The wait before the next attempt, if there is one.
#[inline(always)]
fn after<S, Req, C, R, T, E: 'static>(
    rules: &Rules<C, R>,
    failed: Failed,
    outcome: &Result<T, E>,
    again: &Option<Again<S, Req>>,
    repeat: &mut Option<Repeat>,
) -> Option<Duration>
where
    R: Replay<Req>,
{
    let Again { spare, .. } = again.as_ref()?;
    // A copy whose body is still on its way in cannot be sent, nor can one that was too long to keep.
    if is_final(outcome) || !rules.replay.is_whole(spare) {
        return None;
    }
    let deadline = rules.replay.deadline(spare);
    rules.policy.decide(failed, repeat, deadline, clock::now)
}

impl<S, Req, C, R> fmt::Debug for RetryFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture")
            .field("attempt", &Repeat::number(&self.repeat))
            .finish_non_exhaustive()
    }
}
