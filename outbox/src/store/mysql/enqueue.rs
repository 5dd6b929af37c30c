//! The outbox on MySQL and MariaDB: one INSERT in the caller's transaction.
//!
//! The lane is the column's default, `hash % lanes`, so nothing is read: an INSERT that reads takes shared locks where it
//! does, and above READ COMMITTED on the gaps as well.

use sqlx::{
    AssertSqlSafe, MySql, MySqlConnection,
    mysql::{MySqlArguments, MySqlDatabaseError},
    query::Query,
};

use super::{
    super::{Enqueue, Misfit, NewRow},
    json,
    migrate::KEY_LOCKS,
};

const INSERT: &str = "INSERT INTO mainstay_outbox_message
    (hash, event_id, source, type, topic, subject, time, content_type, `key`, ordered, headers, payload)
    VALUES (?, ?, ?, ?, ?, ?, coalesce(timestampadd(MICROSECOND, ?, '1970-01-01'), utc_timestamp(6)), ?, ?, ?, ?, ?)";

const AND_ONE: &str = ", (?, ?, ?, ?, ?, ?, coalesce(timestampadd(MICROSECOND, ?, '1970-01-01'), utc_timestamp(6)), ?, ?, ?, ?, ?)";

const INSERT_LATER: &str = "INSERT INTO mainstay_outbox_later
    (hash, event_id, source, type, topic, subject, time, content_type, `key`, ordered, headers, payload, due_at)
    VALUES (?, ?, ?, ?, ?, ?, coalesce(timestampadd(MICROSECOND, ?, '1970-01-01'), utc_timestamp(6)), ?, ?, ?, ?, ?,
        timestampadd(MICROSECOND, ?, '1970-01-01'))";

const AND_ONE_LATER: &str =
    ", (?, ?, ?, ?, ?, ?, coalesce(timestampadd(MICROSECOND, ?, '1970-01-01'), utc_timestamp(6)), ?, ?, ?, ?, ?,
        timestampadd(MICROSECOND, ?, '1970-01-01'))";

impl Enqueue for MySql {
    async fn insert(conn: &mut MySqlConnection, row: &NewRow<'_>) -> Result<u64, sqlx::Error> {
        lock(&mut *conn, std::slice::from_ref(row)).await?;
        let done = bind(sqlx::query(INSERT), row).execute(conn).await?;
        Ok(done.rows_affected())
    }

    async fn insert_many(
        conn: &mut MySqlConnection,
        rows: &[NewRow<'_>],
    ) -> Result<u64, sqlx::Error> {
        lock(&mut *conn, rows).await?;
        let mut query = sqlx::query(AssertSqlSafe(repeated(INSERT, AND_ONE, rows.len())));
        for row in rows {
            query = bind(query, row);
        }
        let done = query.execute(conn).await?;
        Ok(done.rows_affected())
    }

    async fn insert_later(
        conn: &mut MySqlConnection,
        rows: &[NewRow<'_>],
    ) -> Result<u64, sqlx::Error> {
        let sql = repeated(INSERT_LATER, AND_ONE_LATER, rows.len());
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for row in rows {
            query = bind(query, row).bind(row.due_micros.unwrap_or_default());
        }
        let done = query.execute(conn).await?;
        Ok(done.rows_affected())
    }

    fn misfit(error: &sqlx::Error) -> Option<Misfit> {
        let refused = error.as_database_error()?;
        match refused.try_downcast_ref::<MySqlDatabaseError>()?.number() {
            // A server that only reads, a transaction that does, and an InnoDB that does.
            1290 | 1792 | 1836 => Some(Misfit::ReadOnly),
            // No such table, no such column, a column that wants a value.
            1146 | 1054 | 1364 => Some(Misfit::Schema),
            _ => None,
        }
    }
}

/// Locks the rows that stand for keys, to the end of the transaction and before the INSERT draws its ids; a statement of
/// its own, and only where a key wants it. In the order of their numbers, as everybody does.
async fn lock(conn: &mut MySqlConnection, rows: &[NewRow<'_>]) -> Result<(), sqlx::Error> {
    let locks = rows.iter().filter_map(|row| row.lock);
    let mut slots: Vec<i64> = locks.map(|lock| lock % i64::from(KEY_LOCKS)).collect();
    if slots.is_empty() {
        return Ok(());
    }
    slots.sort_unstable();
    slots.dedup();
    sqlx::query(
        "SELECT k.slot
         FROM JSON_TABLE(?, '$[*]' COLUMNS (slot INT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_key_lock k ON k.slot = w.slot
         FOR UPDATE",
    )
    .bind(json(&slots))
    .execute(conn)
    .await?;
    Ok(())
}

/// There are no arrays here, and taking a JSON list apart costs five times what the INSERT does (measured): the same literal
/// row once for each event. Ids are drawn in the order of the rows.
fn repeated(insert: &str, and_one: &str, rows: usize) -> String {
    let mut sql = String::with_capacity(insert.len() + rows * and_one.len());
    sql.push_str(insert);
    for _ in 1..rows {
        sql.push_str(and_one);
    }
    sql
}

fn bind<'q>(
    query: Query<'q, MySql, MySqlArguments>,
    row: &'q NewRow<'_>,
) -> Query<'q, MySql, MySqlArguments> {
    query
        .bind(row.hash)
        .bind(row.event_id)
        .bind(row.source)
        .bind(row.event_type)
        .bind(row.topic.as_bytes())
        .bind(row.subject)
        .bind(row.time_micros)
        .bind(row.content_type)
        .bind(row.key)
        .bind(row.ordered)
        .bind(&row.headers)
        .bind(row.payload)
}
