//! A problem as the details of google.rpc, filled by worth until the bound.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use serde_json::{Map, Value};
use tonic_types::pb;

use super::path::field_of;
use super::reason::{is_key, reason_of, text_of};
use crate::problem::{type_of, words};
use crate::{DEFAULT_TYPE_BASE, Problem, RESERVED_MEMBERS, Violation};

/// The most bytes of `grpc-status-details-bin` before base64 (8 KiB): what does not fit is left out, see
/// [`Problem::to_status`]. A third more of it travels, and clients accept 16 KiB of headers by default.
pub const STATUS_BYTES_MAX: usize = 8192;

/// The longest domain that is sent, in bytes: that of a DNS name.
const DOMAIN_BYTES_MAX: usize = 255;

/// The longest wait a protobuf `Duration` may say, in seconds: about ten thousand years.
const PROTO_SECONDS_MAX: u64 = 315_576_000_000;

/// What an `Any` may cost beside its message: two tags, two lengths, and the longest of our type URLs.
const ANY_BYTES: usize = 64;

/// Our own metadata: members of the document, under their own names.
pub(super) mod key {
    pub(crate) const RETRY: &str = "retry";
    pub(crate) const OUTCOME: &str = "outcome";
    pub(crate) const CODE: &str = "code";
    pub(crate) const TYPE: &str = "type";
    pub(crate) const TITLE: &str = "title";
    pub(crate) const STATUS: &str = "status";
    pub(crate) const DETAIL: &str = "detail";
    pub(crate) const INSTANCE: &str = "instance";
    /// Members whose names cannot be keys, as one JSON object.
    pub(crate) const OTHERS: &str = "other-members";
    /// What `BadRequest` has no place for, as a JSON array along its violations.
    pub(crate) const EXTRAS: &str = "violation-extras";
}

/// Of what `violation-extras` consists.
pub(super) mod extra {
    pub(crate) const CODE: &str = "code";
    pub(crate) const PARAMS: &str = "params";
    pub(crate) const DETAIL: &str = "detail";
}

/// `google.rpc.ErrorInfo` with its metadata in order, so that equal problems are equal bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub(super) reason: String,
    #[prost(string, tag = "2")]
    pub(super) domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) metadata: BTreeMap<String, String>,
}

/// The `google.rpc.Status` of a problem, at most [`STATUS_BYTES_MAX`].
pub(super) fn encode(problem: &Problem, message: &str) -> Vec<u8> {
    let (reason, is_whole) = reason_of(problem.code());
    let domain = problem
        .domain()
        .filter(|domain| domain.len() <= DOMAIN_BYTES_MAX);
    let mut info = ErrorInfo {
        reason,
        domain: domain.unwrap_or_default().to_owned(),
        metadata: BTreeMap::new(),
    };
    info.put(key::RETRY, problem.retry().as_str());
    info.put(key::OUTCOME, problem.outcome().as_str());
    let retry_info = problem.retry_after().map(|wait| {
        let info = pb::RetryInfo {
            retry_delay: Some(duration(wait)),
        };
        any("RetryInfo", &info)
    });
    let request_info = problem.request_id().map(|id| {
        let info = pb::RequestInfo {
            request_id: id.as_str().to_owned(),
            serving_data: String::new(),
        };
        any("RequestInfo", &info)
    });
    let mut status = pb::Status {
        code: i32::from(problem.category().grpc_code()),
        message: message.to_owned(),
        details: retry_info.into_iter().chain(request_info).collect(),
    };

    // All of these are bounded by themselves, under 3 KiB together: they are always sent.
    let fixed = status.encoded_len() + info.encoded_len() + ANY_BYTES;
    let mut room = Room(STATUS_BYTES_MAX.saturating_sub(fixed));
    put_own(problem, message, is_whole, &mut info, &mut room);
    put_members(problem, &mut info, &mut room);
    let bad_request = bad_request(problem, &mut info, &mut room);
    let help = help(problem, &mut room);

    let first = [Some(any("ErrorInfo", &info)), bad_request];
    let details = first.into_iter().flatten();
    status.details = details.chain(status.details).chain(help).collect();
    status.encode_to_vec()
}

impl ErrorInfo {
    fn put(&mut self, key: &str, value: &str) {
        self.metadata.insert(key.to_owned(), value.to_owned());
    }
}

/// The bytes that are left. Costs are counted from above: every length below the bound takes two bytes at most.
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    /// Takes an entry of metadata: three tags and three lengths beside the texts.
    fn take_entry(&mut self, key: &str, value_bytes: usize) -> bool {
        self.take((key.len() + 9).saturating_add(value_bytes))
    }
}

