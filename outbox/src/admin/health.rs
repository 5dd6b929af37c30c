//! One verdict for a readiness probe, with its reasons.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Admin, LaneLag, Verdict, age};
use crate::{
    error::Error,
    store::{LagRow, OutboxDb},
};

/// From where on something is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thresholds {
    /// The age of the oldest message that is degraded. Default 60 s.
    pub oldest_age_degraded: Duration,
    /// The age of the oldest message that is failing. Default 10 min.
    pub oldest_age_failing: Duration,
    /// How far back dead letters are counted. Default 5 min.
    pub dead_window: Duration,
    /// Dead letters within the window that are not worth telling. Default 0.
    pub dead_max: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            oldest_age_degraded: Duration::from_secs(60),
            oldest_age_failing: Duration::from_secs(600),
            dead_window: Duration::from_secs(300),
            dead_max: 0,
        }
    }
}

impl Thresholds {
    /// Ages of the oldest message from which on the outbox is degraded and failing.
    #[must_use]
    pub const fn oldest_age(mut self, degraded: Duration, failing: Duration) -> Self {
        self.oldest_age_degraded = degraded;
        self.oldest_age_failing = failing;
        self
    }

    /// More dead letters than `max` within `window` are degraded.
    #[must_use]
    pub const fn dead(mut self, window: Duration, max: u64) -> Self {
        self.dead_window = window;
        self.dead_max = max;
        self
    }
}

