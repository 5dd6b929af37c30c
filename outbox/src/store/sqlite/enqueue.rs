//! The outbox on SQLite: one INSERT in the caller's transaction. Locks are not taken: a transaction that writes is alone.

use sqlx::{Sqlite, SqliteConnection};

use super::super::{Enqueue, Misfit, NewRow};

impl Enqueue for Sqlite {
    async fn insert(conn: &mut SqliteConnection, row: &NewRow<'_>) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                  enqueued_at)
             SELECT ?1 % s.lanes, ?2, ?3, ?4, ?5, ?6,
                 coalesce(?7, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)),
                 ?8, ?9, ?10, ?11, ?12, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
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
        .bind(row.ordered)
        .bind(&row.headers)
        .bind(row.payload)
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    async fn insert_many(
        conn: &mut SqliteConnection,
        rows: &[NewRow<'_>],
    ) -> Result<u64, sqlx::Error> {
        let (list, bytes) = packed(rows);
        // A NULL length makes a NULL key. Rows are inserted in the order of the list, so ids are as well.
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                  enqueued_at)
             SELECT (e.value ->> 0) % s.lanes, unhex(e.value ->> 1), ?1, e.value ->> 2, e.value ->> 3, e.value ->> 4,
                 coalesce(e.value ->> 5, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)),
                 e.value ->> 6,
                 substr(?3, e.value ->> 7, e.value ->> 8),
                 e.value ->> 9,
                 e.value ->> 10,
                 substr(?3, e.value ->> 11, e.value ->> 12),
                 CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
             FROM json_each(?2) e CROSS JOIN mainstay_outbox_settings s
             ORDER BY e.key",
        )
        .bind(rows.first().map_or("", |row| row.source))
        .bind(list)
        .bind(bytes)
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    async fn insert_later(
        conn: &mut SqliteConnection,
        rows: &[NewRow<'_>],
    ) -> Result<u64, sqlx::Error> {
        let (list, bytes) = packed(rows);
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_later
                 (due_at, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                  enqueued_at)
             SELECT e.value ->> 13,
                 (e.value ->> 0) % s.lanes, unhex(e.value ->> 1), ?1, e.value ->> 2, e.value ->> 3, e.value ->> 4,
                 coalesce(e.value ->> 5, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)),
                 e.value ->> 6,
                 substr(?3, e.value ->> 7, e.value ->> 8),
                 e.value ->> 9,
                 e.value ->> 10,
                 substr(?3, e.value ->> 11, e.value ->> 12),
                 CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
             FROM json_each(?2) e CROSS JOIN mainstay_outbox_settings s
             ORDER BY e.key",
        )
        .bind(rows.first().map_or("", |row| row.source))
        .bind(list)
        .bind(bytes)
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    fn misfit(error: &sqlx::Error) -> Option<Misfit> {
        let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
        match code & 0xff {
            8 => Some(Misfit::ReadOnly),
            // SQLITE_ERROR: there is nothing in these statements to be wrong but the names of tables and columns.
            1 => Some(Misfit::Schema),
            _ => None,
        }
    }
}

/// Rows as a JSON list of their texts and numbers, and a blob of their bytes that the list points into: one statement for
/// any number of events, and no bytes are spelled out as text.
fn packed(rows: &[NewRow<'_>]) -> (String, Vec<u8>) {
    // One byte in front that nothing points at: substr of an empty blob is NULL, not empty.
    let mut bytes = vec![0];
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        let key_at = bytes.len() + 1;
        bytes.extend_from_slice(row.key.unwrap_or_default());
        let payload_at = bytes.len() + 1;
        bytes.extend_from_slice(row.payload);
        list.push(serde_json::json!([
            row.hash,
            row.event_id.simple().to_string(),
            row.event_type,
            row.topic,
            row.subject,
            row.time_micros,
            row.content_type,
            key_at,
            row.key.map(<[u8]>::len),
            row.ordered,
            row.headers,
            payload_at,
            row.payload.len(),
            row.due_micros,
        ]));
    }
    (serde_json::Value::Array(list).to_string(), bytes)
}
