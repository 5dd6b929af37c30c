//! Jobs: what a queue or a schedule may start more than once runs once, and its result is there for whoever asks again.

mod leased;

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::HeaderMap;
use mainstay_errors::Error as AnyError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{Database, Pool};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use self::leased::LeasedJobs;
use crate::codec::{self, Codec};
use crate::local::{Claiming, Kept, Local, Opened};
use crate::on_commit::OnCommit;
use crate::store::{Claim, IdempotencyDb};
use crate::tx::{IdemTx, Returned, Slot};
use crate::{Error, ErrorKind, Fingerprint, IdempotencyError, Key, Recorded, Scope, Wait};

/// Runs jobs by key over one database: the key, the job's writes and its result commit in one transaction, the same
/// Local protocol as that of requests. A job whose effects are elsewhere is one of
/// [`LeasedJobs`].
///
/// ```
/// # use mainstay_idempotency::{Jobs, Key, Ran};
/// # use mainstay_errors::{Error, Problem};
/// # async fn invoice(_: &mut sqlx::SqliteConnection, _: &str) -> Result<i64, Problem> { Ok(1) }
/// # async fn work(pool: sqlx::SqlitePool) -> Result<(), Error> {
/// let jobs = Jobs::<sqlx::Sqlite>::new(pool, "invoices");
/// let month = "2027-01";
/// let key = Key::new(month).map_err(Error::internal)?; // one invoice run a month, however often it is started
/// let ran = jobs
///     .run(&key, month, move |mut tx| async move { invoice(&mut tx, month).await })
///     .await?;
/// match ran {
///     Ran::Now(count) => println!("{count} invoices written"),
///     Ran::Before(count) => println!("{count} invoices were written before"),
/// }
/// # Ok(()) }
/// ```
pub struct Jobs<D: Database> {
    pool: Pool<D>,
    name: Box<str>,
    tracker: TaskTracker,
    on_commit: OnCommit,
    time_max: Duration,
    wait: Wait,
    retention: Option<Duration>,
    codec: Option<Arc<dyn Codec>>,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran<T> {
    /// It ran and committed, with this result.
    Now(T),
    /// It had run and committed before, with this result; nothing was run.
    Before(T),
}

impl<T> Ran<T> {
    /// The result, whenever it was made.
    pub fn into_inner(self) -> T {
        match self {
            Self::Now(result) | Self::Before(result) => result,
        }
    }
}

/// Longer than a request may take, and still an end: it holds a connection, and on SQLite the one writer's place.
const TIME_MAX: Duration = Duration::from_mins(5);

/// As for requests: a failover takes longer, but so does patience.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(5);

impl<D: IdempotencyDb> Jobs<D> {
    /// Jobs of this name over `pool`, which holds both this crate's keys and what the jobs write. Keys of two names never
    /// meet.
    #[must_use]
    pub fn new(pool: Pool<D>, name: &str) -> Self {
        Self {
            pool,
            name: name.into(),
            tracker: TaskTracker::new(),
            on_commit: OnCommit::default(),
            time_max: TIME_MAX,
            wait: Wait::No,
            retention: None,
            codec: None,
        }
    }

    /// Tracks the jobs in progress, to be waited for at shutdown.
    #[must_use]
    pub fn tracker(mut self, tracker: TaskTracker) -> Self {
        self.tracker = tracker;
        self
    }

    /// Called after each commit. It must not block; a panic in it is logged and changes nothing.
    #[must_use]
    pub fn on_commit(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_commit = OnCommit::new(hook);
        self
    }

    /// Longest time for a job, before it is dropped and rolled back. Default 5 min.
    #[must_use]
    pub fn time_max(mut self, time: Duration) -> Self {
        self.time_max = time;
        self
    }

    /// What to do about a job that is running. Default [`Wait::No`]: [`IdempotencyError::KeyInFlight`].
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// For how long a key is remembered: one that carries its own time (a version 7 UUID) and is older does not run. Give
    /// [`reap`](crate::reap) at least this. Default: no key is too old.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Seals results before they are stored. Default: they are stored as they are.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.codec = Some(Arc::new(codec));
        self
    }

