//! Steps at remote systems: that one is about to be made is noted before it is, and its answer after.

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::kept::{not_kept, parse, to_json};
use super::{Lease, LeaseError};
use crate::leased::journal::{self, Progress};
use crate::leased::{DerivedKey, LeasedStore};
use crate::telemetry;

/// What a remote system does with a request that it has seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// It knows the derived key, and answers again: the call is repeated after a crash.
    HonoursKey,
    /// It acts again: a call that was begun and not finished is never repeated, and the key becomes unknown.
    ActsAgain,
}

impl<S: LeasedStore> Lease<S> {
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
}
