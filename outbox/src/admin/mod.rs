//! For operators: how far behind, what died, bringing it back, holding it up.
//!
//! Everything here goes through the database, so it works from any process, beside relays or without them. What reads takes
//! no locks; what changes writes an audit row in the same transaction.

mod bulk;
mod dead;
mod filter;
mod health;
mod lag;
mod lane;
#[cfg(feature = "metrics")]
mod monitor;
mod pause;
mod peek;
mod verify;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sqlx::Pool;

#[cfg(feature = "metrics")]
pub use self::monitor::LagMonitor;
pub use self::{
    bulk::{Bulk, Discarded},
    dead::{DeadCause, DeadLetter, Failure},
    filter::Filter,
    health::{Health, HealthReason, HealthStatus, Thresholds},
    lag::{Lag, Precision, TopicLag},
    lane::{LaneLag, StallCause, Verdict},
    pause::Paused,
    peek::{Pending, Wait},
    verify::{Finding, Severity},
};
use crate::{error::Error, message::from_micros, store::OutboxDb};

/// Looks after an outbox: lag, lanes, dead letters, redrive, replay, pauses, audit.
///
/// # How long a call takes
/// As long as the database. Calls have no bound of their own: they wait for a connection as long as the pool is told to
/// (30 s unless it is told otherwise), and then for the answer, for ever where none comes. A probe that waits is no answer, so
/// give it one:
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # async fn ready(pool: sqlx::SqlitePool) -> bool {
/// use std::time::Duration;
/// use mainstay_outbox::{Admin, HealthStatus, Thresholds};
///
/// let (admin, limits) = (Admin::new(pool), Thresholds::default());
/// match tokio::time::timeout(Duration::from_secs(2), admin.health(&limits)).await {
///     Ok(Ok(health)) => health.status != HealthStatus::Failing,
///     Ok(Err(_)) | Err(_) => false,
/// }
/// # }
/// ```
///
/// A call that is given up, the database may go on with; bound that by the pool's own settings (`statement_timeout`,
/// `max_statement_time`), from which changes of many messages, which come in batches, have nothing to fear.
pub struct Admin<Db: OutboxDb> {
    pool: Pool<Db>,
    actor: Arc<str>,
    stalled_after: Duration,
}

impl<Db: OutboxDb> Admin<Db> {
    /// Looks after the outbox behind this pool. Changes are written down as made by `unnamed`: see [`actor`](Self::actor).
    #[must_use]
    pub fn new(pool: Pool<Db>) -> Self {
        Self {
            pool,
            actor: Arc::from("unnamed"),
            stalled_after: Duration::from_secs(30),
        }
    }

    /// Who changes things: a person, a job. Stands in the audit rows.
    #[must_use]
    pub fn actor(mut self, actor: impl AsRef<str>) -> Self {
        self.actor = Arc::from(actor.as_ref());
        self
    }

    /// How long a lane with messages may settle nothing before its verdict is [`Verdict::Stalled`]. Default 30 s: longer
    /// than most sinks take, shorter than anybody's patience.
    #[must_use]
    pub fn stalled_after(mut self, quiet: Duration) -> Self {
        self.stalled_after = quiet;
        self
    }

    /// Checks that the tables are those that this code knows. Every change asks this first: rows are moved column by column,
    /// and what newer code has added to them would be lost on the way.
    ///
    /// # Errors
    /// [`ErrorKind::NotMigrated`](crate::ErrorKind::NotMigrated), [`ErrorKind::NewerSchema`](crate::ErrorKind::NewerSchema),
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn check_schema(&self) -> Result<(), Error> {
        Db::lanes(self.pool.clone()).await.map(drop)
    }

    /// The newest `limit` changes that operators made, newest first.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn audit(&self, limit: u32) -> Result<Vec<Audit>, Error> {
        let rows = Db::audit(self.pool.clone(), limit).await?;
        let audit = |row: crate::store::AuditRow| Audit {
            id: row.id,
            at: from_micros(row.at_micros),
            actor: row.actor,
            action: row.action,
            detail: row.detail,
            affected: row.affected.unsigned_abs(),
        };
        Ok(rows.into_iter().map(audit).collect())
    }
}

/// A change that an operator made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Its number; later ones are greater.
    pub id: i64,
    /// When it began, on the database's clock.
    pub at: SystemTime,
    /// Who.
    pub actor: String,
    /// `redrive`, `discard`, `replay`, `pause` or `resume`.
    pub action: String,
    /// What was asked, as JSON.
    pub detail: String,
    /// Messages moved or deleted; patterns paused or resumed. Grows while a change that takes several steps is under way.
    pub affected: u64,
}

impl<Db: OutboxDb> Clone for Admin<Db> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            actor: Arc::clone(&self.actor),
            stalled_after: self.stalled_after,
        }
    }
}

impl<Db: OutboxDb> fmt::Debug for Admin<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("actor", &self.actor)
            .finish_non_exhaustive()
    }
}

/// An age from the database's microseconds. A clock that was set back makes it negative: that is no age at all.
fn age(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}
