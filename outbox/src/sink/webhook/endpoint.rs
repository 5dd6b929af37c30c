//! What a webhook's endpoint is known to be like beyond single answers: gone, or away.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::answer::Verdict;
use crate::{
    event::EventId,
    sink::{
        Outcome, SinkDown,
        streak::{Blame, Streak},
    },
};

/// The longest an endpoint is left alone because it asked for it: as the relay does with a message.
const ALONE_MAX: Duration = Duration::from_secs(3_600);

/// Why a disabled sink is down.
const GONE: &str = "the endpoint answered 410: disabled until it is enabled again";

/// Shared by the clones of a sink.
#[derive(Debug, Default)]
pub(super) struct Endpoint(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    gone: bool,
    streak: Streak,
    /// In an outage the endpoint has asked to be left alone until then.
    alone: Option<(Instant, SinkDown)>,
}

impl Endpoint {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state().gone
    }

    pub(super) fn enable(&self) {
        self.state().gone = false;
    }

    /// Whether anything may be sent to it now.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self) -> Result<(), SinkDown> {
        let state = self.state();
        if state.gone {
            return Err(SinkDown::new(GONE));
        }
        match &state.alone {
            Some((until, down)) if Instant::now() < *until => Err(down.clone()),
            _ => Ok(()),
        }
    }

    /// What becomes of the message that was answered so.
    ///
    /// # Errors
    /// When the answer is the endpoint's and not the message's.
    pub(super) fn judge(&self, id: EventId, verdict: Verdict) -> Result<Outcome, SinkDown> {
        let mut state = self.state();
        match verdict {
            Verdict::Message(outcome) => {
                state.streak.answered();
                state.alone = None;
                Ok(outcome)
            }
            Verdict::Gone => {
                state.gone = true;
                Err(SinkDown::new(GONE))
            }
            Verdict::Unclear { after, reason } => match state.streak.failed(id) {
                Blame::Message => Ok(Outcome::Retry { after, reason }),
                Blame::Sink => {
                    let down = SinkDown::new(reason);
                    let until = after.map(|after| Instant::now() + after.min(ALONE_MAX));
                    state.alone = until.map(|until| (until, down.clone()));
                    Err(down)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn unclear(after: Option<u64>) -> Verdict {
        Verdict::Unclear {
            after: after.map(Duration::from_secs),
            reason: "503".into(),
        }
    }

    fn id() -> EventId {
        Uuid::now_v7().into()
    }

    /// An endpoint that has failed three times, the last time asking for this wait.
    fn away(after: Option<u64>) -> Endpoint {
        let endpoint = Endpoint::default();
        for _ in 0..2 {
            let outcome = endpoint.judge(id(), unclear(Some(9)));
            let after = Some(Duration::from_secs(9));
            let reason = "503".into();
            assert_eq!(outcome, Ok(Outcome::Retry { after, reason }));
            assert_eq!(
                endpoint.check(),
                Ok(()),
                "those messages wait, and no other"
            );
        }
        assert_eq!(
            endpoint.judge(id(), unclear(after)),
            Err(SinkDown::new("503"))
        );
        endpoint
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_is_away_is_left_alone_for_as_long_as_it_asks() {
        let endpoint = away(Some(120));
        assert_eq!(endpoint.check(), Err(SinkDown::new("503")));
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(endpoint.check(), Ok(()));

        let endpoint = away(Some(u64::MAX));
        tokio::time::advance(ALONE_MAX).await;
        assert_eq!(endpoint.check(), Ok(()), "not for ever");

        assert_eq!(
            away(None).check(),
            Ok(()),
            "it is probed when the relay likes"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn any_other_answer_brings_it_back() {
        for outcome in [
            Outcome::Acked,
            Outcome::retry("500"),
            Outcome::reject("422"),
        ] {
            let endpoint = away(Some(120));
            let verdict = Verdict::Message(outcome.clone());
            assert_eq!(endpoint.judge(id(), verdict), Ok(outcome));
            assert_eq!(endpoint.check(), Ok(()));
            let next = endpoint.judge(id(), unclear(None));
            assert_eq!(next, Ok(Outcome::retry("503")));
        }
    }

    #[test]
    fn one_that_is_gone_stays_gone_whatever_it_answers_still() {
        let endpoint = Endpoint::default();
        let gone = Err(SinkDown::new(GONE));
        assert_eq!(endpoint.judge(id(), Verdict::Gone), gone);
        let late = Verdict::Message(Outcome::Acked);
        assert_eq!(endpoint.judge(id(), late), Ok(Outcome::Acked));
        assert!(endpoint.is_gone() && endpoint.check().is_err());
        endpoint.enable();
        assert_eq!(endpoint.check(), Ok(()));
    }
}
