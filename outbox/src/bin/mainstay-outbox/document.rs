//! What `--json` prints, piece by piece. Members are added, never renamed.

use std::time::{Duration, SystemTime};

use mainstay_outbox::{
    Audit, DeadLetter, Lag, LaneLag, Message, Paused, Pending, Precision, StallCause, TopicLag,
    Verdict, Wait,
};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(crate) fn seconds(span: Duration) -> Value {
    json!(span.as_secs_f64())
}

/// RFC 3339, in UTC.
pub(crate) fn moment(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "beyond all calendars".to_owned())
}

pub(crate) const fn precision(precision: Precision) -> &'static str {
    match precision {
        Precision::Exact => "exact",
        Precision::Estimated => "estimated",
        _ => "at_least",
    }
}

pub(crate) fn lag(lag: &Lag) -> Value {
    json!({
        "pending": lag.pending,
        "precision": precision(lag.precision),
        "oldest_age_seconds": lag.oldest_age.map(seconds),
        "later": lag.later,
        "dead": lag.dead,
        "parked_keys": lag.parked_keys,
        "paused": lag.paused,
    })
}

pub(crate) fn topic(topic: &TopicLag) -> Value {
    json!({
        "topic": topic.topic,
        "pending": topic.pending,
        "precision": precision(topic.precision),
        "retrying": topic.retrying,
        "oldest_age_seconds": seconds(topic.oldest_age),
    })
}

pub(crate) const fn verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Idle => "idle",
        Verdict::Flowing => "flowing",
        Verdict::Unowned => "unowned",
        _ => "stalled",
    }
}

pub(crate) const fn stall(why: &StallCause) -> &'static str {
    match why {
        StallCause::InFlight => "in_flight",
        StallCause::Paused => "paused",
        StallCause::Retrying { .. } => "retrying",
        _ => "not_claimed",
    }
}

pub(crate) fn lane(lane: &LaneLag) -> Value {
    let (why, quiet) = match &lane.verdict {
        Verdict::Stalled { quiet, why } => (Some(stall(why)), Some(seconds(*quiet))),
        _ => (None, None),
    };
    json!({
        "lane": lane.lane,
        "verdict": verdict(&lane.verdict),
        "stalled_by": why,
        "stalled_seconds": quiet,
        "owner": lane.owner.map(|owner| owner.to_string()),
        "epoch": lane.epoch,
        "lease_left_seconds": lane.lease_left.map(seconds),
        "in_flight": lane.in_flight,
        "settled_ago_seconds": lane.settled_ago.map(seconds),
        "pending": lane.pending,
        "oldest_age_seconds": lane.oldest_age.map(seconds),
    })
}

pub(crate) const fn wait(wait: &Wait) -> &'static str {
    match wait {
        Wait::Due => "due",
        Wait::InFlight => "in_flight",
        Wait::Paused => "paused",
        Wait::Parked => "parked",
        Wait::Retry { .. } => "retry",
        Wait::BehindKey => "behind_key",
        Wait::Later { .. } => "later",
        _ => "unknown",
    }
}

pub(crate) fn pending(pending: &Pending, payload: bool) -> Value {
    let mut said = message(pending.message(), payload);
    let (retry, due) = match pending.wait() {
        Wait::Retry { left } => (Some(seconds(left)), None),
        Wait::Later { due_at } => (None, Some(moment(due_at))),
        _ => (None, None),
    };
    said.extend(object(json!({
        "lane": pending.lane(),
        "place": pending.place(),
        "enqueued_at": moment(pending.enqueued_at()),
        "waits_for": wait(&pending.wait()),
        "retry_in_seconds": retry,
        "due_at": due,
        "next_attempt": pending.message().attempt(),
        "last_reason": pending.last_reason(),
    })));
    Value::Object(said)
}

pub(crate) fn dead(letter: &DeadLetter, payload: bool) -> Value {
    let mut said = message(letter.message(), payload);
    let failures = letter.failures();
    let failures = failures.iter().map(|failure| {
        json!({ "attempt": failure.attempt, "at": moment(failure.at), "reason": failure.reason })
    });
    said.extend(object(json!({
        "lane": letter.lane(),
        "place": letter.place(),
        "cause": letter.cause().as_str(),
        "reason": letter.reason(),
        "attempts": letter.message().attempt(),
        "died_at": moment(letter.died_at()),
        "failures": failures.collect::<Vec<_>>(),
    })));
    Value::Object(said)
}

pub(crate) fn paused(paused: &Paused) -> Value {
    json!({ "pattern": paused.pattern, "actor": paused.actor, "since": moment(paused.since) })
}

pub(crate) fn audit(audit: &Audit) -> Value {
    let detail: Value = serde_json::from_str(&audit.detail).unwrap_or_else(|_| json!(audit.detail));
    json!({
        "id": audit.id,
        "at": moment(audit.at),
        "actor": audit.actor,
        "action": audit.action,
        "detail": detail,
        "affected": audit.affected,
    })
}

fn message(message: &Message, payload: bool) -> Map<String, Value> {
    let mut said = object(json!({
        "id": message.id().to_string(),
        "source": message.source(),
        "type": message.event_type(),
        "topic": message.topic(),
        "subject": message.subject(),
        "time": moment(message.time()),
        "content_type": message.content_type(),
        "payload_bytes": message.payload().len(),
    }));
    bytes(&mut said, "key", message.key());
    if payload {
        bytes(&mut said, "payload", Some(message.payload()));
        let headers = message.headers().map(|(name, value)| json!([name, value]));
        said.insert("headers".to_owned(), headers.collect());
    }
    said
}

/// Text where it is text, hexadecimal under a name of its own where it is not.
fn bytes(said: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| hex(bytes))) {
        None => said.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => said.insert(name.to_owned(), json!(text)),
        Some(Err(hex)) => said.insert(format!("{name}_hex"), json!(hex)),
    };
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
