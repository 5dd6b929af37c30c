//! Pending messages, and what each waits for.

use std::time::{Duration, SystemTime};

use super::{Admin, Filter, age};
use crate::{
    error::Error,
    message::{Message, from_micros},
    pattern::Pattern,
    store::{OutboxDb, PendingRow},
};

/// A message that has not been delivered.
#[derive(Clone, Debug)]
pub struct Pending {
    row: PendingRow,
    wait: Wait,
}

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// For its turn, or for its sink.
    Due,
    /// For its sink's answer: it is being published.
    InFlight,
    /// For an operator: its topic is paused.
    Paused,
    /// For an operator: its key is parked, and it will be set aside with it.
    Parked,
    /// For its next attempt.
    Retry {
        /// How long.
        left: Duration,
    },
    /// For a message of its key that waits for its next attempt.
    BehindKey,
    /// For its time.
    Later {
        /// When that is, on the database's clock.
        due_at: SystemTime,
    },
}

impl Pending {
    fn new(row: PendingRow, paused: &[Pattern]) -> Self {
        let wait = wait(&row, paused);
        Self { row, wait }
    }

    /// The message. Its [`attempt`](Message::attempt) is the next one.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.row.message
    }

    /// Its lane, or the one it will be in.
    #[must_use]
    pub const fn lane(&self) -> u16 {
        self.row.lane as u16
    }

    /// Its place in the lane: lower ones of a key go first. Of one whose time has not come, its place among those.
    #[must_use]
    pub const fn place(&self) -> i64 {
        self.row.id
    }

    /// When it was enqueued, on the database's clock; of a delayed one that is due by now, when it was due.
    #[must_use]
    pub fn enqueued_at(&self) -> SystemTime {
        from_micros(self.row.enqueued_micros)
    }

    /// What it waits for.
    #[must_use]
    pub const fn wait(&self) -> Wait {
        self.wait
    }

    /// Why it failed last, if it did.
    #[must_use]
    pub fn last_reason(&self) -> Option<&str> {
        self.row.reason.as_deref()
    }
}

/// The first that holds is told: what an operator did before what time will do.
fn wait(row: &PendingRow, paused: &[Pattern]) -> Wait {
    match (row.due_micros, row.retry_micros) {
        (Some(due), _) => Wait::Later {
            due_at: from_micros(due),
        },
        _ if row.in_flight => Wait::InFlight,
        _ if row.parked => Wait::Parked,
        _ if paused.iter().any(|one| one.fits(row.message.topic())) => Wait::Paused,
        (None, Some(left)) if left > 0 => Wait::Retry { left: age(left) },
        _ if row.behind => Wait::BehindKey,
        _ => Wait::Due,
    }
}

/// Rows of each lane that are looked at: what is asked for may stand behind millions that are not.
const SCAN: i64 = 1_600;

impl<Db: OutboxDb> Admin<Db> {
    /// Up to `limit` pending messages in the order of their ids, with what each waits for; then events whose time has not
    /// come, the next first.
    ///
    /// Looks at the first 1600 messages of each lane, and takes no locks: what is told may be delivered by now. Under
    /// [`KeyPolicy::Skip`](crate::KeyPolicy::Skip) nothing waits behind its key.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn peek(&self, filter: Filter, limit: u32) -> Result<Vec<Pending>, Error> {
        let select = filter.select();
        if select.cause.is_some() {
            return Ok(Vec::new());
        }
        let paused = self.pauses().await?;
        let mut rows = Db::peek(self.pool.clone(), select.clone(), SCAN, limit).await?;
        let room = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        if room > 0 {
            let later = Db::later(self.pool.clone(), select, room).await?;
            rows.extend(later.into_iter().map(|mut row| {
                // It gets its place among the others when its time has come.
                row.message.place = None;
                row
            }));
        }
        let pending = |row| Pending::new(row, &paused);
        Ok(rows.into_iter().map(pending).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::event::Event;

    fn waits(change: impl FnOnce(&mut PendingRow), paused: &str) -> Wait {
        let mut row = PendingRow {
            lane: 0,
            id: 1,
            message: Message::from_event(Event::new("t"), "/s", UNIX_EPOCH),
            enqueued_micros: 0,
            retry_micros: None,
            due_micros: None,
            in_flight: false,
            behind: false,
            parked: false,
            reason: None,
        };
        change(&mut row);
        let paused: Vec<_> = Pattern::parse(paused).into_iter().collect();
        wait(&row, &paused)
    }

    #[test]
    fn the_first_thing_that_holds_a_message_up_is_told() {
        let left = Duration::from_micros(7);
        assert_eq!(waits(|_| {}, ""), Wait::Due);
        assert_eq!(waits(|_| {}, "t*"), Wait::Paused);
        assert_eq!(
            waits(|row| row.retry_micros = Some(7), ""),
            Wait::Retry { left }
        );
        assert_eq!(waits(|row| row.retry_micros = Some(-7), ""), Wait::Due);
        assert_eq!(waits(|row| row.retry_micros = Some(7), "t"), Wait::Paused);
        assert_eq!(waits(|row| row.behind = true, ""), Wait::BehindKey);
        assert_eq!(waits(|row| row.parked = true, "t"), Wait::Parked);
        assert_eq!(waits(|row| row.in_flight = true, "t"), Wait::InFlight);
        let due_at = UNIX_EPOCH + left;
        assert_eq!(
            waits(|row| row.due_micros = Some(7), "t"),
            Wait::Later { due_at }
        );
    }
}
