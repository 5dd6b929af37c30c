//! Whether a sink may be asked: up, down until a time, or being probed. Pure: `now` is passed in.

use std::time::Duration;

use mainstay_retry::Backoff;
use rand::Rng;
use tokio::time::Instant;

/// The longest a sink is left alone, whatever the schedule says: a probe an hour costs nothing.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// Batches under way from which on a sink that was down counts as up: as many as a relay usually has lanes.
const PACE_MAX: u32 = 64;

/// A breaker for a whole sink, tripped by its own word that it is down and never by a message's failure.
///
/// While down nothing is claimed for it, so an outage spends no attempts. When the wait is over one message of one lane
/// probes it; only when that got an answer does the backlog flow again, and not all of it at once: one batch, and twice as
/// many after each that comes back with something acked, until [`PACE_MAX`] may be under way.
///
/// Every batch carries the [`Stamp`] of the state it was sent in. What comes back later, of an outage that is over or of the
/// time before one, says nothing about now.
#[derive(Debug)]
pub(crate) struct Gate {
    backoff: Backoff,
    state: State,
    stamp: Stamp,
}

/// Between which two turns of a gate a batch was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

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
    /// It has answered, and is not given more than it has shown it can take.
    Returning {
        failures: u32,
        wait: Duration,
        allowed: u32,
        under_way: u32,
    },
}

/// What may be claimed for a sink now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Open,
    /// One message.
    Probe,
    /// This many batches.
    Paced(u32),
    Shut,
}

