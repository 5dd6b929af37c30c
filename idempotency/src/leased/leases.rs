//! Claiming keys.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::{Holder, Lease, LeasedStore, Taken, Work};
use crate::key::SKEW_MAX;
use crate::store::Claim;
use crate::{Age, Error, ErrorKind, Key, Recorded, Scope, telemetry};

/// Long enough for a renewal to fail twice; short enough for a client to wait for the next attempt.
const LEASE_TIME: Duration = Duration::from_secs(30);

/// Shorter ones are over before they are renewed, and renewing would leave the store no rest.
const LEASE_TIME_MIN: Duration = Duration::from_millis(10);

/// As for jobs: a step has a row locked, and on SQLite the one writer's place.
const STEP_TIME_MAX: Duration = Duration::from_mins(5);

/// Longest name of a handler, in bytes.
pub(crate) const HANDLER_BYTES_MAX: usize = 255;

/// Leases on the keys of one store.
///
/// ```
/// # #[cfg(feature = "memory")] mod example {
/// use mainstay_idempotency::leased::{Claimed, Leases, MemoryStore, Remote, Work};
/// use mainstay_idempotency::{Recorded, store::Claim};
/// # async fn charge(_: String) -> Result<String, std::io::Error> { Ok("ch_1".into()) }
/// # async fn pay(leases: Leases<MemoryStore>, claim: Claim, answer: Recorded) -> Result<(), Box<dyn std::error::Error>> {
/// match leases.claim(&claim, &Work::default()).await? {
///     Claimed::Run(mut lease) => {
///         let charge_id: String = lease
///             .call("charge", Remote::HonoursKey, |key| charge(key.to_string()))
///             .await?;
///         // ... more steps; then
///         lease.complete(answer).await?;
///     }
///     Claimed::Replay(answer) => {} // send it again
///     Claimed::InFlight { retry_after } => {} // 409
///     Claimed::Mismatch => {} // 422
///     Claimed::Unknown => {} // 503, outcome unknown; somebody looks
///     Claimed::Refused(age) => {} // too old to be run
/// }
/// # Ok(()) } }
/// ```
#[derive(Debug, Clone)]
pub struct Leases<S> {
    store: S,
    time: Duration,
    step_time_max: Duration,
    retention: Option<Duration>,
    tracker: TaskTracker,
}

/// What a claim found.
pub enum Claimed<S: LeasedStore> {
    /// The key is the caller's: work.
    Run(Lease<S>),
    /// The answer is known.
    Replay(Recorded),
    /// Another attempt is at work.
    InFlight {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The key stands for another request.
    Mismatch,
    /// Nobody knows what an earlier attempt did.
    Unknown,
    /// The key's own time says that it must not be run.
    Refused(Age),
}

impl<S: LeasedStore> std::fmt::Debug for Claimed<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run(lease) => f.debug_tuple("Run").field(lease).finish(),
            Self::Replay(recorded) => f.debug_tuple("Replay").field(&recorded.status).finish(),
            Self::InFlight { retry_after } => f
                .debug_struct("InFlight")
                .field("retry_after", retry_after)
                .finish(),
            Self::Mismatch => f.write_str("Mismatch"),
            Self::Unknown => f.write_str("Unknown"),
            Self::Refused(age) => f.debug_tuple("Refused").field(age).finish(),
        }
    }
}

impl<S: LeasedStore> Leases<S> {
    /// Leases of 30 s.
    pub fn new(store: S) -> Self {
        Self {
            store,
            time: LEASE_TIME,
            step_time_max: STEP_TIME_MAX,
            retention: None,
            tracker: TaskTracker::new(),
        }
    }

    /// How long a holder is left alone that does not renew. Renewals come three times as often. At least a second is sensible:
    /// a pause longer than this costs the attempt. Less than 10 ms counts as 10 ms.
    #[must_use]
    pub fn lease_time(mut self, time: Duration) -> Self {
        self.time = time.max(LEASE_TIME_MIN);
        self
    }

    /// Longest time for the work of a [step](Lease::step) in a transaction. Default 5 min. It may be longer than the lease: nobody
    /// takes over while the step has the key's row.
    #[must_use]
    pub fn step_time_max(mut self, time: Duration) -> Self {
        self.step_time_max = time;
        self
    }

    /// Refuses keys that carry their own time (UUID version 7) and are older than what is kept.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Tracks the writes in progress: at shutdown, close it and wait for it.
    #[must_use]
    pub fn tracker(mut self, tracker: TaskTracker) -> Self {
        self.tracker = tracker;
        self
    }

    /// These leases with the layer's settings.
    #[cfg(feature = "axum")]
    pub(crate) fn of_layer(&self, retention: Option<Duration>, tracker: &TaskTracker) -> Self {
        Self {
            store: self.store.clone(),
            time: self.time,
            step_time_max: self.step_time_max,
            retention,
            tracker: tracker.clone(),
        }
    }

