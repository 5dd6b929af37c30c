//! Runs a request under its key: scope, key, body, and then, in a task of its own, the protocol.

use std::any::Any;
use std::panic::resume_unwind;
use std::sync::Arc;

use axum_core::body::Body;
use axum_core::response::IntoResponse;
use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;
use tower_service::Service;
use tracing::Instrument;

use super::Scoped;
use super::answer::refuse;
use super::config::Config;
use super::protocol::{BoxError, Protocol};
use super::request::{key, read_body, target};
use crate::inflight::NotAdmitted;
use crate::local::A_YEAR;
use crate::store::Claim;
use crate::{Error, ErrorKind, IdempotencyError, Wait, telemetry};

/// What the task hands back. A panic crosses to the caller's side, where layers for panics are.
#[expect(missing_debug_implementations, reason = "nobody outside can have one")]
pub enum Ran<E> {
    Answer(Response<Body>),
    ServiceError(E),
    Panicked(Box<dyn Any + Send>),
}

/// Up to the spawn everything may be dropped; after it nothing depends on the caller any more.
pub(super) async fn keyed<P, I, B>(
    config: Arc<Config<P>>,
    scope: Scoped,
    inner: I,
    request: Request<Body>,
) -> Result<Response<Body>, I::Error>
where
    P: Protocol,
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
        let body = read_body(body, &parts.headers, &config.limits).await?;
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
    let request = Request::from_parts(parts, body);
    // The braces end the task's own future, which would otherwise be a part of this one.
    let running = {
        let tracker = config.tracker.clone();
        let task = P::run(config, inner, request, claim, ticket, wait);
        tracker.spawn(task.in_current_span())
    };
    match running.await {
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

impl From<NotAdmitted> for IdempotencyError {
    fn from(reason: NotAdmitted) -> Self {
        match reason {
            NotAdmitted::InFlight => Self::KeyInFlight,
            NotAdmitted::OtherInFlight => Self::KeyReused,
            NotAdmitted::Full => Self::Overloaded,
        }
    }
}
