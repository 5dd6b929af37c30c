//! Commands that only look.

use std::time::Duration;

use mainstay_outbox::{
    Admin, HealthReason, HealthStatus, Message, OutboxDb, Precision, Severity, Thresholds, Verdict,
    Wait,
};
use serde_json::json;

use crate::{
    Answer, Failure,
    args::{List, ListDead},
    document,
    table::{Table, printable},
};

pub(crate) async fn lag<Db: OutboxDb>(admin: &Admin<Db>) -> Result<Answer, Failure> {
    let lag = admin.lag().await?;
    let mut text = format!("pending  {}\n", count(lag.pending, lag.precision));
    let oldest = lag.oldest_age.map_or_else(|| "-".to_owned(), span);
    text.push_str(&format!("oldest   {oldest}\n"));
    for (what, number) in [
        ("later   ", lag.later),
        ("dead    ", lag.dead),
        ("parked  ", lag.parked_keys),
        ("paused  ", lag.paused),
    ] {
        text.push_str(&format!("{what} {number}\n"));
    }
    Ok(Answer::new(document::lag(&lag), text))
}

pub(crate) async fn lag_by_topic<Db: OutboxDb>(admin: &Admin<Db>) -> Result<Answer, Failure> {
    let topics = admin.lag_by_topic().await?;
    let mut table = Table::new(["topic", "pending", "retrying", "oldest"]);
    for one in &topics {
        table.row([
            one.topic.clone(),
            count(one.pending, one.precision),
            one.retrying.to_string(),
            span(one.oldest_age),
        ]);
    }
    let told: Vec<_> = topics.iter().map(document::topic).collect();
    Ok(Answer::new(
        json!({ "topics": told }),
        table.or("nothing is pending"),
    ))
}

pub(crate) async fn lanes<Db: OutboxDb>(admin: &Admin<Db>) -> Result<Answer, Failure> {
    let lanes = admin.lanes().await?;
    let mut table = Table::new([
        "lane",
        "verdict",
        "pending",
        "oldest",
        "in flight",
        "settled",
        "lease",
        "epoch",
        "owner",
    ]);
    let maybe = |age: Option<Duration>| age.map_or_else(|| "-".to_owned(), span);
    for lane in &lanes {
        let verdict = match &lane.verdict {
            Verdict::Stalled { quiet, why } => {
                format!("stalled {}: {}", span(*quiet), document::stall(why))
            }
            verdict => document::verdict(verdict).to_owned(),
        };
        table.row([
            lane.lane.to_string(),
            verdict,
            lane.pending.to_string(),
            maybe(lane.oldest_age),
            lane.in_flight.to_string(),
            maybe(lane.settled_ago),
            maybe(lane.lease_left),
            lane.epoch.to_string(),
            lane.owner
                .map_or_else(|| "-".to_owned(), |owner| owner.to_string()),
        ]);
    }
    let told: Vec<_> = lanes.iter().map(document::lane).collect();
    Ok(Answer::new(json!({ "lanes": told }), table.or("no lanes")))
}

pub(crate) async fn peek<Db: OutboxDb>(admin: &Admin<Db>, list: &List) -> Result<Answer, Failure> {
    let found = admin.peek(list.which.filter(None), list.show.count).await?;
    let mut table = Table::new(["place", "lane", "topic", "type", "key", "waits for", "id"]);
    let mut payloads = String::new();
    for one in &found {
        let waits = match one.wait() {
            Wait::Retry { left } => {
                format!("attempt {} in {}", one.message().attempt(), span(left))
            }
            Wait::Later { due_at } => document::moment(due_at),
            wait => document::wait(&wait).to_owned(),
        };
        let message = one.message();
        table.row([
            one.place().to_string(),
            one.lane().to_string(),
            message.topic().to_owned(),
            message.event_type().to_owned(),
            key(message),
            waits,
            message.id().to_string(),
        ]);
        show_payload(&mut payloads, message);
    }
    let told = found
        .iter()
        .map(|one| document::pending(one, list.show.payload));
    let mut text = table.or("nothing is pending");
    if list.show.payload {
        text.push_str(&payloads);
    }
    Ok(Answer::new(
        json!({ "pending": told.collect::<Vec<_>>() }),
        text,
    ))
}

pub(crate) async fn dead<Db: OutboxDb>(
    admin: &Admin<Db>,
    list: &ListDead,
) -> Result<Answer, Failure> {
    let filter = list.which.filter(list.cause);
    let found = admin.dead(filter, list.show.count).await?;
    let mut table = Table::new([
        "place", "lane", "topic", "key", "died", "cause", "attempts", "id", "reason",
    ]);
    let mut payloads = String::new();
    for one in &found {
        let message = one.message();
        table.row([
            one.place().to_string(),
            one.lane().to_string(),
            message.topic().to_owned(),
            key(message),
            document::moment(one.died_at()),
            one.cause().as_str().to_owned(),
            message.attempt().to_string(),
            message.id().to_string(),
            one.reason().to_owned(),
        ]);
        show_payload(&mut payloads, message);
    }
    let told = found
        .iter()
        .map(|one| document::dead(one, list.show.payload));
    let mut text = table.or("no dead letters");
    if list.show.payload {
        text.push_str(&payloads);
    }
    Ok(Answer::new(
        json!({ "dead": told.collect::<Vec<_>>() }),
        text,
    ))
}

