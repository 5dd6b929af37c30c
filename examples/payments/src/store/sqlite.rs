//! Payments in SQLite: UUIDs as 16 bytes, time as whole microseconds.

use std::time::Duration;

use sqlx::{
    Pool, QueryBuilder, Row, Sqlite, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use crate::payment::{Payment, Status};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

impl Store for Sqlite {
    async fn connect(url: &str) -> sqlx::Result<Pool<Self>> {
        let options = url
            .parse::<SqliteConnectOptions>()?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit survives the death of the process under NORMAL, and of the machine only under FULL.
            .synchronous(SqliteSynchronous::Full)
            // One writer at a time: the others wait here, in the database, before anything is refused.
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true);
        SqlitePoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(5))
            // A file needs no ping before each use; it would double the cost of a short query.
            .test_before_acquire(false)
            .connect_with(options)
            .await
    }

    async fn migrate_payments(pool: &Pool<Self>) -> Result<(), MigrateError> {
        MIGRATIONS.run(pool).await
    }

    async fn insert_payment(conn: &mut SqliteConnection, payment: &Payment) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO payments (id, tenant, amount, currency, reference, status, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(payment.id)
        .bind(&payment.tenant)
        .bind(payment.amount)
        .bind(&payment.currency)
        .bind(&payment.reference)
        .bind(payment.status.as_str())
        .bind(micros_of(payment.created_at))
        .execute(conn)
        .await
        .map(|_| ())
    }

    async fn find_payment(
        pool: &Pool<Self>,
        tenant: &str,
        id: Uuid,
    ) -> sqlx::Result<Option<Payment>> {
        sqlx::query(
            "SELECT id, tenant, amount, currency, reference, status, created_at
             FROM payments WHERE id = ?1 AND tenant = ?2",
        )
        .bind(id)
        .bind(tenant)
        .try_map(|row| Self::read_payment(&row))
        .fetch_optional(pool)
        .await
    }

    async fn settle_payment(
        conn: &mut SqliteConnection,
        id: Uuid,
    ) -> sqlx::Result<Option<Payment>> {
        sqlx::query(
            "UPDATE payments SET status = 'settled' WHERE id = ?1 AND status = 'pending'
             RETURNING id, tenant, amount, currency, reference, status, created_at",
        )
        .bind(id)
        .try_map(|row| Self::read_payment(&row))
        .fetch_optional(conn)
        .await
    }

    async fn payment_exists(conn: &mut SqliteConnection, id: Uuid) -> sqlx::Result<bool> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM payments WHERE id = ?1)")
            .bind(id)
            .fetch_one(conn)
            .await
    }

    fn select_payments(query: &mut QueryBuilder<Self>, tenant: &str, currency: Option<&str>) {
        query
            .push("SELECT id, tenant, amount, currency, reference, status, created_at FROM payments WHERE tenant = ")
            .push_bind(tenant.to_owned());
        if let Some(currency) = currency {
            query
                .push(" AND currency = ")
                .push_bind(currency.to_owned());
        }
    }

    fn read_payment(row: &SqliteRow) -> sqlx::Result<Payment> {
        let micros: i64 = row.try_get("created_at")?;
        let status: &str = row.try_get("status")?;
        Ok(Payment {
            id: row.try_get("id")?,
            tenant: row.try_get("tenant")?,
            amount: row.try_get("amount")?,
            currency: row.try_get("currency")?,
            reference: row.try_get("reference")?,
            status: Status::parse(status)
                .ok_or_else(|| sqlx::Error::Decode("unknown status".into()))?,
            created_at: OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
        })
    }
}

fn micros_of(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}
