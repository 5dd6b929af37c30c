//! The Local protocol: the handler works in the transaction that holds the key, and the layer commits.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum_core::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use sqlx::Pool;
use tower_service::Service;

use super::answer::{refuse, replay_stored, to_keep};
use super::config::Config;
use super::handler::{Unanswered, handle};
use super::keyless;
use super::lazy::Asked;
use super::protocol::{BoxError, Ended, Runs};
use super::run::Ran;
use crate::inflight::Ticket;
use crate::local::{Claiming, Kept, Local, Opened, Standing};
use crate::policy::Keep;
use crate::store::{Claim, IdempotencyDb};
use crate::tx::{Returned, Slot};
use crate::{Error, ErrorKind, IdempotencyError, Wait, telemetry};

impl<D: IdempotencyDb> Runs for D {
    type Keys = Pool<D>;

    async fn run<I, B>(
        config: Arc<Config<D>>,
        inner: I,
        mut request: Request<Bytes>,
        claim: Claim,
        ticket: Ticket,
        wait: Wait,
    ) -> Ran<I::Error>
    where
        I: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        I::Future: Send + 'static,
        I::Error: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let config = &*config;
        let claim = &claim;
        let local = local(config, wait);
        let tx = match local.open(claim).await {
            Ok(Opened::Run(tx)) => tx,
            Ok(Opened::Replay(found)) => return Ran::Answer(replay_stored(config, claim, found)),
            Err(refusal) => return told(config, &local, claim, Attempt::Refused(refusal)).await,
        };
        if local.claiming == Claiming::First {
            ticket.running(claim.fingerprint);
        }
        let slot = Slot::ready(&config.keys, tx);
        request.extensions_mut().insert(slot.clone());
        let answer = handle(config.limits, inner, request).await;
        // From here on the key may pass to another process, which may record another request.
        ticket.claiming();
        let attempt = end(config, &local, claim, &slot, answer).await;
        told(config, &local, claim, attempt).await
    }

    fn end(asked: Asked, response: Response<Body>) -> Ended {
        let Some((slot, config)) = asked.into_parts::<D>() else {
            return Ended::Now(response);
        };
        match slot.close() {
            Returned::NeverOpened => Ended::Now(response),
            Returned::Leaked => Ended::Now(refuse(None, IdempotencyError::TransactionLost)),
            Returned::Tx(tx) => Ended::Later(Box::pin(keyless::finish(config, tx, response))),
        }
    }
}

/// How an attempt ended.
enum Attempt<E> {
    /// With the answer that its key stands for.
    Answered(Response<Body>),
    Released(Response<Bytes>),
    ServiceError(E),
    Panicked(Box<dyn Any + Send>),
    Refused(IdempotencyError),
}

/// Commits, or rolls back.
async fn end<D: IdempotencyDb, E>(
    config: &Config<D>,
    local: &Local<D>,
    claim: &Claim,
    slot: &Slot<D>,
    answer: Result<Response<Bytes>, Unanswered<E>>,
) -> Attempt<E> {
    let tx = match slot.close() {
        Returned::Tx(tx) => tx,
        Returned::NeverOpened | Returned::Leaked => {
            return match answer {
                Err(Unanswered::Panicked(panic)) => Attempt::Panicked(panic),
                _ => Attempt::Refused(IdempotencyError::TransactionLost),
            };
        }
    };
    let answered = match answer {
        Ok(answered) => answered,
        Err(unanswered) => {
            match unanswered {
                Unanswered::ServiceError(_) => local.roll_back(tx).await,
                Unanswered::Panicked(_) | Unanswered::Refused(_) => {
                    local.roll_back_cut_off(tx).await;
                }
            }
            return match unanswered {
                Unanswered::Panicked(panic) => Attempt::Panicked(panic),
                Unanswered::ServiceError(error) => Attempt::ServiceError(error),
                Unanswered::Refused(refusal) => Attempt::Refused(refusal),
            };
        }
    };
    let keep = config.policy.keep(answered.status().as_u16());
    if keep == Keep::Release {
        local.roll_back(tx).await;
        return Attempt::Released(answered);
    }
    let Some(recorded) = to_keep(config, claim, &answered) else {
        local.roll_back(tx).await;
        return Attempt::Refused(IdempotencyError::ResponseNotKept);
    };
    let kept = if keep == Keep::Commit {
        local.commit(tx, claim, &recorded).await
    } else {
        local.record_without_effects(tx, claim, &recorded).await
    };
    match kept {
        Ok(Kept::Ours) => {
            if keep == Keep::Commit {
                config.on_commit.call();
            }
            telemetry::request("ran");
            Attempt::Answered(answered.map(Body::from))
        }
        Ok(Kept::Theirs(found)) => Attempt::Answered(replay_stored(config, claim, found)),
        Err(refusal) => Attempt::Refused(refusal),
    }
}

/// What is said of it. Nobody is told of an attempt's failure while its key has an answer.
async fn told<D: IdempotencyDb, E>(
    config: &Config<D>,
    local: &Local<D>,
    claim: &Claim,
    attempt: Attempt<E>,
) -> Ran<E> {
    let standing = match &attempt {
        // All come from a look at the key.
        Attempt::Answered(_)
        | Attempt::Refused(IdempotencyError::OutcomeUnknown(_) | IdempotencyError::KeyReused) => {
            Standing::Nothing
        }
        _ => local.standing(claim).await,
    };
    match (standing, attempt) {
        (Standing::Recorded(found), _) => Ran::Answer(replay_stored(config, claim, found)),
        (Standing::Refused(refusal), _) => Ran::Answer(refuse(Some(claim), refusal)),
        (Standing::Nothing | Standing::NotYet, Attempt::Answered(answer)) => Ran::Answer(answer),
        (Standing::Nothing | Standing::NotYet, Attempt::Released(answer)) => {
            telemetry::request("released");
            Ran::Answer(answer.map(Body::from))
        }
        (Standing::Nothing | Standing::NotYet, Attempt::ServiceError(error)) => {
            Ran::ServiceError(error)
        }
        (Standing::Nothing | Standing::NotYet, Attempt::Panicked(panic)) => Ran::Panicked(panic),
        (Standing::Nothing, Attempt::Refused(refusal)) => Ran::Answer(refuse(Some(claim), refusal)),
        (Standing::NotYet, Attempt::Refused(refusal)) => {
            Ran::Answer(refuse(Some(claim), in_doubt(refusal)))
        }
    }
}

/// Another attempt may be at work that nobody sees before it records: what stopped this one for now says nothing of that. What is
/// wrong with the handler stops the others too.
fn in_doubt(refusal: IdempotencyError) -> IdempotencyError {
    match refusal {
        IdempotencyError::Store(error)
            if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Unavailable) =>
        {
            IdempotencyError::OutcomeUnknown(error)
        }
        IdempotencyError::HandlerTimeout => {
            IdempotencyError::OutcomeUnknown(Error::new(ErrorKind::Unavailable, refusal))
        }
        other => other,
    }
}

fn local<D: IdempotencyDb>(config: &Config<D>, wait: Wait) -> Local<D> {
    Local {
        pool: config.keys.clone(),
        tracker: config.tracker.clone(),
        // The server gives up a little after the handler's own limit, so that limit is the one that is seen.
        idle_max: config
            .limits
            .handler_time_max
            .saturating_add(Duration::from_secs(5)),
        wait,
        claiming: config.claiming,
        stale_after: config.stale_after,
        resolve_max: config.limits.resolve_time_max,
    }
}
