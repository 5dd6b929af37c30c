//! The outbox on MySQL and MariaDB: what operators change.

use std::collections::HashSet;

use sqlx::{MySql, MySqlConnection, MySqlPool, mysql::MySqlArguments};

use super::{
    super::{
        Entry, Operate, Step, Stepped,
        step::{Found, Meant, Taken, look_then_take},
    },
    apart, impatient, is_number, json,
    select::{add, add_select, add_twice},
};
use crate::error::Error;

impl Operate for MySql {
    async fn redrive(pool: MySqlPool, step: Step) -> Result<Stepped, Error> {
        look_then_take(
            step.entry.id,
            || letters(pool.clone(), step.clone(), true),
            |meant| {
                let entry = step.entry.clone();
                impatient(pool.clone(), move |tx| {
                    Box::pin(redrive(tx, meant.clone(), entry.clone()))
                })
            },
        )
        .await
    }

    async fn discard(pool: MySqlPool, step: Step) -> Result<Stepped, Error> {
        look_then_take(
            step.entry.id,
            || letters(pool.clone(), step.clone(), false),
            |meant| {
                let entry = step.entry.clone();
                impatient(pool.clone(), move |tx| {
                    Box::pin(discard(tx, meant.clone(), entry.clone()))
                })
            },
        )
        .await
    }

    async fn replay(pool: MySqlPool, step: Step) -> Result<Stepped, Error> {
        look_then_take(
            step.entry.id,
            || kept(pool.clone(), step.clone()),
            |meant| {
                let entry = step.entry.clone();
                impatient(pool.clone(), move |tx| {
                    Box::pin(replay(tx, meant.clone(), entry.clone()))
                })
            },
        )
        .await
    }

    async fn pause(pool: MySqlPool, pattern: String, actor: String) -> Result<bool, Error> {
        impatient(pool, move |tx| {
            let (pattern, actor) = (pattern.clone(), actor.clone());
            Box::pin(async move {
                // Not INSERT IGNORE, which turns other errors into warnings too.
                let done =
                    sqlx::query("INSERT INTO mainstay_outbox_pause (pattern, actor) VALUES (?, ?)")
                        .bind(pattern.as_bytes())
                        .bind(&actor)
                        .execute(&mut *tx)
                        .await;
                match done {
                    Ok(_) => {
                        audited(tx, "pause", 1, pattern_entry(&pattern, actor)).await?;
                        Ok(true)
                    }
                    Err(refused) if is_number(&refused, 1062) => Ok(false),
                    Err(other) => Err(other),
                }
            })
        })
        .await
    }

    async fn resume(pool: MySqlPool, pattern: String, actor: String) -> Result<bool, Error> {
        impatient(pool, move |tx| {
            let (pattern, actor) = (pattern.clone(), actor.clone());
            Box::pin(async move {
                let done = sqlx::query("DELETE FROM mainstay_outbox_pause WHERE pattern = ?")
                    .bind(pattern.as_bytes())
                    .execute(&mut *tx)
                    .await?;
                let old = done.rows_affected() == 1;
                audited(tx, "resume", u64::from(old), pattern_entry(&pattern, actor)).await?;
                Ok(old)
            })
        })
        .await
    }
}

