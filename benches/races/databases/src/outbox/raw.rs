//! The statements that an outbox is at least, by hand, over one connection and without any order but that of ids.

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, Row};

use super::{Arrived, Drain, payload};
use crate::servers::Postgres;

pub const TABLE: &str = "CREATE TABLE outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic TEXT NOT NULL, key TEXT, payload BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(), locked_until TIMESTAMPTZ)";

pub const SELECT_DELETE_1000: Drain = Drain {
    name: "raw SELECT + DELETE, 1000",
    messages: 100_000,
    fill: |database, messages| Box::pin(fill(connect(database), messages)),
    run: |database, arrived| Box::pin(select_delete(connect(database), 1_000, arrived)),
};

pub const SELECT_DELETE_100: Drain = Drain {
    name: "raw SELECT + DELETE, 100",
    run: |database, arrived| Box::pin(select_delete(connect(database), 100, arrived)),
    ..SELECT_DELETE_1000
};

pub const LEASE_DELETE_1000: Drain = Drain {
    name: "raw lease + DELETE, 1000",
    run: |database, arrived| Box::pin(lease_delete(connect(database), 1_000, arrived)),
    ..SELECT_DELETE_1000
};

fn connect(database: &Postgres) -> impl Future<Output = PgConnection> + Send + use<> {
    let options = database.options.clone();
    async move { options.connect().await.unwrap() }
}

async fn fill(conn: impl Future<Output = PgConnection>, messages: u64) {
    let mut conn = conn.await;
    sqlx::raw_sql(TABLE).execute(&mut conn).await.unwrap();
    let payload = serde_json::to_vec(&payload(7)).unwrap();
    sqlx::query("INSERT INTO outbox (topic, key, payload) SELECT 'orders', 'order-' || n % 1000, $2 FROM generate_series(1, $1) n")
        .bind(messages as i64)
        .bind(payload)
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::raw_sql("VACUUM ANALYZE")
        .execute(&mut conn)
        .await
        .unwrap();
}

/// Nothing else may happen to the rows while they are published: the transaction is open.
async fn select_delete(conn: impl Future<Output = PgConnection>, batch: i64, arrived: Arrived) {
    let mut conn = conn.await;
    loop {
        let mut tx = conn.begin().await.unwrap();
        let rows = sqlx::query("SELECT id, topic, key, payload FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED")
            .bind(batch)
            .fetch_all(&mut *tx)
            .await
            .unwrap();
        delete(&mut tx, &rows).await;
        tx.commit().await.unwrap();
        arrived.add(rows.len() as u64);
        if rows.is_empty() {
            return;
        }
    }
}

/// Nothing is held while they are published.
async fn lease_delete(conn: impl Future<Output = PgConnection>, batch: i64, arrived: Arrived) {
    let mut conn = conn.await;
    loop {
        let rows = sqlx::query(
            "UPDATE outbox SET locked_until = now() + interval '30 s' WHERE id IN (SELECT id FROM outbox \
             WHERE locked_until IS NULL OR locked_until < now() ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) \
             RETURNING id, topic, key, payload",
        )
        .bind(batch)
        .fetch_all(&mut conn)
        .await
        .unwrap();
        delete(&mut conn, &rows).await;
        arrived.add(rows.len() as u64);
        if rows.is_empty() {
            return;
        }
    }
}

async fn delete(conn: &mut PgConnection, rows: &[sqlx::postgres::PgRow]) {
    let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let query = sqlx::query("DELETE FROM outbox WHERE id = ANY($1)").bind(ids);
    query.execute(conn).await.unwrap();
}

/// Keeps what is dead from being forgotten.
pub const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class";

/// Has written a row of its own and does not end.
pub const STRAY_WRITER: &str = "CREATE TABLE stray (n BIGINT); BEGIN; INSERT INTO stray VALUES (1)";

/// Until it is dropped.
pub async fn hold(database: &Postgres, disturbance: &'static str) -> PgConnection {
    let mut conn = connect(database).await;
    sqlx::raw_sql(disturbance).execute(&mut conn).await.unwrap();
    conn
}
