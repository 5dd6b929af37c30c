//! The rates of a breaker at work: each a window, a threshold, and what it calls a hit.

use std::time::Duration;

use super::{
    state::Good,
    trip::{RateRule, Span, Trip},
    window::{CountWindow, Counter, EwmaWindow, Overdue, Reading, TimeWindow},
};

/// How a call ended, in the machine's nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// Good, bad, or nothing to be said.
    pub(super) health: Option<bool>,
    pub(super) started: u64,
    pub(super) now: u64,
}

pub(super) struct Rules {
    rates: Rates,
    times_calls: bool,
    reads_clock: bool,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a breaker has one of these; in place, the common case is one step less away"
)]
enum Rates {
    /// One rate, and it is about failures: the common case has a short way.
    Lone(Rate),
    Many(Box<[Rate]>),
}

struct Rate {
    counter: Counter,
    /// The threshold in parts of [`WHOLE`], rounded down: finer than any share of 65,535 calls that can be written
    /// with four digits.
    share: u64,
    min_calls: u64,
    slow: Option<Box<Slow>>,
}

struct Slow {
    limit: u64,
    overdue: Overdue,
}

const WHOLE_BITS: u32 = 30;

impl Rules {
    pub(super) fn new(trip: &Trip) -> Self {
        let rates: Vec<_> = trip.rates().map(Rate::new).collect();
        let times_calls = rates.iter().any(|rate| rate.slow.is_some());
        let reads_clock = times_calls || rates.iter().any(|rate| rate.counter.needs_clock());
        Self {
            rates: match <[Rate; 1]>::try_from(rates) {
                Ok([rate]) if !times_calls => Rates::Lone(rate),
                Ok(one) => Rates::Many(one.into()),
                Err(rates) => Rates::Many(rates.into()),
            },
            times_calls,
            reads_clock,
        }
    }

    fn rates(&self) -> &[Rate] {
        match &self.rates {
            Rates::Lone(rate) => std::slice::from_ref(rate),
            Rates::Many(rates) => rates,
        }
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.rates().is_empty()
    }

    /// Whether the start of a call matters.
    pub(super) const fn times_calls(&self) -> bool {
        self.times_calls
    }

    /// Whether the end of a call needs the time.
    #[inline]
    pub(super) const fn reads_clock(&self) -> bool {
        self.reads_clock
    }

    /// Whether it is time to look at the calls that are under way for too long.
    pub(super) fn overdue_are_due(&self, now: u64) -> bool {
        let mut slow = self.rates().iter().filter_map(|rate| rate.slow.as_ref());
        slow.any(|slow| slow.overdue.is_due(now))
    }

    /// Whether the calls that are under way for too long are enough to trip.
    pub(super) fn overdue_are_enough(&self, epoch: u32, now: u64) -> bool {
        let enough = |rate: &Rate| {
            let slow = rate.slow.as_ref();
            slow.is_some_and(|slow| rate.overdue_is_enough(slow, epoch, now))
        };
        self.rates().iter().any(enough)
    }

    /// A call starts.
    pub(super) fn start(&self, epoch: u32, now: u64) {
        let slow = self.rates().iter().filter_map(|rate| rate.slow.as_ref());
        slow.for_each(|slow| slow.overdue.start(epoch, now));
    }

    /// [`record`](Self::record) for a success that only one rate wants to know.
    #[inline(always)]
    pub(super) fn record_good(&self, epoch: u32, now: impl Fn() -> u64) -> Good {
        let Rates::Lone(rate) = &self.rates else {
            return Good::Unusual;
        };
        match &rate.counter {
            Counter::Count(window) => match window.take_good_turn(epoch) {
                None => Good::Counted,
                Some(turn) => rate.good(window.put_good(turn, epoch), epoch, 0),
            },
            Counter::Time(window) => rate.record_good_at(window, epoch, now()),
            Counter::Ewma(window) => match window.record(epoch, false) {
                Some(reading) if reading.hits != 0 => rate.good(Some(reading), epoch, 0),
                _ => Good::Counted,
            },
        }
    }

    /// Counts the end of a call. True when some rule is met.
    #[inline]
    pub(super) fn record(&self, epoch: u32, outcome: Outcome) -> bool {
        let mut met = false;
        for rate in self.rates() {
            met |= rate.record(epoch, outcome);
        }
        met
    }

    /// Whether a call that ran from `started` to `now` is slow for some rule.
    pub(super) fn is_slow(&self, started: u64, now: u64) -> bool {
        let mut slow = self.rates().iter().filter_map(|rate| rate.slow.as_ref());
        slow.any(|slow| now.saturating_sub(started) >= slow.limit)
    }

    /// Forgets everything, for a new epoch.
    pub(super) fn reset(&self, epoch: u32) {
        for rate in self.rates() {
            rate.counter.reset(epoch);
            if let Some(slow) = &rate.slow {
                slow.overdue.reset(epoch);
            }
        }
    }

    /// Whether no hit is remembered and nothing is overdue.
    pub(super) fn is_quiet(&self, epoch: u32, now: u64) -> bool {
        self.rates().iter().all(|rate| {
            let reading = rate.counter.read(epoch, now).unwrap_or_default();
            let slow = rate.slow.as_ref();
            reading.hits == 0 && slow.is_none_or(|slow| slow.overdue.count(epoch, now) == 0)
        })
    }

