//! Whether a sink may be asked: up, down until a time, or being probed. Pure: `now` is passed in.

use std::time::Duration;

use mainstay_retry::Backoff;
use rand::Rng;
use tokio::time::Instant;

/// The longest a sink is left alone, whatever the schedule says: a probe an hour costs nothing.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// A breaker for a whole sink, tripped by its own word that it is down and never by a message's failure.
///
/// While down nothing is claimed for it, so an outage spends no attempts. When the wait is over one message of one lane
/// probes it; only when that got an answer does the backlog flow again.
#[derive(Debug)]
pub(crate) struct Gate {
    backoff: Backoff,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down {
        until: Instant,
        failures: u32,
        wait: Duration,
    },
    /// The probe is under way; nothing else goes until it is back.
    Probing {
        failures: u32,
        wait: Duration,
    },
}

/// What may be claimed for a sink now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Open,
    /// One message.
    Probe,
    Shut,
}

impl Gate {
    pub(crate) const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            state: State::Up,
        }
    }

    pub(crate) fn pass(&self, now: Instant) -> Pass {
        match self.state {
            State::Up => Pass::Open,
            State::Down { until, .. } if now >= until => Pass::Probe,
            State::Down { .. } | State::Probing { .. } => Pass::Shut,
        }
    }

    /// When a gate that is shut may be probed. While a probe is under way, not before it is back.
    pub(crate) fn until(&self, now: Instant) -> Instant {
        match self.state {
            State::Up => now,
            State::Down { until, .. } => until,
            State::Probing { .. } => now + WAIT_MAX,
        }
    }

    /// Something was sent; if the gate was not up, that was the probe.
    pub(crate) const fn probe(&mut self) {
        if let State::Down { failures, wait, .. } = self.state {
            self.state = State::Probing { failures, wait };
        }
    }

    /// A batch came back of which the sink tried nothing: if it was the probe, another one is due after the same wait.
    pub(crate) fn untried(&mut self, now: Instant) {
        if let State::Probing { failures, wait } = self.state {
            self.state = State::Down {
                until: now + wait,
                failures,
                wait,
            };
        }
    }

    /// The sink answered for a message, whatever the answer. Says whether that ended an outage.
    pub(crate) fn answered(&mut self) -> bool {
        let was_down = self.state != State::Up;
        self.state = State::Up;
        was_down
    }

    /// The sink said it is down. Gives the wait if this is news: batches that were under way together meet one outage.
    pub(crate) fn down<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R) -> Option<Duration> {
        let (failures, before) = match self.state {
            State::Up => (0, Duration::ZERO),
            State::Down { until, .. } if now < until => return None,
            State::Down { failures, wait, .. } | State::Probing { failures, wait } => {
                (failures, wait)
            }
        };
        let failures = failures.saturating_add(1);
        let wait = self.backoff.delay(failures, before, rng).min(WAIT_MAX);
        self.state = State::Down {
            until: now + wait,
            failures,
            wait,
        };
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_shuts_probes_and_opens() {
        let mut rng = StdRng::seed_from_u64(1);
        let second = Duration::from_secs(1);
        let mut gate = Gate::new(Backoff::exponential(second, second * 4));
        let start = Instant::now();
        assert_eq!(gate.pass(start), Pass::Open);

        assert_eq!(gate.down(start, &mut rng), Some(second));
        assert_eq!(gate.pass(start), Pass::Shut);
        assert_eq!(gate.down(start, &mut rng), None, "the same outage");

        let later = start + second;
        assert_eq!(gate.pass(later), Pass::Probe);
        gate.probe();
        assert_eq!(gate.pass(later), Pass::Shut, "one probe at a time");
        gate.untried(later);
        let later = later + second;
        assert_eq!(gate.pass(later), Pass::Probe);
        gate.probe();
        assert_eq!(
            gate.down(later, &mut rng),
            Some(second * 2),
            "the probe failed"
        );

        assert!(gate.answered());
        assert_eq!(gate.pass(later), Pass::Open);
        assert_eq!(gate.down(later, &mut rng), Some(second), "forgotten");
    }
}
