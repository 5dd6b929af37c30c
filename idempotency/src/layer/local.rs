//! The Local protocol: the handler works in the transaction that holds the key, and the layer commits.

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
use crate::local::{Kept, Local, Opened};
use crate::policy::Keep;
use crate::store::{Claim, IdempotencyDb};
use crate::tx::{Returned, Slot};
use crate::{IdempotencyError, Wait, telemetry};

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
            Err(refusal) => return Ran::Answer(refuse(Some(claim), refusal)),
        };
        ticket.running(claim.fingerprint);
        let slot = Slot::ready(&config.keys, tx);
        request.extensions_mut().insert(slot.clone());
        let answer = handle(config.limits, inner, request).await;
        // From here on the key may pass to another process, which may record another request.
        ticket.claiming();
        match end_attempt(config, &local, claim, &slot, answer).await {
            Ok(answer) => Ran::Answer(answer),
            Err(not_kept) => match local.standing(claim).await {
                None => not_kept,
                Some(Ok(found)) => Ran::Answer(replay_stored(config, claim, found)),
                Some(Err(refusal)) => Ran::Answer(refuse(Some(claim), refusal)),
            },
        }
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

/// Commits, or rolls back. `Err` with what is to be said of an attempt that leaves no answer to its key.
async fn end_attempt<D: IdempotencyDb, E>(
    config: &Config<D>,
    local: &Local<D>,
    claim: &Claim,
    slot: &Slot<D>,
    answer: Result<Response<Bytes>, Unanswered<E>>,
) -> Result<Response<Body>, Ran<E>> {
    let refused = |refusal| Err(Ran::Answer(refuse(Some(claim), refusal)));
    let tx = match slot.close() {
        Returned::Tx(tx) => tx,
        Returned::NeverOpened | Returned::Leaked => {
            return match answer {
                Err(Unanswered::Panicked(panic)) => Err(Ran::Panicked(panic)),
                _ => refused(IdempotencyError::TransactionLost),
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
                Unanswered::Panicked(panic) => Err(Ran::Panicked(panic)),
                Unanswered::ServiceError(error) => Err(Ran::ServiceError(error)),
                Unanswered::Refused(refusal) => refused(refusal),
            };
        }
    };
    let keep = config.policy.keep(answered.status().as_u16());
    if keep == Keep::Release {
        local.roll_back(tx).await;
        telemetry::request("released");
        return Err(Ran::Answer(answered.map(Body::from)));
    }
    let Some(recorded) = to_keep(config, claim, &answered) else {
        local.roll_back(tx).await;
        return refused(IdempotencyError::ResponseNotKept);
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
            Ok(answered.map(Body::from))
        }
        Ok(Kept::Theirs(found)) => Ok(replay_stored(config, claim, found)),
        Err(refusal) => refused(refusal),
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
