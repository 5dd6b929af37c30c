//! The outbox on Postgres. Every relay operation is one statement, so no transaction is ever open between two.

mod admin;
mod claim;
mod enqueue;
mod lanes;
mod migrate;
mod observe;
mod signal;

use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{Candidate, parse_headers};
use crate::message::{Message, from_micros};

fn column<'r, R, T>(rows: &'r [R], get: impl FnMut(&'r R) -> T) -> Vec<T> {
    rows.iter().map(get).collect()
}

fn candidate(row: &PgRow) -> Result<Candidate, sqlx::Error> {
    Ok(Candidate {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        attempts: row.try_get("attempts")?,
        suspect: row.try_get("suspect")?,
        message: message(row, 1)?,
    })
}

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
        headers: parse_headers(row.try_get("headers")?),
        payload: row.try_get::<Vec<u8>, _>("payload")?.into(),
        attempt: attempts.unsigned_abs().saturating_add(next),
    })
}
