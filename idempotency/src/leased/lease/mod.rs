//! One attempt's hold on a key.

mod call;
mod kept;
mod renewal;
mod step;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::call::Remote;
use super::journal::Journal;
use super::{DerivedKey, Holder, LeasedStore, derived_key};
use crate::codec::{self, Codec};
use crate::on_commit::OnCommit;
use crate::{Error, ErrorKind, Recorded, telemetry};

/// The right to work on a key, until it is [completed](Self::complete), [released](Self::release) or taken over.
///
/// A task renews it at every third of its time. When this process stops, be it for good or for a while, nobody does, and
/// another attempt may take over; from then on every method here fails with [`LeaseError::Fenced`] and has no effect.
///
/// Dropped, it is not released: what a handler left undone when it was cut off, nobody knows. The next attempt comes when
/// the lease is over.
pub struct Lease<S: LeasedStore> {
    store: S,
    holder: Holder,
    time: Duration,
    journal: Journal,
    step_time_max: Duration,
    /// Set while a step's own transaction holds the row: nobody can take over, and a renewal would only wait.
    in_step: Arc<AtomicBool>,
    fenced: CancellationToken,
    /// Cancelled by the drop: ends the renewal.
    ended: CancellationToken,
    since: Instant,
    tracker: TaskTracker,
    /// Whether this attempt may have begun a step.
    begun: bool,
    /// Whether the store left one of its steps unanswered, or one took too long.
    unsettled: bool,
    on_commit: OnCommit,
}

/// Why a step is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError<E> {
    /// Another attempt has taken over. Nothing of the step was committed; stop.
    #[error("another attempt has taken over")]
    Fenced,
    /// A remote step was begun by an earlier attempt, and the remote would act again. The key is unknown from now on.
    #[error("whether a remote step took effect is not known")]
    Unknown,
    /// The store failed. Whether a step that was about to be noted is noted, the next attempt learns.
    #[error(transparent)]
    Store(#[from] Error),
    /// The step's name is empty or over 255 bytes, or its result is over 64 KiB as JSON, or no JSON of its type.
    #[error("a step's name or result cannot be kept: {0}")]
    NotKept(Box<str>),
    /// The step took longer than [`Leases::step_time_max`](super::Leases::step_time_max) and was rolled back.
    #[error("the step took longer than it may")]
    TimedOut,
    /// The step's own error. A step in a transaction was rolled back.
    #[error("the step failed")]
    Step(E),
}

impl<S: LeasedStore> Lease<S> {
    pub(super) fn new(
        store: S,
        holder: Holder,
        time: Duration,
        step_time_max: Duration,
        journal: &[u8],
        tracker: TaskTracker,
    ) -> Result<Self, Error> {
        let lease = Self {
            store,
            holder,
            time,
            step_time_max,
            journal: Journal::decode(journal).ok_or(ErrorKind::Corrupt)?,
            in_step: Arc::default(),
            fenced: CancellationToken::new(),
            ended: CancellationToken::new(),
            since: Instant::now(),
            tracker,
            begun: false,
            unsettled: false,
            on_commit: OnCommit::default(),
        };
        lease.keep_renewed();
        Ok(lease)
    }

    /// Whether an attempt before this one has left steps.
    pub(super) fn goes_on(&self) -> bool {
        !self.journal.is_empty()
    }

    /// Whether no attempt, this one included, can have begun a step: given back now, the key is as if it had never come.
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "the layer's"))]
    pub(crate) fn is_untouched(&self) -> bool {
        self.journal.is_empty() && !self.begun
    }

    /// Whether the store left a step unanswered, or one took too long, so that the work may have an answer that speaks of this attempt only.
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "the layer's"))]
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// What to tell of each step that commits.
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "the layer's"))]
    pub(crate) fn on_commit(&mut self, hook: OnCommit) {
        self.on_commit = hook;
    }

    /// The key, and the token that proves the hold on it. A remote that can compare tokens may be sent it.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The key to send downstream for `step`.
    pub fn derived_key(&self, step: &str) -> DerivedKey {
        derived_key(&self.holder.scope, &self.holder.key, step)
    }

    /// Completes when a renewal finds that another attempt has taken over. For work between steps that is worth cutting
    /// short; nothing depends on it.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn fenced(&self) {
        self.fenced.cancelled().await;
    }

    /// Records the answer: from now on the key is replayed.
    ///
    /// A statement of its own, also behind a step in a transaction: most answers are made after the last step, by a layer, of what
    /// the handler returns; and a recording that goes unanswered is repeated, which a transaction with effects in it cannot be.
    ///
    /// # Errors
    /// [`LeaseError::Fenced`] and [`LeaseError::Store`]; after the latter the answer may be recorded.
    ///
    /// # Cancel safety
    /// Runs in a task of its own: a drop does not stop it.
    pub async fn complete(self, recorded: Recorded) -> Result<(), LeaseError<Infallible>> {
        self.record(recorded).await
    }

    /// The answer as a layer or jobs with this codec have it stored, to [complete](Self::complete) with: for handlers of a
    /// [`Completer`](super::Completer).
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the codec cannot seal, or the headers are too large.
    pub fn sealed(&self, codec: &dyn Codec, recorded: Recorded) -> Result<Recorded, Error> {
        codec::seal(Some(codec), &self.holder.scope, &self.holder.key, recorded)
    }

    /// As [`complete`](Self::complete), and may be said again: the token keeps a second time from doing anything.
    pub(super) async fn record(&self, recorded: Recorded) -> Result<(), LeaseError<Infallible>> {
        self.write(|store, holder| async move { store.complete(&holder, &recorded).await })
            .await
    }

    /// Gives the key back. If no step is done or begun it is free again, for any request; else the next attempt goes on
    /// behind them, at once.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    ///
    /// # Cancel safety
    /// As [`complete`](Self::complete).
    pub async fn release(self) -> Result<(), LeaseError<Infallible>> {
        self.write(|store, holder| async move { store.release(&holder).await })
            .await
    }

    /// Says that nobody knows what this attempt did. The key is neither run nor replayed until [`Leases::reopen`](super::Leases::reopen).
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    ///
    /// # Cancel safety
    /// As [`complete`](Self::complete).
    pub async fn lose(self) -> Result<(), LeaseError<Infallible>> {
        self.write(|store, holder| async move { store.lose(&holder).await })
            .await
    }

    async fn append<E>(&self, entry: Vec<u8>) -> Result<(), LeaseError<E>> {
        let time = self.time;
        self.write(move |store, holder| async move { store.append(&holder, &entry, time).await })
            .await
    }

    /// Runs one of the store's conditional writes where a drop cannot cut it off.
    async fn write<E, Fut>(&self, write: impl FnOnce(S, Holder) -> Fut) -> Result<(), LeaseError<E>>
    where
        Fut: Future<Output = Result<bool, Error>> + Send + 'static,
    {
        let writing = write(self.store.clone(), self.holder.clone());
        match self.tracker.spawn(writing).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                telemetry::lease("fenced");
                Err(LeaseError::Fenced)
            }
            Ok(Err(error)) => Err(LeaseError::Store(error)),
            Err(error) => Err(LeaseError::Store(Error::new(ErrorKind::Unavailable, error))),
        }
    }
}

impl<S: LeasedStore> Drop for Lease<S> {
    fn drop(&mut self) {
        self.ended.cancel();
        telemetry::lease_age(self.since.elapsed());
    }
}

impl<S: LeasedStore> std::fmt::Debug for Lease<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}
