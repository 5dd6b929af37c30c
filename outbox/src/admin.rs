//! For operators: how far behind, what died, and bringing it back.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use sqlx::Pool;

use crate::{
    error::Error,
    message::{Message, from_micros},
    store::{DeadRow, OutboxDb},
};

/// Looks after an outbox: lag, dead letters, redrive.
pub struct Admin<Db: OutboxDb> {
    pool: Pool<Db>,
}

/// How far behind the relays are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// Messages not delivered yet. Counting stops at [`Lag::COUNT_MAX`]: that value means "at least".
    pub pending: u64,
    /// Dead letters. Counting stops at [`Lag::COUNT_MAX`] as well.
    pub dead: u64,
    /// How long the oldest pending message has been waiting, on the database's clock.
    pub oldest_age: Option<Duration>,
}

impl Lag {
    /// Where counting stops: an exact count of ten million rows takes over a second, this takes milliseconds.
    pub const COUNT_MAX: u64 = 100_000;
}

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
}

impl DeadCause {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::NoSink => "no_sink",
        }
    }

    fn from_stored(name: &str) -> Self {
        match name {
            "rejected" => Self::Rejected,
            "no_sink" => Self::NoSink,
            _ => Self::Exhausted,
        }
    }
}

/// A message that was given up, with all it held.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    row: DeadRow,
}

impl DeadLetter {
    /// The message. Its [`attempt`](Message::attempt) is the number of attempts spent.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.row.message
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

    /// When, on the database's clock.
    #[must_use]
    pub fn died_at(&self) -> SystemTime {
        from_micros(self.row.died_micros)
    }
}

/// Which dead letters [`Admin::redrive`] brings back: the oldest first.
#[derive(Clone, Debug)]
#[must_use]
pub struct Redrive {
    topic: Option<String>,
    limit: u32,
}

impl Redrive {
    /// Of every topic, up to 1000 in one go: a thundering herd of dead letters is not what a mended sink needs.
    pub fn all() -> Self {
        Self {
            topic: None,
            limit: 1_000,
        }
    }

    /// Only those of this topic.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// At most this many in one go.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }
}

impl<Db: OutboxDb> Admin<Db> {
    /// Looks after the outbox behind this pool.
    #[must_use]
    pub fn new(pool: Pool<Db>) -> Self {
        Self { pool }
    }

    /// How far behind the relays are. Its cost does not grow with the backlog.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn lag(&self) -> Result<Lag, Error> {
        let cap = i64::try_from(Lag::COUNT_MAX).unwrap_or(i64::MAX);
        let row = Db::lag(self.pool.clone(), cap).await?;
        Ok(Lag {
            pending: row.pending.unsigned_abs(),
            dead: row.dead.unsigned_abs(),
            // A clock that was set back makes an age negative: that is no age at all.
            oldest_age: row
                .oldest_micros
                .map(|us| Duration::from_micros(us.max(0).unsigned_abs())),
        })
    }

    /// The oldest dead letters, up to `limit`.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn dead(&self, limit: u32) -> Result<Vec<DeadLetter>, Error> {
        let rows = Db::dead(self.pool.clone(), None, limit).await?;
        Ok(rows.into_iter().map(|row| DeadLetter { row }).collect())
    }

    /// The oldest dead letters of one topic, up to `limit`.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn dead_of(&self, topic: &str, limit: u32) -> Result<Vec<DeadLetter>, Error> {
        let rows = Db::dead(self.pool.clone(), Some(topic.to_owned()), limit).await?;
        Ok(rows.into_iter().map(|row| DeadLetter { row }).collect())
    }

    /// Brings dead letters back with their attempts forgotten, and says how many.
    ///
    /// They return to their old places, so among themselves, and before later messages of their keys that have not been
    /// delivered yet, they are in order. Later messages that were delivered meanwhile were, of course, earlier. Their
    /// ids are the old ones: a consumer's deduplication window decides whether it sees them as new.
    ///
    /// # Errors
    /// [`Error`] of the database; how many came back is then unknown, and repeating the call is safe.
    ///
    /// # Cancel safety
    /// Atomic: dropped, it moved all it would have moved or nothing.
    pub async fn redrive(&self, which: Redrive) -> Result<u64, Error> {
        let moved = Db::redrive(self.pool.clone(), which.topic, which.limit).await?;
        tracing::info!(target: crate::TARGET, moved, "dead letters redriven");
        Ok(moved)
    }
}

impl<Db: OutboxDb> Clone for Admin<Db> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
        }
    }
}

impl<Db: OutboxDb> fmt::Debug for Admin<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}
