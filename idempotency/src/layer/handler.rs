//! The handler, bounded.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum_core::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use tower_service::Service;

use super::config::Limits;
use super::protocol::BoxError;
use crate::IdempotencyError;
use crate::local::Chain;

/// Why a handler has no answer to keep.
pub(super) enum Unanswered<E> {
    Panicked(Box<dyn Any + Send>),
    ServiceError(E),
    Refused(IdempotencyError),
}

/// The handler, with its whole response body, within its time. What it works through is among the request's extensions.
pub(super) async fn handle<I, B>(
    limits: Limits,
    mut inner: I,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Unanswered<I::Error>>
where
    I: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let request = request.map(Body::from);
    let bytes_max = limits.response_bytes_max;
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
                tracing::error!(error = %Chain(error.as_ref()), bytes_max, "the answer cannot be kept");
                return Err(Unanswered::Refused(IdempotencyError::ResponseNotKept));
            }
        };
        Ok(Response::from_parts(head, body))
    };
    // What the handler left behind in a panic is dropped, not looked at: its transaction is rolled back.
    match timeout(
        limits.handler_time_max,
        AssertUnwindSafe(handled).catch_unwind(),
    )
    .await
    {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(Unanswered::Panicked(panic)),
        Err(_elapsed) => Err(Unanswered::Refused(IdempotencyError::HandlerTimeout)),
    }
}
