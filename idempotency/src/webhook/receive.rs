//! Verify, look whether it is known, apply: one transaction, in a task of its own.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;
use mainstay_errors::Error as AnyError;
use sqlx::{Database, Pool, Transaction};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{Delivery, Verify, WebhookError};
use crate::on_commit::OnCommit;
use crate::store::{IdempotencyDb, Seen, roll_back, roll_back_cut_off, within};
use crate::tx::{IdemTx, Returned, Slot};
use crate::{Error, ErrorKind, INBOX_RETENTION, inbox, telemetry};

/// Receives webhooks over one database: each delivery is applied once, however often it arrives.
///
/// ```
/// # use mainstay_idempotency::webhook::{Received, Verifier, Webhooks};
/// # use mainstay_errors::{Error, Problem};
/// # async fn settle(_: &mut sqlx::SqliteConnection, _: &[u8]) -> Result<(), Problem> { Ok(()) }
/// # async fn hook(webhooks: Webhooks<sqlx::Sqlite>, verifier: Verifier, headers: http::HeaderMap,
/// #     body: bytes::Bytes, now: std::time::SystemTime) -> Result<http::StatusCode, Error> {
/// let received = webhooks
///     .receive(&verifier, "provider", &headers, body, now, |mut tx, delivery| async move {
///         settle(&mut tx, &delivery.body).await
///     })
///     .await?;
/// match received {
///     Received::First(()) => Ok(http::StatusCode::NO_CONTENT),
///     Received::Duplicate => Ok(http::StatusCode::NO_CONTENT), // applied before: tell the sender to stop
/// }
/// # }
/// ```
pub struct Webhooks<D: Database> {
    pool: Pool<D>,
    tracker: TaskTracker,
    on_commit: OnCommit,
    effect_time_max: Duration,
    retention: Duration,
}

/// What became of a delivery. Both are reasons to answer 2xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a sender that gets no 2xx delivers again"]
pub enum Received<T> {
    /// Applied now, with what the effect returned.
    First(T),
    /// Applied before; nothing was run.
    Duplicate,
}

/// A mistake of the configuration: a late redelivery would find its mark deleted, and be applied again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} redelivers for {redelivers:?}, but the inbox remembers for {retention:?} only")]
#[non_exhaustive]
pub struct RetentionTooShort {
    /// Who redelivers.
    pub name: String,
    /// For how long.
    pub redelivers: Duration,
    /// How long the inbox remembers.
    pub retention: Duration,
}

/// Senders give up after 15 to 30 s, and what is slower holds a connection for nobody.
const EFFECT_TIME_MAX: Duration = Duration::from_secs(30);

/// How long to wait for the answer to a commit, and, if none comes, to look for its outcome.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(5);

impl<D: IdempotencyDb> Webhooks<D> {
    /// Over `pool`, which holds both this crate's inbox and what the effects write.
    #[must_use]
    pub fn new(pool: Pool<D>) -> Self {
        Self {
            pool,
            tracker: TaskTracker::new(),
            on_commit: OnCommit::default(),
            effect_time_max: EFFECT_TIME_MAX,
            retention: INBOX_RETENTION,
        }
    }

    /// Tracks the deliveries in progress, to be waited for at shutdown.
    #[must_use]
    pub fn tracker(mut self, tracker: TaskTracker) -> Self {
        self.tracker = tracker;
        self
    }

    /// Called after each commit of an effect. It must not block; a panic in it is logged and changes nothing.
    #[must_use]
    pub fn on_commit(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_commit = OnCommit::new(hook);
        self
    }

    /// Longest time for an effect, before it is dropped and rolled back with a 504. Default 30 s: it holds a connection
    /// and, on SQLite, the one writer's place, and a sender that has hung up does not stop it.
    ///
    /// Postgres is told to end a transaction that sits idle five seconds longer than this, in case this process
    /// vanishes without a word; this process waits as long for the database to answer, in case that does.
    #[must_use]
    pub fn effect_time_max(mut self, time: Duration) -> Self {
        self.effect_time_max = time;
        self
    }

