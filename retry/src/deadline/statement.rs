//! The time left, as a database takes it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::Deadline;
use crate::error::DeadlineExceeded;

/// How long one database statement may take: whole milliseconds, never zero.
///
/// For every database below, zero turns the limit *off*. A deadline that has passed therefore gives no timeout but
/// [`DeadlineExceeded`], and the statement is not to be run.
///
/// **Postgres**: for the rest of the transaction, so that a pooled connection does not keep it. `SET` takes no
/// parameters, the function does. Each statement has the whole time anew: ask again before the next.
///
/// ```sql
/// SELECT set_config('statement_timeout', $1, true)   -- bind timeout.to_string(), such as 1500ms
/// ```
///
/// **MariaDB**: seconds with a fraction. The limit is the session's, so give it back before the pool gets the
/// connection.
///
/// ```sql
/// SET SESSION max_statement_time = ?                  -- bind timeout.as_duration().as_secs_f64()
/// SET SESSION max_statement_time = DEFAULT
/// ```
///
/// **MySQL**: milliseconds, for `SELECT` only.
///
/// ```sql
/// SET SESSION max_execution_time = ?                  -- bind timeout.millis()
/// ```
///
/// **SQLite** has no such limit. `PRAGMA busy_timeout` limits the wait for another writer's lock; to stop a statement that
/// runs, let a progress handler ask [`Deadline::has_passed`] every few thousand steps.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use std::time::Duration;
/// use mainstay_retry::Deadline;
///
/// let deadline = Deadline::within(Duration::from_millis(1_500));
/// let now = tokio::time::Instant::now().into_std();
/// assert_eq!(deadline.statement_timeout(now).unwrap().to_string(), "1500ms");
/// assert!(Deadline::within(Duration::ZERO).statement_timeout(now).is_err());
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementTimeout {
    millis: u32,
}

impl StatementTimeout {
    /// The most that Postgres takes, nearly 25 days; more is cut to this.
    pub const MAX: Self = Self {
        millis: i32::MAX.unsigned_abs(),
    };

    /// Whole milliseconds, at least 1.
    pub const fn millis(self) -> u32 {
        self.millis
    }

    /// The same as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.millis as u64)
    }
}

impl fmt::Display for StatementTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.millis)
    }
}

impl Deadline {
    /// The time left at `now` for a database statement, rounded down so that the database gives up first.
    ///
    /// # Errors
    /// [`DeadlineExceeded`], with nothing started, when less than a millisecond is left.
    pub fn statement_timeout(self, now: Instant) -> Result<StatementTimeout, DeadlineExceeded> {
        let most = StatementTimeout::MAX.millis;
        let millis =
            u32::try_from(self.remaining(now).as_millis()).map_or(most, |millis| millis.min(most));
        if millis == 0 {
            Err(DeadlineExceeded::new(false))
        } else {
            Ok(StatementTimeout { millis })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_zero_and_never_too_much() {
        let now = tokio::time::Instant::now().into_std();
        let timeout = |left| Deadline::after(now, left).statement_timeout(now);
        let millis = |left| timeout(left).map(StatementTimeout::millis);
        let late = Err(DeadlineExceeded::new(false));
        for (left, expected) in [
            (Duration::ZERO, late),
            (Duration::from_micros(999), late),
            (Duration::from_micros(1_999), Ok(1)),
            (Duration::from_secs(30), Ok(30_000)),
            (Duration::MAX, Ok(2_147_483_647)),
        ] {
            assert_eq!(millis(left), expected, "{left:?}");
        }
        let later = now + Duration::from_secs(1);
        assert!(Deadline::at(now).statement_timeout(later).is_err());
    }
}