    /// What each holds now, in the order they were named in.
    pub(super) fn snapshot(&self, epoch: u32, now: u64) -> Vec<RateSnapshot> {
        let look = |rate: &Rate| {
            let reading = rate.counter.read(epoch, now).unwrap_or_default();
            let slow = rate.slow.as_ref();
            RateSnapshot {
                slow_after: slow.map(|slow| Duration::from_nanos(slow.limit)),
                calls: reading.calls,
                rate: reading.rate(),
                threshold: rate.share as f64 / (1u64 << WHOLE_BITS) as f64,
                min_calls: rate.min_calls,
                overdue: slow.map_or(0, |slow| slow.overdue.count(epoch, now)),
            }
        };
        self.rates().iter().map(look).collect()
    }
}

/// One rate of a breaker, at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RateSnapshot {
    /// What makes a call slow, for a rule about slow calls; `None` for one about failures.
    pub slow_after: Option<Duration>,
    /// Calls in the window.
    pub calls: u64,
    /// The share of them that failed, or was slow: 0 to 1.
    pub rate: f64,
    /// The share at which the circuit opens.
    pub threshold: f64,
    /// How many calls the window must hold before the rate says anything.
    pub min_calls: u64,
    /// Calls under way that are slow already. Not part of `rate`; the rule counts them in.
    pub overdue: u64,
}

impl Rate {
    fn new(rule: &RateRule) -> Self {
        let counter = match rule.window.span {
            Span::Count(size) => Counter::Count(CountWindow::new(size)),
            Span::Time(length) => Counter::Time(TimeWindow::new(nanos(length))),
            Span::Ewma(size) => Counter::Ewma(EwmaWindow::new(size)),
        };
        let slow = rule.slow.map(|limit| {
            Box::new(Slow {
                limit: nanos(limit),
                overdue: Overdue::new(nanos(limit)),
            })
        });
        Self {
            counter,
            share: (rule.rate * (1u64 << WHOLE_BITS) as f64) as u64,
            min_calls: u64::from(rule.min_calls()),
            slow,
        }
    }

    #[inline]
    fn record(&self, epoch: u32, outcome: Outcome) -> bool {
        let hit = match (&self.slow, outcome.health) {
            (Some(slow), health) => match self.end_timed(slow, epoch, outcome, health) {
                Some(hit) => hit,
                None => return false,
            },
            (None, None) => return false,
            (None, Some(good)) => !good,
        };
        let Some(reading) = self.counter.record(epoch, outcome.now, hit) else {
            return false;
        };
        let met =
            reading.hits != 0 && self.is_met(reading) && self.is_surely_met(epoch, outcome.now);
        met || self
            .slow
            .as_ref()
            .is_some_and(|slow| self.overdue_is_enough(slow, epoch, outcome.now))
    }

    /// Whether the call was slow; `None` when it ended too early, and in a way that says nothing.
    fn end_timed(
        &self,
        slow: &Slow,
        epoch: u32,
        outcome: Outcome,
        health: Option<bool>,
    ) -> Option<bool> {
        slow.overdue.end(epoch, outcome.started);
        let hit = outcome.now.saturating_sub(outcome.started) >= slow.limit;
        (hit || health.is_some()).then_some(hit)
    }

    /// Apart, for a look at the clock is in it already.
    #[inline(never)]
    fn record_good_at(&self, window: &TimeWindow, epoch: u32, now: u64) -> Good {
        match window.record_good(epoch, now) {
            None => Good::Counted,
            reading => self.good(reading, epoch, now),
        }
    }

    /// What a success has brought about that was counted among failures: it too may fill the window up to the number of
    /// calls from which on the rate says something.
    #[cold]
    fn good(&self, reading: Option<Reading>, epoch: u32, now: u64) -> Good {
        let met = |reading: Reading| reading.hits != 0 && self.is_met(reading);
        if reading.is_some_and(met) && self.is_surely_met(epoch, now) {
            Good::Met
        } else {
            Good::Counted
        }
    }

    fn is_met(&self, reading: Reading) -> bool {
        // Both sides stay below 2^64: readings below 2^34, the share at most 2^30.
        reading.calls >= self.min_calls && reading.hits << WHOLE_BITS >= self.share * reading.of
    }

    /// The second look, when the first was at two words that may belong to different moments.
    #[cold]
    fn is_surely_met(&self, epoch: u32, now: u64) -> bool {
        let reading = self.counter.read(epoch, now);
        reading.is_some_and(|reading| self.is_met(reading))
    }

    /// Whether it trips when the calls that are overdue are taken for slow ones that have ended.
    fn overdue_is_enough(&self, slow: &Slow, epoch: u32, now: u64) -> bool {
        let Some(overdue @ 1..) = slow.overdue.look(epoch, now) else {
            return false;
        };
        let Some(reading) = self.counter.read(epoch, now) else {
            return false;
        };
        // An average takes them in one by one; a window adds them, and has no need to push others out for that.
        let reading = match &self.counter {
            Counter::Ewma(window) => window.with_hits(reading, overdue),
            Counter::Count(_) | Counter::Time(_) => {
                Reading::counted(reading.calls + overdue, reading.hits + overdue)
            }
        };
        self.is_met(reading)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
