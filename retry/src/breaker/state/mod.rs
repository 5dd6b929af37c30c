//! The state machine of a breaker: who is let in, and what outcomes change. No runtime; `now` comes in, and is
//! nanoseconds since the machine was made from then on: a subtraction is most of what a look at the clock costs.
//!
//! State, generation and the run of failures stand in one atomic word, so that a healthy call reads it and
//! writes nothing. Everything rarer happens under a lock. Every change of state goes through [`Machine::change`],
//! which starts a new generation; an outcome that was admitted by an older one finds that out by comparing and leaves.
//!
//! The lock is needed for every write that changes the state. The run of failures is also cleared without it; so
//! all writes are compare-exchange on the whole word, in which a stale generation always loses. Windows are counted in
//! without the lock too, and compare generations themselves: see `window`.

use std::time::{Duration, Instant};

use super::{
    builder::Settings,
    rules::{Outcome, Rules},
};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

mod snapshot;
mod word;

pub(super) use self::word::{CONSECUTIVE_MAX, Ticket};
use self::word::{Demands, Word};
pub use self::{snapshot::Snapshot, word::State};

/// One change of state, told exactly once. From [`State::MetricsOnly`] to itself: it would have opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) generation: u64,
}

/// What is said at the door.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Come in.
    Granted(Ticket),
    /// Not now. The wait until a probe, or zero when it depends on others.
    Refused(Duration),
}

/// What came of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recorded {
    Counted,
    /// A probe said nothing, and another may take its place.
    Freed,
    Changed(Transition),
}

/// What came of a success, on the short way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Good {
    /// It was counted, or there was nothing to count it.
    Counted,
    /// It was counted, and with it a rule is met.
    Met,
    /// Nothing was done: it is not of the present state, a failure was before it, or several rules want to know it.
    Unusual,
}

pub(super) struct Machine {
    word: AtomicU64,
    /// When the present open or half-open state is over. Written under the lock, before the word.
    until: AtomicU64,
    /// Failures in a row that trip it; more than the word can hold when there is no such rule.
    in_a_row: u32,
    rules: Rules,
    demands: Demands,
    settings: Settings,
    origin: Instant,
    slow: Mutex<Slow>,
}

/// What only matters while not closed.
#[derive(Default)]
struct Slow {
    /// How often it opened without having closed between, and the last wait: the input of the backoff.
    openings: u32,
    wait: Duration,
    probes_in_flight: u32,
    probes_succeeded: u32,
    /// Since it was made.
    opened: u64,
    /// Until when a further opening that does not happen is not worth a word.
    quiet_until: u64,
}

impl Machine {
    /// Times before `origin` count as `origin`.
    pub(super) fn new(settings: Settings, origin: Instant) -> Self {
        let rules = Rules::new(&settings.trip);
        let demands = Demands {
            outcomes: !rules.is_empty(),
            times: rules.times_calls(),
        };
        Self {
            word: AtomicU64::new(Word::new(State::Closed, 0, demands).0),
            until: AtomicU64::new(FOREVER),
            in_a_row: settings.trip.failures_in_a_row().unwrap_or(u32::MAX),
            rules,
            demands,
            settings,
            origin,
            slow: Mutex::new(Slow::default()),
        }
    }

    pub(super) fn state(&self) -> State {
        self.load().state()
    }

    /// Whether every call is let in.
    #[inline]
    pub(super) fn passes(&self) -> bool {
        self.load().passes()
    }

    /// Whether [`admit`](Self::admit) would refuse now, and the wait until a probe. Lets nobody in, but ends a half-open
    /// state whose time is over: whoever is refused on this answer does not come to `admit`, and the state would never
    /// end.
    pub(super) fn would_refuse(
        &self,
        now: impl Fn() -> Instant,
    ) -> (Option<Duration>, Option<Transition>) {
        let word = self.load();
        if word.passes() {
            return (None, None);
        }
        match word.state() {
            State::ForcedOpen => (Some(Duration::ZERO), None),
            State::Open => {
                let left = self.open_for(word, self.nanos(now()));
                (left.map(Duration::from_nanos), None)
            }
            _ => self.would_refuse_probe(self.nanos(now())),
        }
    }

    /// The refusal of a circuit that is open, or forced to be, and stays so; with no lock. In nanoseconds.
    #[inline]
    pub(super) fn left_open(&self, now: impl Fn() -> Instant) -> Option<u64> {
        let word = self.load();
        if word.code() == State::ForcedOpen.code() {
            return Some(0);
        }
        if word.code() != State::Open.code() {
            return None;
        }
        self.open_for(word, self.nanos(now()))
    }

