//! The outbox on Postgres. Every relay operation is one statement, so no transaction is ever open between two.

mod admin;
mod claim;
mod enqueue;
mod lanes;
mod migrate;
mod observe;
mod settle;
mod signal;

use std::time::Duration;

use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{Candidate, parse_headers};
use crate::message::{Message, from_micros};

fn column<'r, R, T>(rows: &'r [R], get: impl FnMut(&'r R) -> T) -> Vec<T> {
    rows.iter().map(get).collect()
}

/// Lists of different lengths do not fit into one array of arrays: one flat list, and where each part of it begins and
/// ends, counted from 1. A slice of an array costs nothing, while grouping by lane took a third of the time.
fn flat<'a>(parts: impl Iterator<Item = &'a [i64]>) -> (Vec<i64>, Vec<i32>, Vec<i32>) {
    let at = |len: usize| i32::try_from(len).unwrap_or(i32::MAX);
    let (mut ids, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        first.push(at(ids.len() + 1));
        ids.extend_from_slice(part);
        last.push(at(ids.len()));
    }
    (ids, first, last)
}

/// By position: there are many of them, and a name is looked up for every row. `None` when its payload was left out.
fn candidate(row: &PgRow) -> Result<Option<Candidate>, sqlx::Error> {
    let Some(payload) = row.try_get::<Option<Vec<u8>>, _>(16)? else {
        return Ok(None);
    };
    let attempts: i32 = row.try_get(2)?;
    let (enqueued, now): (i64, i64) = (row.try_get_unchecked(17)?, row.try_get_unchecked(18)?);
    Ok(Some(Candidate {
        lane: row.try_get(0)?,
        id: row.try_get(1)?,
        attempts,
        suspect: row.try_get(3)?,
        parked: row.try_get(4)?,
        failures: row.try_get(5)?,
        age: Duration::from_micros(now.saturating_sub(enqueued).max(0).unsigned_abs()),
        message: Message {
            id: row.try_get::<Uuid, _>(6)?.into(),
            source: row.try_get(7)?,
            event_type: row.try_get(8)?,
            topic: row.try_get(9)?,
            subject: row.try_get(10)?,
            // What travels is a number of microseconds since 2000; to make it one since 1970 in the statement takes the
            // server longer than to find the row.
            time: from_micros(row.try_get_unchecked::<i64, _>(11)?.saturating_add(TO_2000)),
            content_type: row.try_get(12)?,
            key: row.try_get(13)?,
            ordered: row.try_get(14)?,
            headers: parse_headers(row.try_get(15)?),
            payload: payload.into(),
            attempt: attempts.unsigned_abs().saturating_add(1),
            place: Some(row.try_get(1)?),
        },
    }))
}

/// Microseconds from 1970 to 2000.
const TO_2000: i64 = 946_684_800_000_000;

/// A message from a row of any of the tables; its attempt is the row's plus `next`.
fn message(row: &PgRow, next: u32) -> Result<Message, sqlx::Error> {
    let attempts: i32 = row.try_get("attempts")?;
    Ok(Message {
        id: row.try_get::<Uuid, _>("event_id")?.into(),
        source: row.try_get("source")?,
        event_type: row.try_get("type")?,
        topic: row.try_get("topic")?,
        subject: row.try_get("subject")?,
        time: from_micros(row.try_get("time_micros")?),
        content_type: row.try_get("content_type")?,
        key: row.try_get("key")?,
        ordered: row.try_get("ordered")?,
        headers: parse_headers(row.try_get("headers")?),
        payload: row.try_get::<Vec<u8>, _>("payload")?.into(),
        attempt: attempts.unsigned_abs().saturating_add(next),
        place: Some(row.try_get("id")?),
    })
}
