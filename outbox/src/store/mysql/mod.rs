//! The outbox on MySQL and MariaDB.
//!
//! What writes in more than one statement does so in a short READ COMMITTED transaction that locks its lanes first, in
//! order: at that level a DELETE locks the rows it finds and no gaps between them, into which producers insert. InnoDB may
//! still answer with a deadlock, which rolls everything back: then the step is to be done again.
//!
//! Everything runs in a task of its own. A statement that is cut off leaves its answer in the connection, where the next
//! one would take it for its own.

mod admin;
mod claim;
mod enqueue;
mod lanes;
mod migrate;
mod observe;
mod settle;
mod signal;

use futures_util::future::BoxFuture;
use sqlx::{ColumnIndex, MySqlConnection, MySqlPool, Row, mysql::MySqlRow};
use uuid::Uuid;

use super::{Candidate, parse_headers};
use crate::{
    error::{Error, ErrorKind},
    message::{Message, from_micros},
};

const BEGIN: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION READ WRITE";

/// Runs `work` in a READ COMMITTED transaction in a task of its own, so that dropping the caller cuts nothing in half.
async fn transaction<T, F>(pool: MySqlPool, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>
        + Send
        + 'static,
{
    apart(async move {
        let mut tx = pool.begin_with(BEGIN).await?;
        let done = work(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    })
    .await
}

/// Runs statements that need no transaction in a task of their own.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, sqlx::Error>> + Send + 'static,
) -> Result<T, Error> {
    let task = tokio::spawn(work);
    let done = task.await.map_err(|_| Error::new(ErrorKind::Shutdown))?;
    done.map_err(Error::from)
}

/// A list as the JSON that `JSON_TABLE` takes apart again.
fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

/// By position: there are many of them, and a name is looked up for every row. `None` when its payload was left out.
fn candidate(row: &MySqlRow) -> Result<Option<Candidate>, sqlx::Error> {
    let Some(payload) = row.try_get::<Option<Vec<u8>>, _>(16)? else {
        return Ok(None);
    };
    let attempts: i32 = row.try_get(2)?;
    Ok(Some(Candidate {
        lane: row.try_get(0)?,
        id: row.try_get(1)?,
        attempts,
        suspect: row.try_get(3)?,
        parked: row.try_get(4)?,
        failures: row.try_get(5)?,
        message: Message {
            id: row.try_get::<Uuid, _>(6)?.into(),
            source: row.try_get(7)?,
            event_type: row.try_get(8)?,
            topic: text(row, 9)?,
            subject: row.try_get(10)?,
            time: from_micros(row.try_get(11)?),
            content_type: row.try_get(12)?,
            key: row.try_get(13)?,
            ordered: row.try_get(14)?,
            headers: parse_headers(row.try_get(15)?),
            payload: payload.into(),
            attempt: attempts.unsigned_abs().saturating_add(1),
        },
    }))
}

/// A message from a row of either table; its attempt is the row's plus `next`.
fn message(row: &MySqlRow, next: u32) -> Result<Message, sqlx::Error> {
    let attempts: i32 = row.try_get("attempts")?;
    Ok(Message {
        id: row.try_get::<Uuid, _>("event_id")?.into(),
        source: row.try_get("source")?,
        event_type: row.try_get("type")?,
        topic: text(row, "topic")?,
        subject: row.try_get("subject")?,
        time: from_micros(row.try_get("time_micros")?),
        content_type: row.try_get("content_type")?,
        key: row.try_get("key")?,
        ordered: row.try_get("ordered")?,
        headers: parse_headers(row.try_get("headers")?),
        payload: row.try_get::<Vec<u8>, _>("payload")?.into(),
        attempt: attempts.unsigned_abs().saturating_add(next),
    })
}

/// The text in a column of bytes, which is how topics are stored.
fn text<I>(row: &MySqlRow, column: I) -> Result<String, sqlx::Error>
where
    I: ColumnIndex<MySqlRow> + std::fmt::Debug,
{
    let bytes: Vec<u8> = row.try_get(&column)?;
    String::from_utf8(bytes).map_err(|error| sqlx::Error::ColumnDecode {
        index: format!("{column:?}"),
        source: Box::new(error),
    })
}
