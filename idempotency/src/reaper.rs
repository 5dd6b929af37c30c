//! Deletes what is older than it needs to be, in a task of its own.

use std::fmt;
use std::time::Duration;

use sqlx::{Database, Pool};
use tokio_util::sync::CancellationToken;

use crate::inbox::INBOX_RETENTION;
use crate::key::SKEW_MAX;
use crate::leased::{LeasedDb, Retention};
use crate::store::in_task;
use crate::{Error, empty_days, reap, reap_inbox, telemetry};

/// A day: what providers that publish it promise at least.
const KEYS_RETENTION: Duration = Duration::from_hours(24);
/// A month, in which somebody should have looked. It is forgotten then, and with it that it was begun.
const UNFINISHED_RETENTION: Duration = Duration::from_hours(30 * 24);
/// Rare enough to be no load, often enough that a round is short.
const INTERVAL: Duration = Duration::from_mins(1);
/// A statement of some 10 ms, whose locks nobody waits for.
const BATCH_MAX: u32 = 1000;

/// Deletes old records, by day where there are days ([`empty_days`]), leases that are done, and inbox rows, batch by batch, by the database's clock. Run one per process,
/// or one in all: several share the work.
///
/// Keys in flight have no row of the Local protocol; of the Leased one they are told by their lease, and what stopped in the
/// middle stays for longer than what is done: see [`Retention`].
///
/// ```
/// # #[cfg(feature = "sqlite")] mod example {
/// use std::time::Duration;
/// use mainstay_idempotency::Reaper;
/// use tokio_util::sync::CancellationToken;
/// # fn start(pool: sqlx::SqlitePool) -> Result<(), Box<dyn std::error::Error>> {
/// let stop = CancellationToken::new();
/// let week = Duration::from_hours(7 * 24);
/// let reaper = Reaper::new(pool)
///     .keys(week) // not less than the layer's retention
///     .inbox(week, Duration::from_hours(76))?; // a sender that keeps trying for three days
/// let reaping = tokio::spawn(reaper.run(stop.clone()));
/// // at shutdown: stop.cancel(), then reaping.await
/// # Ok(()) } }
/// ```
pub struct Reaper<D: Database> {
    pool: Pool<D>,
    keys: Duration,
    unfinished: Duration,
    inbox: Duration,
    interval: Duration,
    batch_max: u32,
}

/// How many rows went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reaped {
    /// Days of the Local protocol, emptied as a whole on Postgres: see [`empty_days`](crate::empty_days).
    pub days: u64,
    /// Of the Local protocol, one by one.
    pub keys: u64,
    /// Of the Leased protocol.
    pub leases: u64,
    /// Of the inbox.
    pub inbox: u64,
}

/// An inbox that forgets a message before its source has given up delivering it would apply it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the inbox would forget after {retention:?} what its source may redeliver for {redelivered:?}"
)]
pub struct RetentionTooShort {
    /// How long rows would stay.
    pub retention: Duration,
    /// How long the source keeps trying.
    pub redelivered: Duration,
}

impl<D: LeasedDb> Reaper<D> {
    /// Keys stay for a day, unfinished work for 30, inbox rows for a week; batches of 1000, every minute.
    pub fn new(pool: Pool<D>) -> Self {
        Self {
            pool,
            keys: KEYS_RETENTION,
            unfinished: UNFINISHED_RETENTION,
            inbox: INBOX_RETENTION,
            interval: INTERVAL,
            batch_max: BATCH_MAX,
        }
    }

    /// How long records and ended leases stay, at least. Not less than what the layer and [`Leases`](crate::leased::Leases)
    /// promise as retention; records stay five minutes longer, see [`reap`].
    #[must_use]
    pub fn keys(mut self, retention: Duration) -> Self {
        self.keys = retention;
        self
    }

