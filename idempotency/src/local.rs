//! The Local protocol: claim, effects and record in one transaction. No lease, because nothing is visible before the
//! commit, and nothing remains of an attempt that dies before it.
//!
//! Every function here runs in a spawned task: none of their futures is cancel-safe.

use std::time::Duration;

use sqlx::{Pool, Transaction};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use crate::IdempotencyError;
use crate::key::{Age, SKEW_MAX};
use crate::store::{Claim, Claimed, IdempotencyDb, Inserted, roll_back, roll_back_cut_off, within};
use crate::{Error, ErrorKind, Fingerprint, Recorded, Wait};

/// As long as for ever: a deadline must be a time.
pub(crate) const A_YEAR: Duration = Duration::from_hours(365 * 24);

/// Between two waits of a database that waits by itself; for one that is told not to, it keeps the loop from spinning.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What the functions need to know about their surroundings.
pub(crate) struct Local<D: IdempotencyDb> {
    pub(crate) pool: Pool<D>,
    pub(crate) tracker: TaskTracker,
    /// How long the server lets the transaction sit without a statement, and this process waits for one.
    pub(crate) idle_max: Duration,
    /// What to do about a key that another process is working on.
    pub(crate) wait: Wait,
    /// When to claim the key.
    pub(crate) claiming: Claiming,
    /// Refuse keys older than this, when set.
    pub(crate) stale_after: Option<Duration>,
    /// How long to wait for the answer to a commit, and then again to look for its outcome.
    pub(crate) resolve_max: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claiming {
    /// Before anything runs.
    First,
    /// With the record, in the same statement: what ran for nothing is rolled back.
    #[cfg_attr(
        not(all(feature = "axum", feature = "postgres")),
        expect(dead_code, reason = "the layer's, on Postgres")
    )]
    Last,
}

/// What the key's record says.
pub(crate) enum Opened<D: IdempotencyDb> {
    /// Nothing yet: run in this transaction.
    Run(Transaction<'static, D>),
    Replay(Recorded),
}

/// What a key stands for, as seen by an attempt that has ended without an answer to keep.
#[cfg_attr(
    not(feature = "axum"),
    expect(dead_code, reason = "jobs claim their keys first")
)]
pub(crate) enum Standing {
    /// Nothing: the attempt had the key.
    Nothing,
    /// Nothing yet: another attempt may be at work.
    NotYet,
    Recorded(Recorded),
    /// Another request, or nobody knows.
    Refused(IdempotencyError),
}

/// What became of an answer.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Committed.
    Ours,
    /// Another attempt's answer stands; ours was rolled back.
    Theirs(Recorded),
}

impl<D: IdempotencyDb> Local<D> {
    /// Begins, with the key claimed or with its claim to come.
    pub(crate) async fn open(&self, claim: &Claim) -> Result<Opened<D>, IdempotencyError> {
        match self.claiming {
            Claiming::First => self.claim(claim).await,
            Claiming::Last => {
                let (pool, claim, idle_max) = (self.pool.clone(), claim.clone(), self.idle_max);
                let beginning = async move { D::begin_unclaimed(&pool, &claim, idle_max).await };
                let tx = within(&self.tracker, self.idle_max, beginning).await?;
                Ok(Opened::Run(tx))
            }
        }
    }

    /// Claims the key, or reads what it stands for.
    async fn claim(&self, claim: &Claim) -> Result<Opened<D>, IdempotencyError> {
        let since = Instant::now();
        let time = self.wait.time().unwrap_or_default();
        let (tx, claimed) = loop {
            let left = time.saturating_sub(since.elapsed());
            let (pool, claim_of, idle_max) = (self.pool.clone(), claim.clone(), self.idle_max);
            // Boxed where it is made: it is 15 KB, and would be moved by each of those who hand it on.
            let claiming = async move {
                Box::pin(D::begin_claim(&pool, &claim_of, idle_max, Wait::Up(left))).await
            };
            let patience = self.idle_max.saturating_add(left);
            let busy = match within(&self.tracker, patience, claiming).await {
                Ok(claimed) => break claimed,
                Err(busy) if busy.kind() == ErrorKind::Busy => busy,
                Err(error) => return Err(error.into()),
            };
            // The database has waited as long as it is configured to; whoever wants to wait longer asks once more.
            let again = since.elapsed() < time;
            match self.open_while_busy(claim, busy).await {
                Err(IdempotencyError::Store(busy)) if again && busy.kind() == ErrorKind::Busy => {
                    sleep(BUSY_PAUSE).await;
                }
                settled => return settled,
            }
        };
        match (self.decide(claim, claimed), tx) {
            (Ok(None), Some(tx)) => Ok(Opened::Run(tx)),
            (decided, tx) => {
                if let Some(tx) = tx {
                    self.roll_back(tx).await;
                }
                match decided? {
                    Some(recorded) => Ok(Opened::Replay(recorded)),
                    // No store says "fresh" without a transaction.
                    None => Err(Error::from(ErrorKind::TransactionEnded).into()),
                }
            }
        }
    }

    pub(crate) async fn roll_back(&self, tx: Transaction<'static, D>) {
        roll_back(&self.tracker, tx).await;
    }

