//! The outbox on MySQL and MariaDB: rows that operators look at, read by the names of their columns.

use sqlx::{Row, mysql::MySqlRow};
use uuid::Uuid;

use super::{
    super::{DeadRow, HeadRow, LaneRow, PendingRow, TopicRow},
    message, text,
};

pub(super) fn topic(row: &MySqlRow) -> Result<TopicRow, sqlx::Error> {
    Ok(TopicRow {
        topic: text(row, "topic")?,
        pending: row.try_get("pending")?,
        retrying: row.try_get("retrying")?,
        oldest_micros: row.try_get("oldest_micros")?,
        deepest: row.try_get("deepest")?,
    })
}

pub(super) fn lane(row: &MySqlRow, pending: i64) -> Result<LaneRow, sqlx::Error> {
    let head = match row.try_get::<Option<Vec<u8>>, _>("topic")? {
        None => None,
        Some(_) => Some(HeadRow {
            topic: text(row, "topic")?,
            age_micros: row.try_get("age_micros")?,
            attempts: row.try_get("attempts")?,
            retry_micros: row.try_get("retry_micros")?,
            reason: row.try_get("last_reason")?,
        }),
    };
    Ok(LaneRow {
        lane: row.try_get("lane")?,
        owner: row.try_get::<Option<Uuid>, _>("owner")?,
        epoch: row.try_get("epoch")?,
        lease_micros: row.try_get("lease_micros")?,
        in_flight: row.try_get("in_flight")?,
        settled_micros: row.try_get("settled_micros")?,
        pending,
        head,
    })
}

pub(super) fn pending(row: &MySqlRow) -> Result<PendingRow, sqlx::Error> {
    Ok(PendingRow {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        message: message(row, 1)?,
        enqueued_micros: row.try_get("enqueued_micros")?,
        retry_micros: row.try_get("retry_micros")?,
        due_micros: row.try_get("due_micros")?,
        in_flight: row.try_get("in_flight")?,
        behind: row.try_get("behind")?,
        parked: row.try_get("parked")?,
        reason: row.try_get("last_reason")?,
    })
}

pub(super) fn dead(row: &MySqlRow) -> Result<DeadRow, sqlx::Error> {
    Ok(DeadRow {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        message: message(row, 0)?,
        attempts: row.try_get("attempts")?,
        cause: row.try_get("cause")?,
        reason: row.try_get("reason")?,
        failures: row
            .try_get::<Option<String>, _>("failures")?
            .unwrap_or_else(|| "[]".to_owned()),
        died_micros: row.try_get("died_micros")?,
    })
}
