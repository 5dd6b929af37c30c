//! The outbox on Postgres: one INSERT in the caller's transaction.
//!
//! Each of them asks for the transaction's number before it draws an id from the sequence: whoever drew an id below one
//! that a relay sees has therefore an older number than the relay's own, and once those have all ended nothing can appear
//! down there any more. The lane is the first column, so its expression is worked out before the id's.
//!
//! The settings row is never updated, so reading it takes no lock and meets no dead version. LIMIT tells the planner that
//! there is one: believing in thousands, it never takes the generic plan and plans each INSERT anew, which took longer than
//! to run it.

use sqlx::{PgConnection, Postgres};

use super::{
    super::{Enqueue, Misfit, NewRow},
    column,
};

impl Enqueue for Postgres {
    async fn insert(conn: &mut PgConnection, row: &NewRow<'_>) -> Result<u64, sqlx::Error> {
        if row.lock.is_some() {
            return Self::insert_many(conn, std::slice::from_ref(row)).await;
        }
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload)
             SELECT CASE WHEN pg_current_xact_id() IS NOT NULL THEN ($1 % s.lanes)::integer END, $2, $3, $4, $5, $6,
                 coalesce('epoch'::timestamptz + $7::bigint * interval '1 microsecond', clock_timestamp()),
                 $8, $9, $10, $11, $12
             FROM (SELECT lanes FROM mainstay_outbox_settings LIMIT 1) s",
        )
        .bind(row.hash)
        .bind(row.event_id)
        .bind(row.source)
        .bind(row.event_type)
        .bind(row.topic)
        .bind(row.subject)
        .bind(row.time_micros)
        .bind(row.content_type)
        .bind(row.key)
        .bind(row.ordered)
        .bind(&row.headers)
        .bind(row.payload)
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    async fn insert_many(conn: &mut PgConnection, rows: &[NewRow<'_>]) -> Result<u64, sqlx::Error> {
        // One order for everybody: two transactions that want the same locks do not deadlock.
        let mut locks: Vec<i64> = rows.iter().filter_map(|row| row.lock).collect();
        locks.sort_unstable();
        locks.dedup();
        // Sorted below the target list, so that ids are drawn in the order of the events. The locks stand in an aggregate
        // of their own, which the planner can neither leave out nor put off: the sort waits for it, and the ids for the
        // sort. They end with the transaction, after its rows can be seen.
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload)
             SELECT CASE WHEN pg_current_xact_id() IS NOT NULL THEN (e.hash % e.lanes)::integer END,
                 e.event_id, $1, e.type, e.topic, e.subject,
                 coalesce('epoch'::timestamptz + e.time * interval '1 microsecond', clock_timestamp()),
                 e.content_type, e.key, e.ordered, e.headers, e.payload
             FROM (
                 SELECT u.*, s.lanes
                 FROM (SELECT count(pg_advisory_xact_lock(k.lock)) FROM unnest($13::bigint[]) AS k(lock)) l
                 CROSS JOIN unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                         $8::text[], $9::bytea[], $10::boolean[], $11::text[], $12::bytea[])
                     WITH ORDINALITY AS u(hash, event_id, type, topic, subject, time, content_type, key, ordered, headers,
                         payload, place)
                 CROSS JOIN (SELECT lanes FROM mainstay_outbox_settings LIMIT 1) s
                 ORDER BY u.place
             ) e",
        )
        .bind(rows.first().map_or("", |row| row.source))
        .bind(column(rows, |row| row.hash))
        .bind(column(rows, |row| row.event_id))
        .bind(column(rows, |row| row.event_type))
        .bind(column(rows, |row| row.topic))
        .bind(column(rows, |row| row.subject))
        .bind(column(rows, |row| row.time_micros))
        .bind(column(rows, |row| row.content_type))
        .bind(column(rows, |row| row.key))
        .bind(column(rows, |row| row.ordered))
        .bind(column(rows, |row| row.headers.as_str()))
        .bind(column(rows, |row| row.payload))
        .bind(locks)
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    async fn insert_later(
        conn: &mut PgConnection,
        rows: &[NewRow<'_>],
    ) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_later
                 (due_at, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload)
             SELECT 'epoch'::timestamptz + e.due * interval '1 microsecond', (e.hash % e.lanes)::integer,
                 e.event_id, $1, e.type, e.topic, e.subject,
                 coalesce('epoch'::timestamptz + e.time * interval '1 microsecond', clock_timestamp()),
                 e.content_type, e.key, e.ordered, e.headers, e.payload
             FROM (
                 SELECT u.*, s.lanes
                 FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                         $8::text[], $9::bytea[], $10::boolean[], $11::text[], $12::bytea[], $13::bigint[])
                     WITH ORDINALITY AS u(hash, event_id, type, topic, subject, time, content_type, key, ordered, headers,
                         payload, due, place)
                 CROSS JOIN (SELECT lanes FROM mainstay_outbox_settings LIMIT 1) s
                 ORDER BY u.place
             ) e",
        )
        .bind(rows.first().map_or("", |row| row.source))
        .bind(column(rows, |row| row.hash))
        .bind(column(rows, |row| row.event_id))
        .bind(column(rows, |row| row.event_type))
        .bind(column(rows, |row| row.topic))
        .bind(column(rows, |row| row.subject))
        .bind(column(rows, |row| row.time_micros))
        .bind(column(rows, |row| row.content_type))
        .bind(column(rows, |row| row.key))
        .bind(column(rows, |row| row.ordered))
        .bind(column(rows, |row| row.headers.as_str()))
        .bind(column(rows, |row| row.payload))
        .bind(column(rows, |row| row.due_micros.unwrap_or_default()))
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    fn misfit(error: &sqlx::Error) -> Option<Misfit> {
        match error.as_database_error()?.code()?.as_ref() {
            "25006" => Some(Misfit::ReadOnly),
            // Undefined table, undefined column, a column of another type.
            "42P01" | "42703" | "42804" => Some(Misfit::Schema),
            _ => None,
        }
    }
}
