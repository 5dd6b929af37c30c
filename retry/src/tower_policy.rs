//! The same rules as a policy of [`tower::retry::Retry`], for a stack that has that layer already.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::retry::Policy;

use crate::{
    attempt::Attempt,
    classify::Classify,
    clock,
    policy::{Repeat, RetryPolicy, is_final, mark},
    replay::Replay,
};

/// A [`RetryPolicy`] and a [`Replay`] as tower's [`Policy`]: the same verdicts, budget, waits and deadlines.
///
/// ```
/// use mainstay_retry::{HttpClassify, HttpReplay, RetryPolicy, TowerPolicy};
/// use tower::retry::RetryLayer;
///
/// let layer = RetryLayer::new(TowerPolicy::new(RetryPolicy::new(HttpClassify), HttpReplay::new()));
/// ```
///
/// Prefer [`RetryLayer`](crate::RetryLayer) where there is a choice. What tower's layer cannot do:
/// * it shows the policy only a copy of the request before the first attempt, so that one carries no
///   [`Attempt`];
/// * it keeps the failed response, and its connection, through the wait;
/// * it always waits until the service is ready: [`OnUnready`](crate::OnUnready) has no meaning here;
/// * it copies the request before the last attempt too, and does not ask about a request that cannot be copied: its
///   outcome credits no budget.
///
/// # Cancel safety
/// As [`RetryFuture`](crate::retry::RetryFuture): what was paid from the budget stays paid.
pub struct TowerPolicy<C, R> {
    rules: Arc<(RetryPolicy<C>, R)>,
    repeat: Option<Repeat>,
}

impl<C, R> TowerPolicy<C, R> {
    /// With these rules.
    pub fn new(policy: RetryPolicy<C>, replay: R) -> Self {
        Self {
            rules: Arc::new((policy, replay)),
            repeat: None,
        }
    }
}

impl<C, R> Clone for TowerPolicy<C, R> {
    fn clone(&self) -> Self {
        Self {
            rules: Arc::clone(&self.rules),
            repeat: self.repeat,
        }
    }
}

impl<C, R, Req, Res, E> Policy<Req, Res, E> for TowerPolicy<C, R>
where
    C: Classify<Res, E>,
    R: Replay<Req>,
    E: 'static,
{
    type Future = Pause;

    fn retry(&mut self, request: &mut Req, outcome: &mut Result<Res, E>) -> Option<Pause> {
        let (policy, replay) = &*self.rules;
        let failed = policy.judge(outcome, &self.repeat).err()?;
        let repeated = self.repeat.is_some();
        let goes_on = !is_final(outcome)
            && replay.is_whole(request)
            && policy
                .decide(
                    failed,
                    &mut self.repeat,
                    replay.deadline(request),
                    clock::now,
                )
                .is_some();
        let Some(next) = self.repeat.as_ref().filter(|_| goes_on) else {
            mark(outcome, repeated);
            return None;
        };
        if replay.deadline(request).is_some() {
            // As of the end of the wait, for this is the last sight of the request.
            let then = clock::now();
            replay.refresh(request, then.checked_add(next.wait).unwrap_or(then));
        }
        replay.stamp(request, Attempt::repeat(next, policy.attempts()));
        // A timer of zero would still wait for the next tick of a millisecond.
        let timer = (!next.wait.is_zero()).then(|| sleep(next.wait));
        Some(Pause { timer })
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        // For the last attempt too, though nobody will send it: tower asks about an outcome only if there is a copy.
        self.rules.1.replay(request)
    }
}

pin_project! {
    /// The wait before a further attempt.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Pause {
        #[pin]
        timer: Option<Sleep>,
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project().timer.as_pin_mut() {
            Some(timer) => timer.poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl<C, R> fmt::Debug for TowerPolicy<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerPolicy")
            .field("attempt", &Repeat::number(&self.repeat))
            .finish_non_exhaustive()
    }
}
