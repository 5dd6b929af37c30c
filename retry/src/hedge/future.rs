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

use super::{
    Hedge,
    service::Rules,
    tell::{self, Decision},
};
use crate::{
    classify::Classify,
    policy::{is_final, last},
    replay::Replay,
    verdict::{Kind, Verdict},
};

pin_project! {
    /// The first good answer of the attempt and its hedges.
    ///
    /// # Cancel safety
    /// Dropping it drops the attempt and its hedges. What was paid from the budget stays paid. The request may or may
    /// not have taken effect.
    #[must_use = "futures do nothing unless polled"]
    pub struct HedgeFuture<S, Req, C, R>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, C, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, C, R>
    where
        S: Service<Req>,
    {
        Plain { #[pin] future: S::Future },
        Race {
            #[pin]
            first: Option<S::Future>,
            // Boxed, for a place in each call's future would be empty in nearly all of them.
            hedges: Vec<Pin<Box<S::Future>>>,
            // Made when the first attempt was pending once: an answer at hand costs no timer.
            #[pin]
            timer: Option<Sleep>,
            again: Option<Again<S, Req>>,
            // What is returned when everything failed.
            failed: Option<Result<S::Response, S::Error>>,
            sent: u32,
            started: Option<Instant>,
            rules: Arc<Rules<C, R>>,
        },
        Done,
    }
}

/// What a further hedge needs; none when there will not be one.
struct Again<S, Req> {
    service: S,
    spare: Req,
    delay: Duration,
}

impl<S, Req, C, R> HedgeFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    pub(super) fn plain(future: S::Future) -> Self {
        Self {
            state: State::Plain { future },
        }
    }

    /// Without hedges, to learn how long it takes.
    pub(super) fn watched(
        future: S::Future,
        rules: Arc<Rules<C, R>>,
        started: Option<Instant>,
    ) -> Self {
        Self::race(future, rules, started, None)
    }

    pub(super) fn hedged(
        future: S::Future,
        rules: Arc<Rules<C, R>>,
        started: Option<Instant>,
        delay: Duration,
        service: S,
        spare: Req,
    ) -> Self {
        let again = Again {
            service,
            spare,
            delay,
        };
        Self::race(future, rules, started, Some(again))
    }

    fn race(
        future: S::Future,
        rules: Arc<Rules<C, R>>,
        started: Option<Instant>,
        again: Option<Again<S, Req>>,
    ) -> Self {
        Self {
            state: State::Race {
                first: Some(future),
                hedges: Vec::new(),
                timer: None,
                again,
                failed: None,
                sent: 0,
                started,
                rules,
            },
        }
    }
}

impl<S, Req, C, R> Future for HedgeFuture<S, Req, C, R>
where
    S: Service<Req>,
    S::Error: 'static,
    C: Classify<S::Response, S::Error>,
    R: Replay<Req>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let outcome = match state.as_mut().project() {
            StateProj::Plain { future } => return future.poll(cx),
            StateProj::Done => return Poll::Pending, // polled after it was ready
            StateProj::Race {
                mut first,
                hedges,
                mut timer,
                again,
                failed,
                sent,
                started,
                rules,
            } => loop {
                if let Some(future) = first.as_mut().as_pin_mut()
                    && let Poll::Ready(outcome) = future.poll(cx)
                {
                    first.set(None);
                    match rules.judge(&outcome, None) {
                        Standing::Answer => {
                            rules.learn(*started);
                            break outcome;
                        }
                        standing => keep(outcome, standing, failed, again),
                    }
                }
                if let Some(outcome) = poll_hedges(hedges, rules, failed, again, cx) {
                    tell::won();
                    if first.is_some() {
                        // It would have taken longer than this.
                        rules.learn(*started);
                    }
                    break outcome;
                }
                if first.is_none() && hedges.is_empty() {
                    match failed.take() {
                        Some(outcome) => break last(outcome, *sent > 0),
                        None => return Poll::Pending, // cannot be: what is not under way has failed
                    }
                }
                let Some(next) = again.as_ref() else {
                    timer.set(None);
                    return Poll::Pending;
                };
                if timer.is_none() {
                    match rules.wait(next, started.filter(|_| *sent == 0)) {
                        // A timer of zero would still wait for the next tick of a millisecond.
                        Some(Duration::ZERO) => {}
                        Some(wait) => timer.set(Some(sleep(wait))),
                        None => {
                            *again = None;
                            return Poll::Pending;
                        }
                    }
                }
                if let Some(timer) = timer.as_mut().as_pin_mut() {
                    ready!(timer.poll(cx));
                }
                timer.set(None);
                match rules.hedge(again, *sent, cx) {
                    Some(hedge) => hedges.push(hedge),
                    None => return Poll::Pending,
                }
                *sent += 1; // and the next round asks it
            },
        };
        // The losers go now, not when the caller gets round to dropping this.
        state.set(State::Done);
        Poll::Ready(outcome)
    }
}

/// A hedge costs what a retry after a timeout does: the attempt before it takes too long.
const PAID_AS: Kind = Kind::Timeout;

/// What an outcome is in the race.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Ends it.
    Answer,
    /// Another may do better.
    Failed,
    /// The same, and the server asks for patience.
    Patience,
    /// A refusal of our own: nobody was asked.
    Refused,
}