    /// How long work of the Leased protocol stays that stopped in the middle, or whose outcome is unknown, after the end of its
    /// last lease. Default 30 days. Give `Duration::MAX` to keep it until somebody has looked.
    #[must_use]
    pub fn unfinished(mut self, retention: Duration) -> Self {
        self.unfinished = retention;
        self
    }

    /// How long inbox rows stay, which must be longer than any source keeps delivering a message again: 75 h 35 min in
    /// the schedule that Standard Webhooks proposes, as long as a queue retains for a broker.
    ///
    /// # Errors
    /// [`RetentionTooShort`] when it is not.
    pub fn inbox(
        mut self,
        retention: Duration,
        source_redelivers_for: Duration,
    ) -> Result<Self, RetentionTooShort> {
        if retention <= source_redelivers_for {
            return Err(RetentionTooShort {
                retention,
                redelivered: source_redelivers_for,
            });
        }
        self.inbox = retention;
        Ok(self)
    }

    /// How long to rest between two rounds.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Most rows of one statement. At least 1.
    #[must_use]
    pub fn batch_max(mut self, batch_max: u32) -> Self {
        self.batch_max = batch_max.max(1);
        self
    }

    /// One round: batches until one is not full, of each table.
    ///
    /// # Errors
    /// The database's first. The other tables are reaped all the same, and what went stays deleted.
    ///
    /// # Cancel safety
    /// Dropped, it stops after the batch in progress.
    pub async fn run_once(&self) -> Result<Reaped, Error> {
        self.round(&CancellationToken::new()).await
    }

    /// Round after round, until `stop` is cancelled; then it ends after the batch in progress. A round that fails is logged,
    /// and the next one goes on.
    ///
    /// # Cancel safety
    /// As [`run_once`](Self::run_once).
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.round(&stop).await {
                Ok(reaped) => tracing::debug!(?reaped, "reaped"),
                Err(error) => tracing::warn!(%error, "reaping failed"),
            }
            _ = stop
                .run_until_cancelled(tokio::time::sleep(self.interval))
                .await;
        }
    }

    async fn round(&self, stop: &CancellationToken) -> Result<Reaped, Error> {
        // Each by itself: a table that cannot be reaped must not let the others grow.
        let days = empty_days(&self.pool, self.keys)
            .await
            .inspect(|days| telemetry::reaped("days", *days));
        let keys = self.drain(Table::Keys, stop).await;
        let leases = self.drain(Table::Leases, stop).await;
        let inbox = self.drain(Table::Inbox, stop).await;
        Ok(Reaped {
            days: days?,
            keys: keys?,
            leases: leases?,
            inbox: inbox?,
        })
    }

    async fn drain(&self, table: Table, stop: &CancellationToken) -> Result<u64, Error> {
        let mut all = 0;
        while !stop.is_cancelled() {
            let reaped = self.batch(table).await?;
            telemetry::reaped(table.name(), reaped);
            all += reaped;
            if reaped < u64::from(self.batch_max) {
                break;
            }
        }
        Ok(all)
    }

    async fn batch(&self, table: Table) -> Result<u64, Error> {
        let batch_max = self.batch_max;
        match table {
            Table::Keys => reap(&self.pool, self.keys, batch_max).await,
            Table::Inbox => reap_inbox(&self.pool, self.inbox, batch_max).await,
            Table::Leases => {
                let ended = self.keys.saturating_add(SKEW_MAX);
                let retention = Retention {
                    ended,
                    unfinished: self.unfinished.max(ended),
                };
                let pool = self.pool.clone();
                in_task(async move { D::lease_reap(&pool, retention, batch_max).await }).await
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Table {
    Keys,
    Leases,
    Inbox,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Leases => "leases",
            Self::Inbox => "inbox",
        }
    }
}

impl<D: Database> fmt::Debug for Reaper<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaper")
            .field("keys", &self.keys)
            .field("unfinished", &self.unfinished)
            .field("inbox", &self.inbox)
            .field("interval", &self.interval)
            .field("batch_max", &self.batch_max)
            .finish_non_exhaustive()
    }
}
