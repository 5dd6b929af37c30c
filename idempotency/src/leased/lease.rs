//! One attempt's hold on a key.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Pool;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::journal::{self, Journal, Progress};
use super::{DerivedKey, Holder, LeasedDb, LeasedStore, derived_key};
use crate::codec::{self, Codec};
use crate::on_commit::OnCommit;
use crate::tx::{Returned, Slot};
use crate::{Error, ErrorKind, IdemTx, Recorded, telemetry};

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

/// What a remote system does with a request that it has seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// It knows the derived key, and answers again: the call is repeated after a crash.
    HonoursKey,
    /// It acts again: a call that was begun and not finished is never repeated, and the key becomes unknown.
    ActsAgain,
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

    fn keep_renewed(&self) {
        let (store, holder, time) = (self.store.clone(), self.holder.clone(), self.time);
        let (in_step, fenced) = (Arc::clone(&self.in_step), self.fenced.clone());
        let ended = self.ended.clone();
        // Not tracked: it must not hold up a shutdown that waits for work.
        tokio::spawn(async move {
            while ended
                .run_until_cancelled(tokio::time::sleep(time / 3))
                .await
                .is_some()
            {
                if in_step.load(Ordering::SeqCst) {
                    continue;
                }
                // One that hangs is left behind, in its task: the next may come through on another connection.
                let renewing = tokio::spawn({
                    let (store, holder) = (store.clone(), holder.clone());
                    async move { store.renew(&holder, time).await }
                });
                match timeout(time / 3, renewing).await {
                    Ok(Ok(Ok(true))) => {}
                    Ok(Ok(Ok(false))) if ended.is_cancelled() => return,
                    Ok(Ok(Ok(false))) => {
                        tracing::warn!(key = ?holder.key, "lease lost: another attempt has taken over");
                        return fenced.cancel();
                    }
                    // The next third may go better; if none does, the token decides.
                    Ok(Ok(Err(error))) => {
                        tracing::warn!(key = ?holder.key, %error, "lease not renewed");
                    }
                    Ok(Err(_)) | Err(_) => {
                        tracing::warn!(key = ?holder.key, "lease not renewed: no answer");
                    }
                }
            }
        });
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

    /// Calls a remote system under a derived key, once or, if it [honours](Remote::HonoursKey) the key, until it has
    /// answered. What `work` returns is kept as JSON, and given again to later attempts instead of calling.
    ///
    /// That the call is about to be made is committed before it is made. An `Err` leaves open whether it took effect, as a
    /// crash does; an answer that means "no" is a result like any other: return it as `Ok`.
    ///
    /// # Errors
    /// Every [`LeaseError`].
    ///
    /// # Cancel safety
    /// A drop is a crash: the call counts as begun.
    pub async fn call<T, E, F, Fut>(
        &mut self,
        step: &str,
        remote: Remote,
        work: F,
    ) -> Result<T, LeaseError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(DerivedKey) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let called = self.call_once(step, remote, work).await;
        self.unsettled |= matches!(called, Err(LeaseError::Store(_)));
        called
    }

    async fn call_once<T, E, F, Fut>(
        &mut self,
        step: &str,
        remote: Remote,
        work: F,
    ) -> Result<T, LeaseError<E>>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(DerivedKey) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        match self.journal.get(step) {
            Some(Progress::Finished(result)) => return parse(result),
            Some(Progress::Started) if remote == Remote::ActsAgain => {
                self.write(|store, holder| async move { store.lose(&holder).await })
                    .await?;
                telemetry::lease("lost");
                return Err(LeaseError::Unknown);
            }
            Some(Progress::Started) => {}
            None => {
                self.begun = true;
                self.append(journal::started(step).ok_or_else(|| not_kept(step))?)
                    .await?;
                self.journal.note(step.to_owned(), Progress::Started);
            }
        }
        let result = work(self.derived_key(step))
            .await
            .map_err(LeaseError::Step)?;
        let json = to_json(&result)?;
        self.append(journal::finished(step, &json).ok_or_else(|| not_kept(step))?)
            .await?;
        self.journal.note(step.to_owned(), Progress::Finished(json));
        Ok(result)
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

impl<D: LeasedDb> Lease<Pool<D>> {
    /// Runs `work` in a transaction of its own, once for all attempts, and keeps what it returns as JSON: later attempts
    /// get that instead.
    ///
    /// The transaction begins by locking the key's row and checking the token, and ends by noting the step, so its
    /// effects and the note are one, and no attempt that was taken over has any. It runs in a task of its own. Whoever
    /// wants to take over meanwhile is told that the key is in flight. A transaction that sits for as long as the lease
    /// without a statement is ended by the server, on Postgres and MySQL; `work` that takes longer than
    /// [`Leases::step_time_max`](super::Leases::step_time_max) is dropped and rolled back, on every database.
    ///
    /// For a remote system use [`call`](Self::call): in here its effect would come before the commit.
    ///
    /// # Errors
    /// Every [`LeaseError`]. A commit whose answer is lost is resolved by reading the key again.
    ///
    /// # Panics
    /// With the panic of `work`, after the rollback.
    ///
    /// # Cancel safety
    /// A drop does not stop the step: the next attempt finds it done, or in flight; and so does this one, which waits for it.
    pub async fn step<T, E, F, Fut>(&mut self, step: &str, work: F) -> Result<T, LeaseError<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + 'static,
        F: FnOnce(IdemTx<D>, DerivedKey) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        if let Some(Progress::Finished(result)) = self.journal.get(step) {
            return parse(result);
        }
        self.begun = true;
        let running = run_step(
            self.store.clone(),
            self.holder.clone(),
            step.to_owned(),
            (self.time, self.step_time_max),
            self.derived_key(step),
            InStep::enter(&self.in_step),
            work,
        );
        let on_commit = self.on_commit.clone();
        let running = async move { running.await.inspect(|_| on_commit.call()) };
        let done = match self.tracker.spawn(running).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(error) => Err(Error::new(ErrorKind::Unavailable, error).into()),
            },
        };
        self.unsettled |= matches!(done, Err(LeaseError::Store(_) | LeaseError::TimedOut));
        let (result, json) = done?;
        self.journal.note(step.to_owned(), Progress::Finished(json));
        Ok(result)
    }
}

