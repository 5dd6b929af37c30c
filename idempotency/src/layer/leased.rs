//! The Leased protocol: the claim is committed before the handler runs, its steps while it does, and the answer last.

use std::sync::Arc;
use std::time::Duration;

use axum_core::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tokio::time::timeout;
use tower_service::Service;

use super::answer::{refuse, replay_stored, to_keep};
use super::config::Config;
use super::handler::{Unanswered, handle};
use super::lazy::Asked;
use super::protocol::{BoxError, Ended, Runs};
use super::run::Ran;
use crate::inflight::Ticket;
use crate::leased::{Admitted, GivenBack, Home, Lease, LeasedStore, Leases, Work};
use crate::local::Kept;
use crate::policy::Keep;
use crate::store::Claim;
use crate::{Error, ErrorKind, IdempotencyError, Wait, telemetry};

impl<L: LeasedStore> Runs for Leases<L> {
    type Keys = Self;

    /// No store wakes those who wait for another process's lease, so whoever gets here does not wait.
    async fn run<I, B>(
        config: Arc<Config<Self>>,
        inner: I,
        mut request: Request<Bytes>,
        claim: Claim,
        ticket: Ticket,
        _wait: Wait,
    ) -> Ran<I::Error>
    where
        I: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        I::Future: Send + 'static,
        I::Error: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let attempt = Attempt {
            leases: config.keys.of_layer(config.stale_after, &config.tracker),
            config: &config,
            claim: &claim,
        };
        let mut lease = match attempt.claim(request.body()).await {
            Ok(Admitted::Run(lease)) => lease,
            Ok(Admitted::Replay(found)) => {
                return Ran::Answer(replay_stored(&config, &claim, found));
            }
            Err(refusal) => return Ran::Answer(refuse(Some(&claim), refusal)),
        };
        ticket.running(claim.fingerprint);
        lease.on_commit(config.on_commit.clone());
        let home = Home::new(lease);
        request.extensions_mut().insert(home.clone());
        let answer = handle(config.limits, inner, request).await;
        // From here on the key may pass to another attempt, and if it is free to another request.
        ticket.claiming();
        match (answer, home.take()) {
            (Ok(answered), Some(lease)) => Ran::Answer(attempt.end(lease, answered).await),
            (Ok(_), None) => Ran::Answer(attempt.kept_lease()),
            (Err(Unanswered::Panicked(panic)), lease) => {
                if let Some(lease) = lease {
                    _ = lease.give_back().await;
                }
                Ran::Panicked(panic)
            }
            (Err(Unanswered::ServiceError(error)), lease) => {
                if let Some(lease) = lease {
                    _ = lease.give_back().await;
                }
                Ran::ServiceError(error)
            }
            (Err(Unanswered::Refused(refusal)), Some(lease)) => {
                Ran::Answer(attempt.give_up(lease, refusal).await)
            }
            (Err(Unanswered::Refused(_)), None) => Ran::Answer(attempt.kept_lease()),
        }
    }

    /// Without a key there is no lease to end.
    fn end(_asked: Asked, response: Response<Body>) -> Ended {
        Ended::Now(response)
    }
}

/// One attempt, seen from the layer.
struct Attempt<'a, L: LeasedStore> {
    leases: Leases<L>,
    config: &'a Config<Leases<L>>,
    claim: &'a Claim,
}

