//! The read side, as total as that of the document: any status, with any bytes for details, is a problem.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use prost::Message;
use serde_json::{Map, Value};
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::pb;

use super::details::{ErrorInfo, extra, key};
use super::message::bounded;
use super::path::place_of;
use super::reason::{code_of, value_of};
use crate::problem::{WAIT_MAX, plain_json, words};
use crate::{
    CHAIN_LINKS_MAX, Category, DOCUMENT_BYTES_MAX, Outcome, Problem, RESERVED_MEMBERS, RequestId,
    Retry, Violation,
};

/// How a server asks a retrying client to wait, or with a negative number not to retry (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl Problem {
    /// Reads a failed call. Total: every code, message, details and metadata give a problem.
    ///
    /// - The category is that of `grpc-status`; `OK` and numbers that nobody assigned read as `unknown`.
    /// - Of the details, `ErrorInfo`, `BadRequest`, `RetryInfo` and `RequestInfo` are read, the first of each that
    ///   decodes; the others are dropped, `DebugInfo` among them, so that it is not passed on. Details above
    ///   [`DOCUMENT_BYTES_MAX`] are not read.
    /// - Without an `ErrorInfo`, the code is the category's name and `type` is `about:blank`. An `ErrorInfo` of
    ///   another stack gives its reason in lower case as the code, and its metadata as members that are strings.
    /// - The message is the detail, unless it only repeats the title.
    /// - `grpc-retry-pushback-ms` (gRFC A6): a number from 0 is a wait, the longer of it and `RetryInfo` counts; anything
    ///   else asks not to retry, and is [`Retry::Never`].
    /// - `x-request-id` stands in for a missing `RequestInfo`.
    ///
    /// Total is what begins with a `Status`: tonic's own client panics before there is one when the
    /// `grpc-status-details-bin` of an answer is no base64 (`Status::from_header_map`, tonic 0.14). Who calls servers that
    /// are not trusted calls them in a task whose panic is an error like another.
    ///
    /// A failure that tonic's client found itself (its source is set, and there are no details) is told by the type of
    /// the source, never by text, and its message is dropped, because it may name what is inside:
    ///
    /// | source | category | advice | outcome |
    /// |---|---|---|---|
    /// | [`ConnectError`], `ConnectionRefused` | `unavailable` | backoff | not applied: nothing was sent |
    /// | [`TimeoutExpired`] (tonic says `CANCELLED`) | `deadline_exceeded` | same key only | unknown |
    /// | a connection that broke off | `unavailable` | same key only | unknown |
    /// | anything else | as tonic says | never a plain repetition | unknown |
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = Details::decode(status.details());
        let category = category_of(status.code());
        let mut problem = match &details.info {
            Some(info) => described(category, info, status.message()),
            None => match source(status).filter(|_| status.details().is_empty()) {
                Some(source) => found_here(category, source),
                None => with_message(bare(category), status.message()),
            },
        };
        if let Some(bad_request) = details.bad_request {
            let extras = details.info.as_ref().map(extras).unwrap_or_default();
            problem = problem.with_violations(violations(bad_request, extras));
        }
        let word = details.info.as_ref().filter(|info| is_ours(info));
        let word = word.and_then(|info| info.metadata.get(key::RETRY));
        problem = waits(problem, details.wait, word, status);
        let id = details.request_id.or_else(|| {
            let id = status.metadata().get("x-request-id")?;
            RequestId::parse(id.to_str().ok()?)
        });
        match id {
            Some(id) => problem.with_request_id(id),
            None => problem,
        }
    }
}

impl From<&Status> for Problem {
    fn from(status: &Status) -> Self {
        Self::from_status(status)
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self::from_status(&status)
    }
}

/// The category of a code of tonic.
pub(super) fn category_of(code: Code) -> Category {
    u8::try_from(i32::from(code))
        .ok()
        .and_then(Category::from_grpc_code)
        .unwrap_or(Category::Unknown)
}

/// What the category alone says.
pub(super) fn bare(category: Category) -> Problem {
    Problem::new(category, category.as_str()).with_type("about:blank")
}

/// The message as detail, unless it is empty or only the title.
pub(super) fn with_message(problem: Problem, message: &str) -> Problem {
    if message.is_empty() || message == bounded(&problem.title()) {
        problem
    } else {
        problem.with_detail(message.to_owned())
    }
}

