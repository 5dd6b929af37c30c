//! The outbox on MySQL and MariaDB: one INSERT in the caller's transaction.
//!
//! The lane is the column's default, `hash % lanes`, so nothing is read: an INSERT that reads takes shared locks where it
//! does, and above READ COMMITTED next-key locks.

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, mysql::MySqlArguments, query::Query};

use super::super::{Enqueue, NewRow};

const INSERT: &str = "INSERT INTO mainstay_outbox_message
    (hash, event_id, source, type, topic, subject, time, content_type, `key`, headers, payload)
    VALUES (?, ?, ?, ?, ?, ?, coalesce(timestampadd(MICROSECOND, ?, '1970-01-01'), utc_timestamp(6)), ?, ?, ?, ?)";

const ONE_MORE: &str = ", (?, ?, ?, ?, ?, ?, coalesce(timestampadd(MICROSECOND, ?, '1970-01-01'), utc_timestamp(6)), ?, ?, ?, ?)";

impl Enqueue for MySql {
    async fn insert(conn: &mut MySqlConnection, row: &NewRow<'_>) -> Result<u64, sqlx::Error> {
        let done = bind(sqlx::query(INSERT), row).execute(conn).await?;
        Ok(done.rows_affected())
    }

    async fn insert_many(
        conn: &mut MySqlConnection,
        rows: &[NewRow<'_>],
    ) -> Result<u64, sqlx::Error> {
        // There are no arrays here, and taking a JSON list apart costs five times what the INSERT does (measured). The same
        // literal row once for each event; ids are drawn in the order of the rows.
        let mut sql = String::with_capacity(INSERT.len() + rows.len() * ONE_MORE.len());
        sql.push_str(INSERT);
        for _ in rows.iter().skip(1) {
            sql.push_str(ONE_MORE);
        }
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for row in rows {
            query = bind(query, row);
        }
        let done = query.execute(conn).await?;
        Ok(done.rows_affected())
    }
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
        .bind(&row.headers)
        .bind(row.payload)
}
