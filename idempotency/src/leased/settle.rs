//! The end of an attempt, for whoever answers for it: what became of the answer, also when the store does not say.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answer::unknown;
use super::{Claimed, Lease, LeaseError, LeasedStore, Leases, Work};
use crate::local::{A_YEAR, Chain, Kept};
use crate::store::Claim;
use crate::{Error, ErrorKind, IdempotencyError, Recorded};

/// How long the end of an attempt waits for its key to be given back: a step that goes on may hold it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// What became of a key that was to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenBack {
    /// It is free, or to be taken over at once.
    Given,
    /// Another attempt has taken over.
    Fenced,
    /// The store did not say. If it is not given back, it is free when its lease is over, or a completer takes it up.
    NotKnown,
}

impl<S: LeasedStore> Leases<S> {
    /// Records the answer. A store that does not say whether it did is told again for `patience`, which the token makes
    /// harmless; and when the token is no longer the key's, what is known of the key is the answer.
    ///
    /// [`IdempotencyError::Store`] is the store's word that it cannot record it.
    pub(crate) async fn record(
        &self,
        lease: &Lease<S>,
        claim: &Claim,
        recorded: &Recorded,
        patience: Duration,
    ) -> Result<Kept, IdempotencyError> {
        let now = Instant::now();
        let deadline = now.checked_add(patience).unwrap_or(now + A_YEAR);
        let mut pause = Duration::from_millis(20);
        loop {
            let lost = match timeout_at(deadline, lease.record(recorded.clone())).await {
                Ok(Ok(())) => return Ok(Kept::Ours),
                Ok(Err(LeaseError::Store(lost))) => lost,
                Ok(Err(_fenced)) => return self.of_another(claim, Some(recorded), patience).await,
                Err(elapsed) => Error::new(ErrorKind::Unavailable, elapsed),
            };
            if !matches!(lost.kind(), ErrorKind::Unavailable | ErrorKind::Busy) {
                return Err(lost.into());
            }
            if Instant::now() + pause >= deadline {
                return Err(IdempotencyError::OutcomeUnknown(lost));
            }
            tracing::warn!(key = ?claim.key, error = %Chain(&lost), "whether the answer is recorded is not known, recording it again");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// What the key stands for, to an attempt that no longer has it. `mine` may have been recorded all the same: the store's
    /// word that it was had been lost.
    pub(crate) async fn of_another(
        &self,
        claim: &Claim,
        mine: Option<&Recorded>,
        patience: Duration,
    ) -> Result<Kept, IdempotencyError> {
        // Without a handler's name: whoever is to take it up stays as it is.
        let found = match timeout(patience, self.find(claim, &Work::default())).await {
            Ok(found) => found.map_err(IdempotencyError::OutcomeUnknown)?,
            Err(elapsed) => return Err(unknown(elapsed)),
        };
        match found {
            Claimed::Replay(found) if mine == Some(&found) => Ok(Kept::Ours),
            Claimed::Replay(found) => Ok(Kept::Theirs(found)),
            Claimed::Run(lease) => {
                _ = lease.give_back().await;
                Err(IdempotencyError::KeyInFlight)
            }
            Claimed::Mismatch => Err(IdempotencyError::KeyReused),
            Claimed::Unknown => Err(unknown("a remote step of another attempt")),
            Claimed::InFlight { .. } | Claimed::Refused(_) => Err(IdempotencyError::KeyInFlight),
        }
    }
}

impl<S: LeasedStore> Lease<S> {
    /// [Releases](Self::release), and waits a moment for it. What cannot be given back is free when the lease is over.
    pub(crate) async fn give_back(self) -> GivenBack {
        let key = self.holder().key.clone();
        match timeout(RELEASE_PATIENCE, self.release()).await {
            Ok(Ok(())) => GivenBack::Given,
            Ok(Err(LeaseError::Fenced)) => GivenBack::Fenced,
            Ok(Err(error)) => {
                tracing::warn!(?key, %error, "not given back: it is free when its lease is over");
                GivenBack::NotKnown
            }
            Err(_elapsed) => GivenBack::NotKnown,
        }
    }
}
