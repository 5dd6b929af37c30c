//! Topics that relays leave alone.

use std::time::SystemTime;

use super::Admin;
use crate::{
    error::{Error, ErrorKind},
    message::from_micros,
    pattern::Pattern,
    store::OutboxDb,
};

/// A pattern of topics that is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Paused {
    /// The pattern.
    pub pattern: String,
    /// Who paused it.
    pub actor: String,
    /// Since when, on the database's clock.
    pub since: SystemTime,
}

impl<Db: OutboxDb> Admin<Db> {
    /// Tells relays to leave topics alone: a topic, a prefix such as `hooks.*`, or `*` for all. Says whether that is news.
    ///
    /// In effect on all relays within their `poll_interval`; what is in flight ends first. Events can still be enqueued,
    /// and wait without spending attempts. Order is kept within what is paused and within what is not: of one key, later
    /// events of another topic go before those that wait here, to the same sink as well.
    ///
    /// # Errors
    /// [`ErrorKind::Pattern`] when it is none; [`ErrorKind::LockTimeout`] when others are changing the same pause; as
    /// [`check_schema`](Self::check_schema).
    ///
    /// # Cancel safety
    /// Atomic; whether a dropped call took effect, [`paused`](Self::paused) tells.
    pub async fn pause(&self, pattern: &str) -> Result<bool, Error> {
        let pattern = parsed(pattern)?;
        self.check_schema().await?;
        let news = Db::pause(
            self.pool.clone(),
            pattern.to_string(),
            self.actor.to_string(),
        )
        .await?;
        tracing::info!(target: crate::TARGET, actor = %self.actor, %pattern, news, "topics paused");
        Ok(news)
    }

    /// Takes a pause back: the same pattern that was paused. Says whether it was.
    ///
    /// Other patterns that fit the topics still pause them.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    ///
    /// # Cancel safety
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, pattern: &str) -> Result<bool, Error> {
        let pattern = parsed(pattern)?;
        self.check_schema().await?;
        let news = Db::resume(
            self.pool.clone(),
            pattern.to_string(),
            self.actor.to_string(),
        )
        .await?;
        tracing::info!(target: crate::TARGET, actor = %self.actor, %pattern, news, "topics resumed");
        Ok(news)
    }

    /// What is paused, in the order of the patterns.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn paused(&self) -> Result<Vec<Paused>, Error> {
        let rows = Db::paused(self.pool.clone()).await?;
        let paused = |row: crate::store::PauseRow| Paused {
            pattern: row.pattern,
            actor: row.actor,
            since: from_micros(row.since_micros),
        };
        Ok(rows.into_iter().map(paused).collect())
    }

    /// The patterns that are paused. One that somebody wrote by hand and that is none pauses nothing.
    pub(super) async fn pauses(&self) -> Result<Vec<Pattern>, Error> {
        let rows = Db::paused(self.pool.clone()).await?;
        Ok(rows
            .iter()
            .filter_map(|row| Pattern::parse(&row.pattern))
            .collect())
    }
}

fn parsed(pattern: &str) -> Result<Pattern, Error> {
    Pattern::parse(pattern).ok_or_else(|| Error::new(ErrorKind::Pattern))
}
