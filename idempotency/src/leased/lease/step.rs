//! Steps in this database: a transaction that locks the key, does the work and notes it, as one.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Pool;
use tokio::time::timeout;

use super::kept::{not_kept, parse, to_json};
use super::{Lease, LeaseError};
use crate::leased::journal::{self, Journal, Progress};
use crate::leased::{DerivedKey, Holder, LeasedDb};
use crate::tx::{Returned, Slot};
use crate::{Error, ErrorKind, IdemTx, telemetry};

impl<D: LeasedDb> Lease<Pool<D>> {
    /// Runs `work` in a transaction of its own, once for all attempts, and keeps what it returns as JSON: later attempts
    /// get that instead.
    ///
    /// The transaction begins by locking the key's row and checking the token, and ends by noting the step, so its
    /// effects and the note are one, and no attempt that was taken over has any. It runs in a task of its own. Whoever
    /// wants to take over meanwhile is told that the key is in flight. A transaction that sits for as long as the lease
    /// without a statement is ended by the server, on Postgres and MySQL; `work` that takes longer than
    /// [`Leases::step_time_max`](crate::leased::Leases::step_time_max) is dropped and rolled back, on every database.
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
