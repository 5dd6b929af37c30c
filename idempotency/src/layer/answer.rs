//! The answer's side: what is kept of it, what is given again, and the problems in its place.

use axum_core::body::Body;
use axum_core::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use mainstay_errors::Fault;

use super::config::Config;
use super::protocol::Runs;
use crate::local::Chain;
use crate::store::Claim;
use crate::{IdempotencyError, Recorded, codec, telemetry};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What is stored of an answer: its status, the headers of the allow-list, its body, sealed; `None`, and logged, when that
/// cannot be done.
pub(super) fn to_keep<P: Runs>(
    config: &Config<P>,
    claim: &Claim,
    answered: &Response<Bytes>,
) -> Option<Recorded> {
    let mut headers = HeaderMap::new();
    for name in &config.replay_headers {
        for value in answered.headers().get_all(name) {
            headers.append(name, value.clone());
        }
    }
    let recorded = Recorded {
        status: answered.status().as_u16(),
        headers,
        body: answered.body().clone(),
    };
    if !recorded.headers_fit() {
        tracing::error!(key = ?claim.key, "the answer's headers are too large to be kept");
        return None;
    }
    match codec::seal(config.codec.as_deref(), &claim.scope, &claim.key, recorded) {
        Ok(sealed) => Some(sealed),
        Err(error) => {
            tracing::error!(key = ?claim.key, error = %Chain(&error), "the answer cannot be sealed");
            None
        }
    }
}

/// The answer that is kept for the key, or why it cannot be read.
pub(super) fn replay_stored<P: Runs>(
    config: &Config<P>,
    claim: &Claim,
    stored: Recorded,
) -> Response<Body> {
    match codec::open(config.codec.as_deref(), &claim.scope, &claim.key, stored) {
        Ok(recorded) => replay(recorded),
        Err(error) => refuse(Some(claim), IdempotencyError::RecordUnreadable(error)),
    }
}

/// A kept answer, marked.
fn replay(recorded: Recorded) -> Response<Body> {
    telemetry::request("replayed");
    let mut response = Response::new(Body::from(recorded.body));
    // `Recorded::decode` lets no other status through.
    *response.status_mut() =
        StatusCode::from_u16(recorded.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = recorded.headers;
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The problem for `error`, counted. What it says about a request that nobody may look at again is logged here, with
/// the key; the cause of every problem is logged by `ProblemLayer`.
pub(super) fn refuse(claim: Option<&Claim>, error: IdempotencyError) -> Response<Body> {
    let code = error.descriptor().code();
    telemetry::request(code);
    let key = claim.map(|claim| tracing::field::debug(&claim.key));
    match &error {
        IdempotencyError::OutcomeUnknown(_)
        | IdempotencyError::OutcomeUnknownWithoutKey(_)
        | IdempotencyError::RecordUnreadable(_)
        | IdempotencyError::TransactionLost => {
            tracing::error!(key, code, error = %Chain(&error), "not answered by the handler");
        }
        _ => tracing::debug!(key, code, "not answered by the handler"),
    }
    mainstay_errors::Error::from(error).into_response()
}
