//! How far behind the relays are, as a whole and by topic.

use std::time::Duration;

use super::{Admin, age};
use crate::{
    error::Error,
    store::{LagRow, OutboxDb, TopicRow},
};

/// How far behind the relays are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// Messages not delivered yet, as precisely as `precision` says.
    pub pending: u64,
    /// What `pending` is.
    pub precision: Precision,
    /// How long the oldest pending message has been waiting, on the database's clock.
    pub oldest_age: Option<Duration>,
    /// Events whose time has not come. Like all that follows, [`Lag::COUNT_MAX`] means "at least".
    pub later: u64,
    /// Dead letters.
    pub dead: u64,
    /// Keys that are parked.
    pub parked_keys: u64,
    /// Patterns of topics that are paused.
    pub paused: u64,
}

/// What a number is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// Counted.
    Exact,
    /// Guessed, from the database's statistics or the span of the ids: good for a gauge, not for a decision.
    Estimated,
    /// Counting stopped there.
    AtLeast,
}

/// How far behind the relays are with a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicLag {
    /// The topic.
    pub topic: String,
    /// Messages not delivered yet, among those looked at.
    pub pending: u64,
    /// [`Precision::AtLeast`] when a lane holds more messages than were looked at.
    pub precision: Precision,
    /// Of those the ones that wait for a retry.
    pub retrying: u64,
    /// How long the oldest of them has been waiting, on the database's clock.
    pub oldest_age: Duration,
}

impl Lag {
    /// Where counting stops: a count of ten million rows takes over a second, this a fraction of a millisecond.
    pub const COUNT_MAX: u64 = 1_000;

    pub(super) fn new(row: &LagRow) -> Self {
        let counted = row.pending.unsigned_abs();
        let (pending, precision) = match row.pending_guess.map(i64::unsigned_abs) {
            _ if counted < Self::COUNT_MAX => (counted, Precision::Exact),
            Some(guess) if guess > counted => (guess, Precision::Estimated),
            _ => (counted, Precision::AtLeast),
        };
        Self {
            pending,
            precision,
            oldest_age: row.oldest_micros.map(age),
            later: row.later.unsigned_abs(),
            dead: row.dead.unsigned_abs(),
            parked_keys: row.parked.unsigned_abs(),
            paused: row.paused.unsigned_abs(),
        }
    }
}

/// Rows of each lane that [`Admin::lag_by_topic`] looks at: a hundred thousand with 64 lanes.
const SCAN: i64 = 1_600;

impl<Db: OutboxDb> Admin<Db> {
    /// How far behind the relays are.
    ///
    /// Looks at the first message of each lane and counts up to [`Lag::COUNT_MAX`]: what that costs does not grow with the
    /// backlog, and is fit for a gauge. It grows with what was delivered while somebody holds an old snapshot: a dump, a
    /// report, a replica with `hot_standby_feedback`. Until that ends the rows cannot be removed, and each of them is stepped
    /// over, here and in [`lanes`](Self::lanes), [`health`](Self::health) and `LagMonitor`: each time
    /// 1.3 s for a million of them on Postgres, a second for half a million on MariaDB.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn lag(&self) -> Result<Lag, Error> {
        Ok(Lag::new(&self.lag_row(Duration::ZERO).await?))
    }

    /// The counts, with the letters that died within a window.
    pub(super) async fn lag_row(&self, lately: Duration) -> Result<LagRow, Error> {
        let cap = i64::try_from(Lag::COUNT_MAX).unwrap_or(i64::MAX);
        Db::lag(self.pool.clone(), cap, lately).await
    }

    /// How far behind the relays are with each topic, in the order of their names.
    ///
    /// Looks at the first 1600 messages of each lane: a topic that stands only behind those is not told. With a large
    /// backlog this takes a tenth of a second: not for a gauge.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn lag_by_topic(&self) -> Result<Vec<TopicLag>, Error> {
        let rows = Db::topics(self.pool.clone(), SCAN).await?;
        let precision = if rows.iter().any(|row| row.deepest >= SCAN) {
            Precision::AtLeast
        } else {
            Precision::Exact
        };
        let topic = |row: TopicRow| TopicLag {
            topic: row.topic,
            pending: row.pending.unsigned_abs(),
            precision,
            retrying: row.retrying.unsigned_abs(),
            oldest_age: age(row.oldest_micros),
        };
        Ok(rows.into_iter().map(topic).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_says_what_it_is_worth() {
        for (counted, guess, pending, precision) in [
            (5, Some(1_000_000), 5, Precision::Exact),
            (1_000, Some(1_000_000), 1_000_000, Precision::Estimated),
            (1_000, Some(7), 1_000, Precision::AtLeast),
            (1_000, None, 1_000, Precision::AtLeast),
        ] {
            let lag = Lag::new(&LagRow {
                pending: counted,
                pending_guess: guess,
                oldest_micros: Some(-5),
                ..LagRow::default()
            });
            assert_eq!((lag.pending, lag.precision), (pending, precision));
            assert_eq!(lag.oldest_age, Some(Duration::ZERO), "a clock set back");
        }
    }
}