async fn run_step<D, T, E, F, Fut>(
    pool: Pool<D>,
    holder: Holder,
    step: String,
    (lease, time_max): (Duration, Duration),
    derived: DerivedKey,
    _in_step: InStep,
    work: F,
) -> Result<(T, Vec<u8>), LeaseError<E>>
where
    D: LeasedDb,
    T: Serialize + DeserializeOwned,
    F: FnOnce(IdemTx<D>, DerivedKey) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut tx = D::begin(&pool).await?;
    match D::lease_guard(&mut tx, &holder, lease).await {
        Ok(Some(journal)) => {
            // This attempt may have done it already: a commit whose answer was lost, or a caller that left.
            let done = match Journal::decode(&journal) {
                Some(journal) => journal.get(&step).and_then(Progress::finished),
                None => {
                    D::rollback(tx).await;
                    return Err(Error::from(ErrorKind::Corrupt).into());
                }
            };
            if let Some(json) = done {
                D::rollback(tx).await;
                return Ok((parse(&json)?, json));
            }
        }
        Ok(None) => {
            D::rollback(tx).await;
            telemetry::lease("fenced");
            return Err(LeaseError::Fenced);
        }
        Err(error) => {
            D::rollback(tx).await;
            return Err(error.into());
        }
    }
    let slot = Slot::ready(&pool, tx);
    let done = match slot.lend().await? {
        Some(lent) => {
            let working = AssertUnwindSafe(async { work(lent, derived).await }).catch_unwind();
            timeout(time_max, working).await
        }
        None => return Err(Error::from(ErrorKind::TransactionEnded).into()),
    };
    let Returned::Tx(mut tx) = slot.close() else {
        return Err(Error::from(ErrorKind::TransactionEnded).into());
    };
    let result = match done {
        Ok(Ok(Ok(result))) => result,
        Ok(Ok(Err(failed))) => {
            D::rollback(tx).await;
            return Err(LeaseError::Step(failed));
        }
        Ok(Err(panic)) => {
            D::rollback_cut_off(&pool, tx).await;
            resume_unwind(panic);
        }
        Err(_elapsed) => {
            D::rollback_cut_off(&pool, tx).await;
            return Err(LeaseError::TimedOut);
        }
    };
    let entry = to_json(&result).and_then(|json| {
        let entry = journal::finished(&step, &json).ok_or_else(|| not_kept(&step))?;
        Ok((json, entry))
    });
    let noted = async {
        let (json, entry) = entry?;
        D::check_open(&mut tx).await?;
        if D::lease_append(&mut tx, &holder, &entry, lease).await? {
            Ok(json)
        } else {
            Err(LeaseError::Fenced)
        }
    }
    .await;
    let json = match noted {
        Ok(json) => json,
        Err(error) => {
            D::rollback(tx).await;
            return Err(error);
        }
    };
    match D::commit(tx).await {
        Ok(()) => Ok((result, json)),
        Err(lost) if lost.kind() == ErrorKind::Unavailable => {
            resolve(&pool, &holder, &step, lease, lost).await?;
            Ok((result, json))
        }
        Err(refused) => Err(refused.into()),
    }
}

/// The commit's answer is lost. The row's lock tells when the transaction is over, and the journal how it ended.
async fn resolve<D: LeasedDb, E>(
    pool: &Pool<D>,
    holder: &Holder,
    step: &str,
    lease: Duration,
    lost: Error,
) -> Result<(), LeaseError<E>> {
    tracing::warn!(key = ?holder.key, step, error = %lost, "commit unanswered, reading the key again");
    let Ok(mut tx) = D::begin(pool).await else {
        return Err(lost.into());
    };
    let found = D::lease_guard(&mut tx, holder, lease).await;
    D::rollback(tx).await;
    match found {
        Ok(None) => Err(LeaseError::Fenced),
        Ok(Some(journal)) => match Journal::decode(&journal).as_ref().and_then(|j| j.get(step)) {
            Some(Progress::Finished(_)) => Ok(()),
            _ => Err(lost.into()),
        },
        Err(_) => Err(lost.into()),
    }
}

/// Says that a step holds the row, for as long as it lives.
struct InStep(Arc<AtomicBool>);

impl InStep {
    fn enter(flag: &Arc<AtomicBool>) -> Self {
        flag.store(true, Ordering::SeqCst);
        Self(Arc::clone(flag))
    }
}

impl Drop for InStep {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

fn to_json<E>(result: &impl Serialize) -> Result<Vec<u8>, LeaseError<E>> {
    serde_json::to_vec(result).map_err(|error| LeaseError::NotKept(error.to_string().into()))
}

fn parse<T: DeserializeOwned, E>(json: &[u8]) -> Result<T, LeaseError<E>> {
    serde_json::from_slice(json).map_err(|error| LeaseError::NotKept(error.to_string().into()))
}

fn not_kept<E>(step: &str) -> LeaseError<E> {
    LeaseError::NotKept(step.chars().take(64).collect::<String>().into())
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
