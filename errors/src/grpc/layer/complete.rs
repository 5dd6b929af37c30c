//! What becomes of a failed call: decided by its status, the source of that, and its details.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use http::{HeaderMap, HeaderValue};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::pb;

use super::{Asked, REQUEST_ID};
use crate::grpc::details::STATUS_BYTES_MAX;
use crate::grpc::error_behind;
use crate::grpc::read::{Details, bare, category_of, kind, source, with_message};
use crate::{CHAIN_LINKS_MAX, Category, Error, Problem};

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
const DETAILS: &str = "grpc-status-details-bin";

/// Whether headers or trailers end a call that failed.
pub(super) fn is_failure(headers: &HeaderMap) -> bool {
    headers.get(STATUS).is_some_and(|status| status != "0")
}

/// Completes the status in `headers`, which may have come with the status itself, and logs it.
pub(super) fn complete(headers: &mut HeaderMap, status: Option<Status>, asked: &mut Asked) {
    // Only what tonic answered with knows its source; trailers do not.
    let has_source = status.is_some();
    let status = status.unwrap_or_else(|| read(headers));
    let answer = match error_behind(&status) {
        Some(error) => {
            let problem = asked.tie(error.to_problem());
            asked.shared.log.log(&problem, Some(error));
            problem.to_status()
        }
        None => foreign(&status, has_source, asked),
    };
    write(headers, &answer, asked);
}

/// The status of a call whose handler panicked. The text goes to the log alone.
pub(super) fn panicked(payload: &(dyn Any + Send), asked: &mut Asked) -> HeaderMap {
    let error = Error::panicked(payload);
    let problem = asked.tie(error.to_problem());
    asked.shared.log.log(&problem, Some(&error));
    let mut headers = HeaderMap::with_capacity(4);
    write(&mut headers, &problem.to_status(), asked);
    headers
}

impl Asked {
    fn tie(&mut self, problem: Problem) -> Problem {
        let id = self.id();
        let problem = problem
            .with_default_type_base(&self.shared.type_base)
            .with_request_id(id);
        match &self.shared.domain {
            Some(domain) if problem.domain().is_none() => problem.with_domain(domain.clone()),
            _ => problem,
        }
    }
}

/// A status that no error of ours is behind.
fn foreign(status: &Status, has_source: bool, asked: &mut Asked) -> Status {
    let details = Details::decode(status.details());
    if details.are_ours() {
        let problem = asked.tie(Problem::from_status(status));
        asked
            .shared
            .log
            .log(&problem, source(status).map(|_| reported(status)).as_ref());
        return problem.to_status();
    }
    let category = if is_timeout(status) {
        Category::DeadlineExceeded
    } else {
        category_of(status.code())
    };
    // tonic makes the message of an error's `Display`. In trailers the source is gone, and only the code tells.
    let is_converted = if has_source {
        source(status).is_some()
    } else {
        matches!(category, Category::Unknown | Category::Internal)
    };
    let is_hidden = is_converted && status.details().is_empty();
    let problem = asked.tie(bare(category));
    let problem = if is_hidden {
        problem
    } else {
        with_message(problem, status.message())
    };
    asked.shared.log.log(&problem, Some(&reported(status)));
    let answer = problem.to_status();
    match merged(status.details(), answer.details()) {
        Some(details) => Status::with_details(answer.code(), answer.message(), details.into()),
        None => answer,
    }
}

/// The details a handler gave, and of ours what they lack. `None` when there are none, or too many.
fn merged(given: &[u8], ours: &[u8]) -> Option<Vec<u8>> {
    let given = Some(given).filter(|given| (1..=STATUS_BYTES_MAX).contains(&given.len()))?;
    let mut given = pb::Status::decode(given).ok()?;
    let mut merged = pb::Status::decode(ours).ok()?;
    let name = |any: &prost_types::Any| kind(&any.type_url).to_owned();
    given.details.retain(|any| {
        !matches!(
            kind(&any.type_url),
            "google.rpc.DebugInfo" | "google.rpc.RequestInfo"
        )
    });
    let names: Vec<String> = given.details.iter().map(name).collect();
    merged.details.retain(|any| !names.contains(&name(any)));
    merged.details.append(&mut given.details);
    let bytes = merged.encode_to_vec();
    (bytes.len() <= STATUS_BYTES_MAX).then_some(bytes)
}

fn is_timeout(status: &Status) -> bool {
    let mut next = source(status);
    for _ in 0..CHAIN_LINKS_MAX {
        let Some(link) = next else { break };
        if link.is::<TimeoutExpired>() {
            return true;
        }
        next = link.source();
    }
    false
}

/// The status in headers. Not by `Status::from_header_map` for the details, which panics when they are no base64.
fn read(headers: &mut HeaderMap) -> Status {
    let details = headers.remove(DETAILS);
    let plain = Status::from_header_map(headers);
    let plain = plain.unwrap_or_else(|| Status::new(Code::Unknown, ""));
    let Some(details) = details else {
        return plain;
    };
    let details = MetadataMap::from_headers(HeaderMap::from_iter([(
        http::HeaderName::from_static(DETAILS),
        details,
    )]));
    let bytes = details
        .get_bin(DETAILS)
        .and_then(|value| value.to_bytes().ok());
    Status::with_details(plain.code(), plain.message(), bytes.unwrap_or_default())
}

/// Puts the status in the place of the one in `headers`; their other metadata stays.
fn write(headers: &mut HeaderMap, status: &Status, asked: &mut Asked) {
    for name in [STATUS, MESSAGE, DETAILS] {
        headers.remove(name);
    }
    if status.add_header(headers).is_err() {
        // Percent-encoded and base64 always are header values.
        headers.insert(STATUS, HeaderValue::from_static("13"));
    }
    headers.insert(REQUEST_ID, asked.id().to_header());
}

/// A status as the cause of itself, for the log: its message and its sources.
fn reported(status: &Status) -> Error {
    Error::internal(Reported(status.clone()))
}

struct Reported(Status);

impl fmt::Debug for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.message() {
            "" => f.write_str(self.0.code().description()),
            message => f.write_str(message),
        }
    }
}

impl StdError for Reported {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        source(&self.0)
    }
}
