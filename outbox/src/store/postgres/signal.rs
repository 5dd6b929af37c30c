//! The outbox on Postgres: wakes between processes, by NOTIFY.

use sqlx::{PgPool, Postgres, postgres::PgListener};

use super::super::Signal;
use crate::error::Error;

/// One channel for every outbox of the database: a wake that was meant for another schema costs an empty look.
const CHANNEL: &str = "mainstay_outbox";

impl Signal for Postgres {
    const SIGNALS: bool = true;

    async fn announce(pool: PgPool) -> Result<(), Error> {
        // Transactions that notify commit one after the other, under a lock of the whole database. This one has nothing
        // else to do, so it holds that lock for one commit, and no other transaction wants it.
        sqlx::query("SELECT pg_notify($1, '')")
            .bind(CHANNEL)
            .execute(&pool)
            .await?;
        Ok(())
    }

    async fn listen(pool: PgPool, told: impl Fn() + Send + Sync) -> Result<(), Error> {
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        told();
        loop {
            // None: the connection was lost and there is a new one; nobody knows what was said meanwhile.
            let _ = listener.try_recv().await?;
            told();
        }
    }
}