    /// When a statement of `tx` may have been dropped half way.
    pub(crate) async fn roll_back_cut_off(&self, tx: Transaction<'static, D>) {
        roll_back_cut_off(&self.tracker, &self.pool, tx).await;
    }

    /// What is recorded under the key, for this request.
    async fn lookup(
        &self,
        claim: &Claim,
        patience: Duration,
    ) -> Result<Option<Recorded>, IdempotencyError> {
        let (pool, of) = (self.pool.clone(), claim.clone());
        let reading = async move { D::lookup(&pool, &of.scope, &of.key).await };
        match within(&self.tracker, patience, reading).await? {
            Some((fingerprint, recorded)) => {
                of_this_request(claim, fingerprint, recorded).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The writer's place is taken, perhaps by this very key. A record can be read past the writer; without one only
    /// "later" is true.
    async fn open_while_busy(
        &self,
        claim: &Claim,
        busy: Error,
    ) -> Result<Opened<D>, IdempotencyError> {
        match self.lookup(claim, self.idle_max).await? {
            Some(recorded) => Ok(Opened::Replay(recorded)),
            None => Err(busy.into()),
        }
    }

    /// Mismatch before in-flight: a client that reuses a key learns so at once, not after asking again.
    fn decide(
        &self,
        claim: &Claim,
        claimed: Claimed,
    ) -> Result<Option<Recorded>, IdempotencyError> {
        match claimed {
            Claimed::Recorded {
                fingerprint,
                recorded,
            } => of_this_request(claim, fingerprint, recorded).map(Some),
            Claimed::OtherInFlight => Err(IdempotencyError::KeyReused),
            Claimed::InFlight => Err(IdempotencyError::KeyInFlight),
            Claimed::Fresh { now_ms } => self.check_age(claim, now_ms).map(|()| None),
        }
    }

    /// By the database's clock.
    fn check_age(&self, claim: &Claim, now_ms: u64) -> Result<(), IdempotencyError> {
        let Some(retention) = self.stale_after else {
            return Ok(());
        };
        match claim.key.age(now_ms, millis(retention), millis(SKEW_MAX)) {
            Age::Fresh | Age::Unknown => Ok(()),
            Age::Expired => Err(IdempotencyError::KeyExpired),
            Age::FromTheFuture => Err(IdempotencyError::KeyFromTheFuture),
        }
    }

    /// Commits effects and record together.
    pub(crate) async fn commit(
        &self,
        tx: Transaction<'static, D>,
        claim: &Claim,
        recorded: &Recorded,
    ) -> Result<Kept, IdempotencyError> {
        self.commit_after(self.claiming, tx, claim, recorded).await
    }

    async fn commit_after(
        &self,
        claiming: Claiming,
        mut tx: Transaction<'static, D>,
        claim: &Claim,
        recorded: &Recorded,
    ) -> Result<Kept, IdempotencyError> {
        let inserting = async {
            match claiming {
                Claiming::First => Ok(D::record(&mut tx, claim, recorded).await?),
                Claiming::Last => self.claim_and_record(&mut tx, claim, recorded).await,
            }
        };
        // Dropped when it takes too long, as a handler's statement is: what follows is a rollback.
        match timeout(self.idle_max, inserting).await {
            Ok(Ok(Inserted::Stored)) => {}
            Ok(Ok(Inserted::Taken)) => {
                self.roll_back(tx).await;
                return self.theirs(claim).await;
            }
            Ok(Err(refusal)) => {
                self.roll_back(tx).await;
                return Err(refusal);
            }
            Err(elapsed) => {
                self.roll_back_cut_off(tx).await;
                return Err(Error::new(ErrorKind::Unavailable, elapsed).into());
            }
        }
        let committing = async move { D::commit(tx).await };
        match within(&self.tracker, self.resolve_max, committing).await {
            Ok(()) => Ok(Kept::Ours),
            Err(lost) if lost.kind() == ErrorKind::Unavailable => {
                self.resolve(claim, recorded, lost).await
            }
            Err(refused) => Err(refused.into()),
        }
    }

    async fn claim_and_record(
        &self,
        tx: &mut Transaction<'static, D>,
        claim: &Claim,
        recorded: &Recorded,
    ) -> Result<Inserted, IdempotencyError> {
        match D::claim_and_record(tx, claim, recorded, self.idle_max).await {
            Ok((Inserted::Stored, now_ms)) => {
                self.check_age(claim, now_ms).map(|()| Inserted::Stored)
            }
            Ok((Inserted::Taken, _)) => Ok(Inserted::Taken),
            // Somebody else has the key, or this one was in the way of who has.
            Err(busy) if busy.kind() == ErrorKind::Busy => Err(IdempotencyError::KeyInFlight),
            Err(error) => Err(error.into()),
        }
    }

    /// Rolls the effects back, then records the answer in a transaction of its own.
    ///
    /// The key is free in between, so it is claimed again; an attempt that took it meanwhile wins. Paid only by
    /// refusals: a savepoint would cost every success a round trip.
    #[cfg_attr(
        not(feature = "axum"),
        expect(dead_code, reason = "jobs have no refusals to record")
    )]
    pub(crate) async fn record_without_effects(
        &self,
        tx: Transaction<'static, D>,
        claim: &Claim,
        recorded: &Recorded,
    ) -> Result<Kept, IdempotencyError> {
        self.roll_back(tx).await;
        match self.claim(claim).await? {
            Opened::Run(tx) => {
                self.commit_after(Claiming::First, tx, claim, recorded)
                    .await
            }
            Opened::Replay(recorded) => Ok(Kept::Theirs(recorded)),
        }
    }

    /// What the key stands for, where an attempt has ended without an answer to keep. One that had claimed its key knows that
    /// there is nothing; one that had not may have failed because another one's effects are there.
    #[cfg_attr(
        not(feature = "axum"),
        expect(dead_code, reason = "jobs claim their keys first")
    )]
    pub(crate) async fn standing(&self, claim: &Claim) -> Standing {
        if self.claiming == Claiming::First {
            return Standing::Nothing;
        }
        match self.lookup(claim, self.resolve_max).await {
            Ok(Some(recorded)) => Standing::Recorded(recorded),
            Ok(None) => Standing::NotYet,
            Err(refusal) => Standing::Refused(unknown_if_unread(refusal)),
        }
    }

    /// The unique index refused our record, so another one is committed.
    async fn theirs(&self, claim: &Claim) -> Result<Kept, IdempotencyError> {
        match self.lookup(claim, self.idle_max).await {
            Ok(Some(recorded)) => Ok(Kept::Theirs(recorded)),
            // Reaped between the two statements, which no sane retention does.
            Ok(None) => Err(IdempotencyError::KeyInFlight),
            Err(refusal) => Err(unknown_if_unread(refusal)),
        }
    }

    /// COMMIT was sent and no answer came, be it that the connection broke or that there is only silence. Whether it happened is written in the database: claim the key again on
    /// another connection. A record is the answer. A fresh claim is one too: the old transaction's lock is gone, so
    /// that transaction has ended, and left nothing.
    async fn resolve(
        &self,
        claim: &Claim,
        recorded: &Recorded,
        lost: Error,
    ) -> Result<Kept, IdempotencyError> {
        tracing::warn!(key = ?claim.key, error = %Chain(&lost), "commit unanswered, reading the key again");
        let now = Instant::now();
        let deadline = now.checked_add(self.resolve_max).unwrap_or(now + A_YEAR);
        let mut pause = Duration::from_millis(20);
        loop {
            // In a task, because a begin must not be dropped half way.
            let look =
                self.tracker
                    .spawn(look::<D>(self.pool.clone(), claim.clone(), self.idle_max));
            match timeout_at(deadline, look).await {
                Ok(Ok(Ok(Claimed::Recorded {
                    fingerprint,
                    recorded: found,
                }))) => {
                    // The request before the words: another request may have been answered with the same ones.
                    return if !fingerprint.matches(&claim.fingerprint) {
                        Err(IdempotencyError::KeyReused)
                    } else if found == *recorded {
                        Ok(Kept::Ours)
                    } else {
                        Ok(Kept::Theirs(found))
                    };
                }
                Ok(Ok(Ok(Claimed::Fresh { .. }))) => return Err(IdempotencyError::Store(lost)),
                Ok(Ok(Ok(Claimed::InFlight | Claimed::OtherInFlight) | Err(_)) | Err(_)) => {}
                Err(_) => return Err(IdempotencyError::OutcomeUnknown(lost)),
            }
            if Instant::now() + pause >= deadline {
                return Err(IdempotencyError::OutcomeUnknown(lost));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

/// A record's answer is for its own request only.
fn of_this_request(
    claim: &Claim,
    fingerprint: Fingerprint,
    recorded: Recorded,
) -> Result<Recorded, IdempotencyError> {
    if fingerprint.matches(&claim.fingerprint) {
        Ok(recorded)
    } else {
        Err(IdempotencyError::KeyReused)
    }
}

/// Where there may be a record, one that could not be read leaves open what the key stands for.
fn unknown_if_unread(refusal: IdempotencyError) -> IdempotencyError {
    match refusal {
        IdempotencyError::Store(error) => IdempotencyError::OutcomeUnknown(error),
        other => other,
    }
}

async fn look<D: IdempotencyDb>(
    pool: Pool<D>,
    claim: Claim,
    idle_max: Duration,
) -> Result<Claimed, Error> {
    let (tx, claimed) = claim_in_tx(pool, claim, idle_max, Wait::No).await?;
    D::rollback(tx).await;
    Ok(claimed)
}

async fn claim_in_tx<D: IdempotencyDb>(
    pool: Pool<D>,
    claim: Claim,
    idle_max: Duration,
    wait: Wait,
) -> Result<(Transaction<'static, D>, Claimed), Error> {
    let mut tx = D::begin(&pool).await?;
    match D::claim(&mut tx, &claim, idle_max, wait).await {
        Ok(claimed) => Ok((tx, claimed)),
        Err(error) => {
            D::rollback(tx).await;
            Err(error)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error with its causes, for the log only.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
