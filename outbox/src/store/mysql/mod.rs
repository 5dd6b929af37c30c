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
mod signal;

use futures_util::future::BoxFuture;
use sqlx::{MySqlConnection, MySqlPool, Row, mysql::MySqlRow};
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

fn candidate(row: &MySqlRow) -> Result<Candidate, sqlx::Error> {
    Ok(Candidate {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        attempts: row.try_get("attempts")?,
        suspect: row.try_get("suspect")?,
        message: message(row, 1)?,
    })
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
        headers: parse_headers(row.try_get("headers")?),
        payload: row.try_get::<Vec<u8>, _>("payload")?.into(),
        attempt: attempts.unsigned_abs().saturating_add(next),
    })
}

/// The text in a column of bytes, which is how topics are stored.
fn text(row: &MySqlRow, column: &'static str) -> Result<String, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    String::from_utf8(bytes).map_err(|error| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(error),
    })
}
