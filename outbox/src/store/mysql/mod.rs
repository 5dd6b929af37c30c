//! The outbox on MySQL and MariaDB.
//!
//! What writes does so in a short READ COMMITTED transaction that locks its lanes first, in order: at that level a DELETE
//! locks the rows it finds and no gaps between them, into which producers insert. InnoDB may still end a deadlock at its
//! cost, which rolls all of it back: then it is done again, at once.
//!
//! Everything runs in a task of its own. A statement that is cut off leaves its answer in the connection, where the next
//! one would take it for its own.

mod admin;
mod claim;
mod enqueue;
mod lanes;
mod migrate;
mod observe;
mod rows;
mod select;
mod settle;
mod signal;

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{
    ColumnIndex, Connection, MySqlConnection, MySqlPool, Row,
    mysql::{MySqlDatabaseError, MySqlRow},
};
use uuid::Uuid;

use super::{Candidate, parse_headers};
use crate::{
    error::{Error, ErrorKind},
    message::{Message, from_micros},
};

const BEGIN: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION READ WRITE";

/// An operator's command waits this many seconds for a lock, or less where the server is set to less: it is not worth
/// holding up relays, which may wait behind what it holds already. For the same reason MariaDB ends a statement of it that
/// takes longer; MySQL has no such bound for what writes.
const BOUND: &str = "SET @mainstay_outbox_wait = @@innodb_lock_wait_timeout,
    innodb_lock_wait_timeout = least(@@innodb_lock_wait_timeout, 5)
    /*M! , @mainstay_outbox_limit = @@max_statement_time,
    max_statement_time = CASE WHEN @@max_statement_time = 0 THEN 6 ELSE least(@@max_statement_time, 6) END */";

const UNBOUND: &str = "SET innodb_lock_wait_timeout = @mainstay_outbox_wait
    /*M! , max_statement_time = @mainstay_outbox_limit */";

/// How often a transaction is done again that InnoDB rolled back to end a deadlock. Its other party goes on meanwhile, so
/// the second time is mostly enough.
const DEADLOCKS_MAX: u32 = 10;

/// Runs `work` in a READ COMMITTED transaction in a task of its own, so that dropping the caller cuts nothing in half. Again
/// where it lost a deadlock: nothing of it is left then.
async fn transaction<T, F>(pool: MySqlPool, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>
        + Send
        + Sync
        + 'static,
{
    apart(async move {
        let mut again = DEADLOCKS_MAX;
        loop {
            let mut conn = pool.acquire().await?;
            match once(&mut conn, &work).await {
                Err(error) if again > 0 && is_number(&error, 1213) => again -= 1,
                done => return done,
            }
        }
    })
    .await
}

/// The same for operators, who wait for locks no longer than [`BOUND`].
async fn impatient<T, F>(pool: MySqlPool, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>
        + Send
        + Sync
        + 'static,
{
    apart(async move {
        let mut again = DEADLOCKS_MAX;
        loop {
            let mut conn = pool.acquire().await?;
            sqlx::raw_sql(BOUND).execute(&mut *conn).await?;
            let done = once(&mut conn, &work).await;
            // The application's connection gets back what it was set to; one that cannot be told is not given back.
            if sqlx::raw_sql(UNBOUND).execute(&mut *conn).await.is_err() {
                drop(conn.detach());
            }
            match done {
                Err(error) if again > 0 && is_number(&error, 1213) => again -= 1,
                done => return done,
            }
        }
    })
    .await
}

async fn once<T, F>(conn: &mut MySqlConnection, work: &F) -> Result<T, sqlx::Error>
where
    F: for<'c> Fn(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
{
    let mut tx = conn.begin_with(BEGIN).await?;
    let done = work(&mut tx).await?;
    tx.commit().await?;
    Ok(done)
}

/// Whether it is the server's error of this number: 1062 is a duplicate, 1213 a deadlock.
fn is_number(error: &sqlx::Error, number: u16) -> bool {
    let refused = error.as_database_error();
    refused
        .and_then(|refused| refused.try_downcast_ref::<MySqlDatabaseError>())
        .is_some_and(|refused| refused.number() == number)
}

/// Runs statements that only read, or are repeated by their caller, in a task of their own.
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
        age: Duration::from_micros(row.try_get::<i64, _>(17)?.max(0).unsigned_abs()),
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
            place: Some(row.try_get(1)?),
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
        place: Some(row.try_get("id")?),
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