impl Gate {
    pub(crate) const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            state: State::Up,
            stamp: Stamp(0),
        }
    }

    pub(crate) fn pass(&self, now: Instant) -> Pass {
        match self.state {
            State::Up => Pass::Open,
            State::Down { until, .. } if now >= until => Pass::Probe,
            State::Down { .. } | State::Probing { .. } => Pass::Shut,
            State::Returning {
                allowed, under_way, ..
            } => match allowed.saturating_sub(under_way) {
                0 => Pass::Shut,
                more => Pass::Paced(more),
            },
        }
    }

    /// When a gate that is shut may be probed. While what it may have is under way, not before some of it is back.
    pub(crate) fn until(&self, now: Instant) -> Instant {
        match self.state {
            State::Up => now,
            State::Down { until, .. } => until,
            State::Probing { .. } | State::Returning { .. } => now + WAIT_MAX,
        }
    }

    #[cfg(test)]
    pub(crate) const fn stamp(&self) -> Stamp {
        self.stamp
    }

    const fn turn(&mut self, state: State) {
        self.state = state;
        self.stamp = Stamp(self.stamp.0.wrapping_add(1));
    }

    /// A batch was sent; if the sink was down, that was the probe. Gives its stamp.
    pub(crate) const fn sent(&mut self) -> Stamp {
        match &mut self.state {
            State::Up | State::Probing { .. } => {}
            State::Down { failures, wait, .. } => {
                let (failures, wait) = (*failures, *wait);
                self.turn(State::Probing { failures, wait });
            }
            State::Returning { under_way, .. } => *under_way = under_way.saturating_add(1),
        }
        self.stamp
    }

    /// Whether a batch with this stamp was sent since the last turn: only then what came of it counts.
    pub(crate) fn is_current(&self, stamp: Stamp) -> bool {
        self.stamp == stamp
    }

    /// Whether it is down as far as is known: not when a probe is due and there is nothing that would be one. It may be left
    /// waiting for one for so `long`.
    pub(crate) fn is_down(&self, now: Instant, long: Duration) -> bool {
        match self.state {
            State::Down { until, .. } => now < until + long,
            State::Probing { .. } => true,
            State::Up | State::Returning { .. } => false,
        }
    }

    /// A batch came back of which the sink tried nothing: if it was the probe, another one is due after the same wait.
    pub(crate) fn untried(&mut self, now: Instant) {
        match &mut self.state {
            State::Up | State::Down { .. } => {}
            State::Probing { failures, wait } => {
                let (failures, wait) = (*failures, *wait);
                let until = now + wait;
                self.turn(State::Down {
                    until,
                    failures,
                    wait,
                });
            }
            State::Returning { under_way, .. } => *under_way = under_way.saturating_sub(1),
        }
    }

    /// The sink answered for a batch, whatever the answer. Says whether that ended an outage.
    pub(crate) fn answered(&mut self, acked: bool) -> bool {
        match &mut self.state {
            State::Up => false,
            State::Down { failures, wait, .. } | State::Probing { failures, wait } => {
                let (failures, wait) = (*failures, *wait);
                self.turn(State::Returning {
                    failures,
                    wait,
                    allowed: 1,
                    under_way: 0,
                });
                true
            }
            State::Returning {
                allowed, under_way, ..
            } => {
                *under_way = under_way.saturating_sub(1);
                if acked {
                    *allowed *= 2;
                }
                if *allowed > PACE_MAX {
                    self.state = State::Up;
                }
                false
            }
        }
    }

    /// The sink said it is down. Gives the wait if this is news: batches that were under way together meet one outage.
    pub(crate) fn down<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R) -> Option<Duration> {
        let (failures, before) = match self.state {
            State::Up => (0, Duration::ZERO),
            State::Down { until, .. } if now < until => return None,
            State::Down { failures, wait, .. }
            | State::Probing { failures, wait }
            | State::Returning { failures, wait, .. } => (failures, wait),
        };
        let failures = failures.saturating_add(1);
        let wait = self.backoff.delay(failures, before, rng).min(WAIT_MAX);
        self.turn(State::Down {
            until: now + wait,
            failures,
            wait,
        });
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
        gate.sent();
        assert_eq!(gate.pass(later), Pass::Shut, "one probe at a time");
        gate.untried(later);
        let later = later + second;
        assert_eq!(gate.pass(later), Pass::Probe);
        gate.sent();
        assert_eq!(
            gate.down(later, &mut rng),
            Some(second * 2),
            "the probe failed"
        );

        assert!(gate.answered(true));
        for allowed in [1, 2, 4, 8, 16, 32, 64] {
            assert_eq!(gate.pass(later), Pass::Paced(allowed));
            gate.sent();
            assert!(!gate.answered(true), "that is no news");
        }
        assert_eq!(gate.pass(later), Pass::Open);
        assert_eq!(gate.down(later, &mut rng), Some(second), "forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_a_turn_does_not_count_after_it() {
        let mut rng = StdRng::seed_from_u64(1);
        let second = Duration::from_secs(1);
        let mut gate = Gate::new(Backoff::constant(second));
        let now = Instant::now();
        let (before, also) = (gate.sent(), gate.sent());
        assert!(gate.is_current(before) && gate.is_current(also));
        gate.down(now, &mut rng);
        assert!(!gate.is_current(also), "an ack does not end the outage");
        let probe = gate.sent();
        assert!(gate.is_current(probe) && !gate.is_current(also));
        gate.untried(now);
        assert!(!gate.is_current(probe));
        let probe = gate.sent();
        gate.answered(true);
        let stamps: Vec<Stamp> = (0..7).map(|_| gate.sent()).collect();
        for stamp in &stamps {
            assert!(gate.is_current(*stamp) && !gate.is_current(probe));
            gate.answered(true);
        }
        assert_eq!(gate.pass(now), Pass::Open);
        assert!(gate.is_current(stamps[0]), "that it is up again is no turn");
        assert!(!gate.is_current(before), "its outage is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_nothing_waits_for_is_not_told_as_down_for_ever() {
        let second = Duration::from_secs(1);
        let mut gate = Gate::new(Backoff::constant(second));
        let now = Instant::now();
        assert!(!gate.is_down(now, second));
        gate.down(now, &mut StdRng::seed_from_u64(1));
        let told = |gate: &Gate, after: u32| gate.is_down(now + second * after, second);
        assert_eq!(
            [0, 1, 2].map(|after| told(&gate, after)),
            [true, true, false]
        );
        gate.sent();
        assert!(told(&gate, 60), "its probe is out");
        gate.answered(false);
        assert!(!told(&gate, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_comes_back_earns_its_pace() {
        let mut rng = StdRng::seed_from_u64(1);
        let second = Duration::from_secs(1);
        let mut gate = Gate::new(Backoff::exponential(second, second * 4));
        let now = Instant::now();
        gate.down(now, &mut rng);
        let now = now + second;
        gate.sent();
        assert!(gate.answered(false));
        gate.sent();
        assert_eq!(gate.pass(now), Pass::Shut, "what it may have is under way");
        gate.answered(false);
        assert_eq!(
            gate.pass(now),
            Pass::Paced(1),
            "nothing acked, nothing earned"
        );
        gate.sent();
        gate.untried(now);
        assert_eq!(gate.pass(now), Pass::Paced(1), "given back");
        assert_eq!(
            gate.down(now, &mut rng),
            Some(second * 2),
            "not forgotten yet"
        );
    }
}