pub(crate) async fn paused<Db: OutboxDb>(admin: &Admin<Db>) -> Result<Answer, Failure> {
    let paused = admin.paused().await?;
    let mut table = Table::new(["pattern", "since", "by"]);
    for one in &paused {
        table.row([
            one.pattern.clone(),
            document::moment(one.since),
            one.actor.clone(),
        ]);
    }
    let told: Vec<_> = paused.iter().map(document::paused).collect();
    Ok(Answer::new(
        json!({ "paused": told }),
        table.or("nothing is paused"),
    ))
}

pub(crate) async fn audit<Db: OutboxDb>(admin: &Admin<Db>, count: u32) -> Result<Answer, Failure> {
    let audit = admin.audit(count).await?;
    let mut table = Table::new(["id", "at", "by", "action", "affected", "asked"]);
    for one in &audit {
        table.row([
            one.id.to_string(),
            document::moment(one.at),
            one.actor.clone(),
            one.action.clone(),
            one.affected.to_string(),
            one.detail.clone(),
        ]);
    }
    let told: Vec<_> = audit.iter().map(document::audit).collect();
    Ok(Answer::new(
        json!({ "audit": told }),
        table.or("nothing was done"),
    ))
}

pub(crate) async fn verify<Db: OutboxDb>(admin: &Admin<Db>) -> Result<Answer, Failure> {
    let findings = admin.verify().await?;
    let mut table = Table::new(["severity", "check", "count", "meaning"]);
    for one in &findings {
        let severity = match one.severity {
            Severity::Error => "error",
            _ => "warning",
        };
        table.row([
            severity.to_owned(),
            one.check.to_owned(),
            one.count.to_string(),
            one.detail.clone(),
        ]);
    }
    let bad = findings.iter().any(|one| one.severity == Severity::Error);
    let answer = Answer::new(json!({ "findings": findings }), table.or("all is well"));
    Ok(answer.exit(if bad { 3 } else { 0 }))
}

pub(crate) async fn health<Db: OutboxDb>(admin: &Admin<Db>) -> Result<Answer, Failure> {
    let health = admin.health(&Thresholds::default()).await?;
    let status = match health.status {
        HealthStatus::Ok => "ok",
        HealthStatus::Degraded => "degraded",
        _ => "failing",
    };
    let mut text = format!("{status}\n");
    for reason in &health.reasons {
        let said = match reason {
            HealthReason::NoRelay => "no relay is alive".to_owned(),
            HealthReason::OldestAge { age } => {
                format!("the oldest message waits for {}", span(*age))
            }
            HealthReason::UnownedLanes { lanes } => {
                format!("lanes with messages and no relay: {lanes}")
            }
            HealthReason::StalledLanes { lanes, quiet } => {
                format!(
                    "lanes that settle nothing: {lanes}, the longest for {}",
                    span(*quiet)
                )
            }
            HealthReason::DeadLetters { letters, window } => {
                format!("messages that died within {}: {letters}", span(*window))
            }
            other => format!("{other:?}"),
        };
        text.push_str(&format!("- {said}\n"));
    }
    let failing = health.status == HealthStatus::Failing;
    Ok(Answer::new(json!(health), text).exit(if failing { 3 } else { 0 }))
}

fn count(number: u64, precision: Precision) -> String {
    match precision {
        Precision::Exact => number.to_string(),
        Precision::Estimated => format!("about {number}"),
        _ => format!("{number} or more"),
    }
}

fn key(message: &Message) -> String {
    match message.key() {
        None => "-".to_owned(),
        Some(key) => match std::str::from_utf8(key) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("0x{}", document::hex(key)),
        },
    }
}

fn show_payload(text: &mut String, message: &Message) {
    text.push_str(&format!("\n{}\n", message.id()));
    for (name, value) in message.headers() {
        text.push_str(&format!("  {}: {}\n", printable(name), printable(value)));
    }
    match std::str::from_utf8(message.payload()) {
        Ok(payload) => text.push_str(&format!("  {}\n", printable(payload))),
        Err(_) => text.push_str(&format!("  0x{}\n", document::hex(message.payload()))),
    }
}

/// To three digits or so; people compare ages, they do not add them up.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_as_people_say_them() {
        for (millis, said) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_500, "1.5 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), said);
        }
    }
}