impl<L: LeasedStore> Attempt<'_, L> {
    async fn claim(&self, body: &Bytes) -> Result<Admitted<L>, IdempotencyError> {
        let work = match &self.config.completed_by {
            Some(handler) => Work {
                handler: handler.to_string(),
                input: body.clone(),
            },
            None => Work::default(),
        };
        // Longer than any statement of the store's takes that is going to be answered.
        let limits = &self.config.limits;
        let patience = limits
            .handler_time_max
            .saturating_add(Duration::from_secs(5));
        let claimed = match timeout(patience, self.leases.claim(self.claim, &work)).await {
            Ok(claimed) => claimed,
            Err(elapsed) => Err(Error::new(ErrorKind::Unavailable, elapsed)),
        };
        match claimed {
            Ok(claimed) => claimed.admitted(),
            // The claim may be there, with the name of who is to carry it out.
            Err(lost) if lost.kind() == ErrorKind::Unavailable && !work.handler.is_empty() => {
                Err(IdempotencyError::OutcomeUnknown(lost))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The handler has answered: keeps that, or gives the key back.
    async fn end(&self, lease: Lease<L>, answered: Response<Bytes>) -> Response<Body> {
        let status = answered.status();
        // A store that failed the attempt may be all that the answer speaks of.
        let keep = if lease.is_unsettled() && status.is_server_error() {
            Keep::Release
        } else {
            self.config.policy.keep(status.as_u16())
        };
        // Whether with effects or without makes no difference: the steps are done.
        if keep == Keep::Release {
            let untouched = lease.is_untouched();
            return match lease.give_back().await {
                GivenBack::Fenced => self.answer_of_another().await,
                given if self.is_over(given, untouched) => {
                    telemetry::request("released");
                    answered.map(Body::from)
                }
                _ => self.goes_on(format!("status {status}, and what was begun is completed")),
            };
        }
        let Some(recorded) = to_keep(self.config, self.claim, &answered) else {
            return self.give_up(lease, IdempotencyError::ResponseNotKept).await;
        };
        let patience = self.config.limits.resolve_time_max;
        let recording = self.leases.record(&lease, self.claim, &recorded, patience);
        match recording.await {
            Ok(Kept::Ours) => {
                telemetry::request("ran");
                answered.map(Body::from)
            }
            Ok(Kept::Theirs(found)) => replay_stored(self.config, self.claim, found),
            Err(refused @ IdempotencyError::Store(_)) => self.give_up(lease, refused).await,
            Err(refusal) => refuse(Some(self.claim), refusal),
        }
    }

    /// No answer of the handler's can be kept. `refusal` says that nothing was done, which is true if no step was begun and
    /// nobody takes the key up.
    async fn give_up(&self, lease: Lease<L>, refusal: IdempotencyError) -> Response<Body> {
        let untouched = lease.is_untouched();
        match lease.give_back().await {
            GivenBack::Fenced => self.answer_of_another().await,
            given if untouched && self.is_over(given, untouched) => {
                refuse(Some(self.claim), refusal)
            }
            _ => self.goes_on(refusal),
        }
    }

    /// Whether nothing more is done under the key until its client asks again: there is no completer, or the key is as if it had
    /// never come, which a completer passes over.
    fn is_over(&self, given: GivenBack, untouched: bool) -> bool {
        self.config.completed_by.is_none() || (given == GivenBack::Given && untouched)
    }

    /// What is done stays done, and a completer may do the rest.
    fn goes_on(&self, because: impl Into<BoxError>) -> Response<Body> {
        let unknown = Error::new(ErrorKind::Unavailable, because);
        refuse(Some(self.claim), IdempotencyError::OutcomeUnknown(unknown))
    }

    /// This attempt was taken over: what the key stands for is the answer.
    async fn answer_of_another(&self) -> Response<Body> {
        let patience = self.config.limits.resolve_time_max;
        match self.leases.of_another(self.claim, None, patience).await {
            Ok(Kept::Ours) => refuse(Some(self.claim), IdempotencyError::KeyInFlight),
            Ok(Kept::Theirs(found)) => replay_stored(self.config, self.claim, found),
            Err(refusal) => refuse(Some(self.claim), refusal),
        }
    }

    /// It may still be at work with it.
    fn kept_lease(&self) -> Response<Body> {
        let kept = Error::new(
            ErrorKind::Unavailable,
            "the handler kept its lease past its answer",
        );
        refuse(Some(self.claim), IdempotencyError::OutcomeUnknown(kept))
    }
}
