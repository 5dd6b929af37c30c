//! Runs a request under its key: scope, key, body, then in a task of its own claim, handler, commit.

use std::any::Any;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum_core::body::Body;
use axum_core::response::IntoResponse;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, timeout};
use tower_service::Service;
use tracing::Instrument;

use super::answer::{record, refuse, replay_stored, stored};
use super::request::{key, read_body, target};
use super::{Config, Scoped};
use crate::inflight::{NotAdmitted, Ticket};
use crate::local::{A_YEAR, Chain, Kept, Local, Opened};
use crate::policy::Keep;
use crate::store::{Claim, IdempotencyDb};
use crate::tx::{Returned, Slot};
use crate::{Error, ErrorKind, IdempotencyError, Wait, telemetry};

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// What the task hands back. A panic crosses to the caller's side, where layers for panics are.
enum Ran<E> {
    Answer(Response<Body>),
    ServiceError(E),
    Panicked(Box<dyn Any + Send>),
}

/// Up to the spawn everything may be dropped; after it nothing depends on the caller any more.
pub(super) async fn keyed<D, I, B>(
    config: Arc<Config<D>>,
    scope: Scoped,
    inner: I,
    request: Request<Body>,
) -> Result<Response<Body>, I::Error>
where
    D: IdempotencyDb,
    I: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    I::Future: Send + 'static,
    I::Error: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let scope = match (scope.0)(&parts) {
        Ok(scope) => scope,
        Err(problem) => return Ok(problem.into_response()),
    };
    let prepared = async {
        let key = key(&config, &parts.headers)?;
        let body = read_body(body, &parts.headers, config.limits.request_bytes_max).await?;
        let fingerprint = config
            .covers
            .fingerprint(parts.method.as_str(), target(&parts), &body);
        let keys = &config.in_flight;
        let max = config.limits.in_flight_max;
        let (ticket, wait) = match config.wait.time() {
            None => {
                let ticket = keys.admit_by(None, scope, &key, &fingerprint, max);
                (ticket.await?, Wait::No)
            }
            Some(time) => {
                let since = Instant::now();
                let deadline = since.checked_add(time).unwrap_or(since + A_YEAR);
                let ticket = keys.admit_by(Some(deadline), scope, &key, &fingerprint, max);
                let ticket = ticket.await?;
                telemetry::waited(since.elapsed());
                // What is left of it is for a holder in another process.
                (ticket, Wait::Up(deadline - Instant::now()))
            }
        };
        Ok((
            Claim {
                scope,
                key,
                fingerprint,
            },
            ticket,
            wait,
            body,
        ))
    };
    let (claim, ticket, wait, body) = match prepared.await {
        Ok(prepared) => prepared,
        Err(refusal) => return Ok(refuse(None, refusal)),
    };
    let tracker = config.tracker.clone();
    let request = Request::from_parts(parts, body);
    let task = async move { run(&config, inner, request, &claim, ticket, wait).await };
    match tracker.spawn(task.in_current_span()).await {
        Ok(Ran::Answer(response)) => Ok(response),
        Ok(Ran::ServiceError(error)) => Err(error),
        Ok(Ran::Panicked(panic)) => resume_unwind(panic),
        Err(join) => match join.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // Only a runtime that is shutting down cancels the task.
            Err(cancelled) => {
                let refusal =
                    IdempotencyError::OutcomeUnknown(Error::new(ErrorKind::Unavailable, cancelled));
                Ok(refuse(None, refusal))
            }
        },
    }
}

