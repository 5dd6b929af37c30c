//! The outbox on MySQL and MariaDB: writing down what became of batches, in one transaction.

use sqlx::MySqlConnection;

use super::{
    super::{Settlement, micros},
    json,
};

/// The lanes are locked first, in order, and looked at in their newest versions: from there on no takeover can come between,
/// no operator releases a parked key, and of a lane that has changed hands, or has the record of another batch, nothing is
/// touched. Neither is anything of one that has no record: it was settled before, by a call whose answer was lost.
pub(super) async fn settle(
    tx: &mut MySqlConnection,
    keep: bool,
    settlements: &[Settlement],
) -> Result<Vec<i32>, sqlx::Error> {
    let mut wanted: Vec<_> = settlements
        .iter()
        .map(|one| (one.held.lane, one.held.epoch, -one.batch))
        .collect();
    wanted.sort_unstable();
    let held: Vec<(i32, bool, bool)> = sqlx::query_as(
        "SELECT l.lane, l.in_flight IS NOT NULL,
             EXISTS (SELECT 1 FROM mainstay_outbox_waiting b WHERE b.lane = l.lane)
         FROM JSON_TABLE(?, '$[*]' COLUMNS
             (lane INT PATH '$[0]', epoch BIGINT PATH '$[1]', number BIGINT PATH '$[2]')) w
         STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
         WHERE l.epoch = w.epoch
             AND (l.in_flight IS NULL OR CAST(json_extract(l.in_flight, '$[0]') AS SIGNED) = w.number)
         FOR UPDATE",
    )
    .bind(json(&wanted))
    .fetch_all(&mut *tx)
    .await?;
    let open = held.iter().filter(|(_, open, _)| *open);
    let waits = open.clone().any(|(.., waits)| *waits);
    let open: Vec<i32> = open.map(|(lane, ..)| *lane).collect();
    let held = held.into_iter().map(|(lane, ..)| lane).collect();
    let settlements: Vec<_> = settlements
        .iter()
        .filter(|settlement| open.contains(&settlement.held.lane))
        .collect();
    delivered(&mut *tx, keep, &settlements).await?;
    failed(&mut *tx, &settlements).await?;
    buried(&mut *tx, &settlements).await?;
    if waits {
        wait_no_longer(&mut *tx, &open).await?;
    }
    sqlx::query(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
         SET l.in_flight = NULL, l.settled_at = utc_timestamp(6)",
    )
    .bind(json(&open))
    .execute(&mut *tx)
    .await?;
    Ok(held)
}

/// Forgets of these lanes what waited for a retry and is gone.
async fn wait_no_longer(tx: &mut MySqlConnection, lanes: &[i32]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE b
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_waiting b ON b.lane = w.lane
         LEFT JOIN mainstay_outbox_message m ON m.lane = b.lane AND m.id = b.id
         WHERE m.id IS NULL",
    )
    .bind(json(lanes))
    .execute(tx)
    .await?;
    Ok(())
}

