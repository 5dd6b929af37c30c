//! What was given up, and why.

use std::time::SystemTime;

use super::{Admin, Filter};
use crate::{
    error::Error,
    message::{Message, from_micros},
    store::{DeadRow, OutboxDb},
};

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadCause {
    /// The sink said it will never work.
    Rejected,
    /// Its attempts were used up.
    Exhausted,
    /// No sink of the relay takes its topic.
    NoSink,
    /// Its key was parked: an earlier message of it was given up.
    Parked,
}

impl DeadCause {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::NoSink => "no_sink",
            Self::Parked => "parked",
        }
    }

    fn from_stored(name: &str) -> Self {
        match name {
            "rejected" => Self::Rejected,
            "no_sink" => Self::NoSink,
            "parked" => Self::Parked,
            _ => Self::Exhausted,
        }
    }
}

/// A message that was given up, with all it held.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    row: DeadRow,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When that was written down, on the database's clock.
    pub at: SystemTime,
    /// Why.
    pub reason: String,
}

impl DeadLetter {
    /// The message. Its [`attempt`](Message::attempt) is the number of attempts spent.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.row.message
    }

    /// Its lane.
    #[must_use]
    pub const fn lane(&self) -> u16 {
        self.row.lane as u16
    }

    /// Its place in the lane, to which a redrive brings it back.
    #[must_use]
    pub const fn place(&self) -> i64 {
        self.row.id
    }

    /// Why it was given up.
    #[must_use]
    pub fn cause(&self) -> DeadCause {
        DeadCause::from_stored(&self.row.cause)
    }

    /// What the last failure said.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.row.reason
    }

    /// Its last failures, up to ten, the oldest first. Of a history that somebody edited only what can be read.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        let stored: Vec<(u32, i64, String)> =
            serde_json::from_str(&self.row.failures).unwrap_or_default();
        let failure = |(attempt, micros, reason)| Failure {
            attempt,
            at: from_micros(micros),
            reason,
        };
        stored.into_iter().map(failure).collect()
    }

    /// When, on the database's clock.
    #[must_use]
    pub fn died_at(&self) -> SystemTime {
        from_micros(self.row.died_micros)
    }
}

impl<Db: OutboxDb> Admin<Db> {
    /// Up to `limit` dead letters, in the order in which their messages were enqueued.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn dead(&self, filter: Filter, limit: u32) -> Result<Vec<DeadLetter>, Error> {
        let rows = Db::dead(self.pool.clone(), filter.select(), limit).await?;
        Ok(rows.into_iter().map(|row| DeadLetter { row }).collect())
    }

    /// How many dead letters there are, and a discard with this filter would delete now, up to `cap`.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn count_dead(&self, filter: Filter, cap: u64) -> Result<u64, Error> {
        let cap = i64::try_from(cap).unwrap_or(i64::MAX);
        let count = Db::count_dead(self.pool.clone(), filter.select(), false, cap).await?;
        Ok(count.unsigned_abs())
    }

    /// How many dead letters a redrive with this filter would bring back now, up to `cap`: of a parked key only those before
    /// which no other stays.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn count_to_redrive(&self, filter: Filter, cap: u64) -> Result<u64, Error> {
        let cap = i64::try_from(cap).unwrap_or(i64::MAX);
        let count = Db::count_dead(self.pool.clone(), filter.select(), true, cap).await?;
        Ok(count.unsigned_abs())
    }

    /// How many kept deliveries a replay with this filter would find now, up to `cap`. Reads as [`replay`](Self::replay) does.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn count_delivered(&self, filter: Filter, cap: u64) -> Result<u64, Error> {
        let cap = i64::try_from(cap).unwrap_or(i64::MAX);
        let count = Db::count_delivered(self.pool.clone(), filter.select(), cap).await?;
        Ok(count.unsigned_abs())
    }
}