impl<C, R> Rules<C, R> {
    /// `paid` is what was paid for a hedge; nothing for the first attempt.
    fn judge<T, E: 'static>(&self, outcome: &Result<T, E>, paid: Option<Kind>) -> Standing
    where
        C: Classify<T, E>,
    {
        let verdict = self.classify.classify(outcome.as_ref());
        if self.settings.fills_budget {
            self.settings.budget.credit(verdict, paid);
        }
        match verdict {
            _ if is_final(outcome) => Standing::Refused,
            Verdict::Success | Verdict::Ignore | Verdict::Failure(_) => Standing::Answer,
            Verdict::Retryable(Kind::Throttled | Kind::Overloaded | Kind::InFlight, _)
            | Verdict::Retryable(_, Some(_)) => Standing::Patience,
            Verdict::Retryable(_, None) => Standing::Failed,
        }
    }

    fn learn(&self, started: Option<Instant>) {
        if let Some(started) = started {
            let now = Instant::now();
            let latency = now.duration_since(started);
            self.settings.delay.record(latency, now.into_std());
        }
    }

    /// The wait before the next hedge, if it ends before the deadline.
    fn wait<S, Req>(&self, next: &Again<S, Req>, started: Option<Instant>) -> Option<Duration>
    where
        R: Replay<Req>,
    {
        let deadline = self.replay.deadline(&next.spare);
        if started.is_none() && deadline.is_none() {
            return Some(next.delay);
        }
        let now = Instant::now();
        let taken = started.map_or(Duration::ZERO, |started| now.duration_since(started));
        let wait = next.delay.saturating_sub(taken);
        if deadline.is_some_and(|deadline| deadline.remaining(now.into_std()) <= wait) {
            Decision::NoTime.tell();
            return None;
        }
        Some(wait)
    }

    /// Sends a hedge, if everything allows it; else there will be none.
    fn hedge<S, Req>(
        &self,
        again: &mut Option<Again<S, Req>>,
        sent: u32,
        cx: &mut Context<'_>,
    ) -> Option<Pin<Box<S::Future>>>
    where
        S: Service<Req>,
        R: Replay<Req>,
    {
        let Again {
            mut service,
            spare,
            delay,
        } = again.take()?;
        let now = Instant::now().into_std();
        let deadline = self.replay.deadline(&spare);
        // Readiness before the budget: what is paid is not given back, a permit is.
        let decision = if deadline.is_some_and(|deadline| deadline.has_passed(now)) {
            Decision::NoTime
        } else if !self.replay.is_whole(&spare) {
            // The first attempt is still reading the body that a copy needs whole.
            Decision::NotWhole
        } else if !matches!(service.poll_ready(cx), Poll::Ready(Ok(()))) {
            Decision::NotReady
        } else if !self.settings.budget.try_spend(now, PAID_AS) {
            Decision::NoBudget
        } else {
            Decision::Sent
        };
        decision.tell();
        if decision != Decision::Sent {
            return None;
        }
        let (number, max) = (sent.saturating_add(1), self.settings.max_hedges);
        let more = (number < max).then(|| self.replay.replay(&spare)).flatten();
        let mut request = spare;
        self.replay.refresh(&mut request, now);
        self.replay.mark(&mut request, Hedge { number, max });
        let future = Box::pin(service.call(request));
        *again = more.map(|spare| Again {
            service,
            spare,
            delay,
        });
        Some(future)
    }
}

/// The first answer among the hedges. Those that failed leave the race.
fn poll_hedges<S, Req, C, R>(
    hedges: &mut Vec<Pin<Box<S::Future>>>,
    rules: &Rules<C, R>,
    failed: &mut Option<Result<S::Response, S::Error>>,
    again: &mut Option<Again<S, Req>>,
    cx: &mut Context<'_>,
) -> Option<Result<S::Response, S::Error>>
where
    S: Service<Req>,
    S::Error: 'static,
    C: Classify<S::Response, S::Error>,
{
    let mut index = 0;
    while let Some(hedge) = hedges.get_mut(index) {
        let Poll::Ready(outcome) = hedge.as_mut().poll(cx) else {
            index += 1;
            continue;
        };
        drop(hedges.swap_remove(index));
        match rules.judge(&outcome, Some(PAID_AS)) {
            Standing::Answer => return Some(outcome),
            standing => keep(outcome, standing, failed, again),
        }
    }
    None
}

/// The last failure is the one to return, but a real one rather than a refusal of our own.
fn keep<O, A>(outcome: O, standing: Standing, failed: &mut Option<O>, again: &mut Option<A>) {
    if standing != Standing::Failed {
        *again = None;
    }
    if standing != Standing::Refused || failed.is_none() {
        *failed = Some(outcome);
    }
}

impl<S, Req, C, R> fmt::Debug for HedgeFuture<S, Req, C, R>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hedges = match &self.state {
            State::Race { sent, .. } => Some(sent),
            State::Plain { .. } | State::Done => None,
        };
        f.debug_struct("HedgeFuture")
            .field("hedges", &hedges)
            .finish_non_exhaustive()
    }
}