    /// Runs `job` under `key`, unless it has been run before.
    ///
    /// `input` is what the job is about: the same key with another input is a mistake and does not run. `job` gets the
    /// transaction on loan and must let go of it. `Ok` commits its writes and its result; `Err`, a panic, a timeout and a
    /// process that dies roll back everything, and the key is free.
    ///
    /// The result is kept as JSON for as long as the key: make it small.
    ///
    /// # Errors
    /// An [`IdempotencyError`] (in flight, another input, too old, the store, outcome unknown), or the job's own.
    ///
    /// # Cancel safety
    /// The job runs in a task of its own: dropping this future loses the answer, not the work. A panic continues here.
    pub async fn run<T, E, F, Fut>(
        &self,
        key: &Key,
        input: impl AsRef<[u8]>,
        job: F,
    ) -> Result<Ran<T>, AnyError>
    where
        F: FnOnce(IdemTx<D>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<AnyError> + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let claim = claim_of(&self.name, key, input.as_ref());
        let this = self.clone();
        let task = async move { this.apply(&claim, job).await };
        match self.tracker.spawn(task.in_current_span()).await {
            Ok(ran) => ran,
            Err(join) => match join.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // Only a runtime that is shutting down cancels the task.
                Err(cancelled) => {
                    let cancelled = Error::new(ErrorKind::Unavailable, cancelled);
                    Err(IdempotencyError::OutcomeUnknown(cancelled).into())
                }
            },
        }
    }

    async fn apply<T, E, F, Fut>(&self, claim: &Claim, job: F) -> Result<Ran<T>, AnyError>
    where
        F: FnOnce(IdemTx<D>) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<AnyError>,
        T: Serialize + DeserializeOwned,
    {
        let local = Local {
            pool: self.pool.clone(),
            tracker: self.tracker.clone(),
            idle_max: self.time_max.saturating_add(Duration::from_secs(5)),
            wait: self.wait,
            claiming: Claiming::First,
            stale_after: self.retention,
            resolve_max: RESOLVE_TIME_MAX,
        };
        let tx = match local.open(claim).await? {
            Opened::Run(tx) => tx,
            Opened::Replay(found) => return before(self.codec.as_deref(), claim, found),
        };
        let slot = Slot::ready(&self.pool, tx);
        let lent = slot.lend().await.map_err(IdempotencyError::Store)?;
        let lent = lent.ok_or(IdempotencyError::TransactionLost)?;
        // What the job left behind in a panic is dropped, not looked at: the transaction is rolled back.
        let running = AssertUnwindSafe(async { job(lent).await }).catch_unwind();
        let ran = timeout(self.time_max, running).await;
        let Returned::Tx(tx) = slot.close() else {
            return match ran {
                Ok(Err(panic)) => resume_unwind(panic),
                _ => Err(IdempotencyError::TransactionLost.into()),
            };
        };
        let result = match ran {
            Ok(Ok(Ok(result))) => result,
            failed => {
                match failed {
                    Ok(Ok(_)) => local.roll_back(tx).await,
                    Ok(Err(_)) | Err(_) => local.roll_back_cut_off(tx).await,
                }
                return match failed {
                    Ok(Err(panic)) => resume_unwind(panic),
                    Ok(Ok(failed)) => failed.map(Ran::Now).map_err(Into::into),
                    Err(_elapsed) => Err(IdempotencyError::HandlerTimeout.into()),
                };
            }
        };
        let recorded = match to_keep(self.codec.as_deref(), claim, &result) {
            Ok(recorded) => recorded,
            Err(refusal) => {
                local.roll_back(tx).await;
                return Err(refusal.into());
            }
        };
        match local.commit(tx, claim, &recorded).await? {
            Kept::Ours => {
                self.on_commit.call();
                Ok(Ran::Now(result))
            }
            Kept::Theirs(found) => before(self.codec.as_deref(), claim, found),
        }
    }
}

/// A job's key belongs to the job's name, for whoever starts it.
fn claim_of(name: &str, key: &Key, input: &[u8]) -> Claim {
    Claim {
        scope: Scope::new("", "", ["mainstay job ", name].concat()),
        key: key.clone(),
        fingerprint: Fingerprint::new("job", name, input),
    }
}

/// What is kept of a result.
fn to_keep<T: Serialize>(
    codec: Option<&dyn Codec>,
    claim: &Claim,
    result: &T,
) -> Result<Recorded, IdempotencyError> {
    let body = serde_json::to_vec(result).map_err(|error| {
        tracing::error!(%error, "the job's result cannot be kept");
        IdempotencyError::ResponseNotKept
    })?;
    let recorded = Recorded {
        status: 200,
        headers: HeaderMap::new(),
        body: body.into(),
    };
    codec::seal(codec, &claim.scope, &claim.key, recorded).map_err(|error| {
        tracing::error!(%error, "the job's result cannot be sealed");
        IdempotencyError::ResponseNotKept
    })
}

fn before<T: DeserializeOwned>(
    codec: Option<&dyn Codec>,
    claim: &Claim,
    stored: Recorded,
) -> Result<Ran<T>, AnyError> {
    let recorded = codec::open(codec, &claim.scope, &claim.key, stored)
        .map_err(IdempotencyError::RecordUnreadable)?;
    let read = serde_json::from_slice(&recorded.body);
    let unreadable =
        |error| IdempotencyError::RecordUnreadable(Error::new(ErrorKind::Corrupt, error));
    Ok(Ran::Before(read.map_err(unreadable)?))
}

impl<D: Database> Clone for Jobs<D> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            name: self.name.clone(),
            tracker: self.tracker.clone(),
            on_commit: self.on_commit.clone(),
            time_max: self.time_max,
            wait: self.wait,
            retention: self.retention,
            codec: self.codec.clone(),
        }
    }
}

impl<D: Database> fmt::Debug for Jobs<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
