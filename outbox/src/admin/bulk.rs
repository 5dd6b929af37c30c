//! Changes to many messages: in batches, at a pace, each batch atomic.

use std::{fmt, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{Admin, Filter};
use crate::{
    error::Error,
    store::{Entry, OutboxDb, Select, Step, Stepped},
};

/// Which messages to change, how many of them and how fast. A [`Filter`] becomes one with the defaults.
#[must_use]
pub struct Bulk {
    filter: Filter,
    limit: Option<u64>,
    per_second: u32,
    progress: Progress,
}

type Progress = Option<Box<dyn FnMut(u64) + Send>>;

/// What [`Admin::discard`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discarded {
    /// Letters deleted.
    pub discarded: u64,
    /// Letters put back because nothing of their key stood before them any more.
    pub released: u64,
}

impl Bulk {
    /// The most messages of one batch: while it is moved, the relays wait for its lanes.
    const BATCH_MAX: u32 = 1_000;

    /// All that the filter means, a thousand a second: a thundering herd is not what a mended sink needs.
    pub fn of(filter: Filter) -> Self {
        Self {
            filter,
            limit: None,
            per_second: 1_000,
            progress: None,
        }
    }

    /// At most this many.
    pub fn limit(mut self, messages: u64) -> Self {
        self.limit = Some(messages);
        self
    }

    /// About this many a second, in ten batches if a batch of a thousand is enough for that. Default 1000, at least 1.
    pub fn per_second(mut self, messages: u32) -> Self {
        self.per_second = messages.max(1);
        self
    }

    /// Called after each batch with the messages changed so far. It should be quick.
    pub fn on_progress(mut self, progress: impl FnMut(u64) + Send + 'static) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }
}

impl From<Filter> for Bulk {
    fn from(filter: Filter) -> Self {
        Self::of(filter)
    }
}

impl fmt::Debug for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk")
            .field("filter", &self.filter)
            .field("limit", &self.limit)
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}

/// How large batches are, and how far apart, to make so many a second.
fn pace(per_second: u32) -> (u32, Duration) {
    let batch = per_second.div_ceil(10).clamp(1, Bulk::BATCH_MAX);
    let apart = Duration::from_secs(1).saturating_mul(batch) / per_second.max(1);
    (batch, apart)
}

#[derive(Clone, Copy)]
enum Change {
    Redrive,
    Discard,
    Replay,
}

impl<Db: OutboxDb> Admin<Db> {
    /// Brings dead letters back with their attempts forgotten, the oldest first, and says how many.
    ///
    /// They return to their old places, so among themselves, and before later messages of their keys that have not been
    /// delivered yet, they are in order. Later messages that were delivered meanwhile were, of course, earlier. Their
    /// ids are the old ones: a consumer's deduplication window decides whether it sees them as new.
    ///
    /// Of a parked key a letter goes only when no earlier one stays: [`discard`](Self::discard) what shall never go. The key
    /// is parked no longer when its last letter has gone; nothing overtakes in between, however many batches that takes.
    /// What dies again meanwhile is left where it is.
    ///
    /// Each batch locks its lanes for moments: on Postgres, MySQL and MariaDB it waits for each for 5 s at most, and on
    /// Postgres and MariaDB no statement of it may take more than 6 s.
    ///
    /// # Errors
    /// As [`check_schema`](Self::check_schema); [`ErrorKind::LockTimeout`](crate::ErrorKind::LockTimeout) where others held a
    /// lane for too long. Batches before it are done; whether the last one is, is unknown, but not after `LockTimeout`. Repeating the call
    /// is safe.
    ///
    /// # Cancel safety
    /// Stops after the batch under way, which takes effect wholly or not at all.
    pub async fn redrive(&self, which: impl Into<Bulk>) -> Result<u64, Error> {
        let (moved, _) = self.in_batches(Change::Redrive, which.into()).await?;
        tracing::info!(target: crate::TARGET, actor = %self.actor, moved, "dead letters redriven");
        Ok(moved)
    }

    /// Deletes dead letters, for ever.
    ///
    /// When what is left of a parked key is merely parked, it goes back in order, at the same pace, and the key is parked
    /// no longer.
    ///
    /// # Errors
    /// As [`redrive`](Self::redrive). A key that could not be released stays parked until its letters are redriven;
    /// [`verify`](Self::verify) finds it.
    ///
    /// # Cancel safety
    /// As [`redrive`](Self::redrive), with the key as under errors.
    pub async fn discard(&self, which: impl Into<Bulk>) -> Result<Discarded, Error> {
        let which = which.into();
        let per_second = which.per_second;
        let (discarded, freed) = self.in_batches(Change::Discard, which).await?;
        let mut released = 0;
        for (topic, key) in freed {
            let select = Select {
                topic: Some(topic),
                key: Some(key),
                cause: Some("parked"),
                ..Select::default()
            };
            let detail = json!({ "released_by": "discard" });
            let (moved, _) = self
                .steps(
                    Change::Redrive,
                    select,
                    detail,
                    u64::MAX,
                    per_second,
                    &mut None,
                )
                .await?;
            released += moved;
        }
        tracing::info!(
            target: crate::TARGET, actor = %self.actor, discarded, released, "dead letters discarded"
        );
        Ok(Discarded {
            discarded,
            released,
        })
    }