/// How an outbox is.
///
/// As JSON: `{"status":"degraded","reasons":[{"reason":"oldest_age","seconds":75.0}]}`. Whether a degraded outbox makes a
/// service unready is the service's to say: its producers do not depend on the relays.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The worst of the reasons.
    pub status: HealthStatus,
    /// What is wrong; nothing when all is well.
    pub reasons: Vec<HealthReason>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthStatus {
    /// Events flow.
    Ok,
    /// Some do not, or not as fast as they should.
    Degraded,
    /// None do, or far too slowly.
    Failing,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthReason {
    /// No relay is alive although messages wait. Failing.
    NoRelay,
    /// The oldest message waits for longer than it should. Degraded, or failing.
    OldestAge {
        /// Its age.
        #[serde(rename = "seconds", serialize_with = "seconds")]
        age: Duration,
    },
    /// Lanes have messages and no relay, although relays are alive. Degraded; they are taken within seconds.
    UnownedLanes {
        /// How many.
        lanes: u64,
    },
    /// Lanes settle nothing of what they have, though nothing of it is paused. Degraded.
    StalledLanes {
        /// How many.
        lanes: u64,
        /// The longest time.
        #[serde(rename = "seconds", serialize_with = "seconds")]
        quiet: Duration,
    },
    /// Messages died within the window. Degraded.
    DeadLetters {
        /// How many; [`Lag::COUNT_MAX`](crate::Lag::COUNT_MAX) means "at least".
        letters: u64,
        /// The window.
        #[serde(rename = "within_seconds", serialize_with = "seconds")]
        window: Duration,
    },
    /// A relay of this process finds a sink down. Degraded.
    SinkDown {
        /// The sink's topics, as the relay was told them.
        topics: String,
    },
}

impl Health {
    /// Adds the sinks that a relay of this process finds down, by their topics:
    /// [`RelayHandle::sinks_down`](crate::RelayHandle::sinks_down). The database does not know of them.
    #[must_use]
    pub fn with_sinks_down<S: Into<String>>(mut self, topics: impl IntoIterator<Item = S>) -> Self {
        for topics in topics {
            let topics = topics.into();
            self.reasons.push(HealthReason::SinkDown { topics });
            self.status = self.status.max(HealthStatus::Degraded);
        }
        self
    }
}

fn seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

pub(super) fn judge(limits: &Thresholds, lag: &LagRow, lanes: &[LaneLag], relays: u16) -> Health {
    let mut found = Vec::new();
    let waiting = lag.pending > 0;
    if relays == 0 && waiting {
        found.push((HealthStatus::Failing, HealthReason::NoRelay));
    }
    if let Some(age) = lag.oldest_micros.map(age) {
        let reason = HealthReason::OldestAge { age };
        if age >= limits.oldest_age_failing {
            found.push((HealthStatus::Failing, reason));
        } else if age >= limits.oldest_age_degraded {
            found.push((HealthStatus::Degraded, reason));
        }
    }
    let unowned = |lane: &&LaneLag| lane.verdict == Verdict::Unowned;
    let unowned = lanes.iter().filter(unowned).count() as u64;
    if unowned > 0 && relays > 0 {
        found.push((
            HealthStatus::Degraded,
            HealthReason::UnownedLanes { lanes: unowned },
        ));
    }
    let stalled = |lane: &LaneLag| match lane.verdict {
        Verdict::Stalled { quiet, why } if why != super::StallCause::Paused => Some(quiet),
        _ => None,
    };
    if let Some(quiet) = lanes.iter().filter_map(stalled).max() {
        let lanes = lanes.iter().filter_map(stalled).count() as u64;
        let reason = HealthReason::StalledLanes { lanes, quiet };
        found.push((HealthStatus::Degraded, reason));
    }
    let letters = lag.died_lately.unsigned_abs();
    if letters > limits.dead_max {
        let window = limits.dead_window;
        let reason = HealthReason::DeadLetters { letters, window };
        found.push((HealthStatus::Degraded, reason));
    }
    let status = found.iter().map(|(status, _)| *status).max();
    Health {
        status: status.unwrap_or(HealthStatus::Ok),
        reasons: found.into_iter().map(|(_, reason)| reason).collect(),
    }
}

impl<Db: OutboxDb> Admin<Db> {
    /// How the outbox is, for a readiness probe. It costs what [`lag`](Self::lag) and [`lanes`](Self::lanes) cost together.
    ///
    /// It has no bound of its own: where the database does not answer, neither does this. Put it into a
    /// [timeout](Self#how-long-a-call-takes).
    ///
    /// Paused topics are nobody's fault but make messages old: give their outboxes other thresholds while they last.
    ///
    /// # Errors
    /// [`Error`] of the database: which is a verdict as well.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn health(&self, limits: &Thresholds) -> Result<Health, Error> {
        let lag = self.lag_row(limits.dead_window).await?;
        let lanes = self.lanes_up_to(1).await?;
        let relays = Db::survey(self.pool.clone()).await?.relays;
        Ok(judge(limits, &lag, &lanes, relays))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::StallCause;

    const MINUTE: Duration = Duration::from_secs(60);

    fn lane(verdict: Verdict) -> LaneLag {
        LaneLag {
            lane: 0,
            owner: None,
            epoch: 0,
            lease_left: None,
            in_flight: 0,
            settled_ago: None,
            pending: 1,
            oldest_age: None,
            verdict,
        }
    }

    fn stalled(quiet: Duration, why: StallCause) -> LaneLag {
        lane(Verdict::Stalled { quiet, why })
    }

    #[test]
    fn the_worst_reason_is_the_verdict() {
        let limits = Thresholds::default();
        let row = LagRow::default();
        let well = judge(&limits, &row, &[], 0);
        assert_eq!((well.status, well.reasons.len()), (HealthStatus::Ok, 0));

        let row = LagRow {
            pending: 1,
            oldest_micros: Some(75_000_000),
            died_lately: 2,
            ..row
        };
        let lanes = [
            stalled(MINUTE, StallCause::InFlight),
            stalled(MINUTE * 2, StallCause::NotClaimed),
            stalled(MINUTE * 9, StallCause::Paused),
            lane(Verdict::Unowned),
            lane(Verdict::Flowing),
        ];
        let ill = judge(&limits, &row, &lanes, 1).with_sinks_down(["hooks.*"]);
        assert_eq!(ill.status, HealthStatus::Degraded);
        let json = serde_json::to_string(&ill).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"status":"degraded","reasons":[{"reason":"oldest_age","seconds":75.0},"#,
                r#"{"reason":"unowned_lanes","lanes":1},{"reason":"stalled_lanes","lanes":2,"seconds":120.0},"#,
                r#"{"reason":"dead_letters","letters":2,"within_seconds":300.0},"#,
                r#"{"reason":"sink_down","topics":"hooks.*"}]}"#
            )
        );

        let alone = judge(&limits, &row, &lanes, 0);
        assert_eq!(alone.status, HealthStatus::Failing);
        assert_eq!(alone.reasons.first(), Some(&HealthReason::NoRelay));

        let lenient = limits.oldest_age(MINUTE * 2, MINUTE * 3).dead(MINUTE, 2);
        assert_eq!(judge(&lenient, &row, &[], 1).status, HealthStatus::Ok);
        let strict = limits.oldest_age(MINUTE / 2, MINUTE).dead(MINUTE, 2);
        assert_eq!(judge(&strict, &row, &[], 1).status, HealthStatus::Failing);
    }
}