    #[cfg(feature = "axum")]
    pub(crate) fn settings(&self) -> (Option<Duration>, TaskTracker) {
        (self.retention, self.tracker.clone())
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Claims the key, takes it over, or says why not. `work` is what a [`Completer`](super::Completer) goes by if this
    /// attempt is its last.
    ///
    /// # Errors
    /// The store's, and [`ErrorKind::InvalidId`] for a handler's name over 255 bytes. After [`ErrorKind::Unavailable`] the key may be claimed by nobody who knows, until its lease is over.
    ///
    /// # Cancel safety
    /// Runs in a task; dropped before it is done, it releases what it has claimed.
    pub async fn claim(&self, claim: &Claim, work: &Work) -> Result<Claimed<S>, Error> {
        let claimed = self.find(claim, work).await?;
        telemetry::lease(match &claimed {
            Claimed::Run(lease) if lease.goes_on() => "taken_over",
            Claimed::Run(_) => "run",
            Claimed::Replay(_) => "replay",
            Claimed::InFlight { .. } => "in_flight",
            Claimed::Mismatch => "mismatch",
            Claimed::Unknown => "unknown",
            Claimed::Refused(_) => "refused",
        });
        Ok(claimed)
    }

    pub(super) async fn find(&self, claim: &Claim, work: &Work) -> Result<Claimed<S>, Error> {
        if work.handler.len() > HANDLER_BYTES_MAX {
            return Err(ErrorKind::InvalidId.into());
        }
        if let Some(age) = self.refusal(claim).await? {
            return Ok(Claimed::Refused(age));
        }
        match self.take(claim.clone(), work.clone()).await? {
            Taken::Ours { token, journal } => {
                let holder = Holder {
                    scope: claim.scope,
                    key: claim.key.clone(),
                    token,
                };
                Lease::new(
                    self.store.clone(),
                    holder,
                    self.time,
                    self.step_time_max,
                    &journal,
                    self.tracker.clone(),
                )
                .map(Claimed::Run)
            }
            Taken::InFlight { fingerprint, .. }
            | Taken::Done { fingerprint, .. }
            | Taken::Unknown { fingerprint }
                if !fingerprint.matches(&claim.fingerprint) =>
            {
                Ok(Claimed::Mismatch)
            }
            Taken::InFlight { left, .. } => Ok(Claimed::InFlight {
                retry_after: left.max(Duration::from_secs(1)),
            }),
            Taken::Done { recorded, .. } => Ok(Claimed::Replay(recorded)),
            Taken::Unknown { .. } => Ok(Claimed::Unknown),
        }
    }

    /// Lets the next attempt, or the completer, take up a key that is [`Unknown`](Claimed::Unknown), now that somebody has
    /// looked. A call that was begun and would act again makes it unknown again. `false` when the key is not unknown.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Cancel safety
    /// Runs in a task.
    pub async fn reopen(&self, scope: &Scope, key: &Key) -> Result<bool, Error> {
        let (store, scope, key) = (self.store.clone(), *scope, key.clone());
        let reopening = async move { store.reopen(&scope, &key).await };
        match self.tracker.spawn(reopening).await {
            Ok(done) => done,
            Err(error) => Err(Error::new(ErrorKind::Unavailable, error)),
        }
    }

    async fn take(&self, claim: Claim, work: Work) -> Result<Taken, Error> {
        let (store, time) = (self.store.clone(), self.time);
        let (tracker, runtime) = (self.tracker.clone(), Handle::current());
        let (answer, answered) = oneshot::channel();
        self.tracker.spawn(async move {
            let taken = store.claim(&claim, &work, time).await;
            let holder = match &taken {
                Ok(Taken::Ours { token, .. }) => Some(Holder {
                    scope: claim.scope,
                    key: claim.key,
                    token: token.clone(),
                }),
                _ => None,
            };
            let unclaimed = Unclaimed {
                store,
                holder,
                tracker,
                runtime,
            };
            // Whoever does not wait for it any more drops it: here, or in the channel.
            _ = answer.send((taken, unclaimed));
        });
        let (taken, unclaimed) = answered
            .await
            .map_err(|gone| Error::new(ErrorKind::Unavailable, gone))?;
        unclaimed.arrived();
        taken
    }

    /// Only keys that carry a time cost the two reads.
    async fn refusal(&self, claim: &Claim) -> Result<Option<Age>, Error> {
        let Some(retention) = self
            .retention
            .filter(|_| claim.key.created_at_ms().is_some())
        else {
            return Ok(None);
        };
        let (store, claim) = (self.store.clone(), claim.clone());
        let reading = async move {
            let age = claim
                .key
                .age(store.now_ms().await?, millis(retention), millis(SKEW_MAX));
            match age {
                Age::Fresh | Age::Unknown => Ok(None),
                // Known keys are answered, however old.
                _ if store.exists(&claim.scope, &claim.key).await? => Ok(None),
                age => Ok(Some(age)),
            }
        };
        match self.tracker.spawn(reading).await {
            Ok(done) => done,
            Err(error) => Err(Error::new(ErrorKind::Unavailable, error)),
        }
    }
}

/// A claim on its way to whoever asked for it: dropped on the way, it is released.
struct Unclaimed<S: LeasedStore> {
    store: S,
    holder: Option<Holder>,
    tracker: TaskTracker,
    runtime: Handle,
}

impl<S: LeasedStore> Unclaimed<S> {
    fn arrived(mut self) {
        self.holder = None;
    }
}

impl<S: LeasedStore> Drop for Unclaimed<S> {
    fn drop(&mut self) {
        let Some(holder) = self.holder.take() else {
            return;
        };
        let store = self.store.clone();
        let releasing = async move {
            if let Err(error) = store.release(&holder).await {
                tracing::debug!(%error, "a claim that nobody waited for was not released");
            }
        };
        self.tracker.spawn_on(releasing, &self.runtime);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