    /// Delivers once more what was delivered and kept (see the relay's retention), in the order in which it was, and says
    /// how many messages.
    ///
    /// They take their old places, with no attempt spent and their old ids: a consumer that remembers them applies nothing.
    /// What is delivered again meanwhile is left where it is.
    ///
    /// Kept deliveries lie in the order of their times and have no other index, which every delivery would pay for. So this
    /// reads what was kept between [`since`](Filter::since) and [`until`](Filter::until), once, and without times all of it
    /// (on Postgres 0.2 s for a million that are in memory; else it is a matter of the disk). Nobody waits meanwhile: lanes
    /// are locked for what has been found, a batch at a time. Who looks for single events among many without knowing when
    /// makes the index, `ON mainstay_outbox_delivered (event_id)`; on Postgres, MySQL and MariaDB it is made use of.
    ///
    /// # Errors
    /// As [`redrive`](Self::redrive).
    ///
    /// # Cancel safety
    /// As [`redrive`](Self::redrive).
    pub async fn replay(&self, which: impl Into<Bulk>) -> Result<u64, Error> {
        let (moved, _) = self.in_batches(Change::Replay, which.into()).await?;
        tracing::info!(target: crate::TARGET, actor = %self.actor, moved, "deliveries replayed");
        Ok(moved)
    }

    async fn in_batches(
        &self,
        change: Change,
        mut bulk: Bulk,
    ) -> Result<(u64, Vec<(String, Vec<u8>)>), Error> {
        let detail = json!({
            "filter": bulk.filter.detail(), "limit": bulk.limit, "per_second": bulk.per_second,
        });
        self.check_schema().await?;
        let limit = bulk.limit.unwrap_or(u64::MAX);
        let select = bulk.filter.select();
        self.steps(
            change,
            select,
            detail,
            limit,
            bulk.per_second,
            &mut bulk.progress,
        )
        .await
    }

    /// Steps until one finds nothing more. Says how many rows and which keys are free to go.
    async fn steps(
        &self,
        change: Change,
        select: Select,
        detail: Value,
        limit: u64,
        per_second: u32,
        progress: &mut Progress,
    ) -> Result<(u64, Vec<(String, Vec<u8>)>), Error> {
        let (batch, apart) = pace(per_second);
        let mut step = Step {
            select,
            limit: batch,
            started_micros: None,
            after: None,
            entry: Entry {
                actor: self.actor.to_string(),
                detail: detail.to_string(),
                id: None,
            },
        };
        let mut next = Instant::now();
        let mut done = 0u64;
        let mut freed = Vec::new();
        while done < limit {
            sleep_until(next).await;
            step.limit = batch.min(u32::try_from(limit - done).unwrap_or(u32::MAX));
            let Stepped {
                affected,
                audit,
                at_micros,
                freed: more,
                reached,
                last,
            } = match change {
                Change::Redrive => Db::redrive(self.pool.clone(), step.clone()).await?,
                Change::Discard => Db::discard(self.pool.clone(), step.clone()).await?,
                Change::Replay => Db::replay(self.pool.clone(), step.clone()).await?,
            };
            // A later step may have deleted what an earlier one had left, and may leave less.
            freed.retain(|key| !more.contains(key));
            freed.extend(more);
            if affected == 0 {
                break;
            }
            done += affected;
            step.entry.id = audit;
            step.started_micros.get_or_insert(at_micros);
            step.after = reached;
            if let Some(progress) = progress {
                progress(done);
            }
            if last {
                break;
            }
            // A batch that was not full was the last but for what two operators at once take from each other.
            if affected == u64::from(step.limit) {
                next = (next + apart).max(Instant::now());
            }
        }
        Ok((done, freed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_make_the_pace() {
        for (per_second, batch, millis) in [
            (0, 1, 1_000),
            (1, 1, 1_000),
            (5, 1, 200),
            (50, 5, 100),
            (1_000, 100, 100),
            (100_000, 1_000, 10),
            (u32::MAX, 1_000, 0),
        ] {
            let (size, apart) = pace(per_second);
            assert_eq!((size, apart.as_millis()), (batch, millis), "{per_second}");
        }
    }
}