/// What is read of the details, the first of each kind.
#[derive(Default)]
pub(super) struct Details {
    pub(super) info: Option<ErrorInfo>,
    bad_request: Option<pb::BadRequest>,
    wait: Option<Duration>,
    request_id: Option<RequestId>,
}

impl Details {
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        if bytes.is_empty() || bytes.len() > DOCUMENT_BYTES_MAX {
            return found;
        }
        let Ok(status) = pb::Status::decode(bytes) else {
            return found;
        };
        for any in &status.details {
            let value = any.value.as_slice();
            match kind(&any.type_url) {
                "google.rpc.ErrorInfo" if found.info.is_none() => {
                    let info = ErrorInfo::decode(value).ok();
                    found.info = info.filter(|info| !info.reason.is_empty());
                }
                "google.rpc.BadRequest" if found.bad_request.is_none() => {
                    found.bad_request = pb::BadRequest::decode(value).ok();
                }
                "google.rpc.RetryInfo" if found.wait.is_none() => {
                    let info = pb::RetryInfo::decode(value).ok();
                    found.wait = info.and_then(|info| info.retry_delay).and_then(wait);
                }
                "google.rpc.RequestInfo" if found.request_id.is_none() => {
                    let info = pb::RequestInfo::decode(value).ok();
                    found.request_id = info.and_then(|info| RequestId::parse(&info.request_id));
                }
                _ => {}
            }
        }
        found
    }

    /// Whether the details are of this crate.
    pub(super) fn are_ours(&self) -> bool {
        self.info.as_ref().is_some_and(is_ours)
    }
}

/// The message type of an `Any`: what follows the last `/` of its URL.
pub(super) fn kind(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or_default()
}

/// Whether we wrote it: it says what only we say.
fn is_ours(info: &ErrorInfo) -> bool {
    info.metadata.contains_key(key::RETRY) && info.metadata.contains_key(key::OUTCOME)
}

/// What an `ErrorInfo` says.
fn described(category: Category, info: &ErrorInfo, message: &str) -> Problem {
    let is_ours = is_ours(info);
    let text = |name| info.metadata.get(name).filter(|_| is_ours);
    let code = code_of(&info.reason, text(key::CODE).map(String::as_str)).into_owned();
    let mut problem = Problem::new(category, code);
    if !info.domain.is_empty() {
        problem = problem.with_domain(info.domain.clone());
    }
    if !is_ours {
        return with_message(problem.with_type("about:blank"), message)
            .extended(foreign_members(info));
    }
    if let Some(uri) = text(key::TYPE) {
        problem = problem.with_type(uri.clone());
    }
    if let Some(title) = text(key::TITLE) {
        problem = problem.with_title(title.clone());
    }
    let status = text(key::STATUS).and_then(|status| status.parse().ok());
    if let Some(status) = status.filter(|status| category.allows_status(*status)) {
        problem = problem.with_status(status);
    }
    if let Some(instance) = text(key::INSTANCE) {
        problem = problem.with_instance(instance.clone());
    }
    problem = match text(key::DETAIL) {
        Some(detail) => problem.with_detail(detail.clone()),
        None => with_message(problem, message),
    };
    if let Some(word) = text(key::OUTCOME) {
        // A word of a newer server must not be taken for a promise that nothing happened.
        problem = problem.with_outcome(Outcome::from_wire(word).unwrap_or(Outcome::Unknown));
    }
    problem.extended(members(info))
}

/// The members we wrote, with their JSON types.
fn members(info: &ErrorInfo) -> Map<String, Value> {
    let mut members = Map::new();
    for (name, text) in &info.metadata {
        if name == key::OTHERS {
            if let Value::Object(others) = value_of(text.clone()) {
                members.extend(others);
            }
        } else if name != key::EXTRAS {
            members.insert(name.clone(), value_of(text.clone()));
        }
    }
    members.retain(|name, _| !RESERVED_MEMBERS.contains(&name.as_str()));
    members
}