    /// The nanoseconds left of an open state; `None` when it is over.
    #[inline]
    fn open_for(&self, word: Word, now: u64) -> Option<u64> {
        let until = self.until.load(Ordering::Acquire);
        // When the state has changed in between, this was another state's end.
        let same = self.load().0 == word.0;
        (until > now && same).then(|| until - now)
    }

    #[cold]
    fn would_refuse_probe(&self, now: u64) -> (Option<Duration>, Option<Transition>) {
        let mut slow = lock(&self.slow);
        let word = self.load();
        let over = self.until.load(Ordering::Acquire) <= now;
        match word.state() {
            State::Open => (self.open_for(word, now).map(Duration::from_nanos), None),
            State::HalfOpen if over => {
                let change = self.change(&mut slow, State::Open, now);
                (Some(slow.wait), Some(change))
            }
            State::HalfOpen if !slow.has_room(&self.settings) => (Some(Duration::ZERO), None),
            State::ForcedOpen => (Some(Duration::ZERO), None),
            _ => (None, None),
        }
    }

    /// How long somebody who waits for the state to change by itself has to wait; `None` when it will not.
    pub(super) fn changes_in(&self, now: Instant) -> Option<Duration> {
        let _slow = lock(&self.slow);
        let until = self.until.load(Ordering::Acquire);
        let timed = matches!(self.state(), State::Open | State::HalfOpen) && until != FOREVER;
        timed.then(|| Duration::from_nanos(until.saturating_sub(self.nanos(now))))
    }

    /// Lets a call in at once, if the circuit is closed and no rule is about time.
    #[inline]
    pub(super) fn pass(&self) -> Option<Ticket> {
        let word = self.load();
        word.counts_untimed().then(|| Ticket::new(word, 0))
    }

    /// [`pass`](Self::pass) where the start of a call matters.
    pub(super) fn pass_timed(&self, now: impl Fn() -> Instant) -> Option<Ticket> {
        let word = self.load();
        if !word.counts() {
            return word.passes().then(|| Ticket::new(word, 0));
        }
        let now = self.nanos(now());
        (!self.rules.overdue_are_due(now)).then(|| self.start(word, now))
    }

    /// Lets a call in or refuses it; moves on from open or half-open when their time is over.
    pub(super) fn admit(&self, now: impl Fn() -> Instant) -> (Admission, Option<Transition>) {
        let (word, now) = (self.load(), self.nanos(now()));
        if word.counts() && self.rules.times_calls() {
            // Calls that hang may be enough to open it, with no call that ends to say so.
            let enough = self.rules.overdue_are_enough(word.epoch(), now);
            let tripped = enough.then(|| self.trip(word.generation(), now)).flatten();
            if let Some(change) = tripped {
                return (self.after(change, now), Some(change));
            }
        }
        self.admit_at(now)
    }

    /// What a call gets whose own coming has opened the circuit, or would have.
    fn after(&self, change: Transition, now: u64) -> Admission {
        if change.to.counts() {
            let word = Word::new(change.to, change.generation, self.demands);
            return Admission::Granted(self.start(word, now));
        }
        let until = self.until.load(Ordering::Acquire);
        let left = if until == FOREVER { 0 } else { until };
        Admission::Refused(Duration::from_nanos(left.saturating_sub(now)))
    }

    fn start(&self, word: Word, now: u64) -> Ticket {
        if word.counts() {
            self.rules.start(word.epoch(), now);
        }
        Ticket::new(word, now)
    }

    fn admit_at(&self, now: u64) -> (Admission, Option<Transition>) {
        let word = self.load();
        if word.passes() {
            return (Admission::Granted(self.start(word, now)), None);
        }
        self.admit_probe(now)
    }

    #[cold]
    fn admit_probe(&self, now: u64) -> (Admission, Option<Transition>) {
        let mut slow = lock(&self.slow);
        let word = self.load();
        let until = self.until.load(Ordering::Acquire);
        let over = until <= now;
        match word.state() {
            State::Open if over => {
                let change = self.change(&mut slow, State::HalfOpen, now);
                slow.probes_in_flight = 1;
                (
                    Admission::Granted(Ticket::new(self.load(), now)),
                    Some(change),
                )
            }
            State::HalfOpen if over => {
                let change = self.change(&mut slow, State::Open, now);
                (Admission::Refused(slow.wait), Some(change))
            }
            State::Open => {
                let left = Duration::from_nanos(until - now);
                (Admission::Refused(left), None)
            }
            State::HalfOpen if slow.has_room(&self.settings) => {
                slow.probes_in_flight += 1;
                (Admission::Granted(Ticket::new(word, now)), None)
            }
            State::HalfOpen | State::ForcedOpen => (Admission::Refused(Duration::ZERO), None),
            State::Closed | State::ForcedClosed | State::Disabled | State::MetricsOnly => {
                // It has changed since; the lock keeps it from changing back.
                (Admission::Granted(self.start(word, now)), None)
            }
        }
    }

