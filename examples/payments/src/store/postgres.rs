//! Payments in PostgreSQL.

use std::time::Duration;

use sqlx::{
    Connection, PgConnection, Pool, Postgres, QueryBuilder, Row,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::Store;
use crate::payment::{Payment, Status};

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(5);

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

impl Store for Postgres {
    async fn connect(url: &str) -> sqlx::Result<Pool<Self>> {
        let options = url
            .parse::<PgConnectOptions>()?
            .application_name("payments")
            .options([
                // A client that dies mid-request must not hold its key: the server looks for it this often, in milliseconds.
                ("client_connection_check_interval", "100"),
                ("idle_in_transaction_session_timeout", "30000"),
                ("statement_timeout", "15000"),
                // Every statement here is short: compiling one costs more than running it.
                ("jit", "off"),
            ]);
        // A pool keeps trying and then says only that time was up; one connection says what is wrong.
        let first = timeout(PATIENCE, PgConnection::connect_with(&options)).await;
        first
            .map_err(|_| sqlx::Error::PoolTimedOut)??
            .close()
            .await?;
        PgPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(PATIENCE)
            // A ping before each use would double the cost of a short query; a dead connection shows itself soon enough.
            .test_before_acquire(false)
            .connect_with(options)
            .await
    }

    async fn migrate_payments(pool: &Pool<Self>) -> Result<(), MigrateError> {
        MIGRATIONS.run(pool).await
    }

    async fn insert_payment(conn: &mut PgConnection, payment: &Payment) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO payments (id, tenant, amount, currency, reference, status, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(payment.id)
        .bind(&payment.tenant)
        .bind(payment.amount)
        .bind(&payment.currency)
        .bind(&payment.reference)
        .bind(payment.status.as_str())
        .bind(payment.created_at)
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
             FROM payments WHERE id = $1 AND tenant = $2",
        )
        .bind(id)
        .bind(tenant)
        .try_map(|row| Self::read_payment(&row))
        .fetch_optional(pool)
        .await
    }

    async fn settle_payment(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Payment>> {
        sqlx::query(
            "UPDATE payments SET status = 'settled' WHERE id = $1 AND status = 'pending'
             RETURNING id, tenant, amount, currency, reference, status, created_at",
        )
        .bind(id)
        .try_map(|row| Self::read_payment(&row))
        .fetch_optional(conn)
        .await
    }

    async fn payment_exists(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<bool> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM payments WHERE id = $1)")
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

    fn read_payment(row: &PgRow) -> sqlx::Result<Payment> {
        let status: &str = row.try_get("status")?;
        Ok(Payment {
            id: row.try_get("id")?,
            tenant: row.try_get("tenant")?,
            amount: row.try_get("amount")?,
            currency: row.try_get("currency")?,
            reference: row.try_get("reference")?,
            status: Status::parse(status)
                .ok_or_else(|| sqlx::Error::Decode("unknown status".into()))?,
            created_at: row.try_get("created_at")?,
        })
    }
}