async fn redrive(
    tx: &mut MySqlConnection,
    meant: Vec<Meant>,
    entry: Entry,
) -> Result<Taken, sqlx::Error> {
    let mut letters = still_dead(&mut *tx, &meant).await?;
    let mut ids = letters.ids();
    let mut parked = parked_keys(&mut *tx, &ids).await?;
    if keep_front(&mut *tx, &mut letters, &parked).await? {
        ids = letters.ids();
        parked = parked_keys(&mut *tx, &ids).await?;
    }
    // The lane is given, so its default does not count; neither does the hash any more.
    sqlx::query(
        "INSERT INTO mainstay_outbox_message
             (hash, id, lane, event_id, source, type, topic, subject, time, content_type, `key`, ordered, headers, payload,
              enqueued_at, failures)
         SELECT d.lane, d.id, d.lane, d.event_id, d.source, d.type, d.topic, d.subject, d.time, d.content_type, d.`key`,
             d.ordered, d.headers, d.payload, d.enqueued_at, d.failures
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_dead d ON d.id = w.id",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    rewound(&mut *tx, letters.lanes()).await?;
    let affected = buried_no_more(&mut *tx, &ids).await?;
    // Parked keys are raised to the last that went, or forgotten when nothing of them stays.
    for key in parked {
        if !unpark_if_empty(&mut *tx, &key).await? {
            sqlx::query(
                "UPDATE mainstay_outbox_parked SET above = greatest(above, ?) WHERE lane = ? AND topic = ? AND `key` = ?",
            )
            .bind(key.last)
            .bind(key.lane)
            .bind(&key.topic)
            .bind(&key.key)
            .execute(&mut *tx)
            .await?;
        }
    }
    Ok(Taken {
        affected,
        audit: audited(tx, "redrive", affected, entry).await?,
        freed: Vec::new(),
    })
}

async fn discard(
    tx: &mut MySqlConnection,
    meant: Vec<Meant>,
    entry: Entry,
) -> Result<Taken, sqlx::Error> {
    let ids = still_dead(&mut *tx, &meant).await?.ids();
    let parked = parked_keys(&mut *tx, &ids).await?;
    let affected = buried_no_more(&mut *tx, &ids).await?;
    let mut freed = Vec::new();
    for key in parked {
        if !unpark_if_empty(&mut *tx, &key).await? && merely_parked(&mut *tx, &key).await? {
            freed.push((String::from_utf8_lossy(&key.topic).into_owned(), key.key));
        }
    }
    Ok(Taken {
        affected,
        audit: audited(tx, "discard", affected, entry).await?,
        freed,
    })
}

async fn replay(
    tx: &mut MySqlConnection,
    meant: Vec<Meant>,
    entry: Entry,
) -> Result<Taken, sqlx::Error> {
    lock_lanes(&mut *tx, &meant).await?;
    let meant: Vec<_> = meant.iter().map(|row| (row.at_micros, row.id)).collect();
    // SKIP LOCKED: what clean-up takes at this moment is not there. A row is named by its primary key.
    let picked: Vec<(i64, i64, i32)> = sqlx::query_as(
        "SELECT w.at, d.id, d.lane
         FROM JSON_TABLE(?, '$[*]' COLUMNS (at BIGINT PATH '$[0]', id BIGINT PATH '$[1]')) w
         STRAIGHT_JOIN mainstay_outbox_delivered d
             ON d.delivered_at = CAST('1970-01-01' AS DATETIME(6)) + INTERVAL w.at MICROSECOND AND d.id = w.id
         FOR UPDATE SKIP LOCKED",
    )
    .bind(json(&meant))
    .fetch_all(&mut *tx)
    .await?;
    let of_lanes = picked.iter().map(|row| row.2).collect();
    let rows: Vec<(i64, i64)> = picked.iter().map(|row| (row.0, row.1)).collect();
    let rows = json(&rows);
    sqlx::query(
        "INSERT INTO mainstay_outbox_message
             (hash, id, lane, event_id, source, type, topic, subject, time, content_type, `key`, ordered, headers, payload,
              enqueued_at)
         SELECT d.lane, d.id, d.lane, d.event_id, d.source, d.type, d.topic, d.subject, d.time, d.content_type, d.`key`,
             d.ordered, d.headers, d.payload, d.enqueued_at
         FROM JSON_TABLE(?, '$[*]' COLUMNS (at BIGINT PATH '$[0]', id BIGINT PATH '$[1]')) w
         STRAIGHT_JOIN mainstay_outbox_delivered d
             ON d.delivered_at = CAST('1970-01-01' AS DATETIME(6)) + INTERVAL w.at MICROSECOND AND d.id = w.id",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    rewound(&mut *tx, of_lanes).await?;
    let gone = sqlx::query(
        "DELETE d
         FROM JSON_TABLE(?, '$[*]' COLUMNS (at BIGINT PATH '$[0]', id BIGINT PATH '$[1]')) w
         STRAIGHT_JOIN mainstay_outbox_delivered d
             ON d.delivered_at = CAST('1970-01-01' AS DATETIME(6)) + INTERVAL w.at MICROSECOND AND d.id = w.id",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    let affected = gone.rows_affected();
    Ok(Taken {
        affected,
        audit: audited(tx, "replay", affected, entry).await?,
        freed: Vec::new(),
    })
}

/// Looks for kept deliveries, in the order in which they were delivered, from the beginning of the times that are meant to
/// their end. Locks nothing.
async fn kept(pool: MySqlPool, step: Step) -> Result<Found, Error> {
    apart(async move {
        let at_micros = now(&pool).await?;
        let mut arguments = MySqlArguments::default();
        let mut select = step.select;
        let since = step.after.map(|reached| reached.delivered_micros);
        select.since_micros = since.or(select.since_micros);
        add_select(&mut arguments, &select)?;
        add(&mut arguments, select.cause)?;
        add_twice(&mut arguments, step.started_micros)?;
        add_twice(&mut arguments, step.after.map(|reached| reached.id))?;
        add(&mut arguments, since)?;
        add(&mut arguments, step.limit)?;
        let rows: Vec<(i64, i32, i64)> = sqlx::query_as_with(
            "SELECT id, lane, timestampdiff(MICROSECOND, '1970-01-01', delivered_at) FROM mainstay_outbox_delivered
             WHERE (? IS NULL OR topic = ? OR (? AND left(topic, octet_length(?)) = ?))
                 AND (? IS NULL OR `key` = ?)
                 AND (? IS NULL OR event_id = ?)
                 AND (? IS NULL OR delivered_at >= timestampadd(MICROSECOND, ?, '1970-01-01'))
                 AND (? IS NULL OR delivered_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                 AND ? IS NULL
                 AND (? IS NULL OR delivered_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                 AND (? IS NULL OR id > ? OR delivered_at > timestampadd(MICROSECOND, ?, '1970-01-01'))
             ORDER BY delivered_at, id LIMIT ?",
            arguments,
        )
        .fetch_all(&pool)
        .await?;
        Ok(Found {
            at_micros,
            ends: rows.len() < step.limit as usize,
            meant: rows.iter().map(meant).collect(),
        })
    })
    .await
}

/// Looks for dead letters, in the order of their places. Locks nothing.
///
/// With `in_front`, a letter of a parked key is only meant when none of the key before it stays. The limit cuts off later
/// ones, so only the rest of the filter is asked again.
async fn letters(pool: MySqlPool, step: Step, in_front: bool) -> Result<Found, Error> {
    apart(async move {
        let at_micros = now(&pool).await?;
        let mut arguments = MySqlArguments::default();
        add_select(&mut arguments, &step.select)?;
        add_twice(&mut arguments, step.select.cause)?;
        add_twice(&mut arguments, step.started_micros)?;
        add(&mut arguments, in_front)?;
        add_twice(&mut arguments, step.select.event_id)?;
        add_twice(&mut arguments, step.select.cause)?;
        add_twice(&mut arguments, step.select.since_micros)?;
        add_twice(&mut arguments, step.select.until_micros)?;
        add_twice(&mut arguments, step.started_micros)?;
        add(&mut arguments, step.limit)?;
        let rows: Vec<(i64, i32, i64)> = sqlx::query_as_with(
            "SELECT d.id, d.lane, timestampdiff(MICROSECOND, '1970-01-01', d.died_at) FROM mainstay_outbox_dead d
             WHERE (? IS NULL OR d.topic = ? OR (? AND left(d.topic, octet_length(?)) = ?))
                 AND (? IS NULL OR d.`key` = ?)
                 AND (? IS NULL OR d.event_id = ?)
                 AND (? IS NULL OR d.died_at >= timestampadd(MICROSECOND, ?, '1970-01-01'))
                 AND (? IS NULL OR d.died_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                 AND (? IS NULL OR d.cause = ?)
                 AND (? IS NULL OR d.cause = 'parked' OR d.died_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                 AND NOT (? AND EXISTS (
                     SELECT 1 FROM mainstay_outbox_parked k
                     STRAIGHT_JOIN mainstay_outbox_dead e
                         ON e.lane = k.lane AND e.`key` = k.`key` AND e.id >= k.`first` AND e.topic = k.topic
                     WHERE k.lane = d.lane AND k.topic = d.topic AND k.`key` = d.`key` AND e.id < d.id AND NOT (
                         (? IS NULL OR e.event_id = ?)
                         AND (? IS NULL OR e.cause = ?)
                         AND (? IS NULL OR e.died_at >= timestampadd(MICROSECOND, ?, '1970-01-01'))
                         AND (? IS NULL OR e.died_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                         AND (? IS NULL OR e.cause = 'parked'
                             OR e.died_at < timestampadd(MICROSECOND, ?, '1970-01-01')))))
             ORDER BY d.id LIMIT ?",
            arguments,
        )
        .fetch_all(&pool)
        .await?;
        Ok(Found {
            at_micros,
            meant: rows.iter().map(meant).collect(),
            // More of parked keys may have been set aside since.
            ends: false,
        })
    })
    .await
}

fn meant(row: &(i64, i32, i64)) -> Meant {
    let (id, lane, at_micros) = *row;
    Meant {
        id,
        lane,
        at_micros,
    }
}

/// Letters, with their lanes.
struct Letters(Vec<(i64, i32)>);

impl Letters {
    fn ids(&self) -> String {
        json(&self.0.iter().map(|letter| letter.0).collect::<Vec<_>>())
    }

    fn lanes(&self) -> Vec<i32> {
        self.0.iter().map(|letter| letter.1).collect()
    }
}

/// Locks the lanes of these letters, in order, and says which of them are still there by a statement that began after that:
/// what a settlement was burying meanwhile is seen, and from here on none buries or looks at parked keys there.
async fn still_dead(tx: &mut MySqlConnection, meant: &[Meant]) -> Result<Letters, sqlx::Error> {
    lock_lanes(&mut *tx, meant).await?;
    let meant: Vec<_> = meant.iter().map(|row| (row.id, row.at_micros)).collect();
    let same = sqlx::query_as(
        "SELECT d.id, d.lane
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$[0]', at BIGINT PATH '$[1]')) w
         STRAIGHT_JOIN mainstay_outbox_dead d
             ON d.id = w.id AND timestampdiff(MICROSECOND, '1970-01-01', d.died_at) = w.at
         ORDER BY d.id",
    )
    .bind(json(&meant))
    .fetch_all(tx)
    .await?;
    Ok(Letters(same))
}

/// Leaves out what would overtake a letter of its parked key that stays, be it that this one died after the look. Says
/// whether that was anything.
async fn keep_front(
    tx: &mut MySqlConnection,
    letters: &mut Letters,
    parked: &[Parked],
) -> Result<bool, sqlx::Error> {
    let meant: HashSet<i64> = letters.0.iter().map(|letter| letter.0).collect();
    let mut behind = HashSet::new();
    for key in parked {
        let of_key: Vec<i64> = sqlx::query_scalar(
            "SELECT d.id FROM mainstay_outbox_parked k
             STRAIGHT_JOIN mainstay_outbox_dead d
                 ON d.lane = k.lane AND d.`key` = k.`key` AND d.id >= k.`first` AND d.topic = k.topic
             WHERE k.lane = ? AND k.topic = ? AND k.`key` = ? AND d.id <= ?
             ORDER BY d.id",
        )
        .bind(key.lane)
        .bind(&key.topic)
        .bind(&key.key)
        .bind(key.last)
        .fetch_all(&mut *tx)
        .await?;
        behind.extend(of_key.into_iter().skip_while(|id| meant.contains(id)));
    }
    let before = letters.0.len();
    letters.0.retain(|letter| !behind.contains(&letter.0));
    Ok(letters.0.len() < before)
}

/// Locks the lanes of these rows, in order, as settlements do.
async fn lock_lanes(tx: &mut MySqlConnection, meant: &[Meant]) -> Result<(), sqlx::Error> {
    let mut lanes: Vec<i32> = meant.iter().map(|row| row.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    sqlx::query(
        "SELECT l.lane
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
         FOR UPDATE",
    )
    .bind(json(&lanes))
    .execute(tx)
    .await?;
    Ok(())
}

/// Tells the relays of these lanes that rows have come to lie below where they are.
async fn rewound(tx: &mut MySqlConnection, mut lanes: Vec<i32>) -> Result<(), sqlx::Error> {
    lanes.sort_unstable();
    lanes.dedup();
    sqlx::query(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
         SET l.rewinds = l.rewinds + 1",
    )
    .bind(json(&lanes))
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes letters. Says how many.
async fn buried_no_more(tx: &mut MySqlConnection, ids: &str) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query(
        "DELETE d
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_dead d ON d.id = w.id",
    )
    .bind(ids)
    .execute(tx)
    .await?;
    Ok(gone.rows_affected())
}

/// A parked key, and the last of its letters that are meant.
struct Parked {
    lane: i32,
    topic: Vec<u8>,
    key: Vec<u8>,
    last: i64,
}

/// The parked keys that these letters are of.
async fn parked_keys(tx: &mut MySqlConnection, ids: &str) -> Result<Vec<Parked>, sqlx::Error> {
    let rows: Vec<(i32, Vec<u8>, Vec<u8>, i64)> = sqlx::query_as(
        "SELECT k.lane, k.topic, k.`key`, max(d.id)
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_dead d ON d.id = w.id
         STRAIGHT_JOIN mainstay_outbox_parked k ON k.lane = d.lane AND k.topic = d.topic AND k.`key` = d.`key`
         GROUP BY k.lane, k.topic, k.`key`",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    let parked = |(lane, topic, key, last)| Parked {
        lane,
        topic,
        key,
        last,
    };
    Ok(rows.into_iter().map(parked).collect())
}

/// Parks the key no longer if nothing of it stays. Says whether that is so.
async fn unpark_if_empty(tx: &mut MySqlConnection, key: &Parked) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "DELETE k FROM mainstay_outbox_parked k
         WHERE k.lane = ? AND k.topic = ? AND k.`key` = ? AND NOT EXISTS (
             SELECT 1 FROM mainstay_outbox_dead d
             WHERE d.lane = k.lane AND d.`key` = k.`key` AND d.id >= k.`first` AND d.topic = k.topic)",
    )
    .bind(key.lane)
    .bind(&key.topic)
    .bind(&key.key)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether all that is left of the key was set aside, and nothing of it was given up.
async fn merely_parked(tx: &mut MySqlConnection, key: &Parked) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT NOT EXISTS (
             SELECT 1 FROM mainstay_outbox_parked k
             STRAIGHT_JOIN mainstay_outbox_dead d
                 ON d.lane = k.lane AND d.`key` = k.`key` AND d.id >= k.`first` AND d.topic = k.topic
             WHERE k.lane = ? AND k.topic = ? AND k.`key` = ? AND d.cause <> 'parked')",
    )
    .bind(key.lane)
    .bind(&key.topic)
    .bind(&key.key)
    .fetch_one(tx)
    .await
}

/// Writes the change down, in the row its first step wrote if there is one. Nothing changed, nothing written.
async fn audited(
    tx: &mut MySqlConnection,
    action: &'static str,
    affected: u64,
    entry: Entry,
) -> Result<Option<i64>, sqlx::Error> {
    let affected = i64::try_from(affected).unwrap_or(i64::MAX);
    match entry.id {
        _ if affected == 0 => Ok(entry.id),
        Some(id) => {
            sqlx::query("UPDATE mainstay_outbox_audit SET affected = affected + ? WHERE id = ?")
                .bind(affected)
                .bind(id)
                .execute(tx)
                .await?;
            Ok(Some(id))
        }
        None => {
            let done = sqlx::query(
                "INSERT INTO mainstay_outbox_audit (actor, action, detail, affected) VALUES (?, ?, ?, ?)",
            )
            .bind(entry.actor)
            .bind(action)
            .bind(entry.detail)
            .bind(affected)
            .execute(tx)
            .await?;
            Ok(i64::try_from(done.last_insert_id()).ok())
        }
    }
}

fn pattern_entry(pattern: &str, actor: String) -> Entry {
    Entry {
        actor,
        detail: serde_json::json!({ "pattern": pattern }).to_string(),
        id: None,
    }
}

/// The database's clock, microseconds since 1970.
async fn now(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6))")
        .fetch_one(pool)
        .await
}
