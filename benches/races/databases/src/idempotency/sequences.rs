//! What other systems say to the database, statement by statement, each with its own table.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use sqlx::{PgConnection, PgPool, Row};

use super::apps::{CREATED, effect, key};
use super::{ANSWER, App};

pub async fn create(pool: &PgPool) {
    let tables = "
        CREATE TABLE two_commits (scope TEXT, key TEXT, fingerprint BYTEA, status SMALLINT, body BYTEA, PRIMARY KEY (scope, key));
        CREATE TABLE three_autocommits (LIKE two_commits INCLUDING ALL);
        CREATE TABLE idempotency_keys (
            id BIGSERIAL PRIMARY KEY, created_at TIMESTAMPTZ NOT NULL DEFAULT now(), idempotency_key TEXT NOT NULL,
            last_run_at TIMESTAMPTZ NOT NULL DEFAULT now(), locked_at TIMESTAMPTZ DEFAULT now(), request_method TEXT NOT NULL,
            request_params JSONB NOT NULL, request_path TEXT NOT NULL, response_code INT, response_body BYTEA,
            recovery_point TEXT NOT NULL, user_id BIGINT NOT NULL);
        CREATE UNIQUE INDEX ON idempotency_keys (user_id, idempotency_key);
        CREATE TABLE outbox_data (message_id TEXT PRIMARY KEY, dispatched BOOLEAN NOT NULL DEFAULT false,
            dispatched_at TIMESTAMPTZ, operations BYTEA NOT NULL);
        CREATE INDEX ON outbox_data (dispatched_at) WHERE dispatched";
    sqlx::raw_sql(tables).execute(pool).await.unwrap();
}

/// What a claim finds.
enum Found {
    /// Nothing: it is claimed now.
    Free,
    Recorded,
    Running,
}

