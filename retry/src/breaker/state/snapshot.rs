//! What a breaker knows, for people.

use std::time::Duration;

use super::State;
use crate::breaker::rules::RateSnapshot;

/// A breaker at one moment: see [`BreakerHandle::snapshot`](crate::BreakerHandle::snapshot).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The state.
    pub state: State,
    /// Which period between two changes of state this is; it only grows.
    pub generation: u64,
    /// Failures since the last success of this period, where a rule counts them.
    pub failures_in_a_row: u32,
    /// How often it has opened since it was made; in [`State::MetricsOnly`], how often it would have.
    pub opened: u64,
    /// How long until an open circuit lets a probe in.
    pub time_to_probe: Option<Duration>,
    /// Calls under way that decide whether a half-open circuit closes.
    pub probes_in_flight: u32,
    /// Its rates, in the order in which the [`Trip`](crate::Trip) names them.
    pub rates: Vec<RateSnapshot>,
}
