//! The outbox on SQLite. What writes more than one row does so in a BEGIN IMMEDIATE transaction in a task of its own:
//! it takes the one write lock at the start, so it never has to give up half way, and it is short.

/// The columns of an event, which all tables have that hold one, whatever else they have.
macro_rules! event_columns {
    () => {
        "id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload, enqueued_at"
    };
}

mod admin;
mod claim;
mod enqueue;
mod lanes;
mod migrate;
mod observe;
mod signal;

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use uuid::Uuid;

use super::{Candidate, parse_headers};
use crate::{
    error::{Error, ErrorKind},
    message::{Message, from_micros},
};

/// Runs `work` in a BEGIN IMMEDIATE transaction in a task of its own, so that dropping the caller cuts nothing in half.
async fn immediate<T, F>(pool: SqlitePool, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>
        + Send
        + 'static,
{
    let task = tokio::spawn(async move {
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = work(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    });
    task.await.map_err(|_| Error::new(ErrorKind::Shutdown))?
}

/// A list of numbers or texts as the JSON that `json_each` takes apart again.
fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

fn candidate(row: &SqliteRow) -> Result<Candidate, sqlx::Error> {
    Ok(Candidate {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        attempts: row.try_get("attempts")?,
        suspect: row.try_get("suspect")?,
        parked: row.try_get("parked")?,
        failures: row.try_get("failures")?,
        age: Duration::from_micros(row.try_get::<i64, _>("age_micros")?.max(0).unsigned_abs()),
        message: message(row, 1)?,
    })
}

/// A message from a row of any of the tables; its attempt is the row's plus `next`.
fn message(row: &SqliteRow, next: u32) -> Result<Message, sqlx::Error> {
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
