//! Jobs whose effects are elsewhere, in steps, under a lease.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use mainstay_errors::Error as AnyError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{Ran, before, claim_of, to_keep};
use crate::codec::Codec;
use crate::key::Age;
use crate::leased::{Claimed, Home, Lease, LeaseError, LeasedStore, Leases, LentLease, Work};
use crate::local::Kept;
use crate::store::Claim;
use crate::{Error, ErrorKind, IdempotencyError, Key};

/// As [`Jobs`](super::Jobs), over the Leased protocol: the claim commits first, the job works in steps, its result is recorded
/// last. For jobs that call remote systems.
///
/// ```
/// # use mainstay_idempotency::{LeasedJobs, Key, Ran};
/// # use mainstay_idempotency::leased::{DerivedKey, Leases, Remote};
/// # use mainstay_errors::{Error, Problem};
/// # async fn transfer(_: DerivedKey) -> Result<String, Problem> { Ok(String::new()) }
/// # async fn work(pool: sqlx::SqlitePool) -> Result<(), Error> {
/// let jobs = LeasedJobs::new(Leases::new(pool), "payouts");
/// let key = Key::new("payout-17").map_err(Error::internal)?;
/// let ran: Ran<String> = jobs
///     .run(&key, "17", |mut lease| async move {
///         // Asked again after a crash, under the same key: the bank knows it.
///         Ok::<_, Error>(lease.call("transfer", Remote::HonoursKey, transfer).await?)
///     })
///     .await?;
/// # Ok(()) }
/// ```
pub struct LeasedJobs<S: LeasedStore> {
    leases: Leases<S>,
    name: Box<str>,
    tracker: TaskTracker,
    time_max: Duration,
    codec: Option<Arc<dyn Codec>>,
}

impl<S: LeasedStore> LeasedJobs<S> {
    /// Jobs of this name. Keys of two names never meet.
    #[must_use]
    pub fn new(leases: Leases<S>, name: &str) -> Self {
        Self {
            leases,
            name: name.into(),
            tracker: TaskTracker::new(),
            time_max: super::TIME_MAX,
            codec: None,
        }
    }

    /// Tracks the jobs in progress, to be waited for at shutdown.
    #[must_use]
    pub fn tracker(mut self, tracker: TaskTracker) -> Self {
        self.tracker = tracker;
        self
    }

    /// Longest time for an attempt, before it is dropped. Default 5 min.
    #[must_use]
    pub fn time_max(mut self, time: Duration) -> Self {
        self.time_max = time;
        self
    }