    /// For how long your reaper leaves inbox rows alone: what [`redelivers`](Self::redelivers) compares with. Default
    /// [`INBOX_RETENTION`]. It deletes nothing: give the same time to [`reap_inbox`](crate::reap_inbox).
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Says for how long `source` goes on delivering what was not acknowledged; the inbox must remember longer.
    ///
    /// [`STRIPE_REDELIVERS`](super::STRIPE_REDELIVERS) is three days; the schedule that Standard Webhooks gives as an example takes 75 h
    /// 35 min. Every attempt is signed anew, so no tolerance filters a late one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainstay_idempotency::webhook::{RetentionTooShort, STRIPE_REDELIVERS, Webhooks};
    /// # fn f(pool: sqlx::SqlitePool) -> Result<(), RetentionTooShort> {
    /// let webhooks = Webhooks::<sqlx::Sqlite>::new(pool).redelivers("stripe", STRIPE_REDELIVERS)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RetentionTooShort`]: set [`retention`](Self::retention) first.
    pub fn redelivers(self, source: &str, time: Duration) -> Result<Self, RetentionTooShort> {
        if self.retention > time {
            return Ok(self);
        }
        Err(RetentionTooShort {
            name: source.to_owned(),
            redelivers: time,
            retention: self.retention,
        })
    }