/// The standard members that have no place of their own in google.rpc, where they say anything.
fn put_own(
    problem: &Problem,
    message: &str,
    is_whole: bool,
    info: &mut ErrorInfo,
    room: &mut Room,
) {
    let mut put = |key: &str, value: &str| {
        if room.take_entry(key, value.len()) {
            info.put(key, value);
        }
    };
    if !is_whole {
        put(key::CODE, problem.code());
    }
    let type_uri = problem.type_uri();
    if type_uri != type_of(DEFAULT_TYPE_BASE, problem.code()) {
        put(key::TYPE, &type_uri);
    }
    let title = problem.title();
    if title != problem.default_title() {
        put(key::TITLE, &title);
    }
    if problem.status() != problem.category().http_status() {
        put(key::STATUS, &problem.status().to_string());
    }
    if let Some(instance) = problem.instance() {
        put(key::INSTANCE, instance);
    }
    // The message says it, unless that was cut or reads as if there were no detail.
    if let Some(detail) = problem.detail()
        && (detail != message || detail.is_empty() || detail == title)
    {
        put(key::DETAIL, detail);
    }
}

/// The extension members, smallest first, so that one that is too large costs no other its place.
fn put_members(problem: &Problem, info: &mut ErrorInfo, room: &mut Room) {
    let members = problem.extensions().iter();
    let mut members: Vec<(&String, &Value, String)> = members
        .filter(|(name, value)| !value.is_null() && !RESERVED_MEMBERS.contains(&name.as_str()))
        .map(|(name, value)| (name, value, text_of(value)))
        .collect();
    members.sort_unstable_by_key(|(name, _, text)| (name.len() + text.len(), *name));
    let mut others = Map::new();
    for (name, value, text) in members {
        if is_key(name) && ![key::OTHERS, key::EXTRAS].contains(&name.as_str()) {
            if room.take_entry(name, text.len()) {
                info.metadata.insert(name.clone(), text);
            }
            continue;
        }
        let member = Value::from(name.as_str()).to_string().len() + value.to_string().len() + 2;
        let opened = !others.is_empty() || room.take_entry(key::OTHERS, 2);
        if opened && room.take(member) {
            others.insert(name.clone(), value.clone());
        }
    }
    if !others.is_empty() {
        info.put(key::OTHERS, &Value::Object(others).to_string());
    }
}

/// The violations up to the first that does not fit.
fn bad_request(problem: &Problem, info: &mut ErrorInfo, room: &mut Room) -> Option<Any> {
    let mut sent = pb::BadRequest {
        field_violations: Vec::new(),
    };
    let mut extras = Vec::new();
    if problem.errors().is_empty() || !room.take(ANY_BYTES) || !room.take_entry(key::EXTRAS, 2) {
        return None;
    }
    for violation in problem.errors() {
        let (violation, extra) = field_violation(violation);
        let bytes = violation.encoded_len() + 4 + extra.to_string().len() + 1;
        if !room.take(bytes) {
            break;
        }
        sent.field_violations.push(violation);
        extras.push(extra);
    }
    if extras.iter().any(|extra| !extra.is_null()) {
        info.put(key::EXTRAS, &Value::Array(extras).to_string());
    }
    (!sent.field_violations.is_empty()).then(|| any("BadRequest", &sent))
}

/// A violation, and what there is no place for in it: null, mostly.
fn field_violation(violation: &Violation) -> (pb::bad_request::FieldViolation, Value) {
    let (reason, is_whole) = reason_of(violation.code());
    let in_words = words(violation.code());
    let mut extra = Map::new();
    if !is_whole {
        extra.insert(extra::CODE.to_owned(), violation.code().into());
    }
    let params: Map<String, Value> = violation
        .params()
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    if !params.is_empty() {
        extra.insert(extra::PARAMS.to_owned(), Value::Object(params));
    }
    if let Some(detail) = violation.detail()
        && (detail.is_empty() || detail == in_words)
    {
        extra.insert(extra::DETAIL.to_owned(), detail.into());
    }
    let described = pb::bad_request::FieldViolation {
        field: field_of(violation.location(), violation.pointer()),
        description: violation.detail().map_or(in_words, str::to_owned),
        reason,
        localized_message: None,
    };
    let extra = if extra.is_empty() {
        Value::Null
    } else {
        Value::Object(extra)
    };
    (described, extra)
}

/// A link to the page of the code, where `type` is one that can be opened from anywhere.
fn help(problem: &Problem, room: &mut Room) -> Option<Any> {
    let url = problem.type_uri();
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return None;
    }
    let help = pb::Help {
        links: vec![pb::help::Link {
            description: problem.title().into_owned(),
            url: url.into_owned(),
        }],
    };
    room.take(help.encoded_len() + ANY_BYTES)
        .then(|| any("Help", &help))
}

pub(super) fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}

fn duration(wait: Duration) -> prost_types::Duration {
    let wait = wait.min(Duration::from_secs(PROTO_SECONDS_MAX));
    prost_types::Duration {
        seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
    }
}
