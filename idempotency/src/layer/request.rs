//! The request's side: its key, its target and its body, all a stranger's.

use std::error::Error as StdError;

use axum::extract::OriginalUri;
use axum_core::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::config::{Config, Limits};
use super::protocol::Runs;
use crate::key::KeyError;
use crate::{IdempotencyError, Key};

pub(super) fn key<P: Runs>(
    config: &Config<P>,
    headers: &HeaderMap,
) -> Result<Key, IdempotencyError> {
    let mut lines = headers.get_all(&config.header).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Err(IdempotencyError::KeyMissing),
        (Some(line), None) => {
            Key::parse(line.as_bytes(), config.parse).map_err(IdempotencyError::KeyMalformed)
        }
        (Some(_), Some(_)) => Err(IdempotencyError::KeyMalformed(KeyError::Repeated)),
    }
}

/// Path and query as the client sent them: a nested router shortens the request's own URI by the prefix it has matched.
pub(super) fn target(parts: &Parts) -> &str {
    parts
        .extensions
        .get::<OriginalUri>()
        .map_or(&parts.uri, |original| &original.0)
        .path_and_query()
        .map_or("/", PathAndQuery::as_str)
}

pub(super) async fn read_body(
    body: Body,
    headers: &HeaderMap,
    limits: &Limits,
) -> Result<Bytes, IdempotencyError> {
    let bytes_max = limits.request_bytes_max;
    // A declared length is refused before a byte of it is read.
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > bytes_max as u64) {
        return Err(IdempotencyError::RequestTooLarge { bytes_max });
    }
    let read = Limited::new(body, bytes_max).collect();
    match timeout(limits.request_time_max, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if is_length_limit(error.as_ref()) => {
            Err(IdempotencyError::RequestTooLarge { bytes_max })
        }
        Ok(Err(_)) => Err(IdempotencyError::RequestIncomplete),
        Err(_elapsed) => Err(IdempotencyError::RequestTimeout),
    }
}

fn is_length_limit(mut error: &(dyn StdError + 'static)) -> bool {
    loop {
        if error.is::<LengthLimitError>() {
            return true;
        }
        match error.source() {
            Some(source) => error = source,
            None => return false,
        }
    }
}
