//! Payments in a database: what the service needs of one, and the twins that give it.

mod postgres;
mod sqlite;

use std::marker::PhantomData;

use mainstay::{idempotency::IdempotencyDb, outbox::OutboxDb, pagination::PageDb};
use sqlx::{FromRow, Pool, QueryBuilder};
use uuid::Uuid;

use crate::payment::Payment;

/// A database that keeps payments, next to mainstay's own tables.
///
/// The service is written once over this trait; each database spells its own SQL, whole, in its own file.
pub trait Store: IdempotencyDb + OutboxDb + PageDb {
    /// Opens a pool on `url`.
    fn connect(url: &str) -> impl Future<Output = sqlx::Result<Pool<Self>>> + Send;

    /// Brings the payments table up to date. mainstay's crates migrate their own.
    fn migrate_payments(
        pool: &Pool<Self>,
    ) -> impl Future<Output = Result<(), sqlx::migrate::MigrateError>> + Send;

    /// Writes a new payment.
    fn insert_payment(
        conn: &mut Self::Connection,
        payment: &Payment,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// A tenant's payment.
    fn find_payment(
        pool: &Pool<Self>,
        tenant: &str,
        id: Uuid,
    ) -> impl Future<Output = sqlx::Result<Option<Payment>>> + Send;

    /// Settles a payment that is pending and returns it; `None` when there is no such payment, or it is settled already.
    fn settle_payment(
        conn: &mut Self::Connection,
        id: Uuid,
    ) -> impl Future<Output = sqlx::Result<Option<Payment>>> + Send;

    /// Whether a payment exists, whoever's it is.
    fn payment_exists(
        conn: &mut Self::Connection,
        id: Uuid,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// The payments of a tenant, in one currency or in all, without an order: pagination adds it.
    fn select_payments(query: &mut QueryBuilder<Self>, tenant: &str, currency: Option<&str>);

    /// Reads a row of [`select_payments`](Self::select_payments).
    fn read_payment(row: &Self::Row) -> sqlx::Result<Payment>;
}

/// A payment as a row of a page, in whichever database.
#[derive(Debug)]
pub struct Listed<D>(pub Payment, pub PhantomData<fn() -> D>);

impl<D: Store> FromRow<'_, D::Row> for Listed<D> {
    fn from_row(row: &D::Row) -> sqlx::Result<Self> {
        D::read_payment(row).map(|payment| Self(payment, PhantomData))
    }
}