fn app<H, T>(name: &'static str, pool: &PgPool, handler: H) -> App
where
    H: axum::handler::Handler<T, PgPool>,
    T: 'static,
{
    App::new(
        name,
        Router::new()
            .route("/pay", post(handler))
            .with_state(pool.clone()),
    )
}

fn unless_free(found: &Found) -> Option<Response> {
    match found {
        Found::Free => None,
        Found::Recorded => Some(CREATED.into_response()),
        Found::Running => Some(StatusCode::CONFLICT.into_response()),
    }
}

macro_rules! claim_and_complete {
    ($claim:ident, $complete:ident, $table:literal) => {
        async fn $claim(conn: &mut PgConnection, key: &str) -> Found {
            let claimed = sqlx::query(concat!(
                "INSERT INTO ",
                $table,
                " (scope, key, fingerprint) VALUES ('pay', $1, $2) ON CONFLICT DO NOTHING"
            ))
            .bind(key)
            .bind(&[1_u8; 32][..])
            .execute(&mut *conn)
            .await
            .unwrap();
            if claimed.rows_affected() == 1 {
                return Found::Free;
            }
            let row = sqlx::query(concat!(
                "SELECT status FROM ",
                $table,
                " WHERE scope = 'pay' AND key = $1"
            ))
            .bind(key)
            .fetch_one(conn)
            .await
            .unwrap();
            match row.get::<Option<i16>, _>(0) {
                Some(_) => Found::Recorded,
                None => Found::Running,
            }
        }

        async fn $complete(conn: &mut PgConnection, key: &str) {
            sqlx::query(concat!(
                "UPDATE ",
                $table,
                " SET status = 201, body = $2 WHERE scope = 'pay' AND key = $1"
            ))
            .bind(key)
            .bind(&ANSWER[..])
            .execute(conn)
            .await
            .unwrap();
        }
    };
}

claim_and_complete!(claim_two, complete_two, "two_commits");
claim_and_complete!(claim_three, complete_three, "three_autocommits");

/// A claim that commits; then the effect and the answer, in one transaction.
pub fn two_commits(pool: &PgPool) -> App {
    app(
        "two commits",
        pool,
        async |State(pool): State<PgPool>, headers: HeaderMap| {
            let key = key(&headers);
            let mut conn = pool.acquire().await.unwrap();
            if let Some(answer) = unless_free(&claim_two(&mut conn, &key).await) {
                return answer;
            }
            let mut tx = sqlx::Connection::begin(&mut *conn).await.unwrap();
            effect(&mut tx, &key).await;
            complete_two(&mut tx, &key).await;
            tx.commit().await.unwrap();
            CREATED.into_response()
        },
    )
}

/// What a middleware does that has a connection of its own: claim, the handler's effect, answer, each by itself.
pub fn three_autocommits(pool: &PgPool) -> App {
    app(
        "three autocommits",
        pool,
        async |State(pool): State<PgPool>, headers: HeaderMap| {
            let key = key(&headers);
            let mut conn = pool.acquire().await.unwrap();
            if let Some(answer) = unless_free(&claim_three(&mut conn, &key).await) {
                return answer;
            }
            effect(&mut conn, &key).await;
            complete_three(&mut conn, &key).await;
            CREATED.into_response()
        },
    )
}

/// Stripe-like keys as brandur.org describes them: a transaction that finds or locks the key, one for the phase with its recovery
/// point, one for the answer; all serializable.
pub fn recovery_points(pool: &PgPool) -> App {
    app(
        "brandur's recovery points",
        pool,
        async |State(pool): State<PgPool>, headers: HeaderMap| {
            let key = key(&headers);
            let mut conn = pool.acquire().await.unwrap();
            // Where two are serialized, one is refused and asks again.
            let found = loop {
                match lock(&mut conn, &key).await {
                    Ok(found) => break found,
                    Err(error) if again(&error) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            if let Some(answer) = unless_free(&found) {
                return answer;
            }
            while let Err(error) = phase(&mut conn, &key).await {
                assert!(again(&error), "{error}");
            }
            while let Err(error) = finish(&mut conn, &key).await {
                assert!(again(&error), "{error}");
            }
            CREATED.into_response()
        },
    )
}

const SERIALIZABLE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

/// A serialization failure, or the unique index where two insert at once.
fn again(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "23505"))
}

async fn lock(conn: &mut PgConnection, key: &str) -> Result<Found, sqlx::Error> {
    let mut tx = sqlx::Connection::begin_with(conn, SERIALIZABLE).await?;
    let row = sqlx::query("SELECT response_code, locked_at FROM idempotency_keys WHERE user_id = 1 AND idempotency_key = $1")
        .bind(key)
        .fetch_optional(&mut *tx)
        .await?;
    let found = match row {
        Some(row) if row.get::<Option<i32>, _>(0).is_some() => Found::Recorded,
        Some(_) => Found::Running,
        None => {
            sqlx::query(
                "INSERT INTO idempotency_keys (idempotency_key, request_method, request_params, request_path, recovery_point, user_id) \
                 VALUES ($1, 'POST', '{}', '/pay', 'started', 1)",
            )
            .bind(key)
            .execute(&mut *tx)
            .await?;
            Found::Free
        }
    };
    tx.commit().await?;
    Ok(found)
}

async fn phase(conn: &mut PgConnection, key: &str) -> Result<(), sqlx::Error> {
    let mut tx = sqlx::Connection::begin_with(conn, SERIALIZABLE).await?;
    sqlx::query("INSERT INTO payment (key) VALUES ($1)")
        .bind(key)
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE idempotency_keys SET recovery_point = 'charged' WHERE user_id = 1 AND idempotency_key = $1")
        .bind(key)
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

async fn finish(conn: &mut PgConnection, key: &str) -> Result<(), sqlx::Error> {
    let mut tx = sqlx::Connection::begin_with(conn, SERIALIZABLE).await?;
    sqlx::query(
        "UPDATE idempotency_keys SET recovery_point = 'finished', locked_at = NULL, response_code = 201, response_body = $2 \
         WHERE user_id = 1 AND idempotency_key = $1",
    )
    .bind(key)
    .bind(&ANSWER[..])
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// NServiceBus's outbox: a look for the message, the effect and its record in one transaction, and a mark when what it sends
/// has been sent. Two at once meet at the primary key, where the second fails.
pub fn dispatched(pool: &PgPool) -> App {
    app(
        "NServiceBus's outbox",
        pool,
        async |State(pool): State<PgPool>, headers: HeaderMap| {
            let key = key(&headers);
            let mut conn = pool.acquire().await.unwrap();
            let row =
                sqlx::query("SELECT dispatched, operations FROM outbox_data WHERE message_id = $1")
                    .bind(&key)
                    .fetch_optional(&mut *conn)
                    .await
                    .unwrap();
            if row.is_some() {
                return CREATED.into_response();
            }
            let mut tx = sqlx::Connection::begin(&mut *conn).await.unwrap();
            effect(&mut tx, &key).await;
            let recorded =
                sqlx::query("INSERT INTO outbox_data (message_id, operations) VALUES ($1, $2)")
                    .bind(&key)
                    .bind(&ANSWER[..])
                    .execute(&mut *tx)
                    .await;
            if recorded.is_err() {
                tx.rollback().await.unwrap();
                return StatusCode::CONFLICT.into_response();
            }
            tx.commit().await.unwrap();
            sqlx::query("UPDATE outbox_data SET dispatched = true, dispatched_at = now(), operations = '' WHERE message_id = $1")
            .bind(&key)
            .execute(&mut *conn)
            .await
            .unwrap();
            CREATED.into_response()
        },
    )
}