    /// Verifies a delivery, and applies it unless it was applied before.
    ///
    /// `source` names the sender: ids of two sources never meet. `effect` gets the transaction on loan and must let go
    /// of it; what it returns decides: `Ok` commits, `Err` rolls back the delivery's mark together with the effect, so
    /// that the next attempt runs. A delivery that arrives while the same one is being applied is refused with a 409,
    /// never acknowledged: the first may still fail.
    ///
    /// # Errors
    /// A [`WebhookError`], the store's [`Error`](crate::Error), or the effect's own; each becomes a problem with its status.
    ///
    /// # Cancel safety
    /// A good delivery is applied in a task of its own: dropping this future loses the answer, not the effect, and the
    /// sender's next attempt is a duplicate. An effect that panics rolls back, and the panic continues here.
    pub async fn receive<T, E, F, Fut>(
        &self,
        verifier: &impl Verify,
        source: &str,
        headers: &HeaderMap,
        body: Bytes,
        now: SystemTime,
        effect: F,
    ) -> Result<Received<T>, AnyError>
    where
        F: FnOnce(IdemTx<D>, Delivery) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<AnyError> + Send + 'static,
        T: Send + 'static,
    {
        let received = async {
            let delivery = verifier.verify(headers, body, now)?;
            // Consumers share the table: the prefix keeps a source from meeting a consumer of the same name.
            let mark = Mark {
                consumer: format!("webhook {source}").into_bytes(),
                message: delivery.id.clone().into_bytes(),
            };
            inbox::check(&mark.consumer, &mark.message)?;
            let this = self.clone();
            let task = async move { this.apply(mark, delivery, effect).await };
            match self.tracker.spawn(task.in_current_span()).await {
                Ok(received) => received,
                Err(join) => match join.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    Err(_cancelled) => Err(WebhookError::OutcomeUnknown.into()),
                },
            }
        }
        .await;
        telemetry::delivery(match &received {
            Ok(Received::First(_)) => "first",
            Ok(Received::Duplicate) => "duplicate",
            Err(_) => "refused",
        });
        received
    }

    async fn apply<T, E, F, Fut>(
        &self,
        mark: Mark,
        delivery: Delivery,
        effect: F,
    ) -> Result<Received<T>, AnyError>
    where
        F: FnOnce(IdemTx<D>, Delivery) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<AnyError>,
    {
        let idle_max = self.effect_time_max.saturating_add(Duration::from_secs(5));
        let noting = note::<D>(self.pool.clone(), mark.clone(), idle_max);
        let (tx, seen) = within(&self.tracker, idle_max, noting).await?;
        if seen != Some(Seen::First) {
            roll_back(&self.tracker, tx).await;
            return match seen {
                Some(_) => Ok(Received::Duplicate),
                None => Err(WebhookError::InFlight.into()),
            };
        }
        let slot = Slot::ready(&self.pool, tx);
        let lent = slot
            .lend()
            .await?
            .ok_or(ErrorKind::TransactionEnded)
            .map_err(Error::from)?;
        // What the effect left behind in a panic is dropped, not looked at: the transaction is rolled back.
        let applying = AssertUnwindSafe(async { effect(lent, delivery).await }).catch_unwind();
        let applied = timeout(self.effect_time_max, applying).await;
        let Returned::Tx(mut tx) = slot.close() else {
            let lost = Error::new(
                ErrorKind::TransactionEnded,
                "the effect kept its transaction past its end",
            );
            return match applied {
                Ok(Err(panic)) => resume_unwind(panic),
                _ => Err(lost.into()),
            };
        };
        let value = match applied {
            Ok(Ok(Ok(value))) => value,
            failed => {
                match failed {
                    Ok(Ok(_)) => roll_back(&self.tracker, tx).await,
                    Ok(Err(_)) | Err(_) => roll_back_cut_off(&self.tracker, &self.pool, tx).await,
                }
                return match failed {
                    Ok(Err(panic)) => resume_unwind(panic),
                    Ok(Ok(applied)) => applied.map(Received::First).map_err(Into::into),
                    Err(_elapsed) => Err(WebhookError::TimedOut.into()),
                };
            }
        };
        // Dropped when it takes too long, as an effect's statement is: what follows is a rollback.
        match timeout(idle_max, D::check_open(&mut tx)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                roll_back(&self.tracker, tx).await;
                return Err(error.into());
            }
            Err(elapsed) => {
                roll_back_cut_off(&self.tracker, &self.pool, tx).await;
                return Err(Error::new(ErrorKind::Unavailable, elapsed).into());
            }
        }
        let committing = async move { D::commit(tx).await };
        match within(&self.tracker, RESOLVE_TIME_MAX, committing).await {
            Ok(()) => {}
            Err(lost) if lost.kind() == ErrorKind::Unavailable => {
                self.resolve(mark, idle_max, lost).await?;
            }
            Err(refused) => return Err(refused.into()),
        }
        self.on_commit.call();
        Ok(Received::First(value))
    }

    /// COMMIT went unanswered, be it that the connection broke or that there is only silence. `Ok` when the mark is there, so the effect is; the lost error when the old transaction
    /// has ended and left nothing; unknown when neither could be learnt in time.
    async fn resolve(&self, mark: Mark, idle_max: Duration, lost: Error) -> Result<(), AnyError> {
        tracing::warn!(error = %lost, "commit unanswered, reading the inbox again");
        let deadline = Instant::now() + RESOLVE_TIME_MAX;
        let mut pause = Duration::from_millis(20);
        while Instant::now() + pause < deadline {
            let (pool, mark) = (self.pool.clone(), mark.clone());
            // In a task, because a begin must not be dropped half way. The mark it may set is rolled back.
            let look = self.tracker.spawn(async move {
                let (tx, seen) = note::<D>(pool, mark, idle_max).await?;
                D::rollback(tx).await;
                Ok::<_, Error>(seen)
            });
            match timeout_at(deadline, look).await {
                Ok(Ok(Ok(Some(Seen::Duplicate)))) => return Ok(()),
                Ok(Ok(Ok(Some(Seen::First)))) => return Err(lost.into()),
                Ok(_) => sleep(pause).await,
                Err(_) => break,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        Err(WebhookError::OutcomeUnknown.into())
    }
}

async fn note<D: IdempotencyDb>(
    pool: Pool<D>,
    mark: Mark,
    idle_max: Duration,
) -> Result<(Transaction<'static, D>, Option<Seen>), Error> {
    let mut tx = D::begin(&pool).await?;
    match D::inbox_try(&mut tx, &mark.consumer, &mark.message, idle_max).await {
        Ok(seen) => Ok((tx, seen)),
        Err(error) => {
            D::rollback(tx).await;
            Err(error)
        }
    }
}

#[derive(Clone)]
struct Mark {
    consumer: Vec<u8>,
    message: Vec<u8>,
}

impl<D: Database> Clone for Webhooks<D> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            tracker: self.tracker.clone(),
            on_commit: self.on_commit.clone(),
            effect_time_max: self.effect_time_max,
            retention: self.retention,
        }
    }
}

impl<D: Database> fmt::Debug for Webhooks<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").finish_non_exhaustive()
    }
}