    /// Seals results before they are stored. The job's input and what steps return are stored as they are, until there is a
    /// result. Default: none.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.codec = Some(Arc::new(codec));
        self
    }

    /// Runs `job` under `key`, or goes on behind the steps that an earlier attempt has done, unless it was completed before.
    ///
    /// `Ok` records the result. `Err` gives the lease back: the next attempt may come at once, and skips the steps that are
    /// done. After a panic, a timeout and a process that dies it may come when the lease is over, for nobody knows what was
    /// under way.
    ///
    /// # Errors
    /// An [`IdempotencyError`], or the job's own. [`IdempotencyError::KeyInFlight`] also when another attempt has taken over;
    /// [`IdempotencyError::OutcomeUnknown`] also for a timeout, for a store that does not say whether it has the claim, and for a key that is [`Unknown`](Claimed::Unknown).
    ///
    /// # Cancel safety
    /// The job runs in a task of its own: dropping this future loses the answer, not the work. A panic continues here.
    pub async fn run<T, E, F, Fut>(
        &self,
        key: &Key,
        input: impl Into<Bytes>,
        job: F,
    ) -> Result<Ran<T>, AnyError>
    where
        F: FnOnce(LentLease<S>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<AnyError> + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let input: Bytes = input.into();
        let claim = claim_of(&self.name, key, &input);
        let work = Work {
            handler: self.name.to_string(),
            input,
        };
        let this = self.clone();
        let task = async move {
            match this.leases.claim(&claim, &work).await {
                Ok(Claimed::Run(lease)) => this.work(&claim, lease, job).await,
                Ok(Claimed::Replay(found)) => before(this.codec.as_deref(), &claim, found),
                other => Err(refusal(other).into()),
            }
        };
        match self.tracker.spawn(task.in_current_span()).await {
            Ok(ran) => ran,
            Err(join) => match join.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(cancelled) => Err(unknown(cancelled).into()),
            },
        }
    }

    async fn work<T, E, F, Fut>(
        &self,
        claim: &Claim,
        lease: Lease<S>,
        job: F,
    ) -> Result<Ran<T>, AnyError>
    where
        F: FnOnce(LentLease<S>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<AnyError>,
        T: Serialize + DeserializeOwned,
    {
        let home = Home::new(lease);
        let lent = home.lend().ok_or(IdempotencyError::TransactionLost)?;
        // What the job left behind in a panic is dropped, not looked at.
        let running = AssertUnwindSafe(async { job(lent).await }).catch_unwind();
        let ran = timeout(self.time_max, running).await;
        let lease = home.take();
        match (ran, lease) {
            (Ok(Err(panic)), _) => resume_unwind(panic),
            // The lease runs out: what was under way when it was dropped, nobody knows.
            (Err(elapsed), _) => Err(unknown(elapsed).into()),
            (Ok(Ok(Err(failed))), lease) => {
                if let Some(lease) = lease {
                    _ = lease.give_back().await;
                }
                Err(failed.into())
            }
            (Ok(Ok(Ok(_))), None) => Err(unknown("the job kept its lease past its end").into()),
            (Ok(Ok(Ok(result))), Some(lease)) => {
                // Without a record, but not without effects: the steps are done.
                let recorded = to_keep(self.codec.as_deref(), claim, &result).map_err(unknown)?;
                let recording =
                    self.leases
                        .record(&lease, claim, &recorded, super::RESOLVE_TIME_MAX);
                match recording.await {
                    Ok(Kept::Ours) => Ok(Ran::Now(result)),
                    Ok(Kept::Theirs(found)) => before(self.codec.as_deref(), claim, found),
                    Err(IdempotencyError::Store(refused)) => {
                        Err(IdempotencyError::OutcomeUnknown(refused).into())
                    }
                    Err(other) => Err(other.into()),
                }
            }
        }
    }
}

fn refusal<S: LeasedStore>(claimed: Result<Claimed<S>, Error>) -> IdempotencyError {
    match claimed {
        // The claim may be there, with the job's name: a completer that knows it would do what is said to be undone.
        Err(lost) if lost.kind() == ErrorKind::Unavailable => {
            IdempotencyError::OutcomeUnknown(lost)
        }
        Err(error) => IdempotencyError::Store(error),
        Ok(Claimed::Mismatch) => IdempotencyError::KeyReused,
        Ok(Claimed::Refused(Age::FromTheFuture)) => IdempotencyError::KeyFromTheFuture,
        Ok(Claimed::Refused(_)) => IdempotencyError::KeyExpired,
        Ok(Claimed::Unknown) => unknown("an earlier attempt does not know what it did"),
        Ok(Claimed::InFlight { .. } | Claimed::Run(_) | Claimed::Replay(_)) => {
            IdempotencyError::KeyInFlight
        }
    }
}

fn unknown(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> IdempotencyError {
    IdempotencyError::OutcomeUnknown(Error::new(ErrorKind::Unavailable, source))
}

/// Whether a lease stops the job, or the step's own error does.
impl<E: Into<AnyError>> From<LeaseError<E>> for AnyError {
    fn from(error: LeaseError<E>) -> Self {
        match error {
            LeaseError::Step(own) => own.into(),
            LeaseError::Fenced => IdempotencyError::KeyInFlight.into(),
            LeaseError::Unknown => unknown("a remote step was begun and not finished").into(),
            // Other steps, and perhaps this one, are done: the store's own problem, or a timeout's, would say that nothing was.
            LeaseError::Store(error) => IdempotencyError::OutcomeUnknown(error).into(),
            LeaseError::TimedOut => unknown("a step took longer than it may").into(),
            LeaseError::NotKept(reason) => Self::internal(reason.into_string()),
        }
    }
}

impl<S: LeasedStore> fmt::Debug for LeasedJobs<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedJobs")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<S: LeasedStore> Clone for LeasedJobs<S> {
    fn clone(&self) -> Self {
        Self {
            leases: self.leases.clone(),
            name: self.name.clone(),
            tracker: self.tracker.clone(),
            time_max: self.time_max,
            codec: self.codec.clone(),
        }
    }
}