    /// Counts a success of a circuit that was and is closed, with at most one rate to count it: the way of nearly all.
    #[inline(always)]
    pub(super) fn record_good(&self, ticket: &Ticket, now: impl Fn() -> Instant) -> Good {
        let word = self.load();
        if word.0 != ticket.word {
            return Good::Unusual;
        }
        if !word.wants_outcomes() {
            return Good::Counted;
        }
        self.rules.record_good(word.epoch(), || self.nanos(now()))
    }

    /// Counts an outcome: good, bad, or `None` for one that says nothing.
    pub(super) fn record(
        &self,
        ticket: Ticket,
        health: Option<bool>,
        now: impl Fn() -> Instant,
    ) -> Recorded {
        if health == Some(true) {
            match self.record_good(&ticket, &now) {
                Good::Counted => return Recorded::Counted,
                Good::Met => return self.tripped(ticket, now),
                Good::Unusual => {}
            }
        }
        let word = self.load();
        let generation = ticket.generation();
        if word.generation() != generation {
            return Recorded::Counted;
        }
        if !word.counts() {
            return if word.state() == State::HalfOpen {
                self.end_probe(ticket, health, self.nanos(now()))
            } else {
                Recorded::Counted
            };
        }
        if !self.rules.is_empty() {
            let timed = self.rules.reads_clock();
            let outcome = Outcome {
                health,
                started: ticket.started,
                now: if timed { self.nanos(now()) } else { 0 },
            };
            if self.rules.record(word.epoch(), outcome) {
                return self.tripped(ticket, now);
            }
        }
        match health {
            Some(true) if word.failures() != 0 => self.clear_failures(word),
            Some(false) if self.in_a_row <= CONSECUTIVE_MAX => {
                return self.count_failure(generation, self.nanos(now()));
            }
            _ => {}
        }
        Recorded::Counted
    }

    /// Whether what a ticket's call does still counts.
    pub(super) fn is_current(&self, ticket: Ticket) -> bool {
        self.load().generation() == ticket.generation()
    }

    /// Puts the breaker into `state`, whatever it was in.
    pub(super) fn force(&self, state: State, now: Instant) -> Option<Transition> {
        let mut slow = lock(&self.slow);
        slow.quiet_until = 0;
        // Even when the state stays the same, calls under way belong to what was before the order.
        let change = self.change(&mut slow, state, self.nanos(now));
        (change.from != change.to).then_some(change)
    }

    #[cold]
    fn clear_failures(&self, mut word: Word) {
        let generation = word.generation();
        while word.failures() != 0 && word.generation() == generation {
            match self.exchange(word, word.with_failures(0)) {
                Ok(()) => return,
                Err(seen) => word = seen,
            }
        }
    }

    #[cold]
    fn count_failure(&self, generation: u64, now: u64) -> Recorded {
        let mut slow = lock(&self.slow);
        loop {
            let word = self.load();
            if word.generation() != generation {
                return Recorded::Counted;
            }
            let failures = word.failures().saturating_add(1).min(CONSECUTIVE_MAX);
            if failures >= self.in_a_row {
                let change = self.open(&mut slow, now);
                return change.map_or(Recorded::Counted, Recorded::Changed);
            }
            if self.exchange(word, word.with_failures(failures)).is_ok() {
                return Recorded::Counted;
            }
        }
    }

    /// A rule was met by the call of this ticket.
    #[cold]
    pub(super) fn tripped(&self, ticket: Ticket, now: impl Fn() -> Instant) -> Recorded {
        let change = self.trip(ticket.generation(), self.nanos(now()));
        change.map_or(Recorded::Counted, Recorded::Changed)
    }

    /// Opens on behalf of `generation`, of whose threads the first wins.
    #[cold]
    fn trip(&self, generation: u64, now: u64) -> Option<Transition> {
        let mut slow = lock(&self.slow);
        if self.load().generation() != generation {
            return None;
        }
        self.open(&mut slow, now)
    }

    /// Opens, or says that it would have.
    fn open(&self, slow: &mut Slow, now: u64) -> Option<Transition> {
        if self.load().state() != State::MetricsOnly {
            return Some(self.change(slow, State::Open, now));
        }
        // Counts anew, and is silent for as long as it would have been open: one word for one outage, not for one call.
        let change = self.change(slow, State::MetricsOnly, now);
        if slow.quiet_until > now {
            return None;
        }
        let wait = self.settings.wait_in_open.scheduled(1).min(TIME_MAX);
        slow.quiet_until = now.saturating_add(in_nanos(wait));
        slow.opened = slow.opened.saturating_add(1);
        Some(change)
    }