async fn delivered(
    tx: &mut MySqlConnection,
    keep: bool,
    settlements: &[&Settlement],
) -> Result<(), sqlx::Error> {
    let mut rows: Vec<(i32, i64)> = Vec::new();
    for settlement in settlements {
        let lane = settlement.held.lane;
        rows.extend(settlement.acked.iter().map(|id| (lane, *id)));
    }
    if rows.is_empty() {
        return Ok(());
    }
    let rows = json(&rows);
    if keep {
        sqlx::query(
            "INSERT INTO mainstay_outbox_delivered
                 (id, lane, event_id, source, type, topic, subject, time, content_type, `key`, ordered, headers, payload,
                  enqueued_at, attempts)
             SELECT m.id, m.lane, m.event_id, m.source, m.type, m.topic, m.subject, m.time, m.content_type, m.`key`,
                 m.ordered, m.headers, m.payload, m.enqueued_at, m.attempts + 1
             FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', id BIGINT PATH '$[1]')) a
             STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = a.lane AND m.id = a.id",
        )
        .bind(&rows)
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query(
        "DELETE m
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', id BIGINT PATH '$[1]')) a
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = a.lane AND m.id = a.id",
    )
    .bind(&rows)
    .execute(tx)
    .await?;
    Ok(())
}

async fn failed(tx: &mut MySqlConnection, settlements: &[&Settlement]) -> Result<(), sqlx::Error> {
    let mut rows = Vec::new();
    for settlement in settlements {
        for one in &settlement.failed {
            rows.push((
                (
                    settlement.held.lane,
                    one.id,
                    one.attempts,
                    micros(one.delay),
                ),
                (u8::from(one.suspect), u8::from(one.holds)),
                (&one.reason, &one.note.before, &one.note.after),
            ));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let rows = json(&rows);
    sqlx::query(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0][0]', id BIGINT PATH '$[0][1]',
             attempts INT PATH '$[0][2]', delay BIGINT PATH '$[0][3]', suspect TINYINT PATH '$[1][0]',
             holds TINYINT PATH '$[1][1]', reason LONGTEXT PATH '$[2][0]', earlier LONGTEXT PATH '$[2][1]',
             later LONGTEXT PATH '$[2][2]')) f
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = f.lane AND m.id = f.id
         SET m.attempts = m.attempts + 1, m.suspect = f.suspect, m.holds = f.holds, m.last_reason = f.reason,
             m.failures = concat(f.earlier, timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)), f.later),
             m.retry_at = utc_timestamp(6) + INTERVAL f.delay MICROSECOND
         WHERE m.attempts = f.attempts",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "REPLACE INTO mainstay_outbox_waiting (lane, id, `key`, holds, retry_at)
         SELECT m.lane, m.id, m.`key`, m.ordered AND m.holds, m.retry_at
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0][0]', id BIGINT PATH '$[0][1]')) f
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = f.lane AND m.id = f.id
         WHERE m.retry_at > utc_timestamp(6)",
    )
    .bind(&rows)
    .execute(tx)
    .await?;
    Ok(())
}

async fn buried(tx: &mut MySqlConnection, settlements: &[&Settlement]) -> Result<(), sqlx::Error> {
    let mut rows = Vec::new();
    for settlement in settlements {
        for one in &settlement.dead {
            let note = one.note.as_ref();
            rows.push((
                (settlement.held.lane, one.id, one.attempts),
                (one.cause.as_str(), u8::from(one.park), &one.reason),
                note.map_or(("", ""), |note| (note.before.as_str(), note.after.as_str())),
            ));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let rows = json(&rows);
    sqlx::query(
        "INSERT INTO mainstay_outbox_parked (lane, topic, `key`, `first`, above)
         SELECT m.lane, m.topic, m.`key`, m.id, m.id
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0][0]', id BIGINT PATH '$[0][1]', park TINYINT PATH '$[1][1]')) d
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = d.lane AND m.id = d.id
         WHERE d.park AND m.`key` IS NOT NULL
         ON DUPLICATE KEY UPDATE
             mainstay_outbox_parked.`first` = least(mainstay_outbox_parked.`first`, VALUES(`first`)),
             mainstay_outbox_parked.above = least(mainstay_outbox_parked.above, VALUES(above))",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO mainstay_outbox_dead
             (id, lane, event_id, source, type, topic, subject, time, content_type, `key`, ordered, headers, payload,
              enqueued_at, attempts, cause, reason, failures)
         SELECT m.id, m.lane, m.event_id, m.source, m.type, m.topic, m.subject, m.time, m.content_type, m.`key`,
             m.ordered, m.headers, m.payload, m.enqueued_at, d.attempts, d.cause, d.reason,
             CASE WHEN d.earlier = '' THEN m.failures
                 ELSE concat(d.earlier, timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)), d.later) END
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0][0]', id BIGINT PATH '$[0][1]',
             attempts INT PATH '$[0][2]', cause VARCHAR(16) PATH '$[1][0]', reason LONGTEXT PATH '$[1][2]',
             earlier LONGTEXT PATH '$[2][0]', later LONGTEXT PATH '$[2][1]')) d
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = d.lane AND m.id = d.id
         WHERE d.cause <> 'parked' OR EXISTS (
             SELECT 1 FROM mainstay_outbox_parked p
             WHERE p.lane = m.lane AND p.topic = m.topic AND p.`key` = m.`key` AND p.above < m.id)",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    // Those that have moved.
    sqlx::query(
        "DELETE m
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0][0]', id BIGINT PATH '$[0][1]')) d
         STRAIGHT_JOIN mainstay_outbox_dead x ON x.id = d.id
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = d.lane AND m.id = d.id",
    )
    .bind(&rows)
    .execute(tx)
    .await?;
    Ok(())
}