/// The metadata of another stack: strings, as it is declared.
fn foreign_members(info: &ErrorInfo) -> Map<String, Value> {
    info.metadata
        .iter()
        .filter(|(name, _)| !RESERVED_MEMBERS.contains(&name.as_str()))
        .map(|(name, text)| (name.clone(), Value::from(text.as_str())))
        .collect()
}

/// What stands beside the violations, one by one.
fn extras(info: &ErrorInfo) -> Vec<Value> {
    let text = info.metadata.get(key::EXTRAS).filter(|_| is_ours(info));
    match text.map(|text| plain_json(text)) {
        Some(Ok(Value::Array(extras))) => extras,
        _ => Vec::new(),
    }
}

fn violations(sent: pb::BadRequest, extras: Vec<Value>) -> impl Iterator<Item = Violation> {
    let extras = extras.into_iter().chain(std::iter::repeat(Value::Null));
    sent.field_violations
        .into_iter()
        .zip(extras)
        .map(|(violation, extra)| self::violation(violation, extra))
}

fn violation(sent: pb::bad_request::FieldViolation, extra: Value) -> Violation {
    let mut extra = match extra {
        Value::Object(extra) => extra,
        _ => Map::new(),
    };
    let mut text = |name| match extra.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let (exact, detail) = (text(extra::CODE), text(extra::DETAIL));
    let code = match sent.reason.as_str() {
        "" => "invalid".to_owned(),
        reason => code_of(reason, exact.as_deref()).into_owned(),
    };
    let (location, pointer) = place_of(&sent.field);
    let said = !sent.description.is_empty() && sent.description != words(&code);
    let detail = detail.or(said.then_some(sent.description));
    let mut violation = Violation::new(location, pointer, code);
    if let Some(Value::Object(params)) = extra.remove(extra::PARAMS) {
        violation = params
            .into_iter()
            .fold(violation, |violation, (name, value)| {
                violation.with_param(name, value)
            });
    }
    match detail {
        Some(detail) => violation.with_detail(detail),
        None => violation,
    }
}

/// How long to wait, and then whether at all.
fn waits(
    mut problem: Problem,
    sent: Option<Duration>,
    word: Option<&String>,
    status: &Status,
) -> Problem {
    let pushback = status.metadata().get(PUSHBACK);
    let pushed = pushback.map(|value| {
        let number = value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u32>().ok());
        number.map(|number| Duration::from_millis(number.into()).min(WAIT_MAX))
    });
    if let Some(wait) = sent.max(pushed.flatten()) {
        problem = problem.with_retry_after(wait);
    }
    // After the wait, which turns `backoff` into `after` where nothing was said.
    if let Some(retry) = word.and_then(|word| Retry::from_wire(word, problem.retry_after())) {
        problem = problem.with_retry(retry);
    }
    if pushed == Some(None) {
        problem = problem.with_retry(Retry::Never);
    }
    problem
}

/// A wait as protobuf says it; one that is negative is none.
fn wait(sent: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(sent.seconds).ok()?;
    let nanos = u32::try_from(sent.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos).min(WAIT_MAX))
}

/// What went wrong on this side of the wire.
fn found_here(category: Category, source: &(dyn StdError + 'static)) -> Problem {
    let mut next = Some(source);
    for _ in 0..CHAIN_LINKS_MAX {
        let Some(link) = next else { break };
        if link.is::<TimeoutExpired>() {
            return bare(Category::DeadlineExceeded);
        }
        let kind = link.downcast_ref::<io::Error>().map(io::Error::kind);
        if link.is::<ConnectError>() || kind == Some(io::ErrorKind::ConnectionRefused) {
            return bare(Category::Unavailable).with_outcome(Outcome::NotApplied);
        }
        if kind.is_some_and(is_broken_off) {
            return lost(Category::Unavailable);
        }
        next = link.source();
    }
    lost(category)
}

/// Nobody knows whether it was applied, so nobody may simply repeat it.
fn lost(category: Category) -> Problem {
    let problem = bare(category).with_outcome(Outcome::Unknown);
    match problem.retry() {
        Retry::Backoff | Retry::Transaction => problem.with_retry(Retry::SameKeyOnly),
        _ => problem,
    }
}

fn is_broken_off(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
    )
}

pub(super) fn source(status: &Status) -> Option<&(dyn StdError + 'static)> {
    StdError::source(status)
}
