//! The lanes one by one, each with a verdict.

use std::time::Duration;

use uuid::Uuid;

use super::{Admin, age};
use crate::{
    error::Error,
    pattern::Pattern,
    store::{LaneRow, OutboxDb},
};

/// A lane as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneLag {
    /// The lane.
    pub lane: u16,
    /// The relay that has it, or had it when its lease ran out.
    pub owner: Option<Uuid>,
    /// How often it has changed hands.
    pub epoch: i64,
    /// What is left of the lease; none when it is free.
    pub lease_left: Option<Duration>,
    /// Messages being published.
    pub in_flight: u64,
    /// How long ago a batch was written down.
    pub settled_ago: Option<Duration>,
    /// Messages not delivered yet; [`LaneLag::COUNT_MAX`] means "at least".
    pub pending: u64,
    /// How long the first of them has been waiting.
    pub oldest_age: Option<Duration>,
    /// What to think of it.
    pub verdict: Verdict,
}

/// What to think of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It has no messages.
    Idle,
    /// Messages are settled, or have not waited for long.
    Flowing,
    /// It has messages and no relay.
    Unowned,
    /// It has messages and a relay, and yet nothing comes of it.
    Stalled {
        /// How long nothing has been settled although there was something.
        quiet: Duration,
        /// What its first message waits for.
        why: StallCause,
    },
}

/// What the first message of a lane that stalls waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StallCause {
    /// A batch is with its sink, which does not answer.
    InFlight,
    /// Its topic is paused.
    Paused,
    /// It failed, and waits for its next attempt. Others of the lane would be settled if there were any of other keys.
    Retrying {
        /// Attempts spent.
        attempts: u32,
        /// How long it still waits.
        left: Duration,
    },
    /// Nothing that the database knows of: its sink is down, as the relay's log tells, or the relay hangs.
    NotClaimed,
}

impl LaneLag {
    /// Where counting stops: there may be a thousand lanes.
    pub const COUNT_MAX: u64 = 1_000;

    fn new(row: &LaneRow, paused: &[Pattern], stalled_after: Duration) -> Self {
        Self {
            lane: row.lane as u16,
            owner: row.owner,
            epoch: row.epoch,
            lease_left: row.lease_micros.filter(|left| *left > 0).map(age),
            in_flight: row.in_flight.unsigned_abs(),
            settled_ago: row.settled_micros.map(age),
            pending: row.pending.unsigned_abs(),
            oldest_age: row.head.as_ref().map(|head| age(head.age_micros)),
            verdict: verdict(row, paused, stalled_after),
        }
    }
}

/// Nothing was settled since the last settlement, or since the first message came if that was later.
fn verdict(row: &LaneRow, paused: &[Pattern], stalled_after: Duration) -> Verdict {
    let Some(head) = &row.head else {
        return Verdict::Idle;
    };
    if row.lease_micros.is_none_or(|left| left <= 0) {
        return Verdict::Unowned;
    }
    let quiet = age(row
        .settled_micros
        .map_or(head.age_micros, |settled| settled.min(head.age_micros)));
    if quiet < stalled_after {
        return Verdict::Flowing;
    }
    let why = match head.retry_micros {
        _ if row.in_flight > 0 => StallCause::InFlight,
        _ if paused.iter().any(|pattern| pattern.fits(&head.topic)) => StallCause::Paused,
        Some(left) if left > 0 => StallCause::Retrying {
            attempts: head.attempts.unsigned_abs(),
            left: age(left),
        },
        _ => StallCause::NotClaimed,
    };
    Verdict::Stalled { quiet, why }
}

impl<Db: OutboxDb> Admin<Db> {
    /// Every lane, in order, with a verdict. Its cost grows with the lanes, not with the backlog; while an old snapshot is held
    /// it grows as that of [`lag`](Self::lag) does.
    ///
    /// # Errors
    /// [`Error`] of the database.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn lanes(&self) -> Result<Vec<LaneLag>, Error> {
        self.lanes_up_to(LaneLag::COUNT_MAX).await
    }

    /// The lanes, counted up to a cap: verdicts need none.
    pub(super) async fn lanes_up_to(&self, cap: u64) -> Result<Vec<LaneLag>, Error> {
        let paused = self.pauses().await?;
        let cap = i64::try_from(cap).unwrap_or(i64::MAX);
        let rows = Db::lane_states(self.pool.clone(), cap).await?;
        let lane = |row: &LaneRow| LaneLag::new(row, &paused, self.stalled_after);
        Ok(rows.iter().map(lane).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::HeadRow;

    const MINUTE: i64 = 60_000_000;

    fn row() -> LaneRow {
        LaneRow {
            lane: 3,
            owner: None,
            epoch: 1,
            lease_micros: Some(5_000_000),
            in_flight: 0,
            settled_micros: Some(MINUTE),
            pending: 1,
            head: Some(HeadRow {
                topic: "hooks.a".to_owned(),
                age_micros: 2 * MINUTE,
                attempts: 0,
                retry_micros: None,
                reason: None,
            }),
        }
    }

    fn judged(change: impl FnOnce(&mut LaneRow), paused: &str) -> Verdict {
        let mut row = row();
        change(&mut row);
        let paused: Vec<_> = Pattern::parse(paused).into_iter().collect();
        verdict(&row, &paused, Duration::from_secs(30))
    }

    fn stalled(why: StallCause) -> Verdict {
        Verdict::Stalled {
            quiet: Duration::from_secs(60),
            why,
        }
    }

    #[test]
    fn a_lane_is_judged_by_what_it_settles_of_what_it_has() {
        assert_eq!(judged(|row| row.head = None, ""), Verdict::Idle);
        assert_eq!(
            judged(|row| row.lease_micros = None, ""),
            Verdict::Unowned,
            "given back"
        );
        assert_eq!(
            judged(|row| row.lease_micros = Some(-1), ""),
            Verdict::Unowned,
            "ran out"
        );
        assert_eq!(
            judged(|row| row.settled_micros = Some(1), ""),
            Verdict::Flowing
        );
        // Nothing was settled for an hour because there was nothing.
        let fresh = |row: &mut LaneRow| {
            row.settled_micros = Some(60 * MINUTE);
            row.head.as_mut().unwrap().age_micros = 1_000;
        };
        assert_eq!(judged(fresh, ""), Verdict::Flowing);
    }

    #[test]
    fn a_lane_that_stalls_says_why() {
        assert_eq!(judged(|_| {}, ""), stalled(StallCause::NotClaimed));
        assert_eq!(judged(|_| {}, "hooks.*"), stalled(StallCause::Paused));
        assert_eq!(
            judged(|row| row.in_flight = 2, "hooks.*"),
            stalled(StallCause::InFlight)
        );
        let retrying = |row: &mut LaneRow| {
            let head = row.head.as_mut().unwrap();
            (head.attempts, head.retry_micros) = (4, Some(MINUTE));
        };
        let why = StallCause::Retrying {
            attempts: 4,
            left: Duration::from_secs(60),
        };
        assert_eq!(judged(retrying, ""), stalled(why));
        let due = |row: &mut LaneRow| row.head.as_mut().unwrap().retry_micros = Some(-1);
        assert_eq!(judged(due, ""), stalled(StallCause::NotClaimed));
        let never = |row: &mut LaneRow| row.settled_micros = None;
        assert!(
            matches!(judged(never, ""), Verdict::Stalled { quiet, .. } if quiet.as_secs() == 120)
        );
    }
}