    #[cold]
    fn end_probe(&self, ticket: Ticket, health: Option<bool>, now: u64) -> Recorded {
        let mut slow = lock(&self.slow);
        if self.load().generation() != ticket.generation() {
            return Recorded::Counted;
        }
        slow.probes_in_flight = slow.probes_in_flight.saturating_sub(1);
        let is_slow = self.rules.is_slow(ticket.started, now);
        match health {
            _ if is_slow => Recorded::Changed(self.change(&mut slow, State::Open, now)),
            None => Recorded::Freed,
            Some(false) => Recorded::Changed(self.change(&mut slow, State::Open, now)),
            Some(true) => {
                slow.probes_succeeded += 1;
                if slow.probes_succeeded >= self.settings.half_open.probes {
                    Recorded::Changed(self.change(&mut slow, State::Closed, now))
                } else {
                    Recorded::Counted
                }
            }
        }
    }

    /// The only place where the state changes. The caller holds the lock.
    fn change(&self, slow: &mut Slow, to: State, now: u64) -> Transition {
        slow.probes_in_flight = 0;
        slow.probes_succeeded = 0;
        let mut until = None;
        match to {
            State::Open => {
                slow.opened = slow.opened.saturating_add(1);
                slow.openings = slow.openings.saturating_add(1);
                slow.wait =
                    self.settings
                        .wait_in_open
                        .delay(slow.openings, slow.wait, &mut rand::rng());
                until = Some(slow.wait);
            }
            State::HalfOpen => until = Some(self.settings.half_open.max_wait),
            State::Closed
            | State::ForcedOpen
            | State::ForcedClosed
            | State::Disabled
            | State::MetricsOnly => {
                slow.openings = 0;
                slow.wait = Duration::ZERO;
            }
        }
        let mut word = self.load();
        // Under the lock only the run of failures changes.
        let next = Word::new(to, word.generation() + 1, self.demands);
        if to.counts() {
            // Before anybody can be let in by the new generation; records of the old one find it gone.
            self.rules.reset(next.epoch());
        }
        let until = until.map_or(FOREVER, |wait| {
            now.saturating_add(in_nanos(wait.min(TIME_MAX)))
        });
        self.until.store(until, Ordering::Release);
        while let Err(seen) = self.exchange(word, next) {
            word = seen;
        }
        Transition {
            from: word.state(),
            to,
            generation: next.generation(),
        }
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        let slow = lock(&self.slow);
        let word = self.load();
        let nanos = self.nanos(now);
        let until = self.until.load(Ordering::Acquire);
        Snapshot {
            state: word.state(),
            generation: word.generation(),
            failures_in_a_row: word.failures(),
            opened: slow.opened,
            time_to_probe: (word.state() == State::Open)
                .then(|| Duration::from_nanos(until.saturating_sub(nanos))),
            probes_in_flight: slow.probes_in_flight,
            rates: self.rules.snapshot(word.epoch(), nanos),
        }
    }

    /// Whether nothing would be lost if it were made anew: closed, and no failure remembered.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let word = self.load();
        word.state() == State::Closed
            && word.failures() == 0
            && self.rules.is_quiet(word.epoch(), self.nanos(now))
    }

    fn nanos(&self, now: Instant) -> u64 {
        in_nanos(now.saturating_duration_since(self.origin))
    }

    #[inline]
    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    fn exchange(&self, old: Word, new: Word) -> Result<(), Word> {
        let result = self
            .word
            .compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire);
        result.map(drop).map_err(Word)
    }
}

/// Longer waits are as good as for ever, and instants cannot hold them all.
const TIME_MAX: Duration = Duration::from_secs(365 * 86_400);

/// An end that does not come by itself. Nanoseconds reach for 584 years.
const FOREVER: u64 = u64::MAX;

pub(super) fn in_nanos(time: Duration) -> u64 {
    const NANOS: u64 = 1_000_000_000;
    match time.as_secs() {
        seconds if seconds < u64::MAX / NANOS => seconds * NANOS + u64::from(time.subsec_nanos()),
        _ => u64::MAX,
    }
}

impl Slow {
    /// Probes under way and those that succeeded together never exceed the number that is permitted.
    fn has_room(&self, settings: &Settings) -> bool {
        self.probes_in_flight.saturating_add(self.probes_succeeded) < settings.half_open.probes
    }
}

#[cfg(test)]
#[cfg(mainstay_loom)]
mod loom_models;
#[cfg(test)]
#[cfg(not(mainstay_loom))]
mod tests;