async fn run<D, I, B>(
    config: &Arc<Config<D>>,
    inner: I,
    request: Request<Bytes>,
    claim: &Claim,
    ticket: Ticket,
    wait: Wait,
) -> Ran<I::Error>
where
    D: IdempotencyDb,
    I: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let local = local(config, wait);
    let tx = match local.open(claim).await {
        Ok(Opened::Run(tx)) => tx,
        Ok(Opened::Replay(found)) => return Ran::Answer(replay_stored(config, claim, found)),
        Err(refusal) => return Ran::Answer(refuse(Some(claim), refusal)),
    };
    ticket.running(claim.fingerprint);
    let slot = Slot::ready(tx);
    let answer = handle(config, inner, request, &slot).await;
    // From here on the key may pass to another process, which may record another request.
    ticket.claiming();
    let tx = match slot.close() {
        Returned::Tx(tx) => tx,
        Returned::NeverOpened | Returned::Leaked => {
            return match answer {
                Err(Unanswered::Panicked(panic)) => Ran::Panicked(panic),
                _ => Ran::Answer(refuse(Some(claim), IdempotencyError::TransactionLost)),
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
                Unanswered::Panicked(panic) => Ran::Panicked(panic),
                Unanswered::ServiceError(error) => Ran::ServiceError(error),
                Unanswered::Refused(refusal) => Ran::Answer(refuse(Some(claim), refusal)),
            };
        }
    };
    let keep = config.policy.keep(answered.status().as_u16());
    if keep == Keep::Release {
        local.roll_back(tx).await;
        telemetry::request("released");
        return Ran::Answer(answered.map(Body::from));
    }
    let recorded = record(config, &answered);
    if !recorded.headers_fit() {
        tracing::error!(key = ?claim.key, "the answer's headers are too large to be kept, rolling back");
        local.roll_back(tx).await;
        return Ran::Answer(refuse(Some(claim), IdempotencyError::ResponseNotKept));
    }
    let recorded = match stored(config, claim, recorded) {
        Ok(recorded) => recorded,
        Err(error) => {
            tracing::error!(key = ?claim.key, error = %Chain(&error), "the answer cannot be sealed, rolling back");
            local.roll_back(tx).await;
            return Ran::Answer(refuse(Some(claim), IdempotencyError::ResponseNotKept));
        }
    };
    let kept = if keep == Keep::Commit {
        local.commit(tx, claim, &recorded).await
    } else {
        local.record_without_effects(tx, claim, &recorded).await
    };
    Ran::Answer(match kept {
        Ok(Kept::Ours) => {
            if keep == Keep::Commit {
                config.on_commit.call();
            }
            telemetry::request("ran");
            answered.map(Body::from)
        }
        Ok(Kept::Theirs(found)) => replay_stored(config, claim, found),
        Err(refusal) => refuse(Some(claim), refusal),
    })
}

/// Why a handler has no answer to keep.
enum Unanswered<E> {
    Panicked(Box<dyn Any + Send>),
    ServiceError(E),
    Refused(IdempotencyError),
}

/// The handler, with its whole response body, within its time.
async fn handle<D, I, B>(
    config: &Arc<Config<D>>,
    mut inner: I,
    request: Request<Bytes>,
    slot: &Slot<D>,
) -> Result<Response<Bytes>, Unanswered<I::Error>>
where
    D: IdempotencyDb,
    I: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut request = request.map(Body::from);
    request.extensions_mut().insert(slot.clone());
    let bytes_max = config.limits.response_bytes_max;
    let handled = async move {
        let (head, body) = inner
            .call(request)
            .await
            .map_err(Unanswered::ServiceError)?
            .into_parts();
        // A stream is collected like any other body: what does not end within the limits is not kept, and what is not
        // kept does not commit.
        let body = match Limited::new(body, bytes_max).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                tracing::error!(error = %Chain(error.as_ref()), bytes_max, "the answer cannot be kept, rolling back");
                return Err(Unanswered::Refused(IdempotencyError::ResponseNotKept));
            }
        };
        Ok(Response::from_parts(head, body))
    };
    // What the handler left behind in a panic is dropped, not looked at: the transaction is rolled back.
    match timeout(
        config.limits.handler_time_max,
        AssertUnwindSafe(handled).catch_unwind(),
    )
    .await
    {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(Unanswered::Panicked(panic)),
        Err(_elapsed) => Err(Unanswered::Refused(IdempotencyError::HandlerTimeout)),
    }
}

fn local<D: IdempotencyDb>(config: &Config<D>, wait: Wait) -> Local<D> {
    Local {
        pool: config.pool.clone(),
        tracker: config.tracker.clone(),
        // The server gives up a little after the handler's own limit, so that limit is the one that is seen.
        idle_max: config
            .limits
            .handler_time_max
            .saturating_add(Duration::from_secs(5)),
        wait,
        stale_after: config.stale_after,
        resolve_max: config.limits.resolve_time_max,
    }
}

impl From<NotAdmitted> for IdempotencyError {
    fn from(reason: NotAdmitted) -> Self {
        match reason {
            NotAdmitted::InFlight => Self::KeyInFlight,
            NotAdmitted::OtherInFlight => Self::KeyReused,
            NotAdmitted::Full => Self::Overloaded,
        }
    }
}
