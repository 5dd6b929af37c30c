//! An instant both databases keep without loss: `timestamptz` on Postgres, integer microseconds on SQLite.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch, as a column type.
///
/// It reads and writes Postgres `timestamptz` and SQLite `INTEGER` alike, so that one row type serves both
/// databases, and keeps every microsecond; date crates are free to turn it into theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMicros(pub i64);

impl UnixMicros {
    /// The instant of a system time, cut (downward) to the microsecond.
    #[must_use]
    pub fn from_system_time(at: SystemTime) -> Self {
        Self(match at.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                let before = before.duration();
                let cut = i64::from(before.subsec_nanos() % 1_000 != 0);
                i64::try_from(before.as_micros()).map_or(i64::MIN, |micros| -micros - cut)
            }
        })
    }

    /// The instant as a system time; `None` if the platform cannot hold it.
    #[must_use]
    pub fn to_system_time(self) -> Option<SystemTime> {
        let distance = Duration::from_micros(self.0.unsigned_abs());
        if self.0 < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        }
    }
}

impl From<SystemTime> for UnixMicros {
    fn from(at: SystemTime) -> Self {
        Self::from_system_time(at)
    }
}

impl From<UnixMicros> for crate::Key {
    fn from(at: UnixMicros) -> Self {
        Self::Micros(at.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_are_cut_downward_too() {
        assert_eq!(
            UnixMicros::from(UNIX_EPOCH - Duration::from_nanos(1_500)),
            UnixMicros(-2)
        );
        assert_eq!(
            UnixMicros::from(UNIX_EPOCH - Duration::from_micros(2)),
            UnixMicros(-2)
        );
        assert_eq!(
            UnixMicros::from(UNIX_EPOCH + Duration::from_nanos(1_999)),
            UnixMicros(1)
        );
        assert_eq!(
            UnixMicros(-2).to_system_time(),
            Some(UNIX_EPOCH - Duration::from_micros(2))
        );
    }
}
