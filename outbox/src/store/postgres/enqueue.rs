//! The outbox on Postgres: one INSERT in the caller's transaction.

use sqlx::{PgConnection, Postgres};

use super::{
    super::{Enqueue, NewRow},
    column,
};

impl Enqueue for Postgres {
    async fn insert(conn: &mut PgConnection, row: &NewRow<'_>) -> Result<u64, sqlx::Error> {
        // The settings row is never updated, so reading it takes no lock and meets no dead version.
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload)
             SELECT ($1 % s.lanes)::integer, $2, $3, $4, $5, $6,
                 coalesce('epoch'::timestamptz + $7::bigint * interval '1 microsecond', clock_timestamp()),
                 $8, $9, $10, $11
             FROM mainstay_outbox_settings s",
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
        .bind(&row.headers)
        .bind(row.payload)
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    async fn insert_many(conn: &mut PgConnection, rows: &[NewRow<'_>]) -> Result<u64, sqlx::Error> {
        // Sorted below the target list, so that ids are drawn in the order of the events.
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload)
             SELECT (e.hash % e.lanes)::integer, e.event_id, $1, e.type, e.topic, e.subject,
                 coalesce('epoch'::timestamptz + e.time * interval '1 microsecond', clock_timestamp()),
                 e.content_type, e.key, e.headers, e.payload
             FROM (
                 SELECT u.*, s.lanes
                 FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                         $8::text[], $9::bytea[], $10::text[], $11::bytea[])
                     WITH ORDINALITY AS u(hash, event_id, type, topic, subject, time, content_type, key, headers,
                         payload, place)
                 CROSS JOIN mainstay_outbox_settings s
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
        .bind(column(rows, |row| row.headers.as_str()))
        .bind(column(rows, |row| row.payload))
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }
}
